//! One BFD session: the variables of RFC 5880 §6.8.1 and what moves them.
//!
//! No deadline is stored. Each one is derived from when something was last sent or heard and from the intervals
//! that are in force, so a changed interval takes effect at once, nothing that is received can postpone what is
//! due to be sent, and a timer cannot be forgotten.

mod echo;
mod handover;
mod pace;
mod status;

use std::{
    num::{NonZeroU8, NonZeroU32},
    time::{Duration, Instant},
};

use echo::Echo;
pub use echo::EchoPayload;
pub use handover::Handover;
use pace::{Jitter, Pace};
pub use status::{Discard, Status};

use super::{Datagram, Diag, Discriminator, Header, Interval, Packet, Params, State, auth::Sequences};

/// One session at one end.
#[derive(Debug, Clone)]
pub struct Session {
    discr: Discriminator,
    params: Params,
    state: State,
    diag: Diag,
    since: Instant,
    failures: u64,
    remote: Remote,
    pace: Pace,
    jitter: Jitter,
    last_sent: Option<Instant>,
    /// `None` before the first packet and after a detection time without one: no detection timer runs.
    last_heard: Option<Instant>,
    /// The last valid packet, and twice the detection time then: for bfd.AuthSeqKnown.
    authentic: Option<(Instant, Duration)>,
    sequences: Sequences,
    echo: Echo,
    farewell: Farewell,
    outbox: Outbox,
}

/// What the peer's last packet said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remote {
    discr: u32,
    state: State,
    diag: Diag,
    detect_mult: NonZeroU8,
    desired_min_tx: u32,
    min_rx: u32,
    min_echo_rx: u32,
    demand: bool,
    control_plane_independent: bool,
}

impl Remote {
    /// RFC 5880 §6.8.1: the required minimum begins at one microsecond, "send".
    const UNKNOWN: Remote = Remote {
        discr: 0,
        state: State::Down,
        diag: Diag::NONE,
        detect_mult: NonZeroU8::MIN,
        desired_min_tx: 0,
        min_rx: 1,
        min_echo_rx: 0,
        demand: false,
        control_plane_independent: false,
    };
}

/// AdminDown is said as often as the peer may miss packets, at the old pace, so that a lost packet does not turn
/// an orderly end into a failure (RFC 5880 §6.8.16 asks for a detection time).
#[derive(Debug, Clone, Copy, Default)]
struct Farewell {
    packets: u8,
    interval: u32,
}

/// What waits for [`Session::poll`].
#[derive(Debug, Clone, Copy, Default)]
struct Outbox {
    /// A packet with F is owed.
    final_: bool,
    /// A packet is due.
    packet: bool,
    /// What the packets say has changed since the last one.
    content: bool,
    echo: bool,
    changed: bool,
}

/// What a session wants of its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send this control packet now.
    Transmit(Datagram),
    /// Send this echo packet now, addressed to ourselves by way of the peer (RFC 5881 §4).
    Echo(EchoPayload),
    /// [`Session::status`] has changed.
    Changed,
}

impl Session {
    /// A session in Down (AdminDown if so configured). `seed` feeds jitter, sequence number and echo token; it
    /// should not be guessable.
    pub fn new(now: Instant, discr: Discriminator, params: Params, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        let (sequence, token) = (jitter.next() as u32, jitter.next());
        let state = if params.admin_down { State::AdminDown } else { State::Down };
        let diag = if params.admin_down { Diag::ADMINISTRATIVELY_DOWN } else { Diag::NONE };
        let mut session = Self {
            discr,
            state,
            diag,
            since: now,
            failures: 0,
            remote: Remote::UNKNOWN,
            pace: Pace::default(),
            jitter,
            last_sent: None,
            last_heard: None,
            authentic: None,
            sequences: Sequences::new(sequence),
            echo: Echo::new(token),
            farewell: Farewell::default(),
            outbox: Outbox::default(),
            params,
        };
        session.pace.settle(session.desired_tx(), session.required_rx());
        session
    }

    /// A packet that [`super::Demux`] gave to this session. `received_at`: when the kernel had it; `now` may be
    /// later. A packet counts even behind the detection deadline as long as [`Session::handle_timeout`] has not
    /// acted on it: it proves that the path works.
    pub fn handle(&mut self, now: Instant, received_at: Instant, packet: &Packet<'_>) -> Result<(), Discard> {
        if self.authentic.is_some_and(|(at, twice)| received_at.saturating_duration_since(at) > twice) {
            self.sequences.forget();
        }
        self.sequences.verify(self.params.auth.as_ref(), packet)?;
        self.learn(now, &packet.header);
        if packet.header.final_ && self.pace.polling() {
            self.pace.finish_poll();
            self.outbox.changed = true;
        }
        if self.state == State::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.receive_state(now, packet.header.state);
        self.last_heard = Some(self.last_heard.map_or(received_at, |last| last.max(received_at)));
        self.authentic = Some((received_at, self.detection_time() * 2));
        self.outbox.final_ |= packet.header.poll;
        self.retune(now);
        Ok(())
    }

    /// An echo packet that came back; one that is not ours is `false`.
    pub fn handle_echo(&mut self, now: Instant, received_at: Instant, payload: &[u8]) -> bool {
        if self.echo_interval().is_none() || !self.echo.accept(self.discr, received_at, payload) {
            return false;
        }
        self.retune(now);
        true
    }

    /// Other parameters. An Up session stays Up: intervals change by a poll sequence (RFC 5880 §6.8.3).
    pub fn set_params(&mut self, now: Instant, params: Params) {
        let admin_down = params.admin_down;
        self.outbox.content |= params != self.params;
        self.params = params;
        match (admin_down, self.state) {
            (true, State::AdminDown) | (false, State::Down | State::Init | State::Up) => {}
            (true, _) => self.enter_admin_down(now),
            (false, State::AdminDown) => self.enter(now, State::Down, Diag::NONE),
        }
        self.retune(now);
        if self.outbox.content {
            self.send_now(now);
        }
    }

    /// Marks what is due to be sent, and nothing else: a driver calls it before it reads.
    pub fn handle_transmit(&mut self, now: Instant) {
        self.transmit_early(now, Duration::ZERO);
    }

    /// The same for what is due within `window` too, as far as it may be sent now: the jitter of RFC 5880 §6.8.7
    /// shortens an interval by a quarter at most. A driver that is awake for one session sends for others then.
    pub fn transmit_early(&mut self, now: Instant, window: Duration) {
        if self.control_due(now, window) {
            self.farewell.packets = self.farewell.packets.saturating_sub(1);
            self.outbox.packet = true;
            self.outbox.changed |= self.pace.sent();
            self.mark_sent(now);
        }
        if self.echo_transmit_deadline().is_some_and(|at| at <= now) {
            self.echo.mark_sent(now, self.params.detect_mult);
            self.outbox.echo = true;
        }
    }

    /// Whether [`Session::transmit_early`] has something to send.
    #[must_use]
    pub fn may_transmit(&self, now: Instant, window: Duration) -> bool {
        self.control_due(now, window) || self.echo_transmit_deadline().is_some_and(|at| at <= now)
    }

    /// Everything that is due, detection included. `now` must not be later than the moment up to which every
    /// packet that the kernel had was handed in. Early and spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_transmit(now);
        if self.control_detect_deadline().is_some_and(|at| at <= now) {
            self.forget_remote(now);
        }
        if self.echo_detect_deadline().is_some_and(|at| at <= now) {
            self.enter(now, State::Down, Diag::ECHO_FAILED);
            self.retune(now);
        }
    }

    /// The next thing to do, until there is none.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.outbox.final_) {
            // While no poll sequence of our own runs, this packet says all that another one would.
            self.outbox.packet &= self.pace.polling();
            return Some(Output::Transmit(self.encode(true)));
        }
        if std::mem::take(&mut self.outbox.packet) {
            return Some(Output::Transmit(self.encode(false)));
        }
        if std::mem::take(&mut self.outbox.echo) {
            return Some(Output::Echo(self.echo.payload(self.discr)));
        }
        std::mem::take(&mut self.outbox.changed).then_some(Output::Changed)
    }

    /// When to call [`Session::handle_timeout`] next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.next_transmit(), self.next_detection()].into_iter().flatten().min()
    }

    /// When something is to be sent next.
    #[must_use]
    pub fn next_transmit(&self) -> Option<Instant> {
        [self.transmit_deadline(), self.echo_transmit_deadline()].into_iter().flatten().min()
    }

    /// When the session is declared down unless something comes.
    #[must_use]
    pub fn next_detection(&self) -> Option<Instant> {
        [self.control_detect_deadline(), self.echo_detect_deadline()].into_iter().flatten().min()
    }

    /// This end's discriminator.
    pub fn discr(&self) -> Discriminator {
        self.discr
    }

    /// bfd.SessionState.
    pub fn state(&self) -> State {
        self.state
    }

    /// A poll sequence runs.
    pub fn is_polling(&self) -> bool {
        self.pace.polling()
    }

    /// AdminDown has been said as often as it is worth; the session may be dropped.
    pub fn is_finished(&self) -> bool {
        let said = self.farewell.packets == 0 || self.transmit_deadline().is_none();
        self.state == State::AdminDown && said && !self.outbox.packet
    }

    /// The detection time in force here: the *peer's* multiplier and the slower of what we require and what it
    /// wants to send (RFC 5880 §6.8.4).
    pub fn detection_time(&self) -> Duration {
        micros(self.pace.rx.max(self.remote.desired_min_tx)) * self.remote.detect_mult.get().into()
    }

    /// RFC 5880 §6.8.6, from "Set bfd.RemoteDiscr" on.
    fn learn(&mut self, now: Instant, header: &Header) {
        let remote = Remote {
            discr: header.my_discr.get(),
            state: header.state,
            diag: header.diag,
            detect_mult: header.detect_mult,
            desired_min_tx: header.desired_min_tx,
            min_rx: header.required_min_rx,
            min_echo_rx: header.required_min_echo_rx,
            demand: header.demand,
            control_plane_independent: header.control_plane_independent,
        };
        if remote == self.remote {
            return;
        }
        let acquainted = self.remote.discr == remote.discr;
        self.outbox.changed = true;
        self.remote = remote;
        if !acquainted && self.state != State::AdminDown {
            self.send_now(now);
        }
    }

    /// The state machine of RFC 5880 §6.2 and §6.8.6.
    fn receive_state(&mut self, now: Instant, received: State) {
        match (self.state, received) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.enter(now, State::Down, Diag::NEIGHBOR_SIGNALED_DOWN);
            }
            (State::Down, State::Down) => self.enter(now, State::Init, self.diag),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.enter(now, State::Up, Diag::NONE);
            }
            (State::AdminDown, _)
            | (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => {}
        }
    }

    /// Nothing was heard for a detection time (RFC 5880 §6.8.4, and §6.8.1 on bfd.RemoteDiscr).
    fn forget_remote(&mut self, now: Instant) {
        self.last_heard = None;
        self.remote = Remote { control_plane_independent: self.remote.control_plane_independent, ..Remote::UNKNOWN };
        self.outbox.changed = true;
        if matches!(self.state, State::Init | State::Up) {
            self.enter(now, State::Down, Diag::DETECTION_TIME_EXPIRED);
        }
        self.retune(now);
    }

    fn enter_admin_down(&mut self, now: Instant) {
        if self.state == State::Up {
            self.farewell =
                Farewell { packets: self.params.detect_mult.value().get() - 1, interval: self.transmit_interval() };
        }
        self.enter(now, State::AdminDown, Diag::ADMINISTRATIVELY_DOWN);
        self.last_heard = None;
    }

    fn enter(&mut self, now: Instant, state: State, diag: Diag) {
        let orderly = state == State::AdminDown || self.remote.state == State::AdminDown;
        if self.state == State::Up && !orderly {
            self.failures += 1;
        }
        if state != State::AdminDown {
            self.farewell = Farewell::default();
        }
        (self.state, self.diag, self.since) = (state, diag, now);
        self.outbox.changed = true;
        self.send_now(now);
    }

    /// Brings what is advertised and what is in force in line with state and parameters.
    fn retune(&mut self, now: Instant) {
        if self.echo_interval().is_none() {
            self.echo.stop();
        }
        let (tx, rx) = (self.desired_tx(), self.required_rx());
        if self.state != State::Up {
            self.pace.settle(tx, rx);
        } else if self.pace.change(tx, rx) {
            self.outbox.changed = true;
            self.send_now(now);
        }
    }

    /// What the packets say has changed: the peer learns it now rather than an interval later (RFC 5880 §6.8.7).
    fn send_now(&mut self, now: Instant) {
        self.outbox.content = true;
        if self.may_speak() && self.remote.min_rx != 0 {
            self.outbox.packet = true;
            self.mark_sent(now);
        }
    }

    fn mark_sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
        self.jitter.draw(self.params.detect_mult);
    }

    /// Passive, and the peer has not spoken (RFC 5880 §6.8.7).
    fn may_speak(&self) -> bool {
        !self.params.passive || self.remote.discr != 0
    }

    fn transmit_deadline(&self) -> Option<Instant> {
        let demanded = self.remote.demand && self.state == State::Up && self.remote.state == State::Up;
        if !self.may_speak() || self.remote.min_rx == 0 || demanded && !self.pace.polling() {
            return None;
        }
        match self.last_sent {
            None => Some(self.since),
            Some(at) => Some(at + self.jitter.apply(self.transmit_interval())),
        }
    }

    fn control_due(&self, now: Instant, window: Duration) -> bool {
        let Some(at) = self.transmit_deadline() else { return false };
        at <= now || at <= now + window && self.last_sent.is_some_and(|last| now >= last + self.least_interval())
    }

    /// The full reduction that jitter allows.
    fn least_interval(&self) -> Duration {
        micros(self.transmit_interval()) * 3 / 4
    }

    /// µs, before jitter (RFC 5880 §6.8.7).
    fn transmit_interval(&self) -> u32 {
        let own = if self.farewell.packets > 0 { self.farewell.interval } else { self.pace.tx };
        own.max(self.remote.min_rx)
    }

    fn control_detect_deadline(&self) -> Option<Instant> {
        self.last_heard.map(|at| at + self.detection_time())
    }

    fn desired_tx(&self) -> u32 {
        let floor = if self.state == State::Up { 0 } else { Interval::SLOW.micros() };
        self.params.desired_min_tx.micros().max(floor)
    }

    /// With echo packets coming back, control packets need not be fast (RFC 5880 §6.8.3).
    fn required_rx(&self) -> u32 {
        let floor = if self.echo.proven() { Interval::SLOW.micros() } else { 0 };
        self.params.required_min_rx.micros().max(floor)
    }

    /// µs between echo packets; `None` while there are none.
    fn echo_interval(&self) -> Option<u32> {
        let wanted = self.params.echo.filter(|_| self.state == State::Up && self.remote.min_echo_rx != 0)?;
        Some(wanted.micros().max(self.remote.min_echo_rx))
    }

    fn echo_transmit_deadline(&self) -> Option<Instant> {
        Some(self.echo.next(self.echo_interval()?).unwrap_or(self.since))
    }

    fn echo_detect_deadline(&self) -> Option<Instant> {
        let misses = u32::from(self.params.detect_mult.value().get());
        Some(self.echo.last_back()? + micros(self.echo_interval()?) * misses)
    }

    fn encode(&mut self, final_: bool) -> Datagram {
        let header = Header {
            diag: self.diag,
            state: self.state,
            poll: self.pace.polling() && !final_,
            final_,
            control_plane_independent: self.params.control_plane_independent,
            demand: false,
            detect_mult: self.params.detect_mult.value(),
            my_discr: self.discr.0,
            your_discr: self.remote.discr,
            desired_min_tx: self.desired_tx(),
            required_min_rx: self.required_rx(),
            required_min_echo_rx: self.params.echo_receive.map_or(0, Interval::micros),
        };
        let mut packet = Datagram::new(&header);
        let changed = std::mem::take(&mut self.outbox.content);
        if let Some(auth) = &self.params.auth {
            self.sequences.sign(auth, &mut packet, changed);
        }
        packet
    }

    /// The peer's discriminator, `None` while unknown.
    fn remote_discr(&self) -> Option<Discriminator> {
        NonZeroU32::new(self.remote.discr).map(Discriminator)
    }
}

const fn micros(value: u32) -> Duration {
    Duration::from_micros(value as u64)
}

#[cfg(test)]
mod tests;
