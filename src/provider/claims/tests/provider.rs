//! A provider that loses answers, lags, refuses, and does things twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;

use crate::provider::{
    Claimed, Lease, LeaseId, LeaseState, Marks, Order, Refusal, SourceError,
    claims::{Action, Outcome, patience::Random},
};

/// How long a fresh lease may be missing from lists.
const LAG: u64 = 40;

pub(crate) struct Provider {
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// Asked for, not granted yet: until when, and whether then.
    pending: BTreeMap<LeaseId, (SystemTime, bool)>,
    /// What people edited, as it was.
    edited: BTreeMap<LeaseId, BTreeSet<String>>,
    /// Of another cluster and of people, as they were.
    others: Vec<Lease>,
    next: u32,
    pub(crate) calm: bool,
    pub(crate) keeps_marks: bool,
    /// It never does, and nobody expects any.
    pub(crate) unmarked: bool,
    pub(crate) duplicates: u64,
    pub(crate) ambiguous: u64,
}

fn unavailable<T>() -> Result<T, SourceError> {
    Err(SourceError::Unavailable { message: "502".into(), retry_after: None })
}

impl Provider {
    /// With leases of another cluster and of people.
    pub(crate) fn new(now: SystemTime) -> Self {
        let mut provider = Self {
            leases: BTreeMap::new(),
            pending: BTreeMap::new(),
            edited: BTreeMap::new(),
            others: Vec::new(),
            next: 1,
            calm: false,
            keeps_marks: true,
            unmarked: false,
            duplicates: 0,
            ambiguous: 0,
        };
        for n in 0..3 {
            let claim = crate::types::ClaimId::new(n);
            let marks = Marks { cluster: "other".into(), claim, pool: "p".into(), service: Some(format!("ns/s{n}")) };
            provider.lease(now, marks.tags().into_iter().collect());
        }
        provider.lease(now, ["owner=somebody".to_owned()].into());
        provider.others = provider.leases.values().cloned().collect();
        provider
    }

    fn lease(&mut self, now: SystemTime, tags: BTreeSet<String>) -> Lease {
        let id = LeaseId(format!("l{}", self.next));
        let address = Ipv4Addr::from(0xcb00_7100 + self.next);
        self.next += 1;
        let lease = Lease {
            id: id.clone(),
            network: Some(IpNet::from(std::net::IpAddr::from(address))),
            state: LeaseState::Ready,
            tags,
            created: Some(now),
            region: None,
            kind: None,
            assigned: None,
        };
        self.leases.insert(id, lease.clone());
        lease
    }

    /// Whether the leases of others are there, with their marks as they were.
    pub(crate) fn others_are_untouched(&self) -> bool {
        self.others.iter().all(|lease| self.leases.get(&lease.id) == Some(lease))
    }

    pub(crate) fn is_ours(&self, id: &LeaseId) -> bool {
        !self.others.iter().any(|lease| lease.id == *id)
    }

    pub(crate) fn has(&self, address: std::net::IpAddr) -> bool {
        self.leases.iter().any(|(id, lease)| self.is_ours(id) && lease.network.is_some_and(|n| n.contains(&address)))
    }

    pub(crate) fn turn(&mut self, now: SystemTime) {
        let due: Vec<LeaseId> =
            self.pending.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            let (_, granted) = self.pending.remove(&id).expect("listed");
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.state = if granted { LeaseState::Ready } else { LeaseState::Denied("no".into()) };
            }
        }
    }

    /// Somebody deletes one of our addresses by hand.
    pub(crate) fn delete_by_hand(&mut self, random: &mut Random) -> Option<Lease> {
        let ours: Vec<LeaseId> = self.leases.keys().filter(|id| self.is_ours(id)).cloned().collect();
        let id = ours.get(random.next() as usize % ours.len().max(1))?;
        self.edited.remove(id);
        self.leases.remove(id)
    }

    /// Somebody takes a tag off.
    pub(crate) fn edit_by_hand(&mut self, random: &mut Random) {
        let ours: Vec<LeaseId> = self.leases.keys().filter(|id| self.is_ours(id)).cloned().collect();
        let Some(id) = ours.get(random.next() as usize % ours.len().max(1)) else { return };
        let lease = self.leases.get_mut(id).expect("listed");
        self.edited.entry(id.clone()).or_insert_with(|| lease.tags.clone());
        lease.tags.pop_first();
    }

    /// Whoever edited restores; denied requests are withdrawn by the provider itself.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        for (id, tags) in std::mem::take(&mut self.edited) {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.tags = tags;
            }
        }
        self.pending.values_mut().for_each(|(_, granted)| *granted = true);
        self.leases.values_mut().filter(|lease| matches!(lease.state, LeaseState::Denied(_))).for_each(|lease| {
            lease.state = LeaseState::Ready;
        });
    }

    fn chance(&self, random: &mut Random, percent: u64) -> bool {
        !self.calm && random.next() % 100 < percent
    }

    pub(crate) fn list(&mut self, begun: SystemTime, random: &mut Random) -> Result<Vec<Lease>, SourceError> {
        if self.chance(random, 4) {
            return match random.next() % 3 {
                0 => Err(SourceError::Unauthorized("401".into())),
                1 => Err(SourceError::RateLimited { retry_after: Some(Duration::from_secs(20)) }),
                _ => unavailable(),
            };
        }
        let lags = self.chance(random, 30);
        let fresh = |lease: &&Lease| lags && lease.created.is_some_and(|at| at + Duration::from_secs(LAG) > begun);
        Ok(self.leases.values().filter(|lease| !fresh(lease)).cloned().collect())
    }

    /// The effect of a request, and what its sender hears.
    pub(crate) fn take(&mut self, now: SystemTime, action: &Action, random: &mut Random) -> Outcome {
        let answer = match action {
            Action::Claim { order, .. } => self.claim(now, order, random).map(Outcome::Claimed),
            Action::Poll { lease, .. } => match self.leases.get(lease).cloned() {
                _ if self.chance(random, 15) => unavailable(),
                Some(lease) => Ok(Outcome::Lease(lease)),
                None => Err(SourceError::Gone),
            },
            Action::Mark { lease, marks, .. } => self.mark(lease, marks.as_ref()).map(|()| Outcome::Done),
            Action::Release { lease, marks, .. } => self.release(lease, marks, random).map(|()| Outcome::Done),
            Action::Write(_) | Action::Forget(_) => unreachable!("the journal's"),
        };
        answer.unwrap_or_else(Outcome::Failed)
    }

    fn claim(&mut self, now: SystemTime, order: &Order, random: &mut Random) -> Result<Claimed, SourceError> {
        if self.chance(random, 12) {
            self.ambiguous += 1;
            return Err(SourceError::Ambiguous("500 without effect".into()));
        }
        if self.chance(random, 12) {
            return match random.next() % 4 {
                0 => Err(SourceError::Refused { refusal: Refusal::Quota, message: "full".into() }),
                1 => Err(SourceError::Refused { refusal: Refusal::NoStock, message: "none".into() }),
                2 => Err(SourceError::Unauthorized("expired".into())),
                _ => Err(SourceError::RateLimited { retry_after: None }),
            };
        }
        let tags: BTreeSet<String> =
            if self.keeps_marks { order.marks.tags().into_iter().collect() } else { BTreeSet::new() };
        let mut lease = self.lease(now, tags.clone());
        // A second lease without marks is nobody's.
        if !self.unmarked && self.chance(random, 10) {
            self.duplicates += 1;
            self.lease(now, tags);
        }
        if self.chance(random, 15) {
            lease.state = LeaseState::Pending("approval".into());
            self.leases.insert(lease.id.clone(), lease.clone());
            let until = now + Duration::from_secs(random.next() % 600);
            self.pending.insert(lease.id.clone(), (until, !random.next().is_multiple_of(4)));
        }
        if self.chance(random, 15) {
            self.ambiguous += 1;
            return Err(SourceError::Ambiguous("time-out after the effect".into()));
        }
        if self.chance(random, 5) {
            return Ok(Claimed::Accepted);
        }
        Ok(Claimed::Lease(lease))
    }

    fn mark(&mut self, id: &LeaseId, marks: Option<&Marks>) -> Result<(), SourceError> {
        let lease = self.leases.get_mut(id).ok_or(SourceError::Gone)?;
        lease.tags.retain(|tag| !Marks::is_mark(tag));
        lease.tags.extend(marks.into_iter().flat_map(Marks::tags));
        Ok(())
    }

    fn release(&mut self, id: &LeaseId, expected: &Marks, random: &mut Random) -> Result<(), SourceError> {
        if self.chance(random, 10) {
            return unavailable();
        }
        let Some(lease) = self.leases.get(id) else { return Ok(()) };
        if !self.unmarked && Marks::read(&lease.tags) != Ok(Some(expected.clone())) {
            let found = lease.tags.iter().cloned().collect();
            return Err(SourceError::Foreign { expected: Box::new(expected.clone()), found });
        }
        self.leases.remove(id);
        if self.chance(random, 15) {
            self.ambiguous += 1;
            return Err(SourceError::Ambiguous("time-out after the effect".into()));
        }
        Ok(())
    }
}
