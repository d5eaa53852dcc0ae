use super::*;
use crate::{
    Family,
    wire::{
        Families,
        capability::{GracefulRestart, LongLived},
    },
};

fn open() -> Open {
    let families = Families::from_iter(Families::EVERY);
    Open {
        asn: Asn::new(4_200_000_001).expect("valid"),
        hold_time: HoldTime::DEFAULT,
        id: RouterId::new([10, 0, 0, 1].into()).expect("valid"),
        capabilities: Capabilities {
            multiprotocol: Some(families),
            route_refresh: true,
            four_octet_as: Some(4_200_000_001),
            graceful_restart: Some(GracefulRestart {
                restarting: true,
                notification: false,
                seconds: 120,
                families,
                forwarding: families,
            }),
            long_lived: vec![
                LongLived { family: Family::Ipv6Unicast, forwarding: true, seconds: 0xFF_FFFF },
                LongLived { family: Family::Ipv4Unicast, forwarding: false, seconds: 86_400 },
            ],
            add_path_send: families,
            add_path_receive: [Family::Ipv6Unicast].into_iter().collect(),
            role: Some(3),
            ..Capabilities::default()
        },
    }
}

/// An OPEN with the given optional parameters, from their plain length on.
fn with_parameters(parameters: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = message::start(&mut out, Kind::Open);
    out.extend_from_slice(&[4, 0xFC, 0x59, 0, 90, 10, 0, 1, 2]);
    out.extend_from_slice(parameters);
    message::finish(&mut out, start);
    out
}

#[test]
fn what_is_sent_reads_back() {
    let mut out = Vec::new();
    open().encode(&mut out);
    assert_eq!(out[20..22], 23456u16.to_be_bytes(), "AS_TRANS stands in the two-octet field");
    assert_eq!(decode(&out), Ok(open()));
}

#[test]
fn extended_parameters_read_like_plain_ones() {
    let plain = decode(&with_parameters(&[4, 2, 2, 2, 0])).expect("valid");
    let extended = decode(&with_parameters(&[255, 255, 0, 5, 2, 0, 2, 2, 0])).expect("valid");
    assert!(plain.capabilities.route_refresh);
    assert_eq!(plain, extended);
}

#[test]
fn damaged_parameters_are_told_with_their_offset() {
    let cases: [(&[u8], usize, ErrorKind); 10] = [
        (&[9, 2, 2, 2, 0], 29, ErrorKind::OpenTruncated), // longer than the message
        (&[4, 2, 9, 2, 0], 31, ErrorKind::OpenTruncated), // parameter longer than the list
        (&[2, 2, 0, 0], 31, ErrorKind::OpenTruncated),    // list ends before the message
        (&[255, 255, 0], 30, ErrorKind::OpenTruncated),   // half of the extended length
        (&[4, 2, 2, 2, 7], 33, ErrorKind::OpenTruncated), // capability longer than its parameter
        (&[3, 9, 1, 0], 29, ErrorKind::Parameter(9)),
        (&[255, 255, 0, 4, 255, 0, 1, 0], 32, ErrorKind::Parameter(255)), // extended twice
        (&[255, 255, 0, 10, 2, 0, 2, 2, 0, 255, 0, 2, 2, 0], 37, ErrorKind::Parameter(255)),
        (&[0, 255, 0, 5, 2, 0, 2, 2, 0], 29, ErrorKind::OpenTruncated), // length 0 says that there are none
        (&[1, 2], 29 + 1, ErrorKind::OpenTruncated),
    ];
    for (parameters, offset, kind) in cases {
        let mut error = decode(&with_parameters(parameters)).expect_err("damaged");
        if kind == ErrorKind::OpenTruncated {
            assert!((29..34).contains(&error.offset), "{parameters:?}: {error}");
            error.offset = offset;
        }
        assert_eq!(error, DecodeError { offset, kind }, "{parameters:?}");
    }
}

#[test]
fn extended_length_of_zero_is_no_parameter_and_the_plain_length_is_not_asked() {
    assert_eq!(decode(&with_parameters(&[255, 255, 0, 0])).map(|o| o.capabilities), Ok(Capabilities::default()));
    for plain in [1, 4, 254] {
        let open = decode(&with_parameters(&[plain, 255, 0, 5, 2, 0, 2, 2, 0])).expect("valid");
        assert!(open.capabilities.route_refresh, "{plain}");
    }
}

#[test]
fn capabilities_are_written_extended_from_the_octet_on_where_they_must_be() {
    for count in [0, 1, 62, 63, 64, 300] {
        // Unknown ones of four octets each, and a known one at the end.
        let mut list = [200, 2, 1, 1].repeat(count);
        list.extend_from_slice(&[2, 0]);
        let mut parameters = Vec::new();
        write_capabilities(&list, &mut parameters);
        let extended = parameters[1] == EXTENDED;
        assert_eq!(extended, list.len() + 2 >= 255, "{count}");
        assert!(decode(&with_parameters(&parameters)).expect("valid").capabilities.route_refresh, "{count}");
    }
}

#[test]
fn long_lived_family_counts_once_and_an_unknown_one_not_at_all() {
    let family = |afi: u8, safi: u8, seconds: u8| [0, afi, safi, 0x80, 0, 0, seconds];
    let list = [family(1, 1, 7), family(1, 1, 9), family(1, 128, 5), family(2, 1, 3)].concat();
    let (length, cut) = (u8::try_from(list.len()).expect("short"), [0, 2, 1]);
    let value = [&[71, length + 3][..], &list, &cut].concat();
    let parameters = [&[length + 7, 2, length + 5][..], &value].concat();
    let open = decode(&with_parameters(&parameters)).expect("valid");
    let told: Vec<_> = open.capabilities.long_lived.iter().map(|l| (l.family, l.seconds)).collect();
    assert_eq!(told, [(Family::Ipv4Unicast, 7), (Family::Ipv6Unicast, 3)]);
}

#[test]
fn capability_of_a_wrong_length_is_left_out() {
    let open = decode(&with_parameters(&[10, 2, 8, 65, 2, 0, 1, 69, 2, 0, 1])).expect("valid");
    assert_eq!(open.capabilities, Capabilities::default());
    assert_eq!(open.asn.value(), 0xFC59);
}

#[test]
fn values_that_no_session_can_use_are_refused() {
    let cases = [(19, 3, ErrorKind::Version(3)), (23, 2, ErrorKind::HoldTime(2))];
    for (at, octet, kind) in cases {
        let mut octets = with_parameters(&[0]);
        octets[at] = octet;
        assert_eq!(decode(&octets).expect_err("refused").kind, kind);
    }
    let mut octets = with_parameters(&[0]);
    octets[24..28].fill(0);
    assert_eq!(decode(&octets).expect_err("refused").kind, ErrorKind::Identifier);
    octets[20..22].fill(0);
    assert_eq!(decode(&octets).expect_err("refused").kind, ErrorKind::AsZero);
}
