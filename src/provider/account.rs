//! What a `ProviderConfig` says of an account, and what the vendors' files share.

use std::{collections::BTreeMap, net::IpAddr};

use ironcast_bgp::Asn;
use serde_json::Value;

use super::{
    Lease, LeaseId, Marks, Refusal, SourceError,
    http::{Deadlines, Secret, SetupError},
};

/// An account with a provider. What is `None` is the provider's usual one, or not needed there.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Base URL of the API.
    pub endpoint: Option<String>,
    /// URL of the metadata service.
    pub metadata: Option<String>,
    /// Project (Packet, Cherry, Latitude), prefix id or query (NetBox).
    pub project: Option<String>,
    /// Token; for phoenixNAP `client id:client secret`. Nodes have none.
    pub token: Option<Secret>,
    /// Our AS, where the provider does not say it.
    pub asn: Option<Asn>,
    /// How long calls may take.
    pub deadlines: Deadlines,
}

impl Account {
    pub(super) fn endpoint<'a>(&'a self, usual: &'a str) -> &'a str {
        self.endpoint.as_deref().unwrap_or(usual)
    }

    pub(super) fn metadata<'a>(&'a self, usual: &'a str) -> &'a str {
        self.metadata.as_deref().unwrap_or(usual)
    }

    pub(super) fn token(&self) -> Result<Secret, SetupError> {
        self.token.clone().ok_or(SetupError::Missing("the key token of spec.credentialsSecret"))
    }

    pub(super) fn project(&self) -> Result<String, SetupError> {
        self.project.clone().filter(|project| !project.is_empty()).ok_or(SetupError::Missing("spec.project"))
    }
}

/// Leases as pages bring them: one that several pages repeat is one lease.
#[derive(Debug, Default)]
pub(super) struct Listing(BTreeMap<LeaseId, Lease>);

impl Listing {
    pub(super) fn add(&mut self, lease: Lease) {
        self.0.insert(lease.id.clone(), lease);
    }

    /// All of them.
    ///
    /// # Errors
    /// They are not as many as the provider says there are: a page repeated another, or the list changed meanwhile.
    pub(super) fn complete(self, total: Option<u64>) -> Result<Vec<Lease>, SourceError> {
        let found = self.0.len() as u64;
        match total {
            Some(total) if total != found => {
                Err(SourceError::Unreadable(format!("the pages hold {found} of {total} addresses")))
            }
            _ => Ok(self.0.into_values().collect()),
        }
    }
}

/// Gives a lease back: it is read again and compared before it is deleted. What is gone has been given back.
pub(super) async fn release(
    found: impl Future<Output = Result<Lease, SourceError>>,
    expected: &Marks,
    delete: impl Future<Output = Result<(), SourceError>>,
) -> Result<(), SourceError> {
    let released = async {
        may_release(&found.await?, expected)?;
        delete.await
    };
    match released.await {
        Err(SourceError::Gone) => Ok(()),
        released => released,
    }
}

/// Tags as the one line that some vendors have for marks, where it takes them.
pub(super) fn described(tags: &[String], longest: usize) -> Result<String, SourceError> {
    let text = tags.join(" ");
    if text.chars().count() <= longest {
        return Ok(text);
    }
    let message = format!("the marks do not fit into {longest} characters: use shorter names");
    Err(SourceError::Refused { refusal: Refusal::Invalid, message })
}

/// Whether a lease may be given back: exactly the marks expected, and nothing assigned.
fn may_release(lease: &Lease, expected: &Marks) -> Result<(), SourceError> {
    if Marks::read(&lease.tags) != Ok(Some(expected.clone())) {
        let found = lease.tags.iter().cloned().collect();
        return Err(SourceError::Foreign { expected: Box::new(expected.clone()), found });
    }
    not_in_use(lease)
}

/// Whether nothing is assigned to a lease.
pub(super) fn not_in_use(lease: &Lease) -> Result<(), SourceError> {
    lease.assigned.clone().map_or(Ok(()), |by| Err(SourceError::InUse { by }))
}

/// Text that is not empty; `null`, numbers and what is missing are `None`.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A number, or a text that is one.
pub(super) fn number(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// An AS number, or a text that is one.
pub(super) fn asn(value: &Value, key: &str) -> Option<Asn> {
    Asn::new(u32::try_from(number(value, key)?).ok()?).ok()
}

/// An address, without a length behind it.
pub(super) fn address(value: &Value, key: &str) -> Option<IpAddr> {
    value.get(key)?.as_str()?.split('/').next()?.parse().ok()
}

/// A list; empty where there is none.
pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An answer that lacks something without which it means nothing.
pub(super) fn lacks(what: &str) -> SourceError {
    SourceError::Unreadable(format!("it lacks {what}"))
}

/// What became of a request that claims and whose 2xx answer says too little: it has taken effect.
pub(super) fn claimed_but(error: SourceError) -> SourceError {
    match error {
        SourceError::Unreadable(message) => SourceError::Ambiguous(message),
        other => other,
    }
}
