//! What the machine does next, claim by claim: takes over what the journal lacks, opens claims for what is needed,
//! takes each one a step further, and gives back what is there twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use ipnet::IpNet;

use super::{
    Action, Machine, REQUESTS, WRITES, World,
    entry::{Entry, Here, state_of},
};
use crate::{
    provider::{Lease, LeaseId, Marking, Marks, predecessor},
    types::{Claim, ClaimId, ClaimSpec, ClaimState, Family, Need, Reclaim, ServiceKey, family_of},
};

/// What a claim can serve: one Service, or with a block every Service of the pool.
type Purpose<'a> = (&'a str, Family, Option<&'a ServiceKey>);

impl Machine {
    /// Writes down leases of this cluster that the journal does not know.
    pub(super) fn adopt(&mut self, now: SystemTime, world: &World, actions: &mut Vec<Action>) {
        if self.settings.marking == Marking::Never {
            return;
        }
        let mut claims = self.orphans(now, world);
        claims.extend(self.inherited(world, &claims));
        for claim in claims {
            self.entries.insert(claim.id, Entry::unrecorded(claim.clone()));
            actions.push(Action::Write(claim));
        }
    }

    /// Where nothing is marked: leases that came after a request whose answer nobody knows, that fit it, and that no record
    /// has. Which request made which lease does not matter: those that fit are alike. While another request is under way
    /// its lease may be in the list already, so nobody gets any.
    pub(super) fn grant(&mut self) {
        let Some(listing) = self.listing.as_ref().filter(|listing| !listing.distrusted) else { return };
        if self.settings.marking != Marking::Never || !self.told_apart() {
            return;
        }
        let mut held: BTreeSet<LeaseId> = self.entries.values().filter_map(Entry::holds).cloned().collect();
        let mut asked: Vec<(SystemTime, ClaimId)> =
            self.entries.values().filter_map(|entry| Some((entry.unanswered()?, entry.claim.id))).collect();
        asked.sort_unstable();
        for (at, id) in asked {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let fits = |lease: &&Lease| {
                !held.contains(&lease.id) && is_like(&entry.claim.spec, lease) && listing.is_since(lease, at)
            };
            let oldest =
                listing.leases.values().filter(fits).min_by_key(|lease| (listing.known_since(lease), &lease.id));
            if let Some(lease) = oldest {
                held.insert(lease.id.clone());
                entry.granted = Some(lease.id.clone());
            }
        }
    }

    /// A lease with marks is known by them; one without only when no request is under way.
    fn told_apart(&self) -> bool {
        self.settings.marking != Marking::Never || !self.entries.values().any(Entry::is_asking)
    }

    /// Leases with our marks: for who needs them, or to be released.
    fn orphans(&self, now: SystemTime, world: &World) -> Vec<Claim> {
        let Some(listing) = &self.listing else { return Vec::new() };
        let mut unmet = self.unmet(world);
        let mut found = Vec::new();
        for (id, leases) in listing.claims().filter(|(id, _)| !self.entries.contains_key(id)) {
            let oldest = leases.first().and_then(|lease| listing.leases.get(lease));
            let Some((lease, marks)) = oldest.and_then(|lease| Some((lease, Marks::read(&lease.tags).ok()??))) else {
                continue;
            };
            if marks.cluster != self.settings.cluster {
                continue;
            }
            let need = unmet.iter().position(|need| fits(need, lease, &marks));
            let used = lease.network.is_some_and(|network| overlaps(&world.used, network));
            let aged = listing.known_since(lease) + self.settings.timing.settle <= listing.begun;
            let state = match need {
                Some(need) => {
                    unmet.remove(need);
                    state_of(lease)
                }
                None if used && world.pools.contains_key(&marks.pool) => state_of(lease),
                None if aged => ClaimState::Releasing { lease: lease.id.clone(), network: lease.network, since: now },
                None => continue,
            };
            let spec = self.spec_of(lease, &marks, world);
            found.push(Claim { id, spec, state, problem: None, deleting: false });
        }
        found
    }

    /// Leases of the retired controller, for Services that need them.
    fn inherited(&mut self, world: &World, taken: &[Claim]) -> Vec<Claim> {
        let Some(listing) = &self.listing else { return Vec::new() };
        let cluster = &self.settings.cluster;
        let known: BTreeSet<&LeaseId> = self
            .entries
            .values()
            .map(|entry| &entry.claim)
            .chain(taken)
            .filter_map(|claim| claim.state.lease())
            .collect();
        let old: Vec<&Lease> = listing
            .leases
            .values()
            .filter(|lease| predecessor::is_of(&lease.tags, cluster) && !known.contains(&lease.id))
            .filter(|lease| matches!(Marks::read(&lease.tags), Ok(None)))
            .collect();
        if old.is_empty() {
            return Vec::new();
        }
        let mut left: BTreeMap<&LeaseId, &Lease> = old.into_iter().map(|lease| (&lease.id, lease)).collect();
        let mut found = Vec::new();
        for need in self.unmet(world) {
            let is_taken = taken.iter().any(|claim| serves(&claim.spec, need));
            let matches = |lease: &&&Lease| {
                predecessor::is_for(&lease.tags, &need.service)
                    && lease.network.is_some_and(|network| family_of(network.addr()) == need.family)
                    && need.address.is_none_or(|address| lease.network.is_some_and(|n| n.contains(&address)))
            };
            let Some(id) = left.values().find(matches).map(|lease| lease.id.clone()).filter(|_| !is_taken) else {
                continue;
            };
            let Some(lease) = left.remove(&id) else { continue };
            let Some(mut spec) = spec(&self.settings.provider, need, world) else { continue };
            (spec.service, spec.prefix_len) =
                (Some(need.service.clone()), lease.network.map_or(32, |n| n.prefix_len()));
            let state = ClaimState::Pending { lease: id, network: lease.network };
            found.push(Claim { id: ClaimId::new(self.random.next()), spec, state, problem: None, deleting: false });
        }
        found
    }

    fn spec_of(&self, lease: &Lease, marks: &Marks, world: &World) -> ClaimSpec {
        let terms = world.pools.get(&marks.pool);
        let network = lease.network;
        ClaimSpec {
            provider: self.settings.provider.clone(),
            pool: marks.pool.clone(),
            service: marks.service.as_deref().and_then(service),
            family: network.map_or(Family::Ipv4, |network| family_of(network.addr())),
            kind: terms.and_then(|terms| terms.kind.clone()).or_else(|| lease.kind.clone()),
            region: terms.and_then(|terms| terms.region.clone()).or_else(|| lease.region.clone()),
            prefix_len: network.map_or(32, |network| network.prefix_len()),
            reclaim: terms.map_or(Reclaim::default(), |terms| terms.reclaim),
        }
    }

    /// Needs that no living claim serves.
    fn unmet<'a>(&self, world: &'a World) -> Vec<&'a Need> {
        let living = self.entries.values().filter(|entry| entry.is_alive() && has_room(entry, world));
        let living: Vec<&Entry> = living.collect();
        let single: BTreeSet<Purpose<'_>> = living.iter().map(|entry| purpose(&entry.claim.spec)).collect();
        let mut blocks: BTreeSet<(&str, Family)> = living
            .iter()
            .filter(|entry| entry.claim.spec.service.is_none())
            .map(|entry| (entry.claim.spec.pool.as_str(), entry.claim.spec.family))
            .collect();
        let mut unmet = Vec::new();
        for need in &world.needs {
            let Some(terms) = world.pools.get(&need.pool) else { continue };
            let served = single.contains(&(need.pool.as_str(), need.family, Some(&need.service)));
            match terms.block(need.family) {
                _ if served => {}
                None => unmet.push(need),
                Some(_) if blocks.insert((&need.pool, need.family)) => unmet.push(need),
                Some(_) => {}
            }
        }
        unmet
    }

    /// Writes down a claim for every need that nothing serves.
    pub(super) fn open(&mut self, world: &World, actions: &mut Vec<Action>) {
        // Before the first list nobody knows what is there already; while the provider refuses to list, the record
        // is where people see why.
        if self.listing.is_none() && self.problem.is_none() {
            return;
        }
        let specs: Vec<ClaimSpec> = self
            .unmet(world)
            .into_iter()
            .filter(|need| need.address.is_none())
            .filter_map(|need| spec(&self.settings.provider, need, world))
            .collect();
        for spec in specs.into_iter().take(WRITES) {
            let id = ClaimId::new(self.random.next());
            let problem = if self.listing.is_none() { self.problem.clone() } else { None };
            let claim = Claim { id, spec, state: ClaimState::Wanted, problem, deleting: false };
            self.entries.insert(id, Entry::unrecorded(claim.clone()));
            actions.push(Action::Write(claim));
        }
    }

    /// Takes every claim that nothing is under way for a step further.
    pub(super) fn advance(&mut self, now: SystemTime, world: &World, actions: &mut Vec<Action>) {
        let (needed, told_apart) = (self.needed(world), self.told_apart());
        let mut requests = self.strays.values().filter(|stray| stray.busy).count();
        requests += self.entries.values().filter(|entry| entry.busy && entry.asks).count();
        for (id, entry) in self.entries.iter_mut().filter(|(_, entry)| !entry.busy) {
            let network = entry.claim.state.network();
            let here = Here {
                now,
                settings: &self.settings,
                listing: self.listing.as_ref(),
                open: self.gate.may(now) && requests < REQUESTS,
                told_apart,
                needed: needed.contains(id),
                withdrawn: network.is_none_or(|network| is_withdrawn(world, network)),
                problem: self.problem.as_ref(),
            };
            let Some(action) = entry.step(&here) else { continue };
            let request = !matches!(action, Action::Write(_) | Action::Forget(_));
            requests += usize::from(request);
            (entry.busy, entry.asks) = (true, request);
            actions.push(action);
        }
    }

    /// Claims that a Service needs or has an address of.
    fn needed(&self, world: &World) -> BTreeSet<ClaimId> {
        let mut best: BTreeMap<Purpose<'_>, (u8, ClaimId)> = BTreeMap::new();
        for entry in self.entries.values().filter(|entry| entry.is_alive() && has_room(entry, world)) {
            let rank = (entry.rank(), entry.claim.id);
            best.entry(purpose(&entry.claim.spec)).and_modify(|best| *best = rank.min(*best)).or_insert(rank);
        }
        let in_use = |entry: &&Entry| entry.claim.state.network().is_some_and(|network| overlaps(&world.used, network));
        let mut needed: BTreeSet<ClaimId> = self.entries.values().filter(in_use).map(|entry| entry.claim.id).collect();
        for need in &world.needs {
            let single = best.get(&(need.pool.as_str(), need.family, Some(&need.service)));
            let found = single.or_else(|| best.get(&(need.pool.as_str(), need.family, None)));
            needed.extend(found.map(|(_, id)| *id).filter(|id| self.may_be(*id, need.address)));
        }
        needed
    }

    /// Whether the claim has, or may get, the address that is asked for by name. None is claimed for such a wish, so what
    /// has another address, or no network yet, is of no use to it.
    fn may_be(&self, id: ClaimId, asked: Option<IpAddr>) -> bool {
        let network = self.entries.get(&id).and_then(|entry| entry.claim.state.network());
        asked.is_none_or(|address| network.is_some_and(|network| network.contains(&address)))
    }

    /// Releases leases that carry the mark of a claim that has another one.
    pub(super) fn release_strays(&mut self, now: SystemTime, world: &World, actions: &mut Vec<Action>) {
        if !self.gate.may(now) {
            return;
        }
        for (id, lease, network, marks) in self.strays() {
            if network.is_some_and(|network| !is_withdrawn(world, network)) {
                continue;
            }
            let stray = self.strays.entry(lease.clone()).or_default();
            if !stray.busy && stray.retry.may(now) {
                stray.busy = true;
                actions.push(Action::Release { id, lease, marks });
            }
        }
    }

    /// Whether there is such a lease, so that it counts who announces what.
    pub fn has_strays(&self) -> bool {
        !self.strays().is_empty()
    }

    /// Leases that carry the mark of a claim that has another one, each with its network and its marks.
    fn strays(&self) -> Vec<(ClaimId, LeaseId, Option<IpNet>, Marks)> {
        let Some(listing) = self.listing.as_ref().filter(|listing| !listing.distrusted) else { return Vec::new() };
        let mut strays = Vec::new();
        for (id, leases) in listing.claims() {
            let Some(entry) = self.entries.get(&id).filter(|entry| entry.recorded) else { continue };
            let Some(kept) = entry.claim.state.lease() else { continue };
            if leases.iter().all(|lease| lease == kept) {
                continue;
            }
            let marks = self.marks(id, &entry.claim.spec);
            let others = leases.iter().filter(|lease| *lease != kept).filter_map(|lease| listing.leases.get(lease));
            let ours =
                others.filter(|lease| Marks::read(&lease.tags).is_ok_and(|found| found.as_ref() == Some(&marks)));
            strays.extend(ours.map(|lease| (id, lease.id.clone(), lease.network, marks.clone())));
        }
        strays
    }
}

fn purpose(spec: &ClaimSpec) -> Purpose<'_> {
    (&spec.pool, spec.family, spec.service.as_ref())
}

/// What such a claim asks for, as far as the provider says.
fn is_like(spec: &ClaimSpec, lease: &Lease) -> bool {
    let same = |wanted: &Option<String>, is: &Option<String>| {
        wanted.as_ref().zip(is.as_ref()).is_none_or(|(wanted, is)| wanted.eq_ignore_ascii_case(is))
    };
    let network = |network: IpNet| family_of(network.addr()) == spec.family && network.prefix_len() == spec.prefix_len;
    same(&spec.kind, &lease.kind) && same(&spec.region, &lease.region) && lease.network.is_none_or(network)
}

fn serves(spec: &ClaimSpec, need: &Need) -> bool {
    spec.pool == need.pool && spec.family == need.family && spec.service.as_ref().is_none_or(|s| *s == need.service)
}

/// What plan has not taken from yet, or what is only on its way. An address that was claimed for one Service may be
/// another's by now, which shared it: then it is of no more use to the one.
fn has_room(entry: &Entry, world: &World) -> bool {
    entry.claim.state.network().is_none_or(|network| !overlaps(&world.used, network))
}

fn fits(need: &Need, lease: &Lease, marks: &Marks) -> bool {
    let family = lease.network.is_none_or(|network| family_of(network.addr()) == need.family);
    let address = need.address.is_none_or(|address| lease.network.is_some_and(|network| network.contains(&address)));
    let service = marks.service.as_deref().is_none_or(|service| service == need.service.to_string());
    need.pool == marks.pool && family && address && service
}

fn spec(provider: &str, need: &Need, world: &World) -> Option<ClaimSpec> {
    let terms = world.pools.get(&need.pool)?;
    let block = terms.block(need.family);
    let single = match need.family {
        Family::Ipv4 => 32,
        Family::Ipv6 => 128,
    };
    Some(ClaimSpec {
        provider: provider.into(),
        pool: need.pool.clone(),
        service: block.is_none().then(|| need.service.clone()),
        family: need.family,
        kind: terms.kind.clone(),
        region: terms.region.clone(),
        prefix_len: block.unwrap_or(single),
        reclaim: terms.reclaim,
    })
}

fn service(text: &str) -> Option<ServiceKey> {
    text.split_once('/').map(|(namespace, name)| ServiceKey::new(namespace, name))
}

fn overlaps(addresses: &BTreeSet<IpAddr>, network: IpNet) -> bool {
    addresses.range(network.network()..=network.broadcast()).next().is_some()
}

/// No Service has an address of the network, and no node announces one.
fn is_withdrawn(world: &World, network: IpNet) -> bool {
    let meets = |prefix: &IpNet| prefix.contains(&network) || network.contains(prefix);
    !overlaps(&world.used, network) && !world.announced.iter().any(meets)
}
