//! FRRouting: zebra writes the kernel's routes, bgpd speaks. Both run as the user that the package made,
//! since they refuse to run as another, in a folder of theirs.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::{Bench, Router};
use crate::lab::{
    process::Process,
    site::{NODE_ASN, ROUTER_ASN, UPLINKS},
    tools::find_frr,
};

/// Routes carry their next hops themselves. With next-hop objects, FRR 8.4 keeps a group for three minutes and
/// takes it again for a node that returns, but the kernel removed the node's member when the carrier went: the
/// route stays without it while zebra shows it.
const ZEBRA: &str = "hostname tor\nlog stdout informational\nno zebra nexthop kernel enable\n";

/// zebra opens its socket within this.
const OPENS_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn check() -> anyhow::Result<()> {
    ["zebra", "bgpd"].iter().try_for_each(|program| find_frr(program).map(drop))
}

pub(super) async fn start(bench: &Bench<'_>) -> anyhow::Result<Router> {
    let zebra_config = bench.write("zebra.conf", ZEBRA)?;
    let bgpd_config = bench.write("bgpd.conf", &config())?;
    let output = Command::new("chown").args(["-R", "frr:frr"]).arg(bench.folder).output().await?;
    if !output.status.success() {
        bail!("give {} to FRR: {}", bench.folder.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut zebra = daemon(bench, "zebra", &zebra_config)?;
    let socket = bench.folder.join("zserv.api");
    let opened = tokio::time::timeout(OPENS_WITHIN, exists(&socket)).await;
    zebra.must_run()?;
    opened.context("zebra does not open its socket; its log says why")?;
    let bgpd = daemon(bench, "bgpd", &bgpd_config)?;
    Ok(Router { processes: vec![zebra, bgpd], description: "FRR, routes by zebra".into() })
}

fn daemon(bench: &Bench<'_>, name: &str, config: &str) -> anyhow::Result<Process> {
    let (folder, zserv, pid) = (bench.path(""), bench.path("zserv.api"), bench.path(&format!("{name}.pid")));
    // -P 0: no terminal over TCP, which would open a port on every address.
    let arguments = ["-f", config, "-i", &pid, "-z", &zserv, "--vty_socket", &folder, "-P", "0"];
    bench.start(name, &find_frr(name)?, &arguments)
}

async fn exists(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn config() -> String {
    let [v4, v6] = UPLINKS;
    format!(
        "frr defaults datacenter
hostname tor
log stdout informational
router bgp {ROUTER_ASN}
 bgp router-id 10.255.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor nodes peer-group
 neighbor nodes remote-as {NODE_ASN}
 neighbor nodes timers 30 90
 bgp listen limit 500
 bgp listen range {v4} peer-group nodes
 bgp listen range {v6} peer-group nodes
 address-family ipv4 unicast
  neighbor nodes activate
  neighbor nodes route-map none out
  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
  neighbor nodes activate
  neighbor nodes route-map none out
  maximum-paths 64
 exit-address-family
exit
route-map none deny 10
exit
"
    )
}
