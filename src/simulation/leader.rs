//! What the one does that leads: holds the Lease, records addresses, asks what others announce, keeps the journal.

use std::{collections::BTreeMap, collections::BTreeSet, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::Lease;

use super::{
    Mutant,
    api::Refused,
    calls::Call,
    daemon::{Claims, Due, Scribe},
    steps::backoff,
    world::{Event, World},
};
use crate::{
    provider::{
        Marking,
        driver::desk::{Account, Desk},
    },
    source::{
        index::Object,
        lease::{
            Timing,
            rules::{Attempt, Rules, Term},
        },
        status::record::{Change, Decision},
    },
    types::Claim,
};

/// Between two questions what others announce.
const ASK: Duration = Duration::from_secs(5);

impl World {
    /// Tries to lead.
    pub(super) fn elect(&mut self, node: usize) {
        let sent = self.clock.now;
        let daemon = self.daemon(node);
        if daemon.leads() || std::mem::replace(&mut daemon.electing, true) {
            return;
        }
        self.call(node, Call::ReadLease { sent, renews: false });
    }

    pub(super) fn lease_read(&mut self, node: usize, sent: Duration, renews: bool, found: Option<Option<Lease>>) {
        let now = self.clock.instant();
        let daemon = self.daemon(node);
        if renews {
            return match found.flatten() {
                Some(lease) if daemon.leads() && daemon.election.is_ours(&lease) => {
                    let lease = Box::new(daemon.election.claim(lease));
                    self.call(node, Call::WriteLease { sent, renews, lease });
                }
                _ => self.lost(node),
            };
        }
        let Some(found) = found else { return self.elect_again(node, Duration::from_secs(2)) };
        match daemon.election.attempt(found, now.into()) {
            Attempt::Create(lease) | Attempt::Replace(lease) => {
                self.call(node, Call::WriteLease { sent, renews, lease: Box::new(lease) });
            }
            Attempt::Wait(_, until) => {
                self.elect_again(node, until.into_std().saturating_duration_since(now));
            }
        }
    }

    fn elect_again(&mut self, node: usize, wait: Duration) {
        let daemon = self.daemon(node);
        daemon.electing = false;
        let process = daemon.process;
        self.clock.after(wait, Event::Elect { node, process });
    }

    /// Whoever waits for the Lease looks again.
    pub(super) fn lease_changed(&mut self) {
        for node in 0..self.hosts.len() {
            let host = &self.hosts[node];
            let Some(daemon) = host.daemon.as_ref().filter(|_| host.api_cut.is_none()) else { continue };
            let confirmed = daemon.planned.as_ref().is_some_and(|planned| !planned.snapshot.saved);
            if confirmed && !daemon.leads() && !daemon.electing {
                let process = daemon.process;
                let wait = self.dice.millis(5, 100);
                self.clock.after(wait, Event::Elect { node, process });
            }
        }
    }

    pub(super) fn lease_written(
        &mut self,
        node: usize,
        sent: Duration,
        renews: bool,
        result: Option<Result<Lease, Refused>>,
    ) {
        let (at, timing) = (self.clock.instant(), Timing::default());
        let since = at - (self.clock.now - sent);
        let daemon = self.daemon(node);
        if renews && !daemon.leads() {
            return;
        }
        match result {
            Some(Ok(lease)) => {
                daemon.electing = false;
                daemon.term = Some((lease, Term::since(since.into(), timing)));
                if !renews {
                    daemon.terms += 1;
                    let (name, terms) = (daemon.settings.node.clone(), daemon.terms);
                    self.trace(|| format!("{name}: leads, term {terms}"));
                    self.due(node, Due::Record, Duration::ZERO);
                    self.due(node, Due::Claims, Duration::ZERO);
                }
                self.wake(node);
            }
            Some(Err(_)) if renews => self.call(node, Call::ReadLease { sent: self.clock.now, renews }),
            Some(Err(_)) => self.elect_again(node, Duration::from_millis(20)),
            None if renews => {
                if let Some((_, term)) = &mut daemon.term {
                    term.again(at.into());
                }
                self.wake(node);
            }
            None => self.elect_again(node, Duration::from_millis(20)),
        }
    }

    fn wake(&mut self, node: usize) {
        let daemon = self.daemon(node);
        let (process, terms) = (daemon.process, daemon.terms);
        let Some((_, term)) = &daemon.term else { return };
        let at = term.wake().into_std();
        self.clock.at(at, Event::Renew { node, process, terms });
    }

    pub(super) fn renew(&mut self, node: usize, terms: u64) {
        let (now, sent) = (self.clock.instant(), self.clock.now);
        let daemon = self.daemon(node);
        if daemon.terms != terms {
            return;
        }
        let Some((lease, term)) = &daemon.term else { return };
        if term.is_over(now.into()) {
            return self.lost(node);
        }
        let limit = term.limit(now.into()).into_std() - now;
        let lease = Box::new(daemon.election.claim(lease.clone()));
        self.call(node, Call::WriteLease { sent, renews: true, lease });
        // The limit of an answer may be nearer than that of a request.
        if limit < super::calls::LEASE_DEADLINE {
            let process = self.daemon(node).process;
            self.clock.after(limit, Event::Renew { node, process, terms });
        }
    }

    /// Somebody else leads, or may.
    fn lost(&mut self, node: usize) {
        let daemon = self.daemon(node);
        if daemon.term.take().is_none() {
            return;
        }
        daemon.terms += 1;
        (daemon.scribe, daemon.others, daemon.asking) = (Scribe::default(), None, false);
        self.trace(|| format!("n{node}: leads no longer"));
        self.due(node, Due::Claims, Duration::ZERO);
        self.elect_again(node, Duration::from_millis(100));
    }

    /// Writes what differs between the plan and what it was made of.
    pub(super) fn record(&mut self, node: usize) {
        let now = self.clock.instant().into();
        let daemon = self.daemon(node);
        if !daemon.leads() {
            return;
        }
        if daemon.scribe.busy {
            daemon.scribe.again = true;
            return;
        }
        let Some(planned) = daemon.planned.clone() else { return };
        let record = &mut daemon.scribe.record;
        if !record.is_caught_up() {
            daemon.scribe.busy = true;
            return self.call(node, Call::ListServices);
        }
        if !record.see(&planned.snapshot, now) {
            return self.rest(node);
        }
        let batches = record.due(&planned.snapshot, &planned.desired, now);
        daemon.scribe.batches = batches.into_iter().filter(|batch| !batch.is_empty()).collect();
        (daemon.scribe.busy, daemon.scribe.failed) = (true, false);
        self.next_batch(node);
    }

    fn next_batch(&mut self, node: usize) {
        let scribe = &mut self.daemon(node).scribe;
        if scribe.pending > 0 {
            return;
        }
        let Some(batch) = scribe.batches.pop_front() else { return self.rest(node) };
        scribe.pending = batch.len();
        for change in batch {
            self.call(node, Call::ReadService(change));
        }
    }

    /// Everything was tried; on with what came meanwhile.
    fn rest(&mut self, node: usize) {
        let now = self.clock.instant();
        let scribe = &mut self.daemon(node).scribe;
        (scribe.busy, scribe.pending) = (false, 0);
        let until = scribe.record.waits_until(now.into());
        if std::mem::take(&mut scribe.failed) {
            scribe.failures += 1;
            let wait = backoff(scribe.failures);
            return self.due(node, Due::Record, wait);
        }
        scribe.failures = 0;
        if std::mem::take(&mut scribe.again) {
            self.due(node, Due::Record, Duration::from_millis(1));
        } else if let Some(until) = until {
            let wait = until.into_std().saturating_duration_since(now);
            self.due(node, Due::Record, wait);
        }
    }

    pub(super) fn caught_up(&mut self, node: usize, services: Option<Vec<Rc<Object>>>) {
        let now = self.clock.instant().into();
        let scribe = &mut self.daemon(node).scribe;
        scribe.busy = false;
        match services {
            Some(services) => {
                let service = |object: &Rc<Object>| match &**object {
                    Object::Service(service) => Some((**service).clone()),
                    _ => None,
                };
                let services: Vec<_> = services.iter().filter_map(service).collect();
                scribe.record.catch_up(&services, now);
                self.record(node);
            }
            None => {
                scribe.failed = true;
                self.rest(node);
            }
        }
    }

    pub(super) fn service_read(&mut self, node: usize, change: Change, found: Option<Option<Rc<Object>>>) {
        let decision = match found.as_ref().map(Option::as_deref) {
            None => return self.written(node, true),
            Some(Some(Object::Service(service))) => change.decide(service),
            Some(_) => Decision::Gone,
        };
        match decision {
            Decision::Gone => self.written(node, false),
            Decision::Outdated(now) => self.service_written(node, change, Some(Ok(now))),
            Decision::Write(patch) => self.call(node, Call::PatchService(change, patch)),
        }
    }

    pub(super) fn service_written(
        &mut self,
        node: usize,
        change: Change,
        result: Option<Result<Vec<IpAddr>, Refused>>,
    ) {
        let now = self.clock.instant().into();
        let record = &mut self.daemon(node).scribe.record;
        match result {
            Some(Ok(addresses)) => {
                record.wrote(&change, &addresses, now);
                self.written(node, false);
            }
            Some(Err(Refused::NotFound)) => self.written(node, false),
            Some(Err(Refused::Conflict)) => self.written(node, true),
            None => {
                record.unknown();
                self.written(node, true);
            }
        }
    }

    fn written(&mut self, node: usize, failed: bool) {
        let scribe = &mut self.daemon(node).scribe;
        scribe.failed |= failed;
        scribe.pending -= 1;
        self.next_batch(node);
    }

    /// Asks what others announce, as long as it matters.
    pub(super) fn ask(&mut self, node: usize, terms: u64) {
        let daemon = self.daemon(node);
        if daemon.terms != terms {
            return;
        }
        if daemon.leads() && daemon.asks() {
            return self.call(node, Call::Ask);
        }
        (daemon.asking, daemon.others) = (false, None);
    }

    pub(super) fn asked(&mut self, node: usize, terms: u64, others: Option<BTreeSet<IpNet>>) {
        let daemon = self.daemon(node);
        daemon.others = others;
        let process = daemon.process;
        self.due(node, Due::Claims, Duration::from_millis(1));
        self.clock.after(ASK, Event::Ask { node, process, terms });
    }

    pub(super) fn claims_loaded(&mut self, node: usize, claims: Option<Vec<(Claim, String)>>) {
        let seed = self.dice.0.next();
        let cluster = if self.mutant == Some(Mutant::TakesForOurs) { "other" } else { "ours" };
        let daemon = self.daemon(node);
        let Claims { loading, seen, versions, facts, desk, failures, .. } = &mut daemon.claims;
        *loading = false;
        let (Some(claims), Some(facts)) = (claims, facts) else {
            *failures += 1;
            let wait = backoff(*failures);
            return self.due(node, Due::Claims, wait);
        };
        *versions = claims.iter().map(|(claim, version)| (claim.id, version.clone())).collect();
        let claims: Vec<Claim> = claims.into_iter().map(|(claim, _)| claim).collect();
        let account = |(name, (config, _)): (&String, &(_, _))| {
            (name.clone(), Account::new(cluster, config, Ok(Marking::AtClaim), &claims, seed))
        };
        let facts = Arc::clone(facts);
        let accounts: BTreeMap<String, Account> = facts.providers.iter().map(account).collect();
        if daemon.term.is_some() {
            *desk = Some(Desk::new(accounts, seen));
            self.due(node, Due::Claims, Duration::ZERO);
        }
    }

    /// Lets the Lease go, so that another takes it at once.
    pub(super) fn let_go(&mut self, node: usize) {
        let sent = self.clock.now;
        let Some((lease, _)) = self.daemon(node).term.take() else { return };
        let lease = Box::new(Rules::released(lease));
        self.call(node, Call::WriteLease { sent, renews: false, lease });
    }
}
