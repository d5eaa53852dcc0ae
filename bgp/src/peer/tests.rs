//! Two speakers under a virtual clock: a network of octets that the test moves by hand.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    Asn, Family, HoldTime,
    rib::{Attributes, Route},
    speaker::{AddPath, Exports, PeerAs, Role, Shutdown, Speaker, SpeakerConfig},
    wire::message,
};

mod anything;
mod collision;
mod paths;
mod reconfigure;
mod restart;
mod states;

const SECOND: Duration = Duration::from_secs(1);

fn config(address: [u8; 4], local_as: u32) -> PeerConfig {
    let local_as = Asn::new(local_as).expect("valid");
    PeerConfig {
        hold_time: HoldTime::new(9).expect("valid"),
        connect_retry: 30 * SECOND,
        ..PeerConfig::new(address.into(), local_as, PeerAs::External)
    }
}

/// One end: a speaker with one peer named `p`.
struct Side {
    speaker: Speaker,
    address: [u8; 4],
    /// Connections that the other end knows under another number, with octets on their way there.
    wires: BTreeMap<ConnectionId, (ConnectionId, Vec<u8>)>,
    dialled: Vec<ConnectionId>,
    /// Its address on the link where that has no IPv4.
    v6: Option<std::net::Ipv6Addr>,
    /// Every octet that it sent.
    sent: Vec<u8>,
    /// What it handed on.
    received: Vec<Received>,
}

/// A speaker of end `n` with its peer.
fn speaker(now: Instant, n: usize, deliver: bool, restarted: bool, change: impl Fn(&mut PeerConfig)) -> Speaker {
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
    let router_id = RouterId::new(addresses[n].into()).expect("valid");
    let speaker = SpeakerConfig { router_id, listen: Vec::new(), restarted, dynamic: Vec::new() };
    let mut speaker = Speaker::new(&speaker, deliver, n as u64);
    let mut peer = config(addresses[1 - n], [64601, 64500][n]);
    change(&mut peer);
    speaker.set_peers(now, [(PeerId("p".into()), peer)].into());
    speaker
}

struct Pair {
    now: Instant,
    ends: [Side; 2],
    /// Whether anything is carried at all.
    cut: bool,
}

impl Pair {
    /// Two ends, `10.0.0.1` in AS 64601 and `10.0.0.2` in AS 64500; the change is made to both configurations.
    fn new(change: impl Fn(usize, &mut PeerConfig)) -> Self {
        Self::between([false, false], change)
    }

    /// Like [`Pair::new`], with the router role for some.
    fn between(deliver: [bool; 2], change: impl Fn(usize, &mut PeerConfig)) -> Self {
        let now = Instant::now();
        let end = |n: usize| {
            let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
            let speaker = speaker(now, n, deliver[n], false, |peer| change(n, peer));
            Side {
                speaker,
                address: addresses[n],
                wires: BTreeMap::new(),
                dialled: Vec::new(),
                v6: None,
                sent: Vec::new(),
                received: Vec::new(),
            }
        };
        Self { now, ends: [end(0), end(1)], cut: false }
    }

    fn export(&mut self, n: usize, routes: &[&str]) {
        let route = |p: &&str| Route { prefix: p.parse().expect("valid"), attributes: Arc::default() };
        let routes = routes.iter().map(route).collect();
        self.ends[n].speaker.set_exports(self.now, [(PeerId("p".into()), routes)].into());
    }

    fn status(&self, n: usize) -> PeerStatus {
        self.ends[n].speaker.status().remove(&PeerId("p".into())).expect("there is one peer")
    }

    /// Carries out what a speaker says.
    fn outputs(&mut self, n: usize) -> bool {
        let mut any = false;
        while let Some(output) = self.ends[n].speaker.poll() {
            any = true;
            match output {
                Output::Connect { id, .. } => self.ends[n].dialled.push(id),
                Output::Close { id, farewell } => {
                    self.ends[n].dialled.retain(|dialled| *dialled != id);
                    let Some((other, mut octets)) = self.ends[n].wires.remove(&id) else { continue };
                    octets.extend(farewell.into_iter().flatten());
                    let there = &mut self.ends[1 - n];
                    there.wires.remove(&other);
                    if !self.cut {
                        there.speaker.receive(self.now, other, &octets);
                        there.speaker.closed(self.now, other, "closed");
                    }
                }
                Output::Received(received) => self.ends[n].received.push(received),
                Output::Ttl { .. } => {}
            }
        }
        any
    }

    /// Makes the connection of the oldest dial, if there is one.
    fn connect(&mut self, n: usize) -> bool {
        let (now, cut) = (self.now, self.cut);
        let Some(id) = (!self.ends[n].dialled.is_empty()).then(|| self.ends[n].dialled.remove(0)) else { return false };
        let from = (self.ends[n].address, 50000 + n as u16).into();
        let to = (self.ends[1 - n].address, 179).into();
        let accepted = (!cut).then(|| self.ends[1 - n].speaker.accept(now, Endpoint::new(to, from))).flatten();
        match accepted {
            Some(other) => {
                let mut endpoint = Endpoint::new(from, to);
                if let Some(v6) = self.ends[n].v6 {
                    (endpoint.next_hop4, endpoint.link_local) = (None, Some(v6));
                }
                self.ends[n].speaker.connected(now, id, endpoint);
                self.ends[n].wires.insert(id, (other, Vec::new()));
                self.ends[1 - n].wires.insert(other, (id, Vec::new()));
            }
            None => self.ends[n].speaker.unreached(now, id, &Unreached::Refused),
        }
        true
    }

    /// Moves one round of octets from one end to the other.
    fn carry(&mut self, n: usize) -> bool {
        let mut any = false;
        let ids: Vec<_> = self.ends[n].wires.iter().map(|(id, (other, _))| (*id, *other)).collect();
        for (id, other) in ids {
            while let Some(octets) = self.ends[n].speaker.transmit(self.now, id) {
                any = true;
                self.ends[n].sent.extend_from_slice(&octets);
                if let Some((_, waiting)) = self.ends[n].wires.get_mut(&id) {
                    waiting.extend_from_slice(&octets);
                }
            }
            let Some((_, waiting)) = self.ends[n].wires.get_mut(&id).filter(|_| !self.cut) else { continue };
            let octets = std::mem::take(waiting);
            let taken = self.ends[1 - n].speaker.receive(self.now, other, &octets);
            if let Some((_, waiting)) = self.ends[n].wires.get_mut(&id) {
                waiting.extend_from_slice(&octets[taken..]);
            }
        }
        any
    }

    /// Everything that happens now, until nothing does.
    fn settle(&mut self) {
        for _ in 0..100 {
            let mut any = false;
            for n in [0, 1] {
                any |= self.outputs(n);
                any |= self.connect(n);
                any |= self.carry(n);
            }
            if !any {
                return;
            }
        }
        panic!("never quiet");
    }

    /// Lets time pass, stopping at every deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(next) = self.ends.iter().filter_map(|e| e.speaker.deadline()).min().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            for end in &mut self.ends {
                end.speaker.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }
}

#[test]
fn one_end_dials_and_both_are_established_at_once() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(Duration::ZERO);
    assert_eq!([pair.status(0).state, pair.status(1).state], [State::Established; 2]);
}

#[test]
fn session_stays_up_for_an_hour_of_keepalives() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(3600 * SECOND);
    assert_eq!([pair.status(0).established_count, pair.status(1).established_count], [1; 2]);
    let sent = pair.status(0).counters.keepalives_sent;
    assert!((1200..1700).contains(&sent), "{sent} in an hour of 3 seconds less jitter each");
}

#[test]
fn silent_peer_is_declared_down_after_the_hold_time_and_comes_back() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(20 * SECOND);
    pair.cut = true;
    pair.pass(10 * SECOND);
    for n in [0, 1] {
        assert_ne!(pair.status(n).state, State::Established);
        assert!(pair.status(n).last_error.is_some());
    }
    pair.cut = false;
    pair.pass(60 * SECOND);
    assert_eq!(pair.status(0).state, State::Established);
}

#[test]
fn nothing_is_said_before_the_first_exports_and_everything_after() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    assert_eq!(pair.status(1).counters.updates_received, 0, "an End-of-RIB would drop the routes of a restart");
    pair.export(0, &["192.0.2.1/32", "192.0.2.2/32"]);
    pair.pass(SECOND);
    assert_eq!(pair.status(0).advertised.len(), 2);
    let counters = pair.status(1).counters;
    assert_eq!((counters.prefixes_received, counters.updates_received), (2, 2), "one UPDATE and the End-of-RIB");
    pair.export(0, &["192.0.2.2/32"]);
    pair.pass(SECOND);
    assert_eq!(pair.status(0).advertised.len(), 1);
    assert_eq!(pair.status(1).counters.prefixes_received, 2, "a withdrawal announces nothing");
}

#[test]
fn refusing_router_is_not_hammered() {
    let mut pair = Pair::new(|n, peer| {
        peer.passive = n == 1;
        if n == 1 {
            peer.peer_as = PeerAs::Exactly(Asn::new(65000).expect("valid"));
        }
    });
    pair.pass(3600 * SECOND);
    let opens = pair.status(0).counters.opens_sent;
    assert!((10..60).contains(&opens), "{opens} attempts in an hour");
}

#[test]
fn late_events_of_an_old_connection_find_nobody() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    let old = *pair.ends[0].wires.keys().next().expect("one");
    pair.ends[0].speaker.closed(pair.now, old, "reset");
    pair.pass(SECOND);
    pair.ends[0].speaker.closed(pair.now, old, "reset");
    pair.ends[0].speaker.unreached(pair.now, old, &Unreached::Refused);
    assert_eq!(pair.ends[0].speaker.receive(pair.now, old, &[0; 19]), 0);
    assert_eq!(pair.ends[0].speaker.transmit(pair.now, old), None);
    pair.pass(SECOND);
    assert_eq!(pair.status(0).counters.opens_sent, 2);
}

/// Lets a peer ask for a family again.
fn ask_again(pair: &mut Pair) {
    let id = *pair.ends[0].wires.keys().next().expect("one");
    let mut request = Vec::new();
    message::encode_refresh(message::Refresh::Request(Family::Ipv4Unicast), &mut request);
    assert_eq!(pair.ends[0].speaker.receive(pair.now, id, &request), request.len());
}

#[test]
fn router_that_asks_before_it_was_told_anything_hears_it_once_and_unmarked() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    ask_again(&mut pair);
    pair.export(0, &["192.0.2.1/32"]);
    pair.pass(SECOND);
    let counters = pair.status(1).counters;
    assert_eq!((counters.prefixes_received, counters.updates_received, counters.refreshes_received), (1, 2, 0));
}

#[test]
fn router_that_asks_again_hears_everything_again() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.export(0, &["192.0.2.1/32", "192.0.2.2/32"]);
    pair.pass(SECOND);
    ask_again(&mut pair);
    pair.pass(SECOND);
    let counters = pair.status(1).counters;
    assert_eq!(counters.prefixes_received, 4);
    assert_eq!(counters.refreshes_received, 2, "the marks of RFC 7313 before and after");
    assert_eq!(pair.status(0).advertised.len(), 2);
}

#[test]
fn words_of_a_shutdown_stand_in_the_last_error_of_the_other_end() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    let reason = format!("maintenance until 14:00\r\n{}", "ä".repeat(200));
    let now = pair.now;
    pair.ends[1].speaker.shutdown(now, &Shutdown::Stop { reason });
    pair.pass(Duration::ZERO);
    let words = pair.status(0).last_error.expect("told");
    assert!(words.contains("Administrative Shutdown (\"maintenance until 14:00ää"), "{words}");
    assert!(words.len() < 400 && !words.contains('\n'), "{words}");
}

#[test]
fn what_a_provider_announces_is_for_customers_only() {
    let mut pair = Pair::new(|n, peer| {
        peer.passive = n == 1;
        peer.role = Some([Role::Provider, Role::Customer][n]);
    });
    pair.export(0, &["192.0.2.1/32"]);
    pair.export(1, &["192.0.2.2/32"]);
    pair.pass(SECOND);
    assert!(pair.status(0).capabilities.contains(&"role=provider".to_string()));
    assert_eq!(pair.status(0).counters.prefixes_leaked, 0, "a customer marks nothing");
    let marked = pair.ends[0].sent.windows(7).any(|w| w == [0xC0, 35, 4, 0, 0, 0xFC, 0x59]);
    assert!(marked, "ONLY_TO_CUSTOMER with AS 64601");
    assert!(!pair.ends[1].sent.windows(3).any(|w| w == [0xC0, 35, 4]));
}

#[test]
fn several_paths_to_one_prefix_arrive_with_their_identifiers() {
    let mut pair = Pair::between([false, true], |n, peer| {
        peer.passive = n == 1;
        peer.add_path = AddPath { send: n == 0, receive: n == 1 };
    });
    let route = |last: u8| Route {
        prefix: "192.0.2.1/32".parse().expect("valid"),
        attributes: Arc::new(Attributes { next_hop: Some([192, 0, 2, last].into()), ..Attributes::default() }),
    };
    let mut export = |routes: &[Route]| {
        let exports = [(PeerId("p".into()), routes.iter().cloned().collect())].into();
        let now = pair.now;
        pair.ends[0].speaker.set_exports(now, exports);
        pair.pass(SECOND);
        let received = std::mem::take(&mut pair.ends[1].received);
        let word = |received| match received {
            Received::Announce { route, path, .. } => Some((route.attributes.next_hop, path)),
            Received::Withdraw { path, .. } => Some((None, path)),
            _ => None,
        };
        received.into_iter().filter_map(word).collect::<Vec<_>>()
    };
    let both = export(&[route(8), route(9)]);
    let hops: Vec<_> = both.iter().map(|(hop, _)| hop.expect("announced").to_string()).collect();
    assert_eq!(hops, ["192.0.2.8", "192.0.2.9"]);
    assert_ne!(both[0].1, both[1].1);
    let one = export(&[route(8)]);
    assert_eq!(one, [(None, both[1].1)], "the other path alone goes");
}

#[test]
fn ipv4_routes_go_over_an_ipv6_link_without_ipv4_where_both_ends_can() {
    for (can, expected) in [([true, true], 1), ([true, false], 0)] {
        let mut pair = Pair::between([false, true], |n, peer| {
            peer.passive = n == 1;
            peer.extended_next_hop = can[n];
        });
        pair.ends[0].v6 = Some("fe80::1".parse().expect("valid"));
        pair.export(0, &["192.0.2.1/32"]);
        pair.pass(SECOND);
        let received = std::mem::take(&mut pair.ends[1].received).into_iter();
        let hops: Vec<_> = received
            .filter_map(|r| match r {
                Received::Announce { route, .. } => route.attributes.next_hop,
                _ => None,
            })
            .collect();
        assert_eq!(hops.len(), expected, "{can:?}");
        assert!(hops.iter().all(|hop| hop.to_string() == "fe80::1"), "{hops:?}");
        let words = pair.status(0).last_error.unwrap_or_default();
        assert_eq!(words.contains("no address of that family"), expected == 0, "{words}");
    }
}

#[test]
fn as_that_is_internal_or_external_is_learned_and_checked() {
    let up = |ours: PeerAs, theirs: u32| {
        let mut pair = Pair::new(|n, peer| {
            peer.passive = n == 1;
            (peer.local_as, peer.peer_as) = match n {
                0 => (Asn::new(64601).expect("valid"), ours),
                _ => (Asn::new(theirs).expect("valid"), PeerAs::Exactly(Asn::new(64601).expect("valid"))),
            };
        });
        pair.pass(SECOND);
        let status = pair.status(0);
        (status.remote_as.map(Asn::value), status.last_error.unwrap_or_default())
    };
    assert_eq!(up(PeerAs::External, 65000), (Some(65000), String::new()));
    assert_eq!(up(PeerAs::External, 4_200_000_000), (Some(4_200_000_000), String::new()));
    assert_eq!(up(PeerAs::Internal, 64601), (Some(64601), String::new()));
    let (learned, words) = up(PeerAs::External, 64601);
    assert!(learned.is_none() && words.contains("which is ours, but the peer is external"), "{words}");
    let (learned, words) = up(PeerAs::Internal, 65000);
    assert!(learned.is_none() && words.contains("shows AS 65000, but the peer is internal"), "{words}");
}

#[test]
fn router_that_resets_is_back_within_ten_milliseconds_and_one_that_refuses_soon_after_it_stops() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    for count in 2..5 {
        let (now, id) = (pair.now, *pair.ends[0].wires.keys().next().expect("one"));
        pair.ends[0].speaker.closed(now, id, "reset");
        pair.pass(Duration::from_millis(10));
        assert_eq!((pair.status(0).state, pair.status(0).established_count), (State::Established, count));
    }
    let (now, (id, (other, _))) = (pair.now, pair.ends[0].wires.pop_first().expect("one"));
    pair.cut = true;
    pair.ends[0].speaker.closed(now, id, "reset");
    pair.ends[1].speaker.closed(now, other, "restarted");
    pair.pass(Duration::from_millis(3200)); // FRR refuses for so long after a session
    pair.cut = false;
    pair.pass(Duration::from_millis(251));
    assert_eq!(pair.status(0).state, State::Established);
}
