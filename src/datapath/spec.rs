//! What the tables of this node should be. Values only: whoever knows the cluster makes a [`Spec`], and
//! `apply` makes it so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::types::{Protocol, ServiceKey};

/// Everything the packet path is told; always the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// Number of these tables on this node, for people.
    pub generation: u32,
    /// Secret of the cluster, the same on every node: who knows it can aim at a backend.
    pub secret: [u8; 32],
    /// This node.
    pub node: String,
    /// The nodes of the cluster by name, this one included.
    pub nodes: BTreeMap<String, Node>,
    /// Owned addresses: every port of them is answered or dropped.
    pub addresses: BTreeSet<IpAddr>,
    /// Ports of Services.
    pub ports: BTreeMap<Frontend, Target>,
    /// Backends, shared by the ports that have the same ones.
    pub tables: BTreeMap<TableId, Table>,
    /// How packets reach the pods of this node without the host's stack; `None`: the stack delivers.
    pub bypass: Option<Bypass>,
}

/// What `bypass` delivery needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bypass {
    /// This node's end of the veth of each pod that has one of its own, by the pod's address.
    pub interfaces: BTreeMap<IpAddr, u32>,
    /// Interfaces with a default route: by these replies leave.
    pub back: Vec<u32>,
}

/// Name of a table within a [`Spec`]; any name that stays the same while the table is the same Service's.
pub type TableId = String;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Its addresses on the underlay: encapsulated packets are accepted from these alone.
    pub addresses: BTreeSet<IpAddr>,
    /// How packets get there; `None` for this node, and for one that is not reachable now.
    pub route: Option<Route>,
}

/// The way to a node, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The node, outer destination.
    pub destination: IpAddr,
    /// This node, outer source; of the same family.
    pub source: IpAddr,
    /// Index of the interface.
    pub interface: u32,
    /// Its Ethernet address.
    pub source_mac: [u8; 6],
    /// That of the next hop.
    pub next_hop_mac: [u8; 6],
    /// VLAN to tag with.
    pub vlan: Option<u16>,
    /// Bytes of IP that the way takes.
    pub mtu: u16,
}

/// An address, protocol and port that clients use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The VIP.
    pub address: IpAddr,
    /// The protocol; SCTP is handed to kube-proxy.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// What stands behind a [`Frontend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose it is, for counters.
    pub service: ServiceKey,
    /// Its backends.
    pub table: TableId,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// Left to kube-proxy.
    pub pass: bool,
}

/// A pod's port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The pod.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node that it runs on.
    pub node: String,
}

/// Who took new connections at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// log₂ of the number of slots it was laid out in.
    pub slots_log2: u8,
    /// Backends with their weights.
    pub members: BTreeMap<Backend, u32>,
}

/// Backends now and before. Slots are a pure function of it: nodes with the same history agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Newest first; the first takes new connections.
    pub history: Vec<Membership>,
    /// Backends that may still have connections: ready, serving or terminating, but not gone.
    pub living: BTreeSet<Backend>,
    /// There were memberships before the oldest of the history: no slot can be called settled, and owners ask their
    /// memory for every packet. Whoever makes the table takes it back when connections that old are over.
    pub forgetful: bool,
}

/// Memberships that a table remembers.
pub const HISTORY: usize = 8;

impl Table {
    /// The table after a change: these members take new connections from now on, these backends live. A size once
    /// grown shrinks only when a quarter would do, so that pods coming and going do not move every flow.
    pub fn changed(&self, members: BTreeMap<Backend, u32>, living: BTreeSet<Backend>) -> Self {
        let newest = self.history.first();
        if newest.is_some_and(|m| m.members == members) {
            return Self { history: self.history.clone(), living, forgetful: self.forgetful };
        }
        let wanted = super::slots::log2_for(members.len());
        let roomy = super::slots::log2_for(members.len() * 4);
        let slots_log2 = newest.map_or(wanted, |m| wanted.max(m.slots_log2.min(roomy)));
        let mut history = vec![Membership { slots_log2, members }];
        history.extend(self.history.iter().take(HISTORY - 1).cloned());
        let forgetful = self.forgetful || self.history.len() == HISTORY;
        Self { history, living, forgetful }
    }
}
