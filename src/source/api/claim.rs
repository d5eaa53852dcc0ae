//! `AddressClaim`: one address or block at a provider. Written by the leader before the provider is asked.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::Family;

/// The finalizer of claims: without it a deleted object would leave its address behind.
pub const CLAIM_FINALIZER: &str = "ironcast.dev/release";

/// What is claimed. Made by the leader; deleting it withdraws the address and gives it back.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "AddressClaim",
    namespaced,
    status = "AddressClaimStatus",
    derive = "PartialEq",
    shortname = "icclaim",
    category = "ironcast",
    doc = "An address or block at a provider. Written by the leader; deleting it withdraws the address and gives it back.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Network", type_ = "string", json_path = ".status.network"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Lease", type_ = "string", json_path = ".status.leaseID", priority = "1")
)]
#[serde(rename_all = "camelCase")]
pub struct AddressClaimSpec {
    /// The ProviderConfig by name.
    pub provider: String,
    /// The IPAddressPool by name.
    pub pool: String,
    /// `namespace/name` of the Service that it is for; absent for a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The family of the address.
    pub family: Family,
    /// Kind of address in the provider's words. Default: its usual one.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Where, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// 32 or 128 for one address, less for a block.
    #[schemars(range(min = 1, max = 128))]
    pub prefix_length: u8,
    /// What becomes of it in the end: `Delete` gives it back after it was withdrawn, `Retain` leaves it leased until the
    /// AddressClaim is deleted by hand.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
}

/// `reclaimPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    /// Given back after it was withdrawn.
    #[default]
    Delete,
    /// It stays leased until the AddressClaim is deleted by hand.
    Retain,
}

/// How far a claim has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressClaimStatus {
    /// How far it has come: Wanted, Sent, Pending, Bound, Releasing, Lost, Retained.
    #[serde(default)]
    pub phase: String,
    /// When the provider was asked, or when the release began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<MicroTime>,
    /// The provider's id of the address.
    #[serde(default, rename = "leaseID", skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The address as /32 or /128, or the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `Ready` is False while the address cannot be used, with the reason and the next step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
