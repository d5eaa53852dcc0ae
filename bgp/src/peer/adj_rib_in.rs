//! What a peer announced, as far as this speaker has to know: for the router role, whose routes outlive a peer's
//! restart, and to count against a maximum.
//!
//! ```text
//!                 session lost                    restart time over           long-lived time over
//!  Fresh ───────────────────────▶ Away ───────────────────────────▶ LongLived ──────────▶ stale routes go
//!    ▲  │ begin of refresh         │ back, its forwarding kept        │ back
//!    │  ▼                          ▼                                  │
//!    └─ Again ◀───────────────────────────────────────────────────────┘
//!       until End-of-RIB or end of refresh, or until it takes too long: stale routes go
//! ```
//!
//! RFC 4724 §4.2 (restart), RFC 9494 §4.3 (long-lived), RFC 7313 §4 (refresh). Each family ages on its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    Community, Family,
    rib::{Attributes, Route},
    session::Negotiated,
    wire::Families,
};

/// A peer that is back, or that began a refresh, has this long to say everything (RFC 4724 §4.2 and RFC 7313 §4
/// leave the bound to us).
const AGAIN: Duration = Duration::from_secs(360);

/// A destination and which of the paths to it.
pub(super) type Path = (IpNet, u32);

/// What becomes of stale routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is gone.
    Withdraw(Path),
    /// It stays, as a last resort.
    Announce(Route, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Age {
    /// What there is was said in this session, or nobody is there.
    #[default]
    Fresh,
    /// The peer restarts.
    Away { until: Instant, long_lived: Option<Duration> },
    /// It is away for longer.
    LongLived { until: Instant },
    /// It says everything again.
    Again { until: Instant, refresh: bool },
}

#[derive(Debug)]
struct Known {
    attributes: Arc<Attributes>,
    /// Not said again since the family aged.
    stale: bool,
}

/// The routes of one peer.
#[derive(Debug, Default)]
pub(super) struct AdjRibIn {
    routes: HashMap<Path, Known>,
    counts: [u32; 2],
    ages: [Age; 2],
}

pub(super) fn family_of(prefix: &IpNet) -> Family {
    if prefix.addr().is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast }
}

const fn at(family: Family) -> usize {
    match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => 1,
    }
}

impl AdjRibIn {
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes of the family there are.
    pub(super) fn count(&self, family: Family) -> u32 {
        self.counts[at(family)]
    }

    /// The peer announced a route. With `most` routes of its family it is taken only in place of another; returns
    /// whether it was.
    pub(super) fn announce(&mut self, path: Path, attributes: Arc<Attributes>, most: Option<u32>) -> bool {
        let count = &mut self.counts[at(family_of(&path.0))];
        match self.routes.entry(path) {
            Entry::Occupied(mut known) => *known.get_mut() = Known { attributes, stale: false },
            Entry::Vacant(_) if most.is_some_and(|most| *count >= most) => return false,
            Entry::Vacant(new) => {
                new.insert(Known { attributes, stale: false });
                *count += 1;
            }
        }
        true
    }

    /// The peer withdrew a route.
    pub(super) fn withdraw(&mut self, path: Path) {
        if self.routes.remove(&path).is_some() {
            self.counts[at(family_of(&path.0))] -= 1;
        }
    }

    /// The session ended and nothing is kept.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The session ended and the peer may be back; what is not kept goes. A second restart ends what the first one
    /// had left (RFC 4724 §4.2).
    pub(super) fn away(&mut self, now: Instant, negotiated: &Negotiated) -> Vec<Change> {
        let mut gone = Vec::new();
        let Some(restart) = negotiated.graceful_restart else { return gone };
        for family in Families::EVERY {
            gone.extend(self.purge(family));
            if restart.families.contains(family) {
                let until = now + Duration::from_secs(restart.seconds.into());
                self.ages[at(family)] = Age::Away { until, long_lived: negotiated.stale_time(family) };
                self.mark(family);
            } else {
                self.mark(family);
                gone.extend(self.purge(family));
            }
        }
        gone
    }

    /// The peer is back. What its new OPEN does not say that it kept goes at once (RFC 4724 §4.2, RFC 9494 §4.3).
    pub(super) fn back(&mut self, now: Instant, negotiated: &Negotiated) -> Vec<Change> {
        let mut gone = Vec::new();
        for family in Families::EVERY {
            let kept = match self.ages[at(family)] {
                Age::Away { .. } => negotiated.graceful_restart.is_some_and(|g| g.forwarding.contains(family)),
                Age::LongLived { .. } => negotiated.long_lived_forwarding.contains(family),
                Age::Fresh | Age::Again { .. } => continue,
            };
            if kept {
                self.ages[at(family)] = Age::Again { until: now + AGAIN, refresh: false };
            } else {
                gone.extend(self.purge(family));
            }
        }
        gone
    }

    /// A family is complete after a restart.
    pub(super) fn end_of_rib(&mut self, family: Family) -> Vec<Change> {
        match self.ages[at(family)] {
            Age::Again { refresh: false, .. } => self.purge(family),
            _ => Vec::new(),
        }
    }

    /// A refresh of a family begins; none counts before the End-of-RIB (RFC 7313 §4). Another beginning begins anew.
    pub(super) fn begin_refresh(&mut self, now: Instant, family: Family) {
        if matches!(self.ages[at(family)], Age::Fresh | Age::Again { refresh: true, .. }) {
            self.ages[at(family)] = Age::Again { until: now + AGAIN, refresh: true };
            self.mark(family);
        }
    }

    /// A refresh of a family ends; without a beginning it says nothing (RFC 7313 §4).
    pub(super) fn end_refresh(&mut self, family: Family) -> Vec<Change> {
        match self.ages[at(family)] {
            Age::Again { refresh: true, .. } => self.purge(family),
            _ => Vec::new(),
        }
    }

    /// When [`AdjRibIn::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ages.iter().filter_map(|age| age.until()).min()
    }

    /// Ends what took too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for family in Families::EVERY {
            let age = self.ages[at(family)];
            match age {
                _ if age.until().is_none_or(|until| until > now) => {}
                Age::Away { long_lived: Some(time), .. } => {
                    self.ages[at(family)] = Age::LongLived { until: now + time };
                    changes.extend(self.depreference(family));
                }
                _ => changes.extend(self.purge(family)),
            }
        }
        changes
    }

    fn mark(&mut self, family: Family) {
        self.routes.iter_mut().filter(|(path, _)| family_of(&path.0) == family).for_each(|(_, r)| r.stale = true);
    }

    /// Stale routes of a family go; in order, so that what is said of them does not depend on a hash.
    fn purge(&mut self, family: Family) -> Vec<Change> {
        self.ages[at(family)] = Age::Fresh;
        let mut gone = self.stale(family);
        gone.iter().for_each(|path| self.withdraw(*path));
        gone.drain(..).map(Change::Withdraw).collect()
    }

    /// RFC 9494 §4.3: stale routes that may live long are marked, the others go.
    fn depreference(&mut self, family: Family) -> Vec<Change> {
        let mut changes = Vec::new();
        for path in self.stale(family) {
            let Some(known) = self.routes.get_mut(&path) else { continue };
            if known.attributes.communities.contains(&Community::NO_LLGR) {
                self.withdraw(path);
                changes.push(Change::Withdraw(path));
                continue;
            }
            let communities = &mut Arc::make_mut(&mut known.attributes).communities;
            if let Err(place) = communities.binary_search(&Community::LLGR_STALE) {
                communities.insert(place, Community::LLGR_STALE);
            }
            let route = Route { prefix: path.0, attributes: known.attributes.clone() };
            changes.push(Change::Announce(route, path.1));
        }
        changes
    }

    fn stale(&self, family: Family) -> Vec<Path> {
        let stale = self.routes.iter().filter(|(path, known)| known.stale && family_of(&path.0) == family);
        let mut paths: Vec<Path> = stale.map(|(path, _)| *path).collect();
        paths.sort_unstable();
        paths
    }
}

#[cfg(test)]
impl AdjRibIn {
    /// What is known, after a check that it is counted rightly.
    pub(super) fn paths(&self) -> std::collections::BTreeSet<Path> {
        for family in Families::EVERY {
            let known = self.routes.keys().filter(|(prefix, _)| family_of(prefix) == family).count();
            assert_eq!(self.count(family) as usize, known);
        }
        self.routes.keys().copied().collect()
    }
}

impl Age {
    fn until(self) -> Option<Instant> {
        match self {
            Self::Fresh => None,
            Self::Away { until, .. } | Self::LongLived { until } | Self::Again { until, .. } => Some(until),
        }
    }
}
