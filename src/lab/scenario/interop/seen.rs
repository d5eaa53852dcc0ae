//! What the router says of its sessions and routes, in words that all routers share, and what its kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context;
use ipnet::IpNet;
use ironcast_bgp::Community;
use serde::Deserialize;
use tokio::process::Command;

use super::link::Link;
use crate::{lab::netns::Namespace, types::Family};

/// One look at the router.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Seen {
    /// By the neighbour's address, or its port where it has none.
    pub(super) sessions: BTreeMap<String, Session>,
    /// The router's own table.
    pub(super) routes: BTreeMap<IpNet, Vec<Route>>,
    /// The kernel's; `None` for a router that writes none.
    pub(super) kernel: Option<BTreeMap<IpNet, Vec<Hop>>>,
}

/// A session as the router describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Session {
    pub(super) established: bool,
    /// Families that both ends have.
    pub(super) families: BTreeSet<Family>,
    /// What both ends have: [`EXTENDED_MESSAGE`] …
    pub(super) capabilities: BTreeSet<&'static str>,
    /// The AS that the node showed.
    pub(super) remote_as: Option<u32>,
    /// The node's role, in the router's words.
    pub(super) role: Option<String>,
    /// Whether the router's BFD session with the node is up, where it has one.
    pub(super) bfd: Option<bool>,
    /// UPDATEs received so far, over all connections, where the router counts them.
    pub(super) updates: Option<u64>,
    /// The router's words on how the last connection ended.
    pub(super) end: String,
}

/// Words for [`Session::capabilities`].
pub(super) const EXTENDED_MESSAGE: &str = "extended-message";
pub(super) const GRACEFUL_RESTART: &str = "graceful-restart";
pub(super) const ADD_PATH: &str = "add-path";
pub(super) const EXTENDED_NEXT_HOP: &str = "extended-next-hop";

/// A path to a prefix.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Route {
    /// Who announced it, in the router's words.
    pub(super) from: String,
    /// The path identifier, where the router shows one (RFC 7911).
    pub(super) id: Option<String>,
    pub(super) as_path: Vec<u32>,
    /// `65000:100`, `no-export`, `large:64500:1:2`, `rt:65000:100`.
    pub(super) communities: BTreeSet<String>,
    /// Kept from before the node's restart.
    pub(super) stale: bool,
}

/// A next hop in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hop {
    pub(super) port: String,
    pub(super) weight: u32,
}

impl Seen {
    pub(super) fn session(&self, link: &Link) -> Option<&Session> {
        let neighbor = link.neighbor().to_string();
        let names = [link.port(), format!("{neighbor}%{}", link.port()), neighbor];
        names.iter().find_map(|name| self.sessions.get(name))
    }

    pub(super) fn is_established(&self, link: &Link) -> bool {
        self.session(link).is_some_and(|session| session.established)
    }

    /// The path to a prefix.
    pub(super) fn route(&self, prefix: &IpNet) -> Option<&Route> {
        self.routes.get(prefix).and_then(|paths| paths.first())
    }

    /// Whether the router uses the route: in its kernel, else in its table.
    pub(super) fn uses(&self, prefix: &IpNet, link: &Link) -> bool {
        match &self.kernel {
            Some(kernel) => kernel.get(prefix).is_some_and(|hops| hops.iter().any(|hop| hop.port == link.port())),
            None => self.routes.contains_key(prefix),
        }
    }

    /// As [`Seen::uses`], for a person.
    pub(super) fn words(&self, prefix: &IpNet) -> String {
        match self.kernel.as_ref().map(|kernel| kernel.get(prefix)) {
            Some(None) => format!("{prefix} not in the kernel"),
            Some(Some(hops)) => {
                let ports: Vec<_> = hops.iter().map(|hop| hop.port.as_str()).collect();
                format!("{prefix} via {}", ports.join(" "))
            }
            None if self.routes.contains_key(prefix) => format!("{prefix} in the table"),
            None => format!("{prefix} not in the table"),
        }
    }
}

/// The kernel's routes in a namespace that a routing daemon wrote.
///
/// # Errors
/// `ip` cannot be run, or prints something else than expected.
pub(super) async fn kernel(namespace: &Namespace) -> anyhow::Result<BTreeMap<IpNet, Vec<Hop>>> {
    let mut routes = BTreeMap::new();
    for family in ["-4", "-6"] {
        let output = Command::new("ip").args(["-j", family, "-n", namespace.name(), "route"]).output().await?;
        routes.extend(parse_kernel(&output.stdout)?);
    }
    Ok(routes)
}

#[derive(Deserialize)]
struct KernelRoute {
    dst: String,
    protocol: Option<String>,
    dev: Option<String>,
    #[serde(default)]
    nexthops: Vec<KernelHop>,
}

#[derive(Deserialize)]
struct KernelHop {
    dev: Option<String>,
    weight: Option<u32>,
}

fn parse_kernel(json: &[u8]) -> anyhow::Result<BTreeMap<IpNet, Vec<Hop>>> {
    let routes: Vec<KernelRoute> = serde_json::from_slice(json).context("read what ip printed")?;
    let written = routes.into_iter().filter(|r| matches!(r.protocol.as_deref(), Some("bird" | "bgp" | "zebra")));
    let mut all = BTreeMap::<IpNet, Vec<Hop>>::new();
    for route in written {
        let Some(prefix) = prefix(&route.dst) else { continue };
        let hop = |dev: Option<String>, weight: Option<u32>| Hop {
            port: dev.unwrap_or_default(),
            weight: weight.unwrap_or(1),
        };
        let hops = all.entry(prefix).or_default();
        if route.nexthops.is_empty() {
            hops.push(hop(route.dev, None));
        }
        hops.extend(route.nexthops.into_iter().map(|h| hop(h.dev, h.weight)));
    }
    Ok(all)
}

/// A community in our words: `65535:65281` is `no-export`.
pub(super) fn community(text: &str) -> String {
    text.parse::<Community>().map_or_else(|_| text.to_owned(), |community| community.to_string())
}

/// A route target or origin in our words, from the router's word for it and the rest.
pub(super) fn extended(kind: &str, value: &str) -> String {
    let kind = match kind.to_ascii_lowercase().as_str() {
        "rt" | "target" => "rt",
        "ro" | "soo" | "origin" => "ro",
        other => return format!("{other}:{value}"),
    };
    format!("{kind}:{value}")
}

/// A prefix, or the address of a host.
pub(super) fn prefix(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `ip -j route`, iproute2 6.1, in a namespace with FRR's routes.
    const PRINTED: &str = r#"[
        {"dst":"10.77.1.0/24","dev":"p1","protocol":"kernel","scope":"link","prefsrc":"10.77.1.1","flags":[]},
        {"dst":"192.0.2.1","gateway":"10.77.1.2","dev":"p1","protocol":"bgp","metric":20,"flags":[]},
        {"dst":"192.0.2.7","protocol":"bgp","metric":20,"flags":[],"nexthops":[
            {"gateway":"10.77.7.2","dev":"p7","weight":75,"flags":[]},
            {"gateway":"10.77.8.2","dev":"p8","weight":25,"flags":[]}]}]"#;

    #[test]
    fn kernel_routes_of_the_router_have_ports_and_weights() {
        let routes = parse_kernel(PRINTED.as_bytes()).expect("valid");
        assert_eq!(routes.len(), 2, "the kernel's own routes do not count");
        let hop = |port: &str, weight| Hop { port: port.into(), weight };
        assert_eq!(routes[&prefix("192.0.2.1").expect("valid")], [hop("p1", 1)]);
        assert_eq!(routes[&prefix("192.0.2.7/32").expect("valid")], [hop("p7", 75), hop("p8", 25)]);
    }
}
