//! Whether this process follows another one that kept the packets flowing: then the first OPEN says "restarted"
//! (RFC 4724 §4.1) and routers keep what that one announced.

use std::{fs, path::PathBuf};

/// The mark of a running daemon, valid for one boot: a rebooted host has forwarded nothing meanwhile.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
}

impl Mark {
    /// Sets our mark; `true` if a predecessor of this boot left his.
    pub(super) fn set(state_dir: &std::path::Path) -> (Self, bool) {
        let path = state_dir.join("running");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let restarted = !boot.is_empty() && fs::read_to_string(&path).is_ok_and(|mark| mark == boot);
        let written = fs::create_dir_all(state_dir).and_then(|()| fs::write(&path, &boot));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "a restart will look like a first start; check --state-dir");
        }
        (Self { path }, restarted)
    }

    /// We stop for good: who comes next does not restart.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_of_a_killed_daemon_restarts_and_that_of_a_stopped_one_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let (_killed, restarted) = Mark::set(dir.path());
        assert!(!restarted);
        let (stopped, restarted) = Mark::set(dir.path());
        assert!(restarted);
        stopped.remove();
        assert!(!Mark::set(dir.path()).1);
    }

    #[test]
    fn mark_of_another_boot_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("running"), "another boot").expect("written");
        assert!(!Mark::set(dir.path()).1);
    }
}
