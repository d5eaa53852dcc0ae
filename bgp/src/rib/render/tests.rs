use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    Asn, Community, LargeCommunity, Origin,
    rib::Attributes,
    wire::message::{HEADER, Kind, frame},
};

fn encoding() -> Encoding {
    Encoding {
        local_as: Asn::new(4_200_000_001).expect("valid"),
        internal: false,
        four_octet: true,
        families: Families::from_iter(Families::EVERY),
        next_hop4: Some([10, 0, 0, 1].into()),
        next_hop6: Some("2001:db8::1".parse().expect("valid")),
        link_local: Some("fe80::1".parse().expect("valid")),
        extended_next_hop: false,
        add_path: Families::NONE,
        only_to_customer: false,
        limit: message::MAX,
    }
}

fn context(encoding: &Encoding) -> update::Context {
    update::Context {
        four_octet: encoding.four_octet,
        internal: encoding.internal,
        families: encoding.families,
        extended_next_hop: encoding.extended_next_hop,
        add_path: encoding.add_path,
        ..update::Context::default()
    }
}

/// What a router knows: for each prefix the next hop and the rest of the attributes.
type Known = BTreeMap<IpNet, (IpAddr, Option<u32>, Vec<Community>, Vec<LargeCommunity>, usize)>;

/// Reads everything that was rendered the way a router does; returns the number of UPDATEs.
fn hear(rendered: &Rendered, encoding: &Encoding, known: &mut Known) -> u64 {
    let mut updates = 0;
    for (chunk, count) in &rendered.chunks {
        let mut rest = &chunk[..];
        let before = updates;
        while !rest.is_empty() {
            let message = frame(rest, encoding.limit > message::MAX).expect("valid").expect("whole messages");
            rest = &rest[message.octets.len()..];
            if message.kind != Kind::Update {
                continue;
            }
            updates += 1;
            let update = update::decode(message.octets, &context(encoding)).expect("valid");
            assert_eq!(update.fault, None);
            for prefix in update.unreachable() {
                known.remove(&prefix);
            }
            let attributes = &update.attributes;
            for (prefix, hop) in update.reachable() {
                let hops = attributes.as_path.map_or(0, |p| p.numbers().count());
                let communities = attributes.communities().collect();
                let large = attributes.large_communities().collect();
                known.insert(prefix, (hop, attributes.med, communities, large, hops));
            }
        }
        assert_eq!(updates - before, *count, "the chunk says how many UPDATEs it has");
    }
    updates
}

fn expected(routes: &[Route], encoding: &Encoding) -> Known {
    let mut known = Known::new();
    for route in routes {
        let family = if route.prefix.addr().is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        let a = &route.attributes;
        match encoding.next_hop(family, a) {
            Some(hop) => known.insert(
                route.prefix,
                (hop.global, a.med, a.communities.clone(), a.large_communities.clone(), 1 + usize::from(a.prepend)),
            ),
            None => known.remove(&route.prefix),
        };
    }
    known
}

fn attributes() -> impl Strategy<Value = Arc<Attributes>> {
    let hop = prop_oneof![
        3 => Just(None),
        1 => Just(Some(IpAddr::from([192, 0, 2, 9]))),
        1 => Just(Some("2001:db8::9".parse().expect("valid"))),
    ];
    (hop, any::<Option<u8>>(), any::<u8>(), prop::collection::vec(any::<u32>(), 0..3), any::<bool>()).prop_map(
        |(next_hop, med, prepend, communities, large)| {
            Arc::new(Attributes {
                origin: Origin::Igp,
                next_hop,
                prepend,
                med: med.map(u32::from),
                local_pref: None,
                communities: communities.into_iter().map(Community).collect(),
                large_communities: if large { vec![LargeCommunity(1, 2, 3)] } else { Vec::new() },
            })
        },
    )
}

/// Few prefixes, so that sets overlap, and few sets of attributes, so that routes share them.
fn routes() -> impl Strategy<Value = Arc<[Route]>> {
    prop::collection::vec(attributes(), 1..4).prop_flat_map(|sets| {
        let prefix = prop_oneof![
            (0..40u8, 20..=32u8).prop_map(|(n, l)| IpNet::new([10, 0, n, n].into(), l).expect("valid").trunc()),
            (0..40u16, 40..=128u8)
                .prop_map(|(n, l)| { IpNet::new([0x2001, 0xdb8, n, 0, 0, 0, 0, n].into(), l).expect("valid").trunc() }),
        ];
        let route = (prefix, 0..sets.len()).prop_map(move |(prefix, n)| Route { prefix, attributes: sets[n].clone() });
        prop::collection::vec(route, 0..60).prop_map(Into::into)
    })
}

fn change(from: Option<&Arc<Table>>, to: &Arc<Table>) -> Change {
    Change { from: from.cloned(), to: to.clone(), refresh: Families::NONE, marked: false }
}

proptest! {
    #[test]
    fn router_knows_exactly_the_last_set_whatever_came_before(
        sets in prop::collection::vec(routes(), 1..5),
        limit in prop_oneof![Just(message::MAX), Just(message::MAX_EXTENDED)],
        four_octet in any::<bool>(),
    ) {
        let encoding = Encoding { limit, four_octet, ..encoding() };
        let (mut known, mut from) = (Known::new(), None);
        for routes in sets {
            let to = Arc::new(Table::new(routes.clone()));
            let rendered = render(&change(from.as_ref(), &to), &encoding);
            hear(&rendered, &encoding, &mut known);
            prop_assert_eq!(&known, &expected(&routes, &encoding));
            prop_assert_eq!(known.len(), rendered.advertised.len());
            let again = Arc::new(Table::new(routes));
            prop_assert!(render(&change(Some(&to), &again), &encoding).chunks.is_empty(), "an equal set is no change");
            from = Some(to);
        }
    }
}

fn many(count: u32, v6: bool) -> Arc<[Route]> {
    let attributes: Arc<Attributes> = Arc::default();
    let route = |n: u32| {
        let prefix = match v6 {
            false => IpNet::new(std::net::Ipv4Addr::from(0x0A00_0000 + n).into(), 32),
            true => IpNet::new(std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(), 128),
        };
        Route { prefix: prefix.expect("valid"), attributes: attributes.clone() }
    };
    (0..count).map(route).collect()
}

#[test]
fn routes_of_equal_attributes_fill_their_messages() {
    for (v6, octets) in [(false, 5), (true, 17)] {
        let routes = many(10_000, v6);
        let mut known = Known::new();
        let rendered = render(&change(None, &Arc::new(Table::new(routes))), &encoding());
        let updates = hear(&rendered, &encoding(), &mut known);
        assert_eq!(known.len(), 10_000);
        let most = 10_000 * octets / (message::MAX as u64 - 100) + 1 + 2;
        assert!(updates <= most, "{updates} UPDATEs where {most} are enough");
        let rendered = render(&change(Some(&Arc::new(Table::new(many(10_000, v6)))), &Arc::default()), &encoding());
        assert!(hear(&rendered, &encoding(), &mut known) <= most);
        assert!(known.is_empty());
    }
}

#[test]
fn refresh_repeats_the_family_between_its_marks() {
    let table = Arc::new(Table::new(many(3, false)));
    let refresh = [Family::Ipv4Unicast].into_iter().collect();
    let change = Change { from: Some(table.clone()), to: table, refresh, marked: true };
    let rendered = render(&change, &encoding());
    let (chunk, _) = &rendered.chunks[0];
    let first = frame(chunk, false).expect("valid").expect("complete");
    assert_eq!(message::decode_refresh(first.octets), Ok(Refresh::Begin(Family::Ipv4Unicast)));
    let last = &chunk[chunk.len() - HEADER - 4..];
    assert_eq!(message::decode_refresh(last), Ok(Refresh::End(Family::Ipv4Unicast)));
    let mut known = Known::new();
    hear(&rendered, &encoding(), &mut known);
    assert_eq!(known.len(), 3);
}

#[test]
fn peers_of_a_group_are_sent_the_same_octets() {
    let (mut renders, table) = (Renders::default(), Arc::new(Table::new(many(10, false))));
    let one = renders.render(&change(None, &table), &encoding());
    let same = renders.render(&change(None, &table), &encoding());
    assert!(Arc::ptr_eq(&one, &same));
    let other = Encoding { next_hop4: Some([10, 0, 0, 9].into()), ..encoding() };
    assert!(!Arc::ptr_eq(&one, &renders.render(&change(None, &table), &other)));
}

#[test]
fn large_as_stands_in_as4_path_for_a_peer_of_two_octets() {
    let old = Encoding { four_octet: false, ..encoding() };
    let rendered = render(&change(None, &Arc::new(Table::new(many(1, false)))), &old);
    let octets = &rendered.chunks[0].0;
    let message = frame(octets, false).expect("valid").expect("complete");
    let update = update::decode(message.octets, &context(&old)).expect("valid");
    let path = |p: Option<crate::wire::AsPath<'_>>| p.map(|p| p.numbers().collect::<Vec<_>>());
    assert_eq!(path(update.attributes.as_path), Some(vec![23456]));
    assert_eq!(path(update.attributes.as4_path), Some(vec![4_200_000_001]));
}
