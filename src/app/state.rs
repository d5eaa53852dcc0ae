//! What the node says of itself: pure, from what every module published last.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use crate::{
    admin::{BfdFigures, BfdPackets, Figures, PoolUse},
    announce::AnnounceState,
    datapath::report::Report,
    plan::{self, Allocated, Desired, Leaving},
    source::status::{ENTRIES, Excerpt, Totals},
    types::{
        AddressRange, Family, LeavingState, NodeState, Pool, Service, ServiceKey, ServiceState, Set, Snapshot,
        SourceState, family_of,
    },
};

/// What every module published last.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// `manifests` or `kubernetes`.
    pub source: &'static str,
    /// This daemon gives out addresses.
    pub leader: bool,
    /// The operator drains this node.
    pub draining: bool,
    /// What is known of the cluster; `None` until it is complete.
    pub snapshot: Option<&'a Snapshot>,
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is announced.
    pub announce: &'a AnnounceState,
    /// The packet path, where there is one.
    pub datapath: Option<&'a Report>,
}

/// The node as it is at `now`.
pub fn node_state(inputs: &Inputs<'_>, now: Instant) -> NodeState {
    state(inputs, now, usize::MAX)
}

/// The same with lists as long as an object of the API server may have them: no more is made than is written.
pub fn excerpt(inputs: &Inputs<'_>, now: Instant) -> Excerpt {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let announce = inputs.announce;
    let totals = Totals {
        services: count(services_of_ours(inputs)),
        routes: count(announce.status.values().map(|status| status.advertised.len()).sum()),
        withheld: count(inputs.desired.withheld.len() + announce.withheld.len()),
        problems: count(inputs.desired.problems.len()),
    };
    Excerpt { state: state(inputs, now, ENTRIES), totals }
}

/// The same without the lists of which there is one entry for every Service.
pub fn outline(inputs: &Inputs<'_>, now: Instant) -> NodeState {
    state(inputs, now, 0)
}

fn state(inputs: &Inputs<'_>, now: Instant, most: usize) -> NodeState {
    NodeState {
        node: inputs.node.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        source: SourceState { kind: inputs.source.into(), complete: inputs.snapshot.is_some_and(|s| !s.saved) },
        leader: inputs.leader,
        draining: inputs.draining,
        leaving: leaving(inputs),
        sessions: inputs.announce.sessions(now),
        services: inputs.snapshot.map(|s| services(s, inputs.desired).take(most).collect()).unwrap_or_default(),
        routes: inputs.announce.routes().take(most).collect(),
        withheld: inputs.announce.withheld().take(most).collect(),
        problems: inputs.desired.problems.clone(),
        datapath: inputs.datapath.map(|report| report.state.clone()),
        traffic: None,
    }
}

fn leaving(inputs: &Inputs<'_>) -> Option<LeavingState> {
    let announced = inputs.announce.status.values().any(|status| !status.advertised.is_empty());
    match (inputs.desired.leaving, announced) {
        (Leaving::Not, _) => None,
        (Leaving::Last, _) => Some(LeavingState::GracefulShutdown),
        (Leaving::Gone, true) => Some(LeavingState::Withdrawing),
        (Leaving::Gone, false) => Some(LeavingState::Drained),
    }
}

/// Numbers beside the state.
pub fn figures(inputs: &Inputs<'_>, ready: &Set<IpAddr>) -> Figures {
    Figures {
        counters: inputs.announce.status.iter().map(|(id, status)| (id.to_string(), status.counters)).collect(),
        bfd: bfd(inputs.announce),
        pools: inputs.snapshot.map(pools).unwrap_or_default(),
        stations: inputs.announce.stations.iter().map(|(station, s)| (*station, s.clone())).collect(),
        ready_addresses: ready.len(),
        wanted_addresses: inputs.desired.addresses.len(),
        services: services_of_ours(inputs),
        withheld: withheld(inputs),
        ..Figures::default()
    }
}

fn services_of_ours(inputs: &Inputs<'_>) -> usize {
    inputs.snapshot.map_or(0, |_| ours(inputs.desired).count())
}

fn withheld(inputs: &Inputs<'_>) -> BTreeMap<&'static str, usize> {
    let mut withheld = BTreeMap::new();
    for entry in inputs.desired.withheld.iter().chain(&inputs.announce.withheld) {
        *withheld.entry(entry.reason.as_str()).or_default() += 1;
    }
    withheld
}

fn bfd(announce: &AnnounceState) -> Option<BfdFigures> {
    let of_session = |(id, session): (&ironcast_bgp::speaker::PeerId, &ironcast_bgp::net::bfd::Session)| {
        let counters = &session.counters;
        let packets = BfdPackets {
            sent: counters.sent(),
            received: counters.received(),
            discarded: counters.discarded(),
            send_errors: counters.send_errors(),
        };
        (id.to_string(), packets)
    };
    let packets = announce.bfd.sessions().iter().map(of_session).collect();
    Some(BfdFigures { report: announce.bfd.report()?, packets })
}

/// Services that have an address or wait for one.
fn ours(desired: &Desired) -> impl Iterator<Item = (&ServiceKey, &Allocated)> {
    desired.allocations.iter().filter(|(_, allocated)| **allocated != Allocated::Released)
}

fn services(snapshot: &Snapshot, desired: &Desired) -> impl Iterator<Item = ServiceState> {
    ours(desired).map(|(key, allocated)| service(key, allocated, snapshot))
}

fn service(key: &ServiceKey, allocated: &Allocated, snapshot: &Snapshot) -> ServiceState {
    let known: Option<&Service> = snapshot.services.get(key).map(AsRef::as_ref);
    let recorded = known.map(|service| service.assigned.clone()).unwrap_or_default();
    let (addresses, pool, pending) = match allocated {
        // Recorded ones are held; those that are only chosen are not shown as if they were.
        Allocated::Addresses { pool, .. } if !recorded.is_empty() => (recorded, Some(pool.clone()), None),
        Allocated::Addresses { addresses, .. } => {
            let chosen: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            (vec![], None, Some(format!("{} is chosen and waits for the leader to record it", chosen.join(", "))))
        }
        Allocated::Pending { message, .. } => (vec![], None, Some(message.clone())),
        Allocated::Released => (vec![], None, None),
    };
    let endpoints = snapshot.endpoints.get(key).map(AsRef::as_ref).unwrap_or_default();
    let of = pool.as_ref().and_then(|pool| snapshot.pools.get(pool));
    let pool_reason = known.zip(of).map(|(service, pool)| plan::why_pool(service, pool));
    ServiceState {
        service: key.to_string(),
        addresses,
        pool,
        pool_reason,
        families: known.map(|service| service.families.clone()).unwrap_or_default(),
        pending,
        endpoints: endpoints.iter().filter(|endpoint| endpoint.takes_traffic()).count(),
    }
}

/// Use of every pool by family. Shared addresses count once.
fn pools(snapshot: &Snapshot) -> Vec<PoolUse> {
    let given: BTreeSet<IpAddr> = snapshot.services.values().flat_map(|s| s.assigned.iter().copied()).collect();
    let of_pool = |pool: &Pool| {
        let families: BTreeSet<Family> = pool.ranges.iter().map(|range| range.family()).collect();
        families.into_iter().map(|family| pool_use(pool, family, &given)).collect::<Vec<_>>()
    };
    snapshot.pools.values().flat_map(of_pool).collect()
}

fn pool_use(pool: &Pool, family: Family, given: &BTreeSet<IpAddr>) -> PoolUse {
    let ranges = || pool.ranges.iter().filter(|range| range.family() == family);
    let inside = |address: &&IpAddr| family_of(**address) == family && ranges().any(|range| range.contains(**address));
    let assigned = given.iter().filter(inside).count() as u128;
    let size = |range: &AddressRange| range.len() - if pool.avoid_buggy_ips { buggy(range) } else { 0 };
    let total = ranges().map(size).fold(0_u128, u128::saturating_add);
    PoolUse { pool: pool.name.clone(), family, assigned, available: total.saturating_sub(assigned) }
}

/// IPv4 addresses of the range that end in .0 or .255.
fn buggy(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Of the numbers below n, how many are 0 or 255 modulo 256.
    let below = |n: u128| (n / 256) * 2 + u128::from(!n.is_multiple_of(256));
    let (first, last) = (u128::from(u32::from(first)), u128::from(u32::from(last)));
    below(last + 1) - below(first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        plan::PendingReason,
        types::{Endpoint, FamilyPolicy, TrafficPolicy},
    };

    fn web(assigned: &[&str]) -> Service {
        Service {
            key: ServiceKey::new("shop", "web"),
            uid: "1".into(),
            labels: BTreeMap::new(),
            load_balancer: true,
            deleting: false,
            class: None,
            families: vec![Family::Ipv4],
            family_policy: FamilyPolicy::SingleStack,
            traffic_policy: TrafficPolicy::Cluster,
            ports: vec![],
            selector: BTreeMap::new(),
            affinity: None,
            source_ranges: false,
            requested_addresses: vec![],
            requested_pool: None,
            sharing_key: None,
            assigned: assigned.iter().map(|a| a.parse().expect("valid")).collect(),
            created: 0,
        }
    }

    fn snapshot(assigned: &[&str]) -> Snapshot {
        let service = web(assigned);
        let endpoint = |ready| Endpoint {
            address: [10, 0, 0, 1].into(),
            node: None,
            ready,
            serving: ready,
            terminating: false,
            ports: Arc::new([]),
        };
        Snapshot {
            endpoints: [(service.key.clone(), [endpoint(true), endpoint(false)].into())].into(),
            services: [(service.key.clone(), Arc::new(service))].into(),
            ..Snapshot::default()
        }
    }

    fn desired() -> Desired {
        let addresses = vec!["203.0.113.1".parse().expect("valid")];
        let allocated = Allocated::Addresses { addresses, pool: "edge".into() };
        Desired { allocations: Arc::new([(ServiceKey::new("shop", "web"), allocated)].into()), ..Desired::default() }
    }

    fn state(snapshot: Option<&Snapshot>, desired: &Desired) -> NodeState {
        let inputs = Inputs {
            node: "n1",
            source: "manifests",
            leader: true,
            draining: false,
            snapshot,
            desired,
            announce: &AnnounceState::default(),
            datapath: None,
        };
        node_state(&inputs, Instant::now())
    }

    #[test]
    fn service_shows_its_recorded_addresses_and_the_endpoints_that_take_traffic() {
        let state = state(Some(&snapshot(&["203.0.113.1"])), &desired());
        let service = &state.services[0];
        assert_eq!((service.endpoints, service.pool.as_deref(), &service.pending), (1, Some("edge"), &None));
        assert_eq!(service.addresses, ["203.0.113.1".parse::<IpAddr>().expect("valid")]);
    }

    #[test]
    fn address_that_nobody_recorded_is_not_shown_as_the_services() {
        let state = state(Some(&snapshot(&[])), &desired());
        assert!(state.services[0].addresses.is_empty());
        assert!(state.services[0].pending.as_deref().is_some_and(|p| p.contains("203.0.113.1")));
    }

    #[test]
    fn service_that_is_given_back_is_not_listed_and_a_pending_one_says_why() {
        let mut desired = desired();
        let pending = Allocated::Pending { reason: PendingReason::PoolExhausted, message: "edge is full".into() };
        let gone = (ServiceKey::new("shop", "gone"), Allocated::Released);
        desired.allocations = Arc::new([(ServiceKey::new("shop", "web"), pending), gone].into());
        let state = state(Some(&snapshot(&[])), &desired);
        let listed: Vec<_> = state.services.iter().map(|s| (s.service.as_str(), s.pending.as_deref())).collect();
        assert_eq!(listed, [("shop/web", Some("edge is full"))]);
    }

    #[test]
    fn source_is_complete_only_with_a_snapshot() {
        assert!(!state(None, &desired()).source.complete);
        assert!(state(Some(&Snapshot::default()), &desired()).source.complete);
    }

    #[test]
    fn buggy_addresses_are_counted_without_walking_the_range() {
        for text in ["10.0.0.0/22", "10.0.0.255-10.0.1.0", "10.0.0.1-10.0.0.254", "10.0.0.0/32", "10.0.0.7-10.0.3.255"]
        {
            let range: AddressRange = text.parse().expect("valid");
            let is_buggy = |a: &IpAddr| matches!(a, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255));
            assert_eq!(buggy(&range), range.iter().filter(is_buggy).count() as u128, "{text}");
        }
    }

    #[test]
    fn pools_count_each_family_and_shared_addresses_once() {
        let mut snapshot = snapshot(&["203.0.113.1"]);
        let twin = Service { key: ServiceKey::new("shop", "twin"), ..web(&["203.0.113.1", "2001:db8::1"]) };
        snapshot.services.insert(twin.key.clone(), Arc::new(twin));
        let pool = Pool {
            name: "edge".into(),
            labels: BTreeMap::new(),
            ranges: vec!["203.0.113.0/24".parse().expect("valid"), "2001:db8::/64".parse().expect("valid")],
            reserved: BTreeMap::new(),
            provider: None,
            auto_assign: true,
            avoid_buggy_ips: true,
            allocation: None,
            disabled: false,
        };
        snapshot.pools.insert("edge".into(), pool);
        let usage: Vec<_> = pools(&snapshot).iter().map(|u| (u.family, u.assigned, u.available)).collect();
        assert_eq!(usage, [(Family::Ipv4, 1, 253), (Family::Ipv6, 1, (1 << 64) - 1)]);
    }
}
