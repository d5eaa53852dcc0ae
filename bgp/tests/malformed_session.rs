//! What a session answers to malformed messages: it stays, or it ends with exactly this NOTIFICATION. One case per
//! known weakness of real routers, and the neighbours of each.

#[path = "support/dialogue.rs"]
mod dialogue;
#[path = "support/rfc7606.rs"]
mod rfc7606;

use std::ops::RangeInclusive;

use dialogue::{
    Dialogue, EXTENDED, INTERNAL, OLD, Outcome, PLAIN, Router, STAYS, WIDE, keepalive, message, notified, open,
    open_with,
};
use ironcast_bgp::speaker::{Received, State};
use rfc7606::{Reaction, Verdict, judge};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 1, 2];
const PREFIX: &[u8] = &[32, 198, 51, 100, 1];

/// The body of an UPDATE that withdraws nothing.
fn body(attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let list = attributes.concat();
    let length = u16::try_from(list.len()).expect("short").to_be_bytes();
    [&[0, 0], &length[..], &list, announced].concat()
}

/// An UPDATE of 198.51.100.1/32 with what every route needs and this attribute.
fn with(attribute: &[u8]) -> Vec<u8> {
    body(&[ORIGIN, AS_PATH, NEXT_HOP, attribute], PREFIX)
}

/// What became of the prefix of an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Announced,
    Withdrawn,
    /// Nothing was said of it.
    Unheard,
}

fn route(dialogue: &Dialogue) -> Route {
    match dialogue.received.last() {
        Some(Received::Announce { .. }) => Route::Announced,
        Some(Received::Withdraw { .. }) => Route::Withdrawn,
        _ => Route::Unheard,
    }
}

/// Says the UPDATE on a session of its own, and compares with the rules of RFC 7606 as they are written down in
/// `support/rfc7606.rs`.
fn check(router: &Router, body: &[u8], name: &str) -> Outcome {
    let mut dialogue = Dialogue::established(router);
    let outcome = dialogue.say(&message(2, body));
    let counted = dialogue.counters().treated_as_withdraw;
    let verdict = judge(body, &router.session());
    let right = match (&outcome, &verdict.stays) {
        (Outcome::Notified { code: 3, subcode, .. }, _) => verdict.resets.contains(subcode),
        (Outcome::In(State::Established), Some(range)) if counted > 0 => range.contains(&Reaction::TreatAsWithdraw),
        (Outcome::In(State::Established), Some(range)) => *range.start() < Reaction::TreatAsWithdraw,
        _ => false,
    };
    assert!(right, "{name}: {outcome:?}, {counted} withdrawn, instead of {verdict:?}: {body:02x?}");
    if outcome == STAYS {
        assert_eq!(dialogue.say(&keepalive()), STAYS, "{name}");
    }
    outcome
}

/// The attributes that broke real routers, beside what every route needs.
#[rustfmt::skip]
const KEPT: [(&str, &[u8], Route); 31] = [
    ("no damage", &[], Route::Announced),
    ("ORIGIN of length 0 is not the first but a second one", &[0x40, 1, 0], Route::Announced),
    ("attribute cut by the end of the list", &[0x40, 5, 4, 0, 0], Route::Withdrawn),
    ("one octet of an attribute", &[0x40], Route::Withdrawn),
    ("two octets of an attribute", &[0x80, 4], Route::Withdrawn),
    ("extended length with one octet left", &[0x90, 4, 0], Route::Withdrawn),
    ("extended length of 65,535", &[0x90, 4, 0xFF, 0xFF, 0], Route::Withdrawn),
    ("communities of 3 octets", &[0xC0, 8, 3, 0, 1, 0], Route::Withdrawn),
    ("communities of 5 octets", &[0xC0, 8, 5, 0, 1, 0, 1, 0], Route::Withdrawn),
    ("communities of none", &[0xC0, 8, 0], Route::Withdrawn),
    ("extended communities of 7 octets", &[0xC0, 16, 7, 0, 2, 0, 0, 0, 0, 0], Route::Withdrawn),
    ("large communities of 11 octets", &[0xC0, 32, 11, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0], Route::Withdrawn),
    ("AGGREGATOR of 6 octets where AS numbers have four", &[0xC0, 7, 6, 0xFC, 0x59, 10, 0, 0, 1], Route::Announced),
    ("ATOMIC_AGGREGATE with a value", &[0x40, 6, 1, 0], Route::Announced),
    ("MED of 5 octets", &[0x80, 4, 5, 0, 0, 0, 0, 1], Route::Withdrawn),
    ("MED that claims to be transitive", &[0xC0, 4, 4, 0, 0, 0, 1], Route::Withdrawn),
    ("LOCAL_PREF from another AS", &[0x40, 5, 4, 0, 0, 0, 100], Route::Announced),
    ("AS4_PATH where AS numbers have four octets", &[0xC0, 17, 6, 2, 1, 0, 0, 0xFC, 0x59], Route::Announced),
    ("tunnel encapsulation whose TLV overruns it", &[0xC0, 23, 6, 0, 1, 0xFF, 0xFF, 1, 2], Route::Withdrawn),
    ("tunnel encapsulation whose sub-TLV overruns its TLV", &[0xC0, 23, 6, 0, 8, 0, 2, 1, 9], Route::Withdrawn),
    ("tunnel encapsulation of none", &[0xC0, 23, 0], Route::Withdrawn),
    ("BGP entropy label, deprecated, of none", &[0xC0, 28, 0], Route::Announced),
    ("BGP entropy label, deprecated, with rubbish", &[0xC0, 28, 3, 0xFF, 0xFF, 0xFF], Route::Announced),
    ("ATTR_SET with an attribute that overruns it", &[0xC0, 128, 7, 0, 0, 0xFC, 0x59, 0x40, 1, 0xFF], Route::Withdrawn),
    ("unknown, well-known", &[0x40, 250, 1, 0], Route::Withdrawn),
    ("unknown, optional, partial", &[0xE0, 250, 1, 0], Route::Announced),
    ("attribute 0", &[0xC0, 0, 0], Route::Announced),
    ("attribute 255", &[0xC0, 255, 0], Route::Announced),
    ("MP_REACH of an unknown SAFI within IPv6", &[0x80, 14, 9, 0, 2, 200, 4, 1, 2, 3, 4, 0], Route::Announced),
    ("MP_REACH of flow specification with rubbish", &[0x80, 14, 7, 0, 1, 133, 0, 0, 0xFF, 0xFF], Route::Announced),
    ("MP_UNREACH of BGP-LS with rubbish", &[0x80, 15, 6, 0x40, 4, 71, 0xFF, 0xFF, 0xFF], Route::Announced),
];

#[test]
fn session_stays_and_the_route_is_announced_or_withdrawn_as_rfc_7606_asks() {
    for (name, attribute, expected) in KEPT {
        let mut dialogue = Dialogue::established(&PLAIN);
        assert_eq!(dialogue.say(&message(2, &with(attribute))), STAYS, "{name}");
        assert_eq!(route(&dialogue), expected, "{name}");
        check(&PLAIN, &with(attribute), name);
    }
}

/// Lists that replace what every route needs.
#[test]
fn damage_to_what_every_route_needs_withdraws_the_route() {
    let cases: [(&str, [&[u8]; 3]); 11] = [
        ("ORIGIN of length 0", [&[0x40, 1, 0], AS_PATH, NEXT_HOP]),
        ("ORIGIN 3", [&[0x40, 1, 1, 3], AS_PATH, NEXT_HOP]),
        ("ORIGIN that claims to be optional", [&[0xC0, 1, 1, 0], AS_PATH, NEXT_HOP]),
        ("no ORIGIN", [&[], AS_PATH, NEXT_HOP]),
        ("AS_PATH with an empty segment", [ORIGIN, &[0x40, 2, 2, 2, 0], NEXT_HOP]),
        ("AS_PATH with a segment beyond it", [ORIGIN, &[0x40, 2, 6, 2, 2, 0, 0, 0xFC, 0x59], NEXT_HOP]),
        ("AS_PATH with half an AS", [ORIGIN, &[0x40, 2, 4, 2, 1, 0, 0], NEXT_HOP]),
        ("AS_PATH with one octet behind its segment", [ORIGIN, &[0x40, 2, 7, 2, 1, 0, 0, 0xFC, 0x59, 2], NEXT_HOP]),
        ("AS_PATH with a segment of type 9", [ORIGIN, &[0x40, 2, 6, 9, 1, 0, 0, 0xFC, 0x59], NEXT_HOP]),
        ("NEXT_HOP of 3 octets", [ORIGIN, AS_PATH, &[0x40, 3, 3, 10, 0, 1]]),
        ("no NEXT_HOP", [ORIGIN, AS_PATH, &[]]),
    ];
    for (name, attributes) in cases {
        let update = body(&attributes, PREFIX);
        let mut dialogue = Dialogue::established(&PLAIN);
        assert_eq!(dialogue.say(&message(2, &update)), STAYS, "{name}");
        assert_eq!(route(&dialogue), Route::Withdrawn, "{name}");
        check(&PLAIN, &update, name);
    }
}

#[test]
fn aggregator_has_the_size_of_the_negotiated_as_numbers() {
    let old_path: &[u8] = &[0x40, 2, 4, 2, 1, 0xFC, 0x59];
    let (six, eight): (&[u8], &[u8]) =
        (&[0xC0, 7, 6, 0xFC, 0x59, 10, 0, 0, 1], &[0xC0, 7, 8, 0, 0, 0xFC, 0x59, 10, 0, 0, 1]);
    let verdict = |router: &Router, path, aggregator| {
        let update = body(&[ORIGIN, path, NEXT_HOP, aggregator], PREFIX);
        assert_eq!(check(router, &update, "aggregator"), STAYS);
        judge(&update, &router.session())
    };
    let starts_with = |verdict: Verdict, reaction| verdict.stays.is_some_and(|range| *range.start() == reaction);
    assert!(starts_with(verdict(&OLD, old_path, six), Reaction::Nothing));
    assert!(starts_with(verdict(&OLD, old_path, eight), Reaction::Discard));
    assert!(starts_with(verdict(&PLAIN, AS_PATH, six), Reaction::Discard));
    assert!(starts_with(verdict(&PLAIN, AS_PATH, eight), Reaction::Nothing));
}

/// MP_REACH_NLRI of 2001:db8::/32 by 2001:db8::1, with its header and its next hop's length as given.
fn reach(header: &[u8], next_hop_length: u8, nlri: &[u8]) -> Vec<u8> {
    let hop = [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let value = [&[0, 2, 1, next_hop_length][..], &hop, &[0], nlri].concat();
    [header, &[value.len() as u8], &value].concat()
}

const V6: &[u8] = &[32, 0x20, 1, 0xD, 0xB8];

#[test]
fn prefixes_that_cannot_be_read_end_the_session_with_the_subcode_of_their_rfc() {
    let good = reach(&[0x80, 14], 16, V6);
    let mp = |attribute: &[u8]| body(&[ORIGIN, AS_PATH, attribute], &[]);
    assert_eq!(check(&PLAIN, &mp(&good), "nothing wrong"), STAYS);
    assert_eq!(check(&PLAIN, &mp(&reach(&[0x80, 14], 16, &[])), "zero prefixes"), STAYS);
    let twice = [&good[..], &good].concat();
    let cases: [(&str, Vec<u8>, u8); 16] = [
        ("damage and no prefix to withdraw", body(&[ORIGIN, AS_PATH, &[0x80, 4, 1, 0]], &[]), 1),
        ("list cut within an attribute and no prefix to withdraw", body(&[ORIGIN, &[0x40, 2, 9, 2]], &[]), 1),
        ("MP_REACH twice", mp(&twice), 1),
        ("MP_UNREACH twice", body(&[&[0x80, 15, 3, 0, 2, 1], &[0x80, 15, 3, 0, 2, 1]], &[]), 1),
        ("next hop beyond the attribute", mp(&reach(&[0x80, 14], 255, V6)), 9),
        ("next hop of 15 octets", mp(&reach(&[0x80, 14], 15, V6)), 9),
        ("next hop of none", mp(&reach(&[0x80, 14], 0, V6)), 9),
        ("MP_REACH of 3 octets", mp(&[0x80, 14, 3, 0, 2, 1]), 9),
        ("MP_REACH of none", mp(&[0x80, 14, 0]), 9),
        ("MP_REACH without the reserved octet", mp(&[0x80, 14, 8, 0, 1, 1, 4, 10, 0, 1, 2]), 9),
        ("MP_REACH beyond the list", mp(&[0x80, 14, 200, 0, 2, 1]), 9),
        ("IPv6 prefix of 129 bits", mp(&reach(&[0x80, 14], 16, &[129; 18])), 10),
        ("IPv6 prefix cut short", mp(&reach(&[0x80, 14], 16, &[64, 0x20, 1])), 10),
        ("IPv4 prefix of 33 bits", body(&[ORIGIN, AS_PATH, NEXT_HOP], &[33, 1, 1, 1, 1, 1]), 10),
        ("withdrawn routes beyond the message", vec![0, 9, 0, 0], 1),
        ("attributes beyond the message", vec![0, 0, 0, 9, 0x40], 1),
    ];
    for (name, update, subcode) in cases {
        // RFC 4271 §6.3: the attribute, as far as it goes, where it is the attribute that is wrong.
        let list = usize::from(u16::from_be_bytes([update[2], update[3]]));
        let damaged = if subcode == 9 { &update[4 + ORIGIN.len() + AS_PATH.len()..4 + list] } else { &[] };
        assert_eq!(check(&PLAIN, &update, name), notified(3, subcode, damaged), "{name}");
    }
}

/// Every octet of each case and its length fields one less and one more, each of its bits flipped, each octet
/// dropped, each end cut: nothing ends the session but what RFC 7606 lets end it.
#[test]
fn neighbours_of_every_case_get_what_the_rules_ask_for_and_never_more() {
    let mut updates: Vec<(Router, Vec<u8>)> = KEPT.iter().map(|(_, a, _)| (PLAIN, with(a))).collect();
    let everything: [&[u8]; 7] = [
        &[0x80, 4, 4, 0, 0, 0, 1],
        &[0xC0, 7, 8, 0, 0, 0xFC, 0x59, 10, 0, 0, 1],
        &[0xC0, 8, 8, 0xFC, 0x59, 0, 1, 0xFF, 0xFF, 0xFF, 1],
        &[0xC0, 16, 8, 0, 2, 0xFC, 0x59, 0, 0, 0, 1],
        &[0xD0, 32, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xD, 0xB8],
        &reach(&[0x80, 14], 16, V6),
    ];
    let local_pref: &[u8] = &[0x40, 5, 4, 0, 0, 0, 100];
    let cluster: &[u8] = &[0x80, 10, 4, 10, 0, 0, 1];
    let all = [&[ORIGIN, AS_PATH, NEXT_HOP][..], &everything].concat();
    updates.push((PLAIN, body(&all, PREFIX)));
    updates.push((EXTENDED, body(&all, PREFIX)));
    let path: &[u8] = &[0, 0, 0, 7];
    let wide_reach = reach(&[0x80, 14], 16, &[path, V6].concat());
    updates.push((WIDE, body(&[ORIGIN, AS_PATH, NEXT_HOP, &wide_reach], &[path, PREFIX].concat())));
    updates.push((INTERNAL, body(&[&all[..], &[local_pref, cluster]].concat(), PREFIX)));
    let old: &[u8] = &[0x40, 2, 4, 2, 1, 0xFC, 0x59];
    let as4: &[u8] = &[0xC0, 17, 6, 2, 1, 0, 1, 0, 1];
    let as4_aggregator: &[u8] = &[0xC0, 18, 8, 0, 1, 0, 1, 10, 0, 0, 1];
    updates.push((OLD, body(&[ORIGIN, old, NEXT_HOP, as4, as4_aggregator], PREFIX)));
    let mut count = 0;
    for (router, update) in &updates {
        for near in neighbours(update) {
            check(router, &near, "a neighbour");
            count += 1;
        }
    }
    assert!(count > 10_000, "{count}");
}

fn neighbours(update: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for at in 0..update.len() {
        let changed = |octet: u8| {
            let mut near = update.to_vec();
            near[at] = octet;
            near
        };
        found.extend((0..8).map(|bit| changed(update[at] ^ 1 << bit)));
        found.push(changed(update[at].wrapping_add(1)));
        found.push(changed(update[at].wrapping_sub(1)));
        let mut dropped = update.to_vec();
        dropped.remove(at);
        found.push(dropped);
        found.push(update[..at].to_vec());
    }
    found.retain(|near| near.len() >= 4); // a shorter message is the frame's business
    found
}

/// A message whose header says what it wants.
fn framed(length: u16, kind: u8, octets: usize) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind);
    out.resize(octets, 0);
    out
}

#[test]
fn header_that_breaks_a_rule_ends_the_session_and_says_which() {
    let cases: [(&str, &Router, Vec<u8>, Outcome); 14] = [
        ("bad marker", &PLAIN, vec![0; 19], notified(1, 1, &[])),
        ("marker wrong in its last octet", &PLAIN, [&[0xFF; 15][..], &[0xFE, 0, 19, 4]].concat(), notified(1, 1, &[])),
        ("length 0", &PLAIN, framed(0, 4, 19), notified(1, 2, &[0, 0])),
        ("length 18", &PLAIN, framed(18, 4, 19), notified(1, 2, &[0, 18])),
        ("KEEPALIVE of 20", &PLAIN, framed(20, 4, 20), notified(1, 2, &[0, 20])),
        ("UPDATE of 22", &PLAIN, framed(22, 2, 22), notified(1, 2, &[0, 22])),
        ("4,097 without extended messages", &PLAIN, framed(4097, 2, 4097), notified(1, 2, &[0x10, 1])),
        ("65,535 without extended messages", &PLAIN, framed(65535, 2, 19), notified(1, 2, &[0xFF, 0xFF])),
        ("KEEPALIVE of 4,097 with them", &EXTENDED, framed(4097, 4, 4097), notified(1, 2, &[0x10, 1])),
        ("OPEN of 4,097 with them", &EXTENDED, framed(4097, 1, 4097), notified(1, 2, &[0x10, 1])),
        ("type 0", &PLAIN, framed(19, 0, 19), notified(1, 3, &[0])),
        ("type 6", &PLAIN, framed(19, 6, 19), notified(1, 3, &[6])),
        ("ROUTE-REFRESH of 22", &PLAIN, framed(22, 5, 22), notified(7, 1, &framed(22, 5, 22))),
        ("ROUTE-REFRESH of 24", &PLAIN, framed(24, 5, 24), notified(7, 1, &framed(24, 5, 24))),
    ];
    for (name, router, octets, expected) in cases {
        assert_eq!(Dialogue::established(router).say(&octets), expected, "{name}");
    }
}

/// RFC 4271 §6.4 forbids to answer what a NOTIFICATION says; one whose length is wrong says nothing yet (§6.1).
#[test]
fn notification_is_not_answered_unless_its_length_is_wrong() {
    for length in [18u16, 19, 20] {
        let outcome = Dialogue::established(&PLAIN).say(&framed(length, 3, 21));
        assert_eq!(outcome, notified(1, 2, &length.to_be_bytes()));
    }
    assert_eq!(Dialogue::established(&PLAIN).say(&framed(21, 3, 21)), Outcome::Silent);
    let nonsense = message(3, &[[99, 99].as_slice(), &[0xFF; 500]].concat());
    assert_eq!(Dialogue::established(&PLAIN).say(&nonsense), Outcome::Silent);
}

#[test]
fn refresh_of_what_nobody_knows_is_ignored() {
    for body in [[0, 1, 0, 200], [0x40, 4, 0, 71], [0, 1, 255, 1], [0, 2, 3, 1]] {
        assert_eq!(Dialogue::established(&PLAIN).say(&message(5, &body)), STAYS, "{body:?}");
    }
}

#[test]
fn open_that_breaks_a_rule_is_refused_with_its_subcode() {
    let plain = |parameters: &[u8]| open_with(dialogue::THEIR_AS, parameters);
    let changed = |at: usize, octets: &[u8]| {
        let mut out = open(&PLAIN);
        out[at..at + octets.len()].copy_from_slice(octets);
        out
    };
    let cases: [(&str, Vec<u8>, Outcome); 13] = [
        ("version 3", changed(19, &[3]), notified(2, 1, &[0, 4])),
        ("AS 0", open_with(0, &[0]), notified(2, 2, &[])),
        ("another AS", open_with(64999, &[0]), notified(2, 2, &[])),
        ("hold time of 1 s", changed(22, &[0, 1]), notified(2, 6, &[])),
        ("hold time of 2 s", changed(22, &[0, 2]), notified(2, 6, &[])),
        ("identifier 0.0.0.0", changed(24, &[0, 0, 0, 0]), notified(2, 3, &[])),
        ("optional parameters beyond the message", plain(&[9, 2, 2, 2, 0]), notified(2, 0, &[])),
        ("optional parameters that end before the message", plain(&[0, 2, 2, 2, 0]), notified(2, 0, &[])),
        ("parameter beyond the parameters", plain(&[4, 2, 9, 2, 0]), notified(2, 0, &[])),
        ("parameter of one octet", plain(&[1, 2]), notified(2, 0, &[])),
        ("capability that lies about its length", plain(&[4, 2, 2, 65, 4]), notified(2, 0, &[])),
        ("authentication, deprecated", plain(&[2, 1, 0]), notified(2, 4, &[])),
        ("extended length beyond the message", plain(&[255, 255, 0, 200, 2, 0, 0]), notified(2, 0, &[])),
    ];
    for (name, octets, expected) in cases {
        let mut dialogue = Dialogue::connected(&PLAIN);
        assert_eq!(dialogue.say(&octets), expected, "{name}");
    }
}

/// RFC 9072 §2: the type octet 255 says that lengths are extended; the plain length beside it says nothing.
#[test]
fn extended_parameters_are_read_whatever_the_plain_length_says() {
    let opened = |parameters: &[u8]| Dialogue::connected(&OLD).say(&open_with(dialogue::THEIR_AS, parameters));
    let confirmed = Outcome::In(State::OpenConfirm);
    assert_eq!(opened(&[255, 255, 0, 0]), confirmed, "an extended length of 0");
    assert_eq!(opened(&[255, 255, 0, 5, 2, 0, 2, 2, 0]), confirmed);
    assert_eq!(opened(&[7, 255, 0, 5, 2, 0, 2, 2, 0]), confirmed, "the plain length is nobody's business");
    let twice = opened(&[255, 255, 0, 6, 255, 0, 3, 2, 0, 0]);
    assert!(matches!(twice, Outcome::Notified { code: 2, .. }), "type 255 within: {twice:?}");
}

#[test]
fn every_neighbour_of_an_open_is_confirmed_or_refused_with_an_open_error() {
    let whole = open(&EXTENDED);
    let mut confirmed = 0;
    for near in neighbours(&whole[19..]).iter().filter(|near| near.len() >= 10) {
        let mut dialogue = Dialogue::connected(&EXTENDED);
        match dialogue.say(&message(1, near)) {
            Outcome::In(State::OpenConfirm) => confirmed += 1,
            Outcome::Notified { code: 2, .. } => {}
            other => panic!("{other:?}: {near:02x?}"),
        }
    }
    assert!(confirmed > 50, "{confirmed}");
}

#[test]
fn half_a_message_waits_and_the_hold_time_ends_it() {
    let mut dialogue = Dialogue::established(&PLAIN);
    let update = message(2, &with(&[]));
    for octet in &update[..update.len() - 1] {
        assert_eq!(dialogue.say(&[*octet]), STAYS);
    }
    assert_eq!((dialogue.unread(), route(&dialogue)), (update.len() - 1, Route::Unheard));
    assert_eq!(dialogue.say(&update[update.len() - 1..]), STAYS);
    assert_eq!((dialogue.unread(), route(&dialogue)), (0, Route::Announced));
    assert_eq!(dialogue.say(&update[..30]), STAYS);
    let hold = std::time::Duration::from_secs(90);
    assert_eq!(dialogue.wait(hold), notified(4, 0, &[]));
}

#[test]
fn written_rules_tell_what_must_be_from_what_may_be() {
    let range = |attribute: &[u8]| judge(&with(attribute), &PLAIN.session()).stays.expect("no reset");
    let only = |reaction: Reaction| -> RangeInclusive<Reaction> { reaction..=Reaction::TreatAsWithdraw };
    assert_eq!(range(&[]), only(Reaction::Nothing), "an AS path may hold AS 0, a next hop be no host's");
    assert_eq!(range(&[0x40, 6, 1, 0]), only(Reaction::Discard));
    assert_eq!(range(&[0xC0, 8, 1, 0]), only(Reaction::TreatAsWithdraw));
}
