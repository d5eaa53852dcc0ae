//! Packets through the real programs (`BPF_PROG_TEST_RUN`): in, verdict, out. Needs root.
#![cfg(feature = "xdp")]

mod datapath_support;

use std::net::IpAddr;

use datapath_support::{run::*, *};
use ironcast::datapath::{
    spec::{Bypass, Spec},
    types::Reason,
};

#[test]
fn a_segment_to_a_pod_of_this_node_gets_its_address_and_port() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        for flags in [SYN, ACK, ACK | 1] {
            let answer = ask(&dp, &Packet::tcp((client, PORT), (vip, 80), flags, b"hello").frame());
            let expected = Packet::tcp((client, PORT), (pod(v6, 1), 8080), flags, b"hello").frame();
            assert_eq!((answer.verdict, answer.frame), (XDP_PASS, expected), "v6 {v6} flags {flags}");
        }
        let answer = ask(&dp, &Packet::udp((client, PORT), (vip, 80), b"odd").frame());
        let expected = Packet::udp((client, PORT), (pod(v6, 1), 8080), b"odd").frame();
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, expected), "v6 {v6} udp");
    }
}

#[test]
fn a_datagram_without_checksum_stays_without() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    let mut packet = Packet::udp((client, PORT), (vip, 80), b"data");
    packet.payload[6..8].fill(0);
    let answer = ask(&dp, &packet.frame());
    assert_eq!(answer.frame[14 + 20 + 6..14 + 20 + 8], [0, 0]);
    assert_eq!(answer.verdict, XDP_PASS);
}

#[test]
fn a_packet_for_another_node_travels_encapsulated() {
    let spec = spec();
    let Some(dp) = loaded(&spec) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        for (port, node) in [(81, 2), (82, 3)] {
            for mut packet in [
                Packet::tcp((client, PORT), (vip, port), SYN, b""),
                Packet::tcp((client, PORT), (vip, port), ACK, &[7; 1200]),
                Packet::udp((client, PORT), (vip, port), b"data"),
            ] {
                packet.tos = 0xb9;
                let answer = ask(&dp, &packet.frame());
                let hash = hash(&spec, client, vip, port, packet.protocol);
                let expected = outer(&packet, node, tunnel(0, false, [0; 3]), hash);
                assert_eq!((answer.verdict, answer.frame), (XDP_TX, expected), "v6 {v6} port {port}");
            }
        }
    }
}

#[test]
fn the_owner_takes_the_outer_headers_off() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        let packet = Packet::tcp((client, PORT), (vip, 80), ACK, b"payload");
        let expected = Packet::tcp((client, PORT), (pod(v6, 1), 8080), ACK, b"payload").frame();
        for (from, to) in [("10.0.0.2", "10.0.0.1"), ("fd00::3", "fd00::1")] {
            let frame = packet.encapsulated(ip(from), ip(to), tunnel(0, false, [0; 3])).frame();
            let answer = expect(&dp, &frame, XDP_PASS, Reason::Decapsulated);
            assert_eq!(answer.frame, expected, "v6 {v6} over {from}");
        }
        let mut tagged = packet.encapsulated(ip("10.0.0.2"), ip("10.0.0.1"), tunnel(0, false, [0; 3]));
        tagged.vlans = vec![(0x8100, 5)];
        let answer = ask(&dp, &tagged.frame());
        let mut expected = Packet::tcp((client, PORT), (pod(v6, 1), 8080), ACK, b"payload");
        expected.vlans = vec![(0x8100, 5)];
        assert_eq!(answer.frame, expected.frame(), "the tag stays");
    }
}

#[test]
fn foreign_packets_are_passed_untouched_and_not_counted() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, _) = ends(false);
    let before = dp.reasons().expect("readable");
    let mut arp = Packet::tcp((client, PORT), (ip("203.0.113.1"), 80), SYN, b"").frame();
    let short = arp[..20].to_vec();
    let foreign = arp.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let to_node = Packet::udp((client, PORT), (ip("10.0.0.1"), 53), b"x").frame();
    let v6 = Packet::tcp((ends(true).0, PORT), (ip("2001:db8::99"), 80), SYN, b"").frame();
    for frame in [arp, short, foreign, to_node, v6] {
        let answer = ask(&dp, &frame);
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, frame));
    }
    assert_eq!(dp.reasons().expect("readable"), before);
}

#[test]
fn vlan_tags_are_looked_through() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    for vlans in [vec![(0x8100, 10)], vec![(0x88a8, 20), (0x8100, 10)]] {
        let with = |to, port| Packet { vlans: vlans.clone(), ..Packet::tcp((client, PORT), (to, port), ACK, b"") };
        let answer = ask(&dp, &with(vip, 80).frame());
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, with(pod(false, 1), 8080).frame()));
    }
}

#[test]
fn every_port_of_a_vip_is_answered_or_dropped() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        expect(&dp, &Packet::tcp((client, PORT), (vip, 9), SYN, b"").frame(), XDP_DROP, Reason::DropUnknownPort);
        expect(&dp, &Packet::udp((client, PORT), (vip, 9), b"x").frame(), XDP_DROP, Reason::DropUnknownPort);
        expect(&dp, &Packet::tcp((client, PORT), (vip, 86), SYN, b"").frame(), XDP_DROP, Reason::DropNoBackend);
        let raw = |protocol, payload: &[u8]| Packet::new(client, vip, protocol, payload.to_vec()).frame();
        expect(&dp, &raw(47, &[0; 8]), XDP_DROP, Reason::DropProtocol);
        expect(&dp, &raw(132, &[0, 1, 0, 80, 0, 0]), XDP_PASS, Reason::PassProtocol);
        expect(&dp, &raw(132, &[0, 1, 0, 81, 0, 0]), XDP_DROP, Reason::DropProtocol);
    }
}

#[test]
fn what_only_kube_proxy_can_deliver_is_left_to_it_and_never_taken_from_a_tunnel() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        for (port, reason) in [(88, Reason::PassForeign), (89, Reason::PassUnreachable)] {
            let packet = Packet::tcp((client, PORT), (vip, port), SYN, b"");
            let answer = expect(&dp, &packet.frame(), XDP_PASS, reason);
            assert_eq!(answer.frame, packet.frame(), "untouched");
            let tunnelled = packet.encapsulated(ip("10.0.0.2"), ip("10.0.0.1"), tunnel(0, false, [0; 3]));
            expect(&dp, &tunnelled.frame(), XDP_DROP, Reason::DropUnreachable);
        }
    }
}

#[test]
fn echo_to_a_vip_is_answered() {
    let Some(dp) = loaded(&spec()) else { return };
    for (v6, request, reply) in [(false, 8, 0), (true, 128, 129)] {
        let (client, vip) = ends(v6);
        let data: Vec<u8> = (0..57).collect();
        let answer =
            expect(&dp, &Packet::icmp(client, vip, request, 0, [1, 2, 0, 5], &data).frame(), XDP_TX, Reason::Echo);
        let expected = Packet { ttl: 64, ..Packet::icmp(vip, client, reply, 0, [1, 2, 0, 5], &data) };
        assert_eq!(answer.frame, expected.frame_between(ROUTER_MAC, OWN_MAC));
    }
}

#[test]
fn what_kube_proxy_can_do_better_is_passed_and_counted() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    for fragment in [0x2000, 0x2001, 0x0010] {
        let packet = Packet { fragment, ..Packet::udp((client, PORT), (vip, 80), &[0; 64]) };
        expect(&dp, &packet.frame(), XDP_PASS, Reason::PassFragment);
    }
    let packet = Packet { options: vec![1; 8], ..Packet::tcp((client, PORT), (vip, 80), SYN, b"") };
    expect(&dp, &packet.frame(), XDP_PASS, Reason::PassOptions);
    let (client, vip) = ends(true);
    let mut packet = Packet::udp((client, PORT), (vip, 80), &[0; 64]);
    packet.options = vec![17, 0, 0, 1, 0, 0, 0, 9];
    packet.first_header = Some(44);
    expect(&dp, &packet.frame(), XDP_PASS, Reason::PassFragment);
}

#[test]
fn extension_headers_are_skipped_up_to_four() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(true);
    let with = |n: usize, to, port| {
        let mut packet = Packet::tcp((client, PORT), (to, port), ACK, b"x");
        let next = |i: usize| if i + 1 == n { 6 } else { [0, 43, 60][i % 3] };
        packet.options = (0..n).flat_map(|i| [next(i), 0, 1, 4, 0, 0, 0, 0]).collect();
        packet.first_header = Some(60);
        packet
    };
    for n in 1..=4 {
        let answer = ask(&dp, &with(n, vip, 80).frame());
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, with(n, pod(true, 1), 8080).frame()), "{n} headers");
    }
    expect(&dp, &with(5, vip, 80).frame(), XDP_DROP, Reason::DropExtensions);
    expect(&dp, &with(40, vip, 80).frame(), XDP_DROP, Reason::DropExtensions);
    let mut long = with(1, vip, 80);
    long.options[1] = 255;
    expect(&dp, &long.frame(), XDP_DROP, Reason::DropExtensions);
    let mut cut = with(2, vip, 80).frame();
    cut.truncate(14 + 40 + 12);
    expect(&dp, &cut, XDP_DROP, Reason::DropMalformed);
}

#[test]
fn malformed_packets_to_a_vip_are_dropped() {
    let Some(dp) = loaded(&spec()) else { return };
    let malformed = |frame: &[u8]| drop(expect(&dp, frame, XDP_DROP, Reason::DropMalformed));
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        let l3 = 14 + if v6 { 40 } else { 20 };
        let good = Packet::tcp((client, PORT), (vip, 80), ACK, b"").frame();
        malformed(&good[..l3 + 19]);
        let changed = |at: usize, to: &[u8]| {
            let mut frame = good.clone();
            frame[at..at + to.len()].copy_from_slice(to);
            frame
        };
        malformed(&changed(l3 + 12, &[0x40]));
        malformed(&changed(14, &[0x55]));
        malformed(&changed(if v6 { 18 } else { 16 }, &[0, if v6 { 19 } else { 39 }]));
        malformed(&Packet::tcp((vip, PORT), (vip, 80), ACK, b"").frame());
        let udp = Packet::udp((client, PORT), (vip, 80), b"").frame();
        malformed(&udp[..l3 + 7]);
        let mut bad = udp.clone();
        bad[l3 + 4..l3 + 6].copy_from_slice(&[0, 7]);
        malformed(&bad);
        let echo = Packet::icmp(client, vip, if v6 { 128 } else { 8 }, 0, [0; 4], b"").frame();
        malformed(&echo[..l3 + 7]);
    }
    let (client, vip) = ends(false);
    let good = Packet::tcp((client, PORT), (vip, 80), ACK, b"").frame();
    for (at, byte) in [(14, 0x44), (14, 0x35), (16, 0xff)] {
        let mut frame = good.clone();
        frame[at] = byte;
        if at == 16 {
            frame[16..18].copy_from_slice(&[0, 19]);
        }
        malformed(&frame);
    }
}

#[test]
fn probe_of_another_node_is_answered_and_its_answer_goes_to_the_daemon() {
    let Some(dp) = loaded(&spec()) else { return };
    let header = |flags: u8| [2, flags << 4, 0, 0, 0, 0, 0, 0];
    for (from, to) in [("10.0.0.2", "10.0.0.1"), ("fd00::3", "fd00::1")] {
        let probe = Packet::udp((ip(from), 6085), (ip(to), 6085), &header(2));
        let answer = expect(&dp, &probe.frame(), XDP_TX, Reason::Probe);
        let mut expected = Packet::udp((ip(to), 6085), (ip(from), 6085), &header(4));
        expected.ttl = 64;
        if expected.from.is_ipv4() {
            expected.payload[6..8].fill(0);
        }
        assert_eq!(answer.frame, expected.frame_between(ROUTER_MAC, OWN_MAC), "from {from}");

        let back = Packet::udp((ip(from), 6085), (ip(to), 6085), &header(4)).frame();
        let answer = ask(&dp, &back);
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, back), "untouched");
    }
    let stranger = Packet::udp((ip("10.0.0.9"), 6085), (ip("10.0.0.1"), 6085), &header(2));
    expect(&dp, &stranger.frame(), XDP_DROP, Reason::DropSpoofed);
    let longer = Packet::udp((ip("10.0.0.2"), 6085), (ip("10.0.0.1"), 6085), &[header(2), [0; 8]].concat());
    expect(&dp, &longer.frame(), XDP_DROP, Reason::DropMalformed);
    let both = Packet::udp((ip("10.0.0.2"), 6085), (ip("10.0.0.1"), 6085), &header(6));
    expect(&dp, &both.frame(), XDP_DROP, Reason::DropHeader);
}

#[test]
fn encapsulated_packets_come_from_nodes_and_are_for_vips() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    let (n2, me) = (ip("10.0.0.2"), ip("10.0.0.1"));
    let inner = Packet::tcp((client, PORT), (vip, 80), ACK, b"");
    let good = tunnel(0, false, [0; 3]);
    let refused = |packet: Packet, reason| drop(expect(&dp, &packet.frame(), XDP_DROP, reason));
    refused(inner.encapsulated(ip("10.0.0.9"), me, good), Reason::DropSpoofed);
    refused(inner.encapsulated(client, me, good), Reason::DropSpoofed);
    refused(inner.encapsulated(ip("fd00::9"), ip("fd00::1"), good), Reason::DropSpoofed);
    let to_pod = Packet::tcp((client, PORT), (pod(false, 1), 8080), ACK, b"");
    refused(to_pod.encapsulated(n2, me, good), Reason::DropSpoofed);
    let to_node = Packet::tcp((client, PORT), (me, 22), SYN, b"");
    refused(to_node.encapsulated(n2, me, good), Reason::DropSpoofed);
    refused(inner.encapsulated(n2, me, [1, 0, 0, 0, 0, 0, 0, 7]), Reason::DropHeader);
    refused(inner.encapsulated(n2, me, [2, 0x90, 0, 0, 0, 0, 0, 0]), Reason::DropHeader);
    refused(inner.encapsulated(n2, me, tunnel(6, false, [0; 3])), Reason::DropHops);
    refused(inner.encapsulated(n2, me, tunnel(15, true, [0; 3])), Reason::DropHops);
    let nested = inner.encapsulated(n2, me, good).encapsulated(n2, me, good);
    refused(nested, Reason::DropSpoofed);
    let fragment = Packet { fragment: 0x2000, ..inner.clone() };
    refused(fragment.encapsulated(n2, me, good), Reason::PassFragment);
    let cut = inner.encapsulated(n2, me, good).frame();
    for length in [14 + 20 + 8, 14 + 20 + 8 + 7, 14 + 36 + 19, 14 + 36 + 39] {
        expect(&dp, &cut[..length], XDP_DROP, Reason::DropMalformed);
    }
    let mut garbage = encapsulated_bytes(&[0; 60], n2, me, good);
    expect(&dp, &garbage.frame(), XDP_DROP, Reason::DropMalformed);
    // A VIP's own port 6085 is no back door.
    garbage.to = vip;
    expect(&dp, &garbage.frame(), XDP_DROP, Reason::DropUnknownPort);
}

/// `bypass`: the pods of this node stand behind the interface 7, replies leave by the loopback.
fn past_the_stack() -> Spec {
    let interfaces = [false, true].map(|v6| (pod(v6, 1), 7)).into();
    Spec { bypass: Some(Bypass { interfaces, back: vec![1] }), ..spec() }
}

#[test]
fn past_the_stack_goes_what_is_for_a_pod_here_and_nothing_else() {
    /// `MARK` of `bpf/bypass.h`, as it stands in front of the frame.
    const MARK: [u8; 4] = 0x4952_4342_u32.to_le_bytes();
    let Some(dp) = loaded(&past_the_stack()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        let to = |to: (IpAddr, u16), flags| Packet::tcp((client, PORT), to, flags, b"hello");
        let datagram = |to: (IpAddr, u16)| Packet::udp((client, PORT), to, b"hello");
        let marked = |frame: Vec<u8>| [&MARK[..], &frame].concat();
        let here = (pod(v6, 1), 8080);
        for flags in [SYN, ACK, ACK | 1] {
            let answer = ask(&dp, &to((vip, 80), flags).frame());
            assert_eq!((answer.verdict, answer.frame), (XDP_PASS, marked(to(here, flags).frame())), "v6 {v6}");
        }
        let answer = ask(&dp, &datagram((vip, 80)).frame());
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, marked(datagram(here).frame())), "v6 {v6}");
        let header = tunnel(0, false, [0; 3]);
        let came = to((vip, 80), ACK).encapsulated(ip("10.0.0.2"), ip("10.0.0.1"), header).frame();
        let answer = ask(&dp, &came);
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, marked(to(here, ACK).frame())), "from another node");
        let strange = to((ip(if v6 { "2001:db8::99" } else { "192.0.2.99" }), 80), ACK).frame();
        let answer = ask(&dp, &strange);
        assert_eq!((answer.verdict, answer.frame), (XDP_PASS, strange), "not ours");
        assert_eq!(ask(&dp, &to((vip, 81), ACK).frame()).verdict, XDP_TX, "a pod on another node");
    }
}

#[test]
fn what_a_pod_answers_goes_past_the_stack_and_what_it_says_for_itself_does_not() {
    const REDIRECT: u32 = 7;
    let Some(mut dp) = loaded(&past_the_stack()) else { return };
    let mut nowhere = past_the_stack();
    nowhere.bypass.as_mut().expect("wanted").back.clear();
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        ask(&dp, &Packet::tcp((client, PORT), (vip, 80), SYN, b"").frame());
        let says = |from, flags, data: &[u8]| Packet::tcp(from, (client, PORT), flags, data).frame();
        let of_pod = |flags, data: &[u8]| says((pod(v6, 1), 8080), flags, data);
        for (flags, segments, data) in [(SYN | ACK, None, &[0_u8; 0][..]), (ACK, Some((3, 500)), &[7; 1500])] {
            let answer = dp.ask_from_pod(&of_pod(flags, data), segments).expect("the program runs");
            let translated = says((vip, 80), flags, data);
            assert_eq!((answer.verdict, answer.frame), (REDIRECT, translated), "v6 {v6}, {segments:?}");
        }
        let own = says((pod(v6, 1), 40_000), SYN, b"");
        let answer = dp.ask_from_pod(&own, None).expect("the program runs");
        assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, own), "v6 {v6}: for itself");
        dp.apply(&nowhere).expect("the tables fit");
        let answer = dp.ask_from_pod(&of_pod(ACK, b""), None).expect("the program runs");
        assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, of_pod(ACK, b"")), "no way back: the stack's");
        dp.apply(&past_the_stack()).expect("the tables fit");
    }
}
