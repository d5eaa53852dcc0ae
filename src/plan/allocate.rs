//! Addresses for Services, stable.
//!
//! ```text
//!  keep      recorded addresses stay where they are valid, the oldest Service first
//!  hold back what a Service gives up is nobody's until its record is gone: two records never name one address
//!  fill      what is missing: first who asks for an address, then who has one already, then by age
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use super::{
    Allocated, GaveUp, PendingReason, Settings,
    fill::{self, Refusal},
    ledger::Ledger,
    needs,
    pools::{PoolIndex, Pools},
};
use crate::types::{Family, FamilyPolicy, Need, Service, ServiceKey, Snapshot, family_of};

/// What allocation decided.
pub(super) struct Book<'a> {
    pub(super) outcome: BTreeMap<ServiceKey, Allocated>,
    pub(super) given_up: BTreeMap<ServiceKey, Vec<(IpAddr, GaveUp)>>,
    /// What a provider may have for them.
    pub(super) needs: Vec<Need>,
    /// Services of ours by age, each with the addresses that it should have (none while it waits).
    pub(super) granted: Vec<Granted<'a>>,
}

/// A Service and its addresses.
pub(super) struct Granted<'a> {
    pub(super) service: &'a Service,
    pub(super) addresses: Vec<Grant>,
}

/// An address and the pool that it is of; `None` where the pool's object could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) address: IpAddr,
    pub(super) pool: Option<PoolIndex>,
}

/// A Service on its way through the phases.
pub(super) struct Claimant<'a> {
    pub(super) service: &'a Service,
    /// Families that it wants, in its order.
    pub(super) wanted: Vec<Family>,
    pub(super) grants: Vec<Grant>,
    given_up: Vec<(IpAddr, GaveUp)>,
}

/// Decides who has which address. `services` come by age.
pub(super) fn allocate<'a>(
    snapshot: &'a Snapshot,
    settings: &Settings,
    pools: &'a Pools<'a>,
    services: &[&'a Service],
) -> Book<'a> {
    let mut ledger = Ledger::new(pools, in_use(snapshot));
    let (ours, others): (Vec<&Service>, Vec<&Service>) =
        services.iter().partition(|service| is_ours(service, settings));
    let mut claimants: Vec<Claimant<'_>> = ours.into_iter().map(|s| keep(s, pools, &mut ledger)).collect();
    for claimant in &claimants {
        claimant.given_up.iter().for_each(|(address, _)| ledger.hold_back(*address, &claimant.service.key));
    }
    for service in &others {
        service.assigned.iter().for_each(|address| ledger.hold_back(*address, &service.key));
    }
    let mut book = Book { outcome: BTreeMap::new(), given_up: BTreeMap::new(), needs: Vec::new(), granted: Vec::new() };
    let mut refusals: Vec<Option<Refusal>> = vec![None; claimants.len()];
    for i in turns(&claimants) {
        refusals[i] = fill::fill(&mut claimants[i], pools, &mut ledger).err();
    }
    for (claimant, mut refusal) in claimants.into_iter().zip(refusals) {
        let needs = needs::of(&claimant, pools);
        if !needs.is_empty() {
            refusal = refusal.map(|refusal| needs::explain(refusal, &needs, snapshot));
            book.needs.extend(needs);
        }
        book.close(claimant, refusal, pools);
    }
    for service in others.into_iter().filter(|service| gives_back(service, settings, pools)) {
        book.outcome.insert(service.key.clone(), Allocated::Released);
        let given_up = service.assigned.iter().map(|address| (*address, GaveUp::NotOurs)).collect();
        book.given_up.insert(service.key.clone(), given_up);
    }
    book
}

/// Whether we give this Service its address: a load balancer that stays, of our class.
pub(super) fn is_ours(service: &Service, settings: &Settings) -> bool {
    service.load_balancer && !service.deleting && class_is_ours(service, settings)
}

fn class_is_ours(service: &Service, settings: &Settings) -> bool {
    match &service.class {
        Some(class) => settings.class.as_ref() == Some(class),
        None => settings.unclassed,
    }
}

/// Whether a Service that is not ours any more has an address of ours. Another controller's Services are left
/// alone. Leaving `type: LoadBalancer` clears the class, so there the address itself must tell.
fn gives_back(service: &Service, settings: &Settings, pools: &Pools<'_>) -> bool {
    let was_ours = class_is_ours(service, settings) || (service.class.is_none() && !service.load_balancer);
    let of_pools = |address: &IpAddr| !pools.containing(*address).is_empty();
    match (service.load_balancer, service.assigned.is_empty()) {
        (_, true) => false,
        (true, false) => was_ours,
        (false, false) => was_ours && service.assigned.iter().any(of_pools),
    }
}

/// Addresses that no Service is given: those of nodes and of the routers that we peer with.
fn in_use(snapshot: &Snapshot) -> HashSet<IpAddr> {
    let nodes = snapshot.nodes.values().flat_map(|node| node.addresses.iter().copied());
    nodes.chain(snapshot.peers.values().filter_map(|peer| peer.address)).collect()
}

/// The order of filling: who names an address first, then who has one, then the rest; each by age.
fn turns(claimants: &[Claimant<'_>]) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..claimants.len()).filter(|i| claimants[*i].is_waiting()).collect();
    turns.sort_by_key(|i| {
        let claimant = &claimants[*i];
        (claimant.service.requested_addresses.is_empty(), claimant.grants.is_empty())
    });
    turns
}

fn wanted_families(service: &Service) -> Vec<Family> {
    let mut wanted = Vec::new();
    for family in &service.families {
        if !wanted.contains(family) {
            wanted.push(*family);
        }
    }
    match service.family_policy {
        FamilyPolicy::SingleStack => wanted.truncate(1),
        FamilyPolicy::PreferDualStack => {}
        FamilyPolicy::RequireDualStack => {
            let missing = [Family::Ipv4, Family::Ipv6].into_iter().filter(|family| !service.families.contains(family));
            wanted.extend(missing);
        }
    }
    wanted
}

fn keep<'a>(service: &'a Service, pools: &Pools<'a>, ledger: &mut Ledger<'a>) -> Claimant<'a> {
    let mut claimant = Claimant { service, wanted: wanted_families(service), grants: Vec::new(), given_up: Vec::new() };
    for (i, address) in service.assigned.iter().copied().enumerate() {
        if service.assigned[..i].contains(&address) {
            continue;
        }
        match claimant.may_keep(address, pools, ledger) {
            Ok(pool) => {
                ledger.take(address, service, &pools.offering(address));
                claimant.grants.push(Grant { address, pool });
            }
            Err(why) => claimant.given_up.push((address, why)),
        }
    }
    claimant
}

impl<'a> Claimant<'a> {
    pub(super) fn is_waiting(&self) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|family| !self.has(*family))
    }

    pub(super) fn has(&self, family: Family) -> bool {
        self.grants.iter().any(|grant| family_of(grant.address) == family)
    }

    fn may_keep(&self, address: IpAddr, pools: &Pools<'a>, ledger: &Ledger<'a>) -> Result<Option<PoolIndex>, GaveUp> {
        let family = family_of(address);
        if !self.wanted.contains(&family) || self.has(family) {
            return Err(GaveUp::FamilyNotWanted);
        }
        let mut requested = self.service.requested_addresses.iter().filter(|a| family_of(**a) == family).peekable();
        if requested.peek().is_some() && !requested.any(|requested| *requested == address) {
            return Err(GaveUp::OtherRequested);
        }
        let offering = pools.offering(address);
        let pool = offering.iter().copied().find(|pool| pools.admits(*pool, self.service));
        match (pool, offering.is_empty()) {
            (Some(_), _) => {}
            (None, true) if !pools.refused().is_empty() => {}
            (None, true) => return Err(GaveUp::OutsidePools),
            (None, false) => return Err(GaveUp::PoolRefuses),
        }
        // That a node claims the address is no reason: what is in use would not become better by moving, and a
        // node could take any Service's address away by claiming it.
        ledger.check_sharing(address, self.service).map_err(|_| GaveUp::SharingRefused).map(|()| pool)
    }
}

impl<'a> Book<'a> {
    fn close(&mut self, mut claimant: Claimant<'a>, refusal: Option<Refusal>, pools: &Pools<'_>) {
        let service = claimant.service;
        let outcome = match refusal {
            Some(Refusal { reason, message }) => {
                let why = match reason {
                    PendingReason::NoPool | PendingReason::PoolExhausted | PendingReason::AddressPending => {
                        GaveUp::OtherFamilyMissing
                    }
                    _ => GaveUp::RequestRefused,
                };
                let recorded = claimant.grants.drain(..).filter(|grant| service.assigned.contains(&grant.address));
                claimant.given_up.extend(recorded.map(|grant| (grant.address, why)));
                Allocated::Pending { reason, message }
            }
            None => {
                let wanted = &claimant.wanted;
                let place = |grant: &Grant| wanted.iter().position(|family| *family == family_of(grant.address));
                claimant.grants.sort_by_key(place);
                let unread = || pools.refused().first().map_or_else(String::new, ToString::to_string);
                let pool = claimant.grants.first().and_then(|grant| grant.pool);
                let pool = pool.map_or_else(unread, |pool| pools.pool(pool).name.clone());
                Allocated::Addresses { addresses: claimant.grants.iter().map(|grant| grant.address).collect(), pool }
            }
        };
        self.outcome.insert(service.key.clone(), outcome);
        if !claimant.given_up.is_empty() {
            self.given_up.insert(service.key.clone(), claimant.given_up);
        }
        self.granted.push(Granted { service, addresses: claimant.grants });
    }
}
