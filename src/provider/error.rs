//! Why a provider did not do what it was asked, in classes by what the caller may do next.

use std::time::Duration;

use super::Marks;

/// Why a call failed. Messages are the provider's own words, shortened, and never hold credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It may have taken effect: look before asking again.
    #[error("the outcome is unknown: {0}")]
    Ambiguous(String),
    /// It did not take effect, and will not until a person changes something.
    #[error("refused ({refusal}): {message}")]
    Refused {
        /// Why.
        refusal: Refusal,
        /// The provider's words.
        message: String,
    },
    /// The token is wrong, has expired, or may not do this.
    #[error("the credentials are not accepted: {0}")]
    Unauthorized(String),
    /// Too many requests. Nothing happened.
    #[error("too many requests")]
    RateLimited {
        /// What the provider asks to wait, where it says so.
        retry_after: Option<Duration>,
    },
    /// The provider cannot be reached, or failed before it did anything; harmless to repeat later.
    #[error("the provider is unavailable: {message}")]
    Unavailable {
        /// What happened.
        message: String,
        /// What the provider asks to wait, where it says so.
        retry_after: Option<Duration>,
    },
    /// The provider has no such thing.
    #[error("it does not exist at the provider")]
    Gone,
    /// The lease's marks are not the expected ones; it was left as it is.
    #[error("its marks are {found:?}, not {}", expected.tags().join(" "))]
    Foreign {
        /// What should be there.
        expected: Box<Marks>,
        /// The tags that are there.
        found: Vec<String>,
    },
    /// Something is assigned to the lease; it was left as it is.
    #[error("it is in use by {by}")]
    InUse {
        /// What the provider calls the user.
        by: String,
    },
    /// An answer that cannot be read. For `list` this means that the list is unknown.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// Why the provider refused; each has one next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The account's limit is reached.
    Quota,
    /// The region has none left.
    NoStock,
    /// Somebody at the provider would have to approve, and waiting was not asked for.
    ApprovalRequired,
    /// Somebody at the provider said no.
    Denied,
    /// The project does not exist or is not visible with these credentials.
    UnknownProject,
    /// The region does not exist.
    UnknownRegion,
    /// The provider does not know this kind of address, or does not do this at all.
    Unsupported,
    /// The request is wrong in another way.
    Invalid,
}

impl Refusal {
    /// The word for Events and conditions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "QuotaExceeded",
            Self::NoStock => "NoStock",
            Self::ApprovalRequired => "ApprovalRequired",
            Self::Denied => "Denied",
            Self::UnknownProject => "UnknownProject",
            Self::UnknownRegion => "UnknownRegion",
            Self::Unsupported => "Unsupported",
            Self::Invalid => "InvalidRequest",
        }
    }

    /// The next step.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Quota => "raise the account's limit with the provider, or delete Services or addresses",
            Self::NoStock => "name another region in the pool, or wait until the provider has addresses again",
            Self::ApprovalRequired => "ask the provider for approval",
            Self::Denied => "ask the provider why, then delete the AddressClaim to ask again",
            Self::UnknownProject => "correct spec.project of the ProviderConfig, or use a token that sees the project",
            Self::UnknownRegion => "correct spec.provider.region of the pool",
            Self::Unsupported => "correct spec.provider.type of the pool",
            Self::Invalid => "compare the pool's spec.provider with the provider's documentation",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
