//! What the speaker hears, and what is said of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    Asn, Community, Family, HoldTime, LargeCommunity,
    net::unnumbered::Links,
    rib::{Attributes, Route, Routes},
    speaker::{AddPath, Counters, Md5Key, PeerAs, PeerConfig, PeerStatus, Role, Shutdown, State, Ttl},
};
use tokio::sync::{oneshot, watch};

use super::{AnnounceError, AnnounceState, Config, Inputs, Ready, neighbours::Neighbours, policy, run};
use crate::{
    plan::{Allocated, Desired, Withhold},
    types::{Peer, ServiceKey},
};

mod restart;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ready(addresses: &[&str]) -> Ready {
    Ready::Only(addresses.iter().map(|address| ip(address)).collect())
}

pub(super) fn peer(name: &str) -> Peer {
    Peer {
        name: name.into(),
        my_asn: Asn::new(64500).expect("valid"),
        local_asn: None,
        peer_as: PeerAs::Exactly(Asn::new(64501).expect("valid")),
        address: Some(ip("198.51.100.254")),
        interface: None,
        port: 179,
        source: None,
        router_id: None,
        vrf: None,
        hold_time: HoldTime::DEFAULT,
        keepalive: None,
        connect_time: None,
        multihop: None,
        ttl_security: None,
        passive: false,
        password: None,
        ao_keys: Vec::new(),
        missing_secret: None,
        node_selectors: Vec::new(),
        long_lived: None,
        role: None,
        role_strict: false,
        add_path: AddPath::default(),
        shows_my_asn: false,
        bfd: None,
        graceful_restart: false,
        dual_stack: false,
        prefix_budget: None,
        maximum_paths: None,
        address_from: None,
        maximum_prefixes: None,
    }
}

fn config(peer: &Peer) -> PeerConfig {
    policy::peer_config(peer, &Neighbours::default()).expect("nothing is missing")
}

fn route(prefix: &str) -> Route {
    Route { prefix: prefix.parse().expect("a prefix"), attributes: Arc::default() }
}

/// Services a (192.0.2.1) and b (192.0.2.2) as host routes and as an aggregate to tor and tor2.
fn desired() -> Desired {
    let routes = Routes::from_iter([route("192.0.2.0/30"), route("192.0.2.1/32"), route("192.0.2.2/32")]);
    let key = |name| ServiceKey::new("shop", name);
    let has = |address| Allocated::Addresses { addresses: vec![ip(address)], pool: "main".into() };
    let behind = [("192.0.2.0/30", vec!["a", "b"]), ("192.0.2.1/32", vec!["a"]), ("192.0.2.2/32", vec!["b"])];
    let services = |names: Vec<_>| names.into_iter().map(key).collect();
    Desired {
        allocations: Arc::new([(key("a"), has("192.0.2.1")), (key("b"), has("192.0.2.2"))].into()),
        peers: ["tor", "tor2"].map(|name| (name.to_string(), peer(name))).into(),
        exports: ["tor", "tor2"].map(|name| (name.to_string(), routes.clone())).into(),
        behind: behind.map(|(prefix, names)| (prefix.parse().expect("a prefix"), services(names))).into(),
        addresses: [ip("192.0.2.1"), ip("192.0.2.2")].into(),
        ..Desired::default()
    }
}

/// A session that is up and has sent nothing.
pub(super) fn status() -> PeerStatus {
    PeerStatus {
        state: State::Established,
        since: Instant::now(),
        local_addr: None,
        remote_addr: ip("198.51.100.254"),
        remote_as: Asn::new(64501).ok(),
        remote_id: None,
        hold_time: Some(HoldTime::DEFAULT),
        families: [Family::Ipv4Unicast].into(),
        capabilities: vec!["route-refresh".into()],
        last_error: None,
        established_count: 2,
        advertised: Routes::default(),
        withheld: Routes::default(),
        counters: Counters::default(),
    }
}

fn told(state: &AnnounceState, peer: &str) -> Vec<String> {
    state.exports[&policy::peer_id(peer)].iter().map(|(prefix, _)| prefix.to_string()).collect()
}

#[test]
fn distance_follows_the_kind_of_session() {
    let with = |change: fn(&mut Peer)| {
        let mut peer = peer("tor");
        change(&mut peer);
        config(&peer).ttl
    };
    assert_eq!(with(|_| {}), Ttl::Direct);
    assert_eq!(with(|p| p.multihop = Some(5)), Ttl::MultiHop(5));
    assert_eq!(with(|p| (p.multihop, p.ttl_security) = (Some(5), Some(1))), Ttl::Security { hops: 1 });
    assert_eq!(with(|p| p.peer_as = PeerAs::Internal), Ttl::MultiHop(255));
    assert_eq!(with(|p| p.peer_as = PeerAs::Exactly(p.my_asn)), Ttl::MultiHop(255));
    assert_eq!(with(|p| p.peer_as = PeerAs::External), Ttl::Direct);
    let local = |p: &mut Peer| (p.local_asn, p.peer_as) = (Asn::new(65000).ok(), PeerAs::Exactly(p.my_asn));
    assert_eq!(with(local), Ttl::Direct, "towards this peer our AS is another");
}

#[test]
fn words_of_the_peer_become_words_of_the_speaker() {
    let mut peer = peer("tor");
    assert_eq!(config(&peer).families, BTreeSet::from([Family::Ipv4Unicast]));
    assert_eq!((config(&peer).graceful_restart, config(&peer).connect_retry), (None, policy::CONNECT_RETRY));
    peer.dual_stack = true;
    peer.graceful_restart = true;
    peer.connect_time = Some(Duration::from_secs(3));
    peer.vrf = Some("blue".into());
    peer.local_asn = Asn::new(65000).ok();
    let config = config(&peer);
    assert_eq!(config.families, BTreeSet::from([Family::Ipv4Unicast, Family::Ipv6Unicast]));
    assert_eq!(config.graceful_restart, Some(Duration::from_secs(120)));
    assert_eq!(config.connect_retry, Duration::from_secs(3));
    assert_eq!(config.interface.as_deref(), Some("blue"));
    assert_eq!((config.local_as.value(), config.own_as), (65000, None));

    peer.shows_my_asn = true;
    peer.role = Some(Role::Customer);
    peer.add_path.send = true;
    peer.long_lived = Some(Duration::from_secs(60));
    let config = super::tests::config(&peer);
    assert_eq!(config.own_as, Some(peer.my_asn));
    assert_eq!((config.role, config.add_path.send), (Some(Role::Customer), true));
    assert_eq!(config.long_lived, Some(Duration::from_secs(60)));
    peer.graceful_restart = false;
    assert_eq!(super::tests::config(&peer).long_lived, None, "RFC 9494 §4.2: never without graceful restart");
}

#[test]
fn session_without_its_secret_does_not_start_and_a_running_one_goes_on() {
    let mut desired = desired();
    let mut waiting = peer("tor");
    waiting.missing_secret = Some("key".into());
    desired.peers.insert("tor".into(), waiting);
    assert_eq!(policy::peer_configs(&desired, &BTreeMap::new(), &Neighbours::default()).len(), 1);
    let mut keyed = peer("tor");
    keyed.password = Some(Md5Key(Arc::from(&b"secret"[..])));
    let running = BTreeMap::from([(policy::peer_id("tor"), config(&keyed))]);
    let configs = policy::peer_configs(&desired, &running, &Neighbours::default());
    assert_eq!(configs[&policy::peer_id("tor")], config(&keyed));

    let mut state = AnnounceState::default();
    state.turn(Arc::new(desired), &Ready::All, &Links::default());
    let session = &state.sessions(Instant::now())[0];
    assert_eq!((session.peer.as_str(), session.state.as_str()), ("tor", "Idle"));
    assert!(session.last_error.as_ref().is_some_and(|why| why.contains("Secret key")));
    assert!(!state.exports.contains_key(&policy::peer_id("tor")), "nothing is exported to a peer that is not there");
}

#[test]
fn only_what_is_served_is_announced_and_the_rest_is_named() {
    let mut state = AnnounceState::default();
    state.turn(Arc::new(desired()), &ready(&[]), &Links::default());
    assert!(told(&state, "tor").is_empty());
    assert_eq!(state.withheld.len(), 2);
    state.turn(Arc::new(desired()), &ready(&["192.0.2.2", "192.0.2.3"]), &Links::default());
    assert_eq!(told(&state, "tor"), ["192.0.2.0/30", "192.0.2.2/32"]);
    let [withheld] = &state.withheld[..] else { panic!("one Service waits: {:?}", state.withheld) };
    assert_eq!((&*withheld.service.name, withheld.reason), ("a", Withhold::DatapathNotReady));
    assert_eq!(state.withheld().next().expect("it is withheld").reason, "datapathNotReady");
    state.turn(Arc::new(desired()), &Ready::All, &Links::default());
    assert_eq!(told(&state, "tor2").len(), 3);
    assert!(state.withheld.is_empty());
}

#[test]
fn lists_stay_shared_and_the_speaker_hears_of_changes_only() {
    let mut state = AnnounceState::default();
    let first = state.turn(Arc::new(desired()), &ready(&["192.0.2.1"]), &Links::default());
    let exports = first.exports.expect("something is new");
    assert!(exports[&policy::peer_id("tor")].is(&exports[&policy::peer_id("tor2")]));
    assert_eq!(first.peers.map(|peers| peers.len()), Some(2));
    let again = state.turn(Arc::new(desired()), &ready(&["192.0.2.1", "192.0.2.9"]), &Links::default());
    assert_eq!(again, super::state::Orders::default(), "an equal plan in other memory is no change");
    let mut fewer = desired();
    fewer.peers.remove("tor2");
    let orders = state.turn(Arc::new(fewer), &ready(&["192.0.2.1"]), &Links::default());
    assert_eq!(orders.peers.map(|peers| peers.len()), Some(1));
    let exports_left = orders.exports.expect("one is gone");
    assert!(exports_left[&policy::peer_id("tor")].is(&exports[&policy::peer_id("tor")]));
}

#[test]
fn state_shows_what_was_sent_and_not_what_was_wanted() {
    let attributes = Attributes {
        med: Some(7),
        communities: vec![Community::NO_EXPORT],
        large_communities: vec![LargeCommunity(1, 2, 3)],
        ..Attributes::default()
    };
    let sent = Route { attributes: attributes.into(), ..route("192.0.2.1/32") };
    let now = Instant::now();
    let status = PeerStatus { since: now, advertised: [sent].into_iter().collect(), ..status() };
    let mut state = AnnounceState::default();
    state.turn(Arc::new(desired()), &Ready::All, &Links::default());
    state.status = Arc::new([(policy::peer_id("tor"), status)].into());
    let session = &state.sessions(now + Duration::from_secs(9))[0];
    assert_eq!((session.state.as_str(), session.since_seconds, session.advertised), ("Established", 9, 1));
    assert_eq!((session.local_asn, session.remote_asn), (64500, Some(64501)));
    let [route] = &state.routes().collect::<Vec<_>>()[..] else { panic!("one route was sent") };
    assert_eq!((route.prefix.as_str(), route.peer.as_str()), ("192.0.2.1/32", "tor"));
    assert_eq!(route.services, ["shop/a"]);
    assert_eq!(route.communities, ["no-export", "large:1:2:3"]);
    assert_eq!(route.med, Some(7));
}

/// Nobody asks anything.
fn inputs(
    desired: watch::Receiver<Option<Arc<Desired>>>,
    ready: watch::Receiver<Ready>,
    shutdown: oneshot::Receiver<Shutdown>,
) -> Inputs {
    Inputs { desired, ready, questions: tokio::sync::mpsc::channel(1).1, shutdown }
}

#[tokio::test]
async fn nothing_starts_before_the_first_plan() {
    let (for_desired, desired) = watch::channel(None);
    let (_for_ready, ready) = watch::channel(Ready::All);
    let (end, shutdown) = oneshot::channel();
    let (state, _watch) = watch::channel(Arc::default());
    let task = tokio::spawn(run(Config::default(), inputs(desired, ready, shutdown), state));
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    drop(end);
    assert!(task.await.expect("no panic").is_ok(), "who ends before the first plan has nothing to say good-bye to");
    drop(for_desired);
}

#[tokio::test]
async fn planner_that_is_gone_is_an_error() {
    let (for_desired, desired) = watch::channel(None);
    let (_for_ready, ready) = watch::channel(Ready::All);
    let (_end, shutdown) = oneshot::channel();
    let (state, _watch) = watch::channel(Arc::default());
    drop(for_desired);
    let result = run(Config::default(), inputs(desired, ready, shutdown), state).await;
    assert!(matches!(result, Err(AnnounceError::NoPlanner)));
}

/// Or everybody who looks at a node would make it say all of itself anew.
#[tokio::test]
async fn question_is_answered_and_nothing_is_published_by_it() {
    let (_for_desired, desired) = watch::channel(Some(Arc::new(Desired::default())));
    let (_for_ready, ready) = watch::channel(Ready::All);
    let (_end, shutdown) = oneshot::channel();
    let (state, mut seen) = watch::channel(Arc::<AnnounceState>::default());
    let (ask, questions) = tokio::sync::mpsc::channel(1);
    let inputs = Inputs { questions, ..inputs(desired, ready, shutdown) };
    let task = tokio::spawn(run(Config::default(), inputs, state));
    // Whatever the start publishes is over when nothing new comes for a while.
    while tokio::time::timeout(Duration::from_millis(200), seen.changed()).await.is_ok() {}
    for _ in 0..3 {
        let (to, answer) = oneshot::channel();
        ask.send(to).await.expect("it listens");
        assert!(answer.await.expect("it answers").is_empty(), "no peer");
    }
    let news = tokio::time::timeout(Duration::from_millis(200), seen.changed()).await;
    assert!(news.is_err(), "a question changes nothing");
    task.abort();
}

#[tokio::test]
async fn stations_are_told_who_we_are_and_shown_as_connected() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let station = listener.local_addr().expect("bound");
    let (_for_desired, desired) = watch::channel(Some(Arc::new(Desired::default())));
    let (_for_ready, ready) = watch::channel(Ready::All);
    let (end, shutdown) = oneshot::channel();
    let (state, mut seen) = watch::channel(Arc::<AnnounceState>::default());
    let config = Config { node: "n7".into(), bmp: vec![station], ..Config::default() };
    let task = tokio::spawn(run(config, inputs(desired, ready, shutdown), state));
    let (mut stream, _) = listener.accept().await.expect("accepts");
    let connected = seen.wait_for(|state| state.stations.get(&station).is_some_and(|s| s.connected)).await;
    connected.expect("announcing goes on");
    drop(end);
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await.expect("reads");
    // An Initiation with its sysName last, then a Termination (RFC 7854 §4.3, §4.5).
    let initiation = usize::from(all[4]);
    assert!(all[5] == 4 && all[..initiation].ends_with(&[0, 2, 0, 2, b'n', b'7']), "{all:?}");
    assert_eq!(all[initiation..], [3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 0]);
    assert!(task.await.expect("no panic").is_ok());
}
