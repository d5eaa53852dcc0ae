//! The task that owns the packet path in the kernel: what is decided in, programs and tables out.
//!
//! ```text
//!  Planned ──┐
//!  secret ───┼─▶ Tables::spec ─▶ apply ─▶ attach ─▶ Report: mode of each uplink, addresses served
//!  netlink ──┤
//!  probes ───┘  which nodes take encapsulated packets
//! ```
//!
//! Tables first, then programs, then [`Report::settled`], then sessions. Nothing here is fatal but the loss of
//! netlink: what the kernel refuses is told, and kube-proxy takes the packets. Cancelling leaves everything that is
//! pinned as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, Stream, StreamExt};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::block_in_place,
    time::sleep,
};
use tracing::{debug, info, warn};

use super::{
    aggregates::{self, Aggregates},
    kernel::{self, Step},
    query::Query,
    report::{Counted, Finish, Report},
    spec::Bypass,
    tables::{Inputs, Tables},
    underlay::{NoWay, Underlay, first_answering},
};
use crate::{plan::Planned, types::Snapshot};

mod ask;
mod observe;
mod owner;
mod probe;

use owner::Owner;

/// Notifications come in bursts; this long after the first one the whole is observed once.
const COALESCE: Duration = Duration::from_millis(100);
/// A lost notification costs at most this long; neighbours are confirmed as often.
const REPAIR: Duration = Duration::from_secs(10);
/// At the start, neighbours get this long to answer before the first tables are published without them, and after
/// that nodes before sessions come up.
const FIRST_NEIGHBOURS: Duration = Duration::from_secs(2);
/// While neighbours are awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Without a secret for so long, sessions come up without us.
const SECRET_PATIENCE: Duration = Duration::from_secs(15);
/// Counters for metrics are at most so old.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// The record of memberships is marked as kept so often.
const MARK_EVERY: Duration = Duration::from_secs(2);
/// A record that was not marked for so long: nobody saw what became of Services meanwhile. A restart takes less.
const AWAY: Duration = Duration::from_secs(4);

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// What does not change while we run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this node.
    pub node: String,
    /// Interfaces to attach to; empty: those of default routes and towards BGP peers.
    pub uplinks: Vec<String>,
    /// Folder in a bpffs for what outlives the daemon.
    pub pins: PathBuf,
    /// Folder of the record of memberships.
    pub state_dir: PathBuf,
    /// Connections that are remembered at most.
    pub flows: u32,
    /// The step of the ladder to begin with.
    pub best: Step,
    /// Deliver to pods of this node without the host's stack.
    pub bypass: bool,
}

/// How this module is joined to the others.
#[derive(Debug)]
pub struct Channels {
    /// The newest decision; `None` until the first.
    pub planned: watch::Receiver<Option<Planned>>,
    /// Secret of the cluster; `None` until it is known.
    pub secret: watch::Receiver<Option<[u8; 32]>>,
    /// What is so.
    pub report: watch::Sender<Arc<Report>>,
    /// Packets counted.
    pub counted: watch::Sender<Arc<Counted>>,
    /// Questions of people.
    pub queries: mpsc::Receiver<Query>,
    /// Ends [`run`]; dropped, it counts as [`Finish::Keep`].
    pub finish: oneshot::Receiver<Finish>,
}

/// The conversation with the kernel broke down.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No socket.
    #[error("open a netlink socket")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("ask the kernel for links, routes and neighbours")]
    Observe(#[from] rtnetlink::Error),
    /// The socket closed.
    #[error("the netlink socket closed")]
    Closed,
    /// The planner is gone.
    #[error("the planner ended, so nothing tells what the tables should be")]
    NoPlanner,
}

/// Keeps programs and tables as wanted until told to finish.
///
/// # Errors
/// Netlink cannot be used any more, or the planner is gone.
pub async fn run(options: Options, channels: Channels) -> Result<(), DriverError> {
    let (connection, handle, events) = new_multicast_connection(&GROUPS).map_err(DriverError::Open)?;
    let Channels { planned, secret, report, counted, mut queries, mut finish } = channels;
    let (pins, record) = (options.pins.clone(), record_path(&options));
    let (ways, for_probes) = watch::channel(probe::Ways::new());
    let (to_answering, answering) = watch::channel(BTreeSet::new());
    let (recorded, is_recorded) = watch::channel(false);
    let mut driver = Driver::new(options, handle, planned, secret, Peers { ways, answering }, recorded);
    let conversation = async {
        let how = tokio::select! {
            how = &mut finish => how.unwrap_or(Finish::Keep),
            error = driver.work(events, &mut queries, &report, &counted) => return Err(error),
        };
        driver.owner.end(how);
        if how == Finish::Remove {
            driver.drop_strays(Aggregates::new()).await;
        }
        if how == Finish::Remove
            && let Err(error) = kernel::remove(&pins)
        {
            warn!(error = %anyhow::Error::new(error), "programs of the packet path may be left");
        }
        Ok(())
    };
    tokio::select! {
        () = connection => Err(DriverError::Closed),
        never = probe::run(for_probes, to_answering) => match never {},
        never = mark(&record, is_recorded) => match never {},
        result = conversation => result,
    }
}

/// Tells who may be sent to, and hears who takes it.
struct Peers {
    ways: watch::Sender<probe::Ways>,
    answering: watch::Receiver<BTreeSet<IpAddr>>,
}

struct Driver {
    options: Options,
    handle: Handle,
    planned: watch::Receiver<Option<Planned>>,
    secret: watch::Receiver<Option<[u8; 32]>>,
    peers: Peers,
    owner: Owner,
    tables: Tables,
    /// What is on disk.
    saved: Vec<u8>,
    /// That is what this process knows.
    recorded: watch::Sender<bool>,
    /// Neighbours are confirmed then.
    confirm: Instant,
    /// So long the first tables are not final.
    complete_by: Option<Instant>,
    /// What the kernel was told to drop.
    aggregates: Aggregates,
    /// Pinned programs forward until ours take over.
    predecessor: bool,
}

impl Driver {
    fn new(
        options: Options,
        handle: Handle,
        planned: watch::Receiver<Option<Planned>>,
        secret: watch::Receiver<Option<[u8; 32]>>,
        peers: Peers,
        recorded: watch::Sender<bool>,
    ) -> Self {
        let tables = remembered(&options);
        let predecessor = kernel::is_pinned(&options.pins);
        let owner = Owner::new(&options);
        Self {
            options,
            handle,
            planned,
            secret,
            peers,
            owner,
            tables,
            saved: vec![],
            recorded,
            confirm: Instant::now(),
            complete_by: None,
            aggregates: Aggregates::new(),
            predecessor,
        }
    }

    /// Works until something breaks.
    async fn work(
        &mut self,
        mut events: impl Stream + Unpin,
        queries: &mut mpsc::Receiver<Query>,
        report: &watch::Sender<Arc<Report>>,
        counted: &watch::Sender<Arc<Counted>>,
    ) -> DriverError {
        block_in_place(|| self.owner.prepare());
        if let Err(error) = self.wait_for_inputs(report).await {
            return error;
        }
        let started = Instant::now();
        let mut count = tokio::time::interval(COUNT_EVERY);
        loop {
            let again = match self.round(started).await {
                Ok(again) => again,
                Err(error) => return error,
            };
            publish(report, self.owner.report());
            tokio::select! {
                changed = self.planned.changed() => if changed.is_err() { return DriverError::NoPlanner },
                Ok(()) = self.secret.changed() => {}
                Ok(()) = self.peers.answering.changed() => {}
                Some(query) = queries.recv() => block_in_place(|| self.owner.answer(query)),
                event = events.next() => {
                    if event.is_none() {
                        return DriverError::Closed;
                    }
                    sleep(COALESCE).await;
                    while let Some(Some(_)) = events.next().now_or_never() {}
                }
                _ = count.tick() => {
                    if let Some(new) = self.owner.count() {
                        counted.send_replace(Arc::new(new));
                    }
                }
                () = tokio::time::sleep_until(again.into()) => {}
            }
        }
    }

    /// Nothing is touched before there is a plan and the secret.
    async fn wait_for_inputs(&mut self, report: &watch::Sender<Arc<Report>>) -> Result<(), DriverError> {
        self.planned.wait_for(Option::is_some).await.map_err(|_| DriverError::NoPlanner)?;
        let secret = tokio::time::timeout(SECRET_PATIENCE, self.secret.wait_for(Option::is_some)).await.is_ok();
        if !secret {
            warn!("the secret of the cluster is not known yet; packets are left to kube-proxy until it is");
            publish(report, Report::without("waiting for the secret of the cluster; see --cluster-secret"));
            let known = self.secret.wait_for(Option::is_some).await.is_ok();
            if !known {
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }

    /// Observes, makes tables, applies, attaches. Says when the next round is due if nothing happens.
    async fn round(&mut self, started: Instant) -> Result<Instant, DriverError> {
        let Some(Planned { snapshot, desired }) = self.planned.borrow_and_update().clone() else {
            return Ok(Instant::now() + REPAIR);
        };
        let Some(secret) = *self.secret.borrow_and_update() else { return Ok(Instant::now() + REPAIR) };
        let others = snapshot.nodes.values().filter(|n| n.name != self.options.node);
        let peers: BTreeSet<IpAddr> = desired.peers.values().filter_map(|peer| peer.address).collect();
        let pods = if self.options.bypass { own_pods(&snapshot, &self.options.node) } else { BTreeSet::new() };
        let towards = others.clone().flat_map(|n| n.addresses.iter().copied());
        let towards = towards.chain(peers.iter().copied()).chain(pods.iter().copied()).collect();
        let underlay = observe::underlay(&self.handle, &towards).await?;
        let own = snapshot.nodes.get(&self.options.node).map(|n| n.addresses.clone()).unwrap_or_default();
        let answering = self.peers.answering.borrow_and_update().clone();
        let (mut routes, mut unresolved) = (BTreeMap::new(), BTreeMap::new());
        let (mut ways, mut silent) = (probe::Ways::new(), Vec::new());
        for node in others {
            match underlay.routes(&node.addresses, &own) {
                Ok(found) => {
                    ways.extend(found.iter().map(|route| (route.destination, route.source)));
                    let answers = first_answering(&found, &answering);
                    silent.extend(answers.is_none().then(|| node.name.clone()));
                    routes.insert(node.name.clone(), answers.unwrap_or(found[0]));
                }
                Err(no) => drop(unresolved.insert(node.name.clone(), no)),
            }
        }
        self.peers.ways.send_if_modified(|before| {
            let changed = *before != ways;
            *before = ways;
            changed
        });
        let now = Instant::now();
        let asked = self.resolve(&underlay, &routes, &unresolved, now).await;
        if asked && !self.owner.has_attached() && now < started + FIRST_NEIGHBOURS {
            return Ok(now + LOOK_AGAIN);
        }
        // Packets that come before a node is known to take them would be kube-proxy's, and their connections break:
        // a predecessor's program stays until all have answered, and sessions come up only then.
        let patience = *self.complete_by.get_or_insert(now + FIRST_NEIGHBOURS);
        let complete = silent.is_empty() && unresolved.is_empty();
        if self.predecessor && !complete && now < patience {
            return Ok(now + LOOK_AGAIN);
        }
        self.predecessor = false;
        routes.retain(|name, _| !silent.contains(name));
        let inputs = Inputs { snapshot: &snapshot, desired: &desired, secret, routes: &routes };
        let mut spec = self.tables.spec(&inputs, now);
        spec.bypass = self.options.bypass.then(|| Bypass {
            interfaces: underlay.veths(pods.into_iter()),
            back: underlay.default.iter().copied().collect(),
        });
        let uplinks = match &self.options.uplinks[..] {
            [] => underlay.uplinks(peers.iter()),
            names => underlay.named(names),
        };
        block_in_place(|| self.owner.make(spec, &uplinks, &underlay.links));
        let prefixes = desired.behind.keys().filter(|prefix| prefix.prefix_len() < prefix.max_prefix_len());
        let wanted = prefixes.flat_map(|prefix| uplinks.keys().map(|uplink| (*prefix, uplink.clone()))).collect();
        self.drop_strays(wanted).await;
        self.owner.unreachable(unresolved.into_keys().chain(silent).collect());
        self.owner.settle(complete || now >= patience);
        self.save();
        if now < patience {
            return Ok(patience);
        }
        Ok(self.tables.deadline().map_or(now + REPAIR, |at| at.min(now + REPAIR)).max(now + LOOK_AGAIN))
    }

    /// Asks for neighbours that are not known, and now and then for those in use. Whether any was not known.
    async fn resolve(
        &mut self,
        underlay: &Underlay,
        routes: &BTreeMap<String, super::spec::Route>,
        unresolved: &BTreeMap<String, NoWay>,
        now: Instant,
    ) -> bool {
        let unknown = unresolved.values().filter_map(|no| match no {
            NoWay::Neighbour(interface, address) => Some((*interface, *address)),
            NoWay::Route => None,
        });
        let mut ask: BTreeSet<(u32, IpAddr)> = unknown.collect();
        let any = !ask.is_empty();
        if self.confirm <= now {
            self.confirm = now + REPAIR;
            let used = routes.values().filter_map(|route| {
                let way = underlay.ways.get(&route.destination)?;
                Some((way.interface, way.gateway.unwrap_or(route.destination)))
            });
            ask.extend(used);
        }
        for (interface, address) in ask {
            if let Err(error) = observe::resolve(&self.handle, interface, address).await {
                debug!(%address, %error, "neighbour cannot be resolved");
            }
        }
        any
    }

    /// Has the kernel drop what is for an announced aggregate and for nobody.
    async fn drop_strays(&mut self, wanted: Aggregates) {
        if wanted == self.aggregates {
            return;
        }
        if let Err(error) = aggregates::keep(&self.handle, &wanted).await {
            warn!(%error, "packets to addresses of an aggregate that are nobody's go back to the router");
        }
        self.aggregates = wanted;
    }

    /// Writes the memberships down where they changed.
    fn save(&mut self) {
        let record = self.tables.encode(Instant::now(), SystemTime::now());
        if self.saved == record {
            return;
        }
        // Not while it is written: the mark is for what stands there.
        self.recorded.send_replace(false);
        let path = record_path(&self.options);
        let half = path.with_extension("half");
        let write = || {
            std::fs::create_dir_all(&self.options.state_dir)?;
            std::fs::write(&half, &record)?;
            std::fs::rename(&half, &path)
        };
        match write() {
            Ok(()) => drop(self.recorded.send_replace(true)),
            Err(error) => warn!(%error, path = %path.display(), "a restart will not know former owners of connections"),
        }
        self.saved = record;
    }
}

/// Marks the record as kept: what it does not say did not happen.
async fn mark(record: &Path, mut is_recorded: watch::Receiver<bool>) -> Infallible {
    loop {
        if is_recorded.wait_for(|recorded| *recorded).await.is_err() {
            std::future::pending::<()>().await;
        }
        let file = std::fs::File::options().write(true).open(record);
        if let Err(error) = file.and_then(|file| file.set_modified(SystemTime::now())) {
            debug!(%error, path = %record.display(), "the record of memberships is not marked");
        }
        sleep(MARK_EVERY).await;
    }
}

/// Addresses of this node's pods.
fn own_pods(snapshot: &Snapshot, node: &str) -> BTreeSet<IpAddr> {
    let endpoints = snapshot.endpoints.values().flat_map(|endpoints| endpoints.iter());
    endpoints.filter(|e| e.node.as_deref() == Some(node)).map(|e| e.address).collect()
}

fn record_path(options: &Options) -> PathBuf {
    options.state_dir.join("memberships.json")
}

fn remembered(options: &Options) -> Tables {
    let path = record_path(options);
    let Ok(bytes) = std::fs::read(&path) else { return Tables::new(&options.node) };
    let marked = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
    let age = marked.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
    match Tables::restore(&options.node, &bytes, Instant::now(), SystemTime::now()) {
        Ok(mut tables) if age > AWAY => {
            info!(?age, "nobody saw what became of Services meanwhile: connections may be anywhere");
            tables.was_away();
            tables
        }
        Ok(tables) => tables,
        Err(error) => {
            warn!(%error, path = %path.display(), "starting without memory of former owners");
            Tables::new(&options.node)
        }
    }
}

fn publish(to: &watch::Sender<Arc<Report>>, new: Report) {
    to.send_if_modified(|old| {
        if **old == new {
            return false;
        }
        if old.state.uplinks != new.state.uplinks {
            for uplink in &new.state.uplinks {
                info!(uplink.interface, uplink.mode, failed = ?uplink.failed, "uplink");
            }
        }
        *old = Arc::new(new);
        true
    });
}
