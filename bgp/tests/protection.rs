//! Keys and distance: what keeps strangers out, and what is said when it keeps the right ones out.
#![cfg(feature = "tokio")]

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ironcast_bgp::speaker::{AoAlgorithm, AoKey, Md5Key, PeerAs, PeerConfig, State, Ttl};
use socket2::{Domain, Socket, Type};
use support::{config, peer, router, start};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The router as a node on 127.0.0.2 configures it.
fn towards(port: u16) -> PeerConfig {
    let mut towards = peer(LOOPBACK, 64601, PeerAs::External);
    (towards.port, towards.source) = (port, Some([127, 0, 0, 2].into()));
    towards
}

fn md5(key: &str) -> Option<Md5Key> {
    Some(Md5Key(key.as_bytes().into()))
}

fn key() -> AoKey {
    AoKey { send_id: 1, receive_id: 1, algorithm: AoAlgorithm::HmacSha1, key: b"secret".as_slice().into() }
}

/// With TCP-AO in the kernel the session comes up; without it both ends say what is missing, and no connection
/// without keys takes its place.
#[tokio::test]
async fn keys_that_the_kernel_cannot_set_leave_no_unprotected_session() {
    let (router, port, _received) = router(|template| template.ao_keys.push(key())).await;
    let node = start(config([10, 0, 0, 1]), None);
    let mut towards = peer(LOOPBACK, 64601, PeerAs::External);
    (towards.port, towards.source) = (port, Some([127, 0, 0, 2].into()));
    let plain = towards.clone();
    towards.ao_keys.push(key());
    node.peers([("tor", towards)]).await;
    let status = node.until("tor", |p| p.last_error.is_some() || p.state == State::Established).await;
    let Some(words) = status.last_error else { return };
    assert!(words.contains("TCP-AO: this kernel has no TCP-AO") && words.contains("password"), "{words}");
    node.peers([("tor", plain)]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.status("tor").expect("known").established_count, 0);
    assert!(router.status("dynamic/127.0.0.2").is_none(), "nobody was admitted");
}

#[tokio::test]
async fn passive_peer_is_blamed_where_its_keys_cannot_be_set() {
    let mut router = config([10, 255, 0, 1]);
    router.listen.push((LOOPBACK, support::free_port()).into());
    let router = start(router, None);
    let mut both = peer([127, 0, 0, 2].into(), 64500, PeerAs::External);
    both.passive = true;
    both.password = Some(Md5Key(b"secret".as_slice().into()));
    both.ao_keys.push(key());
    router.peers([("node", both)]).await;
    let status = router.until("node", |p| p.last_error.is_some()).await;
    let words = status.last_error.expect("waited for");
    assert!(words.contains("takes no connection from 127.0.0.2") && words.contains("exclude each other"), "{words}");
}

#[tokio::test]
async fn password_of_a_whole_prefix_is_asked_of_everybody_in_it() {
    let (router, port, _received) = router(|template| template.password = md5("secret")).await;
    let node = start(config([10, 0, 0, 1]), None);
    node.peers([("tor", PeerConfig { password: md5("secret"), ..towards(port) })]).await;
    node.until("tor", |p| p.state == State::Established).await;
    drop(node);
    router.until("dynamic/127.0.0.2", |p| p.state != State::Established).await;
    let other = start(config([10, 0, 0, 1]), None);
    other.peers([("tor", PeerConfig { password: md5("wrong"), ..towards(port) })]).await;
    let words = other.until("tor", |p| p.last_error.is_some()).await.last_error.expect("waited for");
    assert!(words.contains("its password is not ours"), "{words}");
    assert_eq!(router.status("dynamic/127.0.0.2").expect("known").established_count, 1);
}

#[tokio::test]
async fn password_that_changes_on_both_ends_resets_the_session_and_says_why() {
    let port = support::free_port();
    let mut listening = config([10, 255, 0, 1]);
    listening.listen.push((LOOPBACK, port).into());
    let (router, node) = (start(listening, None), start(config([10, 0, 0, 1]), None));
    let mut expected = peer([127, 0, 0, 2].into(), 64500, PeerAs::External);
    expected.passive = true;
    for (count, key) in [(1, "before"), (2, "after")] {
        router.peers([("node", PeerConfig { password: md5(key), ..expected.clone() })]).await;
        node.peers([("tor", PeerConfig { password: md5(key), ..towards(port) })]).await;
        router.until("node", |p| p.state == State::Established && p.established_count == count).await;
    }
    let words = router.status("node").expect("known").last_error.expect("told");
    assert_eq!(words, "this node ended the session to take a changed password");
}

/// Whether the listener answers somebody at the distance that the TTL says.
fn answers(port: u16, ttl: u32) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_ttl_v4(ttl).expect("set");
    let to: SocketAddr = (LOOPBACK, port).into();
    socket.connect_timeout(&to.into(), Duration::from_millis(200)).is_ok()
}

/// RFC 5082 §3: the least TTL stands on the listening socket, so that not even a SYN from further away is answered.
#[tokio::test]
async fn stranger_from_further_away_than_every_peer_is_not_even_answered() {
    let port = support::free_port();
    let mut listening = config([10, 255, 0, 1]);
    listening.listen.push((LOOPBACK, port).into());
    let router = start(listening, None);
    let near = PeerConfig { passive: true, ..peer([127, 0, 0, 2].into(), 64500, PeerAs::External) };
    let near = PeerConfig { ttl: Ttl::Security { hops: 2 }, ..near };
    router.peers([("node", near.clone())]).await;
    let node = start(config([10, 0, 0, 1]), None);
    node.peers([("tor", PeerConfig { ttl: Ttl::Security { hops: 2 }, ..towards(port) })]).await;
    node.until("tor", |p| p.state == State::Established).await;
    let asked = |ttl| tokio::task::spawn_blocking(move || answers(port, ttl));
    assert!(asked(254).await.expect("asked"), "two hops away");
    assert!(!asked(253).await.expect("asked"), "three hops away");
    let far = PeerConfig { ttl: Ttl::MultiHop(9), address: [127, 0, 0, 3].into(), ..near.clone() };
    router.peers([("node", near), ("far", far)]).await;
    router.until("far", |p| p.state == State::Active).await;
    assert!(
        asked(64).await.expect("asked"),
        "a peer without a bound opens the listener, its own connection is checked"
    );
}
