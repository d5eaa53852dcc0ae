//! Which labs there are, and how each ends without a trace.
//!
//! A lab has a number, a folder `/run/ironcast/lab/N` with everything that it writes, and namespaces named
//! `ironcast-N-…`. A lock in the folder is held as long as its process lives. A folder with a free lock is
//! what a killed lab left; the next lab removes it. One lock over all of them orders taking and sweeping.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{disk, netns::Namespace};

const FOLDER: &str = "/run/ironcast/lab";
/// More labs side by side than any machine bears.
const MOST: u32 = 1000;
/// Killed processes are gone within this, or something is badly wrong.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// A number that is ours until the value is dropped; then everything of the lab is removed.
#[derive(Debug)]
pub(crate) struct Claim {
    number: u32,
    /// Held open: the lock is the sign of life.
    _lock: File,
}

impl Claim {
    /// Removes what killed labs left, then takes the lowest free number.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn take() -> anyhow::Result<(Self, Vec<u32>)> {
        fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
        let order = File::create(Path::new(FOLDER).join(".order"))?;
        order.lock().with_context(|| format!("lock {FOLDER}"))?;
        let swept = sweep()?;
        for number in 1..MOST {
            match fs::create_dir(folder(number)) {
                Ok(()) => {
                    let lock = File::create(folder(number).join("lock"))?;
                    lock.lock()?;
                    remove_on_panic(number);
                    return Ok((Self { number, _lock: lock }, swept));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("make {}", folder(number).display())),
            }
        }
        bail!("{MOST} labs are running already; end some, or remove {FOLDER}")
    }

    /// Everything that the lab writes stands below.
    pub(crate) fn folder(&self) -> PathBuf {
        folder(self.number)
    }

    /// The lab's namespace of this name.
    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        Namespace::new(format!("{}{name}", prefix(self.number)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = remove(self.number) {
            eprintln!("ironcast: lab {} could not be removed: {error:#}; the next lab tries again", self.number);
        }
    }
}

fn folder(number: u32) -> PathBuf {
    Path::new(FOLDER).join(number.to_string())
}

fn prefix(number: u32) -> String {
    format!("ironcast-{number}-")
}

/// Removes every lab whose lock is free.
fn sweep() -> anyhow::Result<Vec<u32>> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let Ok(number) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let lock = match File::create(folder(number).join("lock")) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("open the lock of lab {number}")),
        };
        match lock.try_lock() {
            Ok(()) => {
                remove(number).with_context(|| format!("remove what lab {number} left"))?;
                swept.push(number);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("try the lock of lab {number}")),
        }
    }
    Ok(swept)
}

/// Kills what runs in the lab's namespaces, deletes them, then its bpffs and the folder. Doing it twice is harmless.
fn remove(number: u32) -> anyhow::Result<()> {
    let namespaces = Namespace::with_prefix(&prefix(number));
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let pids: Vec<Pid> = namespaces.iter().flat_map(processes).collect();
        for pid in &pids {
            let _ = kill_process(*pid, Signal::KILL);
        }
        if pids.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("processes {pids:?} do not die");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for namespace in &namespaces {
        let status = Command::new("ip").args(["netns", "del", namespace.name()]).status().context("run ip")?;
        if !status.success() {
            bail!("ip netns del {}: {status}", namespace.name());
        }
    }
    disk::remove(&folder(number));
    match fs::remove_dir_all(folder(number)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("remove its folder"),
        _ => Ok(()),
    }
}

/// Processes whose network namespace is this one, never ourselves.
fn processes(namespace: &Namespace) -> Vec<Pid> {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace.name()]).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .filter(|pid| *pid != rustix::process::getpid())
        .collect()
}

/// A release build aborts on panic and runs no destructor: the hook removes the lab before that.
fn remove_on_panic(number: u32) {
    static HOOKED: OnceLock<()> = OnceLock::new();
    HOOKED.get_or_init(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            let _ = remove(number);
            std::process::exit(2);
        }));
    });
}
