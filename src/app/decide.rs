//! The task that decides: the newest snapshot and settings in, the newest decision out.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::block_in_place};
use tracing::{debug, error, info, trace, warn};

use super::drain::Exits;
use crate::{
    admin::Metrics,
    plan::{Desired, Gateway, Leaving, Planned, Planner, Settings},
    provider::node::Provided,
    types::{Problem, Severity, Snapshot},
};

/// The first change after a quiet time is decided at once; those that follow within this time together.
const COALESCE: Duration = Duration::from_millis(10);
/// With more Services than this it takes milliseconds to plan all of them, which must not hold up a worker's other tasks.
const LARGE: usize = 500;

/// The source or the settings are gone.
#[derive(Debug, thiserror::Error)]
#[error("the source ended, so nothing tells what to decide on")]
pub(super) struct NoSource;

/// What a decision is made of, and where it goes.
#[derive(Debug)]
pub(super) struct Decide {
    /// `None` until the first complete list of every kind.
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The operator drains this node.
    pub(super) draining: watch::Receiver<bool>,
    /// How far the operator's drain has come, and a cordon or taint of the node.
    pub(super) exits: Exits,
    /// Routers that providers gave this node.
    pub(super) provided: watch::Receiver<Arc<Provided>>,
    /// What is wrong with providers, told with the rest.
    pub(super) problems: watch::Receiver<Arc<Vec<Problem>>>,
    /// What is wrong with this host, told with the rest.
    pub(super) found: watch::Receiver<Arc<Vec<Problem>>>,
    /// Default gateways of this host.
    pub(super) gateways: watch::Receiver<Vec<Gateway>>,
    /// Everything else that decides.
    pub(super) settings: Settings,
    /// Who decides.
    pub(super) planner: Planner,
    /// Told only when the decision is another.
    pub(super) desired: watch::Sender<Option<Arc<Desired>>>,
    /// Told every time: who records addresses waits to see his own records.
    pub(super) planned: watch::Sender<Option<Planned>>,
    /// Where the time is recorded.
    pub(super) metrics: Metrics,
}

impl Decide {
    /// Decides until the source ends. Cancelling leaves the last decision in place.
    pub(super) async fn run(mut self) -> Result<(), NoSource> {
        self.snapshots.wait_for(Option::is_some).await.map_err(|_| NoSource)?;
        let mut last = Arc::new(Desired::default());
        loop {
            let begun = tokio::time::Instant::now();
            last = self.decide(last);
            // Half of a core at most, however fast changes come.
            let again = (begun + COALESCE).max(begun + 2 * begun.elapsed());
            tokio::select! {
                changed = self.snapshots.changed() => changed.map_err(|_| NoSource)?,
                changed = self.draining.changed() => changed.map_err(|_| NoSource)?,
                changed = self.provided.changed() => changed.map_err(|_| NoSource)?,
                changed = self.problems.changed() => changed.map_err(|_| NoSource)?,
                changed = self.found.changed() => changed.map_err(|_| NoSource)?,
                changed = self.gateways.changed() => changed.map_err(|_| NoSource)?,
                () = next_step(&self.exits) => {}
            }
            tokio::time::sleep_until(again).await;
        }
    }

    fn decide(&mut self, last: Arc<Desired>) -> Arc<Desired> {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else { return last };
        trace!("deciding");
        self.leave(&snapshot);
        self.settings.gateways.clone_from(&self.gateways.borrow_and_update());
        let provided = self.provided.borrow_and_update().clone();
        let snapshot = with_peers(snapshot, &provided);
        let start = Instant::now();
        let again = self.planner.again(&snapshot, &self.settings);
        let mut desired = again.unwrap_or_else(|| {
            let mut anew = || self.planner.anew(&snapshot, &self.settings);
            if snapshot.services.len() > LARGE { block_in_place(anew) } else { anew() }
        });
        desired.problems.extend(self.problems.borrow_and_update().iter().chain(&provided.problems).cloned());
        desired.problems.extend(self.found.borrow_and_update().iter().cloned());
        let took = start.elapsed();
        self.metrics.planned(took);
        debug!(?took, services = snapshot.services.len(), addresses = desired.addresses.len(), "decided");
        log_problems(&last.problems, &desired.problems);
        // Unchanged, the old one is kept, and whoever compares pointers sees it.
        let desired = if *last == desired { last } else { Arc::new(desired) };
        self.desired.send_if_modified(|published| {
            let same = published.as_ref().is_some_and(|published| Arc::ptr_eq(published, &desired));
            *published = Some(desired.clone());
            !same
        });
        self.planned.send_replace(Some(Planned { snapshot, desired: desired.clone() }));
        desired
    }

    fn leave(&mut self, snapshot: &Snapshot) {
        let (now, before) = (tokio::time::Instant::now(), self.settings.leaving());
        let draining = *self.draining.borrow_and_update();
        let asked = self.exits.turn(draining, snapshot, &mut self.settings, now);
        match (before, self.settings.leaving()) {
            (before, now) if before == now => {}
            (_, Leaving::Not) => info!("this node announces again"),
            (_, Leaving::Last) => info!(reason = ?asked, "this node leaves: routes carry graceful-shutdown first"),
            (_, Leaving::Gone) => info!(reason = ?asked, "this node leaves: routes are withdrawn"),
        }
    }
}

/// Until a node that leaves takes its next step.
async fn next_step(exits: &Exits) {
    match exits.deadline() {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The snapshot with the routers that a provider gave; a BGPPeer of the same name counts.
fn with_peers(snapshot: Arc<Snapshot>, provided: &Provided) -> Arc<Snapshot> {
    if provided.peers.is_empty() {
        return snapshot;
    }
    let mut snapshot = Arc::unwrap_or_clone(snapshot);
    for (name, peer) in &provided.peers {
        snapshot.peers.entry(name.clone()).or_insert_with(|| peer.clone());
    }
    Arc::new(snapshot)
}

/// Each problem once when it appears, and once when it is mended.
fn log_problems(before: &[Problem], now: &[Problem]) {
    let (before, now): (BTreeSet<_>, BTreeSet<_>) = (before.iter().collect(), now.iter().collect());
    for problem in now.difference(&before) {
        match problem.severity {
            Severity::Error => error!(object = %problem.object, "{problem}"),
            Severity::Warning => warn!(object = %problem.object, "{problem}"),
        }
    }
    for problem in before.difference(&now) {
        info!(object = %problem.object, field = problem.field, "no longer a problem");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ObjectRef;

    fn snapshot(message: &str) -> Option<Arc<Snapshot>> {
        let problem = Problem {
            object: ObjectRef::new("BGPPeer", "", "tor"),
            field: String::new(),
            message: message.into(),
            hint: String::new(),
            severity: Severity::Error,
            file: None,
        };
        Some(Arc::new(Snapshot { problems: vec![problem], ..Snapshot::default() }))
    }

    struct Running {
        snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        desired: watch::Receiver<Option<Arc<Desired>>>,
        planned: watch::Receiver<Option<Planned>>,
        _draining: watch::Sender<bool>,
        _problems: [watch::Sender<Arc<Vec<Problem>>>; 2],
        _provided: watch::Sender<Arc<Provided>>,
        _gateways: watch::Sender<Vec<Gateway>>,
    }

    fn start() -> Running {
        let (snapshots, for_snapshots) = watch::channel(None);
        let (for_draining, draining) = watch::channel(false);
        let (for_desired, desired) = watch::channel(None);
        let (for_planned, planned) = watch::channel(None);
        let (_problems, for_problems) = watch::channel(Arc::default());
        let (_provided, provided) = watch::channel(Arc::default());
        let (_found, for_found) = watch::channel(Arc::default());
        let (_gateways, gateways) = watch::channel(Vec::new());
        let settings = Settings::new("n1");
        let decide = Decide {
            snapshots: for_snapshots,
            draining,
            exits: Exits::new(Duration::from_secs(5)),
            provided,
            problems: for_problems,
            found: for_found,
            gateways,
            settings,
            planner: Planner::default(),
            desired: for_desired,
            planned: for_planned,
            metrics: Metrics::default(),
        };
        tokio::spawn(decide.run());
        Running {
            snapshots,
            desired,
            planned,
            _draining: for_draining,
            _problems: [_problems, _found],
            _provided,
            _gateways,
        }
    }

    async fn decided(running: &mut Running) -> String {
        running.desired.changed().await.expect("the task runs");
        running.desired.borrow_and_update().as_ref().expect("a decision").problems[0].message.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_decided_before_the_source_is_complete() {
        let mut running = start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(running.desired.borrow().is_none());
        running.snapshots.send_replace(snapshot("first"));
        assert_eq!(decided(&mut running).await, "first");
    }

    #[tokio::test(start_paused = true)]
    async fn first_change_is_decided_at_once_and_a_burst_together() {
        let mut running = start();
        running.snapshots.send_replace(snapshot("first"));
        decided(&mut running).await;
        tokio::time::sleep(Duration::from_secs(1)).await;

        let start = tokio::time::Instant::now();
        running.snapshots.send_replace(snapshot("a"));
        assert_eq!(decided(&mut running).await, "a");
        assert_eq!(start.elapsed(), Duration::ZERO);
        running.snapshots.send_replace(snapshot("b"));
        tokio::time::sleep(Duration::from_millis(2)).await;
        running.snapshots.send_replace(snapshot("c"));
        assert_eq!(decided(&mut running).await, "c", "b and c are decided together");
        assert!(start.elapsed() <= COALESCE + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn same_decision_from_a_new_snapshot_is_told_to_the_recorder_alone() {
        let mut running = start();
        running.snapshots.send_replace(snapshot("a"));
        decided(&mut running).await;
        running.planned.borrow_and_update();
        let again = snapshot("a");
        running.snapshots.send_replace(again.clone());
        running.planned.changed().await.expect("the task runs");
        let planned = running.planned.borrow_and_update().clone().expect("a plan");
        assert!(Arc::ptr_eq(&planned.snapshot, &again.expect("a snapshot")));
        assert!(!running.desired.has_changed().expect("the task runs"));
    }
}
