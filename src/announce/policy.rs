//! Pure: what the speaker is told, out of what is desired and what is ready.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use ironcast_bgp::{
    Family,
    rib::Route,
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

/// What each peer is told: the desired routes whose packets are served already. Lists that were shared stay so.
pub fn exports(desired: &Desired, peers: &BTreeMap<PeerId, PeerConfig>, ready: &Ready) -> Exports {
    let mut filtered: HashMap<*const Route, Arc<[Route]>> = HashMap::new();
    peers
        .keys()
        .map(|id| {
            let Some(wanted) = desired.exports.get(&*id.0) else { return (id.clone(), Arc::default()) };
            let list = match ready {
                Ready::All => Arc::clone(wanted),
                Ready::Only(_) => {
                    let filtered = filtered.entry(wanted.as_ptr());
                    Arc::clone(filtered.or_insert_with(|| only_ready(desired, wanted, ready)))
                }
            };
            (id.clone(), list)
        })
        .collect()
}

fn only_ready(desired: &Desired, wanted: &Arc<[Route]>, ready: &Ready) -> Arc<[Route]> {
    let is_ready = |route: &&Route| serves_any(desired, &route.prefix, ready);
    if wanted.iter().all(|route| is_ready(&route)) {
        return Arc::clone(wanted);
    }
    wanted.iter().filter(is_ready).cloned().collect()
}

/// Whether an address behind the prefix is served; of an aggregate one is enough.
fn serves_any(desired: &Desired, prefix: &IpNet, ready: &Ready) -> bool {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return ready.has(prefix.addr());
    }
    let services = desired.behind.get(prefix);
    services
        .into_iter()
        .flatten()
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
    let services: BTreeSet<&ServiceKey> = desired.behind.values().flatten().collect();
    services
        .into_iter()
        .filter(|service| answered(desired, service).any(|address| !ready.has(address)))
        .map(|service| Withheld { service: service.clone(), peer: None, reason: Withhold::DatapathNotReady })
        .collect()
}

/// Puts the former list wherever the new one says the same, so that the speaker sees at a glance what did not
/// change. Returns whether anything did.
pub fn reuse(new: &mut Exports, former: &Exports) -> bool {
    let mut same: HashMap<(*const Route, *const Route), bool> = HashMap::new();
    let mut changed = new.len() != former.len();
    for (id, list) in new {
        let Some(old) = former.get(id) else {
            changed = true;
            continue;
        };
        let equal = same.entry((list.as_ptr(), old.as_ptr())).or_insert_with(|| list[..] == old[..]);
        if *equal {
            *list = Arc::clone(old);
        } else {
            changed = true;
        }
    }
    changed
}
