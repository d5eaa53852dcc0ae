//! This node's `BGPNodeStatus`: created when first needed, owned by the Node, so that it goes with it.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{WriteError, resources::whole_seconds, within};
use crate::{
    source::api::{BGPNodeStatus, BGPNodeStatusSpec},
    types::NodeState,
};

/// Entries of one list in the status. An object may have 1.5 MB, and `ironcast status` shows all of them.
const ENTRIES: usize = 500;
const ESTABLISHED: &str = "Established";

/// What this node says of itself, and what it has said.
pub(super) struct NodeReport {
    api: Api<BGPNodeStatus>,
    nodes: Api<Node>,
    node: String,
    written: Option<Value>,
    /// Ready as last written.
    ready: Option<Condition>,
    exists: bool,
}

impl NodeReport {
    pub(super) fn new(client: Client, namespace: &str, node: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, nodes: Api::all(client), node: node.into(), written: None, ready: None, exists: false }
    }

    /// The next write compares with the server.
    pub(super) fn forget(&mut self) {
        (self.written, self.exists) = (None, false);
    }

    /// Whether something was written.
    pub(super) async fn write(&mut self, state: &Arc<NodeState>) -> Result<bool, WriteError> {
        let timeless = serde_json::to_value(timeless(state)).unwrap_or_default();
        if self.written.as_ref() == Some(&timeless) {
            return Ok(false);
        }
        if !self.exists {
            self.ready = self.find_or_create().await?;
            self.exists = true;
        }
        let ready = ready(state, self.ready.as_ref());
        let mut status = serde_json::to_value(shortened(state)).unwrap_or_default();
        status["conditions"] = json!([ready]);
        let patch = Patch::Merge(json!({ "status": status }));
        match within(self.api.patch_status(&self.node, &PatchParams::default(), &patch)).await {
            Ok(_) => {}
            Err(error) => {
                self.exists = false;
                return Err(error);
            }
        }
        (self.written, self.ready) = (Some(timeless), Some(ready));
        Ok(true)
    }

    /// The condition Ready that the object has.
    async fn find_or_create(&self) -> Result<Option<Condition>, WriteError> {
        if let Some(object) = within(self.api.get_opt(&self.node)).await? {
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            return Ok(conditions.into_iter().find(|condition| condition.type_ == "Ready"));
        }
        let owner = within(self.nodes.get_opt(&self.node)).await?.and_then(|node| node.metadata.uid);
        let owner = owner.map(|uid| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.node.clone(),
            uid,
            ..Default::default()
        });
        let object = BGPNodeStatus {
            metadata: ObjectMeta {
                name: Some(self.node.clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: BGPNodeStatusSpec { node_name: self.node.clone() },
            status: None,
        };
        within(self.api.create(&PostParams::default(), &object)).await?;
        Ok(None)
    }
}

/// The state without what changes by itself.
fn timeless(state: &NodeState) -> NodeState {
    let mut state = shortened(state);
    for session in &mut state.sessions {
        session.since_seconds = 0;
        session.bfd.iter_mut().for_each(|bfd| bfd.since_seconds = 0);
    }
    state
}

fn shortened(state: &NodeState) -> NodeState {
    let mut state = state.clone();
    state.services.truncate(ENTRIES);
    state.routes.truncate(ENTRIES);
    state.withheld.truncate(ENTRIES);
    state.problems.truncate(ENTRIES);
    state
}

/// `Ready`: the source is complete and every session is Established.
fn ready(state: &NodeState, before: Option<&Condition>) -> Condition {
    let down: Vec<&str> = state.sessions.iter().filter(|s| s.state != ESTABLISHED).map(|s| s.peer.as_str()).collect();
    let (status, reason, mut message) = match (state.source.complete, down.is_empty(), state.sessions.is_empty()) {
        (false, ..) => ("False", "SourceIncomplete", "the first complete list has not arrived".to_owned()),
        (_, _, true) => ("False", "NoPeer", "no BGPPeer selects this node".to_owned()),
        (_, false, _) => ("False", "SessionsDown", format!("not Established: {}", down.join(", "))),
        _ => ("True", "SessionsEstablished", "every session is Established".to_owned()),
    };
    let longest = [state.services.len(), state.routes.len(), state.withheld.len()].into_iter().max().unwrap_or(0);
    if longest > ENTRIES {
        message.push_str(&format!("; lists are cut at {ENTRIES} entries, ironcast status shows all"));
    }
    let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: None,
        last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(Timestamp::now()))),
    }
}
