//! Claims within the daemon: the journal of the source, what nodes announce, and the driver between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::ListParams};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::warn;

use super::{fleet, tasks::Tasks};
use crate::{
    announce::AnnounceState,
    plan::Planned,
    provider::{
        self,
        driver::{self, Connect},
        journal::{Change, Journal, JournalError},
        world::{Facts, facts},
    },
    source::{
        claims::{ClaimObjects, announced},
        state_file::{self, ClaimsFile},
    },
    types::{Claim, ClaimId, ClaimProblem, ClaimState, ObjectRef, Problem, Severity, Snapshot},
};

/// Between two questions what other nodes announce, while something is to be released.
const ASK: Duration = Duration::from_secs(5);
/// Between attempts to learn the mark of the cluster.
const RETRY: Duration = Duration::from_secs(2);

/// How claiming is joined to the rest.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) planned: watch::Receiver<Option<Planned>>,
    pub(super) announce: watch::Receiver<Arc<AnnounceState>>,
    pub(super) leader: watch::Receiver<bool>,
    pub(super) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    /// What holds up providers.
    pub(super) problems: watch::Sender<Arc<Vec<Problem>>>,
}

/// With a folder of manifests: the journal is a file, and no other node says what it announces.
pub(super) fn from_folder(dir: PathBuf, connect: Connect, channels: Channels, tasks: &mut Tasks) {
    let (to_cluster, cluster) = watch::channel(None);
    let (leader, folder) = (channels.leader.clone(), dir.clone());
    tasks.spawn("cluster", mark_of_folder(folder, leader, to_cluster));
    let others = watch::Sender::new(Some(BTreeSet::new())).subscribe();
    let (follow, held_up) = fleet_channels(&channels);
    fleet::on_folder(connect.clone(), follow, tasks);
    let journal = Arc::new(FileJournal(Arc::new(ClaimsFile::new(dir))));
    let seen = Seen { others, strays: watch::Sender::new(false) };
    start(journal, cluster, seen, connect, (channels, held_up), tasks);
}

/// On a cluster: the journal is objects, and nodes say what they announce in theirs.
pub(super) fn from_cluster(
    client: kube::Client,
    namespace: &str,
    connect: Connect,
    channels: Channels,
    tasks: &mut Tasks,
) {
    let (to_cluster, cluster) = watch::channel(None);
    tasks.spawn("cluster", mark_of_cluster(client.clone(), to_cluster));
    let (to_others, others) = watch::channel(None);
    let (planned, leader) = (channels.planned.clone(), channels.leader.clone());
    let (to_strays, strays) = watch::channel(false);
    let reasons = Reasons { planned, leader, strays };
    tasks.spawn("announced", ask_others(client.clone(), namespace.into(), reasons, to_others));
    let (follow, held_up) = fleet_channels(&channels);
    fleet::on_cluster(client.clone(), namespace, connect.clone(), follow, tasks);
    let journal = Arc::new(ObjectJournal(ClaimObjects::new(client, namespace)));
    let seen = Seen { others, strays: to_strays };
    start(journal, cluster, seen, connect, (channels, held_up), tasks);
}

/// What holds up providers, by name.
type HeldUp = watch::Receiver<Arc<BTreeMap<String, ClaimProblem>>>;

fn fleet_channels(channels: &Channels) -> (provider::fleet::Channels, HeldUp) {
    let (problems, held_up) = watch::channel(Arc::default());
    let (snapshots, leader) = (channels.snapshots.clone(), channels.leader.clone());
    (provider::fleet::Channels { snapshots, leader, problems }, held_up)
}

/// What other nodes announce, as far as anybody asks; and whether the driver has a reason to.
struct Seen {
    others: watch::Receiver<Option<BTreeSet<IpNet>>>,
    strays: watch::Sender<bool>,
}

/// Why it may count what other nodes announce.
struct Reasons {
    planned: watch::Receiver<Option<Planned>>,
    leader: watch::Receiver<bool>,
    strays: watch::Receiver<bool>,
}

fn start(
    journal: Arc<dyn Journal>,
    cluster: watch::Receiver<Option<String>>,
    Seen { others, strays }: Seen,
    connect: Connect,
    (channels, of_fleet): (Channels, HeldUp),
    tasks: &mut Tasks,
) {
    let (to_facts, for_driver) = watch::channel(None);
    tasks.spawn("facts", gather(channels.planned, channels.announce, others, to_facts));
    let (to_problems, problems) = watch::channel(Arc::default());
    tasks.spawn("provider problems", tell([problems, of_fleet], channels.problems));
    let driver =
        driver::Channels { facts: for_driver, leader: channels.leader, cluster, problems: to_problems, strays };
    tasks.spawn("claims", driver::run(connect, journal, driver));
}

/// Puts plan and what is announced together whenever one of them changes.
async fn gather(
    mut planned: watch::Receiver<Option<Planned>>,
    mut announce: watch::Receiver<Arc<AnnounceState>>,
    mut others: watch::Receiver<Option<BTreeSet<IpNet>>>,
    facts_to: watch::Sender<Option<Arc<Facts>>>,
) -> Result<(), Infallible> {
    loop {
        let plan = planned.borrow_and_update().clone();
        let here = announce.borrow_and_update().clone();
        let elsewhere = others.borrow_and_update().clone();
        if let Some(plan) = plan.filter(|plan| !plan.snapshot.providers.is_empty() || facts_to.borrow().is_some()) {
            let now = facts(&plan, &announced_by(here.prefixes(), elsewhere));
            facts_to.send_if_modified(|before| {
                let news = before.as_deref() != Some(&now);
                if news {
                    *before = Some(Arc::new(now));
                }
                news
            });
        }
        tokio::select! {
            Ok(()) = planned.changed() => {}
            Ok(()) = announce.changed() => {}
            Ok(()) = others.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// What is announced here and elsewhere. While nobody knows what others announce, they may announce anything.
pub(crate) fn announced_by(own: impl Iterator<Item = IpNet>, elsewhere: Option<BTreeSet<IpNet>>) -> BTreeSet<IpNet> {
    own.chain(elsewhere.unwrap_or_else(everything)).collect()
}

fn everything() -> BTreeSet<IpNet> {
    ["0.0.0.0/0", "::/0"].into_iter().map(|net| net.parse().expect("a network")).collect()
}

/// Asks what nodes announce, as long as it matters.
async fn ask_others(
    client: kube::Client,
    namespace: String,
    Reasons { planned, leader, strays }: Reasons,
    to: watch::Sender<Option<BTreeSet<IpNet>>>,
) -> Result<(), Infallible> {
    loop {
        let asks = *strays.borrow() || planned.borrow().as_ref().is_some_and(matters);
        let matters = *leader.borrow() && asks;
        let answer = if matters { announced(&client, &namespace).await.map(Some) } else { Ok(None) };
        let now = match answer {
            Ok(now) => now.map(|routes| routes.into_iter().collect()),
            Err(error) => {
                warn!(%error, "nobody knows what nodes announce, so nothing is released");
                None
            }
        };
        to.send_replace(now);
        sleep(ASK).await;
    }
}

/// Whether something is to be released, so that it counts what others announce.
pub(crate) fn matters(planned: &Planned) -> bool {
    let ends =
        |claim: &Claim| claim.deleting || matches!(claim.state, ClaimState::Releasing { .. } | ClaimState::Lost { .. });
    planned.snapshot.claims.values().any(ends)
}

async fn mark_of_folder(
    dir: PathBuf,
    mut leader: watch::Receiver<bool>,
    to: watch::Sender<Option<String>>,
) -> Result<(), Infallible> {
    let _ = leader.wait_for(|leads| *leads).await;
    loop {
        let folder = dir.clone();
        match spawn_blocking(move || state_file::cluster_id(&folder)).await.expect("file work does not panic") {
            Ok(id) => {
                to.send_replace(Some(id));
                std::future::pending::<()>().await;
            }
            Err(error) => warn!(%error, "claims wait for the mark of this folder"),
        }
        sleep(RETRY).await;
    }
}

/// The UID of the namespace `kube-system`, as other controllers have it.
async fn mark_of_cluster(client: kube::Client, to: watch::Sender<Option<String>>) -> Result<(), Infallible> {
    let namespaces: Api<Namespace> = Api::all(client);
    let which = ListParams::default().fields("metadata.name=kube-system");
    loop {
        let list = namespaces.list(&which).await;
        if let Some(uid) = list.ok().and_then(|list| list.items.first().and_then(|ns| ns.uid())) {
            to.send_replace(Some(uid));
            std::future::pending::<()>().await;
        }
        sleep(RETRY).await;
    }
}

/// Says what holds up providers in the words of problems.
async fn tell(
    [mut addresses, mut machines]: [HeldUp; 2],
    to: watch::Sender<Arc<Vec<Problem>>>,
) -> Result<(), Infallible> {
    loop {
        let mut now = BTreeMap::clone(&machines.borrow_and_update());
        // One for each provider: what holds up addresses comes first.
        now.extend(addresses.borrow_and_update().iter().map(|(name, problem)| (name.clone(), problem.clone())));
        let problem = |(name, problem): (&String, &ClaimProblem)| Problem {
            object: ObjectRef::new("ProviderConfig", "", name),
            field: String::new(),
            message: format!("{}: {}", problem.reason, problem.message),
            hint: String::new(),
            severity: Severity::Warning,
            file: None,
        };
        let problems: Vec<Problem> = now.iter().map(problem).collect();
        to.send_if_modified(|told| {
            let news = **told != problems;
            if news {
                *told = Arc::new(problems);
            }
            news
        });
        tokio::select! {
            Ok(()) = addresses.changed() => {}
            Ok(()) = machines.changed() => {}
            else => std::future::pending().await,
        }
    }
}

fn pair(Change { id, claim }: Change) -> (ClaimId, Option<Claim>) {
    (id, claim)
}

struct FileJournal(Arc<ClaimsFile>);

impl Journal for FileJournal {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Claim>, JournalError>> {
        let file = self.0.clone();
        Box::pin(async move {
            let load = spawn_blocking(move || file.load()).await.expect("file work does not panic");
            load.map_err(|error| JournalError { attempt: "read", source: error.into() })
        })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), JournalError>> {
        let file = self.0.clone();
        Box::pin(async move {
            let work = move || file.change(changes.into_iter().map(pair));
            let written = spawn_blocking(work).await.expect("file work does not panic");
            written.map_err(|error| JournalError { attempt: "write", source: error.into() })
        })
    }
}

struct ObjectJournal(ClaimObjects);

impl Journal for ObjectJournal {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Claim>, JournalError>> {
        Box::pin(async { self.0.load().await.map_err(|error| JournalError { attempt: "read", source: error.into() }) })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), JournalError>> {
        let changes = changes.into_iter().map(pair).collect();
        Box::pin(async move {
            let written = self.0.change(changes).await;
            written.map_err(|error| JournalError { attempt: "write", source: error.into() })
        })
    }
}
