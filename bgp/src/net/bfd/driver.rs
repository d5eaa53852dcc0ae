//! What a turn does: send, read, declare.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Arc, PoisonError, TryLockError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{
    Legacy, Shared, Stop, echo,
    link::{Link, Outlet, RETRY, Way},
    receive::Receiver,
    socket::{self, Datagram, Inbox},
    vigil::Role,
    wait::{self, Plan, WARY, Woken},
};
use crate::{
    bfd::{Arrival, Config, Demux, EchoPayload, Packet, Path, Session, State, Unmatched},
    speaker::PeerId,
};

/// How long an orderly end may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is due within this time of something else is sent along with it, as far as jitter allows: one wake-up for many
/// sessions.
const COALESCE: Duration = Duration::from_millis(1);

/// Which receiving socket: family and distance.
const RECEIVERS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

pub(super) struct Driver {
    shared: Arc<Shared>,
    /// A flood was seen: its sockets are watched until then.
    wary_until: Instant,
    inbox: Inbox,
    /// By discriminator.
    links: BTreeMap<u32, Link>,
    demux: Demux<u32>,
    receivers: [Option<Receiver>; 4],
    echo: Option<Receiver>,
    /// Nobody is declared down before: a thread was late, and what delayed it, a stolen virtual CPU above all,
    /// may have delayed the kernel's own receiving as well. What waits in the network card gets the time that
    /// was lost to come through.
    not_before: Instant,
    /// The published sessions are not what is so.
    dirty: bool,
    /// An orderly end is under way and takes until then at most.
    ending: Option<Instant>,
    /// Sessions of a predecessor that nobody has claimed yet.
    legacy: Vec<Legacy>,
}

/// Goes on, or ends.
#[derive(PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    End,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, legacy: Vec<Legacy>) -> Self {
        Self {
            shared,
            wary_until: Instant::now(),
            inbox: Inbox::new(),
            links: BTreeMap::new(),
            demux: Demux::new(),
            receivers: [const { None }; 4],
            echo: None,
            not_before: Instant::now(),
            dirty: false,
            ending: None,
            legacy,
        }
    }

    /// What to wait for.
    pub(super) fn plan(&self) -> Plan {
        let entry = |receiver: &Option<Receiver>| socket::poll_entry(receiver.as_ref().map(|r| &r.socket));
        let [v4, v6, far_v4, far_v6] = self.receivers.each_ref().map(entry);
        let sockets = [v4, v6, far_v4, far_v6, entry(&self.echo)];
        Plan { due: self.deadline(), wary: Instant::now() < self.wary_until, sockets }
    }

    /// Does what there is to do: sends, reads, declares, obeys.
    pub(super) fn turn(&mut self, woken: &Woken, role: Role) -> Next {
        let now = woken.now;
        self.send(now);
        for (index, readable) in woken.readable.into_iter().enumerate() {
            if readable {
                self.read(index);
            }
        }
        if woken.echo {
            self.read_echo();
        }
        self.not_before = self.shared.vigil.not_before(role, now);
        self.declare(now);
        if woken.bell && self.obey(now) == Next::End {
            return Next::End;
        }
        self.tend(now);
        let over = |at: Instant| at <= now || self.links.values().all(Link::may_be_left);
        if !self.ending.is_some_and(over) {
            return Next::Continue;
        }
        self.bequeath(now);
        Next::End
    }

    fn deadline(&self) -> Option<Instant> {
        self.links.values().filter_map(|link| link.deadline(self.not_before)).chain(self.ending).min()
    }

    /// What is due to be sent, before anything else.
    fn send(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            if link.outlet().is_some() && link.session.may_transmit(now, COALESCE) {
                link.session.transmit_early(now, COALESCE);
                self.dirty |= link.flush(now);
            }
        }
    }

    fn read(&mut self, index: usize) {
        let Some(receiver) = &mut self.receivers[index] else { return };
        let multi_hop = receiver.multi_hop;
        let (links, demux, metrics, dirty) = (&mut self.links, &self.demux, &self.shared.metrics, &mut self.dirty);
        let result = receiver.read(&mut self.inbox, |now, received_at, datagram| {
            let Ok(packet) = Packet::decode(datagram.payload) else {
                metrics.malformed.fetch_add(1, Relaxed);
                return;
            };
            match demux.find(&packet.header, &arrival(&datagram, multi_hop)) {
                Ok(discr) => {
                    let Some(link) = links.get_mut(&discr) else { return };
                    match link.session.handle(now, received_at, &packet) {
                        Ok(()) => link.counters.note_received(),
                        Err(_) => link.counters.note_discarded(),
                    }
                    *dirty |= link.flush(now);
                }
                Err(Unmatched::Ttl) => _ = metrics.wrong_ttl.fetch_add(1, Relaxed),
                Err(_) => _ = metrics.unmatched.fetch_add(1, Relaxed),
            }
        });
        match result {
            Ok(packets) if wait::is_flood(packets, links.len()) => self.wary_until = Instant::now() + WARY,
            Ok(_) => {}
            Err(_) => _ = metrics.receive_errors.fetch_add(1, Relaxed),
        }
    }

    fn read_echo(&mut self) {
        let Some(receiver) = &mut self.echo else { return };
        let (links, dirty) = (&mut self.links, &mut self.dirty);
        let result = receiver.read(&mut self.inbox, |now, received_at, datagram| {
            let Some(payload) = echo::payload(datagram.payload) else { return };
            let Some(link) = EchoPayload::discr(payload).and_then(|discr| links.get_mut(&discr)) else { return };
            if link.session.handle_echo(now, received_at, payload) {
                link.counters.note_echo_received();
                *dirty |= link.flush(now);
            }
        });
        if result.is_err() {
            self.shared.metrics.receive_errors.fetch_add(1, Relaxed);
        }
    }

    /// Declares down who has been silent, after everything that waits was read.
    fn declare(&mut self, now: Instant) {
        let not_before = self.not_before;
        let due = |link: &Link| link.verdict(not_before).is_some_and(|at| at <= now);
        if !self.links.values().any(due) {
            return;
        }
        for index in 0..RECEIVERS.len() {
            self.read(index);
        }
        self.read_echo();
        let read = self.receivers.iter().flatten().map(|receiver| receiver.read_until);
        let echo = self.echo.as_ref().map(|receiver| receiver.read_until);
        let until = read.chain(echo).fold(Instant::now(), Instant::min);
        for link in self.links.values_mut().filter(|link| due(link) && silent(link, until)) {
            link.session.handle_timeout(until);
            self.dirty |= link.flush(now);
        }
    }

    /// Takes what a handle wants. A handle that holds the lock now rings behind.
    fn obey(&mut self, now: Instant) -> Next {
        self.shared.bell.silence();
        let commands = match self.shared.commands.try_lock() {
            Ok(mut commands) => std::mem::take(&mut *commands),
            Err(TryLockError::WouldBlock) => return Next::Continue,
            Err(TryLockError::Poisoned(poisoned)) => std::mem::take(&mut *poisoned.into_inner()),
        };
        if let Some(sessions) = commands.sessions.filter(|_| self.ending.is_none()) {
            self.apply(now, sessions);
        }
        match commands.stop {
            None => {}
            Some(Stop::Silent) => return Next::End,
            Some(Stop::Orderly) => {
                self.apply(now, BTreeMap::new());
                self.ending = Some(now + FAREWELL);
            }
            Some(Stop::HandOver { keep, window }) => {
                let patient = |link: &Link| {
                    let config = Config { params: link.config.params.patient(window), ..link.config.clone() };
                    (link.id.clone(), config)
                };
                let kept = self.links.values().filter(|link| !link.leaving && keep.contains(&link.id)).map(patient);
                let kept: BTreeMap<PeerId, Config> = kept.collect();
                self.apply(now, kept);
                self.ending = Some(now + FAREWELL);
            }
        }
        Next::Continue
    }

    /// Leaves what a successor may have. What it may not have says AdminDown, once: better than silence.
    fn bequeath(&mut self, now: Instant) {
        let mut legacy = Vec::new();
        for link in self.links.values_mut().filter(|link| !link.leaving) {
            match link.legacy() {
                Some(left) => legacy.push(left),
                None => {
                    leave(link, now, &mut self.demux);
                    link.flush(now);
                }
            }
        }
        *self.shared.legacy.lock().unwrap_or_else(PoisonError::into_inner) = legacy;
    }

    /// Makes the links those of `wanted`.
    fn apply(&mut self, now: Instant, mut wanted: BTreeMap<PeerId, Config>) {
        for link in self.links.values_mut().filter(|link| !link.leaving) {
            match wanted.entry(link.id.clone()) {
                Entry::Occupied(entry) if entry.get().endpoint == link.config.endpoint => {
                    let config = Link::effective(entry.remove());
                    link.session.set_params(now, config.params.clone());
                    link.config = config;
                    open_echo(&mut self.echo, link, now);
                }
                _ => leave(link, now, &mut self.demux),
            }
            self.dirty |= link.flush(now);
        }
        for (id, config) in wanted {
            let config = Link::effective(config);
            let seed =
                socket::random().unwrap_or_else(|_| u64::from(std::process::id()) << 32 | self.links.len() as u64);
            let left = self.legacy.iter().position(|left| left.peer == id).map(|at| self.legacy.swap_remove(at));
            let left = left.filter(|left| left.endpoint == config.endpoint);
            let left = left.filter(|left| !self.links.contains_key(&left.handover.local_discr.0.get()));
            let mut words = [seed as u32, (seed >> 32) as u32].into_iter().chain(1..);
            let (params, seed) = (config.params.clone(), seed.rotate_left(17));
            let session = match &left {
                Some(left) => Session::resume(now, params, seed, &left.handover),
                None => Session::new(now, self.demux.free(|| words.next().unwrap_or(1)), params, seed),
            };
            let port = left.map(|left| left.source_port);
            self.links.insert(session.discr().0.get(), Link::new(id, config, session, port, now));
        }
        self.dirty = true;
    }

    /// Opens what is closed, drops what has said its last word, publishes what has changed.
    fn tend(&mut self, now: Instant) {
        let due = |link: &Link| matches!(link.way, Way::Closed { retry_at, .. } if retry_at <= now);
        while let Some(discr) = self.links.iter().find(|(_, link)| due(link)).map(|(discr, _)| *discr) {
            self.open(discr, now);
        }
        if self.links.values().any(gone) {
            self.links.retain(|_, link| !gone(link));
            self.dirty = true;
        }
        // Where the herald holds the lock now, the next turn tries again.
        if self.dirty
            && let Ok(mut news) = self.shared.news.try_lock()
        {
            let live = self.links.values().filter(|link| !link.leaving);
            let before = news.replace(Arc::new(live.map(|link| (link.id.clone(), link.publish())).collect()));
            drop((news, before));
            self.shared.herald.ring();
            self.dirty = false;
        }
    }

    fn open(&mut self, discr: u32, now: Instant) {
        let result = self.try_open(discr, now);
        let Some(link) = self.links.get_mut(&discr) else { return };
        self.dirty = true;
        let outlet = match result {
            Ok(outlet) => outlet,
            Err(error) => {
                let problem = format!("BFD with {} at {}: {error}; trying again", link.id, link.config.endpoint.peer);
                link.way = Way::Closed { problem: problem.into(), retry_at: now + RETRY };
                return;
            }
        };
        let endpoint = &link.config.endpoint;
        self.demux.remove(link.session.discr());
        self.demux.insert(discr, link.session.discr(), endpoint.peer, outlet.interface, endpoint.path);
        link.way = Way::Open(outlet);
        open_echo(&mut self.echo, link, now);
        link.session.handle_transmit(now);
        link.flush(now);
    }

    /// The sockets for a session: its own and those that it shares.
    fn try_open(&mut self, discr: u32, now: Instant) -> io::Result<Outlet> {
        let link = &self.links[&discr];
        let endpoint = &link.config.endpoint;
        let twin = |other: &&Link| other.config.endpoint == *endpoint && other.outlet().is_some() && !other.leaving;
        if let Some(twin) = self.links.values().find(twin) {
            return Err(io::Error::other(format!("{} watches the same path", twin.id)));
        }
        let wanted = (endpoint.peer.is_ipv6(), endpoint.path != Path::SingleHop);
        let index = RECEIVERS.iter().position(|kind| *kind == wanted).expect("all four kinds are listed");
        if self.receivers[index].is_none() {
            self.receivers[index] = Some(Receiver::open(wanted.0, wanted.1, now)?);
        }
        let taken = |port| self.links.values().any(|other| other.source_port() == Some(port));
        Outlet::open(&link.config, link.port, socket::random()?, taken)
    }
}

fn silent(link: &Link, at: Instant) -> bool {
    link.session.next_detection().is_some_and(|deadline| deadline <= at)
}

/// Said its AdminDown, or cannot say it.
fn gone(link: &Link) -> bool {
    link.leaving && (link.session.is_finished() || link.outlet().is_none())
}

fn leave(link: &mut Link, now: Instant, demux: &mut Demux<u32>) {
    let mut params = link.config.params.clone();
    params.admin_down = true;
    link.leaving = true;
    if link.session.state() != State::AdminDown {
        link.session.set_params(now, params);
    }
    demux.remove(link.session.discr());
}

/// Echo sockets for a session that is open. Where there are none the session goes on without echo.
fn open_echo(receiver: &mut Option<Receiver>, link: &mut Link, now: Instant) {
    if link.config.params.echo.is_some() && receiver.is_none() {
        *receiver = echo::receiver(now).ok();
    }
    if let Way::Open(outlet) = &mut link.way
        && outlet.set_echo(&link.config).is_err()
    {
        link.counters.note_send_error();
    }
}

fn arrival(datagram: &Datagram<'_>, multi_hop: bool) -> Arrival {
    Arrival { source: datagram.source, interface: datagram.interface, ttl: datagram.ttl, multi_hop }
}
