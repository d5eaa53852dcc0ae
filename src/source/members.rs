//! The nodes of a cluster and what each wrote of itself, for those who look from outside.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};

use super::api::{BGPNodeStatus, Totals};
use crate::types::NodeState;

/// A node, as others see it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Condition `Ready` of the Node; `None` where Nodes may not be read, or it has none.
    pub ready: Option<bool>,
    /// What its daemon wrote last; `None` where no daemon ever did.
    pub state: Option<NodeState>,
    /// Entries of the lists before they were cut.
    pub totals: Option<Totals>,
}

/// Every node, by name.
///
/// # Errors
/// The cluster cannot be reached, or the `BGPNodeStatuses` may not be listed.
pub async fn members(client: &Client, namespace: &str) -> anyhow::Result<Vec<Member>> {
    let all = ListParams::default();
    let statuses: Api<BGPNodeStatus> = Api::namespaced(client.clone(), namespace);
    let statuses =
        statuses.list(&all).await.with_context(|| format!("list the BGPNodeStatuses of namespace {namespace}"))?;
    let mut members: BTreeMap<String, Member> = BTreeMap::new();
    for object in statuses {
        let member = member(&mut members, object.spec.node_name);
        member.totals = object.status.as_ref().and_then(|status| status.totals);
        member.state = object.status.map(|status| status.state);
    }
    // Who may not read Nodes is told the rest all the same.
    if let Ok(nodes) = Api::<Node>::all(client.clone()).list(&all).await {
        for node in nodes {
            let ready = is_ready(&node);
            member(&mut members, node.metadata.name.unwrap_or_default()).ready = ready;
        }
    }
    Ok(members.into_values().collect())
}

fn member(all: &mut BTreeMap<String, Member>, name: String) -> &mut Member {
    all.entry(name.clone()).or_insert_with(|| Member { name, ..Member::default() })
}

fn is_ready(node: &Node) -> Option<bool> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status == "True")
}
