//! The pools as `allocate` asks for them: who contains an address, whom may a Service use, in which order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::types::{Family, Labels, Pool, Service, Severity, Snapshot};

/// Position of a pool in the order of names.
pub(super) type PoolIndex = usize;

/// All pools, indexed.
pub(super) struct Pools<'a> {
    pools: Vec<&'a Pool>,
    /// Sorted by first address; IPv4 sorts before IPv6.
    intervals: Vec<Interval>,
    namespaces: BTreeMap<&'a str, Admitted>,
    refused: BTreeSet<&'a str>,
}

struct Interval {
    first: IpAddr,
    last: IpAddr,
    /// The greatest `last` from the first interval to this one: where a search backwards may stop.
    reach: IpAddr,
    pool: PoolIndex,
}

/// What the Services of one namespace may use, as far as the namespace decides.
struct Admitted {
    admitted: Vec<bool>,
    /// Pools that are given out without being asked for, best first.
    automatic: Vec<PoolIndex>,
}

impl<'a> Pools<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let pools: Vec<&Pool> = snapshot.pools.values().collect();
        let mut order: Vec<PoolIndex> = (0..pools.len()).collect();
        order.sort_by_key(|index| preference(pools[*index]));
        let namespaces = snapshot
            .services
            .keys()
            .map(|key| &*key.namespace)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|namespace| (namespace, Admitted::new(&pools, &order, namespace, snapshot.namespaces.get(namespace))))
            .collect();
        let refused = snapshot
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error && problem.object.kind == "IPAddressPool")
            .map(|problem| problem.object.name.as_str())
            .filter(|name| !snapshot.pools.contains_key(*name))
            .collect();
        let intervals = intervals(&pools);
        Self { pools, intervals, namespaces, refused }
    }

    pub(super) fn pool(&self, index: PoolIndex) -> &'a Pool {
        self.pools[index]
    }

    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }

    /// Names of pool objects that could not be read. What they hold is unknown, so an address in no other pool
    /// may be theirs and stays with its Service.
    pub(super) fn refused(&self) -> &BTreeSet<&'a str> {
        &self.refused
    }

    pub(super) fn named(&self, name: &str) -> Option<PoolIndex> {
        self.pools.binary_search_by(|pool| pool.name.as_str().cmp(name)).ok()
    }

    /// Pools that give this address out, in the order of names. More than one only where pools overlap.
    pub(super) fn offering(&self, address: IpAddr) -> Vec<PoolIndex> {
        let mut found = self.containing(address);
        found.retain(|pool| gives_out(self.pools[*pool], address));
        found
    }

    /// Pools with the address in a range, in the order of names.
    pub(super) fn containing(&self, address: IpAddr) -> Vec<PoolIndex> {
        let end = self.intervals.partition_point(|interval| interval.first <= address);
        let mut found: Vec<PoolIndex> = self.intervals[..end]
            .iter()
            .rev()
            .take_while(|interval| interval.reach >= address)
            .filter(|interval| interval.last >= address)
            .map(|interval| interval.pool)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether `serviceAllocation` lets the Service use the pool, and the Service asks for no other.
    pub(super) fn admits(&self, pool: PoolIndex, service: &Service) -> bool {
        let in_namespace =
            self.namespaces.get(&*service.key.namespace).is_some_and(|namespace| namespace.admitted[pool]);
        in_namespace
            && service.requested_pool.as_ref().is_none_or(|name| *name == self.pools[pool].name)
            && selects_service(self.pools[pool], service)
    }

    /// Pools that the Service may get a new address from, best first: the one that it names, else those that
    /// are given out automatically.
    pub(super) fn usable(&self, service: &Service) -> Vec<PoolIndex> {
        if let Some(name) = &service.requested_pool {
            let pool = self.named(name).filter(|pool| self.admits(*pool, service) && !self.pools[*pool].disabled);
            return pool.into_iter().collect();
        }
        let Some(namespace) = self.namespaces.get(&*service.key.namespace) else { return Vec::new() };
        namespace.automatic.iter().copied().filter(|pool| selects_service(self.pools[*pool], service)).collect()
    }
}

impl Admitted {
    fn new(pools: &[&Pool], order: &[PoolIndex], namespace: &str, labels: Option<&Labels>) -> Self {
        let none = Labels::new();
        let labels = labels.unwrap_or(&none);
        let admitted: Vec<bool> = pools.iter().map(|pool| selects_namespace(pool, namespace, labels)).collect();
        let automatic = order.iter().copied();
        let automatic = automatic.filter(|pool| admitted[*pool] && pools[*pool].auto_assign && !pools[*pool].disabled);
        Self { automatic: automatic.collect(), admitted }
    }
}

/// Small comes first: by priority, then pools made for somebody before pools for all, then by name.
fn preference(pool: &Pool) -> (u32, Reverse<bool>, &str) {
    let priority = pool.allocation.as_ref().map_or(0, |allocation| allocation.priority);
    let priority = if priority == 0 { u32::MAX } else { priority };
    (priority, Reverse(pool.allocation.is_some()), &pool.name)
}

fn selects_namespace(pool: &Pool, namespace: &str, labels: &Labels) -> bool {
    let Some(allocation) = &pool.allocation else { return true };
    (allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty())
        || allocation.namespaces.iter().any(|name| name == namespace)
        || allocation.namespace_selectors.iter().any(|selector| selector.matches(labels))
}

fn selects_service(pool: &Pool, service: &Service) -> bool {
    let Some(allocation) = &pool.allocation else { return true };
    let selectors = &allocation.service_selectors;
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(&service.labels))
}

/// Whether the pool gives this address of its ranges to a Service.
pub(super) fn gives_out(pool: &Pool, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) if pool.avoid_buggy_ips => !matches!(v4.octets()[3], 0 | 255),
        _ => true,
    }
}

/// Whether the pool has ranges of the family at all.
pub(super) fn has_family(pool: &Pool, family: Family) -> bool {
    pool.ranges.iter().any(|range| range.family() == family)
}

fn intervals(pools: &[&Pool]) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = pools
        .iter()
        .enumerate()
        .flat_map(|(pool, p)| p.ranges.iter().map(move |range| (range.first(), range.last(), pool)))
        .map(|(first, last, pool)| Interval { first, last, reach: last, pool })
        .collect();
    intervals.sort_by_key(|interval| (interval.first, interval.last, interval.pool));
    for i in 1..intervals.len() {
        intervals[i].reach = intervals[i].reach.max(intervals[i - 1].reach);
    }
    intervals
}
