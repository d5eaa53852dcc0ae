//! Two sessions under a virtual clock, joined by a network that loses, delays and reorders.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use ironcast_bgp::bfd::{Auth, AuthKind, DetectMult, Discriminator, Interval, Output, Packet, Params, Session, State};
use proptest::prelude::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn params(millis: u64, mult: u8) -> Params {
    Params::new(Interval::new(ms(millis)).expect("valid"), DetectMult::new(mult).expect("not 0"))
}

/// A network that does the same for the same seed.
#[derive(Debug, Clone, Copy)]
struct Network {
    /// Of 100 packets.
    loss: u64,
    delay: Duration,
    /// Added to the delay at random, which reorders.
    jitter: Duration,
}

const PERFECT: Network = Network { loss: 0, delay: Duration::from_micros(100), jitter: Duration::ZERO };

struct Pair {
    now: Instant,
    ends: [Session; 2],
    network: Network,
    cut: bool,
    random: u64,
    /// When, to which end, what.
    flying: Vec<(Instant, usize, Vec<u8>)>,
    /// Every state that an end was in, in order.
    seen: [Vec<State>; 2],
    /// Packets that each end has sent.
    sent: [u64; 2],
}

impl Pair {
    fn new(params: [Params; 2], network: Network, seed: u64) -> Self {
        let now = Instant::now();
        let mut number = 0;
        let ends = params.map(|params| {
            number += 1;
            Session::new(now, Discriminator(NonZeroU32::new(number).expect("not 0")), params, seed ^ u64::from(number))
        });
        let seen = [vec![], vec![]];
        Self { now, ends, network, cut: false, random: seed | 1, flying: vec![], seen, sent: [0, 0] }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn flush(&mut self, end: usize) {
        while let Some(output) = self.ends[end].poll() {
            let Output::Transmit(datagram) = output else { continue };
            self.sent[end] += 1;
            if self.cut || self.random(100) < self.network.loss {
                continue;
            }
            let extra = Duration::from_micros(self.random(self.network.jitter.as_micros() as u64 + 1));
            self.flying.push((self.now + self.network.delay + extra, 1 - end, datagram.as_ref().to_vec()));
        }
        if self.seen[end].last() != Some(&self.ends[end].state()) {
            self.seen[end].push(self.ends[end].state());
        }
    }

    /// Runs to the next thing that happens; `false` if that is behind `until`.
    fn step(&mut self, until: Instant) -> bool {
        let timers = self.ends.iter().filter_map(Session::deadline);
        let next = timers.chain(self.flying.iter().map(|(at, ..)| *at)).min().filter(|at| *at <= until);
        let Some(next) = next else {
            self.now = until;
            return false;
        };
        let next = next.max(self.now);
        self.now = next;
        while let Some(index) = self.flying.iter().position(|(at, ..)| *at <= next) {
            let (_, end, octets) = self.flying.swap_remove(index);
            let _ = self.ends[end].handle(next, next, &Packet::decode(&octets).expect("valid"));
            self.flush(end);
        }
        for end in 0..2 {
            self.ends[end].handle_timeout(next);
            self.flush(end);
        }
        true
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            assert!(steps < 1_000_000, "time stands still");
        }
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }

    fn failures(&self) -> u64 {
        self.ends.iter().map(|end| end.status().failures).sum()
    }
}

#[test]
fn pair_comes_up_within_a_round_trip_and_agrees_on_its_pace() {
    let mut pair = Pair::new([params(10, 3), params(50, 5)], PERFECT, 1);
    pair.run(ms(2));
    assert_eq!(pair.states(), [State::Up, State::Up]);
    pair.run(ms(100));
    let [fast, slow] = [pair.ends[0].status(), pair.ends[1].status()];
    assert_eq!([fast.transmit_interval, slow.transmit_interval], [ms(50), ms(50)]);
    assert_eq!([fast.detection_time, slow.detection_time], [ms(250), ms(150)], "the other's multiplier");
    assert!(!fast.polling && !slow.polling);
}

#[test]
fn passive_pair_stays_silent_and_one_active_end_is_enough() {
    let passive = Params { passive: true, ..params(50, 3) };
    let mut silent = Pair::new([passive.clone(), passive.clone()], PERFECT, 1);
    silent.run(ms(60_000));
    assert_eq!((silent.states(), silent.sent), ([State::Down, State::Down], [0, 0]));
    let mut pair = Pair::new([params(50, 3), passive], PERFECT, 1);
    pair.run(ms(5));
    assert_eq!(pair.states(), [State::Up, State::Up]);
}

#[test]
fn cut_network_is_noticed_by_both_and_forgotten_when_it_heals() {
    let mut pair = Pair::new([params(10, 3), params(10, 3)], PERFECT, 7);
    pair.run(ms(1000));
    pair.cut = true;
    pair.run(ms(32));
    assert_eq!(pair.states(), [State::Down, State::Down]);
    assert_eq!(pair.failures(), 2);
    pair.cut = false;
    pair.run(ms(1100));
    assert_eq!(pair.states(), [State::Up, State::Up]);
}

#[test]
fn steady_pair_sends_no_more_than_its_pace() {
    let mut pair = Pair::new([params(50, 3), params(50, 3)], PERFECT, 3);
    pair.run(ms(1000));
    let before = pair.sent;
    pair.run(ms(10_000));
    for (after, before) in pair.sent.into_iter().zip(before) {
        assert!((200..=268).contains(&(after - before)), "{}", after - before);
    }
}

#[test]
fn restarted_end_is_recognised() {
    let mut pair = Pair::new([params(50, 3), params(50, 3)], PERFECT, 3);
    pair.run(ms(1000));
    let discr = Discriminator(NonZeroU32::new(77).expect("not 0"));
    pair.ends[1] = Session::new(pair.now, discr, params(50, 3), 5);
    pair.run(ms(1500));
    assert_eq!(pair.states(), [State::Up, State::Up]);
    assert_eq!(pair.ends[0].status().failures, 1);
    assert_eq!(pair.ends[0].status().remote_discr, Some(discr));
}

fn any_params() -> impl Strategy<Value = Params> {
    (1u64..300, 1u64..300, 1u8..10).prop_map(|(tx, rx, mult)| {
        let required_min_rx = Interval::new(ms(rx)).expect("valid");
        Params { required_min_rx, ..params(tx, mult) }
    })
}

fn any_network() -> impl Strategy<Value = Network> {
    (0u64..60, 0u64..2000, 0u64..5000).prop_map(|(loss, delay, jitter)| Network {
        loss,
        delay: Duration::from_micros(delay),
        jitter: Duration::from_micros(jitter),
    })
}

/// Interval and multiplier with a detection time that a delay of some milliseconds does not touch.
fn changes() -> impl Strategy<Value = Vec<(usize, u64, u64, u8)>> {
    prop::collection::vec((0usize..2, 20u64..1500, 20u64..1500, 3u8..10), 1..12)
}

/// A packet from before the change arrives behind the poll: what the property below found once.
#[test]
fn slower_pace_does_not_flap_where_packets_overtake_each_other() {
    let network = Network { loss: 0, delay: ms(1), jitter: ms(2) };
    let mut pair = Pair::new([params(100, 3), params(100, 3)], network, 13_605_201_185_792_686_438);
    pair.run(ms(3000));
    let before = pair.failures();
    let required_min_rx = Interval::new(ms(20)).expect("valid");
    pair.ends[0].set_params(pair.now, Params { required_min_rx, ..params(335, 3) });
    pair.flush(0);
    pair.run(ms(10_000));
    assert_eq!((pair.states(), pair.failures()), ([State::Up, State::Up], before));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// RFC 5880 §6.2: Up only by way of Init at one end at least, and never without having heard Init or Up.
    #[test]
    fn nobody_is_up_without_a_three_way_handshake(
        left in any_params(), right in any_params(), network in any_network(), seed: u64
    ) {
        let mut pair = Pair::new([left, right], network, seed);
        pair.run(ms(5000));
        for seen in &pair.seen {
            for step in seen.windows(2) {
                prop_assert!(
                    !matches!(step, [State::Up, State::Init] | [State::AdminDown, _] | [_, State::AdminDown]),
                    "{:?}", seen
                );
            }
        }
        let [left, right] = &pair.seen;
        if left.contains(&State::Up) || right.contains(&State::Up) {
            prop_assert!(left.contains(&State::Init) || right.contains(&State::Init));
        }
    }

    /// One direction cut: the end that still speaks but hears nothing never becomes Up.
    #[test]
    fn one_way_is_no_path(left in any_params(), right in any_params(), seed: u64) {
        let mut pair = Pair::new([left, right], PERFECT, seed);
        let until = pair.now + ms(5000);
        while pair.step(until) {
            pair.flying.retain(|(_, end, _)| *end == 1);
        }
        prop_assert!(!pair.seen.iter().flatten().any(|state| *state == State::Up), "{:?}", pair.seen);
    }

    /// Whatever was agreed on, a dead path is noticed not before the detection time since the last packet and
    /// not after it.
    #[test]
    fn detection_takes_the_detection_time(left in any_params(), right in any_params(), seed: u64) {
        let mut pair = Pair::new([left, right], PERFECT, seed);
        pair.run(ms(10_000));
        prop_assert_eq!(pair.states(), [State::Up, State::Up]);
        prop_assert_eq!(pair.failures(), 0);
        let slowest = pair.ends.iter().map(|end| end.status().detection_time).max().expect("two");
        let due = pair.ends.each_ref().map(|end| end.next_detection().expect("runs"));
        (pair.cut, pair.flying) = (true, vec![]);
        prop_assert!(due.iter().all(|at| *at <= pair.now + slowest));
        for at in due.into_iter().collect::<std::collections::BTreeSet<_>>() {
            pair.run(at.saturating_duration_since(pair.now + Duration::from_nanos(1)));
            let early = pair.ends.iter().zip(due).any(|(end, due)| due >= at && end.state() != State::Up);
            prop_assert!(!early, "declared down too early");
            pair.run(at.saturating_duration_since(pair.now));
            let late = pair.ends.iter().zip(due).any(|(end, due)| due <= at && end.state() == State::Up);
            prop_assert!(!late, "declared down too late");
        }
    }

    /// RFC 5880 §6.8.3: no change of parameters on either side brings an Up session down.
    #[test]
    fn changes_of_pace_do_not_flap(changes in changes(), gaps in prop::collection::vec(0u64..700, 12), seed: u64) {
        let network = Network { loss: 0, delay: ms(1), jitter: ms(2) };
        let mut pair = Pair::new([params(100, 3), params(100, 3)], network, seed);
        pair.run(ms(3000));
        prop_assert_eq!(pair.states(), [State::Up, State::Up]);
        // A Down that was overtaken on the way ends a young session; that is no matter of pace.
        let before = pair.failures();
        for ((end, tx, rx, mult), gap) in changes.into_iter().zip(gaps) {
            let required_min_rx = Interval::new(ms(rx)).expect("valid");
            pair.ends[end].set_params(pair.now, Params { required_min_rx, ..params(tx, mult) });
            pair.flush(end);
            pair.run(ms(gap));
            prop_assert_eq!(pair.failures(), before);
        }
        pair.run(ms(10_000));
        prop_assert_eq!((pair.states(), pair.failures()), ([State::Up, State::Up], before));
        prop_assert!(pair.ends.iter().all(|end| !end.status().polling));
    }

    /// Lost, late and reordered packets do not keep a pair from coming up, with authentication or without.
    #[test]
    fn pair_comes_up_over_a_bad_network(network in any_network(), signed: bool, seed: u64) {
        let auth = signed.then(|| Auth::new(AuthKind::KeyedSha1, 1, b"key").expect("valid"));
        let both = Params { auth, ..params(100, 10) };
        let mut pair = Pair::new([both.clone(), both], network, seed);
        pair.run(ms(120_000));
        prop_assert!(pair.seen.iter().all(|seen| seen.contains(&State::Up)), "{:?}", pair.seen);
    }
}
