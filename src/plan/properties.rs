//! What holds in every world, however crowded.

mod generate;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use proptest::{collection::vec, prelude::*};

use self::generate::{endpoints, keys, settled_world, world};
use super::{
    Allocated, Desired, Leaving, Planner, Settings, Withhold,
    fixture::{World, service, settings},
    plan,
};
use crate::types::{Family, FamilyPolicy, Pool, Service, ServiceKey, TrafficPolicy, family_of};

fn gone(draining: bool) -> Leaving {
    if draining { Leaving::Gone } else { Leaving::Not }
}

fn owners(desired: &Desired) -> Vec<(&ServiceKey, IpAddr)> {
    let with = desired.allocations.iter().flat_map(|(key, allocated)| match allocated {
        Allocated::Addresses { addresses, .. } => addresses.iter().map(|a| (key, *a)).collect(),
        _ => Vec::new(),
    });
    with.collect()
}

fn addresses<'a>(desired: &'a Desired, key: &ServiceKey) -> &'a [IpAddr] {
    match desired.allocations.get(key) {
        Some(Allocated::Addresses { addresses, .. }) => addresses,
        _ => &[],
    }
}

/// The rule of sharing, said a second time and pairwise.
fn may_share(a: &Service, b: &Service) -> bool {
    let keyed = a.sharing_key.as_deref().is_some_and(|key| !key.is_empty()) && a.sharing_key == b.sharing_key;
    let same_nodes = match (a.traffic_policy, b.traffic_policy) {
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster) => true,
        (TrafficPolicy::Local, TrafficPolicy::Local) => {
            (&a.key.namespace, &a.selector) == (&b.key.namespace, &b.selector)
        }
        _ => false,
    };
    let disjoint = !a.ports.iter().any(|p| b.ports.iter().any(|q| (p.protocol, p.port) == (q.protocol, q.port)));
    keyed && same_nodes && disjoint
}

fn pool_offers(world: &World, pool: &Pool, service: &Service, address: IpAddr) -> bool {
    let buggy = matches!(address, IpAddr::V4(v4) if v4.octets()[3] == 0 || v4.octets()[3] == 255);
    let rule = pool.allocation.as_ref().is_none_or(|rule| {
        let namespace = &*service.key.namespace;
        let labels = world.0.namespaces.get(namespace).cloned().unwrap_or_default();
        (rule.namespaces.is_empty() && rule.namespace_selectors.is_empty())
            || rule.namespaces.iter().any(|name| name == namespace)
            || rule.namespace_selectors.iter().any(|selector| selector.matches(&labels))
    });
    pool.ranges.iter().any(|range| range.contains(address))
        && !(pool.avoid_buggy_ips && buggy)
        && rule
        && service.requested_pool.as_ref().is_none_or(|name| *name == pool.name)
}

fn somebodys_own(world: &World, address: IpAddr) -> bool {
    world.0.nodes.values().any(|node| node.addresses.contains(&address))
        || world.0.peers.values().any(|peer| peer.address == Some(address))
}

/// A recorded address that nothing speaks against.
fn undisputed(world: &World, service: &Service, address: IpAddr) -> bool {
    let wanted = match service.family_policy {
        FamilyPolicy::SingleStack => service.families.first() == Some(&family_of(address)),
        FamilyPolicy::PreferDualStack => service.families.contains(&family_of(address)),
        FamilyPolicy::RequireDualStack => true,
    };
    let same_family = |a: &&IpAddr| family_of(**a) == family_of(address);
    let requested: Vec<_> = service.requested_addresses.iter().filter(same_family).collect();
    let alone = world.0.services.values().filter(|other| other.assigned.contains(&address)).count() == 1;
    wanted
        && alone
        && service.assigned.iter().filter(same_family).count() == 1
        && (requested.is_empty() || requested.contains(&&address))
        && world.0.pools.values().any(|pool| pool_offers(world, pool, service, address))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_services_have_one_address_unless_they_may_share(world in world()) {
        let desired = world.plan();
        let owners = owners(&desired);
        for (i, (a, address)) in owners.iter().enumerate() {
            for (b, _) in owners[..i].iter().filter(|(_, other)| other == address) {
                prop_assert!(may_share(&world.0.services[*a], &world.0.services[*b]), "{a} and {b} on {address}");
            }
        }
    }

    #[test]
    fn new_address_stands_in_nobody_elses_record_unless_the_two_may_share(world in world()) {
        let desired = world.plan();
        for (key, address) in owners(&desired) {
            if world.0.services[key].assigned.contains(&address) {
                continue;
            }
            for other in world.0.services.values().filter(|other| other.assigned.contains(&address)) {
                // Who waits for his other family gives his address up, but whoever may share it need not wait for that.
                let shared = may_share(&world.0.services[key], other);
                prop_assert!(shared, "{key} takes {address} of {}", other.key);
            }
        }
    }

    #[test]
    fn every_address_is_of_a_pool_that_offers_it_and_nobodys_own(world in world()) {
        for (key, address) in owners(&world.plan()) {
            let service = &world.0.services[key];
            let held = service.assigned.contains(&address);
            let fits = |pool: &&Pool| {
                let asked = service.requested_addresses.contains(&address) || service.requested_pool.is_some();
                pool_offers(&world, pool, service, address) && (held || (!pool.disabled && (pool.auto_assign || asked)))
            };
            prop_assert!(world.0.pools.values().any(|pool| fits(&pool)), "{address} of {key}");
            prop_assert!(held || !somebodys_own(&world, address), "{address} of {key}");
        }
    }

    #[test]
    fn families_are_those_asked_for_in_their_order(world in world()) {
        let desired = world.plan();
        for (key, allocated) in desired.allocations.iter() {
            let Allocated::Addresses { addresses, .. } = allocated else { continue };
            let service = &world.0.services[key];
            let got: Vec<Family> = addresses.iter().copied().map(family_of).collect();
            match service.family_policy {
                FamilyPolicy::SingleStack => prop_assert_eq!(&got[..], &service.families[..1]),
                FamilyPolicy::RequireDualStack => prop_assert_eq!(&got, &service.families),
                FamilyPolicy::PreferDualStack => {
                    let in_order: Vec<_> = service.families.iter().copied().filter(|f| got.contains(f)).collect();
                    prop_assert!(!got.is_empty());
                    prop_assert_eq!(got, in_order);
                }
            }
        }
    }

    #[test]
    fn recorded_address_stays_while_nothing_speaks_against_it(world in world()) {
        let desired = world.plan();
        for (key, allocated) in desired.allocations.iter() {
            let service = &world.0.services[key];
            for address in service.assigned.iter().filter(|address| undisputed(&world, service, **address)) {
                match allocated {
                    Allocated::Addresses { addresses, .. } => prop_assert!(addresses.contains(address)),
                    Allocated::Released => prop_assert!(service.deleting || !service.load_balancer),
                    Allocated::Pending { .. } => {
                        let demands = !service.requested_addresses.is_empty()
                            || service.requested_pool.is_some()
                            || service.family_policy == FamilyPolicy::RequireDualStack;
                        prop_assert!(demands, "{key} lost {address}: {allocated:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn recording_the_answer_changes_no_address_and_waiters_get_what_came_free(world in world()) {
        let mut world = world;
        let first = world.plan();
        world.record(&first);
        let second = world.plan();
        for (key, address) in owners(&first) {
            prop_assert!(addresses(&second, key).contains(&address), "{key} lost {address}");
        }
        prop_assert!(second.given_up.values().flatten().all(|(_, why)| *why != super::GaveUp::SharingRefused));
        world.record(&second);
        let third = world.plan();
        world.record(&third);
        prop_assert_eq!(&third, &world.plan());
        let second: Vec<_> = owners(&second);
        prop_assert_eq!(second, owners(&third));
    }

    #[test]
    fn new_service_moves_nobody(world in settled_world(), created in 0i64..4) {
        let before = world.plan();
        let mut grown = world.clone();
        let new = Service { sharing_key: Some("k".into()), created, ..service("newcomer", created) };
        grown.0.services.insert(new.key.clone(), new.into());
        let after = grown.plan();
        for key in keys(&world) {
            prop_assert_eq!(addresses(&before, &key), addresses(&after, &key));
        }
    }

    #[test]
    fn gone_service_or_pool_moves_nobody_else(world in settled_world(), service in 0usize..8, pool in 0usize..3) {
        let before = world.plan();
        let mut without = world.clone();
        if let Some(key) = world.0.services.keys().nth(service) {
            without.0.services.remove(key);
        }
        let after = without.plan();
        for (key, address) in owners(&before).into_iter().filter(|(key, _)| without.0.services.contains_key(*key)) {
            prop_assert!(addresses(&after, key).contains(&address));
        }
        let mut without = world.clone();
        if let Some(name) = world.0.pools.keys().nth(pool) {
            without.0.pools.remove(name);
        }
        let after = without.plan();
        for (key, allocated) in before.allocations.iter() {
            let Allocated::Addresses { addresses: had, .. } = allocated else { continue };
            let service = &world.0.services[key];
            let remain = had.iter().all(|a| without.0.pools.values().any(|pool| pool_offers(&world, pool, service, *a)));
            if remain && service.requested_pool.is_none() {
                prop_assert_eq!(addresses(&after, key), &had[..]);
            }
        }
    }

    #[test]
    fn addresses_do_not_depend_on_the_node_nor_anything_on_the_order_of_endpoints(world in world(), draining: bool) {
        let desired = world.plan();
        let elsewhere = plan(&world.0, &Settings { drain: gone(draining), ..settings("n2") });
        prop_assert_eq!(&desired.allocations, &elsewhere.allocations);
        let mut turned = world;
        for endpoints in turned.0.endpoints.values_mut() {
            *endpoints = endpoints.iter().rev().cloned().collect();
        }
        for service in turned.0.services.values_mut() {
            let mut changed = (**service).clone();
            changed.ports.reverse();
            *service = changed.into();
        }
        prop_assert_eq!(desired, turned.plan());
    }

    #[test]
    fn planning_again_is_planning_anew(world in settled_world(), changes in vec((0usize..20, endpoints()), 1..8)) {
        let (settings, mut planner) = (settings("n1"), Planner::default());
        let mut snapshot = Arc::new(world.0);
        prop_assert_eq!(planner.plan(&snapshot, &settings), plan(&snapshot, &settings));
        for (which, endpoints) in changes {
            let mut next = (*snapshot).clone();
            let Some(key) = next.services.keys().cycle().nth(which).cloned() else { continue };
            match endpoints.is_empty() {
                true => drop(next.endpoints.remove(&key)),
                false => drop(next.endpoints.insert(key, endpoints.into())),
            }
            snapshot = Arc::new(next);
            prop_assert_eq!(planner.plan(&snapshot, &settings), plan(&snapshot, &settings));
        }
    }

    #[test]
    fn every_route_leads_to_a_recorded_address_with_endpoints(world in world()) {
        let mut world = world;
        for _ in 0..2 {
            let desired = world.plan();
            for (prefix, _) in desired.exports.values().flat_map(|routes| routes.iter()) {
                let services = &desired.behind[&prefix];
                prop_assert!(!services.is_empty());
                for key in services.iter() {
                    let service = &world.0.services[key];
                    let leads = |a: &IpAddr| prefix.contains(a) && service.assigned.contains(a);
                    let held: Vec<_> = addresses(&desired, key).iter().copied().filter(leads).collect();
                    prop_assert!(held.iter().any(|address| desired.addresses.contains(address)));
                }
            }
            let announced: BTreeSet<_> = desired.exports.values().flat_map(|r| r.iter()).map(|(prefix, _)| prefix).collect();
            prop_assert_eq!(announced, desired.behind.keys().copied().collect());
            world.record(&desired);
        }
    }

    #[test]
    fn nobody_is_withheld_and_announced_and_nobody_is_neither(world in settled_world(), draining: bool) {
        let desired = plan(&world.0, &Settings { drain: gone(draining), ..settings("n1") });
        let announced: BTreeSet<_> = desired.behind.values().flat_map(|services| services.iter()).collect();
        for withheld in desired.withheld.iter().filter(|withheld| withheld.peer.is_none()) {
            let of_one_family = matches!(withheld.reason, Withhold::NoEndpoints | Withhold::NoLocalEndpoints);
            prop_assert!(of_one_family || !announced.contains(&withheld.service), "{withheld:?}");
        }
        let withheld: BTreeSet<_> = desired.withheld.iter().map(|withheld| &withheld.service).collect();
        for (key, allocated) in desired.allocations.iter() {
            let silent = !announced.contains(key) && !withheld.contains(key);
            prop_assert!(!silent || *allocated == Allocated::Released, "nothing is said of {key}");
        }
        prop_assert!(!draining || announced.is_empty());
    }

    #[test]
    fn lists_for_peers_are_sorted_within_budget_and_of_their_families(world in settled_world()) {
        let desired = world.plan();
        prop_assert!(desired.exports.keys().eq(desired.peers.keys()));
        for (name, routes) in &desired.exports {
            let peer = &desired.peers[name];
            prop_assert!(routes.iter().is_sorted_by(|a, b| a.0 < b.0));
            prop_assert!(peer.prefix_budget.is_none_or(|budget| routes.len() <= budget as usize));
            prop_assert!(routes.iter().all(|(prefix, _)| peer.carries(family_of(prefix.addr()))));
        }
    }
}
