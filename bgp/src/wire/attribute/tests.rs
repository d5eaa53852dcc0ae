use super::{table::RULES, *};
use crate::{Family, wire::Families};

fn context(code: u8) -> Context {
    Context {
        four_octet: !matches!(code, AS4_PATH | AS4_AGGREGATOR),
        internal: matches!(code, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST),
        families: Families::from_iter([Family::Ipv4Unicast, Family::Ipv6Unicast]),
        local: Some([10, 0, 1, 1].into()),
        ..Context::default()
    }
}

/// A value of each attribute that nothing is wrong with.
fn valid(code: u8) -> Vec<u8> {
    let hop = [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    match code {
        ORIGIN => vec![2],
        AS_PATH | AS4_PATH => vec![2, 1, 0, 0, 0xFC, 0x59],
        ATOMIC_AGGREGATE => vec![],
        AGGREGATOR | AS4_AGGREGATOR | EXTENDED_COMMUNITIES => vec![0, 2, 0xFC, 0x59, 10, 0, 0, 1],
        MP_REACH => [&[0, 2, 1, 16][..], &hop, &[0, 64], &hop[..8]].concat(),
        MP_UNREACH => [&[0, 2, 1, 64], &hop[..8]].concat(),
        TUNNEL_ENCAPSULATION => vec![0, 1, 0, 3, 4, 1, 9],
        IPV6_EXTENDED_COMMUNITIES => [&[0, 2][..], &hop, &[0, 1]].concat(),
        AIGP => vec![1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9],
        LARGE_COMMUNITIES => vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        PREFIX_SID => vec![1, 0, 7, 0, 0, 0, 0, 0, 0, 1],
        ATTR_SET => vec![0, 0, 0xFC, 0x59, 0x40, 1, 1, 0],
        _ => vec![10, 0, 1, 2],
    }
}

/// Reads a list of attributes.
fn read<'a>(list: &'a [u8], context: &Context) -> Result<(PathAttributes<'a>, Option<Fault>), ErrorKind> {
    let (mut attributes, mut fault) = Default::default();
    decode(list, 23, context, &mut attributes, &mut fault).map(|_| (attributes, fault)).map_err(|e| e.kind)
}

/// What is done about one attribute that stands alone; `Err` is the end of the session.
fn reaction(flags: u8, code: u8, value: &[u8]) -> Result<Option<Reaction>, ErrorKind> {
    let mut list = Vec::new();
    encode(flags, code, value, &mut list);
    read(&list, &context(code)).map(|(_, fault)| fault.map(|f| f.reaction))
}

/// Reads a list of attributes, each of them by the table.
fn read_by_table<'a>(list: &'a [u8], context: &Context) -> Result<(PathAttributes<'a>, Option<Fault>), ErrorKind> {
    let (mut attributes, mut fault) = Default::default();
    let mut reader =
        Reader { attributes: &mut attributes, as4_aggregator: None, fault: &mut fault, seen: [0; 4], context };
    let mut rest = list;
    while let Some(next) = split(rest) {
        reader.read(&next, 23 + list.len() - rest.len()).map_err(|e| e.kind)?;
        rest = next.rest;
    }
    Ok((attributes, fault))
}

#[test]
fn usual_attributes_read_as_the_table_has_them() {
    let context = context(ORIGIN);
    for code in [ORIGIN, AS_PATH, NEXT_HOP, MP_REACH] {
        let good = valid(code);
        let values = [vec![], good[1..].to_vec(), [&good[..], &[0]].concat(), vec![0; good.len()], vec![3; 4], good];
        for (flags, value) in (0..=u8::MAX).flat_map(|flags| values.iter().map(move |value| (flags, value))) {
            let mut list = Vec::new();
            for _ in 0..2 {
                encode(flags & !EXTENDED, code, value, &mut list);
                encode(TRANSITIVE, ORIGIN, &[1], &mut list);
            }
            let list = &list;
            assert_eq!(read(list, &context), read_by_table(list, &context), "{flags:#x} {code} {value:?}");
        }
    }
}

/// The reactions of RFC 7606 §7 and of the attributes' own RFCs, once more and by hand: the table must say the same.
const EXPECTED: [(u8, u8, Result<Reaction, ()>, Reaction); 22] = {
    use Reaction::{Discard as D, TreatAsWithdraw as W};
    [
        (1, 0x40, Ok(W), W),
        (2, 0x40, Ok(W), W),
        (3, 0x40, Ok(W), W),
        (4, 0x80, Ok(W), W),
        (5, 0x40, Ok(W), W),
        (6, 0x40, Ok(D), W),
        (7, 0xC0, Ok(D), W),
        (8, 0xC0, Ok(W), W),
        (9, 0x80, Ok(W), W),
        (10, 0x80, Ok(W), W),
        (14, 0x80, Err(()), W),
        (15, 0x80, Err(()), W),
        (16, 0xC0, Ok(W), W),
        (17, 0xC0, Ok(D), W),
        (18, 0xC0, Ok(D), W),
        (23, 0xC0, Ok(W), W),
        (25, 0xC0, Ok(W), W),
        (26, 0x80, Ok(D), D),
        (32, 0xC0, Ok(W), W),
        (35, 0xC0, Ok(W), W),
        (40, 0xC0, Ok(D), D),
        (128, 0xC0, Ok(W), W),
    ]
};

#[test]
fn table_has_exactly_these_lines() {
    assert_eq!(RULES.map(|r| r.code), EXPECTED.map(|e| e.0));
}

#[test]
fn valid_value_is_no_fault_and_the_partial_bit_is_nobodys_business() {
    for (code, flags, ..) in EXPECTED {
        assert_eq!(reaction(flags, code, &valid(code)), Ok(None), "attribute {code}");
        assert_eq!(reaction(flags | PARTIAL, code, &valid(code)), Ok(None), "attribute {code}, partial");
    }
}

#[test]
fn each_wrong_flag_has_the_reaction_of_its_line() {
    for (code, flags, _, misflagged) in EXPECTED {
        for wrong in [flags ^ OPTIONAL, flags ^ TRANSITIVE, flags ^ (OPTIONAL | TRANSITIVE)] {
            assert_eq!(reaction(wrong, code, &valid(code)), Ok(Some(misflagged)), "attribute {code}, {wrong:#x}");
        }
    }
}

#[test]
fn each_wrong_length_has_the_reaction_of_its_line() {
    for (code, flags, malformed, _) in EXPECTED {
        let expected = malformed.map(Some);
        let value = valid(code);
        let shorter = value.split_last().map(|(_, shorter)| shorter.to_vec());
        let longer = [&value[..], &[0xFF]].concat();
        for wrong in shorter.into_iter().chain([longer]) {
            let told = reaction(flags, code, &wrong).map_err(|_| ());
            assert_eq!(told, expected, "attribute {code}, {} octets for {}", wrong.len(), value.len());
        }
        if !matches!(code, AS_PATH | ATOMIC_AGGREGATE) {
            assert_eq!(reaction(flags, code, &[]).map_err(|_| ()), expected, "attribute {code}, empty");
        }
    }
}

#[test]
fn values_out_of_their_range_are_malformed() {
    use Reaction::{Discard, TreatAsWithdraw};
    for (flags, code, value, expected) in [
        (0x40, ORIGIN, &[3][..], TreatAsWithdraw),
        (0x40, AS_PATH, &[1, 1, 0, 0, 0, 9], TreatAsWithdraw),
        (0x40, AS_PATH, &[3, 1, 0, 0, 0, 9], TreatAsWithdraw),
        (0x40, AS_PATH, &[2, 1, 0, 0, 0, 0], TreatAsWithdraw),
        (0x40, AS_PATH, &[2, 0], TreatAsWithdraw),
        (0x40, NEXT_HOP, &[0, 0, 0, 0], TreatAsWithdraw),
        (0x40, NEXT_HOP, &[224, 0, 0, 1], TreatAsWithdraw),
        (0x40, NEXT_HOP, &[255, 255, 255, 255], TreatAsWithdraw),
        (0x40, NEXT_HOP, &[10, 0, 1, 1], TreatAsWithdraw),
        (0xC0, AGGREGATOR, &[0, 0, 0, 0, 10, 0, 0, 1], Discard),
        (0xC0, AS4_AGGREGATOR, &[0, 0, 0, 0, 10, 0, 0, 1], Discard),
        (0xC0, AS4_PATH, &[2, 1, 0, 0, 0, 0], Discard),
    ] {
        assert_eq!(reaction(flags, code, value), Ok(Some(expected)), "attribute {code}, {value:?}");
    }
}

#[test]
fn attributes_from_somebody_who_may_not_send_them_are_discarded_even_when_damaged() {
    for code in [LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST, AS4_PATH, AS4_AGGREGATOR] {
        let foreign = Context { four_octet: true, internal: false, ..context(code) };
        for value in [valid(code), vec![1]] {
            let mut list = Vec::new();
            encode(0x40, code, &value, &mut list);
            let (read, fault) = read(&list, &foreign).expect("the session stays");
            assert_eq!(fault.map(|f| f.reaction), Some(Reaction::Discard), "attribute {code}");
            assert_eq!((read.local_pref, read.as4_path, read.aggregator), (None, None, None));
        }
    }
}

/// A list of attributes from a speaker of two-octet AS numbers.
fn narrow(attributes: &[(u8, u8, &[u8])]) -> (Vec<u32>, Option<Aggregator>) {
    let mut list = Vec::new();
    attributes.iter().for_each(|(flags, code, value)| encode(*flags, *code, value, &mut list));
    let (read, fault) = read(&list, &Context { four_octet: false, ..context(ORIGIN) }).expect("valid");
    assert_eq!(fault, None);
    (read.path().collect(), read.aggregator)
}

#[test]
fn what_two_octets_cannot_say_is_taken_from_the_wide_attributes() {
    let path: (_, _, &[u8]) = (0x40, AS_PATH, &[2, 2, 0, 9, 0x5B, 0xA0]);
    let as4_path: (_, _, &[u8]) = (0xC0, AS4_PATH, &[2, 1, 0, 1, 0, 0]);
    let trans: (_, _, &[u8]) = (0xC0, AGGREGATOR, &[0x5B, 0xA0, 10, 0, 0, 1]);
    let anew: (_, _, &[u8]) = (0xC0, AGGREGATOR, &[0, 9, 10, 0, 0, 1]);
    let wide: (_, _, &[u8]) = (0xC0, AS4_AGGREGATOR, &[0, 1, 0, 0, 10, 0, 0, 2]);
    let of = |asn, last| Some(Aggregator { asn, address: [10, 0, 0, last].into() });
    assert_eq!(narrow(&[path, as4_path]), (vec![9, 65536], None));
    assert_eq!(narrow(&[path, trans, as4_path, wide]), (vec![9, 65536], of(65536, 2)));
    assert_eq!(narrow(&[path, trans, as4_path]), (vec![9, 65536], of(23456, 1)));
    assert_eq!(narrow(&[path, anew, as4_path, wide]), (vec![9, 23456], of(9, 1)), "aggregated by who knows two octets");
    assert_eq!(narrow(&[path, as4_path, wide]), (vec![9, 65536], None), "no aggregator to stand for");
}

#[test]
fn long_path_is_split_into_segments_and_reads_back() {
    let asn = crate::Asn::new(4_200_000_001).expect("valid");
    for (count, four_octet) in [(0, true), (1, true), (255, true), (256, true), (256, false)] {
        let mut list = Vec::new();
        encode_as_path(AS_PATH, asn, count, four_octet, &mut list);
        let (read, fault) = read(&list, &Context { four_octet, ..context(ORIGIN) }).expect("valid");
        assert_eq!(fault, None);
        let expected = if four_octet { asn.value() } else { AS_TRANS };
        assert_eq!(read.path().collect::<Vec<_>>(), vec![expected; count]);
    }
}

#[test]
fn empty_list_is_not_written() {
    let mut out = Vec::new();
    encode_list::<4>(0xC0, COMMUNITIES, [].into_iter(), &mut out);
    assert!(out.is_empty());
}
