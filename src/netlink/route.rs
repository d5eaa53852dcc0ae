//! Routes to BGP peers that are not on a connected network.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::types::KERNEL_MARK;

/// A route as wanted, in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spec {
    /// Where to, host bits zero.
    pub destination: IpNet,
    /// Via whom, of the same family.
    pub gateway: IpAddr,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.gateway)
    }
}

/// A route as it stands in the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Destination and gateway.
    pub spec: Spec,
    /// Carries our mark.
    pub ours: bool,
}

/// What must change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// To remove first: ours, and not wanted.
    pub remove: BTreeSet<Spec>,
    /// To add.
    pub add: BTreeSet<Spec>,
    /// Wanted, but somebody else routes that destination another way; theirs stands.
    pub conflicts: BTreeSet<Spec>,
}

/// The step from what is there to what is wanted. A route of somebody else's is never touched: the same one serves
/// us as well, another one for the same destination is a conflict.
pub fn diff(wanted: &BTreeSet<Spec>, present: &BTreeSet<Route>) -> Change {
    let mut change = Change::default();
    change.remove.extend(present.iter().filter(|r| r.ours && !wanted.contains(&r.spec)).map(|r| r.spec));
    for spec in wanted {
        let mut same_destination = present.iter().filter(|r| r.spec.destination == spec.destination).peekable();
        if present.iter().any(|r| r.spec == *spec) {
            continue;
        }
        if same_destination.any(|r| !r.ours) {
            change.conflicts.insert(*spec);
        } else {
            change.add.insert(*spec);
        }
    }
    change
}

/// Routes of the main table that go via a gateway: all of them, or only ours.
pub(super) async fn observe(handle: &Handle, only_ours: bool) -> Result<BTreeSet<Route>, rtnetlink::Error> {
    let mut routes = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.header.table = RouteHeader::RT_TABLE_MAIN;
        if only_ours {
            filter.header.protocol = RouteProtocol::Other(KERNEL_MARK);
        }
        let mut messages = std::pin::pin!(handle.route().get(filter).execute());
        while let Some(message) = messages.try_next().await? {
            routes.extend(parse(&message));
        }
    }
    Ok(routes)
}

pub(super) async fn add(handle: &Handle, spec: &Spec) -> Result<(), rtnetlink::Error> {
    handle.route().add(message(spec)).execute().await
}

pub(super) async fn remove(handle: &Handle, spec: &Spec) -> Result<(), rtnetlink::Error> {
    match handle.route().del(message(spec)).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => Ok(()),
        other => other,
    }
}

fn message(spec: &Spec) -> RouteMessage {
    let protocol = RouteProtocol::Other(KERNEL_MARK);
    match (spec.destination, spec.gateway) {
        (IpNet::V4(to), IpAddr::V4(gateway)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .gateway(gateway)
            .protocol(protocol)
            .build(),
        (IpNet::V4(to), IpAddr::V6(gateway)) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .via(gateway)
            .protocol(protocol)
            .build(),
        (IpNet::V6(to), gateway) => {
            let builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .protocol(protocol);
            // The kernel has no IPv6 route via an IPv4 gateway; it refuses the mapped address, and we report it.
            match gateway {
                IpAddr::V6(gateway) => builder.gateway(gateway).build(),
                IpAddr::V4(gateway) => builder.gateway(gateway.to_ipv6_mapped()).build(),
            }
        }
    }
}

fn parse(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let address = |a: &RouteAddress| match a {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let default = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    let (mut to, mut gateway) = (default, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => to = address(a)?,
            RouteAttribute::Gateway(a) => gateway = address(a),
            RouteAttribute::Via(netlink_packet_route::route::RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            _ => {}
        }
    }
    let destination = IpNet::new(to, header.destination_prefix_length).ok()?;
    let ours = header.protocol == RouteProtocol::Other(KERNEL_MARK);
    Some(Route { spec: Spec { destination, gateway: gateway? }, ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(destination: &str, gateway: &str) -> Spec {
        Spec { destination: destination.parse().expect("valid"), gateway: gateway.parse().expect("valid") }
    }

    #[test]
    fn our_route_by_another_gateway_is_replaced() {
        let (old, new) = (spec("203.0.113.1/32", "192.0.2.1"), spec("203.0.113.1/32", "192.0.2.2"));
        let change = diff(&[new].into(), &[Route { spec: old, ours: true }].into());
        assert_eq!(change, Change { remove: [old].into(), add: [new].into(), conflicts: [].into() });
    }

    #[test]
    fn routes_of_others_are_never_touched() {
        let (theirs, wanted) = (spec("203.0.113.1/32", "192.0.2.1"), spec("203.0.113.1/32", "192.0.2.2"));
        let present = [Route { spec: theirs, ours: false }].into();
        assert_eq!(diff(&[].into(), &present), Change::default());
        assert_eq!(diff(&[theirs].into(), &present), Change::default(), "the same one serves us as well");
        assert_eq!(diff(&[wanted].into(), &present), Change { conflicts: [wanted].into(), ..Change::default() });
    }
}
