//! One peer: up to two connections, of which one survives (RFC 4271 §6.8), and what the peer is told.
//!
//! Every connection has a number that is never used again, so that a late event of an older one finds nobody.
//! The driver makes connections when told [`Output::Connect`] and ends them when told [`Output::Close`].

mod adj_rib_in;
mod advertise;
mod monitor;
mod path;
mod receive;
mod reconfigure;
mod retry;
mod unreached;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    RouterId,
    jitter::Jitter,
    rib::{Renders, Routes},
    session::{Cause, End, Event, Local, Session},
    speaker::{ConnectionId, Endpoint, Output, PeerConfig, PeerId, PeerStatus, Received, State, Unreached},
    wire::{
        Families,
        notification::{Notification, cease, code},
    },
};
use adj_rib_in::AdjRibIn;
use advertise::AdjRibOut;
use retry::{Failure, Retry};

/// An attempt without an answer is given up and made anew: a fresh SYN finds a router that came back.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the peers of a speaker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) router_id: RouterId,
    pub(crate) restarted: bool,
    pub(crate) deliver: bool,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) renders: Renders,
    pub(crate) jitter: Jitter,
    pub(crate) last_connection: u64,
    /// A status changed.
    pub(crate) changed: bool,
    /// What waits for who monitors; `None` while nobody does.
    pub(crate) monitor: Option<VecDeque<crate::bmp::Event>>,
}

impl Shared {
    fn connection(&mut self) -> ConnectionId {
        self.last_connection += 1;
        ConnectionId(self.last_connection)
    }

    fn received(&mut self, received: Received) {
        self.outputs.push_back(Output::Received(received));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Outgoing,
    Incoming,
}

#[derive(Debug)]
enum Stage {
    /// The driver is dialling.
    Dialling { until: Instant },
    /// There is a TCP connection.
    Open(Box<Session>),
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    direction: Direction,
    /// It came while another was Established with a peer that may restart gracefully.
    returning: bool,
    stage: Stage,
}

impl Connection {
    fn state(&self) -> State {
        match &self.stage {
            Stage::Dialling { .. } => State::Connect,
            Stage::Open(session) => session.state(),
        }
    }

    fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Dialling { .. } => None,
            Stage::Open(session) => Some(session),
        }
    }
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    id: PeerId,
    config: Arc<PeerConfig>,
    connections: Vec<Connection>,
    retry: Retry,
    adj: AdjRibOut,
    adj_in: AdjRibIn,
    /// Families of which more came than the limit, in this session.
    warned: Families,
    status: PeerStatus,
    /// The session that is up.
    monitored: Option<Arc<crate::bmp::Monitored>>,
    /// Ended for good: nothing is dialled and nobody awaited.
    stopped: bool,
}

impl Peer {
    /// A peer that is dialled at once, unless passive.
    pub(crate) fn new(now: Instant, id: PeerId, config: PeerConfig, shared: &mut Shared) -> Self {
        let status = PeerStatus {
            state: State::Idle,
            since: now,
            local_addr: None,
            remote_addr: config.address,
            remote_as: None,
            remote_id: None,
            hold_time: None,
            families: Default::default(),
            capabilities: Vec::new(),
            last_error: None,
            established_count: 0,
            advertised: Routes::default(),
            withheld: Routes::default(),
            counters: Default::default(),
        };
        let (connections, retry, adj) = (Vec::new(), Retry::default(), AdjRibOut::default());
        let (adj_in, warned) = (AdjRibIn::default(), Families::NONE);
        let config = Arc::new(config);
        let (monitored, stopped) = (None, false);
        let mut peer = Self { id, config, connections, retry, adj, adj_in, warned, status, monitored, stopped };
        peer.retry.now(now);
        peer.handle_timeout(now, shared);
        peer
    }

    pub(crate) fn config(&self) -> &Arc<PeerConfig> {
        &self.config
    }

    /// The state of the connection that got furthest, and everything else, as it is now.
    pub(crate) fn status(&self) -> &PeerStatus {
        &self.status
    }

    /// Says why the peer cannot connect.
    pub(crate) fn blame(&mut self, why: String) {
        self.status.last_error = Some(why);
    }

    /// Whether nothing is left of the peer but its status.
    pub(crate) fn is_quiet(&self) -> bool {
        self.connections.is_empty() && self.adj_in.is_empty()
    }

    /// When [`Peer::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connections = self.connections.iter().filter_map(|c| match &c.stage {
            Stage::Dialling { until } => Some(*until),
            Stage::Open(session) => session.deadline(),
        });
        connections.chain(self.retry.at).chain(self.adj_in.deadline()).min()
    }

    /// Fires what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let stale = |c: &Connection| matches!(c.stage, Stage::Dialling { until } if until <= now);
        if let Some(id) = self.connections.iter().find(|c| stale(c)).map(|c| c.id) {
            shared.outputs.push_back(Output::Close { id, farewell: None });
            self.unreached(now, id, &Unreached::TimedOut, shared);
        }
        for connection in &mut self.connections {
            if let Some(session) = connection.session() {
                session.handle_timeout(now);
            }
        }
        self.expire(now, shared);
        if self.retry.at.is_some_and(|at| at <= now) {
            self.retry.at = None;
            self.dial(now, shared);
        }
        self.settle(now, shared);
    }

    /// Nothing is read at present.
    pub(crate) fn not_reading(&mut self, now: Instant) {
        self.connections.iter_mut().filter_map(Connection::session).for_each(|session| session.not_reading(now));
    }

    fn dial(&mut self, now: Instant, shared: &mut Shared) {
        if self.config.passive || !self.connections.is_empty() {
            return;
        }
        let id = shared.connection();
        let stage = Stage::Dialling { until: now + CONNECT_TIMEOUT };
        self.connections.push(Connection { id, direction: Direction::Outgoing, returning: false, stage });
        shared.outputs.push_back(Output::Connect { id, peer: self.id.clone(), config: self.config.clone() });
    }

    /// The peer has connected to us; `None` refuses the connection.
    pub(crate) fn accept(&mut self, now: Instant, endpoint: Endpoint, shared: &mut Shared) -> Option<ConnectionId> {
        if self.retry.is_shut(now) {
            return None;
        }
        // RFC 4724 §4.2: a peer that restarts gracefully may be back before we notice that it was away. Its OPEN will
        // say that it is it; a mere connection ends nothing. Nor does one that was dialled before this session was up.
        let settled = now.saturating_duration_since(self.status.since) >= CONNECT_TIMEOUT;
        let returning = match self.established() {
            Some(session) => session.negotiated()?.graceful_restart.filter(|_| settled).map(|_| true)?,
            None => false,
        };
        // A connection on which nothing was said yet may be half of one that broke; the newer one counts.
        let incoming = |c: &&mut Connection| c.direction == Direction::Incoming && c.state() != State::Established;
        for silent in self.connections.iter_mut().filter(incoming) {
            let silent = silent.session().filter(|s| s.state() == State::OpenSent)?;
            silent.stop(Notification::cease(cease::COLLISION), false);
        }
        self.settle(now, shared);
        let id = shared.connection();
        let stage = Stage::Open(self.session(now, endpoint, shared));
        self.connections.push(Connection { id, direction: Direction::Incoming, returning, stage });
        self.settle(now, shared);
        Some(id)
    }

    fn session(&self, now: Instant, endpoint: Endpoint, shared: &mut Shared) -> Box<Session> {
        let restarting = shared.restarted && self.status.established_count == 0;
        let local = Local::new(self.config.clone(), shared.router_id, restarting, shared.deliver);
        Box::new(Session::new(now, local, endpoint, shared.jitter.fork()))
    }

    /// The driver has made the connection.
    pub(crate) fn connected(&mut self, now: Instant, id: ConnectionId, endpoint: Endpoint, shared: &mut Shared) {
        let session = self.session(now, endpoint, shared);
        if let Some(connection) = self.connections.iter_mut().find(|c| c.id == id) {
            connection.stage = Stage::Open(session);
        }
        self.settle(now, shared);
    }

    /// The driver could not make the connection.
    pub(crate) fn unreached(&mut self, now: Instant, id: ConnectionId, why: &Unreached, shared: &mut Shared) {
        if !self.has(id) {
            return;
        }
        self.connections.retain(|c| c.id != id);
        self.status.last_error = Some(unreached::words(why, &self.config));
        self.schedule(unreached::failure(why), now, shared);
        self.settle(now, shared);
    }

    fn schedule(&mut self, failure: Failure, now: Instant, shared: &mut Shared) {
        if self.connections.is_empty() && !self.config.passive && !self.stopped {
            self.retry.after(failure, now, self.config.connect_retry, &mut shared.jitter);
        }
    }

    /// The connection broke.
    pub(crate) fn closed(&mut self, now: Instant, id: ConnectionId, why: &str, shared: &mut Shared) {
        if let Some(session) = self.session_of(id) {
            session.closed(why);
        }
        self.settle(now, shared);
    }

    /// Takes one message off the receive buffer of a connection.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        id: ConnectionId,
        buffer: &[u8],
        shared: &mut Shared,
    ) -> Option<usize> {
        let taken = self.session_of(id)?.receive(now, buffer);
        self.settle(now, shared);
        taken
    }

    /// The next octets of a connection, once everything before is written.
    pub(crate) fn transmit(&mut self, now: Instant, id: ConnectionId, shared: &mut Shared) -> Option<Bytes> {
        loop {
            if let Some(octets) = self.session_of(id)?.transmit(now) {
                return Some(octets);
            }
            if !self.settle(now, shared) {
                return None;
            }
        }
    }

    /// What the peer shall be told from now on.
    pub(crate) fn set_target(&mut self, now: Instant, target: &Routes, shared: &mut Shared) {
        self.adj.wanted = Some(target.clone());
        self.apply_budget();
        self.advertise(shared);
        self.settle(now, shared);
    }

    /// Ends every connection with a Cease, for good.
    pub(crate) fn stop(&mut self, now: Instant, why: &Notification, shared: &mut Shared) {
        self.finish(now, shared, |session| session.stop(why.clone(), true));
        self.forget_stale(shared);
    }

    /// Ends every connection without a word.
    pub(crate) fn drop_silently(&mut self, now: Instant, shared: &mut Shared) {
        self.finish(now, shared, Session::drop_silently);
    }

    fn finish(&mut self, now: Instant, shared: &mut Shared, end: impl Fn(&mut Session)) {
        self.stopped = true;
        for connection in &mut self.connections {
            match &mut connection.stage {
                Stage::Dialling { .. } => {
                    shared.outputs.push_back(Output::Close { id: connection.id, farewell: None });
                }
                Stage::Open(session) => end(session),
            }
        }
        self.connections.retain(|c| matches!(c.stage, Stage::Open(_)));
        self.retry.at = None;
        self.settle(now, shared);
    }

    fn has(&self, id: ConnectionId) -> bool {
        self.connections.iter().any(|c| c.id == id)
    }

    fn session_of(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.connections.iter_mut().find(|c| c.id == id)?.session()
    }

    fn established(&mut self) -> Option<&mut Session> {
        self.connections.iter_mut().filter_map(Connection::session).find(|s| s.state() == State::Established)
    }

    /// Acts on what the sessions say until they say nothing; whether they said anything.
    fn settle(&mut self, now: Instant, shared: &mut Shared) -> bool {
        let mut any = false;
        loop {
            let next = self.connections.iter_mut().find_map(|c| c.session()?.poll().map(|event| (c.id, event)));
            let Some((id, event)) = next else { break };
            any = true;
            self.on_event(now, id, event, shared);
        }
        self.refresh_status(now, shared);
        any
    }

    fn on_event(&mut self, now: Instant, id: ConnectionId, event: Event, shared: &mut Shared) {
        match event {
            Event::Opened => self.resolve_collision(id, shared.router_id),
            Event::Established => self.on_established(now, id, shared),
            Event::Drained => {
                self.on_drained(now, shared);
                self.advertise(shared);
            }
            Event::Refresh(family) => {
                self.adj.refresh.insert(family);
                self.advertise(shared);
            }
            Event::Announce(route, path) => self.on_announce(id, route, path, shared),
            Event::Withdraw(prefix, path) => self.on_withdraw((prefix, path), shared),
            Event::EndOfRib(family) => self.on_end_of_rib(family, shared),
            Event::RefreshBegins(family) => self.adj_in.begin_refresh(now, family),
            Event::RefreshEnds(family) => self.on_refreshed(family, shared),
            Event::Ended(end) => self.on_ended(now, id, &end, shared),
        }
    }

    /// RFC 4271 §6.8 with the rule of RFC 6286 §2.3 for equal identifiers: the connection that the higher end
    /// initiated stays; an Established one always does, unless its peer has restarted.
    fn resolve_collision(&mut self, id: ConnectionId, router_id: RouterId) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let rival = self.connections.iter().position(|c| c.id != id && c.state() >= State::OpenConfirm);
        let Some(rival) = rival else { return };
        let Some(winner) = self.winner(at, router_id) else { return };
        if self.connections[at].returning && self.connections[rival].state() == State::Established {
            if let Some(session) = self.connections[rival].session() {
                session.drop_silently();
            }
            return;
        }
        let loser = match self.connections[rival].state() {
            State::Established => at,
            _ if self.connections[at].direction == winner => rival,
            _ => at,
        };
        if let Some(session) = self.connections[loser].session() {
            session.stop(Notification::cease(cease::COLLISION), false);
        }
    }

    /// The direction that stays, by what the peer's OPEN on a connection says.
    fn winner(&mut self, at: usize, router_id: RouterId) -> Option<Direction> {
        let ours = (self.config.router_id.unwrap_or(router_id), self.config.local_as);
        let theirs = self.connections[at].session()?.negotiated()?;
        let ours_wins = ours > (theirs.remote_id, theirs.remote_as);
        Some(if ours_wins { Direction::Outgoing } else { Direction::Incoming })
    }

    /// One connection is Established. An attempt is given up, and so is a connection that would lose a collision.
    /// One that would win is the peer's to end: if it has heard our OPEN there already, it has ended this one, and
    /// if both ends ended one each, none would be left.
    fn end_rivals(&mut self, id: ConnectionId, shared: &mut Shared) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let winner = self.winner(at, shared.router_id);
        for rival in self.connections.iter_mut().filter(|c| c.id != id) {
            let wins = winner == Some(rival.direction);
            match &mut rival.stage {
                Stage::Dialling { .. } => shared.outputs.push_back(Output::Close { id: rival.id, farewell: None }),
                Stage::Open(session) if !wins => session.stop(Notification::cease(cease::COLLISION), false),
                Stage::Open(_) => {}
            }
        }
        self.connections.retain(|c| matches!(c.stage, Stage::Open(_)));
    }

    fn on_ended(&mut self, now: Instant, id: ConnectionId, end: &End, shared: &mut Shared) {
        let Some(at) = self.connections.iter().position(|c| c.id == id) else { return };
        let mut connection = self.connections.swap_remove(at);
        self.take_counters(&mut connection);
        let farewell = connection.session().and_then(Session::farewell);
        shared.outputs.push_back(Output::Close { id, farewell });
        if let Some(words) = end.words() {
            tracing::info!(peer = %self.id, reason = words, "session ended");
            self.status.last_error = Some(words);
        }
        if end.state == State::Established {
            self.retry.was_established(now - self.status.since);
            self.adj.forget();
            self.monitor_down(now, end, shared);
            self.clear_status();
            let negotiated = connection.session().and_then(|s| s.negotiated().cloned());
            self.on_down(now, end, negotiated.as_deref(), shared);
        }
        let too_many = |sent: &Notification| (sent.code, sent.subcode) == (code::CEASE, cease::MAXIMUM_PREFIXES);
        if end.sent.as_ref().is_some_and(too_many) {
            self.retry.shut(now);
        }
        let failure = match (&end.cause, &end.sent) {
            (_, Some(sent)) if too_many(sent) => Failure::TooMany,
            (Cause::Notified(heard), _) if heard.code == code::OPEN => Failure::Mismatch,
            (_, Some(sent)) if sent.code == code::OPEN => Failure::Mismatch,
            (Cause::PathDown, _) => Failure::Lost,
            (Cause::Notified(_), _) | (_, Some(_)) => Failure::Notified,
            _ if end.state == State::Established => Failure::Lost,
            _ => Failure::Closed,
        };
        self.schedule(failure, now, shared);
    }

    fn take_counters(&mut self, connection: &mut Connection) {
        if let Some(session) = connection.session() {
            self.status.counters.add(&session.take_counters());
        }
    }
}

#[cfg(test)]
mod tests;
