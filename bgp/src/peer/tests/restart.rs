//! A router keeps what a restarting node announced (RFC 4724, 8538, 9494), and counts what comes.

use super::*;
use crate::{Community, speaker::MaximumPrefixes, wire::update};

/// A node that dials a router, both with graceful restart; the router hands on what it hears.
fn node_and_router(change: impl Fn(usize, &mut PeerConfig)) -> Pair {
    let mut pair = Pair::between([false, true], |n, peer| graceful(n, peer, &change));
    pair.export(0, &["192.0.2.1/32", "192.0.2.2/32"]);
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["+192.0.2.1/32", "+192.0.2.2/32", "end"]);
    pair
}

fn graceful(n: usize, peer: &mut PeerConfig, change: impl Fn(usize, &mut PeerConfig)) {
    peer.passive = n == 1;
    peer.graceful_restart = Some(30 * SECOND);
    change(n, peer);
}

/// What the router was told since the last call: + and - and the ends.
fn heard(pair: &mut Pair) -> Vec<String> {
    let word = |received| match received {
        Received::Announce { route, .. } if route.attributes.communities.contains(&Community::LLGR_STALE) => {
            format!("stale {}", route.prefix)
        }
        Received::Announce { route, .. } => format!("+{}", route.prefix),
        Received::Withdraw { prefix, .. } => format!("-{prefix}"),
        Received::EndOfRib { .. } => "end".into(),
        Received::Down { graceful, .. } => format!("down {}", graceful.map_or(0, |time| time.as_secs())),
    };
    std::mem::take(&mut pair.ends[1].received).into_iter().map(word).collect()
}

/// Kills the node; the router's kernel tells at once.
fn kill(pair: &mut Pair) {
    let now = pair.now;
    for (_, (other, _)) in std::mem::take(&mut pair.ends[0].wires) {
        pair.ends[1].wires.clear();
        pair.ends[1].speaker.closed(now, other, "reset");
    }
    pair.ends[0].speaker = speaker(now, 0, false, false, |peer| peer.passive = true);
    while pair.ends[0].speaker.poll().is_some() {}
    pair.outputs(1);
}

/// The node is back.
fn start(pair: &mut Pair, change: impl Fn(&mut PeerConfig)) {
    pair.ends[0].sent.clear();
    pair.ends[0].speaker = speaker(pair.now, 0, false, true, |peer| graceful(0, peer, |_, peer| change(peer)));
}

#[test]
fn restarting_node_loses_only_what_it_does_not_announce_again() {
    let mut pair = node_and_router(|_, _| {});
    kill(&mut pair);
    assert_eq!(heard(&mut pair), ["down 30"]);
    pair.pass(SECOND);
    start(&mut pair, |_| {});
    pair.pass(SECOND);
    assert_eq!(pair.status(1).state, State::Established);
    assert!(pair.ends[0].sent.windows(4).any(|w| w == [64, 6, 0xC0, 30]), "R and N in the first OPEN");
    assert_eq!(heard(&mut pair), [""; 0], "nothing is said before the node's exports are known");
    pair.export(0, &["192.0.2.2/32"]);
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["+192.0.2.2/32", "-192.0.2.1/32", "end"]);
    pair.pass(600 * SECOND);
    assert_eq!(heard(&mut pair), [""; 0]);
}

#[test]
fn second_session_of_a_process_asks_nobody_to_wait() {
    let mut pair = node_and_router(|_, _| {});
    kill(&mut pair);
    start(&mut pair, |_| {});
    pair.pass(SECOND);
    pair.ends[0].sent.clear();
    let now = pair.now;
    let id = *pair.ends[1].wires.keys().next().expect("one");
    pair.ends[1].speaker.closed(now, id, "reset");
    pair.pass(SECOND);
    assert_eq!(pair.status(0).established_count, 2);
    assert!(pair.ends[0].sent.windows(4).any(|w| w == [64, 6, 0x40, 30]), "N alone");
}

#[test]
fn node_that_does_not_come_back_loses_its_routes_after_its_restart_time() {
    let mut pair = node_and_router(|_, _| {});
    kill(&mut pair);
    pair.pass(29 * SECOND);
    assert_eq!(heard(&mut pair), ["down 30"]);
    pair.pass(2 * SECOND);
    assert_eq!(heard(&mut pair), ["-192.0.2.1/32", "-192.0.2.2/32"]);
}

#[test]
fn node_that_comes_back_without_graceful_restart_loses_its_routes_at_once() {
    let mut pair = node_and_router(|_, _| {});
    kill(&mut pair);
    start(&mut pair, |peer| peer.graceful_restart = None);
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["down 30", "-192.0.2.1/32", "-192.0.2.2/32"]);
}

#[test]
fn node_that_restarts_twice_loses_what_it_had_not_said_again() {
    let mut pair = node_and_router(|_, _| {});
    for _ in 0..2 {
        kill(&mut pair);
        start(&mut pair, |_| {});
        pair.pass(SECOND);
    }
    assert_eq!(heard(&mut pair), ["down 30", "down 30", "-192.0.2.1/32", "-192.0.2.2/32"]);
}

#[test]
fn planned_restart_keeps_the_routes_and_a_stop_does_not() {
    let mut pair = node_and_router(|_, _| {});
    let now = pair.now;
    pair.ends[0].speaker.shutdown(now, &Shutdown::Restart);
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["down 30"]);

    let mut pair = node_and_router(|_, _| {});
    let now = pair.now;
    pair.ends[0].speaker.shutdown(now, &Shutdown::Stop { reason: "drained".into() });
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["down 0"]);
    let words = pair.status(1).last_error.expect("told");
    assert!(words.contains("Hard Reset (Cease / Administrative Shutdown (\"drained\"))"), "{words}");
}

/// RFC 4724 §4.2: the router has not noticed yet that the node was away.
#[test]
fn node_that_is_back_before_its_end_is_noticed_keeps_its_routes_and_a_mere_connection_ends_nothing() {
    let mut pair = node_and_router(|_, _| {});
    let endpoint = Endpoint::new(([10, 0, 0, 2], 179).into(), ([10, 0, 0, 1], 50009).into());
    assert_eq!(pair.ends[1].speaker.accept(pair.now, endpoint), None, "so soon it is a collision");
    pair.pass(5 * SECOND);
    let now = pair.now;
    let stranger = pair.ends[1].speaker.accept(now, endpoint).expect("it might be the node");
    pair.pass(SECOND);
    assert_eq!((heard(&mut pair), pair.status(1).state), (vec![], State::Established));
    assert!(pair.ends[1].speaker.config(stranger).is_some());

    pair.ends[0].wires.clear();
    pair.ends[1].wires.clear();
    start(&mut pair, |_| {});
    pair.export(0, &["192.0.2.1/32"]);
    pair.pass(SECOND);
    assert_eq!(pair.status(1).established_count, 2);
    assert_eq!(heard(&mut pair), ["down 30", "+192.0.2.1/32", "-192.0.2.2/32", "end"]);
    assert!(pair.ends[1].speaker.config(stranger).is_none(), "the newer connection took its place");
}

/// RFC 8538 §4: with the N bit on both ends a NOTIFICATION of the hold timer is no reason to drop the routes.
#[test]
fn frozen_node_keeps_its_routes_for_its_restart_time_after_the_hold_time() {
    let mut pair = node_and_router(|_, _| {});
    pair.cut = true;
    pair.pass(10 * SECOND);
    assert!(pair.status(1).last_error.expect("told").contains("Hold Timer Expired"));
    assert_eq!(heard(&mut pair), ["down 30"]);
    pair.pass(31 * SECOND);
    assert_eq!(heard(&mut pair), ["-192.0.2.1/32", "-192.0.2.2/32"]);
}

#[test]
fn removed_peer_takes_its_stale_routes_with_it() {
    let mut pair = node_and_router(|_, _| {});
    kill(&mut pair);
    let now = pair.now;
    pair.ends[1].speaker.set_peers(now, BTreeMap::new());
    pair.outputs(1);
    assert_eq!(heard(&mut pair), ["down 30", "down 0"]);
}

#[test]
fn long_lived_routes_stay_as_a_last_resort_after_the_restart_time() {
    let mut pair = node_and_router(|_, peer| peer.long_lived = Some(300 * SECOND));
    assert!(pair.status(1).capabilities.contains(&"long-lived-graceful-restart=ipv4-unicast:300s".to_string()));
    kill(&mut pair);
    pair.pass(31 * SECOND);
    assert_eq!(heard(&mut pair), ["down 30", "stale 192.0.2.1/32", "stale 192.0.2.2/32"]);
    start(&mut pair, |peer| peer.long_lived = Some(300 * SECOND));
    pair.export(0, &["192.0.2.1/32"]);
    pair.pass(SECOND);
    assert_eq!(heard(&mut pair), ["+192.0.2.1/32", "-192.0.2.2/32", "end"]);
    kill(&mut pair);
    pair.pass(329 * SECOND);
    assert_eq!(heard(&mut pair), ["down 30", "stale 192.0.2.1/32"]);
    pair.pass(2 * SECOND);
    assert_eq!(heard(&mut pair), ["-192.0.2.1/32"]);
}

#[test]
fn long_lived_restart_without_graceful_restart_is_nothing() {
    let pair = Pair::between([false, true], |n, peer| {
        graceful(n, peer, |_, peer| peer.long_lived = Some(300 * SECOND));
        peer.graceful_restart = None;
    });
    let mut pair = pair;
    pair.pass(SECOND);
    assert!(pair.status(1).capabilities.iter().all(|c| !c.contains("restart")));
}

/// Lets the router hear octets that no speaker of ours says.
fn say(pair: &mut Pair, octets: &[u8]) {
    let id = *pair.ends[1].wires.keys().next().expect("one");
    let now = pair.now;
    assert_eq!(pair.ends[1].speaker.receive(now, id, octets), octets.len());
    pair.outputs(1);
}

fn refresh(refresh: message::Refresh) -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_refresh(refresh, &mut out);
    out
}

#[test]
fn refresh_between_its_marks_drops_what_it_does_not_say_and_one_mark_alone_says_nothing() {
    let mut pair = node_and_router(|_, _| {});
    let (begin, end) = (message::Refresh::Begin(Family::Ipv4Unicast), message::Refresh::End(Family::Ipv4Unicast));
    say(&mut pair, &refresh(end));
    assert_eq!(heard(&mut pair), [""; 0]);
    say(&mut pair, &refresh(begin));
    let list = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59, 0x40, 3, 4, 10, 0, 0, 1];
    let mut out = Vec::new();
    let list = |out: &mut Vec<u8>| out.extend_from_slice(&list);
    update::encode_announce(list, &["192.0.2.2/32".parse::<ipnet::Ipv4Net>().expect("valid")], message::MAX, &mut out);
    say(&mut pair, &out);
    say(&mut pair, &refresh(end));
    assert_eq!(heard(&mut pair), ["+192.0.2.2/32", "-192.0.2.1/32"]);
    say(&mut pair, &refresh(begin));
    pair.pass(361 * SECOND);
    assert_eq!(heard(&mut pair), ["-192.0.2.2/32"], "an end that never comes");
}

fn limited(deliver: bool, warning_only: bool) -> Pair {
    let mut pair = Pair::between([false, deliver], |n, peer| {
        peer.passive = n == 1;
        peer.maximum_prefixes = (n == 1).then_some(MaximumPrefixes { limit: 2, warning_only });
    });
    pair.export(0, &["192.0.2.1/32", "192.0.2.2/32"]);
    pair.pass(SECOND);
    pair.export(0, &["192.0.2.2/32", "192.0.2.3/32"]);
    pair.pass(SECOND);
    assert_eq!(pair.status(1).state, State::Established, "a withdrawn one makes room");
    assert_eq!(pair.status(1).last_error, None);
    pair.export(0, &["192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32"]);
    pair
}

#[test]
fn router_that_announces_too_much_is_told_the_limit_and_not_asked_again_at_once() {
    for deliver in [false, true] {
        let mut pair = limited(deliver, false);
        pair.pass(Duration::ZERO);
        assert_ne!(pair.status(1).state, State::Established);
        let words = pair.status(1).last_error.expect("told");
        assert!(words.contains("it announces more than 2 prefixes of ipv4-unicast"), "{words}");
        let words = pair.status(0).last_error.expect("told");
        assert!(words.contains("(2 of ipv4-unicast); it accepts fewer prefixes than we announce"), "{words}");
        pair.pass(600 * SECOND);
        let came_up = pair.status(1).established_count;
        assert!((3..=6).contains(&came_up), "{came_up} sessions in ten minutes, whoever dials");
        assert!(heard(&mut pair).iter().all(|word| word != "+192.0.2.4/32"));
        // A changed limit is tried at once.
        let raised = Some(MaximumPrefixes { limit: 3, warning_only: false });
        let router = PeerConfig { passive: true, maximum_prefixes: raised, ..config([10, 0, 0, 1], 64500) };
        let now = pair.now;
        pair.ends[1].speaker.set_peers(now, [(PeerId("p".into()), router)].into());
        pair.pass(31 * SECOND); // the node's own connect retry
        assert_eq!(pair.status(1).state, State::Established);
    }
}

#[test]
fn warning_only_tells_the_operator_and_goes_on() {
    for deliver in [false, true] {
        let mut pair = limited(deliver, true);
        pair.pass(SECOND);
        assert_eq!((pair.status(1).state, pair.status(1).established_count), (State::Established, 1));
        assert!(pair.status(1).last_error.expect("told").contains("more than 2 prefixes"));
        assert_eq!(heard(&mut pair).contains(&"+192.0.2.4/32".to_string()), deliver);
    }
}
