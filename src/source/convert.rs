//! Kubernetes objects and our resources to [`crate::types`], or [`Problem`]s that name object, field, value and
//! next step. Pure; one object at a time. What only shows beside other objects is the index's business.
//!
//! A missing field means what the API server would have put there, so that a folder of manifests and a cluster
//! mean the same. One default has no counterpart: `ipFamilies`, see [`service`].

mod advertisement;
mod annotations;
mod bfd;
mod claim;
mod community;
mod duration;
mod endpoints;
mod key;
mod node;
mod peer;
mod pool;
mod provider;
mod report;
mod selector;
mod service;

#[cfg(test)]
mod tests;

pub use advertisement::{AdvertisementDraft, advertisement};
pub use annotations::{ANNOTATIONS, Annotation};
pub use bfd::{ProfileDraft, bfd_profile};
pub use claim::{claim, claim_spec, claim_status};
pub use community::{CommunityValue, communities};
pub use endpoints::{Slice, slice};
pub use key::secret_password;
pub use node::node;
pub use peer::{PeerDraft, peer};
pub use pool::pool;
pub use provider::{ProviderDraft, provider, token};
pub use service::{request_field, service};

use crate::types::Problem;

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted<T> {
    /// The value; `None` when the object is refused.
    pub value: Option<T>,
    /// Why it is refused, or what may surprise.
    pub problems: Vec<Problem>,
}
