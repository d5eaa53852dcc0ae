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
        Claim, ClaimId, ClaimState, ClaimTiming, Credentials, Family, ManageRoutes, Need, PeersFrom, PoolProvider,
        ProviderConfig, ProviderKind, Reclaim, ServiceKey,
    },
};
use ironcast_emulator::{Emulator, Fault, Rule, Server, packet::Packet};
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

fn facts(url: &str, services: usize) -> Arc<Facts> {
    let config = ProviderConfig {
        name: "metal".into(),
        kind: ProviderKind::Packet,
        endpoint: Some(format!("{url}/metal/v1")),
        metadata: None,
        project: Some(PROJECT.into()),
        credentials: Some(Credentials("good".into())),
        missing_secret: None,
        peers: PeersFrom::Objects,
        asn: None,
        manage_routes: ManageRoutes::Auto,
        timing: ClaimTiming {
            settle: Some(Duration::from_secs(20)),
            withdraw: Some(Duration::from_secs(1)),
            refresh: Some(Duration::from_secs(5)),
        },
    };
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
    let world = World {
        needs: (0..services).map(need).collect(),
        used: BTreeSet::new(),
        announced: BTreeSet::new(),
        pools: [("p".to_owned(), terms)].into(),
    };
    Arc::new(Facts { providers: [("metal".to_owned(), (config, world))].into(), deleted: BTreeSet::new() })
}

/// A leader from its start to its end.
struct Leader {
    journal: Arc<Memory>,
    _facts: watch::Sender<Option<Arc<Facts>>>,
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
        let (problems, _) = watch::channel(Arc::default());
        let channels = Channels { facts, leader, cluster, problems };
        let task = tokio::spawn(driver::run(Box::new(vendors::connect), journal.clone(), channels));
        Self { journal, _facts: to_facts, _leader: to_leader, _cluster: to_cluster, task }
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
