//! What the tasks of a daemon do, in the order in which they do it: plan, announce, report, claim.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ipnet::IpNet;
use ironcast_bgp::{
    net::unnumbered::Links,
    speaker::{Speaker, SpeakerConfig},
};

use super::{
    Mutant,
    calls::Call,
    daemon::{DRAIN_WAIT, Due},
    world::{Event, World},
};
use crate::{
    announce::Ready,
    app::claims::announced_by,
    plan::{Planned, default_router_id},
    provider::{
        driver::desk::{Brought, Work},
        world::facts,
    },
    source::{index::Kind, kubernetes::saved},
};

/// After a restart sessions wait so long for what is not served.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks of the task that claims.
const TICK: Duration = Duration::from_secs(5);

impl World {
    /// The API server is away: what a predecessor saved is used.
    pub(super) fn patience(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let Some(daemon) = &mut host.daemon else { return };
        if daemon.snapshot.is_some() || !host.disk.contains_key(&Kind::Service) {
            return;
        }
        let objects = host.disk.values().flat_map(|objects| objects.values().map(|object| (**object).clone()));
        daemon.snapshot = Some(Arc::new(saved::snapshot(objects)));
        daemon.saved.clone_from(&host.disk);
        self.trace(|| format!("n{node}: goes on with what was saved"));
        self.due(node, Due::Decide, Duration::ZERO);
    }

    /// A snapshot, where something changed, and a plan of it.
    pub(super) fn decide(&mut self, node: usize) {
        let now = self.clock.instant();
        let mutant = self.mutant;
        let host = &mut self.hosts[node];
        let Some(daemon) = &mut host.daemon else { return };
        if daemon.changed {
            host.disk.extend(daemon.view.iter().map(|(kind, objects)| (*kind, objects.clone())));
            if let Some(snapshot) = daemon.index.snapshot() {
                (daemon.snapshot, daemon.changed) = (Some(Arc::new(snapshot)), false);
            }
        }
        let Some(snapshot) = daemon.snapshot.clone() else { return };
        let draining = host.draining.is_some() && mutant != Some(Mutant::ForgetsDrain);
        daemon.exits.turn(draining, &snapshot, &mut daemon.settings, now.into());
        let desired = match mutant {
            Some(mutant) => mutant.plan(&mut daemon.planner, &snapshot, &daemon.settings),
            None => daemon.planner.plan(&snapshot, &daemon.settings),
        };
        let first = daemon.planned.is_none();
        let confirmed = daemon.planned.as_ref().is_some_and(|planned| !planned.snapshot.saved);
        let (saved, process) = (snapshot.saved, daemon.process);
        daemon.planned = Some(Planned { snapshot, desired: Arc::new(desired) });
        if let Some(deadline) = daemon.exits.deadline() {
            let wait = deadline.into_std().saturating_duration_since(now);
            self.due(node, Due::Decide, wait);
        }
        self.check_plan(node);
        if !saved && (first || !confirmed) {
            let wait = self.dice.millis(0, 200);
            self.clock.after(wait, Event::Elect { node, process });
        }
        if first {
            self.due(node, Due::Report, Duration::from_millis(100));
        }
        let wait = self.dice.millis(0, 20);
        self.due(node, Due::Announce, wait);
        if self.daemon(node).leads() {
            self.due(node, Due::Claims, Duration::from_millis(3));
            let wait = self.dice.millis(0, 20);
            self.due(node, Due::Record, wait);
        }
    }

    /// Hands the speaker what changed.
    pub(super) fn announce(&mut self, node: usize) {
        let (now, at) = (self.clock.instant(), self.clock.now);
        let host = &mut self.hosts[node];
        let (gated, served) = (host.gated, host.served.clone());
        let Some(daemon) = &mut host.daemon else { return };
        let Some(planned) = &daemon.planned else { return };
        let desired = planned.desired.clone();
        let ready = if gated { Ready::Only(served.clone()) } else { Ready::All };
        if daemon.speaker.is_none() {
            let all = desired.addresses.iter().all(|address| ready.has(*address));
            if daemon.restarted && !all && at < daemon.since + SERVED_WITHIN + Duration::from_secs(3) {
                self.due(node, Due::Announce, Duration::from_millis(200));
                return self.serve_later(node);
            }
            let router_id = desired.router_id.unwrap_or_else(|| default_router_id(None, &host.name));
            let restarted = daemon.restarted;
            let config = SpeakerConfig { router_id, listen: Vec::new(), restarted, dynamic: Vec::new() };
            daemon.speaker = Some(Speaker::new(&config, false, daemon.process));
        }
        let orders = daemon.announce.turn(desired.clone(), &ready, &Links::default());
        if let Some(speaker) = &mut daemon.speaker {
            if let Some(peers) = orders.peers {
                speaker.set_peers(now, peers);
            }
            if let Some(exports) = orders.exports {
                speaker.set_exports(now, exports);
            }
        }
        if gated && desired.addresses != served {
            self.serve_later(node);
        }
        self.pump_node(node);
        self.check_announced(node);
    }

    fn serve_later(&mut self, node: usize) {
        let process = self.daemon(node).process;
        let wait = self.dice.millis(20, 800);
        self.clock.after(wait, Event::Served { node, process });
    }

    /// The kernel serves what is wanted.
    pub(super) fn serve(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let planned = host.daemon.as_ref().and_then(|daemon| daemon.planned.as_ref());
        let Some(wanted) = planned.map(|planned| planned.desired.addresses.clone()) else { return };
        if host.served != wanted {
            host.served = wanted;
            self.due(node, Due::Announce, Duration::from_millis(1));
        }
    }

    /// What the speaker says of its peers changed.
    pub(super) fn told_by_speaker(&mut self, node: usize) {
        self.due(node, Due::Report, Duration::from_millis(100));
        if self.daemon(node).leads() {
            self.due(node, Due::Claims, Duration::from_millis(3));
        }
        self.note_announced(node);
    }

    /// Says in the node's status what it announces.
    pub(super) fn report(&mut self, node: usize) {
        let daemon = self.daemon(node);
        let routes = daemon.announced.clone();
        if daemon.report.busy || daemon.planned.is_none() || daemon.report.written.is(&routes) {
            return;
        }
        daemon.report.busy = true;
        daemon.report.written.begin();
        self.call(node, Call::Report(routes));
    }

    pub(super) fn reported(&mut self, node: usize, written: Option<BTreeSet<IpNet>>) {
        let report = &mut self.daemon(node).report;
        report.busy = false;
        let wait = match written {
            Some(written) => {
                report.written.done(written);
                report.failures = 0;
                Duration::from_secs(2)
            }
            None => {
                report.failures += 1;
                backoff(report.failures)
            }
        };
        self.due(node, Due::Report, wait);
    }

    /// The facts of the newest plan, and what the desk makes of them.
    pub(super) fn claim(&mut self, node: usize) {
        let (now, mutant) = (self.clock.time(self.hosts[node].skew), self.mutant);
        let daemon = self.daemon(node);
        let Some(planned) = daemon.planned.clone() else { return };
        let own = daemon.announced.iter().copied();
        let mut announced = announced_by(own, daemon.others.clone());
        if mutant == Some(Mutant::ReleasesFirst) {
            announced.clear();
        }
        let facts = Arc::new(facts(&planned, &announced));
        let leads = daemon.leads();
        let ask = leads && daemon.asks() && !daemon.asking;
        let (process, terms) = (daemon.process, daemon.terms);
        daemon.claims.facts = Some(facts.clone());
        let stays = leads && daemon.claims.desk.as_ref().is_some_and(|desk| desk.knows(&facts));
        if ask {
            self.daemon(node).asking = true;
            let wait = self.dice.millis(0, 5000);
            self.clock.after(wait, Event::Ask { node, process, terms });
        }
        if stays {
            return self.advance(node, now);
        }
        let claims = &mut self.daemon(node).claims;
        if claims.desk.take().is_some() {
            claims.round += 1;
        }
        if leads && !claims.loading && !facts.providers.is_empty() {
            (claims.loading, claims.seen) = (true, facts.claims.clone());
            self.call(node, Call::LoadClaims);
        }
    }

    /// What waits for time only.
    pub(super) fn tick(&mut self, node: usize) {
        let now = self.clock.time(self.hosts[node].skew);
        if self.daemon(node).leads() {
            self.advance(node, now);
        }
    }

    fn advance(&mut self, node: usize, now: std::time::SystemTime) {
        let claims = &mut self.daemon(node).claims;
        let round = claims.round;
        let (Some(desk), Some(facts)) = (&mut claims.desk, claims.facts.clone()) else { return };
        let work = desk.advance(now, &facts);
        let process = self.daemon(node).process;
        for work in work {
            match work {
                Work::Write(batch) => self.call(node, Call::Journal(round, batch)),
                work => {
                    let late = if !self.calm && self.dice.once_in(20) { 30_000 } else { 300 };
                    let wait = self.dice.millis(10, late);
                    self.clock.after(wait, Event::Ordered { node, process, round, work: Box::new(work) });
                }
            }
        }
        self.due(node, Due::Tick, TICK);
    }

    /// A request arrives at the provider, whether its sender still lives or not.
    pub(super) fn ordered(&mut self, node: usize, process: u64, round: u64, work: Work) {
        let now = self.clock.time(0);
        self.provider.turn(now);
        let brought = match work {
            Work::List(name) => {
                let begun = self.clock.time(self.hosts[node].skew);
                let list = self.provider.list(now, &mut self.dice.0);
                self.trace(|| format!("n{node}: the provider lists {:?}", list.as_ref().map(Vec::len)));
                Brought::List(name, begun, list)
            }
            Work::Ask(name, action) => {
                let outcome = self.order(&action);
                Brought::Answer(name, Box::new((*action, outcome)))
            }
            Work::Write(_) => unreachable!("the journal is the API server's"),
        };
        let wait = self.dice.millis(10, 200);
        self.clock.after(wait, Event::Brought { node, process, round, brought: Box::new(brought) });
    }

    pub(super) fn brought(&mut self, node: usize, round: u64, brought: Brought) {
        let now = self.clock.time(self.hosts[node].skew);
        let claims = &mut self.daemon(node).claims;
        if claims.round != round {
            return;
        }
        let Some(desk) = &mut claims.desk else { return };
        match desk.take(now, brought) {
            Ok(()) => self.due(node, Due::Claims, Duration::from_millis(1)),
            Err(_) => {
                (claims.desk, claims.round) = (None, claims.round + 1);
                claims.failures += 1;
                let wait = backoff(claims.failures);
                self.due(node, Due::Claims, wait);
            }
        }
    }

    /// How long a node that drains may still announce.
    pub(super) const DRAINED_WITHIN: Duration = DRAIN_WAIT.saturating_add(Duration::from_secs(3));
}

/// The wait after so many failures.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(500).saturating_mul(1 << failures.min(7)).min(Duration::from_secs(30))
}
