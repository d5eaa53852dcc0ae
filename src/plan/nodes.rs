//! What everybody sees of a node: whether it may announce, whether it was asked to leave, and who announces in its place.

use super::{Leaving, Settings, Withhold, eligibility::Candidate, eligibility::Here, pools::Pools, routes};
use crate::types::{Advertisement, DEVICE_STATE, Endpoint, Family, Node, Service, Snapshot, TrafficPolicy, family_of};

/// The label that keeps a node out of external load balancers.
pub(super) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Why a node announces nothing at all.
pub(super) fn unfit(node: &Node, settings: &Settings) -> Option<Withhold> {
    if node.annotations.get(DEVICE_STATE).is_some_and(|state| state != "Active") {
        return Some(Withhold::DeviceUnavailable);
    }
    if !node.ready {
        return Some(Withhold::NodeNotReady);
    }
    if node.network_unavailable {
        return Some(Withhold::NodeNetworkUnavailable);
    }
    let excluded = !settings.ignore_exclude_label && node.labels.contains_key(EXCLUDE_LABEL);
    excluded.then_some(Withhold::NodeLabeledExcludeBalancers)
}

/// Why this node should leave, by a taint or a cordon; how far it has come stands in [`Settings::cordon`].
pub fn asked_to_leave(snapshot: &Snapshot, settings: &Settings) -> Option<Withhold> {
    leaves(snapshot.nodes.get(&settings.node)?, settings)
}

fn leaves(node: &Node, settings: &Settings) -> Option<Withhold> {
    let is = |taint: &String| {
        settings.maintenance_taints.iter().any(|listed| {
            taint == listed || taint.strip_prefix(listed.as_str()).is_some_and(|rest| rest.starts_with('='))
        })
    };
    if node.taints.iter().any(is) {
        return Some(Withhold::NodeMaintenance);
    }
    (settings.cordon_drains && node.unschedulable).then_some(Withhold::NodeCordoned)
}

/// The nodes that announce whatever they can.
pub(super) fn staying<'a>(snapshot: &'a Snapshot, settings: &Settings) -> impl Iterator<Item = &'a Node> {
    let stays = |node: &&Node| unfit(node, settings).is_none() && leaves(node, settings).is_none();
    snapshot.nodes.values().map(|node| &**node).filter(stays)
}

/// Whether a node takes the Service's packets of a family that some endpoint serves.
pub(super) fn serves(service: &Service, endpoints: &[Endpoint], family: Family, node: &str) -> bool {
    service.traffic_policy == TrafficPolicy::Cluster
        || endpoints.iter().any(|endpoint| {
            endpoint.takes_traffic() && family_of(endpoint.address) == family && endpoint.node.as_deref() == Some(node)
        })
}

/// Withholds what others announce, where this node was asked to leave by its object. What nobody else announces stays:
/// a cordon is no order to be away, and a cluster may be cordoned as a whole.
pub(super) fn leave(snapshot: &Snapshot, settings: &Settings, pools: &Pools<'_>, here: &mut Here<'_>) {
    let Some(reason) = asked_to_leave(snapshot, settings).filter(|_| settings.cordon == Leaving::Gone) else { return };
    let others = Others::new(snapshot, settings, pools);
    let candidates = std::mem::take(&mut here.announce);
    for candidate in candidates {
        match others.announce(&candidate) {
            true => here.withhold(&candidate.service.key, reason),
            false => here.announce.push(candidate),
        }
    }
}

/// Whom the other nodes tell what.
struct Others<'a> {
    snapshot: &'a Snapshot,
    pools: &'a Pools<'a>,
    /// Each advertisement with the nodes that follow it to some peer.
    following: Vec<(&'a Advertisement, Vec<&'a str>)>,
}

impl<'a> Others<'a> {
    fn new(snapshot: &'a Snapshot, settings: &Settings, pools: &'a Pools<'a>) -> Self {
        let nodes: Vec<&Node> = staying(snapshot, settings).filter(|node| node.name != settings.node).collect();
        let following = |advertisement: &'a Advertisement| {
            let to = snapshot.peers.values().filter(|p| routes::is_told(advertisement, p)).collect::<Vec<_>>();
            let follows = |node: &&&Node| {
                routes::any_matches(&advertisement.node_selectors, &node.labels)
                    && to.iter().any(|peer| routes::any_matches(&peer.node_selectors, &node.labels))
            };
            (advertisement, nodes.iter().filter(follows).map(|node| node.name.as_str()).collect())
        };
        Self { snapshot, pools, following: snapshot.advertisements.values().map(following).collect() }
    }

    /// Whether some other node announces every address of it that this one does.
    fn announce(&self, candidate: &Candidate<'_>) -> bool {
        let Candidate { service, addresses } = candidate;
        let endpoints = self.snapshot.endpoints.get(&service.key).map_or(&[][..], |endpoints| &endpoints[..]);
        addresses.iter().all(|grant| {
            let family = family_of(grant.address);
            let following = self.following.iter().filter(|(a, _)| routes::selects(a, service, grant, self.pools));
            following.flat_map(|(_, nodes)| nodes).any(|node| serves(service, endpoints, family, node))
        })
    }
}
