//! What the leader writes for nodes of a provider: the state of their machines, as an annotation of the Node, and their
//! routers, in a Secret of each node.
//!
//! The annotation goes through the Node's status, so that the daemon needs no right over the rest of a Node. A Secret is owned by its
//! Node and goes with it.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    ByteString,
    api::core::v1::{Node, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

/// A request that takes longer has failed. Shorter than `lease - give_up` of an election.
const DEADLINE: Duration = Duration::from_secs(4);
/// Who wrote the Secret.
const WRITER: &str = "ironcast";
/// Marks our Secrets.
const LABEL: &str = "ironcast.dev/routers-of";
/// The Secret's type.
const TYPE: &str = "ironcast.dev/routers";
/// The Secret's key.
const KEY: &str = "routers.json";

/// Why it is not written or read.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The API server refuses, or is away.
    #[error("{attempt} {object}")]
    Api {
        /// `annotate`, `write` …
        attempt: &'static str,
        /// Which object.
        object: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// No answer in time.
    #[error("the API server did not answer in time, asked to {0} {1}")]
    Late(&'static str, String),
}

/// Name of the Secret that holds the routers of a node.
pub fn secret_name(node: &str, provider: &str) -> String {
    format!("ironcast-routers.{provider}.{node}")
}

async fn within<T>(
    attempt: &'static str,
    object: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, FleetError> {
    let answer = timeout(DEADLINE, request).await.map_err(|_| FleetError::Late(attempt, object.into()))?;
    answer.map_err(|source| FleetError::Api { attempt, object: object.into(), source })
}

/// Puts an annotation on a Node.
///
/// # Errors
/// The API server refuses, or is away.
pub async fn annotate(client: &Client, node: &str, key: &str, value: &str) -> Result<(), FleetError> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    within("annotate", node, api.patch_status(node, &PatchParams::default(), &patch)).await?;
    Ok(())
}

/// Writes the Secret of a node, whole.
///
/// # Errors
/// The API server refuses, or is away.
pub async fn write(
    client: &Client,
    namespace: &str,
    node: &str,
    provider: &str,
    routers: Vec<u8>,
) -> Result<(), FleetError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let owner = within("read", node, nodes.get_opt(node)).await?.and_then(|node| node.uid());
    let owner = owner.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.into(),
        uid,
        ..Default::default()
    });
    let name = secret_name(node, provider);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some([(LABEL.to_owned(), provider.to_owned())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        type_: Some(TYPE.into()),
        data: Some([(KEY.to_owned(), ByteString(routers))].into()),
        ..Default::default()
    };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(WRITER).force();
    within("write", &name, api.patch(&name, &params, &Patch::Apply(&secret))).await?;
    Ok(())
}

/// Deletes our Secrets but those of these providers and nodes.
///
/// # Errors
/// The API server refuses, or is away.
pub async fn keep(client: &Client, namespace: &str, wanted: &BTreeSet<(String, String)>) -> Result<(), FleetError> {
    let wanted: BTreeSet<String> = wanted.iter().map(|(provider, node)| secret_name(node, provider)).collect();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let ours = within("list", "Secrets", api.list_metadata(&ListParams::default().labels(LABEL))).await?;
    for name in ours.items.iter().map(ResourceExt::name_any).filter(|name| !wanted.contains(name)) {
        match within("delete", &name, api.delete(&name, &DeleteParams::default())).await {
            Err(FleetError::Api { source: kube::Error::Api(status), .. }) if status.code == 404 => {}
            done => _ = done?,
        }
    }
    Ok(())
}

/// What the Secret of a node holds; `None` where there is none.
///
/// # Errors
/// The API server refuses, or is away.
pub async fn read(client: &Client, namespace: &str, node: &str, provider: &str) -> Result<Option<Vec<u8>>, FleetError> {
    let (api, name): (Api<Secret>, _) = (Api::namespaced(client.clone(), namespace), secret_name(node, provider));
    let secret = within("read", &name, api.get_opt(&name)).await?;
    Ok(secret.and_then(|secret| secret.data?.remove(KEY)).map(|octets| octets.0))
}
