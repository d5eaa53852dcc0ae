//! Where claims are written down before anything is asked of a provider.

use futures::future::BoxFuture;

use crate::types::{Claim, ClaimId};

/// What the journal is told of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: ClaimId,
    /// How it is; `None` where it is over.
    pub claim: Option<Claim>,
}

/// The journal cannot be read or written; what it holds is unknown until it is loaded again.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} the journal of claims")]
pub struct JournalError {
    /// `read`, `write`.
    pub attempt: &'static str,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// AddressClaim objects, or a file beside the manifests.
pub trait Journal: Send + Sync {
    /// Everything that it holds, as of now: no older answer will do, and no write that was given up may follow.
    fn load(&self) -> BoxFuture<'_, Result<Vec<Claim>, JournalError>>;

    /// Writes these, durably.
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), JournalError>>;
}
