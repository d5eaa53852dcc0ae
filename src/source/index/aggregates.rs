//! Aggregates that reach beyond their pool: routers would send the traffic of addresses that are not ours.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Kind, ObjectKey};
use crate::types::{AddressRange, Advertisement, Family, Pool, Problem, Severity};

/// A warning for every advertisement whose aggregate of a pool holds an address outside of it.
pub(super) fn aggregation_problems(
    advertisements: &BTreeMap<ObjectKey, Advertisement>,
    pools: &BTreeMap<ObjectKey, Pool>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, advertisement) in advertisements {
        for pool in pools.values().filter(|pool| selects(advertisement, pool)) {
            let lengths = [
                (Family::Ipv4, advertisement.aggregation_length, "spec.aggregationLength"),
                (Family::Ipv6, advertisement.aggregation_length_v6, "spec.aggregationLengthV6"),
            ];
            for (family, length, field) in lengths {
                let Some((aggregate, range)) = overreach(pool, family, length) else { continue };
                problems.push(Problem {
                    object: key.reference(Kind::BGPAdvertisement),
                    field: field.into(),
                    message: format!(
                        "{length} announces {aggregate}, which is more than {range} of IPAddressPool {}",
                        pool.name
                    ),
                    hint: "routers will send the traffic of all of it here; use a longer prefix length".into(),
                    severity: Severity::Warning,
                    file: None,
                });
            }
        }
    }
    problems
}

fn selects(advertisement: &Advertisement, pool: &Pool) -> bool {
    let all = advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty();
    all || advertisement.pools.contains(&pool.name)
        || advertisement.pool_selectors.iter().any(|selector| selector.matches(&pool.labels))
}

fn overreach(pool: &Pool, family: Family, length: u8) -> Option<(ipnet::IpNet, AddressRange)> {
    let runs = runs(pool.ranges.iter().filter(|range| range.family() == family).copied());
    runs.into_iter().find_map(|range| {
        let ends = [range.first(), range.last()];
        let nets = ends.map(|end| ipnet::IpNet::new(end, length).expect("a length of the family").trunc());
        let outside = nets.into_iter().find(|net| net.network() < range.first() || net.broadcast() > range.last())?;
        Some((outside, range))
    })
}

/// Ranges with those joined that follow each other without a gap.
fn runs(ranges: impl Iterator<Item = AddressRange>) -> Vec<AddressRange> {
    let mut sorted: Vec<AddressRange> = ranges.collect();
    sorted.sort();
    let mut runs: Vec<AddressRange> = Vec::new();
    for range in sorted {
        match runs.last_mut() {
            Some(run) if next(run.last()) == Some(range.first()) => {
                *run = AddressRange::new(run.first(), range.last()).expect("sorted and disjoint");
            }
            _ => runs.push(range),
        }
    }
    runs
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}
