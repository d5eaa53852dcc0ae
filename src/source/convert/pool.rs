//! `IPAddressPool` to [`Pool`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Converted, report::Report, selector::selectors};
use crate::{
    source::api::{self, IPAddressPool, ReclaimPolicy, ServiceAllocation},
    types::{AddressRange, Allocation, Pool, PoolProvider, Reclaim},
};

/// The pool: ranges parsed, none of them overlapping another, none holding what no host can have.
pub fn pool(object: &IPAddressPool) -> Converted<Pool> {
    let mut report = Report::new(object);
    let spec = &object.spec;
    if spec.addresses.is_empty() && spec.provider.is_none() {
        let hint = "add a CIDR (192.0.2.0/24) or a range (192.0.2.10-192.0.2.20), or name a provider";
        report.error("spec.addresses", "is empty", hint);
    }
    let ranges = ranges(&mut report, &spec.addresses);
    let allocation = spec.service_allocation.as_ref().map(|a| allocation(&mut report, a));
    let pool = Pool {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        ranges,
        reserved: BTreeMap::new(),
        provider: spec.provider.as_ref().map(|provider| claimed_from(&mut report, provider)),
        auto_assign: spec.auto_assign,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        allocation,
        disabled: spec.disabled,
    };
    report.finish(Some(pool))
}

fn claimed_from(report: &mut Report, provider: &api::PoolProvider) -> PoolProvider {
    if provider.name.is_empty() {
        report.error("spec.provider.name", "is empty", "name a ProviderConfig");
    }
    let mut block = |field: &str, length: Option<u8>, least: u8, most: u8| {
        let good = length.is_none_or(|length| (least..=most).contains(&length));
        if !good {
            let field = format!("spec.provider.{field}");
            report.error(field, "is no length of a block", format!("use {least} to {most}, or leave it out"));
        }
        length.filter(|_| good)
    };
    PoolProvider {
        block: block("blockLength", provider.block_length, 16, 31),
        block_v6: block("blockLengthV6", provider.block_length_v6, 48, 127),
        name: provider.name.clone(),
        kind: provider.type_.clone(),
        region: provider.region.clone(),
        reclaim: match provider.reclaim_policy {
            ReclaimPolicy::Delete => Reclaim::Delete,
            ReclaimPolicy::Retain => Reclaim::Retain,
        },
    }
}

fn ranges(report: &mut Report, addresses: &[String]) -> Vec<AddressRange> {
    let mut ranges: Vec<AddressRange> = Vec::new();
    for (i, text) in addresses.iter().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let Some(range) = report.take(&field, text.parse::<AddressRange>(), "write a CIDR or a from-to range") else {
            continue;
        };
        if let Some((net, what)) = reserved(&range) {
            report.error(
                &field,
                format!("{text} holds addresses of {net} ({what})"),
                "no Service can have such an address",
            );
        }
        if let Some(other) = ranges.iter().position(|r| r.overlaps(&range)) {
            report.error(
                &field,
                format!("{text} overlaps {} (spec.addresses[{other}])", addresses[other]),
                "name each address once",
            );
        }
        ranges.push(range);
    }
    ranges
}

/// A network that the range touches and that no host can have an address of.
fn reserved(range: &AddressRange) -> Option<(&'static str, &'static str)> {
    const V4: [(&str, &str, [u8; 4], [u8; 4]); 4] = [
        ("0.0.0.0/8", "this network, RFC 1122", [0, 0, 0, 0], [0, 255, 255, 255]),
        ("127.0.0.0/8", "loopback", [127, 0, 0, 0], [127, 255, 255, 255]),
        ("169.254.0.0/16", "link-local", [169, 254, 0, 0], [169, 254, 255, 255]),
        ("224.0.0.0/3", "multicast and reserved", [224, 0, 0, 0], [255, 255, 255, 255]),
    ];
    let v6 = |first: Ipv6Addr, last: Ipv6Addr| (IpAddr::V6(first), IpAddr::V6(last));
    let high = |from: u16, to: u16| {
        v6(
            Ipv6Addr::new(from, 0, 0, 0, 0, 0, 0, 0),
            Ipv6Addr::new(to, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff),
        )
    };
    let v4 = V4.map(|(net, what, first, last)| {
        (net, what, (IpAddr::V4(Ipv4Addr::from(first)), IpAddr::V4(Ipv4Addr::from(last))))
    });
    let v6 = [
        ("::/128 and ::1/128", "unspecified and loopback", v6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST)),
        (
            "::ffff:0:0/96",
            "IPv4-mapped; write the IPv4 address",
            v6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), Ipv4Addr::BROADCAST.to_ipv6_mapped()),
        ),
        ("fe80::/10", "link-local", high(0xfe80, 0xfebf)),
        ("ff00::/8", "multicast", high(0xff00, 0xffff)),
    ];
    v4.into_iter().chain(v6).find_map(|(net, what, (first, last))| {
        let reserved = AddressRange::new(first, last).expect("first is before last");
        reserved.overlaps(range).then_some((net, what))
    })
}

fn allocation(report: &mut Report, allocation: &ServiceAllocation) -> Allocation {
    const PATH: &str = "spec.serviceAllocation";
    let priority = allocation.priority.unwrap_or(0);
    let priority = report.take(
        &format!("{PATH}.priority"),
        u32::try_from(priority).map_err(|_| format!("{priority} is out of range")),
        "use 0 to 2147483647",
    );
    Allocation {
        priority: priority.unwrap_or(0),
        namespaces: allocation.namespaces.clone(),
        namespace_selectors: selectors(report, &format!("{PATH}.namespaceSelectors"), &allocation.namespace_selectors),
        service_selectors: selectors(report, &format!("{PATH}.serviceSelectors"), &allocation.service_selectors),
    }
}
