//! Who is announced, to whom, with what.

use std::sync::Arc;

use ironcast_bgp::{Community, LargeCommunity};

use super::super::{Leaving, Settings, Withhold, fixture::*, nodes::EXCLUDE_LABEL, plan};
use crate::types::{Advertisement, Endpoint, Family, FamilyPolicy, Node, Service, Set, TrafficPolicy};

fn held(name: &str, address: &str) -> Service {
    Service { assigned: ips(&[address]), ..service(name, 1) }
}

#[test]
fn address_is_announced_only_once_it_is_recorded() {
    let mut world = World::usual().served(service("a", 1));
    let desired = world.plan();
    assert!(desired.exports["tor"].is_empty());
    assert_eq!(desired.reasons("a"), [(None, Withhold::AddressPending)]);
    world.record(&desired);
    let desired = world.plan();
    assert_eq!(desired.told("tor"), ["192.0.2.0/32"]);
    assert_eq!(desired.addresses, Set::from([ip("192.0.2.0")]));
    assert_eq!(*desired.behind[&"192.0.2.0/32".parse().expect("a prefix")], [key("a")]);
    assert!(desired.withheld.is_empty());
}

#[test]
fn local_policy_announces_only_beside_its_pods() {
    let service = Service { traffic_policy: TrafficPolicy::Local, ..held("a", "192.0.2.1") };
    let world = World::usual().serve(service, &[endpoint("10.0.2.1", "n2")]);
    assert_eq!(plan(&world.0, &settings("n2")).told("tor"), ["192.0.2.1/32"]);
    let elsewhere = plan(&world.0, &settings("n1"));
    assert!(elsewhere.told("tor").is_empty() && elsewhere.addresses.is_empty());
    assert_eq!(elsewhere.reasons("a"), [(None, Withhold::NoLocalEndpoints)]);
}

#[test]
fn cluster_policy_announces_as_long_as_some_endpoint_serves() {
    let dying = Endpoint { ready: false, serving: true, terminating: true, ..endpoint("10.0.2.1", "n2") };
    let dead = Endpoint { ready: false, serving: false, terminating: true, ..endpoint("10.0.2.1", "n2") };
    let world = |endpoint: Endpoint| World::usual().serve(held("a", "192.0.2.1"), &[endpoint]);
    assert_eq!(world(dying).plan().told("tor"), ["192.0.2.1/32"]);
    assert_eq!(world(dead).plan().reasons("a"), [(None, Withhold::NoEndpoints)]);
    let other_family = world(endpoint("fd00::1", "n2")).plan();
    assert_eq!(other_family.reasons("a"), [(None, Withhold::NoEndpoints)]);
}

#[test]
fn state_of_the_node_withholds_everything_and_keeps_answering() {
    let usual = node("n1", "198.51.100.1");
    let excluded = Node { labels: labels(&[(EXCLUDE_LABEL, "")]), ..usual.clone() };
    let cases = [
        (Node { ready: false, ..usual.clone() }, Withhold::NodeNotReady),
        (Node { network_unavailable: true, ..usual.clone() }, Withhold::NodeNetworkUnavailable),
        (excluded.clone(), Withhold::NodeLabeledExcludeBalancers),
    ];
    for (node, reason) in cases {
        let desired = World::usual().node(&node).served(held("a", "192.0.2.1")).plan();
        assert_eq!(desired.reasons("a"), [(None, reason)]);
        assert!(desired.told("tor").is_empty() && desired.behind.is_empty());
        assert_eq!(desired.addresses, Set::from([ip("192.0.2.1")]));
    }
    let world = World::usual().node(&excluded).served(held("a", "192.0.2.1"));
    let ignoring = Settings { ignore_exclude_label: true, ..settings("n1") };
    assert_eq!(plan(&world.0, &ignoring).told("tor"), ["192.0.2.1/32"]);
    let draining = Settings { drain: Leaving::Gone, ..ignoring };
    assert_eq!(plan(&world.0, &draining).reasons("a"), [(None, Withhold::Draining)]);
}

#[test]
fn label_that_excludes_every_node_is_a_problem() {
    let excluded = |name| Node { labels: labels(&[(EXCLUDE_LABEL, "")]), ..node(name, "198.51.100.9") };
    let some = World::usual().node(&excluded("n1"));
    assert!(some.plan().problems.is_empty());
    assert_eq!(some.node(&excluded("n2")).plan().problems.len(), 1);
}

#[test]
fn nothing_is_announced_without_an_advertisement() {
    let mut world = World::usual().served(held("a", "192.0.2.1"));
    world.0.advertisements.clear();
    assert_eq!(world.plan().reasons("a"), [(None, Withhold::NoMatchingAdvertisement)]);
}

#[test]
fn advertisement_selects_pools_services_nodes_and_peers() {
    let mut by_pool = advertisement("all");
    by_pool.pools.insert("other".into());
    let mut by_label = advertisement("all");
    by_label.pool_selectors.push(selector("pool", "main"));
    let mut by_service = advertisement("all");
    by_service.service_selectors.push(selector("app", "b"));
    let mut by_node = advertisement("all");
    by_node.node_selectors.push(selector("rack", "1"));
    let mut by_peer = advertisement("all");
    by_peer.peers.insert("elsewhere".into());
    let cases = [
        (by_pool, Some(Withhold::NoMatchingAdvertisement)),
        (by_label, None),
        (by_service, Some(Withhold::NoMatchingAdvertisement)),
        (by_node, Some(Withhold::NoMatchingAdvertisement)),
        (by_peer, Some(Withhold::NoPeer)),
    ];
    for (advertisement, reason) in cases {
        let desired = World::usual().advertise(advertisement).served(held("a", "192.0.2.1")).plan();
        assert_eq!(desired.reasons("a"), reason.map(|reason| (None, reason)).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn session_of_one_family_is_not_told_the_other() {
    let mut single = peer("tor", "198.51.100.254");
    single.dual_stack = false;
    let service = Service {
        families: vec![Family::Ipv4, Family::Ipv6],
        family_policy: FamilyPolicy::RequireDualStack,
        assigned: ips(&["192.0.2.1", "2001:db8::1"]),
        ..service("a", 1)
    };
    let world = World::usual().served(service.clone());
    assert_eq!(world.plan().told("tor"), ["192.0.2.1/32", "2001:db8::1/128"]);
    assert_eq!(world.clone().peer(single.clone()).plan().told("tor"), ["192.0.2.1/32"]);
    let six = Service { families: vec![Family::Ipv6], assigned: ips(&["2001:db8::1"]), ..service };
    let six = Service { family_policy: FamilyPolicy::SingleStack, ..six };
    assert_eq!(World::usual().served(six).peer(single).plan().reasons("a"), [(None, Withhold::NoPeer)]);
}

#[test]
fn peers_and_their_secrets_are_those_of_this_node() {
    let mut elsewhere = peer("elsewhere", "198.51.100.253");
    elsewhere.node_selectors.push(selector("rack", "2"));
    let mut waiting = peer("waiting", "198.51.100.252");
    waiting.missing_secret = Some("bgp-key".into());
    let desired = World::usual().peer(elsewhere).peer(waiting).plan();
    assert_eq!(desired.peers.keys().collect::<Vec<_>>(), ["tor", "waiting"]);
    assert_eq!(desired.problems.len(), 1);
    assert!(desired.problems[0].message.contains("bgp-key"));
}

#[test]
fn peers_that_hear_the_same_share_one_list_and_routes_their_attributes() {
    let world = World::usual().peer(peer("tor2", "198.51.100.253"));
    let desired = world.served(held("a", "192.0.2.1")).served(held("b", "192.0.2.2")).plan();
    let routes = &desired.exports["tor"];
    assert!(routes.is(&desired.exports["tor2"]));
    let attributes: Vec<_> = routes.iter().map(|(_, attributes)| attributes).collect();
    assert!(Arc::ptr_eq(attributes[0], attributes[1]));
}

#[test]
fn aggregate_covers_several_services_and_unites_communities() {
    let mut wide = advertisement("wide");
    wide.aggregation_length = 29;
    wide.communities.insert(Community(1));
    let mut also = advertisement("also");
    also.aggregation_length = 29;
    also.communities.insert(Community(2));
    also.large_communities.insert(LargeCommunity(1, 2, 3));
    also.local_pref = Some(200);
    let mut world = World::usual().served(held("a", "192.0.2.1")).served(held("b", "192.0.2.2"));
    world.0.advertisements.clear();
    let desired = world.advertise(wide).advertise(also).plan();
    assert_eq!(desired.told("tor"), ["192.0.2.0/29"]);
    let (_, attributes) = desired.exports["tor"].iter().next().expect("told");
    assert_eq!(attributes.communities, [Community(1), Community(2)]);
    assert_eq!(attributes.large_communities, [LargeCommunity(1, 2, 3)]);
    assert_eq!(attributes.local_pref, Some(200));
    assert_eq!(desired.behind.values().next().map(|s| &**s), Some(&[key("a"), key("b")][..]));
}

#[test]
fn contradicting_advertisements_cost_that_prefix_at_that_peer_only() {
    let contradictions: [fn(&mut Advertisement, u8); 3] =
        [|a, n| a.local_pref = Some(n.into()), |a, n| a.med = Some(n.into()), |a, n| a.prepend = n];
    for contradict in contradictions {
        let (mut one, mut two) = (advertisement("all"), advertisement("two"));
        contradict(&mut one, 1);
        contradict(&mut two, 2);
        two.peers.insert("tor".into());
        two.service_selectors.push(selector("app", "a"));
        let world = World::usual().peer(peer("tor2", "198.51.100.253")).advertise(one).advertise(two);
        let desired = world.served(held("a", "192.0.2.1")).served(held("b", "192.0.2.2")).plan();
        assert_eq!(desired.told("tor"), ["192.0.2.2/32"]);
        assert_eq!(desired.told("tor2"), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(desired.reasons("a"), [(Some("tor"), Withhold::ConflictingAdvertisements)]);
    }
}

#[test]
fn prefix_budget_keeps_the_oldest_services() {
    let mut tight = peer("tor", "198.51.100.254");
    tight.prefix_budget = Some(2);
    let aged = |name, address, created| Service { created, ..held(name, address) };
    let world = World::usual().peer(tight).peer(peer("wide", "198.51.100.253"));
    let desired = world
        .served(aged("new", "192.0.2.0", 30))
        .served(aged("old", "192.0.2.5", 10))
        .served(aged("mid", "192.0.2.3", 20))
        .plan();
    assert_eq!(desired.told("tor"), ["192.0.2.3/32", "192.0.2.5/32"]);
    assert_eq!(desired.told("wide").len(), 3);
    assert_eq!(desired.reasons("new"), [(Some("tor"), Withhold::PrefixBudget)]);
}

/// Link bandwidths in Gbit/s that `tor` is told on a node, by prefix.
fn bandwidths(world: &World, node: &str) -> Vec<(String, Option<f32>)> {
    let desired = plan(&world.0, &settings(node));
    let gigabits = |attributes: &ironcast_bgp::rib::Attributes| {
        attributes.link_bandwidth.map(|bandwidth| bandwidth.octets_per_second() * 8.0 / 1e9)
    };
    desired.exports["tor"].iter().map(|(prefix, attributes)| (prefix.to_string(), gigabits(attributes))).collect()
}

#[test]
fn link_bandwidth_counts_the_ready_endpoints_of_the_node() {
    let local = |name, address| Service { traffic_policy: TrafficPolicy::Local, ..held(name, address) };
    let dead = Endpoint { ready: false, serving: false, ..endpoint("10.0.1.9", "n1") };
    let pods = [endpoint("10.0.1.1", "n1"), endpoint("10.0.1.2", "n1"), dead, endpoint("10.0.2.1", "n2")];
    let weighted = Advertisement { link_bandwidth: Some(false), ..advertisement("all") };
    let world = World::usual()
        .serve(local("a", "192.0.2.1"), &pods)
        .serve(local("b", "192.0.2.2"), &[endpoint("10.0.1.3", "n1")])
        .serve(held("c", "192.0.2.3"), &pods);
    let none = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"].map(|prefix| (prefix.to_owned(), None));
    assert_eq!(bandwidths(&world, "n1"), none, "nobody asked for it");
    let world = world.advertise(weighted.clone());
    let of =
        |gigabits: [Option<f32>; 3]| none.iter().map(|(prefix, _)| prefix.clone()).zip(gigabits).collect::<Vec<_>>();
    assert_eq!(
        bandwidths(&world, "n1"),
        of([Some(2.0), Some(1.0), None]),
        "with the policy Cluster all nodes are equal"
    );
    let other = ["192.0.2.1/32", "192.0.2.3/32"].map(str::to_owned).into_iter().zip([Some(1.0), None]);
    assert_eq!(bandwidths(&world, "n2"), other.collect::<Vec<_>>());

    let sum = Advertisement { aggregation_length: 30, peers: ["tor".to_owned()].into(), ..weighted.clone() };
    let world = World::usual()
        .serve(local("a", "192.0.2.1"), &pods)
        .serve(local("b", "192.0.2.2"), &[endpoint("10.0.1.3", "n1")])
        .advertise(sum);
    assert_eq!(bandwidths(&world, "n1"), [("192.0.2.0/30".to_owned(), Some(3.0))]);

    let clash = Advertisement { name: "other".into(), link_bandwidth: Some(true), ..weighted.clone() };
    let world = World::usual().serve(local("a", "192.0.2.1"), &pods).advertise(weighted).advertise(clash);
    assert_eq!(world.plan().reasons("a"), [(Some("tor"), Withhold::ConflictingAdvertisements)]);
}
