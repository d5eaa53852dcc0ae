//! Which file speaks for which `ProviderConfig`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Account, Deadlines, PeerSource, Provider, SetupError, capi, cherry, driver::Connect, latitude, netbox, packet,
    phoenixnap, vultr,
};
use crate::types::{ClaimProblem, ProviderConfig, ProviderKind};

/// The clients of a configuration.
///
/// # Errors
/// What the configuration lacks.
pub fn connect(config: &ProviderConfig) -> Result<Provider, ClaimProblem> {
    if let Some(secret) = &config.missing_secret {
        let message = format!("there is no Secret {secret} with the key token; create it");
        return Err(ClaimProblem { reason: "CredentialsMissing".into(), message });
    }
    let leader = match config.kind {
        ProviderKind::Packet => packet::leader,
        ProviderKind::Cherry => cherry::leader,
        ProviderKind::Vultr => vultr::leader,
        ProviderKind::PhoenixNap => phoenixnap::leader,
        ProviderKind::Latitude => latitude::leader,
        ProviderKind::NetBox => netbox::leader,
        ProviderKind::Capi => {
            let message = "IPAddressClaims are objects of a cluster, and this daemon has a folder of manifests".into();
            return Err(ClaimProblem { reason: "InvalidConfiguration".into(), message });
        }
    };
    leader(&account(config)).map_err(|error| lacking(&error))
}

fn lacking(error: &SetupError) -> ClaimProblem {
    let reason = if matches!(error, SetupError::Missing("the key token of spec.credentialsSecret")) {
        "CredentialsMissing"
    } else {
        "InvalidConfiguration"
    };
    ClaimProblem { reason: reason.into(), message: error.to_string() }
}

/// [`connect`], with one client for each configuration: a vendor's limit of requests counts them all together. On a cluster
/// also for addresses that others manage there, claimed in a namespace.
pub fn shared(cluster: Option<(kube::Client, String)>) -> Connect {
    let clients: Mutex<BTreeMap<String, (ProviderConfig, Provider)>> = Mutex::default();
    Arc::new(move |config| {
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.get(&config.name).filter(|(of, _)| of == config) {
            return Ok(client.clone());
        }
        let client = match (&cluster, config.kind) {
            (Some((client, namespace)), ProviderKind::Capi) => {
                capi::leader(client.clone(), namespace, config).map_err(|error| lacking(&error))?
            }
            _ => connect(config)?,
        };
        clients.insert(config.name.clone(), (config.clone(), client.clone()));
        Ok(client)
    })
}

/// The client of a node's metadata service, for providers that tell routers there.
pub fn metadata(config: &ProviderConfig) -> Option<Arc<dyn PeerSource>> {
    let account = Account { token: None, ..account(config) };
    let client = match config.kind {
        ProviderKind::Packet => packet::node(&account),
        ProviderKind::Vultr => vultr::node(&account),
        ProviderKind::Cherry
        | ProviderKind::PhoenixNap
        | ProviderKind::Latitude
        | ProviderKind::NetBox
        | ProviderKind::Capi => return None,
    };
    client.inspect_err(|error| tracing::error!(provider = config.name, %error, "metadata service")).ok()
}

fn account(config: &ProviderConfig) -> Account {
    Account {
        endpoint: config.endpoint.clone(),
        metadata: config.metadata.clone(),
        project: config.project.clone(),
        token: config.credentials.clone(),
        asn: config.asn,
        deadlines: Deadlines::default(),
    }
}
