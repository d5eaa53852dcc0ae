use std::{net::SocketAddr, sync::Arc, time::Instant};

use super::*;
use crate::{Asn, RouterId, speaker::PeerId, wire::message::encode_keepalive};

/// 2026-11-27 16:00:00.25 UTC.
const AT: Duration = Duration::new(1_795_795_200, 250_000_000);

fn session(local: &str, remote: &str, four_octet: bool) -> Monitored {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Monitored {
        peer: PeerId(Arc::from("tor")),
        since: Instant::now(),
        local: address(local),
        remote: address(remote),
        remote_as: Asn::new(4_200_000_001).expect("valid"),
        remote_id: RouterId::new([10, 255, 0, 1].into()).expect("valid"),
        four_octet,
        sent_open: vec![1; 3].into(),
        received_open: vec![2; 4].into(),
    }
}

fn v4() -> Monitored {
    session("10.0.0.1:50000", "10.0.0.2:179", true)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0xEE]; // appended, never overwritten
    write(&mut out);
    assert_eq!(out.remove(0), 0xEE);
    assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len());
    out
}

fn octets(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal") as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The per-peer header of [`v4`] at [`AT`], with its flags to be filled in (RFC 7854 §4.2).
fn header(flags: &str) -> String {
    format!(
        "00 {flags} 0000000000000000
         000000000000000000000000 0a000002
         fa56ea01 0aff0001 6b09a900 0003d090"
    )
}

#[test]
fn initiation_tells_the_description_and_the_name() {
    let out = written(|out| initiation("n1", "ironcast 0.1", out));
    assert_eq!(out, octets("03 0000001c 04  0001 000c 69726f6e6361737420302e31  0002 0002 6e31"));
}

#[test]
fn termination_says_administratively_closed() {
    assert_eq!(written(termination), octets("03 0000000c 05  0001 0002 0000"));
}

#[test]
fn peer_up_has_both_opens_and_the_peers_name() {
    let out = written(|out| peer_up(&v4(), AT, out));
    let local = "000000000000000000000000 0a000001 c350 00b3";
    let rest = "010101 02020202 0004 0003 746f72";
    assert_eq!(out, octets(&format!("03 00000052 03 {} {local} {rest}", header("00"))));
}

#[test]
fn ipv6_peer_has_the_v_flag_and_a_mapped_address_none() {
    let v6 = written(|out| peer_up(&session("[2001:db8::1]:1", "[2001:db8::2]:2", true), AT, out));
    assert_eq!((v6[7], &v6[16..32]), (0x80, octets("20010db8000000000000000000000002").as_slice()));
    let mapped = written(|out| peer_up(&session("[::ffff:10.0.0.1]:50000", "[::ffff:10.0.0.2]:179", true), AT, out));
    assert_eq!(mapped, written(|out| peer_up(&v4(), AT, out)));
}

#[test]
fn route_monitoring_is_of_the_post_policy_adj_rib_out() {
    let mut update = Vec::new();
    encode_keepalive(&mut update);
    let out = written(|out| route_monitoring(&v4(), AT, &update, out));
    assert_eq!(out, octets(&format!("03 00000043 00 {} ffffffffffffffffffffffffffffffff 0013 04", header("50"))));
    let two_octet = session("10.0.0.1:50000", "10.0.0.2:179", false);
    assert_eq!(written(|out| route_monitoring(&two_octet, AT, &update, out))[7], 0x70);
}

#[test]
fn peer_down_has_the_notification_the_event_or_nothing() {
    let marker = "ffffffffffffffffffffffffffffffff";
    let cease = Notification::new(6, 2, &[2, b'h', b'i']);
    let cases = [
        (Down::Local(cease.clone()), format!("03 00000049 02 {} 01 {marker} 0018 03 06 02 026869", header("00"))),
        (Down::LocalEvent(2), format!("03 00000033 02 {} 02 0002", header("00"))),
        (Down::Remote(cease), format!("03 00000049 02 {} 03 {marker} 0018 03 06 02 026869", header("00"))),
        (Down::Closed, format!("03 00000031 02 {} 04", header("00"))),
    ];
    for (down, expected) in cases {
        assert_eq!(written(|out| peer_down(&v4(), AT, &down, out)), octets(&expected), "{down:?}");
    }
}

#[test]
fn statistics_have_the_widths_of_their_types() {
    let all = [
        Statistic::RejectedPrefixes(1),
        Statistic::TreatedAsWithdraw(2),
        Statistic::AdjRibOut(3),
        Statistic::AdjRibOutOf { afi: 2, safi: 1, routes: 4 },
    ];
    let out = written(|out| statistics(&v4(), AT, &all, out));
    let body = "00000004  0000 0004 00000001  000b 0004 00000002  000f 0008 0000000000000003
                0011 000b 0002 01 0000000000000004";
    assert_eq!(out, octets(&format!("03 0000005f 01 {} {body}", header("00"))));
}

#[test]
fn time_beyond_four_octets_stays_at_their_end() {
    let out = written(|out| peer_down(&v4(), Duration::from_secs(1 << 33), &Down::Closed, out));
    assert_eq!(&out[40..48], octets("ffffffff 00000000"));
}
