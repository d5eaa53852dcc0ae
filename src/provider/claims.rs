//! The claim machine of one provider, without I/O: the journal, a complete list and what plan needs in; the next
//! steps out. Each step is safe to lose at any moment: everything that matters is in the journal before it is done.
//!
//! ```text
//!             need                write-ahead           listed, ready
//!  (nothing) ──────▶ Wanted ──────────────────▶ Sent ─────────────────▶ Bound ───┐ not needed, or deleted by hand
//!                      ▲   refused, or settled    │ listed, not ready     ▲      │
//!                      └──without a trace─────────┤                       │      ▼      withdrawn, waited, marks right
//!                                                 └──▶ Pending ───────────┘   Releasing ─────────────────────▶ (gone)
//!                                                                                │ reclaimPolicy: Retain
//!  Bound ── gone at the provider, or another cluster's ──▶ Lost ──▶ (gone)       └──▶ Retained
//! ```
//!
//! * An outcome that is unknown stays `Sent` until a list shows the claim's mark, or a list that began
//!   [`Timing::settle`] after the request does not. A lost answer, a crash and a lease that was lost meanwhile are the
//!   same case.
//! * Where the provider keeps no marks, a lease that came after the request, fits it and is in no record is what the
//!   request made: such an account is one cluster's.
//! * Of several leases with one claim's mark the one in the journal is kept, else the oldest; the others are released.
//! * A lease of this cluster that the journal does not know was made by a predecessor whose journal is lost. It is
//!   written to the journal first: for a Service that needs it, or, once old enough, to be released like any other. So
//!   there is one way only in which an address is given back.
//! * Released is what no Service has, no node announces and nobody needed for [`Timing::withdraw`].
//!
//! Times are those of the clock, since they outlive the process. A clock that is set back makes waits longer.

mod entry;
mod listing;
pub(crate) mod patience;
mod steps;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;

use self::{
    entry::Entry,
    listing::Listing,
    patience::{Random, Retry},
};
use super::{Claimed, Lease, LeaseId, Marking, Marks, Order, SourceError};
use crate::types::{Claim, ClaimId, ClaimProblem, ClaimSpec, ClaimState, Need, PoolProvider};

/// Requests under way at one time; a provider limits them, and one that hangs must not hold up the rest.
const REQUESTS: usize = 4;
/// Journal writes under way at one time.
const WRITES: usize = 256;
/// A request that could not be sent so long after it was written down is written down anew: the settle window counts
/// from there.
const SLACK: Duration = Duration::from_secs(5);
/// Where so many leases and all of them are gone at once, it is the project that is wrong.
const BRAKE: usize = 3;

/// Who claims, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Mark of this cluster.
    pub cluster: String,
    /// `ProviderConfig` by name.
    pub provider: String,
    /// Whether the provider keeps marks.
    pub marking: Marking,
    /// Times.
    pub timing: Timing,
}

/// Times of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From writing a request down until a list must show its effect, if it had one: the request's own deadline, and
    /// what the provider's lists lag behind.
    pub settle: Duration,
    /// From "nobody needs it" to giving it back, for what no node reports to announce.
    pub withdraw: Duration,
    /// Between lists when nothing is awaited.
    pub refresh: Duration,
    /// Between lists when something is.
    pub look: Duration,
    /// First and longest wait after a failure.
    pub patience: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(120),
            withdraw: seconds(30),
            refresh: seconds(300),
            look: seconds(10),
            patience: (seconds(2), seconds(600)),
        }
    }
}

/// What is so in the cluster, as of the newest plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// Addresses that Services lack, the oldest Service first.
    pub needs: Vec<Need>,
    /// Addresses that a Service has, is to get, or has not yet given up.
    pub used: BTreeSet<IpAddr>,
    /// Prefixes that some node says, or may be thought, to announce.
    pub announced: BTreeSet<IpNet>,
    /// Pools that name this provider.
    pub pools: BTreeMap<String, PoolProvider>,
}

/// One step. Whoever takes it tells [`Machine::done`] how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Puts a claim into the journal, durably.
    Write(Claim),
    /// Removes a claim from the journal.
    Forget(ClaimId),
    /// Asks the provider for an address. The claim is in the journal as `Sent`.
    Claim {
        /// For which claim.
        id: ClaimId,
        /// What.
        order: Order,
    },
    /// Asks for one lease.
    Poll {
        /// For which claim.
        id: ClaimId,
        /// Which lease.
        lease: LeaseId,
    },
    /// Puts marks on a lease, or takes ours off.
    Mark {
        /// For which claim.
        id: ClaimId,
        /// Which lease.
        lease: LeaseId,
        /// The marks.
        marks: Option<Marks>,
    },
    /// Gives a lease back.
    Release {
        /// Of which claim.
        id: ClaimId,
        /// Which lease.
        lease: LeaseId,
        /// What its marks must be.
        marks: Marks,
    },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done. A write or a removal that failed has no outcome: the journal is unknown then, and the machine must be
    /// made anew from what it really holds.
    Done,
    /// The answer to [`Action::Claim`].
    Claimed(Claimed),
    /// The answer to [`Action::Poll`].
    Lease(Lease),
    /// It failed.
    Failed(SourceError),
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    entries: BTreeMap<ClaimId, Entry>,
    listing: Option<Listing>,
    /// Leases given back lately: a list that lags must not bring them back.
    tombs: BTreeMap<LeaseId, SystemTime>,
    strays: BTreeMap<LeaseId, Stray>,
    /// The provider as a whole: wrong token, too many requests, away.
    gate: Retry,
    /// Its list, where that alone fails.
    list_retry: Retry,
    problem: Option<ClaimProblem>,
    random: Random,
    /// A list is awaited before its time.
    look: bool,
}

/// A second lease of a claim.
#[derive(Debug, Default)]
struct Stray {
    busy: bool,
    retry: Retry,
}

impl Machine {
    /// A machine that knows what the journal holds; claims of other providers are passed over. `seed` is random: ids of
    /// claims come from it.
    pub fn new(settings: Settings, journal: impl IntoIterator<Item = Claim>, seed: u64) -> Self {
        let ours = journal.into_iter().filter(|claim| claim.spec.provider == settings.provider);
        Self {
            entries: ours.map(|claim| (claim.id, Entry::new(claim))).collect(),
            settings,
            listing: None,
            tombs: BTreeMap::new(),
            strays: BTreeMap::new(),
            gate: Retry::default(),
            list_retry: Retry::default(),
            problem: None,
            random: Random(seed),
            look: false,
        }
    }

    /// What holds up everything at this provider.
    pub fn problem(&self) -> Option<&ClaimProblem> {
        self.problem.as_ref()
    }

    /// The claims as this process knows them to be in the journal.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.entries.values().filter(|entry| entry.recorded).map(|entry| &entry.claim)
    }

    /// Whether this process knows of the claim.
    pub fn has(&self, id: ClaimId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Whether the journal must have this claim: it was written, and nothing about it is under way.
    pub fn keeps(&self, id: ClaimId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.recorded && !entry.busy)
    }

    /// A person deleted the object of this claim.
    pub fn deleted(&mut self, id: ClaimId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.claim.deleting = true;
        }
    }

    /// When the next list is due.
    pub fn list_due(&self) -> SystemTime {
        let timing = &self.settings.timing;
        let until = self.gate.until.max(self.list_retry.until);
        let Some(listing) = &self.listing else { return until };
        let awaits = self.look || self.entries.values().any(Entry::awaits_list);
        let pause = if awaits { timing.look } else { timing.refresh };
        (listing.begun + pause).max(until)
    }

    /// A complete list, begun at this time.
    pub fn listed(&mut self, begun: SystemTime, now: SystemTime, leases: Vec<Lease>) {
        let settle = self.settings.timing.settle;
        self.tombs.retain(|_, released| *released + settle >= begun);
        let leases = leases.into_iter().filter(|lease| !self.tombs.contains_key(&lease.id));
        let mut listing = Listing::new(begun, leases, self.listing.take());
        let present =
            |entry: &&Entry| entry.claim.state.lease().is_some_and(|lease| listing.leases.contains_key(lease));
        let bound: Vec<&Entry> = self.entries.values().filter(|entry| entry.is_bound()).collect();
        let missing = bound.iter().filter(|entry| !present(entry)).count();
        listing.distrusted = missing >= BRAKE && missing == bound.len();
        self.problem = listing.distrusted.then(|| ClaimProblem {
            reason: "AllAddressesMissing".into(),
            message: format!(
                "the provider's list has none of the {missing} addresses of this cluster, so nothing is changed; \
                 correct spec.project and the credentials, or delete the AddressClaims if the addresses are gone"
            ),
        });
        self.strays.retain(|lease, _| listing.leases.contains_key(lease));
        self.listing = Some(listing);
        self.look = false;
        self.gate.success(now);
        self.list_retry.success(now);
    }

    /// The list failed, or may lack something.
    pub fn list_failed(&mut self, now: SystemTime, error: &SourceError) {
        if !self.close_gate(now, error) {
            self.list_retry.fail(now, self.settings.timing.patience, None, &mut self.random);
        }
        self.problem = Some(match error {
            SourceError::Unreadable(_) => ClaimProblem {
                reason: "ListUnreadable".into(),
                message: format!(
                    "{error}; nothing is claimed anew or taken for gone until a complete list can be read: check spec.endpoint"
                ),
            },
            error => problem(error),
        });
    }

    /// What to do now. Every action is under way from here until [`Self::done`].
    pub fn next(&mut self, now: SystemTime, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        self.grant();
        if self.listing.as_ref().is_none_or(|listing| !listing.distrusted) {
            self.adopt(now, world, &mut actions);
            self.open(world, &mut actions);
        }
        self.advance(now, world, &mut actions);
        self.release_strays(now, world, &mut actions);
        actions
    }

    /// How an action ended.
    pub fn done(&mut self, now: SystemTime, action: &Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::Write(claim), Outcome::Done) => self.written(now, claim),
            (Action::Forget(id), _) => {
                if let Some(lease) = self.entries.remove(id).and_then(|entry| entry.claim.state.lease().cloned()) {
                    self.bury(lease, now);
                }
            }
            (Action::Claim { id, .. }, Outcome::Claimed(Claimed::Lease(lease))) => {
                self.gate.success(now);
                self.entry(*id, |entry| entry.granted = Some(lease.id.clone()));
                self.seen(*id, lease);
            }
            (Action::Claim { id, .. }, Outcome::Claimed(Claimed::Accepted)) => self.unknown(*id),
            (Action::Poll { id, .. }, Outcome::Lease(lease)) => {
                self.entry(*id, |entry| entry.since = now);
                self.seen(*id, lease);
            }
            (Action::Mark { id, lease, marks }, Outcome::Done) => self.marked(now, *id, lease, marks.as_ref()),
            (Action::Release { id, lease, .. }, Outcome::Done | Outcome::Failed(SourceError::Gone)) => {
                self.released(now, *id, lease);
            }
            (action, Outcome::Failed(error)) => self.failed(now, action, &error),
            (action, outcome) => unreachable!("{outcome:?} answers no {action:?}"),
        }
    }

    fn entry(&mut self, id: ClaimId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&id) {
            change(entry);
        }
    }

    fn written(&mut self, now: SystemTime, claim: &Claim) {
        self.entry(claim.id, |entry| {
            if entry.claim.state != claim.state {
                entry.since = now;
                entry.granted = None;
                entry.send = matches!(claim.state, ClaimState::Sent { .. });
                if claim.usable().is_some() {
                    entry.retry.success(now);
                }
            }
            let deleting = entry.claim.deleting || claim.deleting;
            entry.claim = Claim { deleting, ..claim.clone() };
            entry.busy = false;
            entry.recorded = true;
        });
    }

    /// The provider told of a lease.
    fn seen(&mut self, id: ClaimId, lease: Lease) {
        self.entry(id, |entry| entry.busy = false);
        if let Some(listing) = &mut self.listing {
            listing.insert(lease);
        }
    }

    /// Nobody knows whether the request had an effect.
    fn unknown(&mut self, id: ClaimId) {
        self.look = true;
        self.entry(id, |entry| entry.busy = false);
    }

    fn marked(&mut self, now: SystemTime, id: ClaimId, lease: &LeaseId, marks: Option<&Marks>) {
        self.entry(id, |entry| {
            entry.busy = false;
            entry.unmarked = marks.is_none();
            entry.retry.success(now);
        });
        if let Some(listing) = &mut self.listing {
            listing.mark(lease, marks);
        }
    }

    fn released(&mut self, now: SystemTime, id: ClaimId, lease: &LeaseId) {
        self.bury(lease.clone(), now);
        self.strays.remove(lease);
        self.entry(id, |entry| {
            if entry.claim.state.lease() == Some(lease) {
                (entry.busy, entry.released) = (false, true);
            }
        });
    }

    /// A lease that is gone, or not ours any more.
    fn bury(&mut self, lease: LeaseId, now: SystemTime) {
        if let Some(listing) = &mut self.listing {
            listing.remove(&lease);
        }
        self.tombs.insert(lease, now);
    }

    fn failed(&mut self, now: SystemTime, action: &Action, error: &SourceError) {
        let concerns_all = self.close_gate(now, error);
        let (patience, random) = (self.settings.timing.patience, &mut self.random);
        let (Action::Claim { id, .. } | Action::Poll { id, .. } | Action::Mark { id, .. } | Action::Release { id, .. }) =
            action
        else {
            unreachable!("the journal fails as a whole: {action:?}")
        };
        let Some(entry) = self.entries.get_mut(id) else { return };
        if let (Action::Release { lease, .. }, SourceError::Ambiguous(_) | SourceError::Unreadable(_)) = (action, error)
        {
            // It may be gone: only a list from now on tells.
            self.look = true;
            if let Some(listing) = &mut self.listing {
                listing.remove(lease);
            }
        }
        if let Action::Release { lease, .. } = action
            && entry.claim.state.lease() != Some(lease)
        {
            if let Some(stray) = self.strays.get_mut(lease) {
                stray.busy = false;
                stray.retry.fail(now, patience, None, random);
            }
            return;
        }
        entry.busy = false;
        if !concerns_all {
            entry.retry.fail(now, patience, None, random);
        }
        match (action, error) {
            (Action::Claim { .. }, SourceError::Ambiguous(_) | SourceError::Unreadable(_)) => self.look = true,
            (Action::Claim { .. }, _) => entry.void = true,
            (_, SourceError::Gone) => entry.gone = true,
            _ => {}
        }
        entry.problem = Some(problem(error));
    }

    /// Waits with everything where the failure is about everything. Returns whether it is.
    fn close_gate(&mut self, now: SystemTime, error: &SourceError) -> bool {
        let asked = match error {
            SourceError::RateLimited { retry_after } | SourceError::Unavailable { retry_after, .. } => *retry_after,
            SourceError::Unauthorized(_) => None,
            // Nothing may be concluded from a list that failed, whyever.
            _ if self.listing.is_none() => None,
            _ => return false,
        };
        self.gate.fail(now, self.settings.timing.patience, asked, &mut self.random);
        self.problem = Some(problem(error));
        true
    }

    fn marks(&self, id: ClaimId, spec: &ClaimSpec) -> Marks {
        marks(&self.settings.cluster, id, spec)
    }
}

/// The marks of a claim.
fn marks(cluster: &str, claim: ClaimId, spec: &ClaimSpec) -> Marks {
    let service = spec.service.as_ref().map(ToString::to_string);
    Marks { cluster: cluster.into(), claim, pool: spec.pool.clone(), service }
}

/// What a person reads of a failure.
pub(super) fn problem(error: &SourceError) -> ClaimProblem {
    let (reason, hint) = match error {
        SourceError::Ambiguous(_) | SourceError::Unreadable(_) => {
            ("OutcomeUnknown", "nothing to do: the provider's list will tell")
        }
        SourceError::Refused { refusal, .. } => (refusal.as_str(), refusal.hint()),
        SourceError::Unauthorized(_) => {
            ("Unauthorized", "put a valid token with write access into the Secret of the ProviderConfig")
        }
        SourceError::RateLimited { .. } => ("RateLimited", "nothing to do but wait"),
        SourceError::Unavailable { .. } => ("ProviderUnavailable", "check the endpoint and the network to it"),
        SourceError::Gone => ("Gone", "nothing to do: another address is claimed"),
        SourceError::Foreign { .. } => (
            "MarksEdited",
            "restore the tags at the provider, or take all ironcast tags off and delete the AddressClaim",
        ),
        SourceError::InUse { .. } => {
            ("StillAssigned", "unassign the address at the provider, so that it can be released")
        }
    };
    ClaimProblem { reason: reason.into(), message: format!("{error}; {hint}") }
}
