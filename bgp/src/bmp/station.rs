//! What one connection to a station is told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{
    Event, Monitored,
    event::{Kind, whole},
    message::{self, Statistic},
};
use crate::{
    rib::Rendered,
    speaker::{PeerId, PeerStatus},
    wire::{self, SAFI_UNICAST, message::frame},
};

/// Who we are, in the words of MIB-II (RFC 7854 §4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// sysName: the node's name.
    pub name: String,
    /// sysDescr: the program and its version.
    pub description: String,
}

/// The same moment on both clocks: events are stamped with the steady one, stations want the other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The steady clock.
    pub now: Instant,
    /// The calendar's.
    pub wall: SystemTime,
}

impl Clock {
    /// Both clocks as they stand.
    pub fn read() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    /// A moment as time since the epoch; zero, "not available" (RFC 7854 §4.2), where it has none.
    fn since_epoch(&self, at: Instant) -> Duration {
        let now = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(self.now.saturating_duration_since(at))
    }
}

/// One connection to a station. Hand it one event, take everything that [`Station::transmit`] gives, then hand it
/// the next: so it never holds more than one change, however slowly the station reads.
#[derive(Debug)]
pub struct Station {
    /// Sessions that the station knows to be up.
    up: BTreeMap<PeerId, Arc<Monitored>>,
    ready: Vec<u8>,
    backlog: Option<Backlog>,
}

/// UPDATEs that wait to be wrapped.
#[derive(Debug)]
struct Backlog {
    session: Arc<Monitored>,
    at: Duration,
    chunks: VecDeque<Bytes>,
}

impl Station {
    /// A connection that was just made: it begins with our Initiation.
    pub fn new(identity: &Identity) -> Self {
        let mut ready = Vec::new();
        message::initiation(&identity.name, &identity.description, &mut ready);
        Self { up: BTreeMap::new(), ready, backlog: None }
    }

    /// Tells of an event. Of a session that the station never heard of it is told nothing but that it came up.
    pub fn handle(&mut self, clock: &Clock, event: &Event) {
        debug_assert!(self.backlog.is_none(), "the last event was transmitted");
        let Event { at, session, kind } = event;
        let known = self.up.get(&session.peer).is_some_and(|up| Arc::ptr_eq(up, session));
        let at = clock.since_epoch(*at);
        match kind {
            Kind::Up => {
                message::peer_up(session, at, &mut self.ready);
                self.up.insert(session.peer.clone(), session.clone());
            }
            Kind::Sent(rendered) if known => self.queue(session, at, rendered),
            Kind::Told(table, encoding) if known => self.queue(session, at, &whole(table, encoding)),
            Kind::Down(down) if known => {
                message::peer_down(session, at, down, &mut self.ready);
                self.up.remove(&session.peer);
            }
            Kind::Sent(_) | Kind::Told(..) | Kind::Down(_) => {}
        }
    }

    fn queue(&mut self, session: &Arc<Monitored>, at: Duration, rendered: &Rendered) {
        let chunks = rendered.chunks.iter().map(|(octets, _)| octets.clone()).collect();
        self.backlog = Some(Backlog { session: session.clone(), at, chunks });
    }

    /// Tells how many routes each session that is up has, and what it did with received ones.
    pub fn report(&mut self, clock: &Clock, peers: &BTreeMap<PeerId, PeerStatus>) {
        let at = clock.since_epoch(clock.now);
        for (id, session) in &self.up {
            if let Some(status) = peers.get(id) {
                message::statistics(session, at, &statistics(status), &mut self.ready);
            }
        }
    }

    /// Tells that nothing more comes.
    pub fn end(&mut self) {
        self.backlog = None;
        message::termination(&mut self.ready);
    }

    /// The next octets, some tens of kilobytes at most, to be asked for when all before are written.
    #[must_use]
    pub fn transmit(&mut self) -> Option<Bytes> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready).into());
        }
        let backlog = self.backlog.as_mut()?;
        let Some(chunk) = backlog.chunks.pop_front() else {
            self.backlog = None;
            return None;
        };
        let mut out = Vec::with_capacity(chunk.len() * 2);
        wrap(backlog, &chunk, &mut out);
        // A chunk of nothing but the marks of a refresh has nothing for the station.
        if out.is_empty() { self.transmit() } else { Some(out.into()) }
    }
}

/// Each UPDATE of a chunk as a Route Monitoring message; the marks of a route refresh are left out.
fn wrap(backlog: &Backlog, chunk: &[u8], out: &mut Vec<u8>) {
    let mut rest = chunk;
    while let Ok(Some(found)) = frame(rest, true) {
        if found.kind == wire::message::Kind::Update {
            message::route_monitoring(&backlog.session, backlog.at, found.octets, out);
        }
        rest = &rest[found.octets.len()..];
    }
    debug_assert!(rest.is_empty(), "chunks hold whole messages");
}

fn statistics(status: &PeerStatus) -> Vec<Statistic> {
    let counters = &status.counters;
    // 32-bit counters wrap (RFC 7854 §4.8).
    let mut found = vec![
        Statistic::RejectedPrefixes(counters.prefixes_received as u32),
        Statistic::TreatedAsWithdraw(counters.treated_as_withdraw as u32),
        Statistic::AdjRibOut(status.advertised.len() as u64),
    ];
    found.extend(status.families.iter().map(|family| Statistic::AdjRibOutOf {
        afi: wire::afi(*family),
        safi: SAFI_UNICAST,
        routes: status.advertised.count(*family) as u64,
    }));
    found
}

#[cfg(test)]
mod tests;
