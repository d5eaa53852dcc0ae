//! `Community`: names for communities.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, rules};

/// Names that advertisements may use for communities.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "Community",
    plural = "communities",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    shortname = "iccom",
    category = "ironcast",
    doc = "Names that advertisements may use for communities.",
    printcolumn(name = "Names", type_ = "string", json_path = ".spec.communities[*].name"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
pub struct CommunitySpec {
    /// The names and what they stand for.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub communities: Vec<NamedCommunity>,
}

/// One name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedCommunity {
    /// The name that advertisements use; it has no colon and no space.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[^:\s]+$"))]
    pub name: String,
    /// What it stands for: `65000:100`, `large:64500:1:2` or a well-known name (`no-export`).
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-validations" = rules::community()))]
    pub value: String,
}
