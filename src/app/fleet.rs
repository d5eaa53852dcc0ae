//! The leader's work for nodes of a provider, and how nodes read what came of it.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::BoxFuture;

use super::tasks::Tasks;
use crate::{
    provider::{
        Answer, Device, DeviceState, NodeId, NodePeers, PeerSource, SourceError,
        driver::Connect,
        fleet::{self, Board, BoardError},
        node, vendors,
    },
    source::fleet as objects,
    types::{DEVICE_STATE, PeersFrom, ProviderConfig},
};

/// On a cluster: annotations of Nodes, and a Secret of each node.
pub(super) fn on_cluster(
    client: kube::Client,
    namespace: &str,
    connect: Connect,
    channels: fleet::Channels,
    tasks: &mut Tasks,
) {
    let board = Arc::new(Objects { client, namespace: namespace.into() });
    tasks.spawn("fleet", fleet::run(connect, board, channels));
}

/// With a folder of manifests: BGP is switched on and addresses are bound; machines are not judged.
pub(super) fn on_folder(connect: Connect, channels: fleet::Channels, tasks: &mut Tasks) {
    tasks.spawn("fleet", fleet::run(connect, Arc::new(Nowhere), channels));
}

/// How this node learns its routers; `client` is of a cluster.
pub(super) fn routers(client: Option<(kube::Client, String)>) -> node::Connect {
    Box::new(move |config: &ProviderConfig| match (config.peers, &client) {
        (PeersFrom::Account, Some((client, namespace))) => {
            let (client, namespace) = (client.clone(), namespace.clone());
            Some(Arc::new(OfSecret { client, namespace, provider: config.name.clone() }))
        }
        (PeersFrom::Account, None) => None,
        _ => vendors::metadata(config),
    })
}

struct Objects {
    client: kube::Client,
    namespace: String,
}

fn failed(error: objects::FleetError) -> BoardError {
    let attempt = error.to_string();
    match error {
        objects::FleetError::Api { source, .. } => BoardError { attempt, source: source.into() },
        late @ objects::FleetError::Late(..) => BoardError { attempt: "write".into(), source: late.into() },
    }
}

impl Board for Objects {
    fn state<'a>(&'a self, node: &'a str, state: &'static str) -> BoxFuture<'a, Result<(), BoardError>> {
        Box::pin(async move { objects::annotate(&self.client, node, DEVICE_STATE, state).await.map_err(failed) })
    }

    fn peers<'a>(
        &'a self,
        node: &'a str,
        provider: &'a str,
        peers: &'a NodePeers,
    ) -> BoxFuture<'a, Result<(), BoardError>> {
        let routers = peers.to_json();
        Box::pin(
            async move { objects::write(&self.client, &self.namespace, node, provider, routers).await.map_err(failed) },
        )
    }

    fn keep<'a>(&'a self, wanted: &'a BTreeSet<(String, String)>) -> BoxFuture<'a, Result<(), BoardError>> {
        Box::pin(async move { objects::keep(&self.client, &self.namespace, wanted).await.map_err(failed) })
    }
}

/// Nobody reads what the leader learns.
struct Nowhere;

impl Board for Nowhere {
    fn state<'a>(&'a self, _: &'a str, _: &'static str) -> BoxFuture<'a, Result<(), BoardError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn peers<'a>(&'a self, _: &'a str, _: &'a str, _: &'a NodePeers) -> BoxFuture<'a, Result<(), BoardError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keep<'a>(&'a self, _: &'a BTreeSet<(String, String)>) -> BoxFuture<'a, Result<(), BoardError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The routers that the leader wrote into this node's Secret.
struct OfSecret {
    client: kube::Client,
    namespace: String,
    provider: String,
}

impl PeerSource for OfSecret {
    /// The state of the machine is on the Node.
    fn device<'a>(&'a self, _: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(std::future::ready(Ok(Device { state: DeviceState::Active, addresses: Vec::new() })))
    }

    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let found = objects::read(&self.client, &self.namespace, &node.name, &self.provider).await;
            let away = |error: objects::FleetError| SourceError::Unavailable {
                message: failed(error).to_string(),
                retry_after: None,
            };
            match found.map_err(away)? {
                Some(octets) => {
                    NodePeers::from_json(&octets).map_err(|error| SourceError::Unreadable(error.to_string()))
                }
                None => Ok(NodePeers::default()),
            }
        })
    }
}
