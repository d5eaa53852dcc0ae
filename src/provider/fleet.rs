//! What the leader does for the nodes at their provider, so that nobody else needs the account's token: BGP is switched on
//! for the project and for each machine, claimed addresses are bound where a provider wants to be told, and what the
//! provider says of each machine goes to a [`Board`], where its node reads it.
//!
//! ```text
//!  leader, snapshot ─▶ enable_project ─▶ device, enable_node, peers of each machine ─▶ Board
//!                                          └─▶ bind of each claimed address
//! ```
//!
//! A round is made when a configuration or a machine changed, and every `refreshInterval`; a new address is bound at
//! once. Repeating is harmless, so cancelling is too, and nothing is kept over the end of a term.
//!
//! A machine counts as gone only where this provider has shown it before: a node of another provider is none of ours.
//! Where every machine would be taken away at once, none is: the whole cluster would vanish by one wrong answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    BgpMode, DeviceState, Enabled, NodeId, NodePeers, PeerSource, ProjectBgp, SourceError, claims, driver::Connect,
    node,
};
use crate::types::{
    ClaimProblem, ClaimState, DEVICE_STATE, LeaseId, Node, PeersFrom, ProviderConfig, ProviderKind, Snapshot,
};

/// Between two rounds, where the configuration does not say.
const REFRESH: Duration = Duration::from_secs(300);
/// The first wait after a round in which something failed; it doubles up to the usual one.
const RETRY: Duration = Duration::from_secs(5);
/// Changes within this time make one round.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest that an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(40);
/// Machines asked about beside each other.
const ABREAST: usize = 4;

/// What could not be written where nodes read it.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct BoardError {
    /// What was tried, of which node.
    pub attempt: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where nodes read what the leader learned.
pub trait Board: Send + Sync {
    /// The state of a node's machine, in the annotation [`DEVICE_STATE`].
    fn state<'a>(&'a self, node: &'a str, state: &'static str) -> BoxFuture<'a, Result<(), BoardError>>;

    /// The routers that a provider gives a node, for that node alone.
    fn peers<'a>(
        &'a self,
        node: &'a str,
        provider: &'a str,
        peers: &'a NodePeers,
    ) -> BoxFuture<'a, Result<(), BoardError>>;

    /// Takes away the routers of everybody but these: provider and node.
    fn keep<'a>(&'a self, wanted: &'a BTreeSet<(String, String)>) -> BoxFuture<'a, Result<(), BoardError>>;
}

/// What is followed and told.
pub struct Channels {
    /// `None` before the first complete one.
    pub snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// Whether this process leads.
    pub leader: watch::Receiver<bool>,
    /// What holds up a provider, by name.
    pub problems: watch::Sender<Arc<BTreeMap<String, ClaimProblem>>>,
}

/// Works until cancelled, whenever this process leads.
///
/// # Errors
/// Never: what fails is tried again.
pub async fn run(connect: Connect, board: Arc<dyn Board>, mut channels: Channels) -> Result<(), Infallible> {
    loop {
        if channels.leader.wait_for(|leads| *leads).await.is_err() {
            return std::future::pending().await;
        }
        let snapshots = channels.snapshots.clone();
        let term = Term::new(&connect, &*board, &channels.problems);
        tokio::select! {
            never = term.run(snapshots) => match never {},
            _ = channels.leader.wait_for(|leads| !*leads) => {}
        }
        channels.problems.send_replace(Arc::default());
    }
}

/// One provider with its machines, and the addresses that it leased.
#[derive(Clone, PartialEq)]
struct Job {
    config: ProviderConfig,
    machines: Vec<NodeId>,
    leases: BTreeSet<LeaseId>,
}

fn jobs(snapshot: &Snapshot) -> BTreeMap<String, Job> {
    let job = |config: &ProviderConfig| {
        let machines = snapshot.nodes.values().filter_map(|node| machine_of(config.kind, node)).collect();
        let bound = snapshot.claims.values().filter(|claim| claim.spec.provider == config.name);
        let leases = bound.filter_map(|claim| match &claim.state {
            ClaimState::Bound { lease, .. } => Some(lease.clone()),
            _ => None,
        });
        Job { config: config.clone(), machines, leases: leases.collect() }
    };
    let usable = snapshot.providers.iter().filter(|(_, config)| config.missing_secret.is_none());
    usable.map(|(name, config)| (name.clone(), job(config))).collect()
}

/// The machine of a node, where its `providerID` is of such a provider, or its annotation names one.
fn machine_of(kind: ProviderKind, at: &Node) -> Option<NodeId> {
    let scheme = at.provider_id.as_deref().and_then(|id| id.split_once("://")).map(|(scheme, _)| scheme);
    let ours = node::is_annotated(at) || scheme.is_none_or(|scheme| kind.schemes().contains(&scheme));
    Some(node::id(&at.name, Some(at))).filter(|id| ours && !id.device.is_empty())
}

/// The time that this process leads.
struct Term<'a> {
    connect: &'a Connect,
    board: &'a dyn Board,
    problems: &'a watch::Sender<Arc<BTreeMap<String, ClaimProblem>>>,
    /// Machines that each provider has shown.
    seen: BTreeSet<(String, String)>,
    /// Those that run, with the addresses bound to them.
    running: BTreeMap<String, BTreeMap<NodeId, BTreeSet<LeaseId>>>,
    /// Routers as the board has them.
    written: BTreeMap<(String, String), NodePeers>,
}

/// What one machine's calls gave.
struct Found {
    node: NodeId,
    state: Result<DeviceState, SourceError>,
    peers: Option<NodePeers>,
    problem: Option<ClaimProblem>,
}

impl<'a> Term<'a> {
    fn new(
        connect: &'a Connect,
        board: &'a dyn Board,
        problems: &'a watch::Sender<Arc<BTreeMap<String, ClaimProblem>>>,
    ) -> Self {
        let (seen, running) = (BTreeSet::new(), BTreeMap::new());
        Self { connect, board, problems, seen, running, written: BTreeMap::new() }
    }

    async fn run(mut self, mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> Infallible {
        let (mut last, mut wait) = (BTreeMap::new(), RETRY);
        loop {
            let Some(snapshot) = snapshots.borrow_and_update().clone() else {
                changed(&mut snapshots).await;
                continue;
            };
            let jobs = jobs(&snapshot);
            let calm = match same_but_leases(&jobs, &last) {
                true => self.bind(&jobs).await,
                false => self.round(&jobs, &snapshot).await,
            };
            let usual = jobs.values().filter_map(|job| job.config.timing.refresh).min().unwrap_or(REFRESH);
            let pause = if calm { usual } else { wait.min(usual) };
            wait = if calm { RETRY } else { (wait * 2).min(usual.max(RETRY)) };
            last = jobs;
            // Time alone makes a whole round.
            if timeout(pause, news(&mut snapshots, &last)).await.is_err() {
                last.clear();
            }
        }
    }

    /// Asks about everything. Whether nothing is left to be done soon.
    async fn round(&mut self, jobs: &BTreeMap<String, Job>, snapshot: &Snapshot) -> bool {
        let (mut problems, mut states) = (BTreeMap::new(), BTreeMap::<String, DeviceState>::new());
        self.running.retain(|name, _| jobs.contains_key(name));
        for (name, job) in jobs {
            let Some(source) = self.client(&job.config) else { continue };
            let (found, problem) = ask(&*source, job).await;
            let mut told = problem.or_else(|| found.iter().find_map(|found| found.problem.clone()));
            self.see(name, &found);
            match self.judge(name, &found) {
                Ok(judged) => {
                    for (node, state) in judged {
                        let known = states.entry(node).or_insert_with(|| state.clone());
                        if *known == DeviceState::Gone {
                            *known = state;
                        }
                    }
                }
                Err(wrong) => told = told.or(Some(wrong)),
            }
            told = self.write_peers(name, &found).await.or(told);
            problems.extend(told.map(|problem| (name.clone(), problem)));
        }
        let kept = self.keep(jobs).await;
        let shown = self.write_states(&states, snapshot).await;
        let bound = self.bind(jobs).await;
        let calm = problems.is_empty() && kept && shown && bound;
        self.problems.send_replace(Arc::new(problems));
        calm
    }

    /// What a configuration lacks is told where addresses are claimed.
    fn client(&self, config: &ProviderConfig) -> Option<Arc<dyn PeerSource>> {
        (self.connect)(config).ok()?.peers
    }

    fn see(&mut self, name: &str, found: &[Found]) {
        let runs = |found: &&Found| found.state.as_ref().is_ok_and(runs);
        let before = self.running.remove(name).unwrap_or_default();
        let now = found.iter().filter(runs).map(|found| found.node.clone());
        let now = now.map(|node| (node.clone(), before.get(&node).cloned().unwrap_or_default()));
        self.running.insert(name.into(), now.collect());
        let shown = found.iter().filter(|found| found.state.as_ref().is_ok_and(|state| *state != DeviceState::Gone));
        self.seen.extend(shown.map(|found| (name.to_owned(), found.node.device.clone())));
    }

    /// The states that may be shown.
    fn judge(&self, name: &str, found: &[Found]) -> Result<BTreeMap<String, DeviceState>, ClaimProblem> {
        let ours = |found: &&Found| self.seen.contains(&(name.to_owned(), found.node.device.clone()));
        let known = found.iter().filter(ours);
        let states: BTreeMap<String, DeviceState> =
            known.filter_map(|found| Some((found.node.name.clone(), found.state.clone().ok()?))).collect();
        if states.len() > 1 && !states.values().any(runs) {
            let message = format!(
                "the provider says that none of the {} machines of this cluster runs, so nothing is changed; \
                 correct spec.project and the credentials, or look after the machines",
                states.len()
            );
            return Err(ClaimProblem { reason: "AllMachinesUnavailable".into(), message });
        }
        Ok(states)
    }

    async fn write_peers(&mut self, name: &str, found: &[Found]) -> Option<ClaimProblem> {
        for (node, peers) in found.iter().filter_map(|found| Some((&found.node.name, found.peers.as_ref()?))) {
            let of = (name.to_owned(), node.clone());
            if self.written.get(&of) == Some(peers) {
                continue;
            }
            if let Err(error) = self.board.peers(node, name, peers).await {
                return Some(not_written(&error));
            }
            info!(node, provider = name, peers = peers.peers.len(), "the node's routers are written");
            self.written.insert(of, peers.clone());
        }
        None
    }

    /// Routers of nodes and providers that are no more.
    async fn keep(&mut self, jobs: &BTreeMap<String, Job>) -> bool {
        let given = jobs.iter().filter(|(_, job)| job.config.peers == PeersFrom::Account);
        let wanted: BTreeSet<(String, String)> = given
            .flat_map(|(name, job)| job.machines.iter().map(move |machine| (name.clone(), machine.name.clone())))
            .collect();
        self.written.retain(|of, _| wanted.contains(of));
        let kept = self.board.keep(&wanted).await;
        kept.inspect_err(|error| warn!(%error, "routers of nodes that are gone are still there")).is_ok()
    }

    async fn write_states(&self, states: &BTreeMap<String, DeviceState>, snapshot: &Snapshot) -> bool {
        let mut calm = true;
        for (node, state) in states {
            let word = word(state);
            let before = snapshot.nodes.get(node).and_then(|node| node.annotations.get(DEVICE_STATE));
            // Nothing need be said of a machine that runs and was never said to be away.
            if before.map_or("Active", String::as_str) == word {
                continue;
            }
            info!(node, state = word, "the provider says so of the machine");
            if let Err(error) = self.board.state(node, word).await {
                warn!(node, error = %chain(&error), "the state of the machine is not written");
                calm = false;
            }
        }
        calm
    }

    /// Binds what is not bound yet.
    async fn bind(&mut self, jobs: &BTreeMap<String, Job>) -> bool {
        let mut calm = true;
        for (name, job) in jobs {
            let Some(source) = self.client(&job.config) else { continue };
            for (node, bound) in self.running.get_mut(name).into_iter().flatten() {
                bound.retain(|lease| job.leases.contains(lease));
                for lease in &job.leases {
                    if bound.contains(lease) {
                        continue;
                    }
                    match within(source.bind(lease, node)).await {
                        Ok(()) => drop(bound.insert(lease.clone())),
                        Err(error) => {
                            warn!(node = node.name, %lease, %error, "the address is not bound to the machine");
                            calm = false;
                        }
                    }
                }
            }
        }
        calm
    }
}

/// Waits for something else to do.
fn news<'a>(
    snapshots: &'a mut watch::Receiver<Option<Arc<Snapshot>>>,
    last: &'a BTreeMap<String, Job>,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        loop {
            let now = snapshots.borrow_and_update().clone();
            if now.is_some_and(|now| jobs(&now) != *last) {
                return sleep(SETTLE).await;
            }
            changed(snapshots).await;
        }
    })
}

async fn changed(snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>) {
    if snapshots.changed().await.is_err() {
        std::future::pending().await
    }
}

fn same_but_leases(now: &BTreeMap<String, Job>, before: &BTreeMap<String, Job>) -> bool {
    let without = |job: &Job| Job { leases: BTreeSet::new(), ..job.clone() };
    now.len() == before.len()
        && now.iter().all(|(name, job)| before.get(name).is_some_and(|before| without(before) == without(job)))
}

/// Everything about one provider's machines, and what holds up its BGP.
async fn ask(source: &dyn PeerSource, job: &Job) -> (Vec<Found>, Option<ClaimProblem>) {
    let serves = job.config.peers != PeersFrom::Objects;
    let problem = if serves && !job.machines.is_empty() { enable(source, &job.config).await } else { None };
    let enabled = serves && problem.is_none();
    let given = job.config.peers == PeersFrom::Account;
    let ask = |node| -> BoxFuture<'_, Found> { Box::pin(ask_one(source, node, enabled, enabled && given)) };
    let asked: Vec<BoxFuture<'_, Found>> = job.machines.iter().map(ask).collect();
    (stream::iter(asked).buffer_unordered(ABREAST).collect().await, problem)
}

async fn enable(source: &dyn PeerSource, config: &ProviderConfig) -> Option<ClaimProblem> {
    let wanted = ProjectBgp { mode: BgpMode::Local, asn: config.asn, password: None };
    judged(within(source.enable_project(&wanted)).await)
}

fn judged(enabled: Result<Enabled, SourceError>) -> Option<ClaimProblem> {
    let (reason, message) = match enabled {
        Ok(Enabled::Yes) => return None,
        Ok(Enabled::Requested(words)) => ("BgpRequested", format!("{words}; wait, or ask the provider")),
        Ok(Enabled::ByHand(words)) => ("BgpDisabled", words),
        Err(error) => return Some(claims::problem(&error)),
    };
    Some(ClaimProblem { reason: reason.into(), message })
}

async fn ask_one(source: &dyn PeerSource, node: &NodeId, enabled: bool, given: bool) -> Found {
    let mut found = Found { node: node.clone(), state: Err(SourceError::Gone), peers: None, problem: None };
    found.state = within(source.device(node)).await.map(|device| device.state);
    match &found.state {
        Err(error) => found.problem = Some(claims::problem(error)),
        Ok(state) if enabled && runs(state) => {
            found.problem = judged(within(source.enable_node(node)).await);
            if given && found.problem.is_none() {
                match within(source.peers(node)).await {
                    Ok(peers) => found.peers = Some(peers),
                    Err(error) => found.problem = Some(claims::problem(&error)),
                }
            }
        }
        Ok(_) => {}
    }
    found
}

async fn within<T>(answer: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
    let late = |_| SourceError::Unavailable { message: format!("no answer within {DEADLINE:?}"), retry_after: None };
    timeout(DEADLINE, answer).await.map_err(late)?
}

fn runs(state: &DeviceState) -> bool {
    matches!(state, DeviceState::Active | DeviceState::Unknown(_))
}

/// As the annotation has it.
fn word(state: &DeviceState) -> &'static str {
    match state {
        DeviceState::Active | DeviceState::Unknown(_) => "Active",
        DeviceState::PoweredOff => "PoweredOff",
        DeviceState::Maintenance => "Maintenance",
        DeviceState::Gone => "Gone",
    }
}

fn not_written(error: &BoardError) -> ClaimProblem {
    let message = format!("{}; look at the rights of the daemon's service account", chain(error));
    ClaimProblem { reason: "RoutersNotWritten".into(), message }
}

fn chain(error: &BoardError) -> String {
    format!("{error}: {}", error.source)
}

#[cfg(test)]
mod tests;
