//! The router of a row: one process configured for all cells at once. It listens and never dials.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use ipnet::IpNet;
use tokio::process::Command;

use super::{bird, cells::Cell, exabgp, frr, gobgp, link::Link, seen::Seen};
use crate::lab::{
    args::RouterKind,
    netns::Namespace,
    process::{Process, Spec},
    tools::find,
};

/// A router opens its sockets within this, also on a busy machine.
pub(super) const OPENS_WITHIN: Duration = Duration::from_secs(20);
/// Its command line answers within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// The log with every change of the routes.
const CHANGES: &str = "changes";

/// A router with a row in the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Bird,
    Frr,
    Gobgp,
    Exabgp,
}

impl Make {
    /// # Errors
    /// The built-in router has no row: the matrix is about routers of other makes.
    pub(super) fn new(kind: RouterKind) -> anyhow::Result<Self> {
        match kind {
            RouterKind::Bird => Ok(Self::Bird),
            RouterKind::Frr => Ok(Self::Frr),
            RouterKind::Gobgp => Ok(Self::Gobgp),
            RouterKind::Exabgp => Ok(Self::Exabgp),
            RouterKind::Builtin => {
                bail!("--scenario interop tries routers of other makes; give --router bird, frr, gobgp or exabgp")
            }
        }
    }

    /// Why a cell is empty for this router, where it is.
    pub(super) fn lacks(self, cell: Cell) -> Option<&'static str> {
        match self {
            Self::Bird => bird::lacks(cell),
            Self::Frr => frr::lacks(cell),
            Self::Gobgp => gobgp::lacks(cell),
            Self::Exabgp => exabgp::lacks(cell),
        }
    }
}

/// Where a router lives.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    /// For configuration and sockets.
    pub(super) folder: PathBuf,
    pub(super) logs: PathBuf,
}

impl Place {
    pub(super) fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Process::start(&Spec { name, namespace: &self.namespace, program, arguments }, &self.logs)
    }

    /// Writes a file and gives back its path.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Segments that the kernel here refused because of their TCP MD5 signature.
    ///
    /// # Errors
    /// The namespace is gone.
    pub(super) fn md5_failures(&self) -> anyhow::Result<u64> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netstat");
        Ok(md5_failures(&self.namespace.inside(read)??))
    }

    /// The first line of the router's own log with these words.
    pub(super) fn logged(&self, words: &str) -> Option<String> {
        let logs =
            ["router.log", "bgpd.log"].map(|log| std::fs::read_to_string(self.logs.join(log)).unwrap_or_default());
        logs.iter().flat_map(|log| log.lines()).find(|line| line.contains(words)).map(str::to_owned)
    }

    /// Lines on prefixes that were lost since the router started, for a moment or for good.
    ///
    /// # Errors
    /// The record cannot be read.
    pub(super) fn lost(&self, prefixes: &[IpNet]) -> anyhow::Result<Vec<String>> {
        let record = std::fs::read_to_string(self.logs.join(format!("{CHANGES}.log"))).context("read the changes")?;
        let is_loss = |line: &&str| line.starts_with("Deleted") || line.contains(r#""withdrawal":true"#);
        let losses = record.lines().filter(is_loss);
        let names =
            |line: &str, prefix: &IpNet| line.split([' ', '"', '/']).any(|word| word == prefix.addr().to_string());
        Ok(losses.filter(|line| prefixes.iter().any(|prefix| names(line, prefix))).map(str::to_owned).collect())
    }

    /// What a program prints, run inside.
    pub(super) async fn ask(&self, program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.namespace.command(program);
        command.args(arguments);
        answer(command).await.with_context(|| format!("ask {}", program.display()))
    }
}

/// Two lines for each protocol: names, then values.
fn md5_failures(netstat: &str) -> u64 {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "TCPMD5Failure").and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// What a command prints.
///
/// # Errors
/// It cannot be started, takes too long, or fails.
async fn answer(mut command: Command) -> anyhow::Result<String> {
    let output = tokio::time::timeout(ANSWERS_WITHIN, command.output()).await.context("it is silent")??;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{}: {} {}", output.status, out.trim(), err.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The running router.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) make: Make,
    pub(super) place: Place,
    processes: Vec<Process>,
}

impl Router {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not answer in time.
    pub(super) async fn start(make: Make, place: Place, links: &[Link]) -> anyhow::Result<Self> {
        std::fs::create_dir(&place.folder)?;
        let processes = match make {
            Make::Bird => bird::start(&place, links)?,
            Make::Frr => frr::start(&place, links).await?,
            Make::Gobgp => gobgp::start(&place, links)?,
            Make::Exabgp => exabgp::start(&place, links)?,
        };
        let mut router = Self { make, place, processes };
        let deadline = Instant::now() + OPENS_WITHIN;
        while let Err(error) = router.look().await {
            router.must_run()?;
            if Instant::now() > deadline {
                return Err(error.context("the router does not answer"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(recorder) = router.record_changes()? {
            router.processes.push(recorder);
        }
        Ok(router)
    }

    /// Starts what writes every change of the routes into a log, so that no loss between two looks is missed.
    fn record_changes(&self) -> anyhow::Result<Option<Process>> {
        let (program, arguments): (_, &[&str]) = match self.make {
            Make::Bird | Make::Frr => (find("ip", "iproute2")?, &["-o", "monitor", "route"]),
            Make::Gobgp => (find("gobgp", "gobgpd")?, &["monitor", "global", "rib", "-j"]),
            Make::Exabgp => return Ok(None),
        };
        self.place.start(CHANGES, &program, arguments).map(Some)
    }

    /// An error if one of its processes has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::must_run)
    }

    /// One look at sessions, table and kernel.
    ///
    /// # Errors
    /// It does not answer, or in another form than expected.
    pub(super) async fn look(&self) -> anyhow::Result<Seen> {
        match self.make {
            Make::Bird => bird::look(&self.place).await,
            Make::Frr => frr::look(&self.place).await,
            Make::Gobgp => gobgp::look(&self.place).await,
            Make::Exabgp => exabgp::look(&self.place),
        }
    }
}

/// Waits for a file to appear.
///
/// # Errors
/// It does not.
pub(super) async fn appears(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + OPENS_WITHIN;
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("{} does not appear", path.display());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
