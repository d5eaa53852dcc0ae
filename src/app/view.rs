//! What the admin port and the node's status object show: every channel's newest value, put together on demand.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use ironcast_bgp::net::Unacknowledged;
use tokio::sync::{mpsc, watch};

use super::{
    drain::Drain,
    state::{Inputs, excerpt, figures, node_state, outline},
};
use crate::{
    admin::{Facts, Figures},
    announce::AnnounceState,
    datapath::{
        query::Query,
        report::{Counted, Report},
    },
    plan::Planned,
    source::status::Excerpt,
    types::{NodeState, Set},
};

/// Changes within this time become one state of the node.
const SETTLE: Duration = Duration::from_millis(100);

/// The ends of the channels that tell what is so.
#[derive(Debug)]
pub(super) struct View {
    pub(super) node: String,
    pub(super) source: &'static str,
    pub(super) planned: watch::Receiver<Option<Planned>>,
    pub(super) announce: watch::Receiver<Arc<AnnounceState>>,
    pub(super) ready: watch::Receiver<Set<IpAddr>>,
    pub(super) leader: watch::Receiver<bool>,
    pub(super) drain: Arc<Drain>,
    /// Where there is a packet path.
    pub(super) datapath: Option<watch::Receiver<Arc<Report>>>,
    pub(super) counted: Option<watch::Receiver<Arc<Counted>>>,
    pub(super) queries: Option<mpsc::Sender<Query>>,
    pub(super) unacknowledged: mpsc::Sender<Unacknowledged>,
    pub(super) stopping: AtomicBool,
}

impl View {
    fn show<T>(&self, make: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let planned = self.planned.borrow().clone();
        let announce = self.announce.borrow().clone();
        let desired = planned.as_ref().map(|p| p.desired.clone()).unwrap_or_default();
        let datapath = self.datapath.as_ref().map(|report| report.borrow().clone());
        make(&Inputs {
            node: &self.node,
            source: self.source,
            leader: *self.leader.borrow(),
            draining: *self.drain.subscribe().borrow(),
            snapshot: planned.as_ref().map(|p| &*p.snapshot),
            desired: &desired,
            announce: &announce,
            datapath: datapath.as_deref(),
        })
    }

    /// Tells `states` of the node's state whenever something in it may have changed. Runs until cancelled.
    pub(super) async fn publish(self: Arc<Self>, states: watch::Sender<Option<Arc<Excerpt>>>) -> Infallible {
        let (mut planned, mut announce) = (self.planned.clone(), self.announce.clone());
        let (mut leader, mut draining) = (self.leader.clone(), self.drain.subscribe());
        let mut datapath = self.datapath.clone();
        loop {
            tokio::select! {
                Ok(()) = planned.changed() => {}
                Ok(()) = announce.changed() => {}
                Ok(()) = leader.changed() => {}
                Ok(()) = draining.changed() => {}
                Ok(()) = changed(&mut datapath) => {}
                else => std::future::pending().await,
            }
            tokio::time::sleep(SETTLE).await;
            planned.mark_unchanged();
            announce.mark_unchanged();
            if planned.borrow().is_some() {
                states.send_replace(Some(Arc::new(self.show(|inputs| excerpt(inputs, Instant::now())))));
            }
        }
    }
}

/// Pending for ever without a packet path.
async fn changed<T>(watched: &mut Option<watch::Receiver<T>>) -> Result<(), watch::error::RecvError> {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

impl Facts for View {
    fn state(&self) -> NodeState {
        self.show(|inputs| node_state(inputs, Instant::now()))
    }

    fn outline(&self) -> NodeState {
        self.show(|inputs| outline(inputs, Instant::now()))
    }

    fn figures(&self) -> Figures {
        let ready = self.ready.borrow().clone();
        let mut figures = self.show(|inputs| figures(inputs, &ready));
        figures.packets = self.counted();
        figures
    }

    fn counted(&self) -> Arc<Counted> {
        self.counted.as_ref().map(|counted| counted.borrow().clone()).unwrap_or_default()
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Relaxed) {
            return Err("shutting down".into());
        }
        match *self.planned.borrow() {
            Some(_) => Ok(()),
            None => Err(format!("waiting for the first complete list of every kind from {}", self.source)),
        }
    }

    fn packet_path(&self) -> Option<mpsc::Sender<Query>> {
        self.queries.clone()
    }

    fn speaker(&self) -> mpsc::Sender<Unacknowledged> {
        self.unacknowledged.clone()
    }

    fn drain(&self, on: bool) -> Result<(), String> {
        self.drain.set(on)
    }
}
