//! Nodes that leave, and routers that do not take everybody's path.

use std::collections::BTreeSet;

use ironcast_bgp::Community;

use super::super::{Desired, Leaving, Settings, Withhold, asked_to_leave, fixture::*, plan};
use crate::types::{Node, Service, Set, TrafficPolicy};

fn held(name: &str) -> Service {
    Service { assigned: ips(&["192.0.2.1"]), ..service(name, 1) }
}

fn leaving(world: &World, cordon: Leaving) -> Desired {
    plan(&world.0, &Settings { cordon_drains: true, cordon, ..settings("n1") })
}

fn communities(desired: &Desired) -> Vec<Vec<Community>> {
    desired.exports["tor"].iter().map(|(_, attributes)| attributes.communities.clone()).collect()
}

#[test]
fn drain_says_graceful_shutdown_before_it_withdraws() {
    let world = World::usual().served(held("a"));
    let at = |drain| plan(&world.0, &Settings { drain, ..settings("n1") });
    assert_eq!(communities(&at(Leaving::Not)), [[]]);
    let last = at(Leaving::Last);
    assert_eq!(communities(&last), [[Community::GRACEFUL_SHUTDOWN]]);
    assert_eq!(last.exports["tor"].iter().next().and_then(|(_, a)| a.local_pref), Some(0), "for iBGP peers");
    let gone = at(Leaving::Gone);
    assert_eq!((gone.told("tor").len(), gone.reasons("a")), (0, vec![(None, Withhold::Draining)]));
    assert_eq!(gone.addresses, Set::from([ip("192.0.2.1")]), "what is under way is still answered");
}

#[test]
fn cordoned_node_leaves_what_others_announce_and_keeps_what_nobody_else_does() {
    let cordoned = Node { unschedulable: true, ..node("n1", "198.51.100.1") };
    let world = World::usual().node(&cordoned).served(held("a"));
    let ignored = Settings { cordon: Leaving::Gone, ..settings("n1") };
    assert_eq!(asked_to_leave(&world.0, &ignored), None);
    assert_eq!(plan(&world.0, &ignored).told("tor").len(), 1, "--on-cordon ignore");

    assert_eq!(communities(&leaving(&world, Leaving::Last)), [[Community::GRACEFUL_SHUTDOWN]]);
    let gone = leaving(&world, Leaving::Gone);
    assert_eq!((gone.told("tor").len(), gone.reasons("a")), (0, vec![(None, Withhold::NodeCordoned)]));

    // With the policy Local its pods run here alone: nobody could take over.
    let local = Service { traffic_policy: TrafficPolicy::Local, ..held("a") };
    let alone = leaving(&world.clone().serve(local.clone(), &[endpoint("10.0.1.1", "n1")]), Leaving::Gone);
    assert_eq!(communities(&alone), [[Community::GRACEFUL_SHUTDOWN]]);
    let both = [endpoint("10.0.1.1", "n1"), endpoint("10.0.2.1", "n2")];
    assert!(leaving(&world.clone().serve(local, &both), Leaving::Gone).told("tor").is_empty());

    // The other one is cordoned too, unfit, not selected, or has no peer.
    let other = node("n2", "198.51.100.2");
    for away in [Node { unschedulable: true, ..other.clone() }, Node { ready: false, ..other.clone() }] {
        assert_eq!(leaving(&world.clone().node(&away), Leaving::Gone).told("tor").len(), 1, "{away:?}");
    }
    let labelled = Node { labels: labels(&[("rack", "1")]), ..cordoned };
    let mut here = advertisement("all");
    here.node_selectors.push(selector("rack", "1"));
    let mut peer_here = peer("tor", "198.51.100.254");
    peer_here.node_selectors.push(selector("rack", "1"));
    for world in [world.clone().advertise(here), world.peer(peer_here)] {
        assert_eq!(leaving(&world.node(&labelled), Leaving::Gone).told("tor").len(), 1);
    }
}

#[test]
fn maintenance_taints_are_told_by_key_or_by_key_and_value() {
    let tainted = |taint: &str| Node { taints: vec![taint.into()], ..node("n1", "198.51.100.1") };
    let asked = |taint: &str, listed: &str| {
        let settings = Settings { maintenance_taints: [listed.to_owned()].into(), ..settings("n1") };
        asked_to_leave(&World::usual().node(&tainted(taint)).0, &settings)
    };
    assert_eq!(asked("repair=disk", "repair"), Some(Withhold::NodeMaintenance));
    assert_eq!(asked("repair=disk", "repair=disk"), Some(Withhold::NodeMaintenance));
    assert_eq!(asked("repair=", "repair"), Some(Withhold::NodeMaintenance));
    assert_eq!(asked("repair=disk", "repair=fan"), None);
    assert_eq!(asked("repairs=disk", "repair"), None);
}

#[test]
fn router_of_limited_width_hears_so_many_nodes_and_one_that_leaves_gives_its_place_away() {
    let mut world = (3..=8).fold(World::usual(), |world, n| world.node(&node(&format!("n{n}"), "198.51.100.9")));
    let mut narrow = peer("tor", "198.51.100.254");
    narrow.maximum_paths = Some(3);
    world = world.peer(narrow).peer(peer("wide", "198.51.100.253")).served(held("a"));
    let announcing = |world: &World| -> BTreeSet<String> {
        let plans = (1..=8).map(|n| format!("n{n}")).map(|n| (plan(&world.0, &settings(&n)), n));
        let (told, rest): (Vec<_>, Vec<_>) = plans.partition(|(desired, _)| !desired.told("tor").is_empty());
        assert!(rest.iter().all(|(desired, _)| desired.reasons("a").contains(&(Some("tor"), Withhold::EcmpWidth))));
        assert!(rest.iter().all(|(desired, _)| desired.told("wide").len() == 1), "the other router takes all");
        told.into_iter().map(|(_, node)| node).collect()
    };
    let before = announcing(&world);
    assert_eq!(before.len(), 3);
    let first = before.first().expect("three");
    let away = Node { ready: false, ..node(first, "198.51.100.9") };
    world = world.node(&away);
    let plans = (1..=8).map(|n| format!("n{n}")).filter(|n| n != first);
    let after: BTreeSet<String> = plans.filter(|n| !plan(&world.0, &settings(n)).told("tor").is_empty()).collect();
    assert_eq!(after.len(), 3);
    assert!(before.iter().filter(|node| *node != first).all(|node| after.contains(node)), "{before:?} {after:?}");

    // With the policy Local only nodes with pods compete.
    let local = Service { traffic_policy: TrafficPolicy::Local, ..held("a") };
    let pods: Vec<_> = [2, 4, 6].map(|n| endpoint(&format!("10.0.{n}.1"), &format!("n{n}"))).into();
    world = world.node(&node(first, "198.51.100.9")).serve(local, &pods);
    for n in [2, 4, 6] {
        assert_eq!(plan(&world.0, &settings(&format!("n{n}"))).told("tor").len(), 1);
    }
}
