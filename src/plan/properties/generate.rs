//! Crowded worlds: few addresses, few names, everything overlaps and contradicts.

use std::{collections::BTreeSet, net::IpAddr};

use ironcast_bgp::Community;
use proptest::{
    collection::{btree_set, vec},
    option::weighted,
    prelude::*,
    sample::{select, subsequence},
};

use super::super::fixture::{World, advertisement, allocation, endpoint, ip, labels, node, peer, pool, port, selector};
use crate::types::{
    Advertisement, Endpoint, Family, FamilyPolicy, Node, Peer, Pool, Protocol, Service, ServiceKey, ServicePort,
    TrafficPolicy,
};

/// Sixteen addresses, and one that no pool has.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        8 => (0u8..8).prop_map(|n| IpAddr::from([192, 0, 2, n])),
        8 => (0u16..8).prop_map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n])),
        1 => Just(ip("203.0.113.1")),
    ]
}

fn range() -> impl Strategy<Value = String> {
    (0u8..8, 0u8..4, any::<bool>()).prop_map(|(first, more, six)| match (six, (first + more).min(7)) {
        (false, last) => format!("192.0.2.{first}-192.0.2.{last}"),
        (true, last) => format!("2001:db8::{first}-2001:db8::{last}"),
    })
}

fn a_pool(name: &'static str) -> BoxedStrategy<Pool> {
    let rule = weighted(0.4, (0u32..3, weighted(0.5, select(vec!["ns0", "ns1"])), any::<bool>()));
    (vec(range(), 1..4), weighted(0.8, Just(())), any::<bool>(), weighted(0.1, Just(())), rule)
        .prop_map(move |(ranges, auto, buggy, disabled, rule)| {
            let mut pool = pool(name, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
            (pool.auto_assign, pool.avoid_buggy_ips, pool.disabled) = (auto.is_some(), buggy, disabled.is_some());
            pool.allocation = rule.map(|(priority, namespace, labelled)| {
                let mut rule = allocation(priority);
                rule.namespaces.extend(namespace.map(ToString::to_string));
                rule.namespace_selectors.extend(labelled.then(|| selector("team", "a")));
                rule
            });
            pool
        })
        .boxed()
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let all = vec![port(80), port(443), ServicePort { protocol: Protocol::Udp, ..port(80) }];
    subsequence(all, 0..=3)
}

fn families() -> BoxedStrategy<(FamilyPolicy, Vec<Family>)> {
    use Family::{Ipv4, Ipv6};
    use FamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
    select(vec![
        (SingleStack, vec![Ipv4]),
        (SingleStack, vec![Ipv6]),
        (PreferDualStack, vec![Ipv4, Ipv6]),
        (PreferDualStack, vec![Ipv6, Ipv4]),
        (PreferDualStack, vec![Ipv4]),
        (RequireDualStack, vec![Ipv4, Ipv6]),
        (RequireDualStack, vec![Ipv6, Ipv4]),
        (SingleStack, vec![]),
    ])
    .boxed()
}

type Wishes = (Vec<IpAddr>, Option<&'static str>, Option<&'static str>);

fn wishes() -> BoxedStrategy<Wishes> {
    let addresses = prop_oneof![6 => Just(Vec::new()), 2 => vec![address()], 1 => vec(address(), 2..4)];
    (addresses, weighted(0.15, select(vec!["p0", "p1", "p9"])), weighted(0.5, select(vec!["k", "l", ""]))).boxed()
}

prop_compose! {
    fn a_service(name: String)(
        (namespace, created, load_balancer, deleting) in (select(vec!["ns0", "ns1"]), 0i64..3, 0u8..10, 0u8..10),
        class in weighted(0.1, select(vec!["ours", "other"])),
        (policy, families) in families(),
        (local, app, ports) in (any::<bool>(), select(vec!["web", "db"]), ports()),
        (requested_addresses, requested_pool, sharing_key) in wishes(),
        assigned in vec(address(), 0..3),
    ) -> Service {
        Service {
            key: ServiceKey::new(namespace, name.clone()),
            load_balancer: load_balancer > 0,
            deleting: deleting == 0,
            class: class.map(Into::into),
            families,
            family_policy: policy,
            traffic_policy: if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            ports,
            labels: labels(&[("app", app)]),
            selector: labels(&[("app", app)]),
            requested_addresses,
            requested_pool: requested_pool.map(Into::into),
            sharing_key: sharing_key.map(Into::into),
            assigned,
            ..super::super::fixture::service(&name, created)
        }
    }
}

pub(super) fn endpoints() -> BoxedStrategy<Vec<Endpoint>> {
    let one = (select(vec!["10.0.0.1", "fd00::1"]), select(vec!["n1", "n2"]), any::<[bool; 3]>()).prop_map(
        |(address, node, [ready, serving, terminating])| Endpoint {
            ready,
            serving,
            terminating,
            ..endpoint(address, node)
        },
    );
    vec(one, 0..4).boxed()
}

fn a_node(name: &'static str) -> BoxedStrategy<Node> {
    (weighted(0.3, address()), 0u8..10, any::<bool>())
        .prop_map(move |(own, state, rack)| Node {
            addresses: own.into_iter().chain([ip("198.51.100.1")]).collect(),
            ready: state != 0,
            network_unavailable: state == 1,
            labels: labels(if rack { &[("rack", "1")] } else { &[] }),
            ..node(name, "198.51.100.1")
        })
        .boxed()
}

fn a_peer(name: &'static str) -> BoxedStrategy<Peer> {
    let address = select(vec!["198.51.100.254", "2001:db8:ffff::1", "192.0.2.7"]);
    (address, any::<bool>(), weighted(0.4, 0u32..4), 0u8..5)
        .prop_map(move |(address, dual, budget, limited)| {
            let mut peer = peer(name, address);
            (peer.dual_stack, peer.prefix_budget) = (dual, budget);
            peer.node_selectors.extend((limited == 0).then(|| selector("rack", "1")));
            peer
        })
        .boxed()
}

fn an_advertisement(name: &'static str) -> BoxedStrategy<Advertisement> {
    let lengths = (select(vec![32u8, 32, 30, 24]), select(vec![128u8, 128, 126, 64]));
    let attributes =
        (weighted(0.3, 1u32..3), weighted(0.2, 1u32..3), 0u8..2, btree_set((0u32..3).prop_map(Community), 0..3));
    (lengths, attributes, any::<[bool; 5]>())
        .prop_map(move |(lengths, attributes, narrow)| {
            let mut advertisement = advertisement(name);
            (advertisement.aggregation_length, advertisement.aggregation_length_v6) = lengths;
            (advertisement.local_pref, advertisement.med, advertisement.prepend, advertisement.communities) =
                attributes;
            let [by_pool, by_label, by_service, by_node, by_peer] = narrow.map(usize::from);
            advertisement.pools = ["p0".to_string()].into_iter().take(by_pool).collect();
            advertisement.pool_selectors.extend(std::iter::repeat_n(selector("pool", "p1"), by_label));
            advertisement.service_selectors.extend(std::iter::repeat_n(selector("app", "web"), by_service));
            advertisement.node_selectors.extend(std::iter::repeat_n(selector("rack", "1"), by_node));
            advertisement.peers = ["t0".to_string()].into_iter().take(by_peer).collect();
            advertisement
        })
        .boxed()
}

fn services() -> BoxedStrategy<Vec<(Service, Vec<Endpoint>)>> {
    (0usize..9).prop_flat_map(|n| (0..n).map(|i| (a_service(format!("s{i}")), endpoints())).collect::<Vec<_>>()).boxed()
}

/// Any world.
pub(super) fn world() -> BoxedStrategy<World> {
    let pools = (weighted(0.9, a_pool("p0")), weighted(0.6, a_pool("p1")), weighted(0.3, a_pool("p2")));
    let peers = (weighted(0.9, a_peer("t0")), weighted(0.5, a_peer("t1")));
    let advertisements = (weighted(0.9, an_advertisement("a0")), weighted(0.5, an_advertisement("a1")));
    (services(), pools, (a_node("n1"), a_node("n2")), peers, advertisements, any::<bool>())
        .prop_map(|(services, pools, nodes, peers, advertisements, labelled)| {
            let mut world = World::default().node(&nodes.0).node(&nodes.1);
            world = [pools.0, pools.1, pools.2].into_iter().flatten().fold(world, World::pool);
            world = [peers.0, peers.1].into_iter().flatten().fold(world, World::peer);
            world = [advertisements.0, advertisements.1].into_iter().flatten().fold(world, World::advertise);
            if labelled {
                world.0.namespaces.insert("ns0".into(), labels(&[("team", "a")]));
            }
            services.into_iter().fold(world, |world, (service, endpoints)| world.serve(service, &endpoints))
        })
        .boxed()
}

/// A world where everything recorded is as planned.
pub(super) fn settled_world() -> BoxedStrategy<World> {
    world()
        .prop_map(|mut world| {
            for _ in 0..3 {
                let desired = world.plan();
                world.record(&desired);
            }
            world
        })
        .boxed()
}

/// The keys of a world's Services.
pub(super) fn keys(world: &World) -> BTreeSet<ServiceKey> {
    world.0.services.keys().cloned().collect()
}
