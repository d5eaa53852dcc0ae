//! One BGP connection from its TCP handshake to its end: the states OpenSent, OpenConfirm and Established of
//! RFC 4271 §8 (Connect and Active belong to the [peer](crate::peer), which has no connection yet).
//!
//! ```text
//!  new ──▶ OpenSent ──OPEN──▶ OpenConfirm ──KEEPALIVE──▶ Established
//!             └──────────────────┴───────── any error ───────┴──▶ Idle: a last message, then the connection closes
//! ```
//!
//! No I/O: octets go in with [`Session::receive`], one message at a time, so that the peer can settle a collision
//! between an OPEN and what follows it. Octets come out of [`Session::transmit`], which the driver calls only
//! when everything before is written; so a slow router holds up its own session and nothing else. DelayOpen and
//! the other optional attributes of RFC 4271 §8.1 that wait before an OPEN are left out.

mod end;
mod negotiate;
mod receive;
mod role;

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ipnet::IpNet;

pub(crate) use end::{Cause, End};
pub(crate) use negotiate::{Local, Negotiated};

use crate::{
    Family, HoldTime,
    rib::{Rendered, Route},
    speaker::{Counters, Endpoint, PeerConfig, State},
    wire::{
        DecodeError, message,
        notification::{Notification, cease, code},
    },
};

/// RFC 4271 §8.2.2: "a large value"; 4 minutes are suggested.
const OPEN_SENT_HOLD: Duration = Duration::from_secs(240);
/// RFC 9687 §3.2: the larger of 8 minutes and twice the hold time.
const SEND_HOLD: Duration = Duration::from_secs(480);

/// How long a peer may read nothing (RFC 9687 §3.2).
pub(crate) fn send_hold(hold: HoldTime) -> Duration {
    SEND_HOLD.max(Duration::from_secs(hold.seconds().into()) * 2)
}

/// What a session tells its peer.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer's OPEN was accepted.
    Opened,
    /// The session is up.
    Established,
    /// Everything queued by [`Session::send`] is written.
    Drained,
    /// The peer asks for a family again.
    Refresh(Family),
    /// A route came, on one of the paths to its prefix (where routes are wanted, like all that follow).
    Announce(Route, u32),
    /// A route went.
    Withdraw(IpNet, u32),
    /// A family is complete.
    EndOfRib(Family),
    /// Everything of a family comes again (RFC 7313 §4).
    RefreshBegins(Family),
    /// Everything of a family came again.
    RefreshEnds(Family),
    /// The session is over; [`Session::farewell`] has the last message.
    Ended(End),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    local: Local,
    endpoint: Endpoint,
    state: State,
    negotiated: Option<Arc<Negotiated>>,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    send_hold: Option<Instant>,
    control: Vec<u8>,
    /// Ours and the peer's, as they were on the wire.
    opens: (Bytes, Bytes),
    backlog: VecDeque<Bytes>,
    sending: Option<Arc<Rendered>>,
    events: VecDeque<Event>,
    counters: Counters,
    /// Messages received in all.
    heard: u64,
    /// Shortens each keepalive interval by up to a quarter (RFC 4271 §10).
    jitter: crate::jitter::Jitter,
}

impl Session {
    /// The session of a new connection; its OPEN is the first thing to transmit.
    pub(crate) fn new(now: Instant, local: Local, endpoint: Endpoint, jitter: crate::jitter::Jitter) -> Self {
        let mut session = Self {
            local,
            endpoint,
            state: State::OpenSent,
            negotiated: None,
            hold: Some(now + OPEN_SENT_HOLD),
            keepalive: None,
            send_hold: None,
            control: Vec::new(),
            opens: Default::default(),
            backlog: VecDeque::new(),
            sending: None,
            events: VecDeque::new(),
            counters: Counters { opens_sent: 1, ..Counters::default() },
            heard: 0,
            jitter,
        };
        session.local.open().encode(&mut session.control);
        session.opens.0 = Bytes::copy_from_slice(&session.control);
        session
    }

    /// Where the session stands; `Idle` is over.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// The two ends of the connection.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What both ends agreed on; `None` before the peer's OPEN.
    pub(crate) fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.negotiated.as_ref()
    }

    /// Our OPEN and the peer's, which is empty before it came.
    pub(crate) fn opens(&self) -> (Bytes, Bytes) {
        self.opens.clone()
    }

    /// What happened since the last call, oldest first.
    #[must_use]
    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Messages counted since the last call.
    pub(crate) fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    /// When [`Session::handle_timeout`] wants to be called.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.hold, self.keepalive, self.send_hold].into_iter().flatten().min()
    }

    /// Fires what is due; early calls do nothing.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Idle {
            return;
        }
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        if due(self.hold) {
            return self.fail(Notification::new(code::HOLD_TIMER, 0, &[]), Cause::Silent);
        }
        if due(self.send_hold) {
            // RFC 9687 §3.2: the NOTIFICATION cannot be expected to get through.
            return self.fail(Notification::new(code::SEND_HOLD_TIMER, 0, &[]), Cause::Stuck);
        }
        if due(self.keepalive) {
            self.send_keepalive(now);
        }
    }

    /// The next octets, once everything before is written; calling it again says that they are.
    #[must_use]
    pub(crate) fn transmit(&mut self, now: Instant) -> Option<Bytes> {
        self.send_hold = None;
        let octets = if self.control.is_empty() {
            self.backlog.pop_front()
        } else {
            Some(Bytes::from(std::mem::take(&mut self.control)))
        };
        match &octets {
            Some(_) => self.send_hold = self.send_hold_time().map(|time| now + time),
            None => {
                if self.sending.take().is_some() {
                    self.events.push_back(Event::Drained);
                }
            }
        }
        octets
    }

    /// Where the hold time is 0 nobody is given up for being slow.
    fn send_hold_time(&self) -> Option<Duration> {
        let hold = self.negotiated.as_ref()?.hold_time;
        (hold.seconds() > 0).then(|| send_hold(hold))
    }

    /// Queues a change for an Established session that has none queued; [`Event::Drained`] follows.
    pub(crate) fn send(&mut self, rendered: Arc<Rendered>) {
        debug_assert!(self.state == State::Established && self.sending.is_none());
        self.backlog.extend(rendered.chunks.iter().map(|(octets, _)| octets.clone()));
        self.counters.updates_sent += rendered.chunks.iter().map(|(_, updates)| updates).sum::<u64>();
        self.sending = Some(rendered);
    }

    /// Takes a configuration that differs in nothing that was negotiated.
    pub(crate) fn reconfigure(&mut self, now: Instant, config: Arc<PeerConfig>) {
        let keepalive = config.keepalive != self.local.config.keepalive;
        self.local.config = config;
        if keepalive && self.negotiated.is_some() {
            self.arm_keepalive(now);
        }
    }

    /// A third of the hold time, or less where the configuration says so.
    fn keepalive_time(&self) -> Option<Duration> {
        let third = self.negotiated.as_ref()?.hold_time.keepalive()?;
        Some(self.local.config.keepalive.map_or(third, |own| own.min(third)))
    }

    /// The connection broke.
    pub(crate) fn closed(&mut self, why: &str) {
        self.end(Cause::Lost(why.to_string()), None);
    }

    /// Ends the session with a Cease; a hard one where `for_good` and the peer would otherwise keep the routes
    /// (RFC 8538 §3).
    pub(crate) fn stop(&mut self, cease: Notification, for_good: bool) {
        let cease = if for_good { self.hardened(cease) } else { cease };
        self.fail(cease, Cause::Stopped);
    }

    /// Ends the session because of what the peer did; `why` is for our operator.
    pub(crate) fn refuse(&mut self, notification: Notification, why: String) {
        self.fail(notification, Cause::Unsuitable(why));
    }

    /// As a hard reset where the peer would otherwise keep the routes.
    fn hardened(&self, cease: Notification) -> Notification {
        let soft = self.negotiated.as_ref().is_some_and(|n| n.notification_support);
        if soft { cease.hard() } else { cease }
    }

    /// BFD declared the path down (RFC 5882 §4.2, RFC 9384). A hard end: packets do not arrive, so that a route kept
    /// for a restart would be a hole.
    pub(crate) fn path_down(&mut self) {
        self.fail(self.hardened(Notification::cease(cease::BFD_DOWN)), Cause::PathDown);
    }

    /// Ends the session without a word: the peer may keep the routes (RFC 4724 §4.2).
    pub(crate) fn drop_silently(&mut self) {
        self.control.clear();
        self.end(Cause::Stopped, None);
    }

    /// The last message of a session that is over.
    pub(crate) fn farewell(&mut self) -> Option<Bytes> {
        (!self.control.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.control)))
    }

    /// Sends a NOTIFICATION and ends the session.
    fn fail(&mut self, notification: Notification, cause: Cause) {
        if self.state == State::Idle {
            return;
        }
        self.control.clear();
        notification.encode(&mut self.control);
        self.counters.notifications_sent += 1;
        self.end(cause, Some(notification));
    }

    /// Ends the session for a message that broke a rule.
    fn fail_decode(&mut self, error: DecodeError, message: &[u8]) {
        self.fail(error.notification(message), Cause::Malformed(error));
    }

    fn end(&mut self, cause: Cause, sent: Option<Notification>) {
        if self.state == State::Idle {
            return;
        }
        // An OPEN and a KEEPALIVE are sent by a peer that hears our OPEN alone; one that hears more says more.
        let greeted_only = self.heard <= 2;
        let end = End::new(cause, sent, (self.state, greeted_only), self.negotiated.as_deref(), &self.local);
        self.state = State::Idle;
        (self.hold, self.keepalive, self.send_hold) = (None, None, None);
        self.backlog.clear();
        self.sending = None;
        self.events.push_back(Event::Ended(end));
    }

    fn send_keepalive(&mut self, now: Instant) {
        message::encode_keepalive(&mut self.control);
        self.counters.keepalives_sent += 1;
        self.arm_keepalive(now);
    }

    /// RFC 4271 §10: a quarter of jitter, downwards.
    fn arm_keepalive(&mut self, now: Instant) {
        self.keepalive = self.keepalive_time().map(|i| now + self.jitter.shorten(i));
    }

    /// Nothing is read at present, so that nobody can be said to be silent.
    pub(crate) fn not_reading(&mut self, now: Instant) {
        if self.hold.is_some() && self.state >= State::OpenConfirm {
            self.arm_hold(now);
        }
    }

    fn arm_hold(&mut self, now: Instant) {
        self.hold = self.negotiated.as_ref().and_then(|n| n.hold_time.duration()).map(|hold| now + hold);
    }

    /// Our AS in this session.
    pub(crate) fn local_as(&self) -> crate::Asn {
        self.local.asn()
    }

    /// The AS that ours stands in for, where that is shown.
    pub(crate) fn own_as(&self) -> Option<crate::Asn> {
        self.local.config.own_as
    }

    /// Asks the peer for everything again, where it can be asked (RFC 2918 §4).
    pub(crate) fn request_refresh(&mut self) {
        let Some(negotiated) = self.negotiated.as_ref().filter(|n| n.route_refresh) else { return };
        if self.state == State::Established {
            for family in negotiated.families.iter() {
                message::encode_refresh(message::Refresh::Request(family), &mut self.control);
                self.counters.refreshes_sent += 1;
            }
        }
    }

    /// The address of this end.
    pub(crate) fn local_addr(&self) -> IpAddr {
        self.endpoint.local.ip()
    }
}

#[cfg(test)]
mod tests;
