//! Whether this process follows another one that kept the packets flowing: then the first OPEN says "restarted"
//! (RFC 4724 §4.1) and routers keep what that one announced.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The mark of a running daemon, valid for one boot: a rebooted host has forwarded nothing meanwhile.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    boot: String,
}

impl Mark {
    pub(super) fn new(state_dir: &Path) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { path: state_dir.join("running"), boot }
    }

    /// A predecessor of this boot left his mark.
    pub(super) fn found(&self) -> bool {
        !self.boot.is_empty() && fs::read_to_string(&self.path).is_ok_and(|mark| mark == self.boot)
    }

    /// We run.
    pub(super) fn set(&self) {
        let folder = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| fs::write(&self.path, &self.boot)) {
            let path = self.path.display();
            tracing::warn!(%error, %path, "a restart will look like a first start; check --state-dir");
        }
    }

    /// We stop for good: who comes next does not restart.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_of_a_killed_daemon_restarts_and_that_of_a_stopped_one_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = Mark::new(&dir.path().join("state"));
        assert!(!mark.found());
        mark.set();
        assert!(Mark::new(&dir.path().join("state")).found());
        mark.remove();
        assert!(!mark.found());
    }

    #[test]
    fn mark_of_another_boot_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("running"), "another boot").expect("written");
        assert!(!Mark::new(dir.path()).found());
    }
}
