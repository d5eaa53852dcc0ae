//! A session that outlives its process: the peer is told to be patient, and the successor goes on where this end
//! stopped, with the same discriminator. The peer sees a session that slowed down and became fast again, which
//! RFC 5880 §6.8.3 allows at any time; nothing of this is on the wire.
//!
//! ```text
//!  predecessor: set_params(slow) ─P/F─▶ handover()          successor: resume() ─P/F─▶ fast again
//!               nothing is sent any more, nobody goes Down until slow × multiplier is over
//! ```

use std::{
    num::NonZeroU8,
    time::{Duration, Instant},
};

use super::{
    super::{Diag, Discriminator, Interval, Params, State},
    Remote, Session,
};

/// What a successor has to know of a session that is Up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handover {
    /// This end's discriminator.
    pub local_discr: Discriminator,
    /// The peer's.
    pub remote_discr: Discriminator,
    /// The peer's multiplier.
    pub remote_detect_mult: NonZeroU8,
    /// What the peer wants to send, in microseconds.
    pub remote_desired_min_tx: u32,
    /// What the peer can take, in microseconds.
    pub remote_required_min_rx: u32,
    /// What this end told the peer last, for both directions.
    pub interval: Interval,
}

impl Params {
    /// The same for a peer that shall hear nothing for `window`, one second at least. Both directions are slow: nobody
    /// is there to receive.
    #[must_use]
    pub fn patient(&self, window: Duration) -> Self {
        let packets = u32::from(self.detect_mult.value().get());
        let slow = Interval::clamped(window / packets).max(Interval::SLOW);
        Self { desired_min_tx: slow, required_min_rx: slow, echo: None, ..self.clone() }
    }
}

impl Session {
    /// What a successor needs; `None` unless the session is Up at both ends and the peer has confirmed what it was
    /// told last. Not with authentication, whose sequence numbers go on for each packet.
    pub fn handover(&self) -> Option<Handover> {
        let up = self.state == State::Up && self.remote.state == State::Up && !self.pace.polling();
        if !up || self.params.auth.is_some() {
            return None;
        }
        Some(Handover {
            local_discr: self.discr,
            remote_discr: self.remote_discr()?,
            remote_detect_mult: self.remote.detect_mult,
            remote_desired_min_tx: self.remote.desired_min_tx,
            remote_required_min_rx: self.remote.min_rx,
            interval: self.params.desired_min_tx.max(self.params.required_min_rx),
        })
    }

    /// Goes on with a predecessor's session: Up from the start, and a poll sequence brings the intervals to those of
    /// `params`. A peer that is not there any more is declared down after what the predecessor was given.
    pub fn resume(now: Instant, params: Params, seed: u64, from: &Handover) -> Self {
        let mut session = Self::new(now, from.local_discr, params, seed);
        if session.params.admin_down || session.params.auth.is_some() {
            return session;
        }
        (session.state, session.diag) = (State::Up, Diag::NONE);
        session.remote = Remote {
            discr: from.remote_discr.0.get(),
            state: State::Up,
            detect_mult: from.remote_detect_mult,
            desired_min_tx: from.remote_desired_min_tx,
            min_rx: from.remote_required_min_rx,
            ..Remote::UNKNOWN
        };
        session.last_heard = Some(now);
        session.pace.settle(from.interval.micros(), from.interval.micros());
        session.outbox.changed = true;
        session.retune(now);
        session
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::bfd::{DetectMult, Output, Packet};

    const WINDOW: Duration = Duration::from_secs(120);

    fn params() -> Params {
        let interval = Interval::new(Duration::from_millis(10)).expect("valid");
        Params::new(interval, DetectMult::new(3).expect("not 0"))
    }

    fn session(now: Instant, discr: u32) -> Session {
        Session::new(now, Discriminator(NonZeroU32::new(discr).expect("not 0")), params(), discr.into())
    }

    /// Carries packets both ways until nobody has anything to say.
    fn talk(now: Instant, a: &mut Session, b: &mut Session) {
        for _ in 0..20 {
            carry(now, a, b);
            carry(now, b, a);
        }
    }

    fn carry(now: Instant, from: &mut Session, to: &mut Session) {
        from.handle_transmit(now);
        while let Some(output) = from.poll() {
            if let Output::Transmit(datagram) = output {
                to.handle(now, now, &Packet::decode(datagram.as_ref()).expect("valid")).expect("counts");
            }
        }
    }

    /// Both ends Up at 3 × 10 ms.
    fn pair(now: Instant) -> (Session, Session) {
        let (mut a, mut b) = (session(now, 1), session(now, 2));
        talk(now, &mut a, &mut b);
        assert_eq!((a.state(), b.state()), (State::Up, State::Up));
        assert_eq!((a.detection_time(), b.detection_time()), (Duration::from_millis(30), Duration::from_millis(30)));
        (a, b)
    }

    #[test]
    fn successor_goes_on_and_the_peer_notices_nothing() {
        let start = Instant::now();
        let (mut before, mut peer) = pair(start);
        before.set_params(start, params().patient(WINDOW));
        assert_eq!(before.handover(), None, "the peer has not agreed yet");
        talk(start, &mut before, &mut peer);
        let handover = before.handover().expect("agreed");
        drop(before);

        let late = start + WINDOW - Duration::from_secs(1);
        peer.handle_timeout(late);
        while peer.poll().is_some() {}
        assert_eq!(peer.state(), State::Up, "patient");
        let mut after = Session::resume(late, params(), 7, &handover);
        assert_eq!(after.state(), State::Up);
        talk(late, &mut after, &mut peer);
        for end in [&after, &peer] {
            let status = end.status();
            assert_eq!((status.state, status.failures, status.polling), (State::Up, 0, false));
            assert_eq!(status.detection_time, Duration::from_millis(30), "as fast as before");
        }
        assert_eq!(peer.status().remote_discr, Some(handover.local_discr));
    }

    #[test]
    fn window_ends_for_both_ends() {
        let start = Instant::now();
        let (mut before, mut peer) = pair(start);
        before.set_params(start, params().patient(WINDOW));
        talk(start, &mut before, &mut peer);
        let handover = before.handover().expect("agreed");
        peer.handle_timeout(start + WINDOW + Duration::from_secs(1));
        assert_eq!((peer.state(), peer.status().failures), (State::Down, 1), "nobody came");
        let mut after = Session::resume(start, params(), 7, &handover);
        after.handle_timeout(start + WINDOW + Duration::from_secs(1));
        assert_eq!((after.state(), after.status().failures), (State::Down, 1), "the peer is gone");
    }

    #[test]
    fn what_is_not_up_or_signed_is_not_handed_over() {
        use crate::bfd::{Auth, AuthKind};
        let now = Instant::now();
        assert_eq!(session(now, 1).handover(), None);
        let (mut signed, _) = pair(now);
        signed.params.auth = Some(Auth::new(AuthKind::KeyedSha1, 1, b"key").expect("valid"));
        assert_eq!(signed.handover(), None);
    }
}
