//! Processes of the lab: each in a namespace, its output in a file of its own, dead when the lab is.

use std::{
    fs::{File, OpenOptions},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::Child;

use super::netns::Namespace;

/// How much of a log is shown when something failed.
const TAIL: u64 = 4096;
/// A daemon that is told to ends within this.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What is started, where.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    /// For its log and for people.
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a Namespace,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
}

/// What a process takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// Resident memory in KiB.
    pub(crate) resident: u32,
    /// The part of it that no file backs, in KiB.
    pub(crate) anonymous: u32,
    /// Open file descriptors.
    pub(crate) files: u32,
    pub(crate) threads: u32,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it; standard output and standard error go to `logs/NAME.log`, behind what is there.
    ///
    /// # Errors
    /// It cannot be started, or its log not be opened.
    pub(crate) fn start(spec: &Spec<'_>, logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{}.log", spec.name));
        let output = OpenOptions::new().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("open {}", log.display()))?;
        let child = spec
            .namespace
            .command(spec.program)
            .args(&spec.arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {} ({})", spec.name, spec.program.display()))?;
        Ok(Self { name: spec.name.to_owned(), child })
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it takes of the machine, while it runs.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let folder = format!("/proc/{}", self.child.id()?);
        let status = std::fs::read_to_string(format!("{folder}/status")).ok()?;
        let files = u32::try_from(std::fs::read_dir(format!("{folder}/fd")).ok()?.count()).ok()?;
        let field =
            |name: &str| status.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok();
        let (resident, anonymous) = (field("VmRSS:")?, field("RssAnon:")?);
        Some(Usage { resident, anonymous, files, threads: field("Threads:")? })
    }

    /// SIGSTOP, or SIGCONT.
    ///
    /// # Errors
    /// It has ended, or the kernel refused.
    pub(crate) fn freeze(&self, on: bool) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.with_context(|| format!("{} has ended", self.name))?;
        let signal = if on { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).with_context(|| format!("freeze {}", self.name))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end in time.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).with_context(|| format!("end {}", self.name))?;
        }
        let ended = tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await;
        ended.with_context(|| format!("{} does not end", self.name))?.map(drop).map_err(Into::into)
    }

    /// The error for a process that should run and does not.
    pub(crate) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} ended ({status}); its log says why", self.name),
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // What was cut in the middle of a line starts at the next one.
        Ok(if from == 0 { text.into_owned() } else { text.split_once('\n').map_or("", |(_, t)| t).to_owned() })
    };
    read().unwrap_or_else(|e| format!("({}: {e})\n", log.display()))
}
