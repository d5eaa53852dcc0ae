//! Two connections at once (RFC 4271 §6.8), in whatever order things happen.

use proptest::prelude::*;

use super::*;

/// Two ends that dial each other.
fn both_dial(change: impl Fn(usize, &mut PeerConfig)) -> Pair {
    let mut pair = Pair::new(change);
    for n in [0, 1] {
        pair.outputs(n);
    }
    for n in [0, 1] {
        assert!(pair.connect(n), "both dial before either hears of the other");
    }
    assert_eq!([pair.ends[0].wires.len(), pair.ends[1].wires.len()], [2; 2]);
    pair
}

/// One session is left; whether each end dialled it.
fn dialled(pair: &Pair) -> [bool; 2] {
    assert_eq!([pair.status(0).state, pair.status(1).state], [State::Established; 2]);
    assert_eq!([pair.status(0).established_count, pair.status(1).established_count], [1; 2]);
    assert_eq!([pair.ends[0].wires.len(), pair.ends[1].wires.len()], [1; 2]);
    [0, 1].map(|n| pair.ends[n].speaker.peers_for_test().connections[0].direction == Direction::Outgoing)
}

#[test]
fn connection_of_the_higher_identifier_stays() {
    let mut pair = both_dial(|_, _| {});
    pair.settle();
    assert_eq!(dialled(&pair), [false, true], "10.0.0.2 is higher, so what it dialled stays");
}

#[test]
fn connection_of_the_higher_as_stays_where_the_identifiers_are_equal() {
    let mut pair = both_dial(|_, peer| peer.router_id = RouterId::new([9, 9, 9, 9].into()).ok());
    pair.settle();
    assert_eq!(dialled(&pair), [true, false], "AS 64601 is higher than AS 64500 (RFC 6286 §2.3)");
}

#[test]
fn equal_identifiers_within_an_as_are_refused_and_said_so() {
    let mut pair = Pair::new(|n, peer| {
        peer.passive = n == 1;
        peer.router_id = RouterId::new([9, 9, 9, 9].into()).ok();
        (peer.local_as, peer.peer_as) = (Asn::new(64500).expect("valid"), PeerAs::Internal);
    });
    pair.pass(SECOND);
    let words = [0, 1].map(|n| pair.status(n).last_error.expect("told"));
    for words in words {
        assert!(words.contains("Bad BGP Identifier") && words.contains("9.9.9.9"), "{words}");
    }
}

#[test]
fn established_connection_stays_whatever_the_identifiers_say() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    let dialled = PeerConfig { connect_retry: SECOND, ..config([10, 0, 0, 1], 64500) };
    let now = pair.now;
    pair.ends[1].speaker.set_peers(now, [(PeerId("p".into()), dialled)].into());
    pair.pass(30 * SECOND);
    assert_eq!([pair.status(0).established_count, pair.status(1).established_count], [1; 2]);
    let endpoint = Endpoint::new(([10, 0, 0, 1], 179).into(), ([10, 0, 0, 2], 50001).into());
    assert_eq!(pair.ends[0].speaker.accept(pair.now, endpoint), None);
}

#[test]
fn connection_that_says_nothing_gives_way_to_a_newer_one() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    let endpoint = Endpoint::new(([10, 0, 0, 2], 179).into(), ([10, 0, 0, 1], 50001).into());
    let silent = pair.ends[1].speaker.accept(pair.now, endpoint).expect("taken");
    pair.pass(SECOND);
    assert_eq!([pair.status(0).state, pair.status(1).state], [State::Established; 2]);
    assert!(pair.ends[1].speaker.config(silent).is_none(), "the silent one is closed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each octet is one small step of one end: carry out an output, make a connection, or move octets.
    #[test]
    fn one_session_is_left_in_whatever_order_both_ends_act(
        steps in prop::collection::vec(0u8..6, 0..40),
        [equal, graceful] in any::<[bool; 2]>(),
    ) {
        let mut pair = Pair::new(|_, peer| {
            peer.router_id = RouterId::new([9, 9, 9, 9].into()).ok().filter(|_| equal);
            peer.graceful_restart = Some(SECOND).filter(|_| graceful);
        });
        for step in steps {
            let n = usize::from(step & 1);
            match step >> 1 {
                0 => _ = pair.outputs(n),
                1 => _ = pair.connect(n),
                _ => _ = pair.carry(n),
            }
        }
        pair.pass(SECOND);
        for n in [0, 1] {
            let status = pair.status(n);
            prop_assert_eq!(status.state, State::Established);
            prop_assert!(status.counters.opens_sent <= 2, "no third connection: {:?}", status);
            // Twice where one end was Established already when the other decided for the later connection.
            prop_assert!(status.established_count <= 2, "{:?}", status);
            prop_assert_eq!(pair.ends[n].wires.len(), 1);
        }
    }
}
