//! Malformed messages with the reaction that RFC 4271 and RFC 7606 ask for, fed to the decoders.
//!
//! The sample of known weaknesses is not part of this repository: it is read from beside it, and skipped in one
//! line where it is not. The cases below are always here.

use std::path::Path;

use ironcast_bgp::{
    Family,
    wire::{
        Families,
        attribute::Reaction,
        message::{self, Kind, frame},
        open, update,
    },
};

/// What the session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Discard,
    TreatAsWithdraw,
    Reset,
}

/// A session of eBGP with both families and four-octet AS numbers; our end is 10.0.1.1.
fn context() -> update::Context {
    update::Context {
        four_octet: true,
        families: Families::from_iter([Family::Ipv4Unicast, Family::Ipv6Unicast]),
        local: Some([10, 0, 1, 1].into()),
        ..update::Context::default()
    }
}

fn outcome(octets: &[u8]) -> Outcome {
    let found = frame(octets, false);
    let frame = match found {
        Ok(Some(frame)) => frame,
        Ok(None) => panic!("a whole message"),
        Err(_) => return Outcome::Reset,
    };
    match frame.kind {
        Kind::Open => open::decode(octets).map_or(Outcome::Reset, |_| Outcome::Ok),
        Kind::Update => match update::decode(octets, &context()) {
            Err(_) => Outcome::Reset,
            Ok(update) => match update.fault.map(|f| f.reaction) {
                None => Outcome::Ok,
                Some(Reaction::Discard) => Outcome::Discard,
                Some(Reaction::TreatAsWithdraw) => Outcome::TreatAsWithdraw,
            },
        },
        Kind::RouteRefresh => message::decode_refresh(octets).map_or(Outcome::Reset, |_| Outcome::Ok),
        Kind::Keepalive | Kind::Notification => Outcome::Ok,
    }
}

/// Attributes that this speaker treats as opaque may as well be left alone as reacted to.
const OPAQUE: [&str; 1] = ["bgpsec-33"];

fn accepted(id: &str, expected: &str) -> Vec<Outcome> {
    if OPAQUE.contains(&id) {
        return vec![Outcome::Ok, Outcome::Discard, Outcome::TreatAsWithdraw];
    }
    let one = |word: &str| match word {
        // The message is no error at all, or none that anything is done about.
        "OK" | "IGNORE" => Outcome::Ok,
        "DISCARD" => Outcome::Discard,
        "TAW" => Outcome::TreatAsWithdraw,
        "RESET" => Outcome::Reset,
        other => panic!("{id}: {other:?} is no reaction"),
    };
    expected.split('|').map(one).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The values of `"key": "value"` in a line of the sample.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let start = line.find(&format!("\"{key}\": \"")).expect("the field is there") + key.len() + 5;
    let end = line[start..].find('"').expect("the value ends");
    &line[start..start + end]
}

/// The lines of the sample, from the nearest `shared` folder beside or above this repository.
fn sample() -> Option<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().find_map(|a| std::fs::read_to_string(a.join("shared/bgp-malformed-sample.json")).ok());
    if found.is_none() {
        eprintln!("skipped: no shared/bgp-malformed-sample.json beside this repository");
    }
    found
}

#[test]
fn every_message_of_the_sample_gets_the_reaction_that_its_rfc_asks_for() {
    let Some(sample) = sample() else { return };
    let messages: Vec<&str> = sample.lines().filter(|line| line.contains("\"hex\"")).collect();
    assert!(messages.len() >= 50, "{} messages", messages.len());
    let mut wrong = Vec::new();
    for line in &messages {
        let id = field(line, "id");
        let (got, right) = (outcome(&hex(field(line, "hex"))), accepted(id, field(line, "expected")));
        if !right.contains(&got) {
            wrong.push(format!("{id}: {got:?} instead of {right:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), messages.len(), wrong.join("\n"));
}

/// Each bit of each message flipped: whatever comes of it, no panic.
#[test]
fn neighbours_of_the_sample_do_not_panic() {
    let Some(sample) = sample() else { return };
    for line in sample.lines().filter(|line| line.contains("\"hex\"")) {
        let octets = hex(field(line, "hex"));
        for bit in (0..octets.len().min(300) * 8).skip(16 * 8) {
            let mut near = octets.clone();
            near[bit / 8] ^= 1 << (bit % 8);
            if let Ok(Some(_)) = frame(&near, false) {
                outcome(&near);
            }
        }
    }
}

/// An UPDATE of the given attributes and 198.51.100.1/32.
fn update_of(attributes: &[&[u8]]) -> Vec<u8> {
    let list = attributes.concat();
    let mut out = Vec::new();
    let start = message::start(&mut out, Kind::Update);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&u16::try_from(list.len()).expect("short").to_be_bytes());
    out.extend_from_slice(&list);
    out.extend_from_slice(&[32, 198, 51, 100, 1]);
    message::finish(&mut out, start);
    out
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 1, 2];

#[test]
fn each_attribute_has_the_reaction_of_its_rfc() {
    use Outcome::{Discard, Ok, Reset, TreatAsWithdraw};
    let cases: [(&str, &[u8], Outcome); 24] = [
        ("nothing more", &[], Ok),
        ("MED", &[0x80, 4, 4, 0, 0, 0, 1], Ok),
        ("MED of 3 octets", &[0x80, 4, 3, 0, 0, 1], TreatAsWithdraw),
        ("MED with the transitive flag", &[0xC0, 4, 4, 0, 0, 0, 1], TreatAsWithdraw),
        ("the partial flag is nobody's business", &[0xE0, 8, 4, 0, 1, 0, 1], Ok),
        ("no communities", &[0xC0, 8, 0], TreatAsWithdraw),
        ("communities with two octets of length", &[0xD0, 8, 0, 4, 0, 1, 0, 1], Ok),
        ("two octets of length, one there", &[0xD0, 8, 0], TreatAsWithdraw),
        ("large community of 8 octets", &[0xC0, 32, 8, 0, 0, 0, 1, 0, 0, 0, 2], TreatAsWithdraw),
        ("aggregator of 6 octets with four-octet AS numbers", &[0xC0, 7, 6, 0, 1, 10, 0, 0, 1], Discard),
        ("aggregator AS 0", &[0xC0, 7, 8, 0, 0, 0, 0, 10, 0, 0, 1], Discard),
        ("Only To Customer of 3 octets", &[0xC0, 35, 3, 0, 0, 1], TreatAsWithdraw),
        ("unknown, optional", &[0x80, 200, 2, 1, 2], Ok),
        ("unknown, well-known", &[0x40, 200, 2, 1, 2], TreatAsWithdraw),
        ("second next hop", &[0x40, 3, 4, 10, 0, 1, 9], Discard),
        ("originator id from another AS", &[0x80, 9, 4, 10, 0, 0, 1], Discard),
        ("IPv6 extended community of 8 octets", &[0xC0, 25, 8, 0, 0, 0, 0, 0, 0, 0, 0], TreatAsWithdraw),
        ("MP_UNREACH of 2 octets", &[0x80, 15, 2, 0, 2], Reset),
        ("MP_UNREACH of an unknown family", &[0x80, 15, 5, 0x40, 4, 71, 1, 2], Ok),
        ("MP_UNREACH with a prefix of 129 bits", &[0x80, 15, 4, 0, 2, 1, 129], Reset),
        ("MP_REACH beyond the list", &[0x80, 14, 200, 0, 2, 1], Reset),
        ("MP_REACH with a next hop of 5 octets", &[0x80, 14, 10, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0], Reset),
        ("AIGP", &[0x80, 26, 11, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9], Ok),
        ("AIGP of 12 octets in a TLV of 11", &[0x80, 26, 12, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9, 0], Discard),
    ];
    for (name, attribute, expected) in cases {
        assert_eq!(outcome(&update_of(&[ORIGIN, AS_PATH, NEXT_HOP, attribute])), expected, "{name}");
    }
}

#[test]
fn severest_fault_counts_and_says_where_it_is() {
    let octets = update_of(&[ORIGIN, &[0x40, 6, 1, 0], AS_PATH, NEXT_HOP, &[0xC0, 8, 1, 0], &[0x80, 4, 1, 0]]);
    let fault = update::decode(&octets, &context()).expect("the session stays").fault.expect("there is one");
    assert_eq!((fault.attribute, fault.reaction), (8, Reaction::TreatAsWithdraw));
    assert_eq!(fault.offset, 19 + 4 + ORIGIN.len() + 4 + AS_PATH.len() + NEXT_HOP.len());
}

#[test]
fn two_multiprotocol_attributes_of_a_kind_end_the_session() {
    let end_of_rib: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    assert_eq!(outcome(&update_of(&[ORIGIN, AS_PATH, NEXT_HOP, end_of_rib, end_of_rib])), Outcome::Reset);
}

/// RFC 7606 §5.2: a withdrawal that would be the reaction has nothing to withdraw.
#[test]
fn damage_beside_nothing_reachable_ends_the_session() {
    let without_prefixes = |attributes: &[&[u8]]| {
        let mut octets = update_of(attributes);
        octets.truncate(octets.len() - 5);
        message::finish(&mut octets, 0);
        outcome(&octets)
    };
    let unreach: &[u8] = &[0x80, 15, 3, 0, 2, 1];
    let bad_med: &[u8] = &[0x80, 4, 3, 0, 0, 1];
    assert_eq!(without_prefixes(&[unreach, bad_med]), Outcome::Reset);
    assert_eq!(without_prefixes(&[bad_med]), Outcome::Reset);
    assert_eq!(without_prefixes(&[unreach, &[0x40, 6, 1, 0]]), Outcome::Discard);
    assert_eq!(without_prefixes(&[&[0xC0, 15, 3, 0, 2, 1]]), Outcome::TreatAsWithdraw, "MP_UNREACH alone withdraws");
    assert_eq!(without_prefixes(&[&[0x80, 14, 5, 0x40, 4, 71, 0, 0], bad_med]), Outcome::TreatAsWithdraw);
}

#[test]
fn internal_peer_must_send_a_local_preference_and_may_send_cluster_lists() {
    let internal = update::Context { internal: true, ..context() };
    let local_pref: &[u8] = &[0x40, 5, 4, 0, 0, 0, 100];
    let cluster: &[u8] = &[0x80, 10, 4, 10, 0, 0, 1];
    let fault = |attributes: &[&[u8]]| {
        update::decode(&update_of(attributes), &internal).expect("the session stays").fault.map(|f| f.attribute)
    };
    assert_eq!(fault(&[ORIGIN, AS_PATH, NEXT_HOP]), Some(5));
    assert_eq!(fault(&[ORIGIN, AS_PATH, NEXT_HOP, local_pref, cluster]), None);
    assert_eq!(fault(&[ORIGIN, AS_PATH, NEXT_HOP, local_pref, &[0x80, 10, 3, 1, 2, 3]]), Some(10));
}
