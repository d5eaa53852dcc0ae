//! Claims: what the journal says of addresses that a provider leases to us.

use std::{fmt, str::FromStr};

/// Names one claim for ever: the object in the journal and the mark at the provider. `ic-` and 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(u64);

/// Text that is no id of a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a claim (ic-0123456789abcdef)")]
pub struct InvalidClaimId(String);

impl ClaimId {
    /// From 64 random bits.
    pub const fn new(random: u64) -> Self {
        Self(random)
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ic-{:016x}", self.0)
    }
}

impl FromStr for ClaimId {
    type Err = InvalidClaimId;

    fn from_str(text: &str) -> Result<Self, InvalidClaimId> {
        let digits = text.strip_prefix("ic-").filter(|digits| digits.len() == 16);
        let lower = digits.filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        let number = lower.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| InvalidClaimId(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let id = ClaimId::new(0xbeef);
        assert_eq!(id.to_string(), "ic-000000000000beef");
        assert_eq!(id.to_string().parse(), Ok(id));
        for odd in ["ic-beef", "ic-000000000000BEEF", "ic-+00000000000beef", "xx-000000000000beef", ""] {
            assert!(odd.parse::<ClaimId>().is_err(), "{odd}");
        }
    }
}
