//! Routers that mean harm, over TCP: rubbish, half messages, silence, floods. The speaker answers as its RFCs say,
//! its memory stays bounded, and its other sessions do not notice.
#![cfg(feature = "tokio")]

mod support;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    Asn, Family, HoldTime,
    speaker::{PeerAs, PeerConfig, Received, State},
    wire::{
        message::{self, Kind, MAX, Refresh, frame},
        notification::Notification,
        update,
    },
};
use support::{Ours, PATIENCE, config, exports, peer, route, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// A raw router.
struct Router {
    listener: TcpListener,
}

impl Router {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("loopback") }
    }

    fn peer(&self) -> PeerConfig {
        let SocketAddr::V4(at) = self.listener.local_addr().expect("bound") else { panic!("IPv4") };
        let mut peer = peer((*at.ip()).into(), 64500, PeerAs::Exactly(Asn::new(64601).expect("valid")));
        peer.port = at.port();
        peer.hold_time = HoldTime::new(3).expect("valid");
        peer
    }

    async fn accept(&self) -> Line {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("accepts");
        Line { stream, unread: Vec::new() }
    }

    /// A session that is up.
    async fn establish(&self) -> Line {
        let mut line = self.accept().await;
        assert_eq!(line.next().await.map(|(kind, _)| kind), Some(Kind::Open));
        let capabilities = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0, 0, 0xFC, 0x59];
        let open = [&[4, 0xFC, 0x59, 0, 3, 10, 255, 0, 1, 22, 2, 20][..], &capabilities].concat();
        line.say(&framed(Kind::Open, &open)).await;
        line.say(&framed(Kind::Keepalive, &[])).await;
        assert_eq!(line.next().await.map(|(kind, _)| kind), Some(Kind::Keepalive));
        line
    }
}

/// One connection of a raw router.
struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    async fn say(&mut self, octets: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(octets)).await.expect("in time").expect("is taken");
    }

    /// The next message of the speaker's, or `None` where it has closed.
    async fn next(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            if let Some(found) = frame(&self.unread, true).expect("the speaker's messages are valid") {
                let (kind, length) = (found.kind, found.octets.len());
                let octets = self.unread.drain(..length).collect();
                return Some((kind, octets));
            }
            let mut buffer = [0; 4096];
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.expect("in time");
            match read.unwrap_or(0) {
                0 => return None,
                length => self.unread.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// The NOTIFICATION that ends the connection, after whatever else comes first.
    async fn last_word(&mut self) -> Notification {
        let mut last = None;
        while let Some((kind, octets)) = self.next().await {
            last = Some((kind, octets));
        }
        let (kind, octets) = last.expect("something was said");
        assert_eq!(kind, Kind::Notification);
        Notification::decode(&octets[message::HEADER..])
    }
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let at = message::start(&mut out, kind);
    out.extend_from_slice(body);
    message::finish(&mut out, at);
    out
}

/// UPDATEs of so many different IPv4 prefixes.
fn flood(count: u32) -> Vec<u8> {
    let list = [&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59][..], &[0x40, 3, 4, 10, 0, 1, 2]].concat();
    let prefix = |n: u32| ipnet::Ipv4Net::new((0x0B00_0000 + n).into(), 32).expect("valid");
    let all: Vec<_> = (0..count).map(prefix).collect();
    let (mut out, mut rest) = (Vec::new(), &all[..]);
    while !rest.is_empty() {
        let taken = update::encode_announce(|out: &mut Vec<u8>| out.extend_from_slice(&list), rest, MAX, &mut out);
        rest = &rest[taken..];
    }
    out
}

/// Octets of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}

fn node() -> Ours {
    start(config([10, 0, 0, 1]), None)
}

#[tokio::test]
async fn rubbish_is_answered_once_and_a_router_that_goes_on_is_not_hammered() {
    let router = Router::new().await;
    let node = node();
    node.peers([("tor", router.peer())]).await;
    let begin = Instant::now();
    let mut attempts = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        let Ok(accepted) = timeout(Duration::from_secs(3), router.listener.accept()).await else { break };
        let mut line = Line { stream: accepted.expect("accepts").0, unread: Vec::new() };
        line.say(b"GET / HTTP/1.1\r\nHost: tor\r\n\r\n").await;
        let last = line.last_word().await;
        assert_eq!((last.code, last.subcode), (1, 1), "{last}");
        attempts += 1;
    }
    assert!((1..=6).contains(&attempts), "{attempts} attempts in three seconds");
    let why = node.until("tor", |s| s.last_error.is_some()).await.last_error.expect("waited for");
    assert!(why.contains("marker"), "{why}");
}

#[tokio::test]
async fn half_a_message_is_waited_for_until_the_hold_time_ends() {
    let router = Router::new().await;
    let node = node();
    node.peers([("tor", router.peer())]).await;
    let mut line = router.establish().await;
    let update = flood(10);
    line.say(&update[..update.len() - 3]).await;
    let begin = Instant::now();
    let last = line.last_word().await;
    assert_eq!((last.code, last.subcode), (4, 0), "{last}");
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(node.status("tor").expect("there").counters.prefixes_received, 0);
}

#[tokio::test]
async fn rubbish_within_a_session_ends_it_at_the_first_octet_that_is_wrong() {
    let router = Router::new().await;
    let node = node();
    node.peers([("tor", router.peer())]).await;
    let mut line = router.establish().await;
    let rubbish: Vec<u8> = (0..1_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let good = flood(1000);
    let _ = timeout(PATIENCE, line.stream.write_all(&[&good[..], &rubbish].concat())).await;
    let last = line.last_word().await;
    assert_eq!((last.code, last.subcode), (1, 1), "{last}");
    assert_eq!(node.status("tor").expect("there").counters.prefixes_received, 1000, "what came before counts");
}

#[tokio::test]
async fn session_beside_silent_and_stuck_routers_comes_up_and_stays() {
    let (silent, stuck, good) = (Router::new().await, Router::new().await, Router::new().await);
    let node = node();
    let routes = (0..5000u32).map(|n| route(&format!("10.9.{}.{}/32", n >> 8, n & 255)));
    let routes: Vec<_> = routes.collect();
    let mut all = exports("stuck", routes.clone());
    all.extend(exports("good", routes));
    node.speaker.set_exports(all).await.expect("runs");
    let peers = [("silent", silent.peer()), ("stuck", stuck.peer()), ("good", good.peer())];
    node.peers(peers).await;
    let _said_nothing = silent.accept().await;
    let _reads_nothing = stuck.establish().await;
    let mut line = good.establish().await;
    let mut updates = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let (kind, _) = line.next().await.expect("the session stands");
        updates += usize::from(kind == Kind::Update);
        if kind == Kind::Keepalive {
            line.say(&framed(Kind::Keepalive, &[])).await;
        }
    }
    assert!(updates >= 5000 / 800, "{updates}");
    let status = node.status("good").expect("there");
    assert_eq!((status.state, status.established_count), (State::Established, 1));
    let stuck = node.status("stuck").expect("there");
    assert!(stuck.last_error.is_some_and(|why| why.contains("Hold Timer")), "it sent no KEEPALIVE");
}

/// One test, so that the floods come one after the other; what the others of this file hold is small.
#[tokio::test]
async fn floods_leave_memory_bounded_and_the_session_up() {
    let router = Router::new().await;
    let node = node();
    let all: Vec<_> = (0..10_000u32).map(|n| route(&format!("10.9.{}.{}/32", n >> 8, n & 255))).collect();
    node.speaker.set_exports(exports("tor", all)).await.expect("runs");
    let mut config = router.peer();
    config.hold_time = HoldTime::new(0).expect("valid");
    node.peers([("tor", config)]).await;
    let mut line = router.establish_without_hold().await;
    let octets = flood(1_000_000);

    let before = resident();
    for round in 1..=3 {
        line.say(&octets).await;
        let count = round * 1_000_000;
        node.until("tor", |s| s.counters.prefixes_received == count).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} octets more after {count} prefixes");
    }
    // Who asks for everything again and again and never reads is sent it once at a time.
    let mut refresh = Vec::new();
    message::encode_refresh(Refresh::Request(Family::Ipv4Unicast), &mut refresh);
    let asked = 50_000;
    line.say(&refresh.repeat(asked)).await;
    let status = node.until("tor", |s| s.counters.refreshes_received == asked as u64).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} octets more after {asked} refreshes");
    assert_eq!((status.state, status.established_count), (State::Established, 1));
    drop((line, node));
    slow_consumer(&octets).await;
}

/// A program that does not take what its peers announce holds up the peer, and memory stays bounded.
async fn slow_consumer(octets: &[u8]) {
    let router = Router::new().await;
    let (sender, mut received) = mpsc::channel(1);
    let node = start(config([10, 0, 0, 1]), Some(sender));
    let mut config = router.peer();
    config.hold_time = HoldTime::new(0).expect("valid");
    node.peers([("tor", config)]).await;
    let mut line = router.establish_without_hold().await;
    let before = resident();
    let mut taken = 0;
    while timeout(Duration::from_millis(500), line.stream.write_all(octets)).await.is_ok() {
        taken += octets.len();
        assert!(taken < 64 << 20, "the router is held up once the sockets are full");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} octets more with nobody to take the routes");
    assert!(node.status("tor").is_some_and(|s| s.state == State::Established));
    let first = timeout(PATIENCE, received.recv()).await.expect("in time");
    assert!(matches!(first, Some(Received::Announce { .. })), "{first:?}");
}

impl Router {
    /// A session that is up and wants no KEEPALIVEs.
    async fn establish_without_hold(&self) -> Line {
        let mut line = self.accept().await;
        assert_eq!(line.next().await.map(|(kind, _)| kind), Some(Kind::Open));
        line.say(&framed(Kind::Open, &[4, 0xFC, 0x59, 0, 0, 10, 255, 0, 1, 10, 2, 8, 2, 0, 65, 4, 0, 0, 0xFC, 0x59]))
            .await;
        line.say(&framed(Kind::Keepalive, &[])).await;
        assert_eq!(line.next().await.map(|(kind, _)| kind), Some(Kind::Keepalive));
        line
    }
}
