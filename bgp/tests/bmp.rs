//! A speaker and a BMP station on loopback; the station reads with a decoder that is not ours.
#![cfg(feature = "tokio")]

mod support;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use ironcast_bgp::{
    Asn,
    bmp::Identity,
    rib::Route,
    speaker::{DynamicPeers, PeerAs, Shutdown, State},
};
use netgauze_bgp_pkt::{BgpMessage, notification::BgpNotificationMessage, update::BgpUpdateMessage};
use netgauze_bmp_pkt::{
    BmpMessage, BmpPeerType, PeerHeader,
    codec::BmpCodec,
    v3::{BmpMessageValue, InitiationInformation, PeerDownNotificationReason, TerminationInformation},
};
use support::{Ours, PATIENCE, config, exports, peer, route, start};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::FramedRead;

/// A station that listens on loopback.
struct Station {
    listener: TcpListener,
    stream: Option<FramedRead<TcpStream, BmpCodec>>,
}

impl Station {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("loopback"), stream: None }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    async fn accept(&mut self) {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("accepts");
        self.stream = Some(FramedRead::new(stream, BmpCodec::default()));
        let BmpMessageValue::Initiation(initiation) = self.next().await else { panic!("begins with Initiation") };
        let [InitiationInformation::SystemDescription(description), InitiationInformation::SystemName(name)] =
            initiation.information()
        else {
            panic!("{initiation:?}")
        };
        assert_eq!((&**description, &**name), ("ironcast test", "n1"));
    }

    async fn next(&mut self) -> BmpMessageValue {
        self.try_next().await.expect("the connection stands")
    }

    /// The next message, or `None` when the speaker has closed.
    async fn try_next(&mut self) -> Option<BmpMessageValue> {
        let stream = self.stream.as_mut().expect("accepted");
        let message = timeout(PATIENCE, stream.next()).await.expect("in time")?;
        match message.expect("a message that the decoder takes") {
            BmpMessage::V3(message) => Some(message),
            BmpMessage::V4(other) => panic!("{other:?}"),
        }
    }

    /// The UPDATE of the next message, which must be Route Monitoring of the post-policy Adj-RIB-Out.
    async fn update(&mut self) -> BgpUpdateMessage {
        let BmpMessageValue::RouteMonitoring(monitoring) = self.next().await else { panic!("no Route Monitoring") };
        check(monitoring.peer_header(), true);
        match monitoring.update_message() {
            BgpMessage::Update(update) => update.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn end_of_rib(&mut self) {
        for _ in 0..2 {
            let update = self.update().await;
            assert!(update.end_of_rib().is_some(), "{update:?}");
        }
    }

    async fn peer_up(&mut self) {
        let BmpMessageValue::PeerUpNotification(up) = self.next().await else { panic!("no Peer Up") };
        check(up.peer_header(), false);
        assert_eq!(up.local_address(), Some([127, 0, 0, 2].into()));
        let (BgpMessage::Open(sent), BgpMessage::Open(received)) = (up.sent_message(), up.received_message()) else {
            panic!("{up:?}")
        };
        assert_eq!((sent.my_asn4(), received.my_asn4()), (64601, 64500));
        assert_eq!(up.information(), [InitiationInformation::AdminLabel("tor".into())]);
    }

    async fn peer_down(&mut self) -> PeerDownNotificationReason {
        let BmpMessageValue::PeerDownNotification(down) = self.next().await else { panic!("no Peer Down") };
        check(down.peer_header(), false);
        down.reason().clone()
    }
}

fn check(header: &PeerHeader, adj_rib_out: bool) {
    let expected = BmpPeerType::GlobalInstancePeer { ipv6: false, post_policy: adj_rib_out, asn2: false, adj_rib_out };
    assert_eq!(header.peer_type(), expected);
    assert_eq!((header.address(), header.peer_as()), (Some([127, 0, 0, 1].into()), 64500));
    assert_eq!(header.bgp_id(), std::net::Ipv4Addr::new(10, 255, 0, 1));
    let told = Duration::from_millis(header.timestamp().expect("a time").timestamp_millis() as u64);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + told).expect("not in the future");
    assert!(age < 2 * PATIENCE, "{age:?}");
}

fn prefixes(update: &BgpUpdateMessage) -> (Vec<String>, Vec<String>) {
    let text =
        |list: &[netgauze_bgp_pkt::nlri::Ipv4UnicastAddress]| list.iter().map(|n| n.network().to_string()).collect();
    (text(update.withdraw_routes()), text(update.nlri()))
}

/// A router that takes everything from loopback and counts it, and the port that it listens on.
fn router() -> (Ours, u16) {
    let port = support::free_port();
    let mut router = config([10, 255, 0, 1]);
    router.listen.push(([127, 0, 0, 1], port).into());
    router.dynamic.push(DynamicPeers {
        prefix: "127.0.0.0/8".parse().expect("valid"),
        template: peer([127, 0, 0, 1].into(), 64500, PeerAs::External),
    });
    (start(router, None), port)
}

/// A node that dials the router and tells the stations.
async fn node(port: u16, stations: &[SocketAddr]) -> Ours {
    let node = start(config([10, 0, 0, 1]), None);
    tell(&node, stations).await;
    let mut towards = peer([127, 0, 0, 1].into(), 64601, PeerAs::Exactly(Asn::new(64500).expect("valid")));
    towards.port = port;
    towards.source = Some([127, 0, 0, 2].into());
    node.peers([("tor", towards)]).await;
    node
}

async fn tell(node: &Ours, stations: &[SocketAddr]) {
    let identity = Identity { name: "n1".into(), description: "ironcast test".into() };
    node.speaker.set_stations(identity, stations.iter().copied().collect()).await.expect("runs");
}

async fn announce(node: &Ours, routes: Vec<Route>) {
    node.speaker.set_exports(exports("tor", routes)).await.expect("runs");
}

fn notification(pdu: &BgpMessage) -> &BgpNotificationMessage {
    let BgpMessage::Notification(notification) = pdu else { panic!("{pdu:?}") };
    notification
}

#[tokio::test]
async fn station_sees_peer_up_routes_withdrawal_and_peer_down_in_order() {
    let mut station = Station::new().await;
    let (_router, port) = router();
    let node = node(port, &[station.address()]).await;
    station.accept().await;
    station.peer_up().await;

    announce(&node, vec![route("192.0.2.1/32"), route("192.0.2.2/32"), route("2001:db8::1/128")]).await;
    assert_eq!(prefixes(&station.update().await), (vec![], vec!["192.0.2.1/32".into(), "192.0.2.2/32".into()]));
    // Without an IPv6 next hop on this connection the IPv6 route was not sent to the peer, nor told.
    station.end_of_rib().await;
    announce(&node, vec![route("192.0.2.2/32")]).await;
    assert_eq!(prefixes(&station.update().await), (vec!["192.0.2.1/32".into()], vec![]));

    node.peers([]).await;
    let PeerDownNotificationReason::LocalSystemClosedNotificationPduFollows(pdu) = station.peer_down().await else {
        panic!("no NOTIFICATION of ours")
    };
    assert!(format!("{:?}", notification(&pdu)).contains("PeerDeConfigured"), "{pdu:?}");

    node.speaker.shutdown(Shutdown::Restart).await.expect("runs");
    let BmpMessageValue::Termination(end) = station.next().await else { panic!("no Termination") };
    assert!(matches!(end.information(), [TerminationInformation::Reason(_)]), "{end:?}");
    assert!(station.try_next().await.is_none(), "then it closes");
}

#[tokio::test]
async fn notification_of_the_router_is_told_and_so_is_an_end_without_one() {
    let mut station = Station::new().await;
    let (router, port) = router();
    let node = node(port, &[station.address()]).await;
    announce(&node, vec![]).await;
    station.accept().await;
    station.peer_up().await;
    station.end_of_rib().await;
    router.speaker.shutdown(Shutdown::Stop { reason: "maintenance".into() }).await.expect("runs");
    let PeerDownNotificationReason::RemoteSystemClosedNotificationPduFollows(pdu) = station.peer_down().await else {
        panic!("no NOTIFICATION of the router's")
    };
    assert!(format!("{:?}", notification(&pdu)).contains("AdministrativeShutdown"), "{pdu:?}");

    let (router, port) = self::router();
    let node = self::node(port, &[station.address()]).await;
    station.accept().await;
    station.peer_up().await;
    drop(router);
    assert!(matches!(station.peer_down().await, PeerDownNotificationReason::RemoteSystemClosedNoData));
    drop(node);
}

#[tokio::test]
async fn end_of_our_own_for_a_restart_is_told_as_a_manual_stop() {
    let mut station = Station::new().await;
    let (_router, port) = router();
    let node = node(port, &[station.address()]).await;
    station.accept().await;
    station.peer_up().await;
    node.speaker.shutdown(Shutdown::Restart).await.expect("runs");
    let reason = station.peer_down().await;
    assert!(matches!(reason, PeerDownNotificationReason::LocalSystemClosedFsmEventFollows(2)), "{reason:?}");
}

#[tokio::test]
async fn station_that_comes_later_or_again_is_told_everything_that_is_so() {
    let (_router, port) = router();
    let node = node(port, &[]).await;
    announce(&node, vec![route("192.0.2.1/32"), route("192.0.2.2/32")]).await;
    node.until("tor", |s| s.state == State::Established && s.advertised.len() == 2).await;
    let mut station = Station::new().await;
    tell(&node, &[station.address()]).await;
    for connection in 1..=2 {
        station.accept().await;
        station.peer_up().await;
        assert_eq!(prefixes(&station.update().await).1, ["192.0.2.1/32", "192.0.2.2/32"]);
        station.end_of_rib().await;
        let mut status = node.speaker.stations();
        let wait = status.wait_for(|all| all[&station.address()].connections == connection);
        assert!(timeout(PATIENCE, wait).await.expect("in time").expect("runs")[&station.address()].connected);
        station.stream = None;
    }
    let mut status = node.speaker.stations();
    let wait = status.wait_for(|all| all[&station.address()].last_error.is_some());
    assert_eq!(timeout(PATIENCE, wait).await.expect("in time").expect("runs").len(), 1);
    tell(&node, &[]).await;
    let wait = status.wait_for(|all| all.is_empty());
    timeout(PATIENCE, wait).await.expect("in time").expect("runs");
}

#[tokio::test]
async fn station_that_does_not_read_loses_its_connection_and_delays_no_router() {
    let (_router, port) = router();
    let mut slow = Station::new().await;
    let mut prompt = Station::new().await;
    let node = node(port, &[slow.address(), prompt.address()]).await;
    slow.accept().await;
    prompt.accept().await;
    node.until("tor", |s| s.state == State::Established).await;
    let read = tokio::spawn(async move {
        let mut updates = 0;
        while let Some(message) = prompt.try_next().await {
            updates += usize::from(matches!(message, BmpMessageValue::RouteMonitoring(_)));
        }
        updates
    });
    // Two sets in turn, so that every round withdraws and announces all: some 400 KB a round towards the stations.
    let set = |third: u8| (0..20_000u32).map(|n| route(&format!("10.{third}.{}.{}/32", n >> 8, n & 255))).collect();
    let sets: [Vec<Route>; 2] = [set(1), set(2)];
    let mut status = node.speaker.stations();
    let start = std::time::Instant::now();
    let mut rounds = 0;
    while status.borrow_and_update()[&slow.address()].overflows == 0 {
        assert!(start.elapsed() < 4 * PATIENCE, "no overflow after {rounds} rounds");
        let wanted = sets[rounds % 2].clone();
        let first = wanted[0].prefix;
        announce(&node, wanted).await;
        node.until("tor", |s| s.advertised.iter().next().is_some_and(|(prefix, _)| prefix == first)).await;
        rounds += 1;
    }
    assert!(node.status("tor").is_some_and(|s| s.state == State::Established && s.established_count == 1));
    // The slow one is taken back, and told everything anew.
    slow.stream = None;
    slow.accept().await;
    slow.peer_up().await;
    assert!(!prefixes(&slow.update().await).1.is_empty());
    assert_eq!(node.speaker.stations().borrow()[&slow.address()].connections, 2);
    node.speaker.shutdown(Shutdown::Restart).await.expect("runs");
    let updates = timeout(PATIENCE, read).await.expect("in time").expect("reads");
    assert!(updates > rounds, "{updates} UPDATEs in {rounds} rounds");
}
