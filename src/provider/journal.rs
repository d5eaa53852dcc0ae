//! Where claims are written down before anything is asked of a provider.

use futures::future::BoxFuture;

use crate::types::{Claim, ClaimId};

/// What the journal is told, all of it before the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// This claim is so.
    Put(Claim),
    /// This claim is over.
    Remove(ClaimId),
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
    fn write(&self, entries: Vec<Entry>) -> BoxFuture<'_, Result<(), JournalError>>;
}
