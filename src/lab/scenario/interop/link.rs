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

use super::cells::{Cell, Terms};
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

    pub(super) fn at_router(&self) -> [IpAddr; 2] {
        pair(self.number, 1)
    }

    /// The node as the router knows it.
    pub(super) fn neighbor(&self) -> IpAddr {
        self.at_node()[usize::from(self.terms.over == Family::Ipv6)]
    }

    /// The router as the node knows it.
    pub(super) fn gateway(&self) -> IpAddr {
        self.at_router()[usize::from(self.terms.over == Family::Ipv6)]
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
        at_router += &end(&link.port(), link.at_router());
        let at_node = "link set lo up\n".to_owned() + &end("eth0", link.at_node());
        configure(&link.namespace, &at_node).await?;
    }
    configure(router, &at_router).await
}

fn end(interface: &str, [v4, v6]: [IpAddr; 2]) -> String {
    format!("link set {interface} up\naddress add {v4}/24 dev {interface}\naddress add {v6}/64 dev {interface} nodad\n")
}

async fn batch(lines: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]).kill_on_drop(true), lines).await
}

async fn configure(namespace: &Namespace, lines: &str) -> anyhow::Result<()> {
    namespace.feed("ip", &["-batch", "-"], lines).await
}
