//! Children that never outlive the test. A shell holds each and kills it as soon as our end of the shell's standard
//! input closes, whatever ended us: a drop, a panic, a signal.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Error, Result},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const HOLD: &str =
    r#"log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!; exec 2>/dev/null; read -r _; kill -KILL $!; wait $!"#;
const SWEEP: &str = r#"echo $$; read -r _; for _ in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && exit; sleep 0.2; done"#;
const REMOVE: &str = r#"echo $$; read -r _; sleep 0.1; for name in "$@"; do ip netns del "$name" 2>/dev/null; done"#;
const UNGROUP: &str = r#"echo $$; read -r _; for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.3
find /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1" -depth -type d -exec rmdir {} + 2>/dev/null
ls -d /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1" >/dev/null 2>&1 || exit; done"#;

/// A running program and its log.
pub struct Program {
    shell: Child,
    pid: Pid,
    log: PathBuf,
}

impl Program {
    /// Runs `command`, its output appended to `log`; in a network namespace where one is named.
    pub fn start(netns: Option<&str>, log: &Path, command: &[OsString]) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", HOLD, "sh"]).arg(log);
        if let Some(netns) = netns {
            shell.arg("nsenter").arg(format!("--net=/run/netns/{netns}"));
        }
        Self::spawn(shell.args(command), log)
    }

    /// Removes `folder` when dropped or when this process ends.
    pub fn sweep(folder: &Path) -> Result<Self> {
        Self::spawn(Command::new("sh").args(["-c", SWEEP, "sh"]).arg(folder), folder)
    }

    /// Removes network namespaces when dropped or when this process ends.
    pub fn remove_namespaces(names: &[String]) -> Result<Self> {
        Self::spawn(Command::new("sh").args(["-c", REMOVE, "sh"]).args(names), Path::new("/dev/null"))
    }

    /// Removes the control group `name`, of every hierarchy, when dropped or when this process ends.
    pub fn remove_group(name: &str) -> Result<Self> {
        Self::spawn(Command::new("sh").args(["-c", UNGROUP, "sh", name]), Path::new("/dev/null"))
    }

    fn spawn(command: &mut Command, log: &Path) -> Result<Self> {
        // A group of its own: Ctrl-C on the terminal reaches the test, and the test's end reaches the shell.
        let mut shell = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::other(format!("no process id in {line:?}")))?;
        Ok(Self { shell, pid, log: log.into() })
    }

    /// Process id of the program itself.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it still runs.
    pub fn running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// That of it which no file is behind, so without the program's text.
    pub fn anonymous(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("running");
        let line = status.lines().find_map(|l| l.strip_prefix(field)).expect("a process has it");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Asks it to end and waits; false when it did not within `limit`.
    pub fn terminate(&self, limit: Duration) -> bool {
        let _ = kill_process(self.pid, Signal::TERM);
        let start = Instant::now();
        while self.running() && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.running()
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
