//! What is so: sessions and routes as the speaker has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use ironcast_bgp::{
    net::{bmp::StationStatus, unnumbered::Links},
    rib::Attributes,
    speaker::{Exports, PeerConfig, PeerId, PeerStatus, State},
};

use super::{
    Ready, bfd,
    neighbours::{self, Neighbours},
    policy,
};
use crate::{
    plan::{Desired, Withheld},
    types::{Peer, RouteState, SessionState, WithheldState},
};

/// A moment of announcing. Cheap to clone; the lists for people are made on demand.
#[derive(Debug, Clone, Default)]
pub struct AnnounceState {
    /// What was wanted.
    pub desired: Arc<Desired>,
    /// The peers that the speaker was told of.
    pub peers: BTreeMap<PeerId, PeerConfig>,
    /// What the speaker was told to announce.
    pub exports: Exports,
    /// What the speaker says of each peer.
    pub status: Arc<BTreeMap<PeerId, PeerStatus>>,
    /// What it says of each BMP station.
    pub stations: Arc<BTreeMap<SocketAddr, StationStatus>>,
    /// Withheld beyond what plan withholds: not served yet.
    pub withheld: Vec<Withheld>,
    /// The paths to the peers.
    pub bfd: bfd::View,
    /// Who the unnumbered peers are.
    pub neighbours: Neighbours,
    /// Who was heard on their links.
    pub links: Links,
}

/// What the speaker must hear; `None` where nothing changed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Orders {
    pub(crate) peers: Option<BTreeMap<PeerId, PeerConfig>>,
    pub(crate) exports: Option<Exports>,
}

impl AnnounceState {
    /// Takes over what is desired, ready and heard now, and says what the speaker must hear of it.
    pub(crate) fn turn(&mut self, desired: Arc<Desired>, ready: &Ready, links: &Links) -> Orders {
        let neighbours = neighbours::choose(&desired, &self.neighbours, &self.status, links);
        let peers = policy::peer_configs(&desired, &self.peers, &neighbours);
        let exports = policy::exports(&desired, &peers, ready, &self.exports);
        let orders = Orders {
            peers: (peers != self.peers).then(|| peers.clone()),
            exports: (!policy::same(&exports, &self.exports)).then(|| exports.clone()),
        };
        let withheld = policy::not_ready(&desired, ready);
        (self.desired, self.peers, self.exports, self.withheld) = (desired, peers, exports, withheld);
        (self.neighbours, self.links) = (neighbours, Arc::clone(links));
        orders
    }

    /// The peers whose session is up.
    pub(super) fn answering(&self) -> BTreeSet<PeerId> {
        self.status.iter().filter(|(_, s)| s.state == State::Established).map(|(id, _)| id.clone()).collect()
    }

    /// Whether a peer is known by its interface alone.
    pub(super) fn is_unnumbered(&self) -> bool {
        self.desired.peers.values().any(|peer| neighbours::interface(peer).is_some())
    }

    /// The BFD sessions that belong to these peers.
    pub(crate) fn paths(
        &self,
        link_to: impl Fn(IpAddr) -> Option<bfd::Link>,
    ) -> BTreeMap<PeerId, ironcast_bgp::bfd::Config> {
        bfd::sessions(&self.desired, &self.peers, link_to)
    }

    /// Every peer of this node, also those that wait for something and have no session yet.
    pub fn sessions(&self, now: Instant) -> Vec<SessionState> {
        self.desired.peers.values().map(|peer| self.session(peer, now)).collect()
    }

    fn session(&self, peer: &Peer, now: Instant) -> SessionState {
        let id = policy::peer_id(&peer.name);
        let status = self.peers.get(&id).and_then(|_| self.status.get(&id));
        let up = status.map(|status| status.state == State::Established);
        let trouble = neighbours::trouble(peer, &self.links).filter(|_| up != Some(true));
        let waiting = trouble.or_else(|| Some(policy::peer_config(peer, &self.neighbours).err()?.to_string()));
        let unspecified = std::net::Ipv6Addr::UNSPECIFIED.into();
        let last_error = status.and_then(|status| status.last_error.clone());
        SessionState {
            peer: peer.name.clone(),
            address: status.map_or_else(|| peer.address.unwrap_or(unspecified), |status| status.remote_addr),
            state: status.map_or(State::Idle, |status| status.state).to_string(),
            since_seconds: status.map_or(0, |status| now.saturating_duration_since(status.since).as_secs()),
            local_asn: peer.local_asn.unwrap_or(peer.my_asn).value(),
            remote_asn: status.and_then(|status| status.remote_as).map(|asn| asn.value()),
            families: status.map_or_else(Vec::new, |s| s.families.iter().map(ToString::to_string).collect()),
            capabilities: status.map_or_else(Vec::new, |s| s.capabilities.clone()),
            hold_time_seconds: status.and_then(|status| status.hold_time).map(|hold| hold.seconds()),
            advertised: status.map_or(0, |status| status.advertised.len()),
            last_error: waiting.or(last_error),
            established_count: status.map_or(0, |status| status.established_count),
            bfd: self.bfd.state(peer, now),
            unacknowledged: None,
        }
    }

    /// What was really sent, from the Adj-RIB-Out of every peer, by peer and prefix.
    pub fn routes(&self) -> impl Iterator<Item = RouteState> {
        self.sent().map(|(peer, prefix, attributes)| self.route(peer, prefix, attributes))
    }

    /// Its prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.sent().map(|(_, prefix, _)| prefix)
    }

    fn sent(&self) -> impl Iterator<Item = (&PeerId, IpNet, &Attributes)> {
        self.status.iter().flat_map(|(peer, status)| {
            status.advertised.iter().map(move |(prefix, attributes)| (peer, prefix, &**attributes))
        })
    }

    fn route(&self, peer: &PeerId, prefix: IpNet, attributes: &Attributes) -> RouteState {
        let services = self.desired.behind.get(&prefix);
        let communities = attributes.communities.iter().map(ToString::to_string);
        let extended = attributes.extended_communities.iter().map(ToString::to_string);
        let bandwidth = attributes.link_bandwidth.map(|b| format!("link-bandwidth:{}", b.octets_per_second()));
        let large = attributes.large_communities.iter().map(|community| format!("large:{community}"));
        RouteState {
            prefix: prefix.to_string(),
            peer: peer.to_string(),
            services: services.into_iter().flat_map(|services| services.iter()).map(ToString::to_string).collect(),
            communities: communities.chain(large).chain(extended).chain(bandwidth).collect(),
            med: attributes.med,
            local_pref: attributes.local_pref,
        }
    }

    /// What is not announced, and why: plan's reasons and those of this moment.
    pub fn withheld(&self) -> impl Iterator<Item = WithheldState> {
        self.desired.withheld.iter().chain(&self.withheld).map(Withheld::state)
    }
}
