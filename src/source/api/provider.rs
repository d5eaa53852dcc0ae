//! `ProviderConfig`: a bare-metal provider's account that addresses and peers come from.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, SecretReference, rules};

/// A provider's account. Pools name it in `spec.provider.name`.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "ProviderConfig",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    shortname = "icprovider",
    category = "ironcast",
    doc = "A bare-metal provider's account that addresses and peers come from.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Project", type_ = "string", json_path = ".spec.project"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint", priority = "1"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
pub struct ProviderConfigSpec {
    /// Whose API it is.
    #[serde(rename = "type")]
    pub type_: ProviderType,
    /// Base URL of the API. Default: the provider's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = rules::URL))]
    pub endpoint: Option<String>,
    /// Base URL of the metadata service on nodes. Default: the provider's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = rules::URL))]
    pub metadata_endpoint: Option<String>,
    /// The project (account, tenant) that addresses are claimed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub project: Option<String>,
    /// A Secret whose key `token` holds the API token. Only the leader uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretReference>,
    /// See [`PeersSource`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersSource>,
    /// Our AS number towards the provider's routers, where the provider leaves the choice. Default: the provider's usual one.
    #[serde(default, rename = "asn", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub asn: Option<u32>,
    /// See [`RoutePolicy`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage_routes: Option<RoutePolicy>,
    /// How long a request with an unknown outcome may take to show in the provider's list. Default: 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub settle_time: Option<String>,
    /// Between the withdrawal of an address and giving it back. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub release_delay: Option<String>,
    /// Between two lists of all addresses. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub refresh_interval: Option<String>,
}

/// `type` of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // names of companies
pub enum ProviderType {
    Packet,
    Cherry,
    Vultr,
    PhoenixNap,
    Latitude,
    NetBox,
    Capi,
}

/// Where nodes learn their routers from: `Objects` BGPPeer objects, `Metadata` the metadata service of each node,
/// `Account` the API, which the leader asks for every node. Default: Objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeersSource {
    /// BGPPeer objects.
    Objects,
    /// The metadata service of each node.
    Metadata,
    /// The account's API: the leader writes each node's routers into a Secret.
    Account,
}

/// Routes that the routers need: `auto` adds those that are missing, `never` leaves them to you. Default: auto.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoutePolicy {
    /// Add what is missing.
    Auto,
    /// Touch nothing.
    Never,
}
