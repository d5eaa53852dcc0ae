//! A lease at a provider, and the marks that say whose it is.

use std::{collections::BTreeSet, time::SystemTime};

use ipnet::IpNet;

use super::predecessor;
use crate::types::{ClaimId, Family, LeaseId};

/// An address or block that the provider leases to the project, whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The address (/32, /128) or block; `None` while the provider has not chosen one.
    pub network: Option<IpNet>,
    /// Whether it can be used.
    pub state: LeaseState,
    /// All its tags. A map's entry is `key=value`; a label is split at spaces.
    pub tags: BTreeSet<String>,
    /// Since when, as far as the provider says.
    pub created: Option<SystemTime>,
    /// Where, in the provider's words.
    pub region: Option<String>,
    /// What kind, in the provider's words (`public_ipv4` …).
    pub kind: Option<String>,
    /// What it is assigned to, in the provider's words.
    pub assigned: Option<String>,
}

/// Whether a lease can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// It can.
    Ready,
    /// Not yet: approval, or set-up. In the provider's words.
    Pending(String),
    /// Somebody at the provider said no; it never will.
    Denied(String),
}

/// What to claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Family.
    pub family: Family,
    /// Kind in the provider's words; its usual one for the family where `None`.
    pub kind: Option<String>,
    /// Where, in the provider's words; `None` where the kind has no place.
    pub region: Option<String>,
    /// Length of the prefix: 32 or 128 for one address, less for a block.
    pub prefix_len: u8,
    /// Whose it will be.
    pub marks: Marks,
}

/// What came of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The lease, ready or pending.
    Lease(Lease),
    /// Accepted, but the provider has not said under which id; it shows in a later list.
    Accepted,
}

/// Whether the provider keeps marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marking {
    /// With the request that claims.
    AtClaim,
    /// Not at all: ownership is in the journal alone.
    Never,
}

/// Whose a lease is: every field is compared before it is released.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marks {
    /// UID of the namespace `kube-system`, or the id of the manifests' folder.
    pub cluster: String,
    /// The claim.
    pub claim: ClaimId,
    /// Pool that it was claimed for.
    pub pool: String,
    /// `namespace/name` of the Service that it was claimed for; `None` for blocks and for what is spare.
    pub service: Option<String>,
}

/// Tags that say `ironcast` and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// A key is missing.
    #[error("the mark {0} is missing")]
    Missing(&'static str),
    /// A key is there twice, with different values.
    #[error("there are several marks {0}")]
    Several(&'static str),
    /// The claim's id is none.
    #[error("the mark {CLAIM} has the value {0:?}, which is no id of a claim")]
    Claim(String),
}

const CLUSTER: &str = "ironcast-cluster";
const CLAIM: &str = "ironcast-claim";
const POOL: &str = "ironcast-pool";
const SERVICE: &str = "ironcast-service";

impl Marks {
    /// The keys of our tags.
    pub const KEYS: [&'static str; 4] = [CLUSTER, CLAIM, POOL, SERVICE];

    /// As pairs, for providers with a map.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let service = self.service.iter().map(|service| (SERVICE, service.clone()));
        [(CLUSTER, self.cluster.clone()), (CLAIM, self.claim.to_string()), (POOL, self.pool.clone())]
            .into_iter()
            .chain(service)
            .collect()
    }

    /// As tags `key=value`.
    pub fn tags(&self) -> Vec<String> {
        self.pairs().into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// As one line, for providers with a single label: the tags with a space between.
    pub fn label(&self) -> String {
        self.tags().join(" ")
    }

    /// The tags of a label.
    pub fn split(label: &str) -> BTreeSet<String> {
        label.split_whitespace().map(Into::into).collect()
    }

    /// A lease's tags with these marks, or with none, in place of ours and of the retired controller's; other people's
    /// follow.
    pub fn replaced(tags: &BTreeSet<String>, marks: Option<&Self>) -> Vec<String> {
        let inherited = predecessor::has(tags);
        let ours = |tag: &str| Self::is_mark(tag) || (inherited && predecessor::is_mark(tag));
        marks.into_iter().flat_map(Self::tags).chain(tags.iter().filter(|tag| !ours(tag)).cloned()).collect()
    }

    /// Whether a tag is one of ours, whatever its value.
    pub fn is_mark(tag: &str) -> bool {
        tag.split_once('=').is_some_and(|(key, _)| Self::KEYS.contains(&key))
    }

    /// Reads the marks among a lease's tags; `None` where there are none of ours.
    ///
    /// # Errors
    /// Some are ours, but not all that must be there: somebody edited them.
    pub fn read(tags: &BTreeSet<String>) -> Result<Option<Self>, MarkError> {
        if !tags.iter().any(|tag| Self::is_mark(tag)) {
            return Ok(None);
        }
        let claim = value(tags, CLAIM)?.ok_or(MarkError::Missing(CLAIM))?;
        Ok(Some(Self {
            cluster: value(tags, CLUSTER)?.ok_or(MarkError::Missing(CLUSTER))?.into(),
            claim: claim.parse().map_err(|_| MarkError::Claim(claim.into()))?,
            pool: value(tags, POOL)?.ok_or(MarkError::Missing(POOL))?.into(),
            service: value(tags, SERVICE)?.map(Into::into),
        }))
    }
}

fn value<'a>(tags: &'a BTreeSet<String>, key: &'static str) -> Result<Option<&'a str>, MarkError> {
    let mut values = tags.iter().filter_map(|tag| tag.strip_prefix(key)?.strip_prefix('='));
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(MarkError::Several(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks {
            cluster: "6c5f".into(),
            claim: "ic-0123456789abcdef".parse().expect("an id"),
            pool: "metal".into(),
            service: Some("web/front".into()),
        }
    }

    #[test]
    fn marks_survive_tags_and_labels_among_foreign_tags() {
        let mut tags: BTreeSet<String> = marks().tags().into_iter().collect();
        tags.insert("owner=me".into());
        assert_eq!(Marks::read(&tags), Ok(Some(marks())));
        assert_eq!(Marks::read(&Marks::split(&marks().label())), Ok(Some(marks())));
        assert_eq!(Marks::read(&["owner=me".to_owned()].into()), Ok(None));
    }

    #[test]
    fn an_edited_mark_is_an_error_and_never_no_mark() {
        let without = |key: &str| marks().tags().into_iter().filter(|tag| !tag.starts_with(key)).collect();
        assert_eq!(Marks::read(&without(CLUSTER)), Err(MarkError::Missing(CLUSTER)));
        assert_eq!(Marks::read(&without(CLAIM)), Err(MarkError::Missing(CLAIM)));
        let mut twice: BTreeSet<String> = marks().tags().into_iter().collect();
        twice.insert(format!("{CLUSTER}=other"));
        assert_eq!(Marks::read(&twice), Err(MarkError::Several(CLUSTER)));
        let odd = marks().tags().into_iter().map(|tag| tag.replace("ic-", "xx-")).collect();
        assert!(matches!(Marks::read(&odd), Err(MarkError::Claim(_))));
    }
}
