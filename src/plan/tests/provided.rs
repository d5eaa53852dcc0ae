//! Addresses that a provider may have.

use super::super::{PendingReason, Withhold, fixture::*};
use crate::types::{
    Claim, ClaimId, ClaimProblem, ClaimSpec, ClaimState, ClaimTiming, Family, FamilyPolicy, LeaseId, ManageRoutes,
    Need, PeersFrom, Pool, PoolProvider, ProviderConfig, ProviderKind, Reclaim, Service,
};

fn elastic(kind: Option<&str>) -> Pool {
    let provider = PoolProvider {
        name: "metal".into(),
        kind: kind.map(Into::into),
        region: None,
        reclaim: Reclaim::Delete,
        block: None,
        block_v6: None,
    };
    Pool { provider: Some(provider), ..pool("elastic", &[]) }
}

/// The pool with this address claimed for the Service.
fn claimed(pool: Pool, address: &str, service: &str) -> Pool {
    let range = format!("{address}/32").parse().expect("a range");
    let mut pool = pool;
    pool.ranges.push(range);
    pool.reserved.insert(range, key(service));
    pool
}

fn world(pool: Pool) -> World {
    let mut world = World::default().node(&node("n1", "198.51.100.1")).peer(peer("tor", "198.51.100.254"));
    world = world.advertise(advertisement("all")).pool(pool);
    world.0.providers.insert(
        "metal".into(),
        ProviderConfig {
            name: "metal".into(),
            kind: ProviderKind::Packet,
            endpoint: None,
            metadata: None,
            project: None,
            credentials: None,
            missing_secret: None,
            peers: PeersFrom::Objects,
            asn: None,
            manage_routes: ManageRoutes::Auto,
            timing: ClaimTiming::default(),
        },
    );
    world
}

fn need(service: &str, family: Family, address: Option<&str>) -> Need {
    Need { service: key(service), pool: "elastic".into(), family, address: address.map(ip) }
}

#[test]
fn who_finds_no_address_needs_one_the_oldest_first() {
    let desired = world(elastic(None)).served(service("young", 2)).served(service("old", 1)).plan();
    assert_eq!(desired.needs, [need("old", Family::Ipv4, None), need("young", Family::Ipv4, None)]);
    assert_eq!(desired.pending("old"), Some(PendingReason::AddressPending));
    assert_eq!(desired.reasons("old"), [(None, Withhold::AddressPending)]);
}

#[test]
fn address_that_was_claimed_for_one_service_goes_to_no_other() {
    let pool = claimed(elastic(None), "203.0.113.9", "young");
    let desired = world(pool).served(service("young", 2)).served(service("old", 1)).plan();
    assert_eq!(desired.addresses_of("young"), ips(&["203.0.113.9"]));
    assert_eq!(desired.needs, [need("old", Family::Ipv4, None)]);
}

#[test]
fn free_address_of_another_pool_is_taken_before_one_is_claimed() {
    let world = world(elastic(None)).pool(pool("main", &["192.0.2.1/32"]));
    let desired = world.served(service("first", 1)).served(service("second", 2)).plan();
    assert_eq!(desired.addresses_of("first"), ips(&["192.0.2.1"]));
    assert_eq!(desired.needs, [need("second", Family::Ipv4, None)]);
}

#[test]
fn address_whose_claim_is_lost_is_withdrawn_and_another_needed() {
    let mut world = world(claimed(elastic(None), "203.0.113.9", "web")).served(service("web", 1));
    let desired = world.plan();
    world.record(&desired);
    assert_eq!(world.plan().told("tor"), ["203.0.113.9/32"]);
    let lost = world.pool(elastic(None)).plan();
    assert!(lost.told("tor").is_empty());
    assert_eq!(lost.needs, [need("web", Family::Ipv4, None)]);
}

#[test]
fn type_that_names_a_family_offers_that_one_alone() {
    let both =
        |policy| Service { families: vec![Family::Ipv4, Family::Ipv6], family_policy: policy, ..service("web", 1) };
    let needs = |kind, policy| world(elastic(kind)).served(both(policy)).plan().needs;
    let (v4, v6) = (need("web", Family::Ipv4, None), need("web", Family::Ipv6, None));
    assert_eq!(needs(Some("public_ipv4"), FamilyPolicy::PreferDualStack), std::slice::from_ref(&v4));
    assert_eq!(needs(None, FamilyPolicy::RequireDualStack), [v4, v6]);
}

#[test]
fn address_asked_for_in_no_pool_is_needed_by_itself() {
    let wants = Service { requested_addresses: ips(&["203.0.113.9"]), ..service("web", 1) };
    let desired = world(elastic(None)).served(wants).plan();
    assert_eq!(desired.needs, [need("web", Family::Ipv4, Some("203.0.113.9"))]);
    assert_eq!(desired.pending("web"), Some(PendingReason::AddressOutsidePools), "nothing is claimed for it");
}

#[test]
fn what_holds_a_claim_up_is_told_to_its_service() {
    let mut world = world(elastic(None)).served(service("web", 1));
    let id = ClaimId::new(7);
    let spec = ClaimSpec {
        provider: "metal".into(),
        pool: "elastic".into(),
        service: Some(key("web")),
        family: Family::Ipv4,
        kind: None,
        region: None,
        prefix_len: 32,
        reclaim: Reclaim::Delete,
    };
    let problem = ClaimProblem { reason: "QuotaExceeded".into(), message: "raise the limit".into() };
    let state = ClaimState::Pending { lease: LeaseId("l1".into()), network: None };
    world.0.claims.insert(id, Claim { id, spec, state, problem: Some(problem), deleting: false });
    let desired = world.plan();
    let words = format!("{:?}", desired.allocations);
    assert!(words.contains("raise the limit (QuotaExceeded)"), "{words}");
    assert!(desired.problems.iter().any(|problem| problem.object.name == "web" && problem.message.contains("Quota")));
}

#[test]
fn machine_that_the_provider_took_away_announces_nothing() {
    let mut at = node("n1", "198.51.100.1");
    for (state, reasons) in [("Active", vec![]), ("Maintenance", vec![(None, Withhold::DeviceUnavailable)])] {
        at.annotations = labels(&[("ironcast.dev/device-state", state)]);
        let desired = World::usual().node(&at).served(service("web", 1)).settled();
        assert_eq!(desired.reasons("web"), reasons, "{state}");
    }
}
