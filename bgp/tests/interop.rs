//! The speaker against BIRD, FRR and GoBGP, each in its own namespace. Needs root and the routers.
#![cfg(feature = "tokio")]

mod support;

use std::time::{Duration, Instant};

use ironcast_bgp::speaker::{Md5Key, PeerConfig, Shutdown, SpeakerConfig, State, Ttl};
use support::{
    Ours, config, exports, route,
    router::{Kind, Router, Setup},
    space, start,
};

const V4: &str = "192.0.2.1/32";
const V4_TOO: &str = "198.51.100.0/24";
const V6: &str = "2001:db8::1/128";
const ALL: [&str; 3] = [V4, V4_TOO, V6];

/// Runs the node's side inside its namespace, with one thread of its own.
fn inside<F: Future<Output = ()>>(node: &space::Space, body: impl FnOnce() -> F + Send) {
    node.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(body());
    });
}

/// A node that announces one route of each family to the router.
async fn node(peer: PeerConfig, restarted: bool) -> Ours {
    let node = start(SpeakerConfig { restarted, ..config([10, 77, 9, 2]) }, None);
    node.speaker.set_exports(exports("tor", vec![route(V4), route(V4_TOO), route(V6)])).await.expect("runs");
    node.peers([("tor", peer)]).await;
    node
}

fn routes_come_and_go(kind: Kind, setup: Setup, change: impl FnOnce(&mut PeerConfig)) {
    if space::skipped(kind.programs()) {
        return;
    }
    let (space, router) = Router::new(kind, setup);
    let mut peer = router.peer();
    change(&mut peer);
    inside(&space, async || {
        let node = node(peer, false).await;
        node.until("tor", |p| p.state == State::Established && p.advertised.len() == 3).await;
        for prefix in ALL {
            router.until(prefix, true).await;
        }
        node.speaker.set_exports(exports("tor", vec![route(V4_TOO)])).await.expect("runs");
        router.until(V4, false).await;
        router.until(V6, false).await;
        assert!(router.has(V4_TOO), "what was not withdrawn stays");
        node.speaker.shutdown(Shutdown::Stop { reason: "test over".into() }).await.expect("runs");
        router.until(V4_TOO, false).await;
    });
}

fn password(key: &[u8]) -> Option<Md5Key> {
    Some(Md5Key(key.into()))
}

fn wrong_password_is_told(kind: Kind) {
    if space::skipped(kind.programs()) {
        return;
    }
    let (space, router) = Router::new(kind, Setup { password: Some("right"), ..Setup::default() });
    let mut peer = router.peer();
    peer.password = password(b"wrong");
    inside(&space, async || {
        let node = node(peer.clone(), false).await;
        let told = |e: &String| e.contains("password") && e.contains("does not answer");
        let status = node.until("tor", |p| p.last_error.as_ref().is_some_and(told)).await;
        assert_eq!(status.established_count, 0);
        peer.password = password(b"right");
        node.peers([("tor", peer)]).await;
        node.until("tor", |p| p.state == State::Established).await;
        router.until(V4, true).await;
    });
}

fn wrong_as_is_told(kind: Kind) {
    if space::skipped(kind.programs()) {
        return;
    }
    let (space, router) = Router::new(kind, Setup { expects: Some(64999), ..Setup::default() });
    inside(&space, async || {
        let node = node(router.peer(), false).await;
        let status = node.until("tor", |p| p.last_error.as_ref().is_some_and(|e| e.contains("Bad Peer AS"))).await;
        let words = status.last_error.expect("waited for");
        assert!(words.contains("refused") && words.contains("myASN"), "{words}");
    });
}

/// Between attempts as an operator may set it; a router that comes back is not kept waiting for so long.
const CONNECT_RETRY: Duration = Duration::from_secs(120);
/// A reset takes at most so long from its command to the next session: the router's own refusals, about 3 s, on a
/// machine where everything takes its time.
const BACK_WITHIN: Duration = Duration::from_secs(30);

fn routes_return(kind: Kind, resets: bool) {
    if space::skipped(kind.programs()) {
        return;
    }
    let (space, mut router) = Router::new(kind, Setup::default());
    inside(&space, async || {
        let node = node(PeerConfig { connect_retry: CONNECT_RETRY, ..router.peer() }, false).await;
        router.until(V4, true).await;
        if resets {
            let start = Instant::now();
            router.reset_session();
            node.until("tor", |p| p.state == State::Established && p.established_count == 2).await;
            assert!(start.elapsed() < BACK_WITHIN, "{kind:?}: back after {:?}", start.elapsed());
            router.until(V4, true).await;
        }
        let before = node.status("tor").expect("known").established_count;
        router.kill();
        node.until("tor", |p| p.state != State::Established).await;
        router.start();
        node.until("tor", |p| p.state == State::Established && p.established_count == before + 1).await;
        router.until(V4, true).await;
    });
}

fn graceful_restart_keeps_the_routes(kind: Kind) {
    if space::skipped(kind.programs()) {
        return;
    }
    let (space, router) = Router::new(kind, Setup::default());
    let mut peer = router.peer();
    peer.graceful_restart = Some(Duration::from_secs(60));
    inside(&space, async || {
        let first = node(peer.clone(), false).await;
        for prefix in ALL {
            router.until(prefix, true).await;
        }
        let status = first.until("tor", |p| p.state == State::Established).await;
        let graceful = |c: &String| c.starts_with("graceful-restart=");
        assert!(status.capabilities.iter().any(graceful), "{:?}", status.capabilities);
        first.speaker.shutdown(Shutdown::Restart).await.expect("runs");
        let watch = async {
            loop {
                for prefix in ALL {
                    assert!(router.has(prefix), "{prefix} was lost");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let restart = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let second = node(peer, true).await;
            second.until("tor", |p| p.state == State::Established && p.advertised.len() == 3).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            second
        };
        let second = tokio::select! {
            () = watch => unreachable!("it never ends"),
            second = restart => second,
        };
        second.speaker.set_exports(exports("tor", vec![route(V4_TOO)])).await.expect("runs");
        router.until(V4, false).await;
        second.speaker.shutdown(Shutdown::Stop { reason: "for good".into() }).await.expect("runs");
        router.until(V4_TOO, false).await;
    });
}

/// The same tests for every router.
macro_rules! with_routers {
    ($($router:ident: $kind:expr, $resets:expr;)*) => {$(
        mod $router {
            use super::*;

            #[test]
            fn both_families_over_ipv4_come_and_go() {
                routes_come_and_go($kind, Setup::default(), |_| {});
            }

            #[test]
            fn both_families_over_ipv6_come_and_go() {
                routes_come_and_go($kind, Setup { v6: true, ..Setup::default() }, |_| {});
            }

            #[test]
            fn routes_pass_with_the_right_password() {
                let setup = Setup { password: Some("secret"), ..Setup::default() };
                routes_come_and_go($kind, setup, |peer| peer.password = password(b"secret"));
            }

            #[test]
            fn wrong_password_is_told_and_the_right_one_helps() {
                wrong_password_is_told($kind);
            }

            #[test]
            fn wrong_as_is_told_to_the_operator() {
                wrong_as_is_told($kind);
            }

            #[test]
            fn routes_return_after_a_reset_and_after_a_restart_of_the_router() {
                routes_return($kind, $resets);
            }

            #[test]
            fn graceful_restart_of_the_node_keeps_the_routes() {
                graceful_restart_keeps_the_routes($kind);
            }
        }
    )*};
}

with_routers! {
    bird: Kind::Bird, true;
    frr: Kind::Frr, true;
    // GoBGP 3.10 closes every connection for 30 seconds after a reset of its own.
    gobgp: Kind::Gobgp, false;
}

#[test]
fn ttl_security_is_met_by_bird() {
    let setup = Setup { gtsm: true, ..Setup::default() };
    routes_come_and_go(Kind::Bird, setup, |peer| peer.ttl = Ttl::Security { hops: 1 });
}

#[test]
fn ttl_security_is_met_by_frr() {
    let setup = Setup { gtsm: true, ..Setup::default() };
    routes_come_and_go(Kind::Frr, setup, |peer| peer.ttl = Ttl::Security { hops: 1 });
}

#[test]
fn thousands_of_routes_fill_extended_messages_for_bird() {
    if space::skipped(Kind::Bird.programs()) {
        return;
    }
    let (space, router) = Router::new(Kind::Bird, Setup::default());
    inside(&space, async || {
        let many = (0..20_000u32).map(|n| route(&format!("10.200.{}.{}/32", n / 250, n % 250))).collect();
        let node = start(config([10, 77, 9, 2]), None);
        node.speaker.set_exports(exports("tor", many)).await.expect("runs");
        node.peers([("tor", router.peer())]).await;
        let status = node.until("tor", |p| p.advertised.len() == 20_000).await;
        assert!(status.capabilities.iter().any(|c| c == "extended-message"), "{:?}", status.capabilities);
        assert!(status.counters.updates_sent <= 4, "two of 65,535 octets, two ends: {:?}", status.counters);
        router.until("10.200.79.249/32", true).await;
        assert!(router.has("10.200.0.0/32"));
    });
}
