//! Who gets which address.

use super::super::{Allocated, GaveUp, PendingReason, Settings, fixture::*, plan};
use crate::types::{Family, FamilyPolicy, ObjectRef, Problem, Service, ServiceKey, Severity, TrafficPolicy};

fn dual(name: &str, policy: FamilyPolicy, families: [Family; 2]) -> Service {
    Service { families: families.into(), family_policy: policy, ..service(name, 1) }
}

#[test]
fn older_services_choose_first() {
    let desired = World::usual().served(service("young", 2)).served(service("old", 1)).plan();
    assert_eq!(desired.addresses_of("old"), ips(&["192.0.2.0"]));
    assert_eq!(desired.addresses_of("young"), ips(&["192.0.2.1"]));
}

#[test]
fn recorded_address_stays_although_an_older_service_comes() {
    let holder = Service { assigned: ips(&["192.0.2.0"]), ..service("holder", 9) };
    let wants = Service { requested_addresses: ips(&["192.0.2.0"]), ..service("wants", 1) };
    let desired = World::usual().served(holder).served(wants).served(service("old", 0)).plan();
    assert_eq!(desired.addresses_of("holder"), ips(&["192.0.2.0"]));
    assert_eq!(desired.pending("wants"), Some(PendingReason::AddressTaken));
    assert_eq!(desired.addresses_of("old"), ips(&["192.0.2.1"]));
}

#[test]
fn requested_address_is_not_given_to_an_older_service_by_chance() {
    let wants = Service { requested_addresses: ips(&["192.0.2.0"]), ..service("wants", 9) };
    let desired = World::usual().served(service("old", 1)).served(wants).plan();
    assert_eq!(desired.addresses_of("wants"), ips(&["192.0.2.0"]));
    assert_eq!(desired.addresses_of("old"), ips(&["192.0.2.1"]));
}

#[test]
fn full_pool_lets_wait_and_the_freed_address_goes_to_the_waiter() {
    let world = World::usual().pool(pool("main", &["192.0.2.1/32"]));
    let world = world.served(Service { assigned: ips(&["192.0.2.1"]), ..service("a", 1) }).served(service("b", 2));
    assert_eq!(world.plan().pending("b"), Some(PendingReason::PoolExhausted));
    let mut freed = world;
    freed.0.services.remove(&key("a"));
    assert_eq!(freed.plan().addresses_of("b"), ips(&["192.0.2.1"]));
}

#[test]
fn address_on_its_way_back_is_given_to_nobody_until_its_record_is_gone() {
    let gone = Service { assigned: ips(&["192.0.2.1"]), load_balancer: false, ..service("gone", 1) };
    let mut world = World::usual().pool(pool("main", &["192.0.2.1/32"])).served(gone).served(service("waits", 2));
    let desired = world.plan();
    assert_eq!(desired.allocations[&key("gone")], Allocated::Released);
    assert_eq!(desired.given_up[&key("gone")], [(ip("192.0.2.1"), GaveUp::NotOurs)]);
    assert_eq!(desired.pending("waits"), Some(PendingReason::PoolExhausted));
    world.record(&desired);
    assert_eq!(world.plan().addresses_of("waits"), ips(&["192.0.2.1"]));
}

#[test]
fn address_outside_every_pool_is_replaced_with_the_reason() {
    let holder = Service { assigned: ips(&["203.0.113.9"]), ..service("a", 1) };
    let desired = World::usual().served(holder).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.0"]));
    assert_eq!(desired.given_up[&key("a")], [(ip("203.0.113.9"), GaveUp::OutsidePools)]);
    assert!(desired.exports["tor"].is_empty(), "neither the old nor the unrecorded address is announced");
}

#[test]
fn pool_object_that_cannot_be_read_costs_nobody_an_address() {
    let holder = Service { assigned: ips(&["203.0.113.9"]), ..service("a", 1) };
    let mut world = World::usual().served(holder);
    world.0.problems.push(Problem {
        object: ObjectRef::new("IPAddressPool", "", "edge"),
        field: "spec.addresses[0]".into(),
        message: "broken".into(),
        hint: String::new(),
        severity: Severity::Error,
        file: None,
    });
    let desired = world.plan();
    assert_eq!(desired.addresses_of("a"), ips(&["203.0.113.9"]));
    assert_eq!(desired.told("tor"), ["203.0.113.9/32"]);
}

#[test]
fn address_of_a_node_or_a_router_is_given_to_nobody_and_taken_from_nobody() {
    let world = World::usual().pool(pool("main", &["198.51.100.1-198.51.100.3", "198.51.100.254/32"]));
    let holder = Service { assigned: ips(&["198.51.100.2"]), ..service("holder", 1) };
    let wants = Service { requested_addresses: ips(&["198.51.100.254"]), ..service("wants", 2) };
    let world = world.served(holder).served(wants).served(service("new", 3)).served(service("last", 4));
    let desired = world.plan();
    assert_eq!(desired.addresses_of("holder"), ips(&["198.51.100.2"]));
    assert_eq!(desired.addresses_of("new"), ips(&["198.51.100.3"]));
    assert_eq!(desired.pending("wants"), Some(PendingReason::AddressTaken));
    assert_eq!(desired.pending("last"), Some(PendingReason::PoolExhausted));
}

#[test]
fn dual_stack_keeps_the_order_of_families() {
    let service = dual("a", FamilyPolicy::RequireDualStack, [Family::Ipv6, Family::Ipv4]);
    let desired = World::usual().served(service).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["2001:db8::", "192.0.2.0"]));
}

#[test]
fn dual_stack_prefers_one_pool_and_mixes_where_it_must() {
    let families = [Family::Ipv4, Family::Ipv6];
    let world = World::usual().pool(pool("main", &["192.0.2.0/32"])).pool(pool("six", &["2001:db8:6::/64"]));
    let both = world.clone().pool(pool("z", &["203.0.113.1/32", "2001:db8:7::1/128"]));
    let desired = both.served(dual("a", FamilyPolicy::RequireDualStack, families)).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["203.0.113.1", "2001:db8:7::1"]));
    let desired = world.served(dual("a", FamilyPolicy::RequireDualStack, families)).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.0", "2001:db8:6::"]));
}

#[test]
fn dual_stack_policy_decides_what_a_missing_family_means() {
    let families = [Family::Ipv4, Family::Ipv6];
    let world = World::usual().pool(pool("main", &["192.0.2.0/29"]));
    let desired = world
        .served(dual("prefers", FamilyPolicy::PreferDualStack, families))
        .served(dual("requires", FamilyPolicy::RequireDualStack, families))
        .plan();
    assert_eq!(desired.addresses_of("prefers"), ips(&["192.0.2.0"]));
    assert_eq!(desired.pending("requires"), Some(PendingReason::NoPool));
}

#[test]
fn preferred_second_family_comes_when_a_pool_has_it() {
    let service = dual("a", FamilyPolicy::PreferDualStack, [Family::Ipv4, Family::Ipv6]);
    let desired = World::usual().served(Service { assigned: ips(&["192.0.2.5"]), ..service }).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.5", "2001:db8::"]));
    assert!(desired.given_up.is_empty());
}

#[test]
fn services_share_an_address_under_one_key_with_different_ports() {
    let share = |name, created, number| Service {
        sharing_key: Some("k".into()),
        ports: vec![port(number)],
        ..service(name, created)
    };
    let world = World::usual().served(share("a", 1, 80)).served(share("b", 2, 443)).served(share("c", 3, 80));
    let desired = world.served(Service { sharing_key: None, ports: vec![port(22)], ..service("d", 4) }).plan();
    assert_eq!(desired.addresses_of("a"), desired.addresses_of("b"));
    assert_ne!(desired.addresses_of("a"), desired.addresses_of("c"));
    assert_ne!(desired.addresses_of("a"), desired.addresses_of("d"));
}

#[test]
fn local_services_share_only_with_the_same_selector() {
    let share = |name, number, pods: &str, traffic_policy| Service {
        sharing_key: Some("k".into()),
        ports: vec![port(number)],
        selector: labels(&[("app", pods)]),
        traffic_policy,
        ..service(name, i64::from(number))
    };
    let desired = World::usual()
        .served(share("a", 1, "web", TrafficPolicy::Local))
        .served(share("b", 2, "web", TrafficPolicy::Local))
        .served(share("c", 3, "other", TrafficPolicy::Local))
        .served(share("d", 4, "web", TrafficPolicy::Cluster))
        .plan();
    assert_eq!(desired.addresses_of("a"), desired.addresses_of("b"));
    assert_ne!(desired.addresses_of("a"), desired.addresses_of("c"));
    assert_ne!(desired.addresses_of("a"), desired.addresses_of("d"));
}

#[test]
fn equal_selectors_of_two_namespaces_are_not_the_same_pods() {
    let share = |namespace: &str, number, traffic_policy| Service {
        key: ServiceKey::new(namespace, "web"),
        sharing_key: Some("k".into()),
        ports: vec![port(number)],
        traffic_policy,
        ..service("web", i64::from(number))
    };
    let shared = |policy| {
        let world = World::usual().served(share("a", 1, policy)).served(share("b", 2, policy)).plan();
        let addresses: Vec<_> = world.allocations.values().cloned().collect();
        addresses[0] == addresses[1]
    };
    assert!(shared(TrafficPolicy::Cluster) && !shared(TrafficPolicy::Local));
}

#[test]
fn younger_sharer_moves_when_sharing_ends() {
    let share = |name, created, key: &str, number| Service {
        sharing_key: Some(key.into()),
        ports: vec![port(number)],
        assigned: ips(&["192.0.2.4"]),
        ..service(name, created)
    };
    let world = World::usual().served(share("a", 1, "k", 80)).served(share("b", 2, "other", 443));
    let desired = world.plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.4"]));
    assert_eq!(desired.addresses_of("b"), ips(&["192.0.2.0"]));
    assert_eq!(desired.given_up[&key("b")], [(ip("192.0.2.4"), GaveUp::SharingRefused)]);
}

#[test]
fn priority_goes_before_name_and_zero_is_last() {
    let with = |name, range, priority| {
        let mut pool = pool(name, &[range]);
        pool.allocation = Some(allocation(priority));
        pool
    };
    let world = World::default().pool(with("a", "192.0.2.1/32", 0)).pool(with("b", "192.0.2.2/32", 20)).pool(with(
        "c",
        "192.0.2.3/32",
        10,
    ));
    let desired = world.served(service("a", 1)).served(service("b", 2)).served(service("c", 3)).plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.3"]));
    assert_eq!(desired.addresses_of("b"), ips(&["192.0.2.2"]));
    assert_eq!(desired.addresses_of("c"), ips(&["192.0.2.1"]));
}

#[test]
fn pool_serves_only_whom_its_allocation_selects() {
    let mut reserved = pool("reserved", &["192.0.2.0/29"]);
    let mut rule = allocation(0);
    rule.namespaces = vec!["other".into()];
    rule.namespace_selectors = vec![selector("team", "web")];
    rule.service_selectors = vec![selector("app", "a")];
    reserved.allocation = Some(rule);
    let world = World::default().pool(reserved).served(service("a", 1)).served(service("b", 2));
    assert_eq!(world.plan().pending("a"), Some(PendingReason::NoPool));
    let mut admitted = world;
    admitted.0.namespaces.insert("default".into(), labels(&[("team", "web")]));
    let desired = admitted.plan();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.0"]));
    assert_eq!(desired.pending("b"), Some(PendingReason::NoPool));
}

#[test]
fn pool_without_auto_assign_and_buggy_addresses_are_given_on_request_or_never() {
    let mut manual = pool("manual", &["192.0.2.0/24"]);
    (manual.auto_assign, manual.avoid_buggy_ips) = (false, true);
    let asks = |name, address| Service { requested_addresses: ips(&[address]), ..service(name, 1) };
    let by_pool = Service { requested_pool: Some("manual".into()), ..service("by-pool", 1) };
    let world = World::default().pool(manual).served(service("auto", 1)).served(by_pool);
    let desired = world.served(asks("exact", "192.0.2.9")).served(asks("buggy", "192.0.2.255")).plan();
    assert_eq!(desired.pending("auto"), Some(PendingReason::NoPool));
    assert_eq!(desired.addresses_of("by-pool"), ips(&["192.0.2.1"]));
    assert_eq!(desired.addresses_of("exact"), ips(&["192.0.2.9"]));
    assert_eq!(desired.pending("buggy"), Some(PendingReason::AddressOutsidePools));
}

#[test]
fn disabled_pool_keeps_its_holders_and_takes_nobody() {
    let mut disabled = pool("main", &["192.0.2.0/29"]);
    disabled.disabled = true;
    let holder = Service { assigned: ips(&["192.0.2.3"]), ..service("holder", 1) };
    let asks = Service { requested_addresses: ips(&["192.0.2.4"]), ..service("asks", 2) };
    let desired = World::usual().pool(disabled).served(holder).served(asks).served(service("new", 3)).plan();
    assert_eq!(desired.addresses_of("holder"), ips(&["192.0.2.3"]));
    assert_eq!(desired.pending("asks"), Some(PendingReason::AddressOutsidePools));
    assert_eq!(desired.pending("new"), Some(PendingReason::NoPool));
}

#[test]
fn contradictory_requests_are_named() {
    let ask = |name, addresses: &[&str]| Service { requested_addresses: ips(addresses), ..service(name, 1) };
    let unknown = Service { requested_pool: Some("nope".into()), ..service("unknown", 1) };
    let desired = World::usual()
        .served(ask("family", &["2001:db8::1"]))
        .served(ask("two", &["192.0.2.1", "192.0.2.2"]))
        .served(unknown)
        .served(ask("outside", &["203.0.113.1"]))
        .plan();
    for name in ["family", "two", "unknown"] {
        assert_eq!(desired.pending(name), Some(PendingReason::InvalidRequest), "{name}");
    }
    assert_eq!(desired.pending("outside"), Some(PendingReason::AddressOutsidePools));
    let Allocated::Pending { message, .. } = &desired.allocations[&key("unknown")] else { panic!("it waits") };
    assert!(message.contains("\"nope\""), "{message}");
}

#[test]
fn changed_request_moves_the_service_once_the_address_is_free() {
    let swap =
        |name, has, wants| Service { assigned: ips(&[has]), requested_addresses: ips(&[wants]), ..service(name, 1) };
    let world = World::usual().served(swap("a", "192.0.2.1", "192.0.2.2")).served(swap("b", "192.0.2.2", "192.0.2.1"));
    let desired = world.settled();
    assert_eq!(desired.addresses_of("a"), ips(&["192.0.2.2"]));
    assert_eq!(desired.addresses_of("b"), ips(&["192.0.2.1"]));
}

#[test]
fn classes_of_others_are_left_alone() {
    let classed = |name, class: Option<&str>| Service { class: class.map(Into::into), ..service(name, 1) };
    let foreign = Service { assigned: ips(&["192.0.2.0"]), ..classed("foreign", Some("other")) };
    let world = World::usual().served(foreign).served(classed("ours", Some("mine"))).served(classed("plain", None));
    let only_ours = Settings { class: Some("mine".into()), unclassed: false, ..settings("n1") };
    let desired = plan(&world.0, &only_ours);
    assert_eq!(desired.addresses_of("ours"), ips(&["192.0.2.1"]), "an address that another controller gave is avoided");
    assert_eq!(desired.allocations.len(), 1);
    assert!(desired.withheld.iter().all(|withheld| withheld.service == key("ours")));
    let desired = plan(&world.0, &settings("n1"));
    assert_eq!(desired.allocations.keys().collect::<Vec<_>>(), [&key("plain")]);
}

#[test]
fn overlapping_pools_never_give_one_address_twice() {
    let world = World::default().pool(pool("a", &["192.0.2.0/31"])).pool(pool("b", &["192.0.2.0/30"]));
    let ask = |name, created| Service { requested_pool: Some("b".into()), ..service(name, created) };
    let desired = world.served(service("x", 1)).served(ask("y", 2)).served(service("z", 3)).plan();
    assert_eq!(desired.addresses_of("x"), ips(&["192.0.2.0"]));
    assert_eq!(desired.addresses_of("y"), ips(&["192.0.2.1"]));
    assert_eq!(desired.addresses_of("z"), ips(&["192.0.2.2"]));
}

#[test]
fn whole_ipv6_prefix_is_not_walked() {
    let six = Service { families: vec![Family::Ipv6], ..service("a", 1) };
    let desired = World::default().pool(pool("main", &["::/0"])).served(six).plan();
    assert_eq!(desired.addresses_of("a").len(), 1);
}
