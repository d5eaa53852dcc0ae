//! Ours, as a session uses it: the frame is taken off the receive buffer, the UPDATE is checked whole as RFC 4271
//! and RFC 7606 ask, and every prefix is visited; the other way, attributes and prefixes go into a reused buffer.

use std::hint::black_box;

use ironcast_bgp::{
    Asn, Family, Origin,
    wire::{
        Families, NextHop,
        attribute::{self, TRANSITIVE},
        message, update,
    },
};

use super::{Codec, Routes, Seen};

pub(crate) fn codec(routes: &Routes) -> Codec<'_> {
    let context = update::Context {
        four_octet: true,
        families: Families::from_iter([Family::Ipv4Unicast, Family::Ipv6Unicast]),
        local: Some([10, 0, 1, 1].into()),
        ..update::Context::default()
    };
    let (mut out, mut update) = (Vec::new(), update::Update::default());
    Codec {
        name: "ironcast",
        parse: Box::new(move || parse(black_box(&routes.octets), &context, &mut update)),
        encode: Box::new(move || {
            out.clear();
            encode(black_box(routes), &mut out);
            black_box(&out).len()
        }),
    }
}

fn parse<'a>(octets: &'a [u8], context: &update::Context, update: &mut update::Update<'a>) -> u64 {
    let frame = message::frame(octets, false).unwrap().unwrap();
    update::decode_into(frame.octets, context, update).unwrap();
    assert!(update.fault.is_none());
    black_box(&update.attributes);
    let v4 = update.announced.v4().fold(0u64, |sum, (_, prefix)| sum.wrapping_add(prefix.seen()));
    let reach = update.attributes.reach.map(|r| r.nlri);
    reach.map_or(v4, |nlri| nlri.v6().fold(v4, |sum, (_, prefix)| sum.wrapping_add(prefix.seen())))
}

fn encode(routes: &Routes, out: &mut Vec<u8>) {
    let asn = Asn::new(routes.asn).unwrap();
    let attributes = |hop: Option<[u8; 4]>, list: &mut Vec<u8>| {
        attribute::encode_origin(Origin::Igp, list);
        attribute::encode_as_path(attribute::AS_PATH, asn, 1, true, list);
        if let Some(hop) = hop {
            attribute::encode_four(TRANSITIVE, attribute::NEXT_HOP, hop, list);
        }
    };
    if routes.v6.is_empty() {
        let hop = Some(routes.hop4.octets());
        update::encode_announce(|list: &mut Vec<u8>| attributes(hop, list), &routes.v4, message::MAX, out);
    } else {
        let hop = NextHop { global: routes.hop6.into(), link_local: None };
        update::encode_reach(&hop, |list: &mut Vec<u8>| attributes(None, list), &routes.v6, message::MAX, out);
    }
}
