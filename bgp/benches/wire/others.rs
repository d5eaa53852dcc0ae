//! The codecs of other crates, each in the way that its documentation shows. Encoding starts from the message that
//! the crate itself has parsed.

use std::{hint::black_box, net::IpAddr, str::FromStr};

use super::{Codec, Routes, Seen};

pub(crate) fn codecs(routes: &Routes) -> Vec<Codec<'_>> {
    let routecore = match routes.v6.is_empty() {
        true => routecore4(routes),
        false => routecore6(routes),
    };
    vec![zettabgp(routes), routecore, bgpkit(routes), netgauze(routes)]
}

fn seen(address: IpAddr, length: u8) -> u64 {
    let number = match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits() as u64,
    };
    number.wrapping_add(length.into())
}

fn sum(prefixes: impl Iterator<Item = u64>) -> u64 {
    prefixes.fold(0, u64::wrapping_add)
}

fn zettabgp(routes: &Routes) -> Codec<'_> {
    use ::zettabgp::prelude::*;
    let session = || {
        let id = [10, 0, 0, 1].into();
        let capabilities = vec![BgpCapability::SafiIPv4u, BgpCapability::SafiIPv6u, BgpCapability::CapASN32(64500)];
        BgpSessionParams::new(64500, 90, BgpTransportMode::IPv4, id, capabilities)
    };
    fn parse(session: &BgpSessionParams, octets: &[u8]) -> BgpUpdateMessage {
        let (kind, length) = session.decode_message_head(octets).unwrap();
        assert!(kind == BgpMessageType::Update);
        let mut update = BgpUpdateMessage::new();
        update.decode_from(session, &octets[19..19 + length]).unwrap();
        update
    }
    fn visit(prefixes: &BgpAddrs) -> u64 {
        match prefixes {
            BgpAddrs::IPV4U(list) => sum(list.iter().map(|p| seen(p.addr.into(), p.prefixlen))),
            BgpAddrs::IPV6U(list) => sum(list.iter().map(|p| seen(p.addr.into(), p.prefixlen))),
            _ => 0,
        }
    }
    let (to_parse, to_encode) = (session(), session());
    let known = parse(&to_encode, &routes.octets);
    let mut out = vec![0; 4096];
    Codec {
        name: "zettabgp",
        parse: Box::new(move || {
            let update = parse(&to_parse, black_box(&routes.octets));
            visit(&update.updates).wrapping_add(update.get_mpupdates().map_or(0, |mp| visit(&mp.addrs)))
        }),
        encode: Box::new(move || {
            let length = black_box(&known).encode_to(&to_encode, &mut out[19..]).unwrap();
            let length = to_encode.prepare_message_buf(&mut out, BgpMessageType::Update, length).unwrap();
            black_box(&out[..length]).len()
        }),
    }
}

/// Parses with every prefix as an element of its enum.
fn routecore_parse(octets: &[u8]) -> u64 {
    use routecore::bgp::{
        message::{SessionConfig, UpdateMessage},
        nlri::afisafi::{IsPrefix, Nlri},
    };
    let update = UpdateMessage::from_octets(octets, &SessionConfig::modern()).unwrap();
    black_box((update.origin().unwrap(), update.aspath().unwrap().map(|path| path.hops().count())));
    black_box(update.conventional_next_hop().unwrap());
    let prefixes = update.announcements().unwrap().map(|nlri| match nlri.unwrap() {
        Nlri::Ipv4Unicast(nlri) => nlri.prefix(),
        Nlri::Ipv6Unicast(nlri) => nlri.prefix(),
        _ => panic!("another family"),
    });
    sum(prefixes.map(|prefix| seen(prefix.addr(), prefix.len())))
}

macro_rules! routecore {
    ($name:ident, $nlri:ident, $list:ident) => {
        fn $name(routes: &Routes) -> Codec<'_> {
            use routecore::bgp::{
                message::{SessionConfig, UpdateMessage, update_builder::UpdateBuilder},
                nlri::afisafi::$nlri,
                path_attributes::PaMap,
            };
            let session = SessionConfig::modern();
            let known = UpdateMessage::from_octets(&routes.octets[..], &session).unwrap();
            let attributes = PaMap::from_update_pdu(&known).unwrap();
            let hop = routes.v6.first().map(|_| known.mp_next_hop().unwrap().unwrap());
            let prefixes: Vec<$nlri> = routes.$list.iter().map(|p| $nlri::from_str(&p.to_string()).unwrap()).collect();
            Codec {
                name: "routecore",
                parse: Box::new(|| routecore_parse(black_box(&routes.octets))),
                encode: Box::new(move || {
                    let mut builder: UpdateBuilder<Vec<u8>, $nlri> =
                        UpdateBuilder::from_attributes_builder(black_box(&attributes).clone());
                    builder.announcements_from_iter(prefixes.iter().cloned()).unwrap();
                    if let Some(hop) = hop {
                        builder.set_mp_nexthop(hop).unwrap();
                    }
                    black_box(builder.into_message(&session).unwrap()).octets().len()
                }),
            }
        }
    };
}
routecore!(routecore4, Ipv4UnicastNlri, v4);
routecore!(routecore6, Ipv6UnicastNlri, v6);

fn bgpkit(routes: &Routes) -> Codec<'_> {
    use bgpkit_parser::{
        models::{AsnLength, AttributeValue, BgpMessage, NetworkPrefix},
        parser::bgp::messages::parse_bgp_message,
    };
    use ipnet::IpNet;
    fn visit(prefixes: &[NetworkPrefix]) -> u64 {
        sum(prefixes.iter().map(|p| match p.prefix {
            IpNet::V4(prefix) => prefix.seen(),
            IpNet::V6(prefix) => prefix.seen(),
        }))
    }
    let octets = bytes::Bytes::copy_from_slice(&routes.octets);
    let known = parse_bgp_message(&mut octets.clone(), false, &AsnLength::Bits32).unwrap();
    Codec {
        name: "bgpkit-parser",
        parse: Box::new(move || {
            let message = parse_bgp_message(&mut black_box(&octets).clone(), false, &AsnLength::Bits32).unwrap();
            let BgpMessage::Update(update) = message else { panic!("another kind") };
            let reach = update.attributes.iter().map(|attribute| match attribute {
                AttributeValue::MpReachNlri(reach) => visit(&reach.prefixes),
                _ => 0,
            });
            sum(reach).wrapping_add(visit(&update.announced_prefixes))
        }),
        encode: Box::new(move || black_box(black_box(&known).encode(AsnLength::Bits32).unwrap()).len()),
    }
}

fn netgauze(routes: &Routes) -> Codec<'_> {
    use netgauze_bgp_pkt::{
        BgpMessage,
        path_attribute::{MpReach, PathAttributeValue},
        wire::deserializer::BgpParsingContext,
    };
    use netgauze_parse_utils::{WritablePdu, reader::SliceReader, traits::ParseFromWithOneInput};
    let mut context = BgpParsingContext::default();
    let known = BgpMessage::parse(&mut SliceReader::new(&routes.octets), &mut context).unwrap();
    let mut out = Vec::with_capacity(4096);
    Codec {
        name: "netgauze",
        parse: Box::new(move || {
            let message = BgpMessage::parse(&mut SliceReader::new(black_box(&routes.octets)), &mut context).unwrap();
            let BgpMessage::Update(update) = message else { panic!("another kind") };
            let v4 = sum(update.nlri().iter().map(|p| p.network().address().seen()));
            let reach = update.path_attributes().iter().map(|attribute| match attribute.value() {
                PathAttributeValue::MpReach(MpReach::Ipv6Unicast { nlri, .. }) => {
                    sum(nlri.iter().map(|p| p.network().address().seen()))
                }
                _ => 0,
            });
            sum(reach).wrapping_add(v4)
        }),
        encode: Box::new(move || {
            out.clear();
            black_box(&known).write(&mut out).unwrap();
            black_box(&out).len()
        }),
    }
}
