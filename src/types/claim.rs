//! Claims: what the journal says of addresses that a provider leases to us.

use std::{fmt, net::IpAddr, str::FromStr, time::SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Family, ServiceKey};

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

/// The provider's id of a lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub String);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of an address at the provider when nobody needs it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reclaim {
    /// It is given back, after it was withdrawn.
    #[default]
    Delete,
    /// It stays leased; the claim says so until a person deletes it.
    Retain,
}

/// An address that a Service lacks and that a provider may have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The Service.
    pub service: ServiceKey,
    /// Pool that it would be of.
    pub pool: String,
    /// Family.
    pub family: Family,
    /// The one address that the Service asks for: it is taken where the project has it already, and nothing is claimed.
    pub address: Option<IpAddr>,
}

/// `IPAddressPool.spec.provider`: where a pool's addresses are claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolProvider {
    /// `ProviderConfig` by name.
    pub name: String,
    /// `type`, in the provider's words.
    pub kind: Option<String>,
    /// `region`, in the provider's words.
    pub region: Option<String>,
    /// `reclaimPolicy`.
    pub reclaim: Reclaim,
    /// `blockLength`: IPv4 blocks of this prefix length are claimed, not single addresses.
    pub block: Option<u8>,
    /// `blockLengthV6`.
    pub block_v6: Option<u8>,
}

impl PoolProvider {
    /// Whether addresses of the family can come of it. A type that names one family (`public_ipv4`, `v6`) offers that
    /// one alone.
    pub fn offers(&self, family: Family) -> bool {
        let named = |digit: char| self.kind.as_ref().is_some_and(|kind| kind.contains(digit));
        match family {
            Family::Ipv4 => named('4') || !named('6'),
            Family::Ipv6 => named('6') || !named('4'),
        }
    }

    /// Prefix length of the blocks that are claimed; `None` for single addresses.
    pub fn block(&self, family: Family) -> Option<u8> {
        match family {
            Family::Ipv4 => self.block,
            Family::Ipv6 => self.block_v6,
        }
    }
}

/// What is claimed. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimSpec {
    /// `ProviderConfig` by name.
    pub provider: String,
    /// `IPAddressPool` by name.
    pub pool: String,
    /// The Service that it is for; `None` for a block.
    pub service: Option<ServiceKey>,
    /// Family.
    pub family: Family,
    /// Kind in the provider's words.
    pub kind: Option<String>,
    /// Where, in the provider's words.
    pub region: Option<String>,
    /// 32 or 128 for one address, less for a block.
    pub prefix_len: u8,
    /// What becomes of it in the end.
    pub reclaim: Reclaim,
}

/// How far a claim has come. Each step is in the journal before what follows from it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimState {
    /// Nothing was asked, or everything that was asked had no effect.
    Wanted,
    /// It was asked for at or after this time; until a list says so, nobody knows whether with effect.
    Sent {
        /// Before the request was sent.
        at: SystemTime,
    },
    /// The provider has it, and it cannot be used yet.
    Pending {
        /// Its id.
        lease: LeaseId,
        /// Its network, once chosen.
        network: Option<IpNet>,
    },
    /// Ours to use: the network is a range of the pool.
    Bound {
        /// Its id.
        lease: LeaseId,
        /// Its network.
        network: IpNet,
    },
    /// Nobody gets it any more; it is given back when no node announces it.
    Releasing {
        /// Its id.
        lease: LeaseId,
        /// Its network, where one was chosen.
        network: Option<IpNet>,
        /// Since when.
        since: SystemTime,
    },
    /// It is ours no longer: deleted at the provider, or another cluster's. No node may announce it.
    Lost {
        /// Its id.
        lease: LeaseId,
        /// Its network, where one was chosen.
        network: Option<IpNet>,
    },
    /// Nobody needs it, and `reclaim` keeps it.
    Retained {
        /// Its id.
        lease: LeaseId,
        /// Its network, where one was chosen.
        network: Option<IpNet>,
    },
}

/// A claim as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub id: ClaimId,
    /// What is claimed.
    pub spec: ClaimSpec,
    /// How far it has come.
    pub state: ClaimState,
    /// What a person must mend for it to go on.
    pub problem: Option<ClaimProblem>,
    /// A person deleted the object; it goes when the address has.
    pub deleting: bool,
}

/// What holds a claim up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimProblem {
    /// In CamelCase, for the condition and the Event.
    pub reason: String,
    /// What is wrong, and the next step.
    pub message: String,
}

impl ClaimState {
    /// The word of the object's status.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Wanted => "Wanted",
            Self::Sent { .. } => "Sent",
            Self::Pending { .. } => "Pending",
            Self::Bound { .. } => "Bound",
            Self::Releasing { .. } => "Releasing",
            Self::Lost { .. } => "Lost",
            Self::Retained { .. } => "Retained",
        }
    }

    /// The lease, where one is known.
    pub fn lease(&self) -> Option<&LeaseId> {
        match self {
            Self::Wanted | Self::Sent { .. } => None,
            Self::Pending { lease, .. }
            | Self::Bound { lease, .. }
            | Self::Releasing { lease, .. }
            | Self::Lost { lease, .. }
            | Self::Retained { lease, .. } => Some(lease),
        }
    }

    /// Its network, where one is known.
    pub fn network(&self) -> Option<IpNet> {
        match self {
            Self::Wanted | Self::Sent { .. } => None,
            Self::Bound { network, .. } => Some(*network),
            Self::Pending { network, .. }
            | Self::Releasing { network, .. }
            | Self::Lost { network, .. }
            | Self::Retained { network, .. } => *network,
        }
    }
}

impl Claim {
    /// The network that plan may give addresses of.
    pub fn usable(&self) -> Option<IpNet> {
        match &self.state {
            ClaimState::Bound { network, .. } if !self.deleting => Some(*network),
            _ => None,
        }
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
