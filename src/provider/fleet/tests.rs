use std::sync::Mutex;

use super::*;
use crate::{
    provider::{Answer, Device, ProvidedPeer},
    types::{Claim, ClaimId, ClaimSpec, ClaimTiming, Family, ManageRoutes, Reclaim},
};

/// A provider and a board in one.
#[derive(Default)]
struct Bench {
    devices: Mutex<BTreeMap<String, DeviceState>>,
    log: Mutex<Vec<String>>,
    fails: Mutex<bool>,
    requested: Mutex<bool>,
}

impl Bench {
    fn note(&self, text: String) {
        self.log.lock().expect("whole").push(text);
    }

    fn count(&self, word: &str) -> usize {
        self.log.lock().expect("whole").iter().filter(|line| line.starts_with(word)).count()
    }

    fn set(&self, device: &str, state: DeviceState) {
        self.devices.lock().expect("whole").insert(device.into(), state);
    }
}

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

struct Source(Arc<Bench>);

impl PeerSource for Source {
    fn enable_project<'a>(&'a self, _: &'a ProjectBgp) -> Answer<'a, Enabled> {
        self.0.note("project".into());
        now(match *self.0.requested.lock().expect("whole") {
            true => Ok(Enabled::Requested("people look at it".into())),
            false => Ok(Enabled::Yes),
        })
    }

    fn enable_node<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Enabled> {
        self.0.note(format!("enable {}", node.name));
        now(Ok(Enabled::Yes))
    }

    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        self.0.note(format!("device {}", node.name));
        if *self.0.fails.lock().expect("whole") {
            return now(Err(SourceError::Unauthorized("401".into())));
        }
        let state = self.0.devices.lock().expect("whole").get(&node.device).cloned().unwrap_or(DeviceState::Gone);
        now(Ok(Device { state, addresses: Vec::new() }))
    }

    fn peers<'a>(&'a self, _: &'a NodeId) -> Answer<'a, NodePeers> {
        let asn = |number| ironcast_bgp::Asn::new(number).expect("valid");
        let peer = ProvidedPeer {
            address: [169, 254, 255, 1].into(),
            my_asn: asn(65000),
            peer_asn: asn(65530),
            source: None,
            multihop: Some(5),
            password: None,
            prefix_budget: Some(10),
        };
        now(Ok(NodePeers { peers: vec![peer], routes: Vec::new() }))
    }

    fn bind<'a>(&'a self, lease: &'a LeaseId, node: &'a NodeId) -> Answer<'a, ()> {
        self.0.note(format!("bind {lease} {}", node.name));
        now(Ok(()))
    }
}

impl Board for Bench {
    fn state<'a>(&'a self, node: &'a str, state: &'static str) -> BoxFuture<'a, Result<(), BoardError>> {
        self.note(format!("state {node} {state}"));
        now(Ok(()))
    }

    fn peers<'a>(&'a self, node: &'a str, _: &'a str, peers: &'a NodePeers) -> BoxFuture<'a, Result<(), BoardError>> {
        self.note(format!("peers {node} {}", peers.peers.len()));
        now(Ok(()))
    }

    fn keep<'a>(&'a self, wanted: &'a BTreeSet<(String, String)>) -> BoxFuture<'a, Result<(), BoardError>> {
        self.note(format!("keep {}", wanted.len()));
        now(Ok(()))
    }
}

fn config(peers: PeersFrom) -> ProviderConfig {
    ProviderConfig {
        name: "metal".into(),
        kind: ProviderKind::Packet,
        endpoint: None,
        metadata: None,
        project: None,
        credentials: None,
        missing_secret: None,
        peers,
        asn: None,
        manage_routes: ManageRoutes::Auto,
        timing: ClaimTiming { refresh: Some(Duration::from_secs(60)), ..ClaimTiming::default() },
    }
}

/// Nodes by name with their `providerID`.
fn world(peers: PeersFrom, nodes: &[(&str, &str)]) -> Snapshot {
    let node = |(name, id): &(&str, &str)| {
        let node = Node { name: (*name).into(), provider_id: Some((*id).into()), ..Node::default() };
        ((*name).to_owned(), Arc::new(node))
    };
    Snapshot {
        nodes: nodes.iter().map(node).collect(),
        providers: [("metal".to_owned(), config(peers))].into(),
        ..Snapshot::default()
    }
}

fn bound(lease: &str) -> (ClaimId, Claim) {
    let spec = ClaimSpec {
        provider: "metal".into(),
        pool: "p".into(),
        service: None,
        family: Family::Ipv4,
        kind: None,
        region: None,
        prefix_len: 32,
        reclaim: Reclaim::Delete,
    };
    let network = "198.51.100.7/32".parse().expect("a network");
    let state = ClaimState::Bound { lease: LeaseId(lease.into()), network };
    (ClaimId::new(7), Claim { id: ClaimId::new(7), spec, state, problem: None, deleting: false })
}

struct Running {
    bench: Arc<Bench>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    leader: watch::Sender<bool>,
    problems: watch::Receiver<Arc<BTreeMap<String, ClaimProblem>>>,
}

impl Running {
    fn start(bench: Bench, snapshot: Snapshot) -> Self {
        let bench = Arc::new(bench);
        let (snapshots, for_snapshots) = watch::channel(Some(Arc::new(snapshot)));
        let (leader, leads) = watch::channel(true);
        let (to_problems, problems) = watch::channel(Arc::default());
        let source = bench.clone();
        let connect: Connect = Arc::new(move |_| {
            Ok(crate::provider::Provider { addresses: None, peers: Some(Arc::new(Source(source.clone()))) })
        });
        let channels = Channels { snapshots: for_snapshots, leader: leads, problems: to_problems };
        tokio::spawn(run(connect, bench.clone(), channels));
        Self { bench, snapshots, leader, problems }
    }

    fn reason(&self) -> Option<String> {
        self.problems.borrow().get("metal").map(|problem| problem.reason.clone())
    }
}

async fn later() {
    sleep(Duration::from_secs(70)).await;
}

fn active(devices: &[&str]) -> Bench {
    let bench = Bench::default();
    devices.iter().for_each(|device| bench.set(device, DeviceState::Active));
    bench
}

const TWO: [(&str, &str); 3] = [("n1", "packet://a"), ("n2", "equinixmetal://b"), ("far", "aws:///zone/i-1")];

#[tokio::test(start_paused = true)]
async fn machines_of_the_provider_get_bgp_and_their_routers_are_written_down_once() {
    let running = Running::start(active(&["a", "b"]), world(PeersFrom::Account, &TWO));
    later().await;
    let bench = &running.bench;
    assert_eq!((bench.count("project"), bench.count("enable n1"), bench.count("device far")), (2, 2, 0));
    assert_eq!((bench.count("peers n1 1"), bench.count("peers n2 1"), bench.count("state")), (1, 1, 0));
    assert!(bench.count("keep 2") > 0 && running.reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn where_people_write_the_routers_bgp_is_not_touched_and_machines_are_watched() {
    let running = Running::start(active(&["a", "b"]), world(PeersFrom::Objects, &TWO));
    later().await;
    running.bench.set("b", DeviceState::Maintenance);
    later().await;
    let bench = &running.bench;
    assert_eq!((bench.count("project"), bench.count("enable"), bench.count("peers")), (0, 0, 0));
    assert_eq!(bench.count("state n2 Maintenance"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_never_there_is_not_gone_and_one_that_was_is() {
    let running =
        Running::start(active(&["a", "b"]), world(PeersFrom::Metadata, &[TWO[0], TWO[1], ("n3", "packet://c")]));
    later().await;
    assert_eq!(running.bench.count("state"), 0, "c may be another account's");
    running.bench.set("b", DeviceState::Gone);
    later().await;
    assert!(running.bench.count("state n2 Gone") > 0);
}

#[tokio::test(start_paused = true)]
async fn every_machine_at_once_is_not_believed() {
    let running = Running::start(active(&["a", "b"]), world(PeersFrom::Metadata, &TWO));
    later().await;
    running.bench.set("a", DeviceState::PoweredOff);
    running.bench.set("b", DeviceState::Gone);
    later().await;
    assert_eq!(running.bench.count("state"), 0);
    assert_eq!(running.reason().as_deref(), Some("AllMachinesUnavailable"));
    running.bench.set("b", DeviceState::Active);
    later().await;
    assert!(running.bench.count("state n1 PoweredOff") > 0 && running.reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_is_told_changes_nothing_and_is_tried_ever_more_seldom() {
    let bench = active(&["a", "b"]);
    *bench.fails.lock().expect("whole") = true;
    let running = Running::start(bench, world(PeersFrom::Account, &TWO));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(running.reason().as_deref(), Some("Unauthorized"));
    let (asked, bench) = (running.bench.count("device n1"), &running.bench);
    // 5, 10, 20, 40 s, then once a minute.
    assert!((10..=15).contains(&asked), "{asked} times in ten minutes");
    assert_eq!((bench.count("state"), bench.count("peers"), bench.count("enable")), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn bgp_that_people_must_grant_is_said_and_no_machine_is_asked_to_speak_it() {
    let bench = active(&["a", "b"]);
    *bench.requested.lock().expect("whole") = true;
    let running = Running::start(bench, world(PeersFrom::Account, &TWO));
    later().await;
    assert_eq!(running.reason().as_deref(), Some("BgpRequested"));
    assert_eq!(running.bench.count("enable"), 0);
    *running.bench.requested.lock().expect("whole") = false;
    later().await;
    assert!(running.reason().is_none() && running.bench.count("enable n1") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_address_is_bound_to_every_machine_at_once_and_once() {
    let running = Running::start(active(&["a", "b"]), world(PeersFrom::Objects, &TWO));
    sleep(Duration::from_secs(5)).await;
    let asked = running.bench.count("device");
    let mut snapshot = world(PeersFrom::Objects, &TWO);
    snapshot.claims.extend([bound("l1")]);
    running.snapshots.send_replace(Some(Arc::new(snapshot)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((running.bench.count("bind l1 n1"), running.bench.count("bind l1 n2")), (1, 1));
    assert_eq!(running.bench.count("device"), asked, "machines are not asked about for it");
    later().await;
    later().await;
    assert_eq!(running.bench.count("bind"), 2);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_asks_nothing() {
    let running = Running::start(active(&["a"]), world(PeersFrom::Account, &TWO));
    running.leader.send_replace(false);
    later().await;
    let asked = running.bench.count("");
    later().await;
    assert_eq!(running.bench.count(""), asked);
}
