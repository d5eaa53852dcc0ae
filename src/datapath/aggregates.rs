//! Addresses of an announced aggregate that are nobody's. A router that was told a whole prefix sends them here; the
//! node's own default route would send them back, round and round until their TTL ends. The tables of the programs
//! know single addresses only, so a rule of the kernel's routing drops what came in on an uplink and is still for such
//! a prefix after kube-proxy's translation. Packets of this node and of its pods are not touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    pin::pin,
};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{Handle, IpVersion};

use crate::types::KERNEL_MARK;

/// Between the table of local addresses (0) and the main one (32,766).
const PRIORITY: u32 = 1073;

/// Prefixes, and the uplinks that packets for them come in on.
pub type Aggregates = BTreeSet<(IpNet, String)>;

/// Has the kernel drop packets for these prefixes, and no longer for others that we had it drop.
///
/// # Errors
/// The kernel has no rules, or refused one.
pub async fn keep(handle: &Handle, wanted: &Aggregates) -> Result<(), rtnetlink::Error> {
    let mut found = BTreeMap::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        let mut rules = pin!(handle.rule().get(version).execute());
        while let Some(rule) = rules.try_next().await? {
            if let Some(key) = ours(&rule) {
                found.insert(key, rule);
            }
        }
    }
    for (_, rule) in found.iter().filter(|(key, _)| !wanted.contains(key)) {
        handle.rule().del(rule.clone()).execute().await?;
    }
    for (prefix, uplink) in wanted.iter().filter(|key| !found.contains_key(key)) {
        let rule = handle.rule().add().input_interface(uplink).action(RuleAction::Blackhole).priority(PRIORITY);
        match prefix {
            IpNet::V4(v4) => {
                let mut rule = rule.v4().destination_prefix(v4.network(), v4.prefix_len());
                rule.message_mut().attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(KERNEL_MARK)));
                rule.execute().await?;
            }
            IpNet::V6(v6) => {
                let mut rule = rule.v6().destination_prefix(v6.network(), v6.prefix_len());
                rule.message_mut().attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(KERNEL_MARK)));
                rule.execute().await?;
            }
        }
    }
    Ok(())
}

/// The key of a rule that we made.
fn ours(rule: &RuleMessage) -> Option<(IpNet, String)> {
    let (mut to, mut uplink, mut protocol): (Option<IpAddr>, _, _) = (None, None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Destination(address) => to = Some(*address),
            RuleAttribute::Iifname(name) => uplink = Some(name.clone()),
            RuleAttribute::Protocol(by) => protocol = Some(u8::from(*by)),
            _ => {}
        }
    }
    if rule.header.action != RuleAction::Blackhole || protocol != Some(KERNEL_MARK) {
        return None;
    }
    Some((IpNet::new(to?, rule.header.dst_len).ok()?, uplink?))
}
