//! Which file speaks for which `ProviderConfig`.

use std::sync::Arc;

use super::{PeerSource, Provider};
use crate::types::{ClaimProblem, ProviderConfig};

/// The clients of a configuration.
///
/// # Errors
/// What the configuration lacks, or that this build knows no such provider.
pub fn connect(config: &ProviderConfig) -> Result<Provider, ClaimProblem> {
    if let Some(secret) = &config.missing_secret {
        let message = format!("there is no Secret {secret} with the key token; create it");
        return Err(ClaimProblem { reason: "CredentialsMissing".into(), message });
    }
    let message = format!("this version cannot speak to a provider of type {}", config.kind.as_str());
    Err(ClaimProblem { reason: "Unsupported".into(), message })
}

/// The client of a node's metadata service, for providers that tell routers there.
pub fn metadata(config: &ProviderConfig) -> Option<Arc<dyn PeerSource>> {
    let _ = config;
    None
}
