//! The marks of the retired controller of Packet and Equinix Metal, whose addresses are taken over: a cluster that
//! changes to Ironcast keeps them.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

use crate::types::ServiceKey;

/// What it is known by, under both of its names.
const USAGES: [&str; 2] = ["usage=cloud-provider-equinix-metal-auto", "usage=packet-ccm-auto"];
const CLUSTER: &str = "cluster=";
const SERVICE: &str = "service=";

/// Whether the lease is the predecessor's.
pub(super) fn has(tags: &BTreeSet<String>) -> bool {
    USAGES.iter().any(|usage| tags.contains(*usage))
}

/// Whether the lease is the predecessor's, of this cluster.
pub(super) fn is_of(tags: &BTreeSet<String>, cluster: &str) -> bool {
    has(tags) && tags.contains(&format!("{CLUSTER}{cluster}"))
}

/// Whether it was claimed for this Service.
pub(super) fn is_for(tags: &BTreeSet<String>, service: &ServiceKey) -> bool {
    tags.contains(&format!("{SERVICE}{}", STANDARD.encode(digest(&SHA256, service.to_string().as_bytes()))))
}

/// Whether the tag is one that the predecessor put there.
pub(super) fn is_mark(tag: &str) -> bool {
    USAGES.contains(&tag) || tag.starts_with(CLUSTER) || tag.starts_with(SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_its_digest() {
        // printf web/front | openssl dgst -sha256 -binary | base64
        let digest = "service=W7jkCqNM7hZncxjhx8IWiPV+nq4pzMEqbRaJfGSuSqc=";
        let tags: BTreeSet<String> = [USAGES[0], "cluster=6c5f", digest].map(Into::into).into();
        assert!(is_of(&tags, "6c5f") && !is_of(&tags, "6c5"));
        assert!(is_for(&tags, &ServiceKey::new("web", "front")) && !is_for(&tags, &ServiceKey::new("web", "back")));
        assert!(!is_of(&["cluster=6c5f".to_owned()].into(), "6c5f"));
    }
}
