use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    Asn, Community, ExtendedCommunity, LargeCommunity, LinkBandwidth, Origin,
    rib::{Attributes, Route},
    wire::message::{HEADER, Kind, frame},
};

fn encoding() -> Encoding {
    Encoding {
        local_as: Asn::new(4_200_000_001).expect("valid"),
        internal: false,
        four_octet: true,
        families: Families::from_iter(Families::EVERY),
        add_path: Families::NONE,
        only_to_customer: false,
        keeps_marked: false,
        own_as: None,
        next_hop4: Some([10, 0, 0, 1].into()),
        next_hop6: Some("2001:db8::1".parse().expect("valid")),
        link_local: Some("fe80::1".parse().expect("valid")),
        extended_next_hop: false,
        limit: message::MAX,
    }
}

fn context(encoding: &Encoding) -> update::Context {
    update::Context {
        four_octet: encoding.four_octet,
        internal: encoding.internal,
        families: encoding.families,
        add_path: encoding.add_path,
        extended_next_hop: encoding.extended_next_hop,
        ..update::Context::default()
    }
}

/// What a router knows: for each prefix and path the next hop and the rest of the attributes.
type Known = BTreeMap<(IpNet, u32), Heard>;

#[derive(Debug, Clone, PartialEq)]
struct Heard {
    hop: IpAddr,
    med: Option<u32>,
    local_pref: Option<u32>,
    communities: Vec<Community>,
    extended: Vec<ExtendedCommunity>,
    large: Vec<LargeCommunity>,
    only_to_customer: Option<u32>,
    path: Vec<u32>,
}

/// Reads everything that was rendered the way a router does; returns the number of UPDATEs.
fn hear(rendered: &Rendered, encoding: &Encoding, known: &mut Known) -> u64 {
    let mut updates = 0;
    for (chunk, count) in &rendered.chunks {
        let mut rest = &chunk[..];
        let before = updates;
        while !rest.is_empty() {
            let message = frame(rest, encoding.limit > message::MAX).expect("valid").expect("whole messages");
            rest = &rest[message.octets.len()..];
            if message.kind == Kind::Update {
                updates += 1;
                hear_update(message.octets, encoding, known);
            }
        }
        assert_eq!(updates - before, *count, "the chunk says how many UPDATEs it has");
    }
    updates
}

fn hear_update(octets: &[u8], encoding: &Encoding, known: &mut Known) {
    let update = update::decode(octets, &context(encoding)).expect("valid");
    assert_eq!(update.fault, None);
    let a = &update.attributes;
    for (path, prefix) in update.withdrawn.iter().chain(a.unreach.into_iter().flat_map(|u| u.nlri.iter())) {
        assert!(known.remove(&(prefix, path)).is_some(), "{prefix} path {path} is withdrawn, but was never announced");
    }
    let heard = |hop| Heard {
        hop,
        med: a.med,
        local_pref: a.local_pref,
        communities: a.communities().collect(),
        extended: a.extended_communities().collect(),
        large: a.large_communities().collect(),
        only_to_customer: a.only_to_customer,
        path: a.path().collect(),
    };
    for (path, prefix) in update.announced.iter() {
        known.insert((prefix, path), heard(a.next_hop.expect("mandatory").into()));
    }
    if let Some(reach) = a.reach {
        for (path, prefix) in reach.nlri.iter() {
            known.insert((prefix, path), heard(reach.next_hop.global));
        }
    }
}

fn expected(routes: &[Route], encoding: &Encoding) -> Known {
    let mut paths: BTreeMap<IpNet, Vec<&Arc<Attributes>>> = BTreeMap::new();
    for route in routes {
        let paths = paths.entry(route.prefix).or_default();
        if paths.last().is_none_or(|last| *last != &route.attributes) {
            paths.push(&route.attributes);
        }
    }
    let mut known = Known::new();
    for (prefix, paths) in paths {
        let family = if prefix.addr().is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        let several = encoding.add_path.contains(family);
        let skipped = if several { 0 } else { paths.len() - 1 };
        for (n, attributes) in paths.iter().skip(skipped).enumerate() {
            if let Some(hop) = encoding.next_hop(family, attributes) {
                let id = if several { u32::try_from(n).expect("few") + 1 } else { 0 };
                known.insert((prefix, id), heard_of(attributes, hop.global, encoding));
            }
        }
    }
    known
}

fn heard_of(a: &Attributes, hop: IpAddr, encoding: &Encoding) -> Heard {
    let asn = encoding.local_as.value();
    let count = if encoding.internal { 0 } else { 1 + usize::from(a.prepend) };
    let mut extended = a.extended_communities.clone();
    extended.retain(|c| encoding.internal || c.is_transitive());
    extended.extend(a.link_bandwidth.map(|b| b.community(encoding.local_as)));
    Heard {
        hop,
        med: a.med,
        local_pref: encoding.internal.then(|| a.local_pref.unwrap_or(100)),
        communities: a.communities.clone(),
        extended,
        large: a.large_communities.clone(),
        only_to_customer: a.only_to_customer.map(Asn::value).or(encoding.only_to_customer.then_some(asn)),
        path: vec![asn; count],
    }
}

fn attributes() -> impl Strategy<Value = Arc<Attributes>> {
    let hop = prop_oneof![
        3 => Just(None),
        1 => Just(Some(IpAddr::from([192, 0, 2, 9]))),
        1 => Just(Some("2001:db8::9".parse().expect("valid"))),
    ];
    let lists = (prop::collection::vec(any::<u32>(), 0..3), prop::collection::vec(any::<u64>(), 0..3), any::<bool>());
    let numbers = (any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u8>>());
    let weight = prop::option::of((0..1000u16, any::<bool>()));
    (hop, any::<u8>(), lists, numbers, weight).prop_map(|(next_hop, prepend, lists, numbers, weight)| {
        let (communities, extended, large) = lists;
        let bandwidth = |(n, transitive): (u16, bool)| LinkBandwidth::new(f32::from(n), transitive).expect("valid");
        Arc::new(Attributes {
            origin: Origin::Igp,
            next_hop,
            prepend,
            med: numbers.0.map(u32::from),
            local_pref: numbers.1.map(u32::from),
            communities: communities.into_iter().map(Community).collect(),
            extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
            link_bandwidth: weight.map(bandwidth),
            large_communities: if large { vec![LargeCommunity(1, 2, 3)] } else { Vec::new() },
            only_to_customer: numbers.2.and_then(|n| Asn::new(n.into()).ok()),
        })
    })
}

/// Few prefixes, so that sets overlap, and few sets of attributes, so that routes share them.
fn routes() -> impl Strategy<Value = Vec<Route>> {
    prop::collection::vec(attributes(), 1..4).prop_flat_map(|sets| {
        let prefix = prop_oneof![
            (0..40u8, 20..=32u8).prop_map(|(n, l)| IpNet::new([10, 0, n, n].into(), l).expect("valid").trunc()),
            (0..40u16, 40..=128u8)
                .prop_map(|(n, l)| { IpNet::new([0x2001, 0xdb8, n, 0, 0, 0, 0, n].into(), l).expect("valid").trunc() }),
        ];
        let route = (prefix, 0..sets.len()).prop_map(move |(prefix, n)| Route { prefix, attributes: sets[n].clone() });
        prop::collection::vec(route, 0..60)
    })
}

fn change(from: Option<&Routes>, to: &Routes) -> Change {
    Change { from: from.cloned(), to: to.clone(), refresh: Families::NONE, marked: false }
}

proptest! {
    #[test]
    fn router_knows_exactly_the_last_set_whatever_came_before(
        sets in prop::collection::vec(routes(), 1..5),
        limit in prop_oneof![Just(message::MAX), Just(message::MAX_EXTENDED)],
        [four_octet, internal, only_to_customer, extended_next_hop] in any::<[bool; 4]>(),
        [families, add_path] in [(); 2].map(|()| prop::collection::vec(prop::sample::select(&Families::EVERY[..]), 0..4)),
    ) {
        let (families, add_path) = (families.into_iter().collect(), add_path.into_iter().collect());
        let encoding =
            Encoding { limit, four_octet, internal, only_to_customer, extended_next_hop, families, add_path, ..encoding() };
        let (mut known, mut from, mut renders) = (Known::new(), None, Renders::default());
        for routes in sets {
            let list = || routes.iter().map(|route| (route.prefix, &route.attributes));
            let to = Routes::after(from.as_ref().unwrap_or(&Routes::default()), list());
            let rendered = renders.render(&change(from.as_ref(), &to), &encoding);
            hear(&rendered, &encoding, &mut known);
            prop_assert_eq!(&known, &expected(&routes, &encoding));
            // Equal paths count once where what stood between them is not carried.
            let mut told: Vec<_> = known.iter().map(|((prefix, _), heard)| (prefix, heard)).collect();
            told.dedup();
            prop_assert_eq!(told.len(), rendered.advertised.len());
            let again: Routes = routes.into_iter().collect();
            prop_assert!(renders.render(&change(Some(&to), &again), &encoding).chunks.is_empty(), "an equal set is no change");
            from = Some(to);
        }
    }
}

/// A change on its own.
fn once(change: &Change, encoding: &Encoding) -> Rendered {
    render(change, encoding, false).0
}

fn many(count: u32, v6: bool) -> Routes {
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
        let rendered = once(&change(None, &routes), &encoding());
        let updates = hear(&rendered, &encoding(), &mut known);
        assert_eq!(known.len(), 10_000);
        let most = 10_000 * octets / (message::MAX as u64 - 100) + 1 + 2;
        assert!(updates <= most, "{updates} UPDATEs where {most} are enough");
        let rendered = once(&change(Some(&many(10_000, v6)), &Routes::default()), &encoding());
        assert!(hear(&rendered, &encoding(), &mut known) <= most);
        assert!(known.is_empty());
    }
}

#[test]
fn refresh_repeats_the_family_between_its_marks() {
    let routes = many(3, false);
    let refresh = [Family::Ipv4Unicast].into_iter().collect();
    let change = Change { from: Some(routes.clone()), to: routes, refresh, marked: true };
    let rendered = once(&change, &encoding());
    let (chunk, _) = &rendered.chunks[0];
    let first = frame(chunk, false).expect("valid").expect("complete");
    assert_eq!(message::decode_refresh(first.octets), Ok(Refresh::Begin(Family::Ipv4Unicast)));
    let last = &chunk[chunk.len() - HEADER - 4..];
    assert_eq!(message::decode_refresh(last), Ok(Refresh::End(Family::Ipv4Unicast)));
    let mut known = Known::new();
    hear(&rendered, &encoding(), &mut known);
    assert_eq!(known.len(), 3);
}

/// Peers do not come up at once: what the first was sent is written and gone before the next one asks.
#[test]
fn sixty_four_peers_of_a_group_take_one_encoding() {
    let (mut renders, routes) = (Renders::default(), many(10_000, false));
    let octets = |renders: &mut Renders, encoding: &Encoding| {
        let rendered = renders.render(&change(None, &routes), encoding);
        rendered.chunks.iter().map(|(chunk, _)| chunk.as_ptr()).collect::<Vec<_>>()
    };
    let first = octets(&mut renders, &encoding());
    for _ in 1..64 {
        assert_eq!(octets(&mut renders, &encoding()), first);
    }
    let other = Encoding { next_hop4: Some([10, 0, 0, 9].into()), ..encoding() };
    assert_ne!(octets(&mut renders, &other), first);
    let changed = many(9_999, false);
    let one = renders.render(&change(Some(&routes), &changed), &encoding());
    let same = renders.render(&change(Some(&routes), &changed), &encoding());
    assert!(Arc::ptr_eq(&one, &same));
    drop((routes, one, same));
    for _ in 0..2 {
        renders.render(&change(None, &changed), &encoding());
    }
    assert_eq!(renders.renders.len(), 2, "what was made of a set goes with it");
}

#[test]
fn large_as_stands_in_as4_path_for_a_peer_of_two_octets() {
    let old = Encoding { four_octet: false, ..encoding() };
    let rendered = once(&change(None, &many(1, false)), &old);
    let octets = &rendered.chunks[0].0;
    let message = frame(octets, false).expect("valid").expect("complete");
    let update = update::decode(message.octets, &context(&old)).expect("valid");
    let path = |p: Option<crate::wire::AsPath<'_>>| p.map(|p| p.numbers().collect::<Vec<_>>());
    assert_eq!(path(update.attributes.as_path), Some(vec![23456]));
    assert_eq!(path(update.attributes.as4_path), Some(vec![4_200_000_001]));
}

/// Two paths to one prefix, then one of them, then none.
#[test]
fn paths_to_one_prefix_are_numbered_and_withdrawn_one_by_one() {
    let path = |hop: [u8; 4]| Route {
        prefix: "192.0.2.1/32".parse().expect("valid"),
        attributes: Attributes { next_hop: Some(hop.into()), ..Attributes::default() }.into(),
    };
    let add_path = Encoding { add_path: Families::from_iter(Families::EVERY), ..encoding() };
    let tables =
        [vec![path([10, 0, 0, 7]), path([10, 0, 0, 8])], vec![path([10, 0, 0, 7])], vec![]].map(Routes::from_iter);
    let hops = |encoding: &Encoding, known: &mut Known, from, to| {
        let rendered = once(&change(from, to), encoding);
        let updates = hear(&rendered, encoding, known);
        (updates, known.iter().map(|((_, id), heard)| (*id, heard.hop.to_string())).collect::<Vec<_>>())
    };
    let [both, one, none] = &tables;
    let mut known = Known::new();
    let (_, told) = hops(&add_path, &mut known, None, both);
    assert_eq!(told, [(1, "10.0.0.7".to_string()), (2, "10.0.0.8".to_string())]);
    assert_eq!(hops(&add_path, &mut known, Some(both), one), (1, vec![(1, "10.0.0.7".to_string())]));
    assert_eq!(hops(&add_path, &mut known, Some(one), none), (1, vec![]));
    let (_, told) = hops(&encoding(), &mut known, None, both);
    assert_eq!(told, [(0, "10.0.0.8".to_string())], "without ADD-PATH the last one counts");
}
