//! The top-of-rack router: our own, or a routing daemon of this machine with a configuration, sockets and
//! pid files of its own, in its own folder. It listens for the nodes, keeps ECMP routes to what they
//! announce, announces nothing, and helps with graceful restart.

mod bird;
mod frr;
pub(super) mod gobgp;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    args::RouterKind,
    build::ourselves,
    process::{Process, Spec},
    site::{NODE_ASN, ROUTER_ASN, Site},
    tools::find,
};

/// A routing daemon listens within this, or it never does.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// The running router.
#[derive(Debug)]
pub(crate) struct Router {
    processes: Vec<Process>,
    /// What it is and who writes its kernel routes, for people.
    pub(crate) description: String,
}

/// Where a driver starts its processes.
struct Bench<'a> {
    site: &'a Site,
    /// For configuration and sockets.
    folder: &'a Path,
    logs: &'a Path,
}

impl Bench<'_> {
    fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Process::start(&Spec { name, namespace: &self.site.router, program, arguments }, self.logs)
    }

    /// Writes a file and gives back its path.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Checks that the router is installed.
///
/// # Errors
/// It is not; the text names the package.
pub(crate) fn check(kind: RouterKind) -> anyhow::Result<()> {
    match kind {
        RouterKind::Builtin => Ok(()),
        RouterKind::Bird => bird::check(),
        RouterKind::Frr => frr::check(),
        RouterKind::Gobgp => gobgp::check(),
        RouterKind::Exabgp => find("exabgp", "exabgp").map(drop),
    }
    .context("use --router builtin, which needs nothing, or install it")
}

impl Router {
    /// Starts the router and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not listen within ten seconds.
    pub(crate) async fn start(kind: RouterKind, site: &Site, folder: &Path, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let bench = Bench { site, folder, logs };
        let mut router = match kind {
            RouterKind::Builtin => builtin(&bench)?,
            RouterKind::Bird => bird::start(&bench)?,
            RouterKind::Frr => frr::start(&bench).await?,
            RouterKind::Gobgp => gobgp::start(&bench)?,
            RouterKind::Exabgp => bail!("--router exabgp keeps no routes; it is for --scenario interop"),
        };
        router.listens(site).await?;
        Ok(router)
    }

    /// kill -9; what it has in the kernel stays.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        for mut process in self.processes.drain(..) {
            process.kill().await?;
        }
        Ok(())
    }

    /// Stops all of it where it stands, or lets it go on.
    ///
    /// # Errors
    /// One of its processes has ended.
    pub(crate) fn freeze(&self, on: bool) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(|process| process.freeze(on))
    }

    /// An error if one of its processes has ended.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::must_run)
    }

    /// Looks into the kernel's list of sockets: a connection to try it would be a peer to the router.
    async fn listens(&mut self, site: &Site) -> anyhow::Result<()> {
        let deadline = Instant::now() + LISTENS_WITHIN;
        while !site.router.inside(|| ["tcp", "tcp6"].iter().all(|table| bgp_is_open(table)))? {
            self.must_run()?;
            if Instant::now() > deadline {
                bail!("the router does not listen on port 179 after {} s; its logs say why", LISTENS_WITHIN.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Whether a socket of the calling thread's namespace listens on port 179; `table` is `tcp` or `tcp6`.
fn bgp_is_open(table: &str) -> bool {
    let sockets = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default();
    has_listener(&sockets)
}

/// Columns of `/proc/net/tcp`: number, local address in hexadecimal, remote address, state (0A is LISTEN) …
fn has_listener(sockets: &str) -> bool {
    sockets.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next().is_some_and(|local| local.ends_with(":00B3")) && columns.nth(1) == Some("0A")
    })
}

fn builtin(bench: &Bench<'_>) -> anyhow::Result<Router> {
    let (asn, peer_asn) = (ROUTER_ASN.to_string(), NODE_ASN.to_string());
    let mut arguments = vec!["lab-router", "--asn", &asn, "--peer-asn", &peer_asn];
    let peers: Vec<String> = bench.site.nodes.iter().flat_map(|n| n.address).map(|ip| ip.to_string()).collect();
    peers.iter().for_each(|peer| arguments.extend(["--peer", peer]));
    let process = bench.start("router", &ourselves(), &arguments)?;
    Ok(Router { processes: vec![process], description: "built-in router, routes by netlink".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_socket_is_told_from_a_connection() {
        let listens = "   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        let connected =
            "   1: 0100007F:00B3 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert!(has_listener(listens));
        assert!(!has_listener(connected));
    }
}
