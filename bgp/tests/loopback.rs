//! Two speakers over loopback: one announces, one is the router.
#![cfg(feature = "tokio")]

mod support;

use std::{net::IpAddr, time::Duration};

use ironcast_bgp::{
    Asn, Family,
    rib::{Attributes, Route},
    speaker::{Exports, Md5Key, PeerAs, Received, Shutdown, State},
};
use support::{Ours, PATIENCE, config, peer, route, start};
use tokio::{sync::mpsc, time::timeout};

/// A router on 127.0.0.1 and a node that dials it; the node's peer is changed by `change`.
async fn pair(change: impl FnOnce(&mut ironcast_bgp::speaker::PeerConfig)) -> (Ours, mpsc::Receiver<Received>, Ours) {
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let port = support::free_port();
    let mut router = config([10, 255, 0, 1]);
    router.listen.push((loopback, port).into());
    router.dynamic.push(ironcast_bgp::speaker::DynamicPeers {
        prefix: "127.0.0.0/8".parse().expect("valid"),
        template: peer(loopback, 64500, PeerAs::External),
    });
    let (sender, received) = mpsc::channel(4);
    let router = start(router, Some(sender));
    let node = start(config([10, 0, 0, 1]), None);
    let mut towards = peer(loopback, 64601, PeerAs::Exactly(Asn::new(64500).expect("valid")));
    towards.port = port;
    towards.source = Some([127, 0, 0, 2].into()); // a next hop must not be the receiver's own address
    change(&mut towards);
    node.peers([("tor", towards)]).await;
    (router, received, node)
}

async fn next(received: &mut mpsc::Receiver<Received>) -> Received {
    timeout(PATIENCE, received.recv()).await.expect("in time").expect("the router runs")
}

fn exports(routes: Vec<Route>) -> Exports {
    support::exports("tor", routes)
}

#[tokio::test]
async fn announced_changed_and_withdrawn_routes_arrive() {
    let (_router, mut received, node) = pair(|_| {}).await;
    node.speaker.set_exports(exports(vec![route("192.0.2.1/32"), route("192.0.2.2/32")])).await.expect("runs");
    for expected in ["192.0.2.1/32", "192.0.2.2/32"] {
        let Received::Announce { route, .. } = next(&mut received).await else { panic!("no announcement") };
        assert_eq!(route.prefix.to_string(), expected);
        assert_eq!(route.attributes.next_hop, Some([127, 0, 0, 2].into()));
    }
    for expected in [Family::Ipv4Unicast, Family::Ipv6Unicast] {
        assert!(matches!(next(&mut received).await, Received::EndOfRib { family, .. } if family == expected));
    }
    let mut changed = route("192.0.2.1/32");
    changed.attributes = Attributes { med: Some(7), ..Attributes::default() }.into();
    node.speaker.set_exports(exports(vec![changed])).await.expect("runs");
    assert!(matches!(next(&mut received).await,
        Received::Withdraw { prefix, .. } if prefix.to_string() == "192.0.2.2/32"));
    assert!(matches!(next(&mut received).await,
        Received::Announce { route, .. } if route.attributes.med == Some(7)));
    node.until("tor", |p| p.advertised.len() == 1).await;
}

#[tokio::test]
async fn wrong_as_is_told_on_both_ends() {
    let (router, _received, node) = pair(|p| p.peer_as = PeerAs::Exactly(Asn::new(64999).expect("valid"))).await;
    let ours = node.until("tor", |p| p.last_error.is_some()).await;
    let words = ours.last_error.expect("waited for");
    assert!(words.contains("Bad Peer AS") && words.contains("64500") && words.contains("64999"), "{words}");
    let theirs = router.until("dynamic/127.0.0.2", |p| p.last_error.is_some()).await;
    assert!(theirs.last_error.expect("waited for").contains("Bad Peer AS"));
}

#[tokio::test]
async fn shutdown_for_good_tells_the_reason() {
    let (router, mut received, node) = pair(|_| {}).await;
    node.until("tor", |p| p.state == State::Established).await;
    node.speaker.shutdown(Shutdown::Stop { reason: "node drained".into() }).await.expect("runs");
    let theirs = router.until("dynamic/127.0.0.2", |p| p.last_error.is_some()).await;
    let words = theirs.last_error.expect("waited for");
    assert!(words.contains("Administrative Shutdown") && words.contains("node drained"), "{words}");
    loop {
        if let Received::Down { graceful, .. } = next(&mut received).await {
            assert_eq!(graceful, None);
            return;
        }
    }
}

#[tokio::test]
async fn passwords_must_agree() {
    let (_router, _received, node) = pair(|p| p.password = Some(Md5Key(b"secret".as_slice().into()))).await;
    let status = node.until("tor", |p| p.last_error.is_some()).await;
    assert!(status.last_error.expect("waited for").contains("password"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(node.status("tor").expect("known").established_count, 0);
}
