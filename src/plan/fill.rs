//! New addresses for one Service: what it asks for by name, and the rest from the pools that it may use.
//! Either everything that it must have can be had, or nothing is taken.

use std::net::IpAddr;

use super::{
    PendingReason,
    allocate::{Claimant, Grant},
    ledger::{Ledger, Unfit},
    pools::{PoolIndex, Pools, has_family},
};
use crate::types::{Family, FamilyPolicy, Service, family_of};

/// Why the Service must wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: PendingReason,
    pub(super) message: String,
}

fn refuse<T>(reason: PendingReason, message: String) -> Result<T, Refusal> {
    Err(Refusal { reason, message })
}

/// Gives the Service what it lacks.
pub(super) fn fill<'a>(claimant: &mut Claimant<'a>, pools: &Pools<'a>, ledger: &mut Ledger<'a>) -> Result<(), Refusal> {
    check_request(claimant, pools)?;
    let missing: Vec<Family> = claimant.wanted.iter().copied().filter(|family| !claimant.has(*family)).collect();
    let mut found = Vec::new();
    let mut automatic = Vec::new();
    for family in missing {
        match claimant.service.requested_addresses.iter().find(|address| family_of(**address) == family) {
            Some(address) => found.push(requested(*address, claimant.service, pools, ledger)?),
            None => automatic.push(family),
        }
    }
    found.extend(automatically(claimant, &automatic, !found.is_empty(), pools, ledger)?);
    for grant in found {
        ledger.take(grant.address, claimant.service, &pools.offering(grant.address));
        claimant.grants.push(grant);
    }
    Ok(())
}

/// What is wrong with the request itself, whatever the pools hold.
fn check_request(claimant: &Claimant<'_>, pools: &Pools<'_>) -> Result<(), Refusal> {
    let service = claimant.service;
    if claimant.wanted.is_empty() {
        return refuse(PendingReason::InvalidRequest, "spec.ipFamilies is empty; name IPv4, IPv6 or both".into());
    }
    for (i, address) in service.requested_addresses.iter().enumerate() {
        let family = family_of(*address);
        if !claimant.wanted.contains(&family) {
            let message = format!(
                "it asks for {address}, but its ipFamilies have no {family}; \
                 add the family or ask for an address of one that it has"
            );
            return refuse(PendingReason::InvalidRequest, message);
        }
        if let Some(other) = service.requested_addresses[..i].iter().find(|other| family_of(**other) == family) {
            let message = format!("it asks for {other} and {address}; ask for one {family} address");
            return refuse(PendingReason::InvalidRequest, message);
        }
    }
    if let Some(name) = service.requested_pool.as_ref().filter(|name| pools.named(name).is_none()) {
        let message = format!("it asks for the pool {name:?}, which does not exist; create it or name another");
        return refuse(PendingReason::InvalidRequest, message);
    }
    Ok(())
}

fn requested<'a>(
    address: IpAddr,
    service: &'a Service,
    pools: &Pools<'a>,
    ledger: &Ledger<'a>,
) -> Result<Grant, Refusal> {
    let offering = pools.offering(address);
    let Some(pool) = offering.iter().copied().find(|pool| pools.admits(*pool, service) && !pools.pool(*pool).disabled)
    else {
        return refuse(PendingReason::AddressOutsidePools, outside(address, service, pools, &offering));
    };
    let taken = match ledger.check(address, service) {
        Ok(()) => return Ok(Grant { address, pool: Some(pool) }),
        Err(Unfit::InUse) => {
            format!("the address {address} belongs to a node or a router; ask for another, and take it out of the pool")
        }
        Err(Unfit::Returning(owner)) => {
            format!("the address {address} is on its way back from Service {owner}; nothing to do but wait")
        }
        Err(Unfit::Taken(owner)) => format!(
            "the address {address} belongs to Service {owner}; ask for another, or share it: \
             the same sharing key on both, different ports, and both of policy Cluster or with the same selector"
        ),
    };
    refuse(PendingReason::AddressTaken, taken)
}

fn outside(address: IpAddr, service: &Service, pools: &Pools<'_>, offering: &[PoolIndex]) -> String {
    let containing = pools.containing(address);
    let Some(first) = containing.first() else {
        return format!("the address {address} is in no IPAddressPool; add it to one or ask for another");
    };
    let name = &pools.pool(*first).name;
    if offering.is_empty() {
        return format!(
            "the pool {name} avoids {address} (avoidBuggyIPs); ask for another or switch avoidBuggyIPs off"
        );
    }
    let name = &pools.pool(offering[0]).name;
    match &service.requested_pool {
        Some(wanted) if wanted != name => {
            format!("it asks for the pool {wanted} and for {address} of the pool {name}; drop one of the two")
        }
        _ if pools.pool(offering[0]).disabled => {
            format!("the pool {name} of {address} is disabled; enable it or ask for another address")
        }
        _ => format!(
            "the pool {name} of {address} does not admit the Service; \
             extend its serviceAllocation or ask for another address"
        ),
    }
}

/// One address for every family, as far as the policy insists. `has_other` says that a requested address of
/// another family is found already.
fn automatically<'a>(
    claimant: &Claimant<'a>,
    families: &[Family],
    has_other: bool,
    pools: &Pools<'a>,
    ledger: &mut Ledger<'a>,
) -> Result<Vec<Grant>, Refusal> {
    if families.is_empty() {
        return Ok(Vec::new());
    }
    let service = claimant.service;
    let mut usable = pools.usable(service);
    if let Some(home) = claimant.grants.first().and_then(|grant| grant.pool) {
        usable.sort_by_key(|pool| *pool != home); // both addresses from one pool where it can be
    }
    if let Some(grants) = from_one_pool(service, families, &usable, ledger) {
        return Ok(grants);
    }
    let grants: Vec<Grant> = families
        .iter()
        .filter_map(|family| usable.iter().find_map(|pool| from_pool(service, *family, *pool, ledger)))
        .collect();
    let enough = match service.family_policy {
        FamilyPolicy::PreferDualStack => has_other || !claimant.grants.is_empty() || !grants.is_empty(),
        FamilyPolicy::SingleStack | FamilyPolicy::RequireDualStack => grants.len() == families.len(),
    };
    if enough { Ok(grants) } else { Err(none_left(service, families, &grants, &usable, pools)) }
}

/// All families from one pool: from the first where all can be shared, else from the first that has them.
fn from_one_pool<'a>(
    service: &'a Service,
    families: &[Family],
    usable: &[PoolIndex],
    ledger: &mut Ledger<'a>,
) -> Option<Vec<Grant>> {
    let shared = usable.iter().find_map(|pool| {
        let all = families.iter().map(|family| ledger.shared(*pool, *family, service));
        all.map(|address| Some(Grant { address: address?, pool: Some(*pool) })).collect::<Option<Vec<_>>>()
    });
    shared.or_else(|| {
        usable.iter().find_map(|pool| {
            families.iter().map(|family| from_pool(service, *family, *pool, ledger)).collect::<Option<Vec<_>>>()
        })
    })
}

fn from_pool<'a>(service: &'a Service, family: Family, pool: PoolIndex, ledger: &mut Ledger<'a>) -> Option<Grant> {
    let address = ledger.shared(pool, family, service).or_else(|| ledger.free(pool, family, service))?;
    Some(Grant { address, pool: Some(pool) })
}

fn none_left(
    service: &Service,
    families: &[Family],
    found: &[Grant],
    usable: &[PoolIndex],
    pools: &Pools<'_>,
) -> Refusal {
    let lacks = |family: &&Family| !found.iter().any(|grant| family_of(grant.address) == **family);
    let family = families.iter().find(lacks).expect("something is missing, or there were enough");
    if usable.is_empty() {
        return no_pool(service, pools);
    }
    let names = |pools_of: &[PoolIndex]| -> String {
        pools_of.iter().map(|pool| pools.pool(*pool).name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let with_family: Vec<PoolIndex> =
        usable.iter().copied().filter(|pool| has_family(pools.pool(*pool), *family)).collect();
    if with_family.is_empty() {
        let message = format!("no pool that it may use has {family} addresses ({}); add some", names(usable));
        return Refusal { reason: PendingReason::NoPool, message };
    }
    let message = format!(
        "no free {family} address is left in {}; add addresses to a pool or delete Services",
        names(&with_family)
    );
    Refusal { reason: PendingReason::PoolExhausted, message }
}

fn no_pool(service: &Service, pools: &Pools<'_>) -> Refusal {
    let message = match &service.requested_pool {
        Some(name) if pools.named(name).is_some_and(|pool| pools.pool(pool).disabled) => {
            format!("the pool {name} that it asks for is disabled; enable it or ask for another")
        }
        Some(name) => format!("the pool {name} that it asks for does not admit it; extend its serviceAllocation"),
        None if pools.len() == 0 => "there is no IPAddressPool; create one".into(),
        None => format!(
            "none of the {} pools is given out to it: each is disabled, has autoAssign: false, \
             or does not admit it by serviceAllocation",
            pools.len()
        ),
    };
    Refusal { reason: PendingReason::NoPool, message }
}
