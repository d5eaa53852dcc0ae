//! Everything that there is, and what happens to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ironcast_bgp::speaker::ConnectionId;

use super::{
    Mutant,
    api::Api,
    bgp::{Parcel, Router, Wire},
    calls::{Answer, Call},
    checks::Checks,
    clock::Clock,
    daemon::{Daemon, Due, Objects},
    dice::Dice,
    objects::{self, Wish},
};
use crate::{
    provider::{claims::tests::provider::Provider, driver::desk::Brought},
    source::index::Kind,
    types::Set,
};

/// Between two checks of what time alone may break.
const LOOK: Duration = Duration::from_secs(5);

/// A machine of the cluster.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) daemon: Option<Daemon>,
    /// What a predecessor saved.
    pub(super) disk: Objects,
    /// The operator drains it; remembered on disk.
    pub(super) draining: Option<Duration>,
    /// A predecessor of this boot left its mark.
    pub(super) marked: bool,
    pub(super) cordoned: bool,
    /// Its clock is wrong by so many seconds.
    pub(super) skew: i64,
    /// The API server cannot be reached, since when.
    pub(super) api_cut: Option<Duration>,
    /// Since when it can.
    pub(super) api_since: Duration,
    /// Routers that cannot be reached.
    pub(super) cut: BTreeSet<usize>,
    /// Watches that tell nothing for a while.
    pub(super) stalled: BTreeSet<Kind>,
    /// Where packets must be served first: the addresses that are, and whether that is so here.
    pub(super) served: Set<IpAddr>,
    pub(super) gated: bool,
}

#[derive(Debug)]
pub(super) enum Event {
    /// The next thing that people or fate do.
    Chaos,
    /// Something that lasted for a while is over.
    Over(Trouble),
    /// A watch tells of everything up to a version.
    Deliver {
        node: usize,
        process: u64,
        kind: Kind,
        upto: u64,
    },
    /// A watch lists.
    List {
        node: usize,
        process: u64,
        kind: Kind,
    },
    /// The API server has not told everything in time.
    Patience {
        node: usize,
        process: u64,
    },
    /// A task goes on.
    Due {
        node: usize,
        process: u64,
        due: Due,
        at: Duration,
    },
    /// What was served changes.
    Served {
        node: usize,
        process: u64,
    },
    Elect {
        node: usize,
        process: u64,
    },
    Renew {
        node: usize,
        process: u64,
        terms: u64,
    },
    Ask {
        node: usize,
        process: u64,
        terms: u64,
    },
    /// A request arrives at the API server.
    Call {
        node: usize,
        process: u64,
        terms: u64,
        sent: Duration,
        call: Box<Call>,
    },
    Answer {
        node: usize,
        process: u64,
        terms: u64,
        answer: Box<Answer>,
    },
    /// A request arrives at the provider.
    Ordered {
        node: usize,
        process: u64,
        round: u64,
        work: Box<crate::provider::driver::desk::Work>,
    },
    Brought {
        node: usize,
        process: u64,
        round: u64,
        brought: Box<Brought>,
    },
    Start {
        node: usize,
    },
    /// The Node object follows the machine.
    Node {
        node: usize,
    },
    Timer {
        which: usize,
        process: Option<u64>,
        deadline: Instant,
    },
    Dialled {
        node: usize,
        process: u64,
        id: ConnectionId,
        router: usize,
    },
    Parcel {
        wire: usize,
        to: usize,
        parcel: Parcel,
    },
}

/// What does not last.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trouble {
    Api(usize),
    Way(usize, usize),
    Stall(usize, Kind),
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) clock: Clock<Event>,
    pub(super) mutant: Option<Mutant>,
    pub(super) api: Api,
    pub(super) provider: Provider,
    pub(super) hosts: Vec<Host>,
    pub(super) routers: Vec<Router>,
    pub(super) wires: BTreeMap<usize, Wire>,
    pub(super) armed: BTreeMap<(usize, Option<u64>), Instant>,
    pub(super) wishes: BTreeMap<String, Wish>,
    pub(super) serial: u64,
    pub(super) graceful: bool,
    pub(super) hold: u32,
    /// No more faults.
    pub(super) calm: bool,
    /// Things that are still to happen.
    pub(super) left: usize,
    pub(super) checks: Checks,
    looked: Duration,
    pub(super) traced: bool,
    pub(super) log: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, traced: bool) -> Self {
        let (mut dice, clock) = (Dice::new(seed), Clock::new());
        let provider = Provider::new(clock.time(-10_000));
        let (nodes, routers) = (2 + dice.below(4).saturating_sub(dice.below(3)), 1 + dice.below(2));
        let host = |n: usize| Host {
            name: format!("n{n}"),
            up: true,
            daemon: None,
            disk: Objects::new(),
            draining: None,
            marked: false,
            cordoned: false,
            skew: 0,
            api_cut: None,
            api_since: Duration::ZERO,
            cut: BTreeSet::new(),
            stalled: BTreeSet::new(),
            served: Set::default(),
            gated: n % 2 == 1,
        };
        let hosts: Vec<Host> = (0..nodes).map(host).collect();
        let mut world = Self {
            graceful: dice.below(3) > 0,
            hold: [30, 90, 90][dice.below(3)],
            left: 8 + dice.below(12),
            dice,
            clock,
            mutant,
            api: Api::default(),
            provider,
            hosts,
            routers: Vec::new(),
            wires: BTreeMap::new(),
            armed: BTreeMap::new(),
            wishes: BTreeMap::new(),
            serial: 0,
            calm: false,
            checks: Checks::default(),
            looked: Duration::ZERO,
            traced,
            log: Vec::new(),
        };
        world.furnish(routers);
        world
    }

    fn furnish(&mut self, routers: usize) {
        for r in 0..routers {
            let router = Router::new(self, r, self.serial + r as u64);
            self.routers.push(router);
            self.api.put(objects::peer(r, self.hold, self.graceful));
        }
        self.api.put(objects::advertisement());
        self.api.put(objects::provider());
        self.api.put(objects::claimed_pool());
        let [(a, range), (b, other)] = objects::POOLS;
        self.api.put(objects::pool(a, range, true));
        self.api.put(objects::pool(b, other, true));
        for n in 0..self.hosts.len() {
            self.api.put(objects::node(&self.hosts[n].name, n, true, false));
            let wait = self.dice.millis(0, 3000);
            self.clock.after(wait, Event::Start { node: n });
        }
        for _ in 0..2 + self.dice.below(3) {
            self.new_service();
        }
        let wait = self.dice.millis(5_000, 20_000);
        self.clock.after(wait, Event::Chaos);
    }

    pub(super) fn trace(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            self.log.push(format!("{:9.3} {}", self.clock.now.as_secs_f64(), what()));
        }
    }

    /// Lets time pass until then.
    pub(super) fn run(&mut self, until: Duration) -> Result<(), String> {
        while let Some(event) = self.clock.pop(until) {
            self.take(event);
            self.spread();
            if self.clock.now >= self.looked + LOOK {
                self.looked = self.clock.now;
                self.check_time();
            }
            if let Some(violation) = self.checks.violation.take() {
                return Err(violation);
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Chaos => self.chaos(),
            Event::Over(trouble) => self.over(trouble),
            Event::Start { node } => self.start(node),
            Event::Node { node } => self.follow_machine(node),
            Event::Timer { which, process, deadline } => self.timer(which, process, deadline),
            Event::Parcel { wire, to, parcel } => self.parcel(wire, to, parcel),
            Event::Dialled { node, process, id, router } => self.dialled(node, process, id, router),
            Event::Call { node, process, terms, sent, call } => self.arrived(node, process, terms, sent, *call),
            Event::Ordered { node, process, round, work } => self.ordered(node, process, round, *work),
            event => self.take_in_daemon(event),
        }
    }

    /// Events of a process that is gone are nobody's.
    fn take_in_daemon(&mut self, event: Event) {
        match event {
            Event::Deliver { node, process, kind, upto } if self.is(node, process) => self.deliver(node, kind, upto),
            Event::List { node, process, kind } if self.is(node, process) => self.list(node, kind),
            Event::Patience { node, process } if self.is(node, process) => self.patience(node),
            Event::Due { node, process, due, at } if self.is(node, process) => {
                let daemon = self.daemon(node);
                if daemon.due.get(&due) != Some(&at) {
                    return;
                }
                daemon.due.remove(&due);
                match due {
                    Due::Decide => self.decide(node),
                    Due::Announce => self.announce(node),
                    Due::Record => self.record(node),
                    Due::Claims => self.claim(node),
                    Due::Tick => self.tick(node),
                    Due::Report => self.report(node),
                }
            }
            Event::Served { node, process } if self.is(node, process) => self.serve(node),
            Event::Elect { node, process } if self.is(node, process) => self.elect(node),
            Event::Renew { node, process, terms } if self.is(node, process) => self.renew(node, terms),
            Event::Ask { node, process, terms } if self.is(node, process) => self.ask(node, terms),
            Event::Answer { node, process, terms, answer } if self.is(node, process) => {
                self.answered(node, terms, *answer);
            }
            Event::Brought { node, process, round, brought } if self.is(node, process) => {
                self.brought(node, round, *brought);
            }
            _ => {}
        }
    }

    fn is(&self, node: usize, process: u64) -> bool {
        self.hosts[node].daemon.as_ref().is_some_and(|daemon| daemon.process == process)
    }

    pub(super) fn daemon(&mut self, node: usize) -> &mut Daemon {
        self.hosts[node].daemon.as_mut().expect("the event is of a process that runs")
    }

    /// A task goes on after a while, unless it does so already.
    pub(super) fn due(&mut self, node: usize, due: Due, wait: Duration) {
        let Some(daemon) = &mut self.hosts[node].daemon else { return };
        let at = self.clock.now + wait;
        if daemon.due.get(&due).is_none_or(|known| at < *known) {
            daemon.due.insert(due, at);
            let process = daemon.process;
            self.clock.after(wait, Event::Due { node, process, due, at });
        }
    }

    /// Watches tell what changed, each in its own time.
    fn spread(&mut self) {
        if self.api.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.api.changed);
        self.check_record();
        let upto = self.api.version;
        for kind in changed {
            for node in 0..self.hosts.len() {
                let Some(daemon) = &self.hosts[node].daemon else { continue };
                let process = daemon.process;
                let slow = if !self.calm && self.dice.once_in(6) { 3000 } else { 120 };
                let wait = self.dice.millis(1, slow);
                self.clock.after(wait, Event::Deliver { node, process, kind, upto });
            }
        }
    }

    fn start(&mut self, node: usize) {
        let (now, host) = (self.clock.now, &mut self.hosts[node]);
        if !host.up || host.daemon.is_some() {
            return;
        }
        self.serial += 1;
        let process = self.serial;
        host.daemon = Some(Daemon::new(&host.name, process, now, host.marked));
        host.marked = true;
        self.forget_announced(node);
        self.trace(|| format!("n{node}: process {process} starts"));
        for kind in super::daemon::KINDS {
            let wait = self.dice.millis(5, 400);
            self.clock.after(wait, Event::List { node, process, kind });
        }
        self.clock.after(Duration::from_secs(2), Event::Patience { node, process });
    }

    /// The process is gone at once; what it sent is under way.
    pub(super) fn kill(&mut self, node: usize) {
        if self.hosts[node].daemon.take().is_some() {
            self.forget_announced(node);
            self.trace(|| format!("n{node}: killed"));
            self.drop_wires(node, true);
        }
    }

    fn deliver(&mut self, node: usize, kind: Kind, upto: u64) {
        let (host, api) = (&mut self.hosts[node], &self.api);
        let Some(daemon) = &mut host.daemon else { return };
        let Some(told) = daemon.told.get(&kind).copied() else { return };
        if host.api_cut.is_some() || host.stalled.contains(&kind) || told >= upto {
            return;
        }
        for change in api.changes(kind, told, upto) {
            daemon.told(kind, change.version, &change.key, change.object.as_ref());
        }
        daemon.told.insert(kind, upto);
        if daemon.changed {
            self.due(node, Due::Decide, Duration::from_millis(5));
        }
    }

    fn list(&mut self, node: usize, kind: Kind) {
        let process = self.daemon(node).process;
        if self.hosts[node].api_cut.is_some() {
            let wait = self.dice.millis(200, 10_000);
            return self.clock.after(wait, Event::List { node, process, kind });
        }
        let version = self.api.version;
        let objects = self.api.list_at(kind, version);
        self.trace(|| format!("n{node}: lists {kind} at {version}"));
        self.daemon(node).listed(kind, version, objects);
        // What happened since the list is told next.
        let (wait, upto) = (self.dice.millis(1, 500), self.api.version);
        self.clock.after(wait, Event::Deliver { node, process, kind, upto });
        self.due(node, Due::Decide, Duration::from_millis(5));
    }

    /// Follows what became of the machine.
    fn follow_machine(&mut self, node: usize) {
        let host = &self.hosts[node];
        self.api.put(objects::node(&host.name, node, host.up, host.cordoned));
    }
}
