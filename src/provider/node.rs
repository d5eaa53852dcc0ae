//! What this node learns of its routers: from the provider's metadata service, which needs no token, or from what the
//! leader wrote down for it.
//!
//! Asked again every `REFRESH`, since addresses and routers change; what was learned stays in use while nobody
//! answers: sessions must not end because a web server did, or because the token of the account changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use ironcast_bgp::{
    HoldTime,
    speaker::{AddPath, PeerAs},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, info};

use super::{NodeId, NodePeers, PeerSource, RouteNeeded, SourceError};
use crate::types::{
    ClaimTiming, ManageRoutes, Node, ObjectRef, Peer, PeersFrom, Problem, ProviderConfig, Severity, Snapshot,
};

/// Between two questions.
const REFRESH: Duration = Duration::from_secs(60);
/// Between two questions while one was not answered, or there are no peers yet.
const RETRY: Duration = Duration::from_secs(5);
/// The longest that an answer is waited for.
const DEADLINE: Duration = Duration::from_secs(10);
/// BGP's port (RFC 4271 §8.2.1).
const PORT: u16 = 179;
/// Which machine a node is, where neither `providerID` nor the metadata service tells.
const DEVICE: &str = "ironcast.dev/device";

/// Makes the client of what tells this node its routers; `None` where the provider has nothing of the kind.
pub type Connect = Box<dyn Fn(&ProviderConfig) -> Option<Arc<dyn PeerSource>> + Send + Sync>;

/// What providers gave this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provided {
    /// Routers by name: `PROVIDER-ADDRESS`.
    pub peers: BTreeMap<String, Peer>,
    /// Routes that they need and that are ours to add.
    pub routes: BTreeSet<RouteNeeded>,
    /// What could not be learned.
    pub problems: Vec<Problem>,
}

/// Learns until cancelled, from every provider that says `peers: Metadata` or `Account`.
///
/// # Errors
/// Never: what fails is tried again.
pub async fn run(
    node: String,
    connect: Connect,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    to: watch::Sender<Arc<Provided>>,
) -> Result<(), Infallible> {
    let mut known: BTreeMap<String, (ProviderConfig, NodePeers)> = BTreeMap::new();
    loop {
        let (configs, id) = match &*snapshots.borrow_and_update() {
            Some(snapshot) => (wanted(snapshot), id(&node, snapshot.nodes.get(&node).map(AsRef::as_ref))),
            None => (BTreeMap::new(), id(&node, None)),
        };
        known.retain(|name, (config, _)| configs.get(name).is_some_and(|now| same_routers(now, config)));
        let mut now = Provided::default();
        let mut calm = true;
        for (name, config) in &configs {
            match ask(&connect, config, &id).await {
                Ok(peers) => {
                    calm &= !peers.peers.is_empty();
                    known.insert(name.clone(), (config.clone(), peers));
                }
                Err(error) => {
                    calm = false;
                    debug!(provider = name, %error, "the metadata service did not tell the routers");
                    now.problems.push(problem(name, &error));
                }
            }
        }
        for (config, found) in known.values() {
            now.peers.extend(peers(config, found).into_iter().map(|peer| (peer.name.clone(), peer)));
            if config.manage_routes == ManageRoutes::Auto {
                now.routes.extend(found.routes.iter().copied());
            }
        }
        to.send_if_modified(|before| {
            let news = **before != now;
            if news {
                info!(peers = now.peers.len(), routes = now.routes.len(), "the provider's routers");
                *before = Arc::new(now);
            }
            news
        });
        let refresh = configs.values().filter_map(|config| config.timing.refresh).min();
        let pause = refresh.unwrap_or(REFRESH).min(if calm { REFRESH } else { RETRY });
        loop {
            tokio::select! {
                () = sleep(pause) => break,
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let configs_now = snapshots.borrow_and_update().as_deref().map(wanted).unwrap_or_default();
                    let same = |(name, config): (&String, &ProviderConfig)| {
                        configs.get(name).is_some_and(|before| same_routers(before, config))
                    };
                    if configs_now.len() != configs.len() || !configs_now.iter().all(same) {
                        break;
                    }
                }
            }
        }
    }
}

fn wanted(snapshot: &Snapshot) -> BTreeMap<String, ProviderConfig> {
    let configs = snapshot.providers.iter().filter(|(_, config)| config.peers != PeersFrom::Objects);
    configs.map(|(name, config)| (name.clone(), config.clone())).collect()
}

/// Where routers come from is the same; a token has no part in it.
fn same_routers(one: &ProviderConfig, other: &ProviderConfig) -> bool {
    let without = |config: &ProviderConfig| ProviderConfig {
        credentials: None,
        missing_secret: None,
        timing: ClaimTiming::default(),
        ..config.clone()
    };
    without(one) == without(other)
}

/// Whether a person says which machine the node is.
pub fn is_annotated(node: &Node) -> bool {
    node.annotations.contains_key(DEVICE)
}

/// The machine of a node: its annotation, or `providerID` without the scheme.
pub fn id(name: &str, node: Option<&Node>) -> NodeId {
    let annotated = node.and_then(|node| node.annotations.get(DEVICE)).map(String::as_str);
    let provided = node.and_then(|node| node.provider_id.as_deref());
    let provided = provided.map(|id| id.rsplit_once('/').map_or(id, |(_, id)| id));
    NodeId { name: name.into(), device: annotated.or(provided).unwrap_or_default().into() }
}

async fn ask(connect: &Connect, config: &ProviderConfig, id: &NodeId) -> Result<NodePeers, SourceError> {
    let unsupported = || SourceError::Refused {
        refusal: super::Refusal::Unsupported,
        message: format!("a provider of type {} tells no routers in this way", config.kind.as_str()),
    };
    let source = connect(config).ok_or_else(unsupported)?;
    let late = |_| SourceError::Unavailable { message: format!("no answer within {DEADLINE:?}"), retry_after: None };
    timeout(DEADLINE, source.peers(id)).await.map_err(late)?
}

fn problem(name: &str, error: &SourceError) -> Problem {
    Problem {
        object: ObjectRef::new("ProviderConfig", "", name),
        field: "spec.peers".into(),
        message: format!("this node does not learn its routers: {error}"),
        hint: "check spec.metadataEndpoint and that BGP is enabled for the machine, or write BGPPeer objects".into(),
        severity: Severity::Warning,
        file: None,
    }
}

/// The peers as plan has them.
pub fn peers(config: &ProviderConfig, found: &NodePeers) -> Vec<Peer> {
    let peer = |peer: &super::ProvidedPeer| Peer {
        name: format!("{}-{}", config.name, peer.address),
        my_asn: config.asn.unwrap_or(peer.my_asn),
        local_asn: None,
        shows_my_asn: false,
        peer_as: PeerAs::Exactly(peer.peer_asn),
        address: Some(peer.address),
        interface: None,
        port: PORT,
        source: peer.source,
        router_id: None,
        vrf: None,
        hold_time: HoldTime::DEFAULT,
        keepalive: None,
        connect_time: None,
        multihop: peer.multihop,
        ttl_security: None,
        passive: false,
        password: peer.password.clone(),
        ao_keys: Vec::new(),
        missing_secret: None,
        node_selectors: Vec::new(),
        bfd: None,
        graceful_restart: true,
        dual_stack: false,
        long_lived: None,
        role: None,
        role_strict: false,
        add_path: AddPath::default(),
        prefix_budget: peer.prefix_budget,
        maximum_paths: None,
        address_from: None,
        maximum_prefixes: None,
    };
    found.peers.iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_the_annotation_or_the_provider_id_whatever_its_scheme() {
        let node = |provider: Option<&str>, annotation: Option<&str>| Node {
            provider_id: provider.map(Into::into),
            annotations: annotation.into_iter().map(|id| (DEVICE.to_owned(), id.to_owned())).collect(),
            ..Node::default()
        };
        let device = |node: Node| id("n1", Some(&node)).device;
        for text in ["equinixmetal://5a1f", "packet://5a1f", "cherryservers:///5a1f", "5a1f"] {
            assert_eq!(device(node(Some(text), None)), "5a1f");
        }
        assert_eq!(device(node(Some("packet://5a1f"), Some("77aa"))), "77aa");
        assert_eq!(id("n1", None).device, "");
    }
}
