//! Our custom resources: schema only, no behaviour. Group [`GROUP`], version [`VERSION`]; kinds and fields
//! carry MetalLB's names wherever they mean the same. What one object can say wrong is refused by the API
//! server with the CEL rules of `rules`; `convert` checks the same again for folders of manifests.
//!
//! All kinds are namespaced and are read from the daemon's own namespace, so that who may create objects
//! elsewhere cannot hand out addresses.

// Each `printcolumn(…)` is taken for a repetition of the one before.
#![allow(clippy::duplicated_attributes)]

mod advertisement;
mod bfd;
mod claim;
mod community;
#[cfg(test)]
mod compatible;
mod crds;
mod node_status;
mod peer;
mod pool;
mod provider;
mod rules;

pub use advertisement::{BGPAdvertisement, BGPAdvertisementSpec, LinkBandwidthForm};
pub use bfd::{BFDProfile, BFDProfileSpec, BfdAuthentication, BfdAuthenticationType};
pub use claim::{AddressClaim, AddressClaimSpec, AddressClaimStatus, CLAIM_FINALIZER, ReclaimPolicy};
pub use community::{Community, CommunitySpec, NamedCommunity};
pub(in crate::source) use crds::WITHOUT_FIELDS;
pub use crds::{crds, crds_yaml};
pub use node_status::{BGPNodeStatus, BGPNodeStatusSpec, BGPNodeStatusStatus, Totals};
pub use peer::{
    AddPathMode, BGPPeer, BGPPeerSpec, DynamicAsn, LocalAsnMode, PeerAddressFrom, PeerRole, SecretReference,
    TcpAoAlgorithm, TcpAoKey,
};
pub use pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, PoolProvider, ServiceAllocation};
pub use provider::{PeersSource, ProviderConfig, ProviderConfigSpec, ProviderType, RoutePolicy};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The API group of our resources.
pub const GROUP: &str = "ironcast.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// The condition that says whether an object is in use: `True`, or `False` with the reason and the next step.
/// `kubectl wait --for=condition=Valid` waits for it.
pub const CONDITION_VALID: &str = "Valid";

/// `status` of a resource that has nothing but conditions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionsStatus {
    /// `Valid` is False for an object that was refused, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
