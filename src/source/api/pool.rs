//! `IPAddressPool`: addresses that Services may get.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ReclaimPolicy, is_false, rules, yes};

/// Addresses that Services may get, and which Services may.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "IPAddressPool",
    namespaced,
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    shortname = "icpool",
    category = "ironcast",
    doc = "Addresses that LoadBalancer Services may get.",
    printcolumn(name = "Auto Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Avoid Buggy IPs", type_ = "boolean", json_path = ".spec.avoidBuggyIPs"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "IPv4 Used", type_ = "integer", json_path = ".status.assignedIPv4"),
    printcolumn(name = "IPv4 Free", type_ = "integer", json_path = ".status.availableIPv4"),
    printcolumn(name = "IPv6 Used", type_ = "integer", json_path = ".status.assignedIPv6"),
    printcolumn(name = "IPv6 Free", type_ = "integer", json_path = ".status.availableIPv6", priority = "1"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::pool()))]
pub struct IPAddressPoolSpec {
    /// CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20), IPv4 and IPv6. All addresses are used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 96)), transform = rules::address_ranges)]
    pub addresses: Vec<String>,
    /// Where further addresses are claimed, one for each Service that finds none free in a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<PoolProvider>,
    /// False: addresses are given out only to Services that ask for one of them or for the pool.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// True: IPv4 addresses that end in .0 and .255 are not given out, because some old equipment drops them.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Who may take addresses from the pool. Default: every Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
    /// True: nothing new is given out; addresses in use stay until their Services go. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
}

/// Where a pool's addresses are claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolProvider {
    /// A ProviderConfig by name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Kind of address in the provider's words (`public_ipv4`). One that names a family offers that family alone.
    /// Default: the provider's usual one.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: Option<String>,
    /// Where, in the provider's words (`am`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub region: Option<String>,
    /// What becomes of an address that no Service needs any more: `Delete` gives it back, `Retain` keeps paying for it.
    #[serde(default)]
    pub reclaim_policy: ReclaimPolicy,
    /// Claim IPv4 blocks of this prefix length, not single addresses: one aggregate can then serve many Services.
    /// Default: single addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 31))]
    pub block_length: Option<u8>,
    /// The same for IPv6. Default: single addresses.
    #[serde(default, rename = "blockLengthV6", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 48, max = 127))]
    pub block_length_v6: Option<u8>,
}

/// Who may take addresses from a pool. A Service must fit `namespaces` or `namespaceSelectors`, where there
/// are any, and one of `serviceSelectors`, where there are any.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Among pools that fit, the smallest number is tried first; 0 comes last. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub priority: Option<i64>,
    /// Namespaces by name. Default: with `namespaceSelectors` absent too, all namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// Namespaces by label; one selector that fits is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label; one selector that fits is enough. Default: all Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
}

/// Use of the pool. Written by the leader.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses given out.
    #[serde(default, rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// IPv6 addresses given out.
    #[serde(default, rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// IPv4 addresses left.
    #[serde(default, rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// IPv6 addresses left, at most 9223372036854775807.
    #[serde(default, rename = "availableIPv6")]
    pub available_ipv6: i64,
    /// `Valid` is False for a pool that was refused, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
