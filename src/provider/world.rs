//! What plan says, sorted by provider.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::claims::World;
use crate::{
    plan::{Allocated, Planned},
    types::{ClaimId, ProviderConfig},
};

/// What a leader claims for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Each valid provider, and what is so for it.
    pub providers: BTreeMap<String, (ProviderConfig, World)>,
    /// Claims of these providers in the journal, as it was seen last.
    pub claims: BTreeSet<ClaimId>,
    /// Claims that people deleted.
    pub deleted: BTreeSet<ClaimId>,
}

/// The facts of the newest plan; `announced` is what nodes say, or may be thought, to announce.
pub fn facts(planned: &Planned, announced: &BTreeSet<IpNet>) -> Facts {
    let (snapshot, desired) = (&planned.snapshot, &planned.desired);
    let recorded = snapshot.services.values().flat_map(|service| service.assigned.iter().copied());
    let granted = desired.allocations.values().flat_map(|allocated| match allocated {
        Allocated::Addresses { addresses, .. } => addresses.as_slice(),
        Allocated::Pending { .. } | Allocated::Released => &[],
    });
    let used: BTreeSet<IpAddr> = recorded.chain(granted.copied()).chain(desired.addresses.iter().copied()).collect();
    let world = |config: &ProviderConfig| {
        let terms = snapshot.pools.iter().filter_map(|(name, pool)| Some((name.clone(), pool.provider.clone()?)));
        let pools: BTreeMap<_, _> = terms.filter(|(_, terms)| terms.name == config.name).collect();
        let needs = desired.needs.iter().filter(|need| pools.contains_key(&need.pool)).cloned().collect();
        World { needs, used: used.clone(), announced: announced.clone(), pools }
    };
    let claims = snapshot.claims.values().filter(|claim| snapshot.providers.contains_key(&claim.spec.provider));
    let deleting = snapshot.claims.values().filter(|claim| claim.deleting);
    Facts {
        providers: snapshot.providers.iter().map(|(name, c)| (name.clone(), (c.clone(), world(c)))).collect(),
        claims: claims.map(|claim| claim.id).collect(),
        deleted: deleting.map(|claim| claim.id).collect(),
    }
}
