//! Draining, remembered: like a cordon it outlives restarts and reboots until somebody ends it, so that a node
//! under repair does not draw traffic the moment its daemon is back.

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    plan::{Leaving, Settings, Withhold, asked_to_leave},
    types::Snapshot,
};

/// The way out, step by step.
///
/// ```text
///  Not ──asked──▶ Last (graceful-shutdown, RFC 8326) ──after the wait──▶ Gone ──undone──▶ Not
/// ```
///
/// A daemon that starts on a node that was asked already goes straight to Gone: it has announced nothing yet that
/// somebody could be weaned from.
#[derive(Debug)]
struct Exit {
    wait: Duration,
    now: Leaving,
    gone_at: Option<Instant>,
    started: bool,
}

impl Exit {
    fn new(wait: Duration) -> Self {
        Self { wait, now: Leaving::Not, gone_at: None, started: false }
    }

    /// Where the node stands, given whether it is asked to leave.
    fn turn(&mut self, asked: bool, now: Instant) -> Leaving {
        let first = !std::mem::replace(&mut self.started, true);
        self.now = match (asked, self.now) {
            (false, _) => Leaving::Not,
            (true, Leaving::Not) if first || self.wait.is_zero() => Leaving::Gone,
            (true, Leaving::Not) => {
                self.gone_at = Some(now + self.wait);
                Leaving::Last
            }
            (true, Leaving::Last) if self.gone_at.is_none_or(|at| at <= now) => Leaving::Gone,
            (true, step) => step,
        };
        if self.now != Leaving::Last {
            self.gone_at = None;
        }
        self.now
    }

    /// When it takes the next step by itself.
    fn deadline(&self) -> Option<Instant> {
        self.gone_at
    }
}

/// Both ways out of a node: the operator's drain, and a cordon or a taint of its object.
#[derive(Debug)]
pub(crate) struct Exits {
    operator: Exit,
    node: Exit,
}

impl Exits {
    /// Nobody has asked yet.
    pub(crate) fn new(wait: Duration) -> Self {
        Self { operator: Exit::new(wait), node: Exit::new(wait) }
    }

    /// Writes into the settings how far the node has come. Says why its object asks it to leave, where it does.
    pub(crate) fn turn(
        &mut self,
        draining: bool,
        snapshot: &Snapshot,
        settings: &mut Settings,
        now: Instant,
    ) -> Option<Withhold> {
        settings.drain = self.operator.turn(draining, now);
        let asked = asked_to_leave(snapshot, settings);
        settings.cordon = self.node.turn(asked.is_some(), now);
        asked
    }

    /// When the node takes its next step by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [&self.operator, &self.node].into_iter().filter_map(Exit::deadline).min()
    }
}

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
    fn node_that_is_asked_to_leave_says_so_before_it_withdraws_and_comes_back_when_it_is_not() {
        let (wait, start) = (Duration::from_secs(5), Instant::now());
        let mut exit = Exit::new(wait);
        assert_eq!((exit.turn(false, start), exit.deadline()), (Leaving::Not, None));
        assert_eq!((exit.turn(true, start), exit.deadline()), (Leaving::Last, Some(start + wait)));
        assert_eq!(exit.turn(true, start + wait / 2), Leaving::Last);
        assert_eq!((exit.turn(true, start + wait), exit.deadline()), (Leaving::Gone, None));
        assert_eq!(exit.turn(true, start + 2 * wait), Leaving::Gone);
        assert_eq!(exit.turn(false, start + 2 * wait), Leaving::Not);
        // Undone before the time is up, asked again: the whole time.
        let later = start + 3 * wait;
        assert_eq!(exit.turn(true, later), Leaving::Last);
        assert_eq!(exit.turn(false, later + wait / 2), Leaving::Not);
        assert_eq!(exit.turn(true, later + wait), Leaving::Last);
        assert_eq!(exit.turn(true, later + wait + wait / 2), Leaving::Last);
    }

    #[test]
    fn daemon_that_starts_on_a_leaving_node_announces_nothing_first() {
        assert_eq!(Exit::new(Duration::from_secs(5)).turn(true, Instant::now()), Leaving::Gone);
        let mut at_once = Exit::new(Duration::ZERO);
        at_once.turn(false, Instant::now());
        assert_eq!(at_once.turn(true, Instant::now()), Leaving::Gone);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_done() {
        let drain = Drain::load(std::path::Path::new("/proc/nowhere"));
        assert!(drain.set(true).expect_err("read-only").contains("--state-dir"));
        assert!(!*drain.subscribe().borrow());
    }
}
