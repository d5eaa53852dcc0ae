//! How this node reaches the others, out of what the kernel says of routes, links and neighbours: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::spec::Route;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` for links without.
    pub mac: Option<[u8; 6]>,
    /// Bytes of IP that it takes.
    pub mtu: u32,
    /// Switched on.
    pub up: bool,
    /// It is the loopback device.
    pub loopback: bool,
    /// One end of a veth.
    pub veth: bool,
    /// A VLAN: its number, and the index of the link that carries it.
    pub vlan: Option<(u16, u32)>,
}

/// What the kernel answers when asked for the way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub interface: u32,
    /// The next router; `None` where the address is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel prefers.
    pub source: Option<IpAddr>,
    /// MTU of the route, where it has one of its own.
    pub mtu: Option<u32>,
}

/// What the kernel said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Underlay {
    /// By index.
    pub links: BTreeMap<u32, Link>,
    /// Ethernet addresses of neighbours that are known, by interface and address.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// Ways to addresses of other nodes and of peers.
    pub ways: BTreeMap<IpAddr, Way>,
    /// Interfaces of default routes.
    pub default: BTreeSet<u32>,
}

/// Why there is no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoWay {
    /// The kernel has no route, or the link is down, no Ethernet, or `lo`.
    Route,
    /// The neighbour does not answer (yet): resolve this one.
    Neighbour(u32, IpAddr),
}

impl Underlay {
    /// The ways to a node with these addresses, from one with those; IPv4 first, since its headers are shorter.
    ///
    /// # Errors
    /// There is none now.
    pub fn routes(&self, to: &[IpAddr], from: &[IpAddr]) -> Result<Vec<Route>, NoWay> {
        let (mut routes, mut reason) = (Vec::new(), NoWay::Route);
        for v4 in [true, false] {
            for &destination in to.iter().filter(|a| a.is_ipv4() == v4) {
                match self.route_to(destination, from) {
                    Ok(route) => routes.push(route),
                    Err(no) => reason = reason.max(no),
                }
            }
        }
        if routes.is_empty() { Err(reason) } else { Ok(routes) }
    }

    fn route_to(&self, destination: IpAddr, from: &[IpAddr]) -> Result<Route, NoWay> {
        let way = self.ways.get(&destination).ok_or(NoWay::Route)?;
        let link = self.links.get(&way.interface).filter(|l| l.up && !l.loopback).ok_or(NoWay::Route)?;
        let source_mac = link.mac.ok_or(NoWay::Route)?;
        let next_hop = way.gateway.unwrap_or(destination);
        let neighbour = self.neighbours.get(&(way.interface, next_hop));
        let next_hop_mac = *neighbour.ok_or(NoWay::Neighbour(way.interface, next_hop))?;
        // Others accept what comes from an address of our Node object.
        let same_family = |a: &&IpAddr| a.is_ipv4() == destination.is_ipv4();
        let preferred = way.source.filter(|s| from.contains(s));
        let source = preferred.or_else(|| from.iter().find(same_family).copied()).or(way.source);
        let (interface, vlan) = match link.vlan {
            Some((vlan, carrier)) => (carrier, Some(vlan)),
            None => (way.interface, None),
        };
        Ok(Route {
            destination,
            source: source.ok_or(NoWay::Route)?,
            interface,
            source_mac,
            next_hop_mac,
            vlan,
            mtu: way.mtu.unwrap_or(u32::MAX).min(link.mtu).try_into().unwrap_or(u16::MAX),
        })
    }

    /// Interfaces to attach to, by name with their index: those of default routes and towards these peers, the
    /// carriers of VLANs rather than the VLANs.
    pub fn uplinks<'a>(&self, peers: impl Iterator<Item = &'a IpAddr>) -> BTreeMap<String, u32> {
        let towards = peers.filter_map(|peer| self.ways.get(peer)).map(|way| way.interface);
        let indices: BTreeSet<u32> = self.default.iter().copied().chain(towards).collect();
        let carrier = |index: u32| self.links.get(&index)?.vlan.map_or(Some(index), |(_, carrier)| Some(carrier));
        let link = |index: u32| Some((index, self.links.get(&index).filter(|l| !l.loopback)?));
        indices.into_iter().filter_map(carrier).filter_map(link).map(|(i, l)| (l.name.clone(), i)).collect()
    }

    /// This node's ends of the veths that lead to these pods, by the pod's address. Pods behind a bridge or a tunnel
    /// have none.
    pub fn veths<'a>(&'a self, pods: impl Iterator<Item = IpAddr> + 'a) -> BTreeMap<IpAddr, u32> {
        let veth = |pod: IpAddr| {
            let way = self.ways.get(&pod).filter(|way| way.gateway.is_none())?;
            let link = self.links.get(&way.interface)?;
            (link.veth && link.up).then_some((pod, way.interface))
        };
        pods.filter_map(veth).collect()
    }

    /// These interfaces, by name with their index; those that do not exist are left out.
    pub fn named(&self, names: &[String]) -> BTreeMap<String, u32> {
        let wanted = |(index, link): (&u32, &Link)| names.contains(&link.name).then(|| (link.name.clone(), *index));
        self.links.iter().filter_map(wanted).collect()
    }
}

/// Of the ways to a node, the first by which it answers. A better one that has just come up, and that nothing is known
/// of yet, takes nothing away from one that works.
pub fn first_answering(routes: &[Route], answering: &BTreeSet<IpAddr>) -> Option<Route> {
    routes.iter().find(|route| answering.contains(&route.destination)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn first(underlay: &Underlay, to: &[IpAddr], from: &[IpAddr]) -> Result<Route, NoWay> {
        underlay.routes(to, from).map(|routes| routes[0])
    }

    fn link(name: &str, mtu: u32) -> Link {
        Link { name: name.into(), mac: Some(OWN), mtu, up: true, loopback: false, veth: false, vlan: None }
    }

    /// eth0 with VLAN 7 on it, a tunnel without Ethernet; other nodes behind a gateway.
    fn underlay() -> Underlay {
        let vlan = Link { vlan: Some((7, 2)), ..link("eth0.7", 1496) };
        let lo = Link { loopback: true, ..link("lo", 65536) };
        let tunnel = Link { mac: None, ..link("wg0", 1420) };
        let way =
            |interface, gateway: Option<&str>| Way { interface, gateway: gateway.map(ip), source: None, mtu: None };
        Underlay {
            links: [(1, lo), (2, link("eth0", 1500)), (3, vlan), (4, tunnel)].into(),
            neighbours: [((2, ip("10.0.0.254")), GATEWAY), ((3, ip("10.7.0.2")), GATEWAY)].into(),
            ways: [
                (ip("10.0.1.2"), way(2, Some("10.0.0.254"))),
                (ip("10.7.0.2"), way(3, None)),
                (ip("fd00::2"), way(2, Some("fd00::fe"))),
                (ip("10.9.0.2"), way(4, None)),
            ]
            .into(),
            default: [2].into(),
        }
    }

    #[test]
    fn node_behind_a_gateway_is_reached_through_the_gateways_mac() {
        let route = first(&underlay(), &[ip("fd00::2"), ip("10.0.1.2")], &[ip("fd00::1"), ip("10.0.0.1")]);
        let expected = Route {
            destination: ip("10.0.1.2"),
            source: ip("10.0.0.1"),
            interface: 2,
            source_mac: OWN,
            next_hop_mac: GATEWAY,
            vlan: None,
            mtu: 1500,
        };
        assert_eq!(route, Ok(expected));
    }

    #[test]
    fn vlan_is_left_on_its_carrier_with_a_tag() {
        let route = first(&underlay(), &[ip("10.7.0.2")], &[ip("10.7.0.1")]).expect("a way");
        assert_eq!((route.interface, route.vlan, route.mtu), (2, Some(7), 1496));
        let mut underlay = underlay();
        underlay.default = [3].into();
        assert_eq!(underlay.uplinks([].iter()), [("eth0".to_owned(), 2)].into());
    }

    #[test]
    fn neighbour_that_is_not_known_is_named() {
        let reason = first(&underlay(), &[ip("fd00::2"), ip("10.9.0.2")], &[ip("fd00::1")]);
        assert_eq!(reason, Err(NoWay::Neighbour(2, ip("fd00::fe"))));
        assert_eq!(first(&underlay(), &[ip("10.9.0.2")], &[ip("10.9.0.1")]), Err(NoWay::Route), "no Ethernet");
        assert_eq!(first(&underlay(), &[], &[]), Err(NoWay::Route));
    }

    #[test]
    fn source_is_one_that_others_accept() {
        let mut underlay = underlay();
        let way = underlay.ways.get_mut(&ip("10.0.1.2")).expect("there");
        way.source = Some(ip("10.0.0.77"));
        way.mtu = Some(1400);
        let route = first(&underlay, &[ip("10.0.1.2")], &[ip("10.0.0.1")]).expect("a way");
        assert_eq!((route.source, route.mtu), (ip("10.0.0.1"), 1400));
        let route = first(&underlay, &[ip("10.0.1.2")], &[ip("10.0.0.1"), ip("10.0.0.77")]).expect("a way");
        assert_eq!(route.source, ip("10.0.0.77"), "the kernel's, where it is the node's");
    }

    #[test]
    fn only_a_pod_on_a_veth_of_its_own_is_reached_by_one() {
        let mut underlay = underlay();
        underlay.links.insert(5, Link { veth: true, ..link("veth1", 1500) });
        let way = |interface| Way { interface, gateway: None, source: None, mtu: None };
        underlay.ways.extend([(ip("10.42.0.7"), way(5)), (ip("10.42.0.8"), way(2))]);
        let pods = ["10.42.0.7", "10.42.0.8", "10.42.0.9"].map(ip);
        assert_eq!(underlay.veths(pods.into_iter()), [(ip("10.42.0.7"), 5)].into());
    }

    #[test]
    fn uplinks_are_those_of_default_routes_and_of_peers() {
        let underlay = underlay();
        assert_eq!(underlay.uplinks([ip("10.9.0.2")].iter()), [("eth0".to_owned(), 2), ("wg0".to_owned(), 4)].into());
        assert_eq!(underlay.named(&["eth0".into(), "gone".into()]), [("eth0".to_owned(), 2)].into());
    }

    #[test]
    fn a_way_that_answers_is_kept_until_a_better_one_does() {
        let mut underlay = underlay();
        underlay.neighbours.insert((2, ip("fd00::fe")), GATEWAY);
        let (four, six) = (ip("10.0.1.2"), ip("fd00::2"));
        let routes = underlay.routes(&[six, four], &[ip("fd00::1"), ip("10.0.0.1")]).expect("two ways");
        assert_eq!(routes.iter().map(|r| r.destination).collect::<Vec<_>>(), [four, six]);
        let taken = |answering: &[IpAddr]| {
            first_answering(&routes, &answering.iter().copied().collect()).map(|route| route.destination)
        };
        assert_eq!(taken(&[six]), Some(six), "IPv4 has come up, and is not known to work yet");
        assert_eq!(taken(&[six, four]), Some(four));
        assert_eq!(taken(&[]), None);
    }
}
