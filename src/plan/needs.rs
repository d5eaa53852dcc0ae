//! What Services lack and a provider may have: asked for by pools that name one, never by plan itself.

use std::net::IpAddr;

use super::{PendingReason, allocate::Claimant, fill::Refusal, pools::Pools};
use crate::types::{Claim, Family, Need, Snapshot, family_of};

/// What this Service lacks, each from the best pool that claims addresses of the family.
pub(super) fn of(claimant: &Claimant<'_>, pools: &Pools<'_>) -> Vec<Need> {
    let missing = claimant.wanted.iter().filter(|family| !claimant.has(**family));
    missing.filter_map(|family| need(claimant, pools, *family)).collect()
}

fn need(claimant: &Claimant<'_>, pools: &Pools<'_>, family: Family) -> Option<Need> {
    let service = claimant.service;
    let address = service.requested_addresses.iter().find(|address| family_of(**address) == family).copied();
    // One that is in a pool is refused for a reason that no claim would mend.
    if address.is_some_and(|address: IpAddr| !pools.containing(address).is_empty()) {
        return None;
    }
    let offers = |pool: &usize| pools.pool(*pool).provider.as_ref().is_some_and(|provider| provider.offers(family));
    let pool = pools.usable(service).into_iter().find(offers)?;
    Some(Need { service: service.key.clone(), pool: pools.pool(pool).name.clone(), family, address })
}

/// The refusal of a Service that a provider may help.
pub(super) fn explain(refusal: Refusal, needs: &[Need], snapshot: &Snapshot) -> Refusal {
    if !matches!(refusal.reason, PendingReason::NoPool | PendingReason::PoolExhausted) {
        return refusal;
    }
    let words: Vec<String> =
        needs.iter().filter(|need| need.address.is_none()).map(|need| word(need, snapshot)).collect();
    match words.is_empty() {
        true => refusal,
        false => Refusal { reason: PendingReason::AddressPending, message: words.join("; ") },
    }
}

fn word(need: &Need, snapshot: &Snapshot) -> String {
    let provider = snapshot.pools.get(&need.pool).and_then(|pool| pool.provider.as_ref());
    let name = provider.map_or("", |provider| &provider.name);
    let what = format!("an {} address for the pool {} is being claimed from {name}", need.family, need.pool);
    if !snapshot.providers.contains_key(name) {
        return format!("{what}, but there is no valid ProviderConfig {name}; create or correct it");
    }
    let serves = |claim: &&Claim| {
        let spec = &claim.spec;
        spec.pool == need.pool && spec.family == need.family && spec.service.as_ref().is_none_or(|s| *s == need.service)
    };
    let problem = snapshot.claims.values().filter(serves).find_map(|claim| claim.problem.as_ref());
    match problem {
        Some(problem) => format!("{what}: {} ({})", problem.message, problem.reason),
        None => what,
    }
}
