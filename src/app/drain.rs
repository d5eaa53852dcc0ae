//! Draining, remembered: like a cordon it outlives restarts and reboots until somebody ends it, so that a node
//! under repair does not draw traffic the moment its daemon is back.

use std::{fs, io, path::PathBuf};

use tokio::sync::watch;

/// The switch and the file that remembers it.
#[derive(Debug)]
pub(super) struct Drain {
    marker: PathBuf,
    on: watch::Sender<bool>,
}

impl Drain {
    /// As it was left by our predecessor.
    pub(super) fn load(state_dir: &std::path::Path) -> Self {
        let marker = state_dir.join("draining");
        let on = marker.exists();
        if on {
            tracing::warn!("this node still drains and announces nothing; `ironcast drain --undo` ends it");
        }
        Self { marker, on: watch::Sender::new(on) }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.on.subscribe()
    }

    /// Starts or ends draining. Remembered first: what cannot be remembered is not done.
    pub(super) fn set(&self, on: bool) -> Result<(), String> {
        self.remember(on)
            .map_err(|e| format!("cannot remember it in {}: {e}; check --state-dir", self.marker.display()))?;
        if self.on.send_replace(on) != on {
            tracing::info!(draining = on, "the operator switched draining");
        }
        Ok(())
    }

    fn remember(&self, on: bool) -> io::Result<()> {
        if on {
            if let Some(dir) = self.marker.parent() {
                fs::create_dir_all(dir)?;
            }
            return fs::write(&self.marker, "");
        }
        match fs::remove_file(&self.marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_outlives_a_restart_until_it_is_undone() {
        let dir = tempfile::tempdir().expect("a folder");
        let state_dir = dir.path().join("state");
        let first = Drain::load(&state_dir);
        assert!(!*first.subscribe().borrow());
        first.set(true).expect("remembered");
        let second = Drain::load(&state_dir);
        assert!(*second.subscribe().borrow());
        second.set(false).expect("forgotten");
        second.set(false).expect("twice is fine");
        assert!(!*Drain::load(&state_dir).subscribe().borrow());
    }

    #[test]
    fn what_cannot_be_remembered_is_not_done() {
        let drain = Drain::load(std::path::Path::new("/proc/nowhere"));
        assert!(drain.set(true).expect_err("read-only").contains("--state-dir"));
        assert!(!*drain.subscribe().borrow());
    }
}
