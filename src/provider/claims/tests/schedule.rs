//! One random schedule: Services come and go, calls fail, the process dies between any two steps; then calm, and
//! everything must be in order.

use std::time::{Duration, SystemTime};

use super::{cluster::Cluster, provider::Provider};
use crate::{
    provider::{
        LeaseId, Marking,
        claims::{Action, Machine, Outcome, Settings, Timing, patience::Random},
    },
    types::ServiceKey,
};

/// A fault that is put into what surrounds the machine, to see that the schedules find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// No fault: the provider is of those that keep no marks.
    Unmarked,
    ReleaseEarly,
    NoMarks,
    OthersAreOurs,
}

/// What happened, so that a run that tries nothing is seen.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) schedules: u64,
    pub(super) crashes: u64,
    pub(super) ambiguous: u64,
    pub(super) duplicates: u64,
    pub(super) released: u64,
    pub(super) lost: u64,
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.crashes += other.crashes;
        self.ambiguous += other.ambiguous;
        self.duplicates += other.duplicates;
        self.released += other.released;
        self.lost += other.lost;
    }
}

/// An action on its way; then its answer on its way back.
struct Flight {
    action: Action,
    outcome: Option<Outcome>,
}

struct Schedule {
    random: Random,
    now: SystemTime,
    sabotage: Sabotage,
    provider: Provider,
    cluster: Cluster,
    machine: Machine,
    flights: Vec<Flight>,
    /// Requests of a process that died, which may still arrive.
    ghosts: Vec<(SystemTime, Action)>,
    /// A list on its way: begun when, and what it will say.
    list: Option<(SystemTime, Result<Vec<crate::provider::Lease>, crate::provider::SourceError>)>,
    by_hand: std::collections::BTreeSet<std::net::IpAddr>,
    counted: Counted,
    traced: bool,
}

const STEPS: usize = 1000;
const SERVICES: u64 = 5;
/// The longest that a request stays on its way.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn run(seed: u64, sabotage: Sabotage) -> Result<Counted, String> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let mut provider = Provider::new(now - Duration::from_secs(10_000));
    provider.unmarked = sabotage == Sabotage::Unmarked;
    provider.keeps_marks = sabotage != Sabotage::NoMarks && !provider.unmarked;
    let mut schedule = Schedule {
        random: Random(seed),
        now,
        sabotage,
        provider,
        cluster: Cluster::new(now),
        machine: Machine::new(settings(sabotage), [], seed),
        flights: Vec::new(),
        ghosts: Vec::new(),
        list: None,
        by_hand: std::collections::BTreeSet::new(),
        counted: Counted { schedules: 1, ..Counted::default() },
        traced: std::env::var_os("IRONCAST_CLAIM_SEED").is_some(),
    };
    for _ in 0..STEPS {
        schedule.step()?;
    }
    schedule.settle()?;
    schedule.judge()?;
    schedule.counted.ambiguous = schedule.provider.ambiguous;
    schedule.counted.duplicates = schedule.provider.duplicates;
    Ok(schedule.counted)
}

fn settings(sabotage: Sabotage) -> Settings {
    let early = sabotage == Sabotage::ReleaseEarly;
    let withdraw = if early { Duration::ZERO } else { Duration::from_secs(30) };
    let cluster = if sabotage == Sabotage::OthersAreOurs { "other" } else { "ours" };
    Settings {
        cluster: cluster.into(),
        provider: "metal".into(),
        marking: if sabotage == Sabotage::Unmarked { Marking::Never } else { Marking::AtClaim },
        timing: Timing { withdraw, ..Timing::default() },
    }
}

impl Schedule {
    fn below(&mut self, n: u64) -> u64 {
        self.random.next() % n
    }

    fn step(&mut self) -> Result<(), String> {
        match self.below(100) {
            0..3 => self.toggle_service(),
            3..22 => self.now += Duration::from_millis(self.random.next() % 12_000),
            22 => self.crash(),
            23..30 => {
                let node = self.random.next() as usize % self.cluster.nodes.len();
                self.cluster.sync(node, self.now);
            }
            30 => {
                let node = self.random.next() as usize % self.cluster.nodes.len();
                let node = &mut self.cluster.nodes[node];
                // A node is not cut off before its status says what it announces.
                node.cut_off = !node.cut_off && node.reported == node.announces;
            }
            31 if self.below(2) == 0 => {
                if let Some(lease) = self.provider.delete_by_hand(&mut self.random) {
                    self.counted.lost += 1;
                    self.by_hand.extend(lease.network.map(|network| network.addr()));
                }
            }
            32 if self.below(2) == 0 => self.provider.edit_by_hand(&mut self.random),
            33..40 => self.begin_list(),
            40..48 => self.end_list(),
            48..64 => self.next(),
            _ => self.fly()?,
        }
        self.turn()
    }

    /// What goes on by itself.
    fn turn(&mut self) -> Result<(), String> {
        self.provider.turn(self.now);
        self.cluster.record();
        self.cluster.turn(self.now);
        let (due, left) = std::mem::take(&mut self.ghosts).into_iter().partition(|(at, _)| *at <= self.now);
        self.ghosts = left;
        let due: Vec<(SystemTime, Action)> = due;
        for (_, action) in due {
            self.request(&action)?;
        }
        self.check()
    }

    fn toggle_service(&mut self) {
        let name = format!("s{}", self.below(SERVICES));
        let key = ServiceKey::new("ns", name);
        if !self.cluster.services.remove(&key) {
            self.cluster.services.insert(key);
        }
    }

    /// The process dies; what it sent may still arrive.
    fn crash(&mut self) {
        self.trace(|| "killed".into());
        self.counted.crashes += 1;
        for flight in std::mem::take(&mut self.flights) {
            let journal = matches!(flight.action, Action::Write(_) | Action::Forget(_));
            if flight.outcome.is_none() && self.random.next().is_multiple_of(2) {
                match journal {
                    true => self.journal(&flight.action),
                    false => {
                        let late = Duration::from_millis(self.random.next() % DEADLINE.as_millis() as u64);
                        self.ghosts.push((self.now + late, flight.action));
                    }
                }
            }
        }
        self.list = None;
        let journal: Vec<_> = self.cluster.journal.values().cloned().collect();
        let seed = self.random.next();
        self.machine = Machine::new(settings(self.sabotage), journal, seed);
    }

    fn begin_list(&mut self) {
        if self.list.is_none() && self.machine.list_due() <= self.now {
            self.list = Some((self.now, self.provider.list(self.now, &mut self.random)));
        }
    }

    fn end_list(&mut self) {
        match self.list.take() {
            Some((begun, Ok(leases))) => self.machine.listed(begun, self.now, leases),
            Some((_, Err(error))) => self.machine.list_failed(self.now, &error),
            None => {}
        }
    }

    fn next(&mut self) {
        let mut world = self.cluster.world();
        if self.sabotage == Sabotage::ReleaseEarly {
            world.announced.clear();
        }
        let actions = self.machine.next(self.now, &world);
        self.flights.extend(actions.into_iter().map(|action| Flight { action, outcome: None }));
    }

    /// One of the flights arrives, or its answer does.
    fn fly(&mut self) -> Result<(), String> {
        if self.flights.is_empty() {
            return Ok(());
        }
        let i = self.random.next() as usize % self.flights.len();
        if let Some(outcome) = self.flights[i].outcome.take() {
            let flight = self.flights.swap_remove(i);
            self.machine.done(self.now, &flight.action, outcome);
            return Ok(());
        }
        let action = self.flights[i].action.clone();
        if matches!(action, Action::Write(_) | Action::Forget(_)) {
            // A write that fails leaves the journal unknown: whoever drives the machine makes a new one.
            if !self.provider.calm && self.below(200) == 0 {
                self.crash();
                return Ok(());
            }
            self.journal(&action);
            self.flights[i].outcome = Some(Outcome::Done);
            return Ok(());
        }
        self.flights[i].outcome = Some(self.request(&action)?);
        Ok(())
    }

    /// With `IRONCAST_CLAIM_SEED`, what happened.
    fn trace(&self, what: impl Fn() -> String) {
        if self.traced {
            let since = self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            println!("{:.1} {}", since.as_secs_f64() - 1e6, what());
        }
    }

    fn journal(&mut self, action: &Action) {
        self.trace(|| format!("{action:?}"));
        match action {
            Action::Write(claim) => {
                self.cluster.journal.insert(claim.id, claim.clone());
            }
            Action::Forget(id) => {
                self.cluster.journal.remove(id);
            }
            _ => unreachable!("a request"),
        }
    }

    fn request(&mut self, action: &Action) -> Result<Outcome, String> {
        let before = self.provider.leases.clone();
        let outcome = self.provider.take(self.now, action, &mut self.random);
        self.trace(|| format!("{action:?} -> {outcome:?}"));
        for (id, lease) in &before {
            if self.provider.leases.contains_key(id) {
                continue;
            }
            self.counted.released += 1;
            if !self.provider.is_ours(id) {
                return Err(format!("{id} of another cluster was released by {action:?}"));
            }
            if lease.network.is_some_and(|network| self.cluster.announces(network)) {
                return Err(format!("{id} was released while announced"));
            }
        }
        Ok(outcome)
    }

    /// What must hold at every moment.
    fn check(&mut self) -> Result<(), String> {
        if !self.provider.others_are_untouched() {
            return Err("leases of another cluster changed".into());
        }
        let mut addresses: Vec<_> = self.cluster.recorded.values().collect();
        addresses.sort();
        if addresses.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("one address for two Services".into());
        }
        let lost =
            addresses.into_iter().find(|address| !self.provider.has(**address) && !self.by_hand.contains(*address));
        match lost {
            Some(address) => Err(format!("{address} is announced and not held")),
            None => Ok(()),
        }
    }

    /// Calm: no more faults, nobody changes anything, time passes.
    fn settle(&mut self) -> Result<(), String> {
        self.provider.calm_down();
        self.cluster.nodes.iter_mut().for_each(|node| node.cut_off = false);
        for _ in 0..2000 {
            self.now += Duration::from_secs(2);
            self.confirm();
            self.begin_list();
            self.end_list();
            self.next();
            while !self.flights.is_empty() {
                self.fly()?;
            }
            self.turn()?;
            if self.ghosts.is_empty() && self.now_is_quiet() {
                // … and stays so over the settle window and another list.
                return self.watch();
            }
        }
        Ok(())
    }

    /// Where people deleted every address, they say so by deleting the claims.
    fn confirm(&mut self) {
        if self.machine.problem().is_none_or(|problem| problem.reason != "AllAddressesMissing") {
            return;
        }
        for claim in self.cluster.journal.values_mut() {
            claim.deleting = true;
            self.machine.deleted(claim.id);
        }
    }

    fn watch(&mut self) -> Result<(), String> {
        for _ in 0..140 {
            self.now += Duration::from_secs(5);
            self.confirm();
            self.begin_list();
            self.end_list();
            self.next();
            while !self.flights.is_empty() {
                self.fly()?;
            }
            self.turn()?;
        }
        Ok(())
    }

    fn now_is_quiet(&self) -> bool {
        self.cluster.recorded.len() == self.cluster.services.len()
            && self.cluster.journal.len() == self.cluster.services.len()
    }

    /// Every Service has its address, and there is nothing else.
    fn judge(&self) -> Result<(), String> {
        let ours: Vec<&LeaseId> = self.provider.leases.keys().filter(|id| self.provider.is_ours(id)).collect();
        let (wanted, has) = (self.cluster.services.len(), self.cluster.recorded.len());
        let journal: Vec<_> = self.cluster.journal.values().collect();
        match (has == wanted, ours.len() == wanted, journal.len() == wanted) {
            (true, true, true) => Ok(()),
            (false, ..) => Err(format!("{has} of {wanted} Services have an address: {journal:#?}")),
            (_, false, _) => Err(format!("a leak: {} leases for {wanted} Services: {ours:?} {journal:#?}", ours.len())),
            (.., false) => Err(format!("a leak in the journal: {journal:#?}")),
        }
    }
}
