//! What the kernel says of the underlay, over netlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::datapath::underlay::{Link, Underlay, Way};

type Result<T> = std::result::Result<T, rtnetlink::Error>;

/// Everything that ways to these addresses are made of.
pub(super) async fn underlay(handle: &Handle, towards: &BTreeSet<IpAddr>) -> Result<Underlay> {
    let links = handle.link().get().execute().map_ok(|message| (message.header.index, link(&message)));
    let links = links.try_collect().await?;
    let neighbours = handle.neighbours().get().execute().map_ok(|message| neighbour(&message));
    let neighbours: Vec<_> = neighbours.try_collect().await?;
    let mut ways = BTreeMap::new();
    for &address in towards {
        ways.extend(way(handle, address).await?.map(|way| (address, way)));
    }
    let neighbours = neighbours.into_iter().flatten().collect();
    Ok(Underlay { links, neighbours, ways, default: default_routes(handle).await? })
}

/// Has the kernel find out, or confirm, a neighbour's Ethernet address. Packets that XDP sends refresh no entry.
pub(super) async fn resolve(handle: &Handle, interface: u32, neighbour: IpAddr) -> Result<()> {
    let request = handle.neighbours().add(interface, neighbour);
    request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace().execute().await
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link =
        Link { up: flags.contains(LinkFlags::Up), loopback: flags.contains(LinkFlags::Loopback), ..Link::default() };
    let (mut carrier, mut vlan) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Link(index) => carrier = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                vlan = infos.iter().find_map(vlan_id);
                link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link.vlan = vlan.zip(carrier);
    link
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(data)) = info else { return None };
    data.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

/// One whose Ethernet address is known, if perhaps not fresh.
fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    if !matches!(message.header.state, Delay | Permanent | Probe | Reachable | Stale) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac?))
}

/// What `ip route get` says; `None` where there is no route.
async fn way(handle: &Handle, to: IpAddr) -> Result<Option<Way>> {
    let question = match to {
        IpAddr::V4(v4) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(v4, 32).build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(v6, 128).build(),
    };
    match handle.route().get(question).execute().try_next().await {
        Ok(answer) => Ok(answer.as_ref().and_then(parse)),
        // Unreachable, prohibited: an answer as well.
        Err(rtnetlink::Error::NetlinkError(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

fn parse(answer: &RouteMessage) -> Option<Way> {
    if answer.header.kind != RouteType::Unicast {
        return None;
    }
    let address = |a: &RouteAddress| match a {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(a) => gateway = address(a),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(a) => source = address(a),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    Some(Way { interface: interface?, gateway, source, mtu })
}

/// Interfaces of the main table's default routes.
async fn default_routes(handle: &Handle) -> Result<BTreeSet<u32>> {
    let mut interfaces = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        filter.header.table = RouteHeader::RT_TABLE_MAIN;
        let mut routes = std::pin::pin!(handle.route().get(filter).execute());
        while let Some(route) = routes.try_next().await? {
            let header = &route.header;
            let main = header.table == RouteHeader::RT_TABLE_MAIN && header.kind == RouteType::Unicast;
            if main && header.destination_prefix_length == 0 {
                interfaces.extend(outgoing(&route));
            }
        }
    }
    Ok(interfaces)
}

fn outgoing(route: &RouteMessage) -> impl Iterator<Item = u32> {
    let of = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => vec![],
    };
    route.attributes.iter().flat_map(of)
}
