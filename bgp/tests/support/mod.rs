//! What the tests of this crate share: speakers that end with the test, and waiting with patience.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its part

pub mod bfd;
pub mod router;
pub mod space;

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpListener},
    time::Duration,
};

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    net::Speaker,
    rib::Route,
    speaker::{DynamicPeers, Exports, PeerAs, PeerConfig, PeerId, PeerStatus, Received, SpeakerConfig},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// How long anything may take; far more than it does, also where every core is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running speaker of ours.
pub struct Ours {
    /// Its handle.
    pub speaker: Speaker,
    task: JoinHandle<std::io::Result<()>>,
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ours {
    /// Sets the peers by name.
    pub async fn peers<const N: usize>(&self, peers: [(&str, PeerConfig); N]) {
        let peers: BTreeMap<_, _> = peers.into_iter().map(|(name, peer)| (PeerId(name.into()), peer)).collect();
        self.speaker.set_peers(peers).await.expect("the speaker runs");
    }

    /// The status of a peer now.
    pub fn status(&self, name: &str) -> Option<PeerStatus> {
        self.speaker.status().borrow().get(&PeerId(name.into())).cloned()
    }

    /// Waits for a status of a peer; panics with the last one seen when patience ends.
    pub async fn until(&self, name: &str, reached: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let mut watch = self.speaker.status();
        let id = PeerId(name.into());
        let wait = watch.wait_for(|all| all.get(&id).is_some_and(&reached));
        match timeout(PATIENCE, wait).await {
            Ok(seen) => seen.expect("the speaker runs")[&id].clone(),
            Err(_) => panic!("{name} never got there: {:#?}", self.status(name)),
        }
    }

    /// Whether the speaker's task has ended.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

/// Starts a speaker on this runtime.
pub fn start(config: SpeakerConfig, received: Option<mpsc::Sender<Received>>) -> Ours {
    let (speaker, run) = Speaker::start(config, received).expect("the speaker starts");
    Ours { speaker, task: tokio::spawn(run) }
}

/// A speaker that only dials.
pub fn config(id: [u8; 4]) -> SpeakerConfig {
    let router_id = RouterId::new(id.into()).expect("valid");
    SpeakerConfig { router_id, listen: Vec::new(), restarted: false, dynamic: Vec::new() }
}

/// A peer with both families and short times.
pub fn peer(address: IpAddr, local_as: u32, peer_as: PeerAs) -> PeerConfig {
    PeerConfig {
        hold_time: HoldTime::new(9).expect("valid"),
        connect_retry: Duration::from_secs(5),
        families: [Family::Ipv4Unicast, Family::Ipv6Unicast].into(),
        ..PeerConfig::new(address, Asn::new(local_as).expect("valid"), peer_as)
    }
}

/// A route with plain attributes.
pub fn route(prefix: &str) -> Route {
    Route { prefix: prefix.parse().expect("a prefix"), attributes: Default::default() }
}

/// What one peer is told.
pub fn exports(name: &str, routes: Vec<Route>) -> Exports {
    [(PeerId(name.into()), routes.into_iter().collect())].into()
}

/// Our speaker as a router on loopback that takes anybody from 127.0.0.0/8.
pub async fn router(change: impl FnOnce(&mut PeerConfig)) -> (Ours, u16, mpsc::Receiver<Received>) {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let port = free_port();
    let mut template = peer(loopback, 64500, PeerAs::External);
    change(&mut template);
    let mut router = config([10, 255, 0, 1]);
    router.listen.push((loopback, port).into());
    router.dynamic.push(DynamicPeers { prefix: "127.0.0.0/8".parse().expect("valid"), template });
    let (sender, received) = mpsc::channel(64);
    (start(router, Some(sender)), port, received)
}

/// A port of loopback that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("loopback").port()
}
