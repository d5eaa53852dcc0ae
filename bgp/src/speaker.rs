//! The speaker: peers and what each is told. The values that a caller gets back and that a driver exchanges with it;
//! what a caller hands in is `config`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Asn, Family, HoldTime, RouterId,
    rib::{Route, Routes},
};

mod config;
mod machine;

pub use config::{
    AddPath, AoAlgorithm, AoKey, DynamicPeers, MaximumPrefixes, Md5Key, PeerAs, PeerConfig, Role, SpeakerConfig, Ttl,
};
pub use machine::Speaker;

/// The caller's name for a peer, stable over changes of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub Arc<str>);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole export: for each peer the routes that it is told. Peers that share one set (clones) form an update
/// group: their UPDATEs are encoded once where their sessions negotiated the same.
pub type Exports = BTreeMap<PeerId, Routes>;

/// RFC 4271 §8.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the RFC's own words
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is so with a peer now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// State of the connection that got furthest.
    pub state: State,
    /// Since when it is in that state.
    pub since: Instant,
    /// Our address of the established connection.
    pub local_addr: Option<IpAddr>,
    /// The peer's address.
    pub remote_addr: IpAddr,
    /// The AS that the peer's OPEN showed.
    pub remote_as: Option<Asn>,
    /// The identifier that the peer's OPEN showed.
    pub remote_id: Option<RouterId>,
    /// The smaller of the two hold times.
    pub hold_time: Option<HoldTime>,
    /// Families that both ends offered.
    pub families: BTreeSet<Family>,
    /// Capabilities of both ends in words, as negotiated: `route-refresh`, `four-octet-as`, `graceful-restart` …
    pub capabilities: Vec<String>,
    /// Why the last connection ended or could not be made, for an operator, in one line.
    pub last_error: Option<String>,
    /// How often it was Established.
    pub established_count: u64,
    /// Routes as they stand in the Adj-RIB-Out of this peer: what was really sent.
    pub advertised: Routes,
    /// Routes beyond the prefix budget, which are not sent.
    pub withheld: Routes,
    /// Messages by direction and kind.
    pub counters: Counters,
}

/// Message counters of one peer over its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the names say it
pub struct Counters {
    pub opens_sent: u64,
    pub opens_received: u64,
    pub updates_sent: u64,
    pub updates_received: u64,
    pub keepalives_sent: u64,
    pub keepalives_received: u64,
    pub notifications_sent: u64,
    pub notifications_received: u64,
    pub refreshes_sent: u64,
    pub refreshes_received: u64,
    /// Prefixes in received UPDATEs, all of them refused unless the speaker has the router role.
    pub prefixes_received: u64,
    /// UPDATEs that RFC 7606 had treated as withdrawn.
    pub treated_as_withdraw: u64,
    /// Prefixes refused because they were leaked (RFC 9234).
    pub prefixes_leaked: u64,
}

impl Counters {
    /// Adds the counts of one connection.
    pub(crate) fn add(&mut self, more: &Counters) {
        self.opens_sent += more.opens_sent;
        self.opens_received += more.opens_received;
        self.updates_sent += more.updates_sent;
        self.updates_received += more.updates_received;
        self.keepalives_sent += more.keepalives_sent;
        self.keepalives_received += more.keepalives_received;
        self.notifications_sent += more.notifications_sent;
        self.notifications_received += more.notifications_received;
        self.refreshes_sent += more.refreshes_sent;
        self.refreshes_received += more.refreshes_received;
        self.prefixes_received += more.prefixes_received;
        self.treated_as_withdraw += more.treated_as_withdraw;
        self.prefixes_leaked += more.prefixes_leaked;
    }
}

/// A route that a peer sent, for the router role (the lab's built-in router); the daemon drops them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Announced, or announced again with other attributes.
    Announce {
        /// Who sent it.
        peer: PeerId,
        /// The route; `next_hop` is always `Some`, communities as received. With the community `llgr-stale` it is a
        /// last resort: the peer is away and its restart time over (RFC 9494).
        route: Route,
        /// Which of the paths to the prefix, 0 without ADD-PATH (RFC 7911).
        path: u32,
    },
    /// Withdrawn.
    Withdraw {
        /// Who sent it.
        peer: PeerId,
        /// The destination.
        prefix: ipnet::IpNet,
        /// Which of the paths to it.
        path: u32,
    },
    /// End-of-RIB of a family (RFC 4724 §2).
    EndOfRib {
        /// Who sent it.
        peer: PeerId,
        /// The family that is complete.
        family: Family,
    },
    /// The session ended; everything that it announced is gone unless `graceful` (the peer may restart): then each
    /// route that does not come again, or whose family is not kept, is withdrawn one by one.
    Down {
        /// Whose session.
        peer: PeerId,
        /// Both ends negotiated graceful restart and the end was no hard one.
        graceful: Option<Duration>,
    },
}

/// How the speaker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shutdown {
    /// For good: Cease / Administrative Shutdown (Hard Reset where negotiated) with the operator's words
    /// (RFC 9003); routers withdraw at once.
    Stop {
        /// At most 255 octets of UTF-8.
        reason: String,
    },
    /// Back in a moment: connections are closed without a NOTIFICATION, routers that negotiated graceful
    /// restart keep the routes.
    Restart,
}

/// One TCP connection of a speaker; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u64);

/// The two ends of a connection, and the addresses of this host on the same link: where a route has no next hop
/// of its own, these are "next hop self".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// This end.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// Our IPv4 address: the local end, or another of its interface.
    pub next_hop4: Option<Ipv4Addr>,
    /// Our global IPv6 address: the local end, or another of its interface.
    pub next_hop6: Option<Ipv6Addr>,
    /// Our link-local address, where the peer is on the same link (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
}

impl Endpoint {
    /// Two ends, with no address but the local end to be a next hop.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        let (mut next_hop4, mut next_hop6, mut link_local) = (None, None, None);
        match local.ip() {
            IpAddr::V4(own) => next_hop4 = Some(own),
            IpAddr::V6(own) if own.is_unicast_link_local() => link_local = Some(own),
            IpAddr::V6(own) => next_hop6 = Some(own),
        }
        Self { local, remote, next_hop4, next_hop6, link_local }
    }
}

/// Why a connection could not be made. The text is the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// The peer's host answered with a reset.
    Refused,
    /// There is no way to the peer.
    NoRoute(String),
    /// Nobody answered.
    TimedOut,
    /// This host cannot dial as configured.
    Local(String),
}

/// What a driver has to do for a [`Speaker`].
#[derive(Debug)]
pub enum Output {
    /// Dial; answer with [`Speaker::connected`] or [`Speaker::unreached`].
    Connect {
        /// The number of the connection to be.
        id: ConnectionId,
        /// Whose.
        peer: PeerId,
        /// Where to, and how.
        config: Arc<PeerConfig>,
    },
    /// End the connection, or the attempt, after writing what is under way and the last message.
    Close {
        /// Which.
        id: ConnectionId,
        /// A NOTIFICATION.
        farewell: Option<Bytes>,
    },
    /// Give the connection another TTL.
    Ttl {
        /// Which.
        id: ConnectionId,
        /// The new distance.
        ttl: Ttl,
    },
    /// Hand on what a peer sent (router role only).
    Received(Received),
}
