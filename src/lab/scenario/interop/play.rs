//! A cell while it is tried: its nodes, what the router shows, and what is reported.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    cells::Cell,
    link::Link,
    node::Node,
    router::{Make, Place},
    seen::Seen,
};
use crate::lab::{
    report::{Expectation, Report},
    stage::{Observation, Stop},
};

/// Between two questions to a node.
const EVERY: Duration = Duration::from_millis(100);

/// A cell being tried.
pub(super) struct Play<'a> {
    pub(super) cell: Cell,
    pub(super) nodes: Vec<Node>,
    pub(super) make: Make,
    pub(super) place: &'a Place,
    pub(super) seen: watch::Receiver<Arc<Seen>>,
    pub(super) report: &'a Report,
    /// Whether every expectation so far was met.
    pub(super) ok: bool,
}

impl Play<'_> {
    /// The link of the first node.
    pub(super) fn link(&self) -> Link {
        self.nodes[0].link.clone()
    }

    /// What the first node announces.
    pub(super) fn announced(&self) -> Vec<IpNet> {
        self.nodes[0].link.announced()
    }

    /// Waits until the router shows what is expected.
    ///
    /// # Errors
    /// The time is over, or a daemon has ended.
    pub(super) async fn until(
        &mut self,
        what: &str,
        expected: &str,
        within: Duration,
        judge: impl Fn(&Seen) -> Observation,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + within;
        loop {
            let now = judge(&self.seen.borrow_and_update());
            if now.ok || Instant::now() > deadline {
                return self.settle(what, expected, now);
            }
            self.must_run(what, expected)?;
            // The end of the router ends the row.
            let _ = tokio::time::timeout(EVERY, self.seen.changed()).await;
        }
    }

    /// Watches for a while that what the router shows stays as expected.
    ///
    /// # Errors
    /// It does not, or a daemon has ended.
    pub(super) async fn stays(
        &mut self,
        what: &str,
        expected: &str,
        during: Duration,
        judge: impl Fn(&Seen) -> Observation,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + during;
        loop {
            let now = judge(&self.seen.borrow_and_update());
            if !now.ok || Instant::now() > deadline {
                return self.settle(what, expected, now);
            }
            self.must_run(what, expected)?;
            let _ = tokio::time::timeout(EVERY, self.seen.changed()).await;
        }
    }

    /// Waits until the first node's words on why its session is not up are what is expected.
    ///
    /// # Errors
    /// The time is over, or a daemon has ended.
    pub(super) async fn until_told(
        &mut self,
        what: &str,
        expected: &str,
        within: Duration,
        judge: impl Fn(&str) -> bool,
    ) -> Result<(), Stop> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.nodes[0].last_error().await.unwrap_or_default();
            let ok = judge(&seen);
            if ok || Instant::now() > deadline {
                return self.settle(what, expected, Observation { seen, ok });
            }
            self.must_run(what, expected)?;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Reports something that is so or not.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn settle(&mut self, what: &str, expected: &str, now: Observation) -> Result<(), Stop> {
        let Observation { seen, ok } = now;
        self.ok &= ok;
        let name = format!("{}: {what}", self.cell.name());
        self.report.record(Expectation { name, expected: expected.into(), seen, ok, waiting: None });
        if ok { Ok(()) } else { Err(Stop::Unmet) }
    }

    fn must_run(&mut self, what: &str, expected: &str) -> Result<(), Stop> {
        match self.nodes.iter_mut().try_for_each(Node::must_run) {
            Ok(()) => Ok(()),
            Err(error) => self.settle(what, expected, Observation { seen: format!("{error:#}"), ok: false }),
        }
    }
}
