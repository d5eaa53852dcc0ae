//! The rack of a row: one router, and for each cell a node of its own behind a cable of its own.
//!
//! ```text
//!   tor ──┬─ p1  10.77.1.1 ──── 10.77.1.2  v4            192.0.2.1    2001:db8:10::1
//!         ├─ p2  10.77.2.1 ──── 10.77.2.2  v6            192.0.2.2    2001:db8:10::2
//!         └─ …   and the same in fd00:77:K::
//! ```

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use ipnet::IpNet;
use tokio::process::Command;

use super::cells::{Cell, Feature, Terms};
use crate::{
    lab::{
        claim::Claim,
        netns::{Namespace, feed},
    },
    types::Family,
};

/// Set before the first interface exists, so that it holds for all of them.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];
/// Of the router.
const FORWARDING: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// A cable between the router and a node.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) cell: Cell,
    /// From 1, over the whole rack; in all of its addresses.
    pub(super) number: u8,
    /// The number of the cell's first link; in the addresses of the cell's Services.
    pub(super) first: u8,
    /// The node's.
    pub(super) namespace: Namespace,
    pub(super) terms: Terms,
}

impl Link {
    /// The links of these cells.
    pub(super) fn plan(claim: &Claim, cells: &[Cell]) -> Vec<Self> {
        let mut links: Vec<Self> = Vec::new();
        let mut number = 0;
        for cell in cells {
            let first = number + 1;
            for _ in 0..cell.nodes() {
                number += 1;
                let namespace = claim.namespace(&format!("n{number}"));
                links.push(Self { cell: *cell, number, first, namespace, terms: cell.terms() });
            }
        }
        links
    }

    /// The node's name.
    pub(super) fn node(&self) -> String {
        match self.number - self.first {
            0 => self.cell.name().to_owned(),
            more => format!("{}-{}", self.cell.name(), more + 1),
        }
    }

    /// The router's end of the cable.
    pub(super) fn port(&self) -> String {
        format!("p{}", self.number)
    }

    pub(super) fn at_node(&self) -> [IpAddr; 2] {
        pair(self.number, 2)
    }

    /// The node's end of the session.
    pub(super) fn neighbor(&self) -> IpAddr {
        self.end(2)
    }

    /// The router's.
    pub(super) fn gateway(&self) -> IpAddr {
        self.end(1)
    }

    fn end(&self, host: u8) -> IpAddr {
        let number = self.number;
        if self.terms.has(Feature::LinkLocalOnly) {
            return link_local(number, host).into();
        }
        if self.terms.has(Feature::MultiHop) {
            return Ipv4Addr::new(10, 99, number, host).into();
        }
        pair(number, host)[usize::from(self.terms.over == Family::Ipv6)]
    }

    /// What the node announces, of the families of its session.
    pub(super) fn announced(&self) -> Vec<IpNet> {
        let [v4, v6] = vips(self.first);
        let all = [(Family::Ipv4, v4), (Family::Ipv6, v6)];
        all.into_iter().filter(|(family, _)| self.terms.carries(*family)).map(|(_, vip)| vip.into()).collect()
    }
}

/// The addresses of the Service of a cell.
pub(super) fn vips(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(192, 0, 2, number).into(), v6.into()]
}

fn link_local(number: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x77, number.into(), host.into())
}

fn pair(number: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x77, number.into(), 0, 0, 0, 0, host.into());
    [Ipv4Addr::new(10, 77, number, host).into(), v6.into()]
}

/// Makes namespaces, cables and addresses; what is half made is removed with the claim.
///
/// # Errors
/// The kernel refused a step.
pub(super) async fn build(router: &Namespace, links: &[Link]) -> anyhow::Result<()> {
    let spaces = || links.iter().map(|link| &link.namespace).chain([router]);
    let mut lines = String::new();
    for space in spaces() {
        let _ = writeln!(lines, "netns add {}", space.name());
    }
    batch(&lines).await.context("make the network namespaces")?;
    spaces().try_for_each(|space| space.set(&SETTINGS))?;
    router.set(&FORWARDING)?;
    lines.clear();
    for link in links {
        let (node, port) = (link.namespace.name(), link.port());
        let _ = writeln!(lines, "link add eth0 netns {node} type veth peer name {port} netns {}", router.name());
    }
    batch(&lines).await.context("lay the cables")?;
    let mut at_router = "link set lo up\n".to_owned();
    for link in links {
        at_router += &end(link, &link.port(), 1);
        let at_node = "link set lo up\n".to_owned() + &end(link, "eth0", 2);
        configure(&link.namespace, &at_node).await?;
    }
    configure(router, &at_router).await
}

/// One end of a cable: `host` 1 is the router, 2 the node.
fn end(link: &Link, interface: &str, host: u8) -> String {
    let [v4, v6] = pair(link.number, host);
    let mut lines = String::new();
    if link.terms.has(Feature::LinkLocalOnly) {
        // The router must know it, so the kernel makes none.
        let local = link_local(link.number, host);
        let _ = writeln!(lines, "link set {interface} addrgenmode none up");
        let _ = writeln!(lines, "address add {local}/64 dev {interface} nodad");
        return lines;
    }
    let _ = writeln!(lines, "link set {interface} up");
    let _ = writeln!(lines, "address add {v6}/64 dev {interface} nodad");
    if !link.terms.has(Feature::NoIpv4) {
        let _ = writeln!(lines, "address add {v4}/24 dev {interface}");
    }
    if link.terms.has(Feature::MultiHop) {
        let (own, far) = (link.end(host), link.end(3 - host));
        let _ = writeln!(lines, "address add {own}/32 dev lo");
        let _ = writeln!(lines, "route add {far}/32 via {}", pair(link.number, 3 - host)[0]);
    }
    lines
}

async fn batch(lines: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]).kill_on_drop(true), lines).await
}

async fn configure(namespace: &Namespace, lines: &str) -> anyhow::Result<()> {
    namespace.feed("ip", &["-batch", "-"], lines).await
}
