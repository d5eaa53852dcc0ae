//! Network namespaces by name, and work done inside them by threads of this process.
//!
//! A thread that has entered a namespace never leaves it: it is made for that and ends after it. Sockets
//! stay in the namespace of the thread that opened them.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{io::AsyncWriteExt, process::Command};

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.0)
    }

    /// Every namespace of this machine whose name begins so.
    pub(crate) fn with_prefix(prefix: &str) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(FOLDER) else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .map(Self)
            .collect()
    }

    /// A command line that runs a program in here and dies with us: the kernel kills it when the thread that
    /// started it ends.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]).arg(format!("--net={}", self.path().display())).arg(program);
        // A group of its own: Ctrl-C is for the lab, which then ends its processes in order.
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// Does something short in here, in a thread made for it.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let path = self.path();
        let thread = std::thread::spawn(move || enter(&path).map(|()| work()));
        thread.join().map_err(|_| anyhow::anyhow!("a thread in the namespace {} panicked", self.0))?
    }

    /// Sets sysctls in here: paths below `/proc/sys` and values.
    ///
    /// # Errors
    /// The namespace or a setting does not exist.
    pub(crate) fn set(&self, settings: &'static [(&'static str, &'static str)]) -> anyhow::Result<()> {
        self.inside(move || {
            settings.iter().try_for_each(|(path, value)| {
                std::fs::write(Path::new("/proc/sys").join(path), value)
                    .with_context(|| format!("set {path} to {value}"))
            })
        })?
        .with_context(|| format!("in the namespace {}", self.0))
    }

    /// A runtime whose only thread is in here. It ends when the handle's owner, [`Inside`], is dropped.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(crate) fn runtime(&self) -> anyhow::Result<Inside> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (entered, is_entered) = std::sync::mpsc::channel();
        let path = self.path();
        std::thread::Builder::new().name(self.0.clone()).spawn(move || {
            let entry = enter(&path);
            let may_run = entry.is_ok();
            let _ = entered.send(entry);
            if may_run {
                let _ = runtime.block_on(stopped);
            }
        })?;
        is_entered.recv().context("a thread ended before it was in its namespace")??;
        Ok(Inside { handle, _stop: stop })
    }

    /// Runs a program in here with this text on its standard input.
    ///
    /// # Errors
    /// It cannot be started or ends with another code than 0; the text has what it wrote to standard error.
    pub(crate) async fn feed(&self, program: &str, arguments: &[&str], text: &str) -> anyhow::Result<()> {
        let mut command = self.command(Path::new(program));
        feed(command.args(arguments), text).await.with_context(|| format!("{program} in the namespace {}", self.0))
    }
}

/// A runtime inside a namespace: tasks spawned on it open their sockets there.
#[derive(Debug)]
pub(crate) struct Inside {
    handle: tokio::runtime::Handle,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Inside {
    /// Starts a task in the namespace.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(task)
    }
}

/// Runs a command with this text on its standard input.
///
/// # Errors
/// As [`Namespace::feed`].
pub(crate) async fn feed(command: &mut Command, text: &str) -> anyhow::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("a piped standard input is there")?;
    // It may end before it has read everything; then its words on standard error are the better message.
    let _ = input.write_all(text.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn enter(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("open the namespace {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("enter the namespace {}", path.display()))
}
