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
    /// Number of the published state that this is made of; goes into the header.
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
}
