//! The owner's memory, slots in transition, replies and ICMP errors, through the real programs. Needs root.
#![cfg(feature = "xdp")]

mod datapath_support;

use std::net::IpAddr;

use datapath_support::{run::*, *};
use ironcast::{
    datapath::{
        hash::Tuple,
        kernel::{Datapath, Side},
        types::Reason,
    },
    types::ServiceKey,
};

const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// The pod of this node speaks to the client.
fn speak(v6: bool, flags: u8) -> Packet {
    let (client, _) = ends(v6);
    Packet::tcp((pod(v6, 1), 8080), (client, PORT), flags, b"")
}

fn delivered(dp: &Datapath, packet: &Packet, v6: bool) -> bool {
    let answer = ask(dp, &packet.frame());
    let to_pod = Packet::tcp(ends_at(v6), (pod(v6, 1), 8080), packet_flags(packet), b"").frame();
    answer.verdict == XDP_PASS && answer.frame == to_pod
}

fn ends_at(v6: bool) -> (IpAddr, u16) {
    (ends(v6).0, PORT)
}

/// TCP flags of a packet, or of the one that it encapsulates.
fn packet_flags(packet: &Packet) -> u8 {
    if packet.protocol == 6 {
        return packet.payload[13];
    }
    let inner = &packet.payload[16..];
    inner[if inner[0] >> 4 == 6 { 40 } else { 20 } + 13]
}

/// Where a frame was sent on to, and with which hops and mark; the outer is IPv4 (n2) or IPv6 (n3).
fn forwarded(dp: &Datapath, packet: &Packet) -> (u8, u8, bool) {
    let answer = ask(dp, &packet.frame());
    assert_eq!(answer.verdict, XDP_TX, "sent on");
    let (node, at) = if answer.frame[12] == 8 { (2, 14 + 28) } else { (3, 14 + 48) };
    (node, answer.frame[at + 1] & 15, answer.frame[at + 1] >> 4 == 1)
}

fn handshake(dp: &Datapath, v6: bool, port: u16) {
    let (client, vip) = ends(v6);
    assert!(delivered(dp, &segment(v6, port, SYN), v6), "SYN");
    let answer = reply(dp, &speak(v6, SYN | ACK));
    let expected = Packet::tcp((vip, port), (client, PORT), SYN | ACK, b"").frame_between(ROUTER_MAC, OWN_MAC);
    assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, expected), "SYN-ACK");
    ask(dp, &segment(v6, port, ACK).frame());
    let answer = reply(dp, &speak(v6, ACK));
    let expected = Packet::tcp((vip, port), (client, PORT), ACK, b"").frame_between(ROUTER_MAC, OWN_MAC);
    assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, expected), "first segment");
}

#[test]
fn service_counts_from_zero_though_it_gets_the_number_of_one_that_is_gone() {
    let mut spec = spec();
    let Some(mut dp) = loaded(&spec) else { return };
    ask(&dp, &segment(false, 80, SYN).frame());
    let s80 = ServiceKey::new("test", "s80");
    assert_eq!(dp.service_counters().expect("readable")[&s80].delivered, 1);
    let heir = ServiceKey::new("test", "heir");
    for target in spec.ports.values_mut().filter(|t| t.service == s80) {
        target.service = heir.clone();
    }
    dp.apply(&spec).expect("the tables fit");
    assert_eq!(dp.service_counters().expect("readable")[&heir].delivered, 0);
    ask(&dp, &segment(false, 80, SYN).frame());
    assert_eq!(dp.service_counters().expect("readable")[&heir].delivered, 1);
}

#[test]
fn replies_leave_with_the_vip_and_only_the_pod_moves_a_flow_to_the_established() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let before = dp.flows(Side::Pod).expect("readable").len();
        assert!(delivered(&dp, &segment(v6, 80, SYN), v6));
        ask(&dp, &segment(v6, 80, ACK).frame());
        assert_eq!(dp.handshakes().expect("readable").len(), 1, "a forged ACK establishes nothing");
        assert_eq!(dp.flows(Side::Pod).expect("readable").len(), before);
        handshake(&dp, v6, 80);
        assert_eq!(dp.handshakes().expect("readable").len(), 0);
        assert_eq!(dp.flows(Side::Pod).expect("readable").len(), before + 1);
        assert_eq!(dp.flows(Side::Vip).expect("readable").len(), before + 1);
    }
}

#[test]
fn datagrams_are_answered_from_the_vip() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        ask(&dp, &Packet::udp((client, PORT), (vip, 80), b"query").frame());
        let answer = reply(&dp, &Packet::udp((pod(v6, 1), 8080), (client, PORT), b"answer"));
        let expected = Packet::udp((vip, 80), (client, PORT), b"answer").frame_between(ROUTER_MAC, OWN_MAC);
        assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, expected));
    }
}

#[test]
fn fragments_of_an_answer_leave_with_the_vip_too() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    ask(&dp, &Packet::udp((client, PORT), (vip, 80), b"query").frame());
    let whole = Packet::udp((pod(false, 1), 8080), (client, PORT), &[5; 64]);
    let translated = Packet::udp((vip, 80), (client, PORT), &[5; 64]);
    let fragment = |of: &Packet, range: std::ops::Range<usize>, fragment| Packet {
        payload: of.payload[range].to_vec(),
        fragment,
        ..of.clone()
    };
    for (range, flags) in [(0..40, 0x2000), (40..72, 5)] {
        let answer = reply(&dp, &fragment(&whole, range.clone(), flags));
        let expected = fragment(&translated, range, flags).frame_between(ROUTER_MAC, OWN_MAC);
        assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, expected));
    }
}

#[test]
fn what_a_pod_says_for_itself_is_left_alone() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, _) = ends(false);
    let before = dp.reasons().expect("readable");
    for packet in [
        Packet::tcp((pod(false, 1), 8080), (client, 1), ACK, b""),
        Packet::udp((pod(false, 1), 40_000), (client, 53), b"?"),
        Packet::tcp((ip("10.0.0.1"), 22), (client, PORT), ACK, b""),
        Packet::icmp(pod(false, 1), client, 8, 0, [0; 4], b""),
    ] {
        let answer = reply(&dp, &packet);
        assert_eq!((answer.verdict, answer.frame), (TCX_NEXT, packet.frame_between(ROUTER_MAC, OWN_MAC)));
    }
    assert_eq!(dp.reasons().expect("readable"), before);
}

#[test]
fn a_syn_ack_offers_what_fits_the_way_between_nodes() {
    let Some(dp) = loaded(&spec()) else { return };
    // n3 is reached over IPv6: 1500 - 56 - 40, and - 60.
    for (v6, limit) in [(false, 1404_u16), (true, 1384)] {
        let (client, vip) = ends(v6);
        for (before, after) in [(1460, limit), (1300, 1300)] {
            for pad in [vec![], vec![1], vec![1, 1, 1]] {
                let options = |mss: u16| {
                    let mut o = pad.clone();
                    o.extend([2, 4, (mss >> 8) as u8, mss as u8]);
                    o.resize(o.len().next_multiple_of(4), 0);
                    o
                };
                ask(&dp, &segment(v6, 80, SYN).frame());
                let said = |a, p, mss| Packet::tcp_with(a, p, client, PORT, SYN | ACK, &options(mss), b"");
                let answer = reply(&dp, &said(pod(v6, 1), 8080, before));
                let expected = said(vip, 80, after).frame_between(ROUTER_MAC, OWN_MAC);
                assert_eq!(answer.frame, expected, "v6 {v6} mss {before} pad {pad:?}");
            }
        }
        let broken = Packet::tcp_with(pod(v6, 1), 8080, client, PORT, SYN | ACK, &[3, 0, 2, 4], b"");
        assert_eq!(reply(&dp, &broken).verdict, TCX_NEXT, "an option of length 0 ends the search");
    }
}

#[test]
fn a_moved_slot_keeps_flows_where_they_are_and_new_ones_go_to_the_new_owner() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        // 84 moved from n2 to n1. A stranger is asked after at n2.
        assert_eq!(forwarded(&dp, &segment(v6, 84, ACK)), (2, 0, false));
        assert_eq!(forwarded(&dp, &sent_on(&segment(v6, 84, ACK), 0, false)), (2, 1, false));
        assert!(delivered(&dp, &segment(v6, 84, SYN), v6), "new");
        assert!(delivered(&dp, &segment(v6, 84, ACK), v6), "its handshake goes on here");
        // Nobody knew it: back with the mark, and delivered, so that the pod can reset it.
        let other = Packet::tcp((ends(v6).0, 1), (ends(v6).1, 84), ACK, b"");
        let answer = ask(&dp, &sent_on(&other, 2, true).frame());
        assert_eq!(answer.verdict, XDP_PASS);
        let reset = Packet::tcp((pod(v6, 1), 8080), (ends(v6).0, 1), RST, b"");
        let expected = Packet::tcp((ends(v6).1, 84), (ends(v6).0, 1), RST, b"");
        assert_eq!(reply(&dp, &reset).frame, expected.frame_between(ROUTER_MAC, OWN_MAC));
    }
}

#[test]
fn every_candidate_is_asked_once() {
    let Some(dp) = loaded(&spec()) else { return };
    // 85 moved from n3 over n2 to n1.
    let stray = segment(false, 85, ACK);
    assert_eq!(forwarded(&dp, &sent_on(&stray, 0, false)), (2, 1, false));
    assert_eq!(forwarded(&dp, &stray), (2, 0, false), "this node is the first and `cur`");
    assert_eq!(forwarded(&dp, &sent_after(&stray, 1, false, &["n9"])), (2, 2, false), "n9 is no candidate");
    assert_eq!(forwarded(&dp, &sent_after(&stray, 1, false, &["n2"])), (3, 2, false));
    assert_eq!(forwarded(&dp, &sent_after(&stray, 2, false, &["n9", "n3"])), (2, 3, false));
    assert!(delivered(&dp, &sent_after(&stray, 2, false, &["n3", "n2"]), false), "nobody is left");
    assert!(delivered(&dp, &sent_after(&stray, 4, false, &["n7", "n8", "n9"]), false), "known now");
    let answer = ask(&dp, &sent_after(&segment(false, 83, ACK), 0, false, &["n3"]).frame());
    let at = 14 + 28;
    let expected = tunnel(1, false, ids(&["n1", "n3"]));
    assert_eq!(answer.frame[at..at + 8], expected, "and this node is named from now on");
}

#[test]
fn where_slots_have_been_on_more_nodes_than_they_name_all_of_them_are_asked() {
    let Some(dp) = loaded(&spec()) else { return };
    // 90 names n1, n2 and n3. The ring is n1 to n5, and n2 comes after n1.
    let header = |packet: &Packet| {
        let answer = ask(&dp, &packet.frame());
        (answer.verdict == XDP_TX).then(|| <[u8; 8]>::try_from(&answer.frame[42..50]).expect("eight"))
    };
    let round = |asked: [u16; 3]| {
        let (from, to) = (ip("10.0.0.2"), ip("10.0.0.1"));
        segment(false, 90, ACK).encapsulated(from, to, tunnel_with(4, 8, asked))
    };
    let [n2, n3, _] = ids(&["n2", "n3"]);
    let begun = header(&sent_after(&segment(false, 90, ACK), 2, false, &["n3", "n2"]));
    assert_eq!(begun, Some(tunnel_with(4, 8, [n2, 31, 0])), "nobody who is named knows it");
    assert_eq!(header(&round([n3, 30, 0])), Some(tunnel_with(4, 8, [n3, 29, 0])), "round it goes");
    assert!(delivered(&dp, &round([n2, 30, 0]), false), "all were asked");
    let other = Packet::tcp((ends(false).0, 1), (ends(false).1, 90), ACK, b"");
    let spent = other.encapsulated(ip("10.0.0.2"), ip("10.0.0.1"), tunnel_with(4, 8, [n3, 0, 0]));
    assert_eq!(ask(&dp, &spent.frame()).verdict, XDP_PASS, "nor does it go on for ever");
    // A datagram that nobody knows is a new flow.
    let datagram = Packet::udp((ends(false).0, PORT), (ends(false).1, 90), b"?");
    let answer = ask(&dp, &sent_after(&datagram, 2, false, &["n3", "n2"]).frame());
    assert_eq!(answer.verdict, XDP_PASS);
}

#[test]
fn hops_come_to_an_end() {
    let Some(dp) = loaded(&spec()) else { return };
    // n2 is `cur` of 83 and was asked: back to it, final.
    assert_eq!(forwarded(&dp, &sent_after(&segment(false, 83, ACK), 1, false, &["n2"])), (2, 2, true));
    // As first node of 83 it sends to `cur`, hop 0, unless it has the flow itself.
    assert_eq!(forwarded(&dp, &segment(false, 83, ACK)), (2, 0, false));
    assert_eq!(forwarded(&dp, &segment(false, 83, SYN)), (2, 0, false));
    // The last hop is kept for the way back.
    assert_eq!(forwarded(&dp, &sent_on(&segment(false, 83, ACK), 3, false)), (2, 4, false));
    assert_eq!(forwarded(&dp, &sent_on(&segment(false, 83, ACK), 4, false)), (2, 5, true));
    // Where nodes disagree about a new connection, the last that may takes it if it can.
    assert_eq!(forwarded(&dp, &sent_on(&segment(false, 83, SYN), 1, false)), (2, 2, false));
    assert!(delivered(&dp, &sent_on(&segment(false, 83, SYN), 4, false), false));
    expect(&dp, &sent_on(&segment(false, 81, SYN), 5, false).frame(), XDP_DROP, Reason::DropHops);
    expect(&dp, &sent_on(&segment(false, 81, ACK), 5, false).frame(), XDP_DROP, Reason::DropHops);
}

#[test]
fn a_former_owner_that_is_first_node_delivers_at_once() {
    let before = spec();
    let Some(mut dp) = loaded(&before) else { return };
    handshake(&dp, false, 80);
    let mut after = before.clone();
    after.generation = 8;
    let moved = after.tables["v4-83"].clone();
    after.tables.insert("v4-80".into(), moved);
    dp.apply(&after).expect("the tables fit");
    assert!(delivered(&dp, &segment(false, 80, ACK), false), "known here");
    assert!(delivered(&dp, &sent_on(&segment(false, 80, ACK), 1, false), false), "and asked by another node");
    let new = Packet::tcp((ends(false).0, 7), (ends(false).1, 80), SYN, b"");
    assert_eq!(forwarded(&dp, &new), (2, 0, false));
}

#[test]
fn ports_used_again_begin_a_new_connection() {
    let before = spec();
    let Some(mut dp) = loaded(&before) else { return };
    handshake(&dp, false, 80);
    let mut after = before.clone();
    let moved = after.tables["v4-83"].clone();
    after.tables.insert("v4-80".into(), moved);
    dp.apply(&after).expect("the tables fit");
    assert!(delivered(&dp, &segment(false, 80, SYN), false), "the old pod decides while its connection lives");
    reply(&dp, &speak(false, FIN | ACK));
    assert!(delivered(&dp, &segment(false, 80, ACK), false), "the old one still gets its last segments");
    dp.ask_in_vain(&segment(false, 80, SYN).frame()).expect("the program runs");
    assert!(delivered(&dp, &segment(false, 80, ACK), false), "a question changes nothing");
    assert_eq!(forwarded(&dp, &segment(false, 80, SYN)), (2, 0, false), "closed: a new one goes to the new owner");
    assert_eq!(forwarded(&dp, &segment(false, 80, ACK)), (2, 0, false), "and so does what follows it");
}

/// The usual cluster with a second VIP in front of the same pods, port 80.
fn with_second_vip() -> (ironcast::datapath::spec::Spec, IpAddr) {
    let mut spec = spec();
    let second = ip("192.0.2.11");
    spec.addresses.insert(second);
    let both: Vec<_> = spec.ports.iter().filter(|(f, _)| f.address == ip(VIP4) && f.port == 80).collect();
    let both: Vec<_> = both.into_iter().map(|(f, t)| (*f, t.clone())).collect();
    for (mut front, target) in both {
        front.address = second;
        spec.ports.insert(front, target);
    }
    (spec, second)
}

#[test]
fn two_vips_on_one_pod_share_no_client_port_while_a_connection_lives() {
    let (spec, second) = with_second_vip();
    let Some(dp) = loaded(&spec) else { return };
    handshake(&dp, false, 80);
    let (client, vip) = ends(false);
    let to_second = |flags| Packet::tcp((client, PORT), (second, 80), flags, b"").frame();
    // The pod could not tell them apart: the younger one has to wait, and the client's next try has another port.
    expect(&dp, &to_second(SYN), XDP_DROP, Reason::DropCollision);
    let answer = reply(&dp, &speak(false, ACK));
    let expected = Packet::tcp((vip, 80), (client, PORT), ACK, b"").frame_between(ROUTER_MAC, OWN_MAC);
    assert_eq!(answer.frame, expected, "the older one goes on");
    ask(&dp, &segment(false, 80, FIN | ACK).frame());
    assert_eq!(ask(&dp, &to_second(SYN)).verdict, XDP_PASS, "the client has ended it");
    let expected = Packet::tcp((second, 80), (client, PORT), SYN | ACK, b"").frame_between(ROUTER_MAC, OWN_MAC);
    assert_eq!(reply(&dp, &speak(false, SYN | ACK)).frame, expected);
}

#[test]
fn of_two_vips_on_one_pod_the_one_that_asked_last_has_the_answer() {
    let (spec, second) = with_second_vip();
    let Some(dp) = loaded(&spec) else { return };
    let (client, first) = ends(false);
    for vip in [first, second, first, first, second] {
        ask(&dp, &Packet::udp((client, PORT), (vip, 80), b"query").frame());
        let answer = reply(&dp, &Packet::udp((pod(false, 1), 8080), (client, PORT), b"answer"));
        let expected = Packet::udp((vip, 80), (client, PORT), b"answer").frame_between(ROUTER_MAC, OWN_MAC);
        assert_eq!(answer.frame, expected, "{vip}");
    }
}

#[test]
fn icmp_errors_of_a_pod_are_about_what_the_client_sent() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        let (pod, node) = (pod(v6, 1), ip(if v6 { "fd00::1" } else { "10.0.0.1" }));
        let kind = if v6 { 1 } else { 3 };
        handshake(&dp, v6, 80);
        ask(&dp, &Packet::udp((client, PORT), (vip, 80), b"query").frame());
        let header = if v6 { 40 } else { 20 };
        for tcp in [true, false] {
            let sent = |to: (IpAddr, u16)| match tcp {
                true => Packet::tcp((client, PORT), to, ACK, &[3; 20]),
                false => Packet::udp((client, PORT), to, &[3; 20]),
            };
            // The quoted checksum of TCP or UDP stays what it was at the pod: clients do not look at it.
            let quote = |to: (IpAddr, u16)| {
                let mut packet = sent(to);
                let at = if tcp { 16 } else { 6 };
                packet.payload[at..at + 2].fill(0);
                packet.ip()[..header + 20].to_vec()
            };
            for by in [pod, node] {
                let error = Packet::icmp(by, client, kind, 3, [0; 4], &quote((pod, 8080)));
                let before = count(&dp, Reason::IcmpOut);
                let answer = reply(&dp, &error);
                let from = if by == pod { vip } else { node };
                let expected = Packet::icmp(from, client, kind, 3, [0; 4], &quote((vip, 80)));
                let context = format!("v6 {v6} tcp {tcp} by {by}");
                assert_eq!(answer.frame, expected.frame_between(ROUTER_MAC, OWN_MAC), "{context}");
                assert_eq!((answer.verdict, count(&dp, Reason::IcmpOut)), (TCX_NEXT, before + 1), "{context}");
            }
            let strange = Packet::icmp(pod, client, kind, 3, [0; 4], &quote((pod, 9999)));
            let answer = reply(&dp, &strange);
            assert_eq!(answer.frame, strange.frame_between(ROUTER_MAC, OWN_MAC), "about no flow of ours");
            let cut = Packet::icmp(pod, client, kind, 3, [0; 4], &quote((pod, 8080))[..header + 2]);
            assert_eq!(reply(&dp, &cut).frame, cut.frame_between(ROUTER_MAC, OWN_MAC), "cut short");
        }
    }
}

#[test]
fn a_question_leaves_no_trace() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        for packet in [segment(v6, 80, SYN), Packet::udp((client, PORT), (vip, 80), b"?"), segment(v6, 81, ACK)] {
            let asked = dp.ask_in_vain(&packet.frame()).expect("the program runs");
            let left = [Side::Vip, Side::Pod].map(|side| dp.flows(side).expect("readable").len());
            assert_eq!((left, dp.handshakes().expect("readable").len()), ([0; 2], 0), "v6 {v6}");
            let real = ask(&loaded(&spec()).expect("root"), &packet.frame());
            assert_eq!((asked.verdict, asked.frame), (real.verdict, real.frame));
        }
    }
}

#[test]
fn icmp_errors_follow_the_flow_and_are_rewritten_for_the_pod() {
    let Some(dp) = loaded(&spec()) else { return };
    let router = |v6| if v6 { ip("2001:db8:1::1") } else { ip("203.0.113.9") };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        let kind = if v6 { 2 } else { 3 };
        let header = if v6 { 40 } else { 20 };
        for extra in [8, 20, 60] {
            let about = |from: IpAddr, port| {
                let mut whole = Packet::tcp((from, port), (client, PORT), ACK, &[1; 100]);
                whole.payload[16..18].fill(0);
                whole.ip()[..header + extra].to_vec()
            };
            let error = |to: IpAddr, about: &[u8]| Packet::icmp(router(v6), to, kind, 4, [0, 0, 5, 0], about);
            let answer = ask(&dp, &error(vip, &about(vip, 80)).frame());
            let expected = error(pod(v6, 1), &about(pod(v6, 1), 8080)).frame();
            assert_eq!((answer.verdict, answer.frame), (XDP_PASS, expected), "v6 {v6}, {extra} bytes quoted");
            let away = ask(&dp, &error(vip, &about(vip, 81)).frame());
            assert_eq!(away.verdict, XDP_TX, "to the owner of the flow");
        }
        let strange = Packet::tcp((client, 80), (vip, PORT), ACK, b"").ip();
        let error = Packet::icmp(router(v6), vip, kind, 4, [0; 4], &strange[..header + 8]);
        expect(&dp, &error.frame(), XDP_DROP, Reason::DropIcmp);
        let ours = Packet::tcp((vip, 80), (client, PORT), ACK, b"").ip();
        let cut = Packet::icmp(router(v6), vip, kind, 4, [0; 4], &ours[..header + 4]);
        expect(&dp, &cut.frame(), XDP_DROP, Reason::DropMalformed);
        let request = Packet::icmp(client, vip, if v6 { 135 } else { 13 }, 0, [0; 4], b"");
        expect(&dp, &request.frame(), XDP_DROP, Reason::DropIcmp);
    }
}

#[test]
fn what_does_not_fit_the_way_is_answered_with_the_size_that_does() {
    let Some(dp) = loaded(&spec()) else { return };
    for v6 in [false, true] {
        let (client, vip) = ends(v6);
        for (port, mtu) in [(81, 1464_u16), (82, 1444)] {
            let header = if v6 { 40 } else { 20 };
            let fits = Packet::udp((client, PORT), (vip, port), &vec![1; usize::from(mtu) - header - 8]);
            assert_eq!(ask(&dp, &fits.frame()).verdict, XDP_TX);
            let packet = Packet::udp((client, PORT), (vip, port), &vec![1; usize::from(mtu) - header - 7]);
            let answer = expect(&dp, &packet.frame(), XDP_TX, Reason::TooBig);
            let quote = &packet.ip()[..header + 8];
            let size = mtu.to_be_bytes();
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            let error = Packet::icmp(vip, client, kind, code, [0, 0, size[0], size[1]], quote);
            let expected = Packet { ttl: 64, fragment: 0, ..error }.frame_between(ROUTER_MAC, OWN_MAC);
            assert_eq!(answer.frame, expected, "v6 {v6} port {port}");
        }
    }
    let (client, vip) = ends(false);
    let may = Packet { fragment: 0, ..Packet::udp((client, PORT), (vip, 81), &[1; 1470]) };
    expect(&dp, &may.frame(), XDP_PASS, Reason::PassTooBig);
}

#[test]
fn affinity_looks_at_the_client_alone() {
    let Some(dp) = loaded(&spec()) else { return };
    let (_, vip) = ends(false);
    let mut owners = std::collections::BTreeSet::new();
    for host in 1..40 {
        let client = ip(&format!("198.51.100.{host}"));
        let mut macs = std::collections::BTreeSet::new();
        for port in 1000..1010 {
            let answer = ask(&dp, &Packet::tcp((client, port), (vip, 87), ACK, b"").frame());
            macs.insert((answer.verdict, answer.frame[14 + 16..14 + 20].to_vec()));
        }
        assert_eq!(macs.len(), 1, "one owner for all ports of {client}");
        owners.extend(macs);
    }
    assert_eq!(owners.len(), 3, "and different ones for different clients");
}

#[test]
fn a_flood_of_syns_keeps_the_youngest_and_evicts_no_flow() {
    let Some(dp) = loaded(&spec()) else { return };
    let (client, vip) = ends(false);
    handshake(&dp, false, 80);
    let flows = dp.flows(Side::Vip).expect("readable");
    for port in 1..40_000 {
        ask(&dp, &Packet::tcp((ip("203.0.113.77"), port), (vip, 80), SYN, b"").frame());
    }
    assert_eq!(dp.flows(Side::Vip).expect("readable"), flows);
    let kept = dp.handshakes().expect("readable");
    // 16,384 places; some buckets get fewer than they have.
    assert!(kept.len() > 16_000 && kept.len() <= 16_387, "{}", kept.len());
    let tuple = |port| Tuple { client: ip("203.0.113.77"), vip, client_port: port, vip_port: 80, protocol: 6 };
    let young = (39_000..40_000).filter(|port| dp.handshake(&tuple(*port)).expect("readable").is_some()).count();
    assert_eq!(young, 1000, "the last thousand are all there");
    let answer = reply(&dp, &Packet::tcp((pod(false, 1), 8080), (ip("203.0.113.77"), 39_999), SYN | ACK, b""));
    let expected = Packet::tcp((vip, 80), (ip("203.0.113.77"), 39_999), SYN | ACK, b"");
    assert_eq!(answer.frame, expected.frame_between(ROUTER_MAC, OWN_MAC));
    assert!(delivered(&dp, &segment(false, 80, ACK), false), "{client} goes on");
}
