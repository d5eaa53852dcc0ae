//! What a provider says of a node's machine and its routers.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use ironcast_bgp::{Asn, speaker::Md5Key};
use serde::{Deserialize, Serialize};

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

/// What is written for a node cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the routers that the leader wrote cannot be read")]
pub struct UnreadablePeers(#[from] serde_json::Error);

impl NodePeers {
    /// As the leader writes them for a node.
    pub fn to_json(&self) -> Vec<u8> {
        let peer = |peer: &ProvidedPeer| WrittenPeer {
            address: peer.address,
            my_asn: peer.my_asn.value(),
            peer_asn: peer.peer_asn.value(),
            source: peer.source,
            multihop: peer.multihop,
            password: peer.password.as_ref().map(|Md5Key(key)| STANDARD.encode(key)),
            prefix_budget: peer.prefix_budget,
        };
        let route = |route: &RouteNeeded| (route.destination, route.gateway);
        let written =
            Written { peers: self.peers.iter().map(peer).collect(), routes: self.routes.iter().map(route).collect() };
        serde_json::to_vec(&written).expect("plain data")
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// It is something else, or of another version.
    pub fn from_json(octets: &[u8]) -> Result<Self, UnreadablePeers> {
        use serde::de::Error as _;
        let written: Written = serde_json::from_slice(octets)?;
        let asn = |number| Asn::new(number).map_err(serde_json::Error::custom);
        let peer = |peer: WrittenPeer| -> Result<ProvidedPeer, serde_json::Error> {
            let key = peer.password.map(|text| STANDARD.decode(text)).transpose().map_err(serde_json::Error::custom)?;
            Ok(ProvidedPeer {
                address: peer.address,
                my_asn: asn(peer.my_asn)?,
                peer_asn: asn(peer.peer_asn)?,
                source: peer.source,
                multihop: peer.multihop,
                password: key.map(|key| Md5Key(key.into())),
                prefix_budget: peer.prefix_budget,
            })
        };
        let routes = written.routes.into_iter().map(|(destination, gateway)| RouteNeeded { destination, gateway });
        let peers = written.peers.into_iter().map(peer).collect::<Result<_, _>>()?;
        Ok(Self { peers, routes: routes.collect() })
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    peers: Vec<WrittenPeer>,
    routes: Vec<(IpNet, IpAddr)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPeer {
    address: IpAddr,
    #[serde(rename = "myASN")]
    my_asn: u32,
    #[serde(rename = "peerASN")]
    peer_asn: u32,
    source: Option<IpAddr>,
    multihop: Option<u8>,
    password: Option<String>,
    prefix_budget: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_leader_writes_a_node_reads() {
        let asn = |number| Asn::new(number).expect("valid");
        let full = ProvidedPeer {
            address: "169.254.255.1".parse().expect("an address"),
            my_asn: asn(65000),
            peer_asn: asn(65530),
            source: "10.80.144.131".parse().ok(),
            multihop: Some(5),
            password: Some(Md5Key(b"\xff no text".to_vec().into())),
            prefix_budget: Some(10),
        };
        let bare = ProvidedPeer { source: None, multihop: None, password: None, prefix_budget: None, ..full.clone() };
        let gateway = "10.80.144.130".parse().expect("an address");
        let routes = vec![RouteNeeded { destination: full.address.into(), gateway }];
        let peers = NodePeers { peers: vec![full, bare], routes };
        assert_eq!(NodePeers::from_json(&peers.to_json()).expect("read"), peers);
        assert!(
            NodePeers::from_json(br#"{"peers":[{"address":"192.0.2.1","myASN":0,"peerASN":1}],"routes":[]}"#).is_err()
        );
    }
}
