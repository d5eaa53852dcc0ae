//! Which prefixes advertisements can make of pools.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use super::Accept;
use crate::types::{AddressRange, Advertisement, Pool};

/// The prefixes that cover exactly the range.
fn networks(range: &AddressRange) -> Vec<IpNet> {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
        _ => unreachable!("a range is of one family"),
    }
}

/// Whether the advertisement is about the pool, as in the plan.
fn selects(advertisement: &Advertisement, pool: &Pool) -> bool {
    let all = advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty();
    all || advertisement.pools.contains(&pool.name)
        || advertisement.pool_selectors.iter().any(|selector| selector.matches(&pool.labels))
}

/// Everything that these advertisements can announce, in order and without repetition.
pub(super) fn accepted<'a>(
    pools: impl Iterator<Item = &'a Pool>,
    advertisements: &[&Advertisement],
) -> BTreeSet<Accept> {
    let mut accepted = BTreeSet::new();
    for pool in pools {
        for advertisement in advertisements.iter().filter(|advertisement| selects(advertisement, pool)) {
            for network in pool.ranges.iter().flat_map(networks) {
                accepted.insert(accept(network, advertisement));
            }
        }
    }
    accepted
}

/// Addresses of a network are announced with the advertisement's length: prefixes within it, or the one around it.
fn accept(network: IpNet, advertisement: &Advertisement) -> Accept {
    let length = match network {
        IpNet::V4(_) => advertisement.aggregation_length,
        IpNet::V6(_) => advertisement.aggregation_length_v6,
    };
    let around = IpNet::new(network.network(), length.min(network.prefix_len())).map_or(network, |net| net.trunc());
    Accept { network: around, length }
}
