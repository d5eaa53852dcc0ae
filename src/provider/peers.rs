//! What a provider says of a node's machine and its routers.

use std::net::IpAddr;

use ipnet::IpNet;
use ironcast_bgp::{Asn, speaker::Md5Key};

/// Which machine a node is. From the annotation `ironcast.dev/device`, else from `spec.providerID`
/// (`packet://ID`, `equinixmetal://ID` or the bare id), else from the metadata service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Name of the node in the cluster.
    pub name: String,
    /// The provider's id of the machine, without a scheme.
    pub device: String,
}

/// BGP as a project wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectBgp {
    /// What kind.
    pub mode: BgpMode,
    /// Our AS; the provider's usual private one where `None`.
    pub asn: Option<Asn>,
    /// TCP MD5 key.
    pub password: Option<Md5Key>,
}

/// How far announcements reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BgpMode {
    /// The provider's own addresses, within the provider.
    #[default]
    Local,
    /// Addresses of the customer's, into the Internet; reviewed by people.
    Global,
}

/// Whether BGP is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// Yes, now or before.
    Yes,
    /// Asked for; people decide, or machines need time.
    Requested(String),
    /// Only people can switch it on; the sentence says where.
    ByHand(String),
}

/// The machine behind a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Whether it can serve.
    pub state: DeviceState,
    /// Its addresses as the provider sees them.
    pub addresses: Vec<IpAddr>,
}

/// Whether a machine can serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceState {
    /// It runs.
    Active,
    /// It is powered off.
    PoweredOff,
    /// The provider works on it.
    Maintenance,
    /// The provider has no such machine.
    Gone,
    /// A state that this program does not know; counts as running.
    Unknown(String),
}

/// The routers of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePeers {
    /// In the provider's order.
    pub peers: Vec<ProvidedPeer>,
    /// Routes without which the peers cannot be reached.
    pub routes: Vec<RouteNeeded>,
}

/// One router as the provider describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidedPeer {
    /// Its address.
    pub address: IpAddr,
    /// Our AS towards it.
    pub my_asn: Asn,
    /// Its AS.
    pub peer_asn: Asn,
    /// The address to dial from.
    pub source: Option<IpAddr>,
    /// TTL of our packets where the router is more than one hop away; `None` on a shared network.
    pub multihop: Option<u8>,
    /// TCP MD5 key.
    pub password: Option<Md5Key>,
    /// At most so many prefixes, or the router ends the session.
    pub prefix_budget: Option<u32>,
}

/// A route to a router that stands behind a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteNeeded {
    /// Where to, host bits zero.
    pub destination: IpNet,
    /// Via whom, of the same family.
    pub gateway: IpAddr,
}
