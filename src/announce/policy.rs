//! Pure: what the speaker is told, out of what is desired and what is ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use ironcast_bgp::{
    Family,
    rib::Routes,
    speaker::{Exports, PeerAs, PeerConfig, PeerId, Ttl},
};

use super::{
    Ready,
    neighbours::{self, Neighbours},
};
use crate::{
    plan::{Allocated, Desired, Withheld, Withhold},
    types::{self, Peer, ServiceKey},
};

/// Offered with `enableGracefulRestart`: longer than an image is pulled and a pod started.
pub const RESTART_TIME: Duration = Duration::from_secs(120);
/// Between attempts where `connectTime` is absent: RFC 4271 §10 suggests 120 s, long after a router has rebooted.
pub const CONNECT_RETRY: Duration = Duration::from_secs(10);
/// iBGP peers may be anywhere in the AS.
const INTERNAL_TTL: u8 = 255;

/// Why a peer gets no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// Its password is not known.
    #[error("waiting for the Secret {0} with the password; create it in the namespace of ironcast")]
    Secret(String),
    /// It is known by an interface alone, and nobody was heard there.
    #[error(
        "no router advertisement was heard on {0} yet; the router must send them (FRR does for `neighbor … interface`, \
         BIRD with a protocol radv)"
    )]
    Neighbour(String),
}

/// The speaker's name for a peer.
pub fn peer_id(name: &str) -> PeerId {
    PeerId(name.into())
}

/// The peers that get a session. A running peer whose Secret went away keeps what it was told before: a Secret
/// deleted by mistake must not cost the routes.
pub fn peer_configs(
    desired: &Desired,
    running: &BTreeMap<PeerId, PeerConfig>,
    neighbours: &Neighbours,
) -> BTreeMap<PeerId, PeerConfig> {
    desired
        .peers
        .values()
        .filter_map(|peer| {
            let id = peer_id(&peer.name);
            let config = match peer_config(peer, neighbours) {
                Ok(config) => config,
                Err(Waiting::Secret(_)) => running.get(&id)?.clone(),
                Err(Waiting::Neighbour(_)) => return None,
            };
            Some((id, config))
        })
        .collect()
}

/// The peer in the speaker's words, or why it must wait.
pub fn peer_config(peer: &Peer, neighbours: &Neighbours) -> Result<PeerConfig, Waiting> {
    if let Some(secret) = &peer.missing_secret {
        return Err(Waiting::Secret(secret.clone()));
    }
    let shown = peer.local_asn.unwrap_or(peer.my_asn);
    let address = match neighbours::interface(peer) {
        Some(interface) => {
            let heard = neighbours.get(interface).ok_or_else(|| Waiting::Neighbour(interface.into()))?;
            (*heard).into()
        }
        None => peer.address.ok_or_else(|| Waiting::Neighbour(String::new()))?,
    };
    Ok(PeerConfig {
        port: peer.port,
        interface: peer.interface.clone().or_else(|| peer.vrf.clone()),
        source: peer.source,
        router_id: peer.router_id,
        hold_time: peer.hold_time,
        keepalive: peer.keepalive,
        connect_retry: peer.connect_time.unwrap_or(CONNECT_RETRY),
        passive: peer.passive,
        ttl: ttl(peer),
        password: peer.password.clone(),
        ao_keys: peer.ao_keys.clone(),
        families: families(peer),
        graceful_restart: peer.graceful_restart.then_some(RESTART_TIME),
        prefix_budget: peer.prefix_budget,
        maximum_prefixes: peer.maximum_prefixes,
        own_as: (peer.shows_my_asn && shown != peer.my_asn).then_some(peer.my_asn),
        add_path: peer.add_path,
        role: peer.role,
        role_strict: peer.role_strict,
        long_lived: peer.long_lived.filter(|_| peer.graceful_restart),
        ..PeerConfig::new(address, shown, peer.peer_as)
    })
}

fn families(peer: &Peer) -> BTreeSet<Family> {
    let families = [(types::Family::Ipv4, Family::Ipv4Unicast), (types::Family::Ipv6, Family::Ipv6Unicast)];
    families.into_iter().filter(|(family, _)| peer.carries(*family)).map(|(_, unicast)| unicast).collect()
}

/// GTSM where it is asked for, else the hops of `ebgpMultiHop`; a direct peer is one hop away by eBGP's rule, an
/// internal one anywhere.
fn ttl(peer: &Peer) -> Ttl {
    let internal = match peer.peer_as {
        PeerAs::Internal => true,
        PeerAs::External => false,
        PeerAs::Exactly(asn) => asn == peer.local_asn.unwrap_or(peer.my_asn),
    };
    match (peer.ttl_security, peer.multihop) {
        (Some(hops), _) => Ttl::Security { hops },
        (None, Some(hops)) => Ttl::MultiHop(hops),
        (None, None) if internal => Ttl::MultiHop(INTERNAL_TTL),
        (None, None) => Ttl::Direct,
    }
}

/// What each peer is told: the desired routes whose packets are served already. Sets that were shared stay so, and
/// share with the former ones what they have in common (the planner's do), so that a change costs no more than it is.
pub fn exports(desired: &Desired, peers: &BTreeMap<PeerId, PeerConfig>, ready: &Ready, former: &Exports) -> Exports {
    let mut known: Vec<[Routes; 3]> = Vec::new();
    let nothing = Routes::default();
    let mut export = |id: &PeerId| {
        let wanted = desired.exports.get(&*id.0).unwrap_or(&nothing);
        let before = former.get(id).unwrap_or(&nothing);
        if let Some([.., told]) = known.iter().find(|[w, b, _]| w.is(wanted) && b.is(before)) {
            return told.clone();
        }
        let told = match ready {
            Ready::All => wanted.clone(),
            Ready::Only(_) => {
                Routes::after(before, wanted.iter().filter(|(prefix, _)| serves_any(desired, prefix, ready)))
            }
        };
        known.push([wanted.clone(), before.clone(), told.clone()]);
        told
    };
    peers.keys().map(|id| (id.clone(), export(id))).collect()
}

/// Whether the exports are the very same.
pub fn same(one: &Exports, other: &Exports) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((a, routes), (b, others))| a == b && routes.is(others))
}

/// Whether an address behind the prefix is served; of an aggregate one is enough.
fn serves_any(desired: &Desired, prefix: &IpNet, ready: &Ready) -> bool {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return ready.has(prefix.addr());
    }
    let services = desired.behind.get(prefix);
    services
        .into_iter()
        .flat_map(|services| services.iter())
        .flat_map(|service| answered(desired, service))
        .any(|address| prefix.contains(&address) && ready.has(address))
}

/// Addresses of the Service that this node should serve.
fn answered<'a>(desired: &'a Desired, service: &ServiceKey) -> impl Iterator<Item = IpAddr> + use<'a> {
    let addresses = match desired.allocations.get(service) {
        Some(Allocated::Addresses { addresses, .. }) => &addresses[..],
        _ => &[],
    };
    addresses.iter().copied().filter(|address| desired.addresses.contains(address))
}

/// Services to be announced with an address that is not served yet.
pub fn not_ready(desired: &Desired, ready: &Ready) -> Vec<Withheld> {
    if *ready == Ready::All {
        return Vec::new();
    }
    let services: BTreeSet<&ServiceKey> = desired.behind.values().flat_map(|services| services.iter()).collect();
    services
        .into_iter()
        .filter(|service| answered(desired, service).any(|address| !ready.has(address)))
        .map(|service| Withheld { service: service.clone(), peer: None, reason: Withhold::DatapathNotReady })
        .collect()
}
