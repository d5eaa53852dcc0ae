use std::sync::Mutex;

use futures::future::BoxFuture;

use super::*;
use crate::{
    provider::{
        Answer, Claimed, LeaseId, LeaseState, Marking, Marks, Order,
        claims::World,
        journal::{Change, JournalError},
    },
    types::{
        ClaimState, ClaimTiming, Family, ManageRoutes, Need, PeersFrom, PoolProvider, ProviderKind, Reclaim, ServiceKey,
    },
};

/// A provider and a journal in one, with one log of what was done in which order.
#[derive(Default)]
struct Bench {
    leases: Mutex<BTreeMap<LeaseId, Lease>>,
    journal: Mutex<BTreeMap<ClaimId, Claim>>,
    log: Mutex<Vec<String>>,
    bad_token: Mutex<bool>,
}

impl Bench {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().expect("whole").push(what.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().expect("whole").clone()
    }

    fn checked<T>(&self, value: T) -> Result<T, SourceError> {
        match *self.bad_token.lock().expect("whole") {
            true => Err(SourceError::Unauthorized("401".into())),
            false => Ok(value),
        }
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

struct Source(Arc<Bench>);

impl AddressSource for Source {
    fn marking(&self) -> Marking {
        Marking::AtClaim
    }

    fn list(&self) -> Answer<'_, Vec<Lease>> {
        now(self.0.checked(self.0.leases.lock().expect("whole").values().cloned().collect()))
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        let state = self.0.journal.lock().expect("whole").get(&order.marks.claim).map(|claim| claim.state.phase());
        self.0.note(format!("claim with the journal at {state:?}"));
        let mut leases = self.0.leases.lock().expect("whole");
        let n = leases.len() + 1;
        let lease = Lease {
            id: LeaseId(format!("l{n}")),
            network: Some(format!("198.51.100.{n}/32").parse().expect("a network")),
            state: LeaseState::Ready,
            tags: order.marks.tags().into_iter().collect(),
            created: Some(SystemTime::now()),
            region: order.region.clone(),
            kind: order.kind.clone(),
            assigned: None,
        };
        leases.insert(lease.id.clone(), lease.clone());
        now(self.0.checked(Claimed::Lease(lease)))
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        now(self.0.leases.lock().expect("whole").get(lease).cloned().ok_or(SourceError::Gone))
    }

    fn mark<'a>(&'a self, _: &'a LeaseId, _: Option<&'a Marks>) -> Answer<'a, ()> {
        now(Ok(()))
    }

    fn release<'a>(&'a self, lease: &'a LeaseId, _: &'a Marks) -> Answer<'a, ()> {
        self.0.note("release");
        self.0.leases.lock().expect("whole").remove(lease);
        now(self.0.checked(()))
    }
}

impl Journal for Bench {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Claim>, JournalError>> {
        now(Ok(self.journal.lock().expect("whole").values().cloned().collect()))
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut journal = self.journal.lock().expect("whole");
        for Change { id, claim } in changes {
            match claim {
                Some(claim) => {
                    let words = claim.problem.as_ref().map(|problem| format!(" {}", problem.reason));
                    self.note(format!("journal {}{}", claim.state.phase(), words.unwrap_or_default()));
                    journal.insert(id, claim);
                }
                None => {
                    self.note("journal forgets");
                    journal.remove(&id);
                }
            }
        }
        now(Ok(()))
    }
}

fn config() -> ProviderConfig {
    let short = Some(Duration::from_millis(600));
    ProviderConfig {
        name: "metal".into(),
        kind: ProviderKind::Packet,
        endpoint: None,
        metadata: None,
        project: None,
        credentials: None,
        missing_secret: None,
        peers: PeersFrom::Objects,
        asn: None,
        manage_routes: ManageRoutes::Auto,
        timing: ClaimTiming { settle: Some(Duration::from_secs(5)), withdraw: short, refresh: short },
    }
}

fn facts(needs: bool, used: &[&str], announced: &[&str]) -> Option<Arc<Facts>> {
    let terms = PoolProvider {
        name: "metal".into(),
        kind: None,
        region: None,
        reclaim: Reclaim::Delete,
        block: None,
        block_v6: None,
    };
    let service = ServiceKey::new("web", "front");
    let need = Need { service, pool: "p".into(), family: Family::Ipv4, address: None };
    let world = World {
        needs: needs.then_some(need).into_iter().collect(),
        used: used.iter().map(|address| address.parse().expect("an address")).collect(),
        announced: announced.iter().map(|prefix| prefix.parse().expect("a prefix")).collect(),
        pools: [("p".to_owned(), terms)].into(),
    };
    Some(Arc::new(Facts {
        providers: [("metal".to_owned(), (config(), world))].into(),
        claims: BTreeSet::new(),
        deleted: BTreeSet::new(),
    }))
}

struct Running {
    bench: Arc<Bench>,
    facts: watch::Sender<Option<Arc<Facts>>>,
    leader: watch::Sender<bool>,
    problems: watch::Receiver<Arc<BTreeMap<String, ClaimProblem>>>,
    _cluster: watch::Sender<Option<String>>,
    task: tokio::task::JoinHandle<Result<(), Infallible>>,
}

fn start() -> Running {
    let bench = Arc::new(Bench::default());
    let (facts, for_facts) = watch::channel(None);
    let (leader, for_leader) = watch::channel(true);
    let (cluster, for_cluster) = watch::channel(Some("ours".to_owned()));
    let (to_problems, problems) = watch::channel(Arc::default());
    let source = bench.clone();
    let connect: Connect =
        Arc::new(move |_| Ok(Provider { addresses: Some(Arc::new(Source(source.clone()))), peers: None }));
    let strays = watch::Sender::new(false);
    let channels =
        Channels { facts: for_facts, leader: for_leader, cluster: for_cluster, problems: to_problems, strays };
    let task = tokio::spawn(run(connect, bench.clone(), channels));
    Running { bench, facts, leader, problems, _cluster: cluster, task }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn an_address_is_written_down_claimed_used_withdrawn_and_given_back() {
    let running = start();
    let bench = running.bench.clone();
    let phase = |bench: &Bench| bench.journal.lock().expect("whole").values().next().map(|claim| claim.state.phase());
    running.facts.send_replace(facts(true, &[], &[]));
    until("bound", || phase(&bench) == Some("Bound")).await;
    running.facts.send_replace(facts(false, &["198.51.100.1"], &["198.51.100.1/32"]));
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(phase(&bench), Some("Bound"), "what a Service has is kept");
    running.facts.send_replace(facts(false, &[], &["198.51.100.1/32"]));
    until("releasing", || phase(&bench) == Some("Releasing")).await;
    sleep(Duration::from_millis(1500)).await;
    assert!(!bench.log().contains(&"release".to_owned()), "what is announced is not given back");
    running.facts.send_replace(facts(false, &[], &[]));
    until("over", || phase(&bench).is_none()).await;
    let expected = [
        "journal Wanted",
        "journal Sent",
        "claim with the journal at Some(\"Sent\")",
        "journal Bound",
        "journal Releasing",
        "release",
        "journal forgets",
    ];
    assert_eq!(bench.log(), expected);
    running.task.abort();
}

#[tokio::test]
async fn a_wrong_token_is_told_and_claims_wait_for_a_right_one() {
    let running = start();
    let bench = running.bench.clone();
    *bench.bad_token.lock().expect("whole") = true;
    running.facts.send_replace(facts(true, &[], &[]));
    until("told", || running.problems.borrow().get("metal").is_some_and(|p| p.reason == "Unauthorized")).await;
    until("written", || bench.log().contains(&"journal Wanted Unauthorized".to_owned())).await;
    assert!(bench.leases.lock().expect("whole").is_empty());
    *bench.bad_token.lock().expect("whole") = false;
    let bound = |claim: &Claim| matches!(claim.state, ClaimState::Bound { .. });
    until("bound", || bench.journal.lock().expect("whole").values().any(bound)).await;
    until("mended", || running.problems.borrow().is_empty()).await;
    running.task.abort();
}

#[tokio::test]
async fn who_does_not_lead_does_nothing() {
    let running = start();
    running.leader.send_replace(false);
    running.facts.send_replace(facts(true, &[], &[]));
    sleep(Duration::from_millis(1200)).await;
    assert!(running.bench.log().is_empty());
    running.leader.send_replace(true);
    until("claimed", || !running.bench.leases.lock().expect("whole").is_empty()).await;
    running.task.abort();
}

#[tokio::test]
async fn claims_that_are_deleted_by_force_are_found_in_the_list_and_taken_over() {
    let running = start();
    let bench = running.bench.clone();
    let known = |claims: &Bench| claims.journal.lock().expect("whole").keys().copied().collect::<BTreeSet<_>>();
    let told = |needs: bool, used: &[&str], claims: BTreeSet<ClaimId>| {
        let facts = facts(needs, used, &[]).expect("some");
        running.facts.send_replace(Some(Arc::new(Facts { claims, ..(*facts).clone() })));
    };
    told(true, &[], BTreeSet::new());
    let bound = |bench: &Bench| {
        bench.journal.lock().expect("whole").values().any(|claim| matches!(claim.state, ClaimState::Bound { .. }))
    };
    until("bound", || bound(&bench)).await;
    told(false, &["198.51.100.1"], known(&bench));
    sleep(Duration::from_millis(1200)).await;
    bench.journal.lock().expect("whole").clear();
    told(true, &[], BTreeSet::new());
    until("taken over", || bound(&bench)).await;
    let claims = bench.log().iter().filter(|line| line.starts_with("claim ")).count();
    assert_eq!(claims, 1, "{:?}", bench.log());
    running.task.abort();
}

#[tokio::test]
async fn claim_that_a_leader_before_wrote_late_is_taken_up() {
    let running = start();
    let bench = running.bench.clone();
    running.facts.send_replace(facts(true, &[], &[]));
    let journal = |bench: &Bench| bench.journal.lock().expect("whole").clone();
    until("bound", || journal(&bench).values().any(|claim| matches!(claim.state, ClaimState::Bound { .. }))).await;
    let first = journal(&bench).into_values().next().expect("one");
    let late = Claim { id: ClaimId::new(7), state: ClaimState::Wanted, ..first };
    bench.journal.lock().expect("whole").insert(late.id, late);
    let claims = journal(&bench).into_keys().collect();
    let now = facts(false, &["198.51.100.1"], &[]).expect("some");
    running.facts.send_replace(Some(Arc::new(Facts { claims, ..(*now).clone() })));
    until("over", || journal(&bench).len() == 1).await;
    running.task.abort();
}
