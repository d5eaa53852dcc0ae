//! `BGPNodeStatus`: what a node really announces. Written by that node's daemon only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::NodeState;

/// Whose status it is. The object's name is the node's.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "BGPNodeStatus",
    plural = "bgpnodestatuses",
    namespaced,
    status = "BGPNodeStatusStatus",
    derive = "PartialEq",
    shortname = "icnode",
    category = "ironcast",
    doc = "What a node announces, what it withholds and why. Written by the node's daemon.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(
        name = "Config",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='ConfigurationValid')].status"
    ),
    printcolumn(name = "Routes", type_ = "integer", json_path = ".status.totals.routes"),
    printcolumn(name = "Leaving", type_ = "string", json_path = ".status.leaving"),
    printcolumn(name = "Leader", type_ = "boolean", json_path = ".status.leader"),
    printcolumn(name = "Sessions", type_ = "string", json_path = ".status.sessions[*].state"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".status.sessions[*].peer", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPNodeStatusSpec {
    /// The node, as in the Node object.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
}

/// The node's state, and conditions to wait for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BGPNodeStatusStatus {
    /// Everything that the node knows of itself.
    #[serde(flatten)]
    pub state: NodeState,
    /// How much there is, where the lists are cut (at 500 entries each).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// `Ready`: every session of the node is Established. `ConfigurationValid`: nothing that it uses is refused.
    /// `Drained`: it was asked to leave and announces nothing any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Entries of the lists before they are cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Entries of `services`.
    pub services: i64,
    /// Entries of `routes`.
    pub routes: i64,
    /// Entries of `withheld`.
    pub withheld: i64,
    /// Entries of `problems`.
    pub problems: i64,
}
