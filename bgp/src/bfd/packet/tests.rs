use proptest::prelude::*;

use super::{DecodeErrorKind as Kind, *};

/// A plain packet of a session in Init with every interval different.
const PLAIN: [u8; 24] = [
    0x21, 0xA8, 3, 24, // version 1, diag 1; Init, P, C; mult; length
    0, 0, 0, 1, 0, 0, 0, 2, // discriminators
    0, 0, 0x27, 0x10, 0, 0, 0xC3, 0x50, 0, 1, 0x86, 0xA0, // 10 ms, 50 ms, 100 ms
];

fn header() -> Header {
    Header {
        diag: Diag::DETECTION_TIME_EXPIRED,
        state: State::Init,
        poll: true,
        final_: false,
        control_plane_independent: true,
        demand: false,
        detect_mult: NonZeroU8::new(3).expect("not 0"),
        my_discr: NonZeroU32::MIN,
        your_discr: 2,
        desired_min_tx: 10_000,
        required_min_rx: 50_000,
        required_min_echo_rx: 100_000,
    }
}

/// `PLAIN` with a section behind it, A bit and length set.
fn with_section(section: &[u8]) -> Vec<u8> {
    let mut octets = [&PLAIN, section].concat();
    octets[1] |= 0x04;
    octets[3] = octets.len() as u8;
    octets
}

fn sha1_section(length: u8) -> Vec<u8> {
    let mut section = vec![0xAA; 28];
    section[..4].copy_from_slice(&[5, length, 9, 0]);
    section
}

fn changed(mut octets: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        octets[*at] = *value;
    }
    octets
}

#[test]
fn layout_is_the_one_of_rfc_5880() {
    assert_eq!(Datagram::new(&header()).as_ref(), PLAIN);
    assert_eq!(Packet::decode(&PLAIN).expect("valid").header, header());
}

/// Captured at 3 × 50 ms on a fresh link.
#[test]
fn packets_of_other_implementations_are_read() {
    let octets = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    };
    // state, poll, final, desired, required, echo
    let cases = [
        // BIRD 2.0.12: Up, steady.
        ("20c0031871c2a19f43b0425c0000c3500000c35000000000", (State::Up, false, false, 50_000, 50_000, 0)),
        // FRR 8.4.4: Init; Up with P; the answer with F.
        ("208003187828f3aaea57bf8f000f4240000f42400000c350", (State::Init, false, false, 1_000_000, 1_000_000, 50_000)),
        ("20e003187828f3aaea57bf8f0000c3500000c3500000c350", (State::Up, true, false, 50_000, 50_000, 50_000)),
        ("20d003187828f3aaea57bf8f0000c3500000c3500000c350", (State::Up, false, true, 50_000, 50_000, 50_000)),
    ];
    for (text, want) in cases {
        let octets = octets(text);
        let header = Packet::decode(&octets).expect("valid").header;
        let intervals = (header.desired_min_tx, header.required_min_rx, header.required_min_echo_rx);
        assert_eq!((header.state, header.poll, header.final_, intervals.0, intervals.1, intervals.2), want, "{text}");
        assert_eq!(Datagram::new(&header).as_ref(), octets, "{text}");
    }
}

#[test]
fn password_section_is_read() {
    let password = with_section(&[1, 6, 7, b'a', b'b', b'c']);
    let auth = Packet::decode(&password).expect("valid").auth;
    assert_eq!(auth, Some(AuthSection::Password { key_id: 7, password: b"abc" }));
}

#[test]
fn every_rule_is_refused_at_its_octet() {
    let plain = || PLAIN.to_vec();
    let password = |length: u8, octets: &[u8]| with_section(&[&[1, length, 0], octets].concat());
    let cases: &[(&str, Vec<u8>, usize, Kind)] = &[
        ("empty", vec![], 0, Kind::Truncated),
        ("23 octets", plain()[..23].to_vec(), 23, Kind::Truncated),
        ("version 0", changed(plain(), &[(0, 0x01)]), 0, Kind::Version(0)),
        ("version 2", changed(plain(), &[(0, 0x41)]), 0, Kind::Version(2)),
        ("length 23", changed(plain(), &[(3, 23)]), 3, Kind::LengthTooSmall(23)),
        ("length 0", changed(plain(), &[(3, 0)]), 3, Kind::LengthTooSmall(0)),
        ("length 25", changed(plain(), &[(3, 25)]), 3, Kind::LengthBeyondPayload(25)),
        ("length 255", changed(plain(), &[(3, 255)]), 3, Kind::LengthBeyondPayload(255)),
        ("A bit, length 24", changed(plain(), &[(1, 0xAC)]), 3, Kind::LengthTooSmall(24)),
        ("A bit, length 25", changed(with_section(&[1]), &[]), 3, Kind::LengthTooSmall(25)),
        ("mult 0", changed(plain(), &[(2, 0)]), 2, Kind::DetectMultZero),
        ("multipoint", changed(plain(), &[(1, 0xA9)]), 1, Kind::Multipoint),
        ("my discriminator 0", changed(plain(), &[(7, 0)]), 4, Kind::MyDiscrZero),
        ("your 0 in Init", changed(plain(), &[(11, 0)]), 8, Kind::YourDiscrZero(State::Init)),
        ("your 0 in Up", changed(plain(), &[(1, 0xC0), (11, 0)]), 8, Kind::YourDiscrZero(State::Up)),
        ("password empty", password(3, &[]), 25, Kind::AuthLength(3)),
        ("password of 17", password(20, &[b'x'; 17]), 25, Kind::AuthLength(20)),
        ("password length 0", password(0, b"abc"), 25, Kind::AuthLength(0)),
        ("password length 2", password(2, b"abc"), 25, Kind::AuthLength(2)),
        ("password beyond packet", password(7, b"abc"), 25, Kind::AuthLength(7)),
        ("sha1 27", with_section(&sha1_section(27)), 25, Kind::AuthLength(27)),
        ("sha1 29", with_section(&sha1_section(29)), 25, Kind::AuthLength(29)),
        ("sha1 cut", with_section(&sha1_section(28)[..27]), 25, Kind::AuthLength(28)),
        ("unknown type, length 1", with_section(&[9, 1]), 25, Kind::AuthLength(1)),
        ("unknown type, too long", with_section(&[9, 3]), 25, Kind::AuthLength(3)),
    ];
    for (name, octets, offset, kind) in cases {
        assert_eq!(Packet::decode(octets), Err(DecodeError { offset: *offset, kind: *kind }), "{name}");
    }
}

#[test]
fn your_discriminator_may_be_zero_before_init() {
    for flags in [0x00, 0x40] {
        let octets = changed(PLAIN.to_vec(), &[(1, flags), (11, 0)]);
        assert!(Packet::decode(&octets).is_ok(), "flags {flags:02x}");
    }
}

#[test]
fn octets_behind_the_length_do_not_count() {
    let mut octets = PLAIN.to_vec();
    octets.extend([0xFF; 40]);
    assert_eq!(Packet::decode(&octets).expect("valid").raw, PLAIN);
}

#[test]
fn unknown_authentication_is_named() {
    let md5 = with_section(&[3, 24, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Packet::decode(&md5).expect("well-formed").auth, Some(AuthSection::Other(3)));
}

prop_compose! {
    fn any_header()(
        diag in 0u8..32, bits in 0u8..4, flags in any::<[bool; 4]>(), detect_mult: NonZeroU8, my_discr: NonZeroU32,
        your_discr: NonZeroU32, intervals in any::<[u32; 3]>(),
    ) -> Header {
        Header {
            diag: Diag(diag),
            state: State::from_bits(bits),
            poll: flags[0],
            final_: flags[1],
            control_plane_independent: flags[2],
            demand: flags[3],
            detect_mult,
            my_discr,
            your_discr: your_discr.get(),
            desired_min_tx: intervals[0],
            required_min_rx: intervals[1],
            required_min_echo_rx: intervals[2],
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(header in any_header(), key_id: u8, sequence: u32, digest: [u8; 20]) {
        let mut datagram = Datagram::new(&header);
        prop_assert_eq!(Packet::decode(datagram.as_ref()).expect("valid").header, header);
        datagram.push_sha1(AuthKind::MeticulousKeyedSha1, key_id, sequence, &digest);
        let packet = Packet::decode(datagram.as_ref()).expect("valid");
        prop_assert_eq!(packet.header, header);
        let section = AuthSection::Sha1 { meticulous: true, key_id, sequence, digest: &digest };
        prop_assert_eq!(packet.auth, Some(section));
        let mut datagram = Datagram::new(&header);
        datagram.push_password(key_id, &digest[..16]);
        let section = AuthSection::Password { key_id, password: &digest[..16] };
        prop_assert_eq!(Packet::decode(datagram.as_ref()).expect("valid").auth, Some(section));
    }

    #[test]
    fn no_octets_panic_and_errors_point_into_the_payload(octets: Vec<u8>, valid_start: bool) {
        let mut octets = octets;
        if valid_start {
            let start = [0x20, 0x44, 3, octets.len() as u8];
            octets.iter_mut().zip(start).for_each(|(octet, value)| *octet = value);
        }
        if let Err(error) = Packet::decode(&octets) {
            prop_assert!(error.offset <= octets.len());
        }
    }
}
