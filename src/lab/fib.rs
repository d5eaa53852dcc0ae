//! The kernel's routing table in the namespace of the calling thread: which next hops a prefix has, and
//! setting them. Only the main table, only unicast routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    link::{LinkAttribute, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
        RouteType,
    },
};
use rtnetlink::{Handle, RouteMessageBuilder, RouteNextHopBuilder};

/// Prefixes and the routers behind which they are.
pub(crate) type Routes = BTreeMap<IpNet, BTreeSet<IpAddr>>;
/// Prefixes and the names of the ports that lead there. A port says more than a next hop: FRR takes the
/// link-local address of the two that an IPv6 route may carry (RFC 2545 §3).
pub(crate) type Ports = BTreeMap<IpNet, BTreeSet<String>>;

/// Every route with a gateway.
///
/// # Errors
/// The kernel did not answer.
pub(crate) async fn read(handle: &Handle) -> anyhow::Result<Ports> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.context("read the links")?;
    let names: BTreeMap<u32, String> = links.iter().filter_map(|l| Some((l.header.index, name(l)?))).collect();
    let mut routes = Ports::new();
    for question in questions() {
        let mut answers = Box::pin(handle.route().get(question).execute());
        while let Some(route) = answers.try_next().await.context("read the routing table")? {
            if let Some((prefix, ports)) = parse(&route) {
                routes.entry(prefix).or_default().extend(ports.iter().filter_map(|port| names.get(port).cloned()));
            }
        }
    }
    Ok(routes)
}

/// Every route of BGP, with its gateways: what a router that died has left.
///
/// # Errors
/// The kernel did not answer.
pub(crate) async fn left(handle: &Handle) -> anyhow::Result<Routes> {
    let mut routes = Routes::new();
    for question in questions() {
        let mut answers = Box::pin(handle.route().get(question).execute());
        while let Some(route) = answers.try_next().await.context("read the routing table")? {
            if route.header.protocol == RouteProtocol::Bgp
                && let Some((prefix, gateways)) = gateways(&route)
            {
                routes.insert(prefix, gateways);
            }
        }
    }
    Ok(routes)
}

fn questions() -> [RouteMessage; 2] {
    [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Makes the prefix lead to exactly these next hops; without any, the route goes.
///
/// # Errors
/// The kernel refused, for another reason than that there is nothing to remove.
pub(crate) async fn set(handle: &Handle, prefix: IpNet, next_hops: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
    if next_hops.is_empty() {
        return match handle.route().del(route(prefix, &[])?).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ESRCH => Ok(()),
            other => other.with_context(|| format!("remove the route to {prefix}")),
        };
    }
    let hops: Vec<IpAddr> = next_hops.iter().copied().collect();
    let added = handle.route().add(route(prefix, &hops)?).replace().execute().await;
    added.with_context(|| format!("set the route to {prefix} via {hops:?}"))
}

/// The ports of a unicast route with gateways; dead next hops do not count.
fn parse(message: &RouteMessage) -> Option<(IpNet, BTreeSet<u32>)> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut gateway, mut port, mut ports) = (None, false, None, BTreeSet::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to),
            RouteAttribute::Gateway(_) => gateway = true,
            RouteAttribute::Oif(index) => port = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                let alive = hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                ports.extend(alive.map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    if gateway {
        ports.extend(port);
    }
    let prefix = IpNet::new(destination?, message.header.destination_prefix_length).ok()?;
    (!ports.is_empty()).then_some((prefix, ports))
}

/// The gateways of a route of the main table.
fn gateways(message: &RouteMessage) -> Option<(IpNet, BTreeSet<IpAddr>)> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let gateway = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(via) => ip(via),
        _ => None,
    };
    let (mut destination, mut gateways) = (None, BTreeSet::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to),
            RouteAttribute::MultiPath(hops) => {
                gateways.extend(hops.iter().flat_map(|hop| hop.attributes.iter().filter_map(gateway)));
            }
            other => gateways.extend(gateway(other)),
        }
    }
    Some((IpNet::new(destination?, message.header.destination_prefix_length).ok()?, gateways))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The kernel finds the interface by the gateway's address.
fn route(prefix: IpNet, next_hops: &[IpAddr]) -> anyhow::Result<RouteMessage> {
    let mut message = match prefix {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .protocol(RouteProtocol::Bgp)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .protocol(RouteProtocol::Bgp)
            .build(),
    };
    match next_hops {
        [] => {}
        [one] => message.attributes.push(RouteAttribute::Gateway((*one).into())),
        many => {
            let hop = |via: &IpAddr| -> anyhow::Result<RouteNextHop> {
                let builder =
                    if via.is_ipv4() { RouteNextHopBuilder::new_ipv4() } else { RouteNextHopBuilder::new_ipv6() };
                Ok(builder.via(*via)?.build())
            };
            message.attributes.push(RouteAttribute::MultiPath(many.iter().map(hop).collect::<anyhow::Result<_>>()?));
        }
    }
    Ok(message)
}
