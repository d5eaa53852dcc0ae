//! Generated packets, whole and damaged: the real program and the reference must come to the same end. Needs root.
//!
//! `IRONCAST_FRAMES` says how many for each hook, `IRONCAST_FRAMES_SEED` where chance begins.
#![cfg(feature = "xdp")]

mod datapath_support;

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use datapath_support::{run::*, *};
use ironcast::datapath::{
    hash::node_ids,
    kernel::{Answer, Datapath, Hook},
    reference::{Memory, Outcome, Reference, Remember, parse},
    spec::Spec,
    types::Reason,
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// What a packet is like, before damage.
#[derive(Debug, Clone)]
struct Shape {
    v6: bool,
    kind: u8,
    client: u8,
    client_port: u16,
    vip_port: u16,
    flags: u8,
    data: usize,
    fragment: u16,
    options: Vec<u8>,
    first_header: u8,
    vlans: u8,
    /// In another node's encapsulation: hops, flags, over IPv6, those that were asked.
    tunnel: Option<(u8, u8, bool, [u16; 3])>,
    /// To a pod or a stranger rather than to the VIP.
    elsewhere: Option<bool>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let whole = (any::<bool>(), 0_u8..8, 0_u8..4, 0_u16..6, prop_oneof![9 => 79_u16..91, 1 => any::<u16>()]);
    let flags = prop_oneof![Just(0x02), Just(0x10), Just(0x12), Just(0x11), Just(0x04), any::<u8>()];
    let data = prop_oneof![8 => 0_usize..64, 1 => 1380_usize..1480];
    let fragment = prop_oneof![8 => Just(0x4000_u16), 2 => Just(0), 1 => any::<u16>()];
    let options = prop_oneof![6 => Just(vec![]), 1 => proptest::collection::vec(any::<u8>(), 8..=8),
        2 => proptest::collection::vec(prop_oneof![Just(0_u8), Just(6), Just(17), Just(43), Just(60)], 8..=8)];
    let tunnel = proptest::option::weighted(0.4, (0_u8..8, flags_of_tunnel(), any::<bool>(), asked()));
    let elsewhere = proptest::option::weighted(0.1, any::<bool>());
    let first = prop_oneof![Just(0_u8), Just(43), Just(60), Just(44), any::<u8>()];
    (whole, flags, data, fragment, options, (first, 0_u8..8), tunnel, elsewhere).prop_map(
        |(
            (v6, kind, client, client_port, vip_port),
            flags,
            data,
            fragment,
            options,
            (first, vlans),
            tunnel,
            elsewhere,
        )| {
            let client_port = client_port + 2000;
            let first_header = first;
            Shape {
                v6,
                kind,
                client,
                client_port,
                vip_port,
                flags,
                data,
                fragment,
                options,
                first_header,
                vlans,
                tunnel,
                elsewhere,
            }
        },
    )
}

/// None, final, on the ring; seldom others.
fn flags_of_tunnel() -> impl Strategy<Value = u8> {
    prop_oneof![8 => proptest::sample::select(vec![0_u8, 1, 8]), 1 => 0_u8..16]
}

/// Some of the nodes as the header calls them, and others.
fn asked() -> impl Strategy<Value = [u16; 3]> {
    let nodes = spec().nodes;
    let known: Vec<u16> = node_ids(nodes.keys()).into_values().collect();
    proptest::array::uniform3(prop_oneof![2 => Just(0), 2 => proptest::sample::select(known), 1 => any::<u16>()])
}

/// What becomes of a frame on its way.
#[derive(Debug, Clone)]
enum Damage {
    /// Octets are others.
    Overwritten(Vec<(usize, u8)>),
    /// Only so much arrives.
    Cut(usize),
    /// Octets come between.
    Grown(usize, Vec<u8>),
    /// Octets are missing.
    Shrunk(usize, usize),
    /// Two parts changed places.
    Swapped(usize, usize, usize),
    /// The same octets stand there twice.
    Doubled(usize, usize),
    /// Behind the addresses of Ethernet is nothing that was there.
    Noise(Vec<u8>),
}

impl Damage {
    fn done(self, mut frame: Vec<u8>) -> Vec<u8> {
        let end = frame.len();
        let part = |at: usize, length: usize| at.min(end)..(at + length).min(end);
        match self {
            Self::Overwritten(octets) => octets.into_iter().for_each(|(at, octet)| {
                if let Some(old) = frame.get_mut(at) {
                    *old = octet;
                }
            }),
            Self::Cut(length) => frame.truncate(length),
            Self::Grown(at, octets) => drop(frame.splice(part(at, 0), octets)),
            Self::Shrunk(at, length) => drop(frame.drain(part(at, length))),
            Self::Swapped(one, other, length) if one + length <= other && other + length <= end => {
                let (front, back) = frame.split_at_mut(other);
                front[one..one + length].swap_with_slice(&mut back[..length]);
            }
            Self::Swapped(..) => {}
            Self::Doubled(at, length) => {
                let again = frame[part(at, length)].to_vec();
                frame.splice(part(at, 0), again);
            }
            Self::Noise(octets) => {
                frame.truncate(12);
                frame.extend(octets);
            }
        }
        // The program is asked with as much as a card would take.
        frame.truncate(1500 + 14);
        frame
    }
}

/// Half of the frames come as they were sent; most others have a little that is wrong.
fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let octets = || proptest::collection::vec(any::<u8>(), 1..24);
    let one = prop_oneof![
        4 => proptest::collection::vec((12_usize..110, any::<u8>()), 1..3).prop_map(Damage::Overwritten),
        2 => (14_usize..120).prop_map(Damage::Cut),
        1 => (12_usize..110, octets()).prop_map(|(at, octets)| Damage::Grown(at, octets)),
        1 => (12_usize..110, 1_usize..24).prop_map(|(at, length)| Damage::Shrunk(at, length)),
        1 => (12_usize..60, 12_usize..110, 1_usize..20).prop_map(|(a, b, length)| Damage::Swapped(a, b, length)),
        1 => (12_usize..110, 1_usize..48).prop_map(|(at, length)| Damage::Doubled(at, length)),
        1 => proptest::collection::vec(any::<u8>(), 2..160).prop_map(Damage::Noise),
    ];
    prop_oneof![5 => Just(vec![]), 4 => proptest::collection::vec(one, 1..3)]
}

fn packet(s: &Shape) -> Packet {
    let (_, vip) = ends(s.v6);
    let client =
        |v6| if v6 { ip(&format!("2001:db8:ffff::{}", s.client)) } else { ip(&format!("198.51.100.{}", s.client)) };
    let from: IpAddr = client(s.v6);
    let to = match s.elsewhere {
        None => vip,
        Some(true) => pod(s.v6, 1),
        Some(false) => {
            if s.v6 {
                ip("2001:db8::99")
            } else {
                ip("192.0.2.99")
            }
        }
    };
    let data = vec![0x5a; s.data];
    let mut packet = match s.kind {
        0..=2 => Packet::tcp((from, s.client_port), (to, s.vip_port), s.flags, &data),
        3 | 4 => Packet::udp((from, s.client_port), (to, s.vip_port), &data),
        5 => {
            let about = Packet::udp((to, s.vip_port), (from, s.client_port), &data).ip();
            Packet::icmp(
                ip(if s.v6 { "2001:db8:1::1" } else { "203.0.113.9" }),
                to,
                if s.v6 { 1 } else { 3 },
                4,
                [0; 4],
                &about,
            )
        }
        6 => Packet::icmp(from, to, if s.v6 { 128 } else { 8 }, 0, [0; 4], &data),
        _ => Packet::new(from, to, s.flags, data),
    };
    packet.fragment = s.fragment;
    packet.options = s.options.clone();
    if s.v6 && !s.options.is_empty() {
        packet.first_header = Some(s.first_header);
        packet.options[1] %= 2;
        packet.options.resize(8 + usize::from(packet.options[1]) * 8, 0);
    }
    if let Some((hops, flags, over_v6, asked)) = s.tunnel {
        let (a, b) = if over_v6 { ("fd00::3", "fd00::1") } else { ("10.0.0.2", "10.0.0.1") };
        packet = packet.encapsulated(ip(a), ip(b), tunnel_with(hops, flags, asked));
    }
    packet.vlans = match s.vlans {
        0 => vec![(0x8100, 3)],
        1 => vec![(0x88a8, 3), (0x8100, 4)],
        _ => vec![],
    };
    packet
}

/// The program's answer is what the reference says; what the owner wrote down is kept in step.
fn compare(dp: &Datapath, spec: &Spec, reference: &Reference<'_>, memory: &mut Memory, frame: &[u8]) {
    let expected = reference.judge(frame, memory);
    let before = dp.reasons().expect("readable");
    let answer = ask(dp, frame);
    let after = dp.reasons().expect("readable");
    let counted: Vec<Reason> = Reason::ALL.iter().copied().filter(|r| after[r] != before[r]).collect();
    let context = || format!("{expected:?}\n  counted {counted:?}, verdict {}\n  frame {frame:02x?}", answer.verdict);
    if let Ok(parsed) = parse(spec, frame)
        && reference.forgets(&parsed, memory)
    {
        memory.forget(&parsed.tuple);
    }
    match &expected {
        Outcome::Foreign => {
            assert!(answer.verdict == XDP_PASS && answer.frame == frame && counted.is_empty(), "{}", context())
        }
        Outcome::Pass(r) => {
            assert!(answer.verdict == XDP_PASS && answer.frame == frame && counted == [*r], "{}", context())
        }
        Outcome::Drop(r) => {
            // One that is refused at its pod has come out of its encapsulation already.
            let why: Vec<&Reason> = counted.iter().filter(|c| **c != Reason::Decapsulated).collect();
            assert!(answer.verdict == XDP_DROP && why == [r], "{}", context())
        }
        Outcome::Probe => assert!(answer.verdict == XDP_TX && counted == [Reason::Probe], "{}", context()),
        Outcome::Echo => assert!(answer.verdict == XDP_TX && counted == [Reason::Echo], "{}", context()),
        Outcome::TooBig { .. } => assert!(answer.verdict == XDP_TX && counted == [Reason::TooBig], "{}", context()),
        Outcome::Deliver { pod, port, remember } => {
            assert!(answer.verdict == XDP_PASS, "{}", context());
            check_delivery(spec, frame, &answer, *pod, *port, &context);
            let parsed = parse(spec, frame).expect("it was delivered");
            match remember {
                Remember::Nothing => {}
                Remember::Handshake => memory.begin(&parsed.tuple, *pod, *port),
                Remember::Flow => memory.keep(&parsed.tuple, *pod, *port),
            }
            if parsed.ends {
                memory.end(&parsed.tuple);
            }
        }
        Outcome::Forward { node, onward, hash } => {
            assert!(answer.verdict == XDP_TX, "{}", context());
            let at = if node == "n2" { 14 + 20 } else { 14 + 40 };
            let f = &answer.frame;
            assert_eq!(f[12..14], if node == "n2" { [8, 0] } else { [0x86, 0xdd] }, "{}", context());
            assert_eq!(f[at..at + 2], (0xc000 | (*hash & 0x3fff) as u16).to_be_bytes(), "{}", context());
            let flags = u8::from(onward.last) | u8::from(onward.ring) << 3;
            assert_eq!(f[at + 8..at + 16], tunnel_with(onward.hops, flags, onward.asked), "{}", context());
            assert_eq!(inner(spec, frame), &f[at + 16..], "{}", context());
        }
    }
}

/// The client's packet: behind Ethernet, or behind the outer headers.
fn inner<'a>(spec: &Spec, frame: &'a [u8]) -> &'a [u8] {
    let mut at = 14;
    while frame[at - 2..at] == [0x81, 0] || frame[at - 2..at] == [0x88, 0xa8] {
        at += 4;
    }
    let first = parse(spec, frame).expect("it was delivered").arrival.first;
    let outer = if frame[at - 2..at] == [0x86, 0xdd] { 56 } else { 36 };
    if first { &frame[at..] } else { &frame[at + outer..] }
}

fn check_delivery(spec: &Spec, frame: &[u8], answer: &Answer, pod: IpAddr, port: u16, context: &dyn Fn() -> String) {
    let before = inner(spec, frame);
    let after = &answer.frame[answer.frame.len() - before.len()..];
    let to = match pod {
        IpAddr::V4(a) => (after[16..20] == a.octets(), 20),
        IpAddr::V6(a) => (after[24..40] == a.octets(), 40),
    };
    assert!(to.0, "{}", context());
    let parsed = parse(spec, frame).expect("it was delivered");
    if !parsed.error
        && before[6] != 0
        && before[to.1 - 20..].len() > 40
        && matches!(before[if to.1 == 20 { 9 } else { 6 }], 6 | 17)
    {
        assert_eq!(after[to.1 + 2..to.1 + 4], port.to_be_bytes(), "{}", context());
    }
}

#[test]
fn the_program_and_the_reference_agree() {
    agree(Hook::Xdp);
}

#[test]
fn the_program_behind_xdp_and_the_reference_agree() {
    agree(Hook::Tcx);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}

/// So many frames meet one memory: of more, some would have to be forgotten, which the reference does not do.
const TOGETHER: u64 = 5_000;

fn agree(hook: Hook) {
    let number = |name, usual| number(name).unwrap_or(usual);
    let (frames, seed) = (number("IRONCAST_FRAMES", 6_000), number("IRONCAST_FRAMES_SEED", 1));
    eprintln!("IRONCAST_FRAMES={frames} IRONCAST_FRAMES_SEED={seed}");
    let (mut counted, mut flows) = (BTreeMap::<Reason, u64>::new(), 0);
    for round in 0..frames.div_ceil(TOGETHER) {
        let cases = TOGETHER.min(frames - round * TOGETHER) as u32;
        let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        let rng: Vec<u8> = [seed, round, 0, 0].into_iter().flat_map(u64::to_le_bytes).collect();
        let runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &rng));
        let Some((more, known)) = agree_with(hook, runner) else { return };
        more.into_iter().for_each(|(reason, n)| *counted.entry(reason).or_default() += n);
        flows += known;
    }
    let unseen: Vec<_> = counted.iter().filter(|(_, n)| **n == 0).map(|(reason, _)| reason).collect();
    eprintln!("{frames} frames, {flows} flows; never seen: {unseen:?}");
    assert!(flows > 20 && counted[&Reason::Chained] > 100, "the packets reach the interesting parts");
}

/// What was counted, and how many flows there are in the end.
fn agree_with(hook: Hook, mut runner: TestRunner) -> Option<(BTreeMap<Reason, u64>, usize)> {
    let spec = spec();
    let dp = loaded_at(hook, &spec)?;
    let reference = Reference::new(&spec);
    let memory = RefCell::new(Memory::default());
    runner
        .run(&(shape(), damage()), |(shape, damage)| {
            let mut packet = packet(&shape);
            if hook == Hook::Tcx {
                // The kernel takes tags off before this hook.
                packet.vlans.clear();
            }
            let whole = packet.frame();
            let mut frame = damage.into_iter().fold(whole.clone(), |frame, damage| damage.done(frame));
            let least = whole.len().min(14 + 40);
            if hook == Hook::Tcx && frame.len() < least {
                // Nor does the kernel run it on a frame without a whole IP header.
                frame.extend_from_slice(&whole[frame.len()..least]);
            }
            if frame.len() < 14 {
                return Ok(());
            }
            compare(&dp, &spec, &reference, &mut memory.borrow_mut(), &frame);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    let flows = memory.borrow().flows.len();
    Some((dp.reasons().expect("readable"), flows))
}
