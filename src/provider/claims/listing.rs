//! What the provider's list said, kept up with what answers said since.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use crate::{
    provider::{Lease, LeaseId, Marks},
    types::ClaimId,
};

/// The provider's clock may be so far behind ours.
const SKEW: Duration = Duration::from_secs(60);

/// A complete list.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) begun: SystemTime,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    /// By the claim in their marks, the oldest first.
    by_claim: BTreeMap<ClaimId, Vec<LeaseId>>,
    /// When each was first listed: its age where the provider does not say.
    first_seen: BTreeMap<LeaseId, SystemTime>,
    /// When the first list of this process began.
    first: SystemTime,
    /// Every lease of ours is missing, so this is hardly our project.
    pub(super) distrusted: bool,
}

impl Listing {
    pub(super) fn new(begun: SystemTime, leases: impl Iterator<Item = Lease>, before: Option<Self>) -> Self {
        let first = before.as_ref().map_or(begun, |before| before.first);
        let mut first_seen = before.map(|before| before.first_seen).unwrap_or_default();
        let leases: BTreeMap<LeaseId, Lease> = leases.map(|lease| (lease.id.clone(), lease)).collect();
        first_seen.retain(|lease, _| leases.contains_key(lease));
        for lease in leases.keys() {
            first_seen.entry(lease.clone()).or_insert(begun);
        }
        let mut listing = Self { begun, leases, by_claim: BTreeMap::new(), first_seen, first, distrusted: false };
        listing.index();
        listing
    }

    fn index(&mut self) {
        self.by_claim.clear();
        let mut leases: Vec<&Lease> = self.leases.values().collect();
        leases.sort_by_key(|lease| (lease.created.is_none(), lease.created, &lease.id));
        for lease in leases {
            if let Ok(Some(marks)) = Marks::read(&lease.tags) {
                self.by_claim.entry(marks.claim).or_default().push(lease.id.clone());
            }
        }
    }

    pub(super) fn insert(&mut self, lease: Lease) {
        self.first_seen.entry(lease.id.clone()).or_insert(self.begun);
        self.leases.insert(lease.id.clone(), lease);
        self.index();
    }

    pub(super) fn remove(&mut self, lease: &LeaseId) {
        if self.leases.remove(lease).is_some() {
            self.index();
        }
    }

    /// As the provider keeps it after marking.
    pub(super) fn mark(&mut self, id: &LeaseId, marks: Option<&Marks>) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.tags = Marks::replaced(&lease.tags, marks).into_iter().collect();
            self.index();
        }
    }

    /// Leases with this claim's mark, the oldest first.
    pub(super) fn of_claim(&self, id: ClaimId) -> &[LeaseId] {
        self.by_claim.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Claims that leases name.
    pub(super) fn claims(&self) -> impl Iterator<Item = (ClaimId, &[LeaseId])> {
        self.by_claim.iter().map(|(id, leases)| (*id, leases.as_slice()))
    }

    /// Whether the lease has come since this time, as far as lists and the provider's clock tell.
    pub(super) fn is_since(&self, lease: &Lease, at: SystemTime) -> bool {
        let made = lease.created.map(|created| created + SKEW >= at);
        match self.first_seen.get(&lease.id) {
            // A list from before has no such lease.
            Some(seen) if self.first < at => *seen >= at && made != Some(false),
            _ => made == Some(true),
        }
    }

    /// Since when the lease is known to be there.
    pub(super) fn known_since(&self, lease: &Lease) -> SystemTime {
        lease.created.or_else(|| self.first_seen.get(&lease.id).copied()).unwrap_or(self.begun)
    }
}
