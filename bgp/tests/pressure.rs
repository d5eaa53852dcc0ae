//! Routers that misbehave: one that never reads, one that resets, one of another family.
#![cfg(feature = "tokio")]

mod support;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    rib::{Attributes, Route, Routes},
    speaker::{Exports, PeerAs, PeerConfig, PeerId, Received, State},
    wire::{
        Families,
        capability::Capabilities,
        message::{self, Kind},
        open::Open,
    },
};
use support::{PATIENCE, config, peer, router, start};
use tokio::time::timeout;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A router made by hand: it answers an OPEN and does nothing by itself.
struct Raw(TcpListener);

impl Raw {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("loopback"))
    }

    /// The peer as the node configures it.
    fn peer(&self) -> PeerConfig {
        let mut towards = peer(LOOPBACK, 64601, PeerAs::Exactly(Asn::new(64500).expect("valid")));
        towards.port = self.0.local_addr().expect("bound").port();
        towards.source = Some([127, 0, 0, 2].into());
        towards.hold_time = HoldTime::new(60).expect("valid");
        towards
    }

    /// Takes the node's connection and its OPEN.
    fn accept(&self) -> TcpStream {
        let (mut stream, _) = self.0.accept().expect("the node dials");
        stream.set_read_timeout(Some(PATIENCE)).expect("loopback");
        let mut header = [0; 19];
        stream.read_exact(&mut header).expect("an OPEN");
        assert_eq!(header[18], Kind::Open as u8);
        let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
        stream.read_exact(&mut body).expect("all of it");
        stream
    }

    /// Says what makes a session Established.
    fn establish(stream: &mut TcpStream) {
        let families = Families::from_iter(Families::EVERY);
        let open = Open {
            asn: Asn::new(64500).expect("valid"),
            hold_time: HoldTime::new(60).expect("valid"),
            id: RouterId::new([10, 9, 9, 9].into()).expect("valid"),
            capabilities: Capabilities { multiprotocol: Some(families), ..Capabilities::default() },
        };
        let mut out = Vec::new();
        open.encode(&mut out);
        message::encode_keepalive(&mut out);
        stream.write_all(&out).expect("the node reads");
    }
}

fn routes(count: u32, med: u32) -> Routes {
    let attributes = Arc::new(Attributes { med: Some(med), ..Attributes::default() });
    let route = |n| Route {
        prefix: ipnet::Ipv4Net::new(Ipv4Addr::from(0x0A00_0000 + n), 32).expect("valid").into(),
        attributes: attributes.clone(),
    };
    (0..count).map(route).collect()
}

fn tell(deaf: Routes, good: Routes) -> Exports {
    [(PeerId("deaf".into()), deaf), (PeerId("good".into()), good)].into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn router_that_never_reads_delays_nobody_else() {
    let deaf = Raw::new();
    let (_router, port, mut received) = router(|_| {}).await;
    let node = start(config([10, 0, 0, 1]), None);
    let mut good = peer(LOOPBACK, 64601, PeerAs::External);
    (good.port, good.source) = (port, Some([127, 0, 0, 2].into()));
    let many = routes(1_000_000, 1); // more octets than the kernel takes from us
    node.speaker.set_exports(tell(many.clone(), routes(1, 1))).await.expect("runs");
    node.peers([("deaf", deaf.peer()), ("good", good)]).await;
    let mut stream = tokio::task::spawn_blocking(move || {
        let mut stream = deaf.accept();
        Raw::establish(&mut stream);
        stream
    })
    .await
    .expect("a session");
    node.until("deaf", |p| p.state == State::Established).await;
    node.until("good", |p| p.advertised.len() == 1).await;

    let mut slowest = Duration::ZERO;
    for med in 2..100 {
        let said = Instant::now();
        node.speaker.set_exports(tell(many.clone(), routes(1, med))).await.expect("runs");
        let heard = async {
            loop {
                let next = received.recv().await.expect("the router runs");
                if matches!(next, Received::Announce { route, .. } if route.attributes.med == Some(med)) {
                    return;
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("in time");
        slowest = slowest.max(said.elapsed());
    }
    println!("slowest of 98 changes beside a router that reads nothing: {slowest:?}");
    let status = node.status("deaf").expect("known");
    assert_eq!((status.state, status.advertised.len()), (State::Established, 0), "nothing is told that is not written");
    // It lives on, and its session with it.
    let mut keepalive = Vec::new();
    message::encode_keepalive(&mut keepalive);
    stream.write_all(&keepalive).expect("the node reads");
    node.until("deaf", |p| p.counters.keepalives_received == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn router_that_resets_the_session_is_dialled_again_at_once() {
    let raw = Raw::new();
    let node = start(config([10, 0, 0, 1]), None);
    node.peers([("tor", raw.peer())]).await;
    let times = tokio::task::spawn_blocking(move || {
        let mut stream = raw.accept();
        let mut times = Vec::new();
        for _ in 0..20 {
            Raw::establish(&mut stream);
            // The node's KEEPALIVE says that it has seen everything.
            stream.read_exact(&mut [0; 19]).expect("a KEEPALIVE");
            let reset = Instant::now();
            drop(stream); // octets may be unread, so this is a reset or a close, as routers do either
            stream = raw.accept();
            times.push(reset.elapsed());
        }
        times
    });
    let mut times = times.await.expect("dialled again");
    times.sort_unstable();
    println!("OPEN after a reset: median {:?}, slowest {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(500), "{times:?}");
}

#[tokio::test]
async fn family_that_only_one_end_has_is_told_on_both() {
    let (router, port, _received) = router(|t| t.families = [Family::Ipv6Unicast].into()).await;
    let node = start(config([10, 0, 0, 1]), None);
    let mut towards = peer(LOOPBACK, 64601, PeerAs::External);
    (towards.port, towards.source) = (port, Some([127, 0, 0, 2].into()));
    towards.families = [Family::Ipv4Unicast].into();
    node.peers([("tor", towards)]).await;
    let ours = node.until("tor", |p| p.last_error.is_some()).await.last_error.expect("waited for");
    let theirs = router.until("dynamic/127.0.0.2", |p| p.last_error.is_some()).await.last_error.expect("waited for");
    for words in [&ours, &theirs] {
        assert!(words.contains("Unsupported Capability") && words.contains("we offer ipv"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_taker_of_routes_holds_the_sessions_up_and_ends_none() {
    let short = HoldTime::new(3).expect("valid");
    let (router, port, mut received) = router(|template| template.hold_time = short).await;
    let node = start(config([10, 0, 0, 1]), None);
    let mut towards = peer(LOOPBACK, 64601, PeerAs::External);
    (towards.port, towards.source, towards.hold_time) = (port, Some([127, 0, 0, 2].into()), short);
    let count = 10_000; // far more than the channel takes
    let exports: Exports = [(PeerId("tor".into()), routes(count, 1))].into();
    node.speaker.set_exports(exports).await.expect("runs");
    node.peers([("tor", towards)]).await;
    node.until("tor", |p| p.advertised.len() == count as usize).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut taken = 0;
    while taken < count {
        let next = timeout(PATIENCE, received.recv()).await.expect("in time").expect("the router runs");
        assert!(!matches!(next, Received::Down { .. }), "after {taken} routes");
        taken += u32::from(matches!(next, Received::Announce { .. }));
    }
    for (ours, name) in [(&router, "dynamic/127.0.0.2"), (&node, "tor")] {
        let status = ours.status(name).expect("known");
        assert_eq!((status.state, status.established_count), (State::Established, 1), "{:?}", status.last_error);
    }
}
