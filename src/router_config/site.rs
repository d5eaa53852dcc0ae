//! What the router must be told, without syntax.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use ironcast_bgp::{Asn, HoldTime, speaker::PeerAs};

use super::prefixes::accepted;
use crate::types::{Advertisement, Family, Labels, Node, Peer, Snapshot, family_of};

/// One router's side.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The BGPPeers that are this router, by name.
    pub peers: Vec<String>,
    /// Its AS; `None` where the nodes take any (`dynamicASN`).
    pub asn: Option<Asn>,
    /// Its IPv4 address, as good as any for a router id.
    pub address: Option<std::net::Ipv4Addr>,
    /// One per node and transport, sorted by node.
    pub sessions: Vec<Session>,
    /// What may be announced.
    pub accept: BTreeSet<Accept>,
    /// What could not be said, for a person.
    pub notes: Vec<String>,
}

/// A session with a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The node.
    pub node: String,
    /// Where it is.
    pub neighbour: Neighbour,
    /// Its AS.
    pub asn: Asn,
    /// IPv4 routes are exchanged.
    pub ipv4: bool,
    /// IPv6 routes are exchanged.
    pub ipv6: bool,
    /// The node listens: the router must dial.
    pub dials: bool,
    /// TTL of an eBGP neighbour that is not on a network of the router.
    pub multihop: Option<u8>,
    /// Hops for GTSM (RFC 5082).
    pub ttl_security: Option<u8>,
    /// TCP MD5.
    pub password: bool,
    /// BFD.
    pub bfd: Option<Bfd>,
    /// Hold time.
    pub hold_time: HoldTime,
    /// The node restarts gracefully.
    pub graceful_restart: bool,
}

/// How the router names the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Neighbour {
    /// By address.
    Address(IpAddr),
    /// Unnumbered, by the router's interface: a placeholder.
    Interface(String),
}

/// Intervals for the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bfd {
    /// What the router should be able to receive: what the node sends.
    pub receive: Duration,
    /// What the router should send: what the node receives.
    pub transmit: Duration,
    /// Detection multiplier.
    pub multiplier: u8,
}

/// Prefixes of one length within a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Accept {
    /// The network.
    pub network: IpNet,
    /// The length, never shorter than the network's.
    pub length: u8,
}

/// The objects make no router.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// No such BGPPeer.
    #[error("there is no valid BGPPeer {0}; `ironcast check` says what is wrong with it, if it is there")]
    UnknownPeer(String),
    /// None at all.
    #[error("there is no valid BGPPeer; write one, or see `ironcast check`")]
    NoPeer,
    /// They are of several routers.
    #[error("the BGPPeers are of several AS ({0}); name those of one router with --peer")]
    SeveralRouters(String),
    /// Two peers see one node differently.
    #[error("BGPPeers {0} and {1} say different things of the session with {2}; name those of one router with --peer")]
    Contradiction(String, String, String),
}

impl Site {
    /// The router that these BGPPeers are, all where none is named.
    ///
    /// # Errors
    /// An unknown peer, or peers that cannot be one router.
    pub fn new(snapshot: &Snapshot, named: &[String]) -> Result<Self, SiteError> {
        if let Some(unknown) = named.iter().find(|name| !snapshot.peers.contains_key(*name)) {
            return Err(SiteError::UnknownPeer(unknown.clone()));
        }
        let chosen = |peer: &&Peer| named.is_empty() || named.contains(&peer.name);
        let peers: Vec<&Peer> = snapshot.peers.values().filter(chosen).collect();
        if peers.is_empty() {
            return Err(SiteError::NoPeer);
        }
        let mut notes = Vec::new();
        let sessions = sessions(snapshot, &peers, &mut notes)?;
        let address = peers.iter().find_map(|peer| match peer.address {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        });
        Ok(Self {
            asn: router_asn(&peers)?,
            address,
            accept: accept(snapshot, &peers),
            peers: peers.iter().map(|peer| peer.name.clone()).collect(),
            sessions,
            notes,
        })
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.sessions.iter().map(|session| &session.node).collect::<BTreeSet<_>>().len()
    }

    /// Over how many next hops the router must spread: the nodes, at least two.
    pub fn width(&self) -> usize {
        self.nodes().max(2)
    }

    /// The router's AS as text.
    pub(super) fn asn_text(&self) -> String {
        self.asn.map_or_else(|| "ROUTER-AS".into(), |asn| asn.to_string())
    }

    /// What may be announced of a family.
    pub(super) fn accepted(&self, family: Family) -> impl Iterator<Item = &Accept> {
        self.accept.iter().filter(move |accept| family_of(accept.network.addr()) == family)
    }

    /// The families that any session carries.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let any = |family| self.sessions.iter().any(|session| session.carries(family));
        Family::ALL.into_iter().filter(move |family| any(*family))
    }

    /// Whether the session is with the router's own AS.
    pub(super) fn internal(&self, session: &Session) -> bool {
        self.asn == Some(session.asn)
    }

    /// The sets of intervals, each with its name.
    pub(super) fn bfd(&self) -> BTreeMap<Bfd, String> {
        let all: BTreeSet<Bfd> = self.sessions.iter().filter_map(|session| session.bfd).collect();
        let name = |n: usize| if n == 0 { "ironcast".to_owned() } else { format!("ironcast{}", n + 1) };
        all.into_iter().enumerate().map(|(n, bfd)| (bfd, name(n))).collect()
    }
}

impl Session {
    /// Whether it carries routes of the family.
    pub(super) fn carries(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Its families.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|family| self.carries(*family))
    }

    /// The neighbour's address; `None` on unnumbered sessions.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.neighbour {
            Neighbour::Address(address) => Some(address),
            Neighbour::Interface(_) => None,
        }
    }

    /// `KEEPALIVE HOLD` in seconds.
    pub(super) fn timers(&self) -> String {
        let hold = self.hold_time.seconds();
        format!("{} {hold}", hold / 3)
    }

    /// IPv4 routes have IPv6 next hops (RFC 8950): there is no IPv4 on the session.
    pub(super) fn extended_next_hop(&self) -> bool {
        self.ipv4 && !matches!(self.neighbour, Neighbour::Address(IpAddr::V4(_)))
    }
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

fn sessions(snapshot: &Snapshot, peers: &[&Peer], notes: &mut Vec<String>) -> Result<Vec<Session>, SiteError> {
    let mut found: BTreeMap<(String, Neighbour), (&str, Session)> = BTreeMap::new();
    for peer in peers {
        for (name, node) in snapshot.nodes.iter().filter(|(_, node)| holds(peer, &node.labels)) {
            let Some(session) = session(peer, name, node) else {
                notes.push(format!("Node {name} has no address of the family of BGPPeer {}: no session.", peer.name));
                continue;
            };
            let key = (name.clone(), session.neighbour.clone());
            if let Some((first, known)) = found.get(&key)
                && *known != session
            {
                let (first, second) = ((*first).to_owned(), peer.name.clone());
                return Err(SiteError::Contradiction(first, second, format!("{name} at {}", key.1)));
            }
            found.insert(key, (&peer.name, session));
        }
    }
    if found.is_empty() {
        notes.push("No node fits: write Node objects, or see nodeSelectors of the BGPPeer.".into());
    }
    Ok(found.into_values().map(|(_, session)| session).collect())
}

fn holds(peer: &Peer, labels: &Labels) -> bool {
    peer.node_selectors.is_empty() || peer.node_selectors.iter().any(|selector| selector.matches(labels))
}

fn session(peer: &Peer, name: &str, node: &Node) -> Option<Session> {
    let neighbour = match (peer.source, peer.address) {
        (_, None) => Neighbour::Interface(format!("TO-{name}")),
        (Some(source), _) => Neighbour::Address(source),
        (None, Some(router)) => {
            let same = |address: &&IpAddr| family_of(**address) == family_of(router);
            Neighbour::Address(*node.addresses.iter().find(same)?)
        }
    };
    Some(Session {
        node: name.into(),
        neighbour,
        asn: peer.local_asn.unwrap_or(peer.my_asn),
        ipv4: peer.carries(Family::Ipv4),
        ipv6: peer.carries(Family::Ipv6),
        dials: peer.passive,
        multihop: peer.multihop,
        ttl_security: peer.ttl_security,
        password: peer.password.is_some() || peer.missing_secret.is_some(),
        bfd: peer.bfd.as_ref().map(|profile| Bfd {
            receive: profile.transmit,
            transmit: profile.receive,
            multiplier: profile.detect_mult,
        }),
        hold_time: peer.hold_time,
        graceful_restart: peer.graceful_restart,
    })
}

fn router_asn(peers: &[&Peer]) -> Result<Option<Asn>, SiteError> {
    let asn = |peer: &&Peer| match peer.peer_as {
        PeerAs::Exactly(asn) => Some(asn),
        PeerAs::Internal => Some(peer.local_asn.unwrap_or(peer.my_asn)),
        PeerAs::External => None,
    };
    let all: BTreeSet<Asn> = peers.iter().filter_map(asn).collect();
    if all.len() > 1 {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        return Err(SiteError::SeveralRouters(all.join(", ")));
    }
    Ok(all.into_iter().next())
}

fn accept(snapshot: &Snapshot, peers: &[&Peer]) -> BTreeSet<Accept> {
    let heard = |advertisement: &&Advertisement| {
        let any = |peer: &&Peer| advertisement.peers.contains(&peer.name);
        advertisement.peers.is_empty() || peers.iter().any(any)
    };
    let advertisements: Vec<&Advertisement> = snapshot.advertisements.values().filter(heard).collect();
    accepted(snapshot.pools.values(), &advertisements)
}
