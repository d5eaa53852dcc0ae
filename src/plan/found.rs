//! Peers that each node finds for itself: by annotations of its Node object, or as its default gateway. One BGPPeer is
//! then enough for all racks.
//!
//! ```text
//!  BGPPeer tor, peerAddressFrom: nodeAnnotation      Node: tor.ironcast.dev/address: 10.1.0.1
//!                                                          tor.ironcast.dev/asn: "64601"       instead of peerASN
//!                                                          tor.ironcast.dev/my-asn: "65001"    instead of myASN
//! ```

use std::{net::IpAddr, str::FromStr};

use ironcast_bgp::{Asn, speaker::PeerAs};

use super::{Settings, routes::any_matches};
use crate::types::{AddressFrom, Family, Labels, Node, ObjectRef, Peer, Problem, Severity, Snapshot};

/// The way to the rest of the world in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The router's address.
    pub address: IpAddr,
    /// The link that it is on.
    pub interface: String,
}

/// Peers of this node that were found, and what keeps others from it.
#[derive(Default)]
pub(super) struct Found {
    pub(super) peers: Vec<Peer>,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn find(snapshot: &Snapshot, settings: &Settings) -> Found {
    let mut found = Found::default();
    let (node, none) = (snapshot.nodes.get(&settings.node), Labels::new());
    let labels = node.map_or(&none, |node| &node.labels);
    for peer in snapshot.peers.values().filter(|peer| any_matches(&peer.node_selectors, labels)) {
        let made = match peer.address_from {
            None => continue,
            Some(AddressFrom::NodeAnnotation) => annotated(peer, node.map(|node| &**node)),
            Some(AddressFrom::DefaultGateway(family)) => by_gateway(peer, family, settings),
        };
        match made {
            Ok(peer) => found.peers.push(peer),
            Err((field, message, hint)) => found.problems.push(Problem {
                object: ObjectRef::new("Node", "", &settings.node),
                field,
                message,
                hint,
                severity: Severity::Warning,
                file: None,
            }),
        }
    }
    found
}

/// Field, message, next step.
type Missing = (String, String, String);

fn by_gateway(peer: &Peer, family: Family, settings: &Settings) -> Result<Peer, Missing> {
    let gateway = settings.gateways.iter().find(|gateway| {
        Family::Ipv4 == family && gateway.address.is_ipv4() || Family::Ipv6 == family && gateway.address.is_ipv6()
    });
    let gateway = gateway.ok_or_else(|| {
        let message = format!("there is no {family} default gateway, which BGPPeer {} asks for", peer.name);
        (String::new(), message, "give the node a default route, or leave it out by nodeSelectors".into())
    })?;
    let link_local = matches!(gateway.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let interface = link_local.then(|| gateway.interface.clone());
    Ok(Peer { address: Some(gateway.address), interface, ..peer.clone() })
}

fn annotated(peer: &Peer, node: Option<&Node>) -> Result<Peer, Missing> {
    let address = read::<IpAddr>(peer, node, "address")?;
    let address = address.ok_or_else(|| {
        let message = format!("is missing, and BGPPeer {} asks for it", peer.name);
        (
            annotation(peer, "address"),
            message,
            "write the router's address, or leave the node out by nodeSelectors".into(),
        )
    })?;
    let peer_as = read::<Number>(peer, node, "asn")?.map_or(peer.peer_as, |asn| PeerAs::Exactly(asn.0));
    let my_asn = read::<Number>(peer, node, "my-asn")?.map_or(peer.my_asn, |asn| asn.0);
    Ok(Peer { address: Some(address), peer_as, my_asn, ..peer.clone() })
}

fn annotation(peer: &Peer, what: &str) -> String {
    format!("metadata.annotations[{}.ironcast.dev/{what}]", peer.name)
}

fn read<T: FromStr>(peer: &Peer, node: Option<&Node>, what: &str) -> Result<Option<T>, Missing> {
    let key = format!("{}.ironcast.dev/{what}", peer.name);
    let Some(text) = node.and_then(|node| node.annotations.get(&key)) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| {
        let kind = if what == "address" { "IP address" } else { "AS number" };
        (annotation(peer, what), format!("{text:?} is no {kind}"), format!("correct it for BGPPeer {}", peer.name))
    })
}

/// An AS number as people write it.
struct Number(Asn);

impl FromStr for Number {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().and_then(|number| Asn::new(number).ok()).map(Number).ok_or(())
    }
}
