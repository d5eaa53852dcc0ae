//! The daemons of the nodes: how they are started and ended, what is done to their files, what they take of the machine.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::Lab;
use crate::lab::{
    args::word,
    disk::{self, MemoryGroup},
    observe::EVERY,
    process::{Process, Spec, Usage},
    site::Node,
    xdp,
};

/// Where a daemon that listens does so.
const LISTEN: [&str; 4] = ["--listen", "0.0.0.0:179", "--listen", "[::]:179"];

impl Lab {
    /// Starts a node's daemon.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start_daemon(&mut self, node: &Node) -> anyhow::Result<()> {
        let process = self.daemon(node)?;
        self.daemons.insert(node.name.clone(), process);
        Ok(())
    }

    /// Starts a node's daemon with so little memory, in bytes, and waits until the kernel has killed it or it has ended by
    /// itself; where it lives on for so long, it is killed. Says which.
    ///
    /// # Errors
    /// It cannot be started, or the kernel has no groups by memory.
    pub(crate) async fn start_starved(&self, node: &Node, bytes: u64, within: Duration) -> anyhow::Result<String> {
        let group = MemoryGroup::create(&self.folder, bytes)?;
        let mut process = self.daemon(node)?;
        group.add(process.id().context("it has just been started")?)?;
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if let Some(status) = process.ended() {
                return Ok(status.to_string());
            }
            tokio::time::sleep(EVERY).await;
        }
        process.kill().await?;
        Ok("lives on, and is killed".into())
    }

    fn daemon(&self, node: &Node) -> anyhow::Result<Process> {
        let state = self.state(&node.name);
        std::fs::create_dir_all(&state)?;
        let (datapath, delivery) = (word(self.datapath), word(self.delivery));
        let mut arguments: Vec<String> = ["run", "--node", &node.name, "--vip-interface", "none", "--admin", "none"]
            .into_iter()
            .chain(["--datapath", &datapath, "--delivery", &delivery, "--max-flows", "65536"])
            .map(str::to_owned)
            .collect();
        if self.setup.rough {
            arguments.extend(LISTEN.map(str::to_owned));
        }
        for (flag, path) in [
            ("--manifests", self.manifests.folder().to_owned()),
            ("--admin-socket", self.socket(&node.name)),
            ("--state-dir", state),
            ("--pins", xdp::pins(&self.folder, &node.name)),
        ] {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        let spec = Spec { name: &node.name, namespace: &node.namespace, program: &self.program, arguments };
        Process::start(&spec, &self.folder.join("logs"))
    }

    /// kill -9.
    ///
    /// # Errors
    /// There is none, or the kernel refused.
    pub(crate) async fn kill_daemon(&mut self, node: &str) -> anyhow::Result<()> {
        let mut daemon = self.daemons.remove(node).with_context(|| format!("{node} has no daemon"))?;
        daemon.kill().await
    }

    /// SIGSTOP, or SIGCONT.
    ///
    /// # Errors
    /// There is none, or the kernel refused.
    pub(crate) fn freeze_daemon(&self, node: &str, on: bool) -> anyhow::Result<()> {
        self.daemons.get(node).with_context(|| format!("{node} has no daemon"))?.freeze(on)
    }

    /// Cuts every file of the node's state folder in half, as a machine that lost its power does.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub(crate) fn tear_state(&self, node: &str) -> anyhow::Result<()> {
        let mut folders = vec![self.state(node)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
                let (path, kind) =
                    (entry.as_ref().map(std::fs::DirEntry::path), entry.as_ref().map(std::fs::DirEntry::file_type));
                let (Ok(path), Ok(Ok(kind))) = (path, kind) else { continue };
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    let content = std::fs::read(&path)?;
                    std::fs::write(&path, &content[..content.len() / 2])?;
                }
            }
        }
        Ok(())
    }

    /// SIGTERM, as at an upgrade.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub(crate) async fn stop_daemon(&mut self, node: &str) -> anyhow::Result<()> {
        let mut daemon = self.daemons.remove(node).with_context(|| format!("{node} has no daemon"))?;
        daemon.terminate().await
    }

    /// What a node's daemon must not forget.
    fn state(&self, node: &str) -> PathBuf {
        self.folder.join(node)
    }

    /// What all daemons record together.
    fn record(&self) -> PathBuf {
        self.manifests.folder().join(".ironcast")
    }

    /// A small disk for each daemon and for what they record together.
    pub(super) async fn mount_disks(&self) -> anyhow::Result<()> {
        let own = self.site.nodes.iter().map(|node| self.state(&node.name));
        for folder in own.chain([self.record()]) {
            disk::mount(&folder).await?;
        }
        Ok(())
    }

    /// Fills the disks that a node's daemon writes to, or makes room again.
    ///
    /// # Errors
    /// There are none, or they cannot be written for another reason.
    pub(crate) fn fill_disks(&self, node: &str, on: bool) -> anyhow::Result<()> {
        [self.state(node), self.record()].iter().try_for_each(|folder| disk::fill(folder, on))
    }

    /// Lets a node's daemon write its own disk, or not.
    ///
    /// # Errors
    /// There is none, or somebody is writing a file.
    pub(crate) async fn write_protect(&self, node: &str, on: bool) -> anyhow::Result<()> {
        disk::write_protect(&self.state(node), on).await
    }

    /// Resident memory of the largest daemon in MiB.
    pub(crate) fn largest_daemon(&self) -> f64 {
        let kilobytes = self.usage().into_values().map(|usage| usage.resident).max().unwrap_or_default();
        f64::from(kilobytes) / 1024.0
    }

    /// What each daemon takes of the machine, by node.
    pub(crate) fn usage(&self) -> BTreeMap<String, Usage> {
        self.daemons.iter().filter_map(|(node, daemon)| Some((node.clone(), daemon.usage()?))).collect()
    }

    /// Connections that the maps of a node's packet path remember.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn remembered(&self, node: &str) -> anyhow::Result<usize> {
        if self.datapath.is_ours() { xdp::remembered(&xdp::pins(&self.folder, node)) } else { Ok(0) }
    }
}
