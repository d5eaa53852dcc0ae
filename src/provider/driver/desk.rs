//! One term of leading, without I/O: machines, and which of their steps are under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use tracing::{debug, warn};

use super::told;
use crate::{
    provider::{
        Lease, Marking, SourceError,
        claims::{Action, Machine, Outcome, Settings, Timing},
        world::Facts,
    },
    types::{Claim, ClaimId, ClaimProblem, ProviderConfig},
};

/// What is to be done beside everything else that is under way, each for a provider by name.
#[derive(Debug)]
pub(crate) enum Work {
    /// Ask for the complete list.
    List(String),
    /// Send a request.
    Ask(String, Box<Action>),
    /// Write into the journal, in one batch; no other one is under way.
    Write(Vec<(String, Action)>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Brought {
    /// The batch; a failure leaves the journal unknown.
    Written(Vec<(String, Action)>, Result<(), String>),
    /// A request.
    Answer(String, Box<(Action, Outcome)>),
    /// A list, and when it was begun.
    List(String, SystemTime, Result<Vec<Lease>, SourceError>),
}

/// A provider of this term.
#[derive(Debug)]
pub(crate) struct Account {
    config: ProviderConfig,
    machine: Machine,
    /// What the configuration lacks: nothing is asked then.
    lacks: Option<ClaimProblem>,
    listing: bool,
}

impl Account {
    /// An account of `cluster` with what the journal holds; `marking` is the provider's, or what the configuration lacks.
    pub(crate) fn new(
        cluster: &str,
        config: &ProviderConfig,
        marking: Result<Marking, ClaimProblem>,
        claims: &[Claim],
        seed: u64,
    ) -> Self {
        let (marking, lacks) = match marking {
            Ok(marking) => (marking, None),
            Err(problem) => (Marking::AtClaim, Some(problem)),
        };
        let (cluster, provider) = (cluster.into(), config.name.clone());
        let settings = Settings { cluster, provider, marking, timing: timing(config) };
        let machine = Machine::new(settings, claims.iter().cloned(), seed);
        Self { config: config.clone(), machine, lacks, listing: false }
    }
}

fn timing(config: &ProviderConfig) -> Timing {
    let default = Timing::default();
    let settle: Duration = config.timing.settle.unwrap_or(default.settle);
    Timing {
        settle,
        withdraw: config.timing.withdraw.unwrap_or(default.withdraw),
        refresh: config.timing.refresh.unwrap_or(default.refresh),
        look: default.look.min(settle / 4),
        patience: default.patience,
    }
}

/// The time from a load of the journal to the next.
#[derive(Debug)]
pub(crate) struct Desk {
    accounts: BTreeMap<String, Account>,
    writing: bool,
    /// Claims that were seen in the journal.
    seen: BTreeSet<ClaimId>,
    /// Claims that are over, whatever is still seen of them.
    over: BTreeSet<ClaimId>,
}

impl Desk {
    /// A term with these accounts; `seen` is what was seen of the journal before it was loaded.
    pub(crate) fn new(accounts: BTreeMap<String, Account>, seen: &BTreeSet<ClaimId>) -> Self {
        let mut desk = Self { accounts, writing: false, seen: BTreeSet::new(), over: BTreeSet::new() };
        desk.over = seen.iter().copied().filter(|id| !desk.has(*id)).collect();
        desk
    }

    /// Whether the accounts are those of the facts, and the journal has what was seen in it and nothing that a leader before
    /// this one wrote late; else everything is made anew.
    pub(crate) fn knows(&self, facts: &Facts) -> bool {
        let configs = facts.providers.iter().map(|(name, (config, _))| (name, config));
        configs.eq(self.accounts.iter().map(|(name, account)| (name, &account.config)))
            && !self.seen.difference(&facts.claims).any(|id| self.keeps(*id))
            && facts.claims.iter().all(|id| self.has(*id) || self.over.contains(id))
    }

    fn has(&self, id: ClaimId) -> bool {
        self.accounts.values().any(|account| account.machine.has(id))
    }

    fn keeps(&self, id: ClaimId) -> bool {
        self.accounts.values().any(|account| account.machine.keeps(id))
    }

    /// What to do now. It is under way until [`Self::take`].
    pub(crate) fn advance(&mut self, now: SystemTime, facts: &Facts) -> Vec<Work> {
        let (mut work, mut writes) = (Vec::new(), Vec::new());
        self.over.retain(|id| facts.claims.contains(id));
        let known = facts.claims.iter().chain(&self.seen).copied().filter(|id| self.has(*id));
        self.seen = known.collect();
        for (name, account) in &mut self.accounts {
            let Some((_, world)) = facts.providers.get(name) else { continue };
            facts.deleted.iter().for_each(|id| account.machine.deleted(*id));
            if account.lacks.is_some() {
                continue;
            }
            if !account.listing && account.machine.list_due() <= now {
                account.listing = true;
                work.push(Work::List(name.clone()));
            }
            // One batch of writes at a time: what follows from it is decided on all of it.
            if self.writing {
                continue;
            }
            for action in account.machine.next(now, world) {
                match action {
                    Action::Write(_) | Action::Forget(_) => writes.push((name.clone(), action)),
                    request => work.push(Work::Ask(name.clone(), Box::new(request))),
                }
            }
        }
        if !writes.is_empty() {
            self.writing = true;
            work.push(Work::Write(writes));
        }
        work
    }

    /// Takes what came of it.
    ///
    /// # Errors
    /// The journal is unknown: the term is over.
    pub(crate) fn take(&mut self, now: SystemTime, brought: Brought) -> Result<(), String> {
        match brought {
            Brought::Written(actions, result) => {
                self.writing = false;
                result?;
                for (name, action) in actions {
                    told(&action);
                    if let Action::Forget(id) = &action {
                        self.over.insert(*id);
                    }
                    if let Some(account) = self.accounts.get_mut(&name) {
                        account.machine.done(now, &action, Outcome::Done);
                    }
                }
            }
            Brought::Answer(name, answer) => {
                let (action, outcome) = *answer;
                debug!(provider = name, ?action, ?outcome, "the provider answered");
                if let Some(account) = self.accounts.get_mut(&name) {
                    account.machine.done(now, &action, outcome);
                }
            }
            Brought::List(name, begun, result) => {
                if let Some(account) = self.accounts.get_mut(&name) {
                    account.listed(begun, now, result);
                }
            }
        }
        Ok(())
    }

    /// Whether something is to be given back that no claim tells of, so that it counts who announces what.
    pub(crate) fn has_strays(&self) -> bool {
        self.accounts.values().any(|account| account.machine.has_strays())
    }

    /// What holds up providers, by name.
    pub(crate) fn problems(&self) -> BTreeMap<String, ClaimProblem> {
        let problem = |(name, account): (&String, &Account)| {
            let problem = account.lacks.as_ref().or_else(|| account.machine.problem());
            Some((name.clone(), problem?.clone()))
        };
        self.accounts.iter().filter_map(problem).collect()
    }
}

impl Account {
    fn listed(&mut self, begun: SystemTime, now: SystemTime, result: Result<Vec<Lease>, SourceError>) {
        self.listing = false;
        match result {
            Ok(leases) => self.machine.listed(begun, now, leases),
            Err(error) => {
                warn!(provider = self.config.name, %error, "the provider's addresses cannot be listed");
                self.machine.list_failed(now, &error);
            }
        }
    }
}
