//! What a dead cluster left at a provider: found by the exact mark of the cluster, shown, and released on demand.

use std::collections::BTreeSet;

use super::{AddressSource, Lease, LeaseId, Marks, SourceError};

/// A lease of the dead cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its id.
    pub lease: LeaseId,
    /// Its network, in words.
    pub network: String,
    /// Its marks, each of which is compared again before it is released.
    pub marks: Marks,
    /// What it is assigned to; then it stays.
    pub assigned: Option<String>,
}

/// Leases with the mark of this cluster, whole and unedited. Leases whose marks were edited are not among them.
pub fn left(leases: &[Lease], cluster: &str) -> Vec<Left> {
    let read = |lease: &Lease| {
        let marks = Marks::read(&lease.tags).ok()??;
        let network = lease.network.map_or_else(|| "not granted".into(), |network| network.to_string());
        let (id, assigned) = (lease.id.clone(), lease.assigned.clone());
        (marks.cluster == cluster).then_some(Left { lease: id, network, marks, assigned })
    };
    leases.iter().filter_map(read).collect()
}

/// Marks of other clusters in the list, for whoever mistyped one.
pub fn clusters(leases: &[Lease]) -> BTreeSet<String> {
    leases.iter().filter_map(|lease| Some(Marks::read(&lease.tags).ok()??.cluster)).collect()
}

/// Releases them one by one and tells of each. What fails does not stop the rest.
pub async fn release(
    source: &dyn AddressSource,
    left: &[Left],
    mut tell: impl FnMut(&Left, Result<(), &SourceError>),
) -> usize {
    let mut released = 0;
    for one in left {
        let result = source.release(&one.lease, &one.marks).await;
        released += usize::from(result.is_ok());
        tell(one, result.as_ref().copied());
        if let Err(SourceError::RateLimited { retry_after }) = &result {
            tokio::time::sleep(retry_after.unwrap_or(std::time::Duration::from_secs(1))).await;
        }
    }
    released
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::LeaseState;

    fn lease(id: &str, tags: Vec<String>) -> Lease {
        Lease {
            id: LeaseId(id.into()),
            network: "198.51.100.7/32".parse().ok(),
            state: LeaseState::Ready,
            tags: tags.into_iter().collect(),
            created: None,
            region: None,
            kind: None,
            assigned: None,
        }
    }

    #[test]
    fn only_whole_marks_of_exactly_this_cluster_count() {
        let marks = |cluster: &str| Marks {
            cluster: cluster.into(),
            claim: "ic-0123456789abcdef".parse().expect("an id"),
            pool: "p".into(),
            service: None,
        };
        let mut edited = marks("dead").tags();
        edited.retain(|tag| !tag.starts_with("ironcast-pool"));
        let leases = [
            lease("ours", marks("dead").tags()),
            lease("longer", marks("dead2").tags()),
            lease("edited", edited),
            lease("foreign", vec!["owner=me".into()]),
        ];
        let found: Vec<String> = left(&leases, "dead").into_iter().map(|left| left.lease.0).collect();
        assert_eq!(found, ["ours"]);
        assert_eq!(clusters(&leases), ["dead".to_owned(), "dead2".to_owned()].into());
    }
}
