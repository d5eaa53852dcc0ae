//! The driver of claims with the Packet client against the emulated Packet API, over HTTP.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future::BoxFuture;
use ironcast::{
    provider::{
        claims::World,
        driver::{self, Channels},
        journal::{Change, Journal, JournalError},
        vendors,
        world::Facts,
    },
    types::{
        Claim, ClaimId, ClaimProblem, ClaimState, ClaimTiming, Family, ManageRoutes, Need, PeersFrom, PoolProvider,
        ProviderConfig, ProviderKind, Reclaim, Secret, ServiceKey,
    },
};
use ironcast_emulator::{Emulator, Fault, Request, Rule, Server, latitude::Latitude, packet::Packet};
use serde_json::json;
use tokio::sync::watch;

const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Default)]
struct Memory(Mutex<BTreeMap<ClaimId, Claim>>);

impl Memory {
    fn bound(&self) -> BTreeMap<ServiceKey, String> {
        let claims = self.0.lock().unwrap();
        let bound = claims.values().filter(|claim| matches!(claim.state, ClaimState::Bound { .. }));
        bound.map(|claim| (claim.spec.service.clone().unwrap(), claim.state.network().unwrap().to_string())).collect()
    }
}

impl Journal for Memory {
    fn load(&self) -> BoxFuture<'_, Result<Vec<Claim>, JournalError>> {
        let claims = self.0.lock().unwrap().values().cloned().collect();
        Box::pin(std::future::ready(Ok(claims)))
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut claims = self.0.lock().unwrap();
        for Change { id, claim } in changes {
            match claim {
                Some(claim) => drop(claims.insert(id, claim)),
                None => drop(claims.remove(&id)),
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn config(url: &str) -> ProviderConfig {
    ProviderConfig {
        name: "metal".into(),
        kind: ProviderKind::Packet,
        endpoint: Some(format!("{url}/metal/v1")),
        metadata: None,
        project: Some(PROJECT.into()),
        credentials: Some(Secret::new("good")),
        missing_secret: None,
        peers: PeersFrom::Objects,
        asn: None,
        manage_routes: ManageRoutes::Auto,
        timing: ClaimTiming {
            settle: Some(Duration::from_secs(20)),
            withdraw: Some(Duration::from_secs(1)),
            refresh: Some(Duration::from_secs(5)),
        },
    }
}

fn world(services: std::ops::Range<usize>) -> World {
    let terms = PoolProvider {
        name: "metal".into(),
        kind: Some("public_ipv4".into()),
        region: Some("am".into()),
        reclaim: Reclaim::Delete,
        block: None,
        block_v6: None,
    };
    let need = |n| Need {
        service: ServiceKey::new("web", format!("s{n}")),
        pool: "p".into(),
        family: Family::Ipv4,
        address: None,
    };
    World {
        needs: services.map(need).collect(),
        used: BTreeSet::new(),
        announced: BTreeSet::new(),
        pools: [("p".to_owned(), terms)].into(),
    }
}

fn so(config: ProviderConfig, world: World) -> Arc<Facts> {
    let providers = [("metal".to_owned(), (config, world))].into();
    Arc::new(Facts { providers, claims: BTreeSet::new(), deleted: BTreeSet::new() })
}

fn facts(url: &str, services: usize) -> Arc<Facts> {
    so(config(url), world(0..services))
}

/// A leader from its start to its end.
struct Leader {
    journal: Arc<Memory>,
    facts: watch::Sender<Option<Arc<Facts>>>,
    problems: watch::Receiver<Arc<BTreeMap<String, ClaimProblem>>>,
    _leader: watch::Sender<bool>,
    _cluster: watch::Sender<Option<String>>,
    task: tokio::task::JoinHandle<Result<(), std::convert::Infallible>>,
}

impl Leader {
    fn start(facts: Arc<Facts>) -> Self {
        let journal = Arc::new(Memory::default());
        let (to_facts, facts) = watch::channel(Some(facts));
        let (to_leader, leader) = watch::channel(true);
        let (to_cluster, cluster) = watch::channel(Some("6c5f8f2e".to_owned()));
        let (to_problems, problems) = watch::channel(Arc::default());
        let channels = Channels { facts, leader, cluster, problems: to_problems, strays: watch::Sender::new(false) };
        let task = tokio::spawn(driver::run(Arc::new(vendors::connect), journal.clone(), channels));
        Self { journal, facts: to_facts, problems, _leader: to_leader, _cluster: to_cluster, task }
    }

    /// Waits until the claim of a Service is in such a phase, with this reason or without one; what it says.
    async fn told(&self, service: usize, phase: &str, reason: Option<&str>) -> String {
        let key = ServiceKey::new("web", format!("s{service}"));
        let started = tokio::time::Instant::now();
        loop {
            let claims: Vec<Claim> = self.journal.0.lock().unwrap().values().cloned().collect();
            let found = claims.iter().find(|claim| {
                let said = claim.problem.as_ref().map(|problem| problem.reason.as_str());
                claim.spec.service.as_ref() == Some(&key) && claim.state.phase() == phase && said == reason
            });
            if let Some(claim) = found {
                return claim.problem.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
            }
            assert!(started.elapsed() < PATIENCE, "never {phase} {reason:?}: {claims:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn over(&self) {
        let started = tokio::time::Instant::now();
        while !self.journal.0.lock().unwrap().is_empty() {
            assert!(started.elapsed() < PATIENCE, "not over: {:#?}", self.journal.0.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn told_of_provider(&self) -> Option<String> {
        self.problems.borrow().get("metal").map(|problem| problem.reason.clone())
    }

    async fn bound(&self, services: usize) -> BTreeMap<ServiceKey, String> {
        let started = tokio::time::Instant::now();
        loop {
            let bound = self.journal.bound();
            if bound.len() == services {
                return bound;
            }
            assert!(started.elapsed() < PATIENCE, "{} of {services} bound", bound.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn posts(server: &Server) -> usize {
    let claims = |entry: &&ironcast_emulator::Entry| entry.method == "POST" && entry.effect == 201;
    server.emulator().log().iter().filter(claims).count()
}

/// Requests of a kind so far, whatever became of them.
fn asked(server: &Server, method: &str) -> usize {
    server.emulator().log().iter().filter(|entry| entry.method == method && entry.path.contains("/ips")).count()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What a person does at the provider's console.
fn by_hand(server: &Server, method: &str, id: &str, body: serde_json::Value) {
    let request = Request::new(method, &format!("/ips/{id}"), body).header("X-Auth-Token", "good");
    server.emulator().exchange(now(), request);
}

fn held(server: &Server) -> Vec<serde_json::Value> {
    server.emulator().state()["ip_addresses"].as_array().unwrap().clone()
}

async fn emulated(change: impl FnOnce(&mut Packet)) -> Server {
    let mut packet = Packet::new(PROJECT);
    change(&mut packet);
    Server::on_loopback(Emulator::new(packet, &["good"])).await.unwrap()
}

/// No Service lacks an address, and this one is in use.
fn using(address: &str) -> World {
    let network: ipnet::IpNet = address.parse().unwrap();
    World { used: [network.addr()].into(), announced: [network].into(), ..world(0..0) }
}

/// Waits that double from two seconds make so many requests in this time at most.
fn patient(requests: usize, time: Duration) -> bool {
    // 2, 4, 8 … s, each a quarter shorter at most; and the first.
    requests <= 2 + (time.as_secs_f64() / 1.5 + 1.0).log2() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_is_told_and_nothing_moves_until_it_is_renewed() {
    let server = emulated(|_| {}).await;
    let leader = Leader::start(facts(&server.url(), 1));
    let address = leader.bound(1).await.into_values().next().unwrap();
    server.emulator().set_tokens([]);
    let (before, started) = (asked(&server, "GET"), tokio::time::Instant::now());
    // One Service goes, another one comes.
    leader.facts.send_replace(Some(so(config(&server.url()), world(1..2))));
    leader.told(0, "Releasing", None).await;
    let words = leader.told(1, "Wanted", Some("Unauthorized")).await;
    assert!(words.contains("put a valid token"), "{words}");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(leader.told_of_provider().as_deref(), Some("Unauthorized"));
    assert!(patient(asked(&server, "GET") - before, started.elapsed()), "{}", asked(&server, "GET") - before);
    assert_eq!((held(&server).len(), posts(&server)), (1, 1), "{address} is still leased, and nothing was asked for");
    server.emulator().set_tokens(["good".to_owned()]);
    leader.told(1, "Bound", None).await;
    leader.bound(1).await;
    let started = tokio::time::Instant::now();
    while held(&server).len() != 1 {
        assert!(started.elapsed() < PATIENCE, "the other one is given back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(leader.told_of_provider(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_project_is_told_and_nothing_is_asked_for() {
    let server = emulated(|_| {}).await;
    let wrong =
        ProviderConfig { project: Some("00000000-0000-4000-8000-00000000dead".into()), ..config(&server.url()) };
    let (leader, started) = (Leader::start(so(wrong, world(0..1))), tokio::time::Instant::now());
    let words = leader.told(0, "Wanted", Some("UnknownProject")).await;
    assert!(words.contains("correct spec.project"), "{words}");
    assert_eq!(leader.told_of_provider().as_deref(), Some("UnknownProject"));
    tokio::time::sleep(Duration::from_secs(8)).await;
    let gets = asked(&server, "GET");
    assert!(patient(gets, started.elapsed()), "{gets} lists");
    assert_eq!(asked(&server, "POST"), 0);
    leader.facts.send_replace(Some(facts(&server.url(), 1)));
    leader.told(0, "Bound", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_breaks_later_is_told_and_asked_for_ever_more_seldom() {
    let server = emulated(|packet| packet.page_limit = 1).await;
    let leader = Leader::start(facts(&server.url(), 2));
    let addresses = leader.bound(2).await;
    let broken = Rule { skip: 0, times: 1000, ..Rule::next("GET", "/ips", Fault::Garbage) };
    server.emulator().inject(broken);
    let used = addresses.values().flat_map(|address| using(address).used).collect();
    leader.facts.send_replace(Some(so(config(&server.url()), World { used, ..world(0..0) })));
    let started = tokio::time::Instant::now();
    while leader.told_of_provider().as_deref() != Some("ListUnreadable") {
        assert!(started.elapsed() < PATIENCE, "{:?}", leader.told_of_provider());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, started) = (asked(&server, "GET"), tokio::time::Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let lists = asked(&server, "GET") - before;
    assert!(patient(lists, started.elapsed()), "{lists} requests");
    assert_eq!(leader.bound(2).await, addresses, "nothing is taken for gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_without_stock_is_told_and_asked_ever_more_seldom() {
    let server = emulated(|_| {}).await;
    server.emulator().steer(now(), &json!({ "out_of_stock": "am" })).unwrap();
    let (leader, started) = (Leader::start(facts(&server.url(), 1)), tokio::time::Instant::now());
    let words = leader.told(0, "Wanted", Some("NoStock")).await;
    assert!(words.contains("name another region"), "{words}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let requests = asked(&server, "POST");
    assert!(patient(requests, started.elapsed()), "{requests} requests");
    assert!(leader.told_of_provider().is_none(), "other regions may have some");
    server.emulator().steer(now(), &json!({ "in_stock": "am" })).unwrap();
    leader.told(0, "Bound", None).await;
    assert_eq!(held(&server).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_never_comes_is_told_asked_for_once_and_withdrawn_with_its_service() {
    let server = emulated(|packet| packet.quota = 0).await;
    let leader = Leader::start(facts(&server.url(), 2));
    for service in [0, 1] {
        let words = leader.told(service, "Pending", Some("ApprovalPending")).await;
        assert!(words.contains("ask the provider"), "{words}");
    }
    let id = held(&server)[0]["id"].as_str().unwrap().to_owned();
    server.emulator().steer(now(), &json!({ "deny": id })).unwrap();
    let denied = async |service| leader.told(service, "Pending", Some("Denied")).await;
    let words = tokio::select! { words = denied(0) => words, words = denied(1) => words };
    assert!(words.contains("delete the AddressClaim to ask again"), "{words}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!((asked(&server, "POST"), leader.journal.bound().len()), (2, 0));
    leader.facts.send_replace(Some(facts(&server.url(), 0)));
    leader.over().await;
    assert!(held(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_somebody_deleted_is_withdrawn_before_another_is_claimed() {
    let server = emulated(|_| {}).await;
    let leader = Leader::start(facts(&server.url(), 1));
    let address = leader.bound(1).await.into_values().next().unwrap();
    leader.facts.send_replace(Some(so(config(&server.url()), using(&address))));
    by_hand(&server, "DELETE", held(&server)[0]["id"].as_str().unwrap(), json!({}));
    let words = leader.told(0, "Lost", Some("AddressLost")).await;
    assert!(words.contains("it is withdrawn"), "{words}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    leader.told(0, "Lost", Some("AddressLost")).await;
    // Plan has taken it from the Service; a node announces it still.
    let announced = using(&address).announced;
    leader.facts.send_replace(Some(so(config(&server.url()), World { announced, ..world(0..1) })));
    leader.told(0, "Lost", Some("AddressLost")).await;
    leader.facts.send_replace(Some(facts(&server.url(), 1)));
    leader.told(0, "Bound", None).await;
    assert_eq!((held(&server).len(), posts(&server)), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_with_an_edited_tag_is_used_and_not_released_before_the_tag_is_back() {
    let server = emulated(|_| {}).await;
    let leader = Leader::start(facts(&server.url(), 1));
    let address = leader.bound(1).await.into_values().next().unwrap();
    leader.facts.send_replace(Some(so(config(&server.url()), using(&address))));
    let (id, tags) = (held(&server)[0]["id"].as_str().unwrap().to_owned(), held(&server)[0]["tags"].clone());
    let fewer: Vec<_> = tags.as_array().unwrap().iter().skip(1).cloned().collect();
    by_hand(&server, "PATCH", &id, json!({ "tags": fewer }));
    let words = leader.told(0, "Bound", Some("MarksEdited")).await;
    assert!(words.contains("restore them at the provider"), "{words}");
    leader.facts.send_replace(Some(facts(&server.url(), 0)));
    leader.told(0, "Releasing", Some("MarksEdited")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((held(&server).len(), asked(&server, "DELETE")), (1, 0), "it is read and left as it is");
    by_hand(&server, "PATCH", &id, json!({ "tags": tags }));
    leader.over().await;
    assert!(held(&server).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_marked_a_lost_answer_and_a_lease_without_an_id_leave_one_address_each() {
    let server = Server::on_loopback(Emulator::new(Latitude::new(PROJECT, "sv_1"), &["good"])).await.unwrap();
    server.emulator().inject(Rule::next("POST", "/elastic_ips", Fault::LoseAnswer));
    let latitude = ProviderConfig { kind: ProviderKind::Latitude, endpoint: Some(server.url()), ..config("") };
    let mut needs = world(0..3);
    needs.pools.get_mut("p").unwrap().kind = None;
    let leader = Leader::start(so(latitude.clone(), needs));
    let addresses: BTreeSet<String> = leader.bound(3).await.into_values().collect();
    assert_eq!(addresses.len(), 3);
    let leased = |server: &Server| server.emulator().state()["elastic_ips"].as_array().unwrap().len();
    assert_eq!(leased(&server), 3);
    leader.facts.send_replace(Some(so(latitude, world(0..0))));
    leader.over().await;
    assert_eq!(leased(&server), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_addresses_among_four_thousand_others_are_found_again_after_the_journal_is_lost() {
    let mut packet = Packet::new(PROJECT);
    packet.quota = 10_000;
    let mut emulator = Emulator::new(packet, &["good"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for _ in 0..4000 {
        let foreign = json!({ "reserve": { "kind": "public_ipv4", "metro": "am", "tags": ["owner=somebody"] } });
        emulator.steer(now, &foreign).unwrap();
    }
    let server = Server::on_loopback(emulator).await.unwrap();
    let first = Leader::start(facts(&server.url(), 1000));
    let claimed = first.bound(1000).await;
    drop(first);
    assert_eq!(posts(&server), 1000);
    let pages = |server: &Server| server.emulator().log().iter().filter(|e| e.path.contains("page=5")).count();
    assert!(pages(&server) > 0, "the list has five pages");

    let second = Leader::start(facts(&server.url(), 1000));
    assert_eq!(second.bound(1000).await, claimed, "every Service has the address that it had");
    assert_eq!(posts(&server), 1000, "nothing was claimed anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_after_the_effect_leave_one_address_for_each_service() {
    let server = Server::on_loopback(Emulator::new(Packet::new(PROJECT), &["good"])).await.unwrap();
    {
        let mut emulator = server.emulator();
        emulator.inject(Rule::next("POST", "/ips", Fault::LoseAnswer));
        emulator.inject(Rule::next("POST", "/ips", Fault::FailAfter { status: 503 }));
        emulator.inject(Rule::next("GET", "/ips", Fault::Refuse { status: 500, retry_after: None }));
    }
    let leader = Leader::start(facts(&server.url(), 5));
    let bound = leader.bound(5).await;
    let addresses: BTreeSet<&String> = bound.values().collect();
    assert_eq!(addresses.len(), 5);
    assert_eq!(posts(&server), 5, "an unknown outcome is looked up, not repeated");
}
