//! `BGPAdvertisement`: how addresses are announced, and to whom.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, rules};

/// How addresses of pools are announced, from which nodes, to which peers.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "BGPAdvertisement",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    shortname = "icadv",
    category = "ironcast",
    doc = "How addresses of pools are announced, from which nodes, to which peers.",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Pool Selectors", type_ = "string", json_path = ".spec.ipAddressPoolSelectors", priority = "1"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
    printcolumn(name = "Communities", type_ = "string", json_path = ".spec.communities"),
    printcolumn(name = "Local Pref", type_ = "integer", json_path = ".spec.localPref", priority = "1"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementSpec {
    /// Prefix length that IPv4 addresses are announced with: less than 32 announces the network around each address.
    /// Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: Option<u8>,
    /// The same for IPv6. Default: 128.
    #[serde(default, rename = "aggregationLengthV6", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub aggregation_length_v6: Option<u8>,
    /// LOCAL_PREF, told to iBGP peers only: among paths to one prefix their routers take the highest. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u32))]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC: the router prefers the lowest among paths from one AS. Default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295u32))]
    pub med: Option<u32>,
    /// How often our AS stands in the AS path beyond the first time, for eBGP peers. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub as_path_prepend: Option<u8>,
    /// See [`LinkBandwidthForm`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_bandwidth: Option<LinkBandwidthForm>,
    /// Communities of the routes: `65000:100`, `large:64500:1:2`, a well-known name (no-export) or a name of a `Community` object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)), transform = rules::communities)]
    pub communities: Vec<String>,
    /// Pools by name. Default: with `ipAddressPoolSelectors` absent too, all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub ip_address_pools: Vec<String>,
    /// Pools by label; one selector that fits is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Services by label; one selector that fits is enough. Default: all Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that announce, by label; one selector that fits is enough. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,
    /// BGPPeers by name. Default: all peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub peers: Vec<String>,
}

/// Tell the router how much of the traffic this node should take, as a link bandwidth (RFC 10005) by the ready endpoints
/// on the node: for Services with `externalTrafficPolicy: Local`, where some nodes have more pods than others.
/// `nonTransitive` (0x4004) is what most routers heed, `transitive` (0x0004) crosses AS borders. The router must weigh
/// its paths by it. Default: none is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LinkBandwidthForm {
    /// Type 0x4004.
    NonTransitive,
    /// Type 0x0004.
    Transitive,
}
