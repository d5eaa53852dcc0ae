//! Which file speaks for which `ProviderConfig`.

use std::sync::Arc;

use super::{Account, PeerSource, Provider, Secret, SetupError, cherry, latitude, netbox, packet, phoenixnap, vultr};
use crate::types::{ClaimProblem, ProviderConfig, ProviderKind};

/// The clients of a configuration, for the leader.
///
/// # Errors
/// What the configuration lacks.
pub fn connect(config: &ProviderConfig) -> Result<Provider, ClaimProblem> {
    if let Some(secret) = &config.missing_secret {
        let message = format!("there is no Secret {secret} with the key token; create it");
        return Err(ClaimProblem { reason: "CredentialsMissing".into(), message });
    }
    let account = account(config);
    let made = match config.kind {
        ProviderKind::Packet => packet::leader(&account),
        ProviderKind::Cherry => cherry::leader(&account),
        ProviderKind::Vultr => vultr::leader(&account),
        ProviderKind::PhoenixNap => phoenixnap::leader(&account),
        ProviderKind::Latitude => latitude::leader(&account),
        ProviderKind::NetBox => netbox::leader(&account),
    };
    made.map_err(|error| ClaimProblem { reason: "InvalidConfig".into(), message: words(&error) })
}

/// The client of a node's metadata service, for providers that tell routers there.
pub fn metadata(config: &ProviderConfig) -> Option<Arc<dyn PeerSource>> {
    let account = Account { token: None, ..account(config) };
    let made = match config.kind {
        ProviderKind::Packet => packet::node(&account),
        ProviderKind::Vultr => vultr::node(&account),
        _ => return None,
    };
    made.ok()
}

fn account(config: &ProviderConfig) -> Account {
    Account {
        endpoint: config.endpoint.clone(),
        metadata: config.metadata.clone(),
        project: config.project.clone(),
        token: config.credentials.as_ref().map(|credentials| Secret::new(&credentials.0)),
        asn: config.asn,
        ..Account::default()
    }
}

fn words(error: &SetupError) -> String {
    format!("{error}; correct the ProviderConfig")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClaimTiming, Credentials, ManageRoutes, PeersFrom};

    fn config(kind: ProviderKind) -> ProviderConfig {
        ProviderConfig {
            name: "metal".into(),
            kind,
            endpoint: Some("https://netbox.example".into()),
            metadata: None,
            project: Some("42".into()),
            credentials: Some(Credentials("id:secret".into())),
            missing_secret: None,
            peers: PeersFrom::Objects,
            asn: None,
            manage_routes: ManageRoutes::Auto,
            timing: ClaimTiming::default(),
        }
    }

    #[test]
    fn every_kind_has_a_client_and_each_lack_has_a_word() {
        for kind in ProviderKind::ALL {
            let made = connect(&config(kind));
            assert!(made.is_ok_and(|made| made.addresses.is_some()), "{}", kind.as_str());
        }
        let missing = ProviderConfig { missing_secret: Some("token".into()), ..config(ProviderKind::Packet) };
        assert_eq!(connect(&missing).expect_err("no token").reason, "CredentialsMissing");
        let bad = ProviderConfig { endpoint: Some("nowhere".into()), ..config(ProviderKind::Packet) };
        let told = connect(&bad).expect_err("no URL");
        assert!(told.message.contains("nowhere"), "{told:?}");
        assert!(metadata(&config(ProviderKind::Packet)).is_some());
    }
}
