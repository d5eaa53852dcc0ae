//! Frames made by hand, checksums computed from scratch: nothing here is shared with the code under test.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

#[cfg(feature = "xdp")]
pub mod lab;
#[cfg(feature = "xdp")]
pub mod run;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ironcast::{
    datapath::spec::{Backend, Frontend, Membership, Node, Route, Spec, Table, Target},
    types::{Protocol, ServiceKey},
};

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const TCX_NEXT: u32 = u32::MAX;

pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NEXT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// One's complement sum of RFC 1071 over several parts, each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An IP packet to be.
#[derive(Debug, Clone)]
pub struct Packet {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    /// From the L4 header on, its checksum included.
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub tos: u8,
    /// IPv4: flags and offset.
    pub fragment: u16,
    /// IPv4 options or IPv6 extension headers, as they stand.
    pub options: Vec<u8>,
    /// IPv6: the first header's number, when there are extensions.
    pub first_header: Option<u8>,
    pub vlans: Vec<(u16, u16)>,
}

fn l4(from: IpAddr, to: IpAddr, protocol: u8, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at..at + 2].fill(0);
    let length = (bytes.len() as u32).to_be_bytes();
    let sum = checksum(&[&octets(from), &octets(to), &length, &[0, protocol], &bytes]);
    let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

impl Packet {
    pub fn new(from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        let (options, vlans) = (vec![], vec![]);
        Self { from, to, protocol, payload, ttl: 61, tos: 0, fragment: 0x4000, options, first_header: None, vlans }
    }

    pub fn tcp((from, sport): (IpAddr, u16), (to, dport): (IpAddr, u16), flags: u8, data: &[u8]) -> Self {
        Self::tcp_with(from, sport, to, dport, flags, &[], data)
    }

    pub fn tcp_with(from: IpAddr, sport: u16, to: IpAddr, dport: u16, flags: u8, options: &[u8], data: &[u8]) -> Self {
        let mut b = Vec::new();
        b.extend(sport.to_be_bytes());
        b.extend(dport.to_be_bytes());
        b.extend([0x11, 0x22, 0x33, 0x44, 0, 0, 0, 9]);
        b.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0x20, 0, 0, 0, 0, 0]);
        b.extend(options);
        b.extend(data);
        Self::new(from, to, 6, l4(from, to, 6, b, 16))
    }

    pub fn udp((from, sport): (IpAddr, u16), (to, dport): (IpAddr, u16), data: &[u8]) -> Self {
        let mut b = Vec::new();
        b.extend(sport.to_be_bytes());
        b.extend(dport.to_be_bytes());
        b.extend((8 + data.len() as u16).to_be_bytes());
        b.extend([0, 0]);
        b.extend(data);
        Self::new(from, to, 17, l4(from, to, 17, b, 6))
    }

    pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Self {
        let mut b = vec![kind, code, 0, 0];
        b.extend(rest);
        b.extend(data);
        if from.is_ipv4() {
            let sum = checksum(&[&b]);
            b[2..4].copy_from_slice(&sum.to_be_bytes());
            return Self::new(from, to, 1, b);
        }
        Self::new(from, to, 58, l4(from, to, 58, b, 2))
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let mut b = Vec::new();
        if self.from.is_ipv4() {
            b.push(0x45 + (self.options.len() / 4) as u8);
            b.push(self.tos);
            b.extend(((20 + self.options.len() + self.payload.len()) as u16).to_be_bytes());
            b.extend([0, 0]);
            b.extend(self.fragment.to_be_bytes());
            b.extend([self.ttl, self.protocol, 0, 0]);
            b.extend(octets(self.from));
            b.extend(octets(self.to));
            b.extend(&self.options);
            let sum = checksum(&[&b]);
            b[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            b.extend((6_u32 << 28 | u32::from(self.tos) << 20).to_be_bytes());
            b.extend(((self.options.len() + self.payload.len()) as u16).to_be_bytes());
            b.extend([self.first_header.unwrap_or(self.protocol), self.ttl]);
            b.extend(octets(self.from));
            b.extend(octets(self.to));
            b.extend(&self.options);
        }
        b.extend(&self.payload);
        b
    }

    /// The frame, from the router to us.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_between(OWN_MAC, ROUTER_MAC)
    }

    pub fn frame_between(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        let mut b = [to, from].concat();
        for (kind, tag) in &self.vlans {
            b.extend(kind.to_be_bytes());
            b.extend(tag.to_be_bytes());
        }
        b.extend(if self.from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
        b.extend(self.ip());
        b
    }

    /// This packet in another node's encapsulation, to us.
    pub fn encapsulated(&self, from: IpAddr, to: IpAddr, header: [u8; 8]) -> Self {
        encapsulated_bytes(&self.ip(), from, to, header)
    }
}

pub fn encapsulated_bytes(inner: &[u8], from: IpAddr, to: IpAddr, header: [u8; 8]) -> Packet {
    let mut b = Vec::new();
    b.extend(50_000_u16.to_be_bytes());
    b.extend(6085_u16.to_be_bytes());
    b.extend((16 + inner.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(header);
    b.extend(inner);
    Packet { ttl: 64, ..Packet::new(from, to, 17, b) }
}

/// Our header.
pub fn tunnel(hops: u8, last: bool, asked: [u16; 3]) -> [u8; 8] {
    tunnel_with(hops, u8::from(last), asked)
}

/// The same with these flags.
pub fn tunnel_with(hops: u8, flags: u8, asked: [u16; 3]) -> [u8; 8] {
    let [a, b, c] = asked.map(u16::to_le_bytes);
    [2, hops | flags << 4, a[0], a[1], b[0], b[1], c[0], c[1]]
}

pub fn backend(address: &str, port: u16, node: &str) -> Backend {
    Backend { address: ip(address), port, node: node.into() }
}

/// A table that has had these members, newest first; all of them live.
pub fn table(history: &[&[&Backend]]) -> Table {
    let members = |m: &&[&Backend]| m.iter().map(|b| ((*b).clone(), 1)).collect();
    Table {
        history: history.iter().map(|m| Membership { slots_log2: 10, members: members(m) }).collect(),
        living: history.iter().flat_map(|m| m.iter().map(|b| (*b).clone())).collect(),
        forgetful: false,
    }
}

pub fn route(destination: &str, source: &str) -> Route {
    Route {
        destination: ip(destination),
        source: ip(source),
        interface: 1,
        source_mac: OWN_MAC,
        next_hop_mac: NEXT_MAC,
        vlan: None,
        mtu: 1500,
    }
}

pub const VIP4: &str = "192.0.2.10";
pub const VIP6: &str = "2001:db8::10";

/// A cluster of three nodes, seen from `n1`; n2 is reached over IPv4, n3 over IPv6. Ports: 80 here, 81 on n2, 82 on
/// n3, 83 moved from n1 to n2, 84 moved from n2 to n1, 85 moved from n3 over n2 to n1, 86 nobody, 87 with affinity
/// on all nodes, 88 left to kube-proxy, 89 on a node that no way is known to, 90 moved from n3 over n5, n4 and n2 to n1.
pub fn spec() -> Spec {
    let node = |addresses: &[&str], route| Node { addresses: addresses.iter().map(|a| ip(a)).collect(), route };
    let nodes = BTreeMap::from([
        ("n1".to_string(), node(&["10.0.0.1", "fd00::1"], None)),
        ("n2".to_string(), node(&["10.0.0.2", "fd00::2"], Some(route("10.0.0.2", "10.0.0.1")))),
        ("n3".to_string(), node(&["10.0.0.3", "fd00::3"], Some(route("fd00::3", "fd00::1")))),
    ]);
    let mut spec = Spec { generation: 7, secret: [9; 32], node: "n1".into(), nodes, ..Spec::default() };
    spec.addresses = BTreeSet::from([ip(VIP4), ip(VIP6)]);
    for (family, vip, prefix) in [("v4", VIP4, "10.1."), ("v6", VIP6, "fd01::")] {
        let pod = |node: u8| {
            let address = if family == "v4" { format!("{prefix}{node}.5") } else { format!("{prefix}{node}:5") };
            backend(&address, 8080, &format!("n{node}"))
        };
        let (a, b, c) = (pod(1), pod(2), pod(3));
        let tables = [
            (80, table(&[&[&a]])),
            (81, table(&[&[&b]])),
            (82, table(&[&[&c]])),
            (83, table(&[&[&b], &[&a]])),
            (84, table(&[&[&a], &[&b]])),
            (85, table(&[&[&a], &[&b], &[&c]])),
            (86, table(&[&[]])),
            (87, table(&[&[&a, &b, &c]])),
            (88, table(&[&[&a]])),
            (89, table(&[&[&backend(&a.address.to_string(), 8080, "n4")]])),
            (90, table(&[&[&a], &[&b], &[&pod(4)], &[&pod(5)], &[&c]])),
        ];
        for (port, table) in tables {
            let id = format!("{family}-{port}");
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let front = Frontend { address: ip(vip), protocol, port };
                let service = ServiceKey::new("test", format!("s{port}"));
                spec.ports.insert(front, Target { service, table: id.clone(), affinity: port == 87, pass: port == 88 });
            }
            spec.tables.insert(id, table);
        }
        let sctp = Frontend { address: ip(vip), protocol: Protocol::Sctp, port: 80 };
        let target = Target {
            service: ServiceKey::new("test", "s80"),
            table: format!("{family}-80"),
            affinity: false,
            pass: true,
        };
        spec.ports.insert(sctp, target);
    }
    spec
}

/// Client and VIP of a family.
pub fn ends(v6: bool) -> (IpAddr, IpAddr) {
    if v6 { (ip("2001:db8:ffff::7"), ip(VIP6)) } else { (ip("198.51.100.7"), ip(VIP4)) }
}

/// The pod of node n in that family.
pub fn pod(v6: bool, node: u8) -> IpAddr {
    if v6 { Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, node.into(), 5).into() } else { Ipv4Addr::new(10, 1, node, 5).into() }
}
