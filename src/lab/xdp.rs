//! What the lab adds so that XDP programs work on its cables as they do on network cards.
//!
//! - A veth drops frames that XDP sends back unless a program stands at its other end: the router's ports get one
//!   that passes everything.
//! - Checksums that a veth leaves to the card are lost when XDP sends a frame back; cards receive whole ones. The
//!   client computes its own.
//! - Daemons need a bpffs to pin in: one of the lab's own, in its folder.

use std::path::{Path, PathBuf};

use super::site::Site;

/// Where a lab's bpffs is mounted, below its folder.
const BPFFS: &str = "bpf";

/// Keeps the router's programs where they are.
#[derive(Debug)]
pub(crate) struct Aids {
    #[cfg(feature = "xdp")]
    _router: crate::datapath::kernel::Datapath,
}

/// The folder in which a node's daemon pins.
pub(crate) fn pins(folder: &Path, node: &str) -> PathBuf {
    folder.join(BPFFS).join(node)
}

/// Connections that the maps pinned in this folder remember.
///
/// # Errors
/// One of them cannot be read.
#[cfg(feature = "xdp")]
pub(crate) fn remembered(pins: &Path) -> anyhow::Result<usize> {
    use anyhow::Context;
    use aya::maps::{HashMap, Map, MapData};

    use crate::datapath::types::{Flow, FlowKey};

    let count = |name: &str| -> anyhow::Result<usize> {
        let map = MapData::from_pin(pins.join(name)).with_context(|| format!("open the map {name}"))?;
        let map: HashMap<MapData, FlowKey, Flow> = Map::LruHashMap(map).try_into()?;
        Ok(map.keys().filter(Result::is_ok).count())
    };
    Ok(count("flows")? + count("replies")?)
}

/// Never: the command line was refused.
#[cfg(not(feature = "xdp"))]
pub(crate) fn remembered(_: &Path) -> anyhow::Result<usize> {
    anyhow::bail!("this program was built without the feature `xdp`")
}

/// Prepares a site that is built.
///
/// # Errors
/// The kernel refused a step, or this program was built without XDP.
#[cfg(feature = "xdp")]
pub(crate) async fn prepare(site: &Site, folder: &Path) -> anyhow::Result<Aids> {
    use anyhow::Context;

    use crate::datapath::kernel::{Datapath, Options, Step};

    let bpffs = folder.join(BPFFS);
    std::fs::create_dir(&bpffs)?;
    let mut mount = tokio::process::Command::new("mount");
    super::netns::feed(mount.args(["-t", "bpf", "bpf"]).arg(&bpffs), "").await.context("mount a bpffs")?;
    site.client.feed("ethtool", &["-K", "eth0", "tx", "off"], "").await?;
    let ports: Vec<String> = site.nodes.iter().map(|n| n.name.clone()).collect();
    let router = site.router.inside(move || {
        let options = Options { slots: 1 << 10, backends: 8, flows: 128, syns: 128, services: 4, ..Options::default() };
        let mut passing = Datapath::load(options).context("load the programs of the router's ports")?;
        for port in &ports {
            let mode = passing.attach(port, Step::Native);
            anyhow::ensure!(mode.step == Step::Native, "the router's port {port}: {:?}", mode.failed);
        }
        Ok(passing)
    })??;
    Ok(Aids { _router: router })
}

/// Never: the command line was refused.
#[cfg(not(feature = "xdp"))]
pub(crate) async fn prepare(_: &Site, _: &Path) -> anyhow::Result<Aids> {
    anyhow::bail!("this program was built without the feature `xdp`")
}
