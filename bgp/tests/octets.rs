//! Whatever a peer sends, the decoders answer; they never panic and never look beyond the message.

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    wire::{
        Families,
        capability::{Capabilities, GracefulRestart},
        message::{self, Kind, Refresh, frame},
        notification::Notification,
        open::{self, Open},
        update,
    },
};
use proptest::{collection::vec, prelude::*};

fn context() -> impl Strategy<Value = update::Context> {
    let families = || vec(prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)], 0..3);
    (any::<[bool; 3]>(), families(), families()).prop_map(|(flags, families, add_path)| update::Context {
        four_octet: flags[0],
        internal: flags[1],
        extended_next_hop: flags[2],
        families: Families::from_iter(families),
        add_path: Families::from_iter(add_path),
        local: Some([10, 0, 0, 1].into()),
    })
}

/// A message of the kind with any body.
fn message_of(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = message::start(&mut out, kind);
    out.extend_from_slice(body);
    message::finish(&mut out, start);
    out
}

/// Looks at everything that an UPDATE has.
fn walk(octets: &[u8], context: &update::Context) {
    let Ok(update) = update::decode(octets, context) else { return };
    let announced = update.announced_prefixes().count();
    assert!(update.reachable().count() <= announced);
    assert!(update.unreachable().count() + announced <= octets.len());
    let attributes = &update.attributes;
    let numbers = attributes.as_path.into_iter().chain(attributes.as4_path).flat_map(|p| p.numbers()).count();
    assert!(attributes.path().count() <= numbers);
    let communities = attributes.communities().count() + attributes.extended_communities().count();
    assert!(numbers + communities + attributes.large_communities().count() <= octets.len());
    if let Some(fault) = update.fault {
        assert!(fault.offset <= octets.len());
    }
}

/// Attribute lists that are nearly right: real codes, real flags, any values.
fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![8 => 1..=18u8, 4 => 23..=40u8, 1 => any::<u8>()];
    let one =
        (prop_oneof![Just(0x40u8), Just(0x80), Just(0xC0), any::<u8>()], code, vec(any::<u8>(), 0..40), any::<bool>());
    vec(one, 0..8).prop_map(|list| {
        let mut out = Vec::new();
        for (flags, code, value, honest) in list {
            let length = value.len() as u8 ^ if honest { 0 } else { 3 };
            if flags & 0x10 == 0 {
                out.extend_from_slice(&[flags, code, length]);
            } else {
                out.extend_from_slice(&[flags, code, 0, length]);
            }
            out.extend_from_slice(&value);
        }
        out
    })
}

fn an_open() -> impl Strategy<Value = Open> {
    let families =
        || vec(prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)], 0..3).prop_map(Families::from_iter);
    let restart = (any::<[bool; 2]>(), 0..4096u16, families()).prop_map(|(flags, seconds, families)| GracefulRestart {
        restarting: flags[0],
        notification: flags[1],
        seconds,
        families,
        forwarding: families,
    });
    let numbers = (1..=u32::MAX, 3..=u16::MAX, 1..=u32::MAX);
    let sets = (prop::option::of(restart), families(), families(), families());
    (numbers, sets, any::<[bool; 4]>(), any::<Option<u8>>()).prop_map(|((asn, hold, id), sets, flags, role)| {
        let (graceful_restart, multiprotocol, add_path_send, add_path_receive) = sets;
        Open {
            asn: Asn::new(asn).expect("not 0"),
            hold_time: HoldTime::new(hold).expect("at least 3"),
            id: RouterId::new(id.into()).expect("not 0"),
            capabilities: Capabilities {
                multiprotocol: Some(multiprotocol).filter(|m| !m.is_empty()),
                route_refresh: flags[0],
                enhanced_refresh: flags[1],
                extended_message: flags[2],
                extended_next_hop: flags[3],
                four_octet_as: Some(asn),
                graceful_restart,
                add_path_send,
                add_path_receive,
                role,
                ..Capabilities::default()
            },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_octets_are_framed_or_refused(octets in vec(any::<u8>(), 0..200), extended in any::<bool>()) {
        let mut octets = octets;
        let marker = octets.len().min(16);
        let _ = frame(&octets, extended);
        octets[..marker].fill(0xFF);
        if let Ok(Some(found)) = frame(&octets, extended) {
            prop_assert!(found.octets.len() <= octets.len());
        }
    }

    #[test]
    fn any_open_body_is_read_or_refused_at_an_octet_of_it(body in vec(any::<u8>(), 10..200)) {
        let mut body = body;
        body[0] = 4;
        let octets = message_of(Kind::Open, &body);
        if let Err(error) = open::decode(&octets) {
            prop_assert!(error.offset <= octets.len());
            let _ = error.notification(&octets).to_string();
        }
    }

    #[test]
    fn any_update_body_is_read_or_refused(body in vec(any::<u8>(), 4..300), context in context()) {
        walk(&message_of(Kind::Update, &body), &context);
    }

    #[test]
    fn nearly_right_attributes_are_read_or_refused(
        list in attributes(),
        nlri in vec(any::<u8>(), 0..20),
        context in context(),
    ) {
        let mut body = vec![0, 0];
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        body.extend_from_slice(&list);
        body.extend_from_slice(&nlri);
        walk(&message_of(Kind::Update, &body), &context);
    }

    #[test]
    fn any_notification_and_refresh_has_words(body in vec(any::<u8>(), 2..300)) {
        let _ = Notification::decode(&body).to_string();
        let _ = message::decode_refresh(&message_of(Kind::RouteRefresh, &body));
    }

    #[test]
    fn open_reads_back_as_it_was_written_and_every_prefix_of_it_is_incomplete(open in an_open()) {
        let mut octets = Vec::new();
        open.encode(&mut octets);
        for end in 0..octets.len() {
            prop_assert_eq!(frame(&octets[..end], false), Ok(None));
        }
        let mut read = open::decode(&octets).expect("our own");
        // A capability without families is the same as none.
        if open.capabilities.multiprotocol.is_none() {
            read.capabilities.multiprotocol = None;
        }
        prop_assert_eq!(read, open);
    }

    #[test]
    fn notification_reads_back(code in any::<u8>(), subcode in any::<u8>(), data in vec(any::<u8>(), 0..4075)) {
        let notification = Notification::new(code, subcode, &data);
        let mut octets = Vec::new();
        notification.encode(&mut octets);
        let found = frame(&octets, false).expect("valid").expect("complete");
        prop_assert_eq!(Notification::decode(found.body()), notification);
    }
}

#[test]
fn refresh_reads_back() {
    for refresh in
        [Refresh::Request(Family::Ipv4Unicast), Refresh::Begin(Family::Ipv6Unicast), Refresh::End(Family::Ipv6Unicast)]
    {
        let mut octets = Vec::new();
        message::encode_refresh(refresh, &mut octets);
        assert_eq!(message::decode_refresh(&octets), Ok(refresh));
    }
}
