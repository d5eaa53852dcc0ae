//! The states of RFC 4271 §8.2.2 without a connection: Idle, Connect and Active. They are a peer's and not a
//! session's: a session begins with its connection, in OpenSent, and `session/tests.rs` has the table of the rest.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// Stopped by the operator.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting to dial again.
    Active,
    /// Waiting to be dialled.
    Passive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// Event 9, and the end of an attempt that nobody answered.
    ConnectRetryTimer,
    /// Event 16.
    Dialled,
    /// Event 17.
    Accepted,
    /// Event 18, in its kinds.
    Refused,
    NoRoute,
    TimedOut,
    Local,
    /// Event 18 of a connection that is made.
    Closed,
    /// Events 19 to 28.
    Octets,
    /// Event 2.
    Stop,
    /// Events 2 and 1.
    OtherHoldTime,
    /// No event of the RFC.
    Early,
}

impl Given {
    const EVERY: [Given; 12] = [
        Self::ConnectRetryTimer,
        Self::Dialled,
        Self::Accepted,
        Self::Refused,
        Self::NoRoute,
        Self::TimedOut,
        Self::Local,
        Self::Closed,
        Self::Octets,
        Self::Stop,
        Self::OtherHoldTime,
        Self::Early,
    ];
}

/// A speaker of one peer, and the connection that the peer was dialled on first.
struct Subject {
    speaker: Speaker,
    peer: PeerConfig,
    first: ConnectionId,
    now: Instant,
}

impl Subject {
    fn new(begin: Begin) -> Self {
        let id = RouterId::new([10, 0, 0, 1].into()).expect("valid");
        let speaker = SpeakerConfig { router_id: id, listen: Vec::new(), restarted: false, dynamic: Vec::new() };
        let speaker = Speaker::new(&speaker, false, 1);
        let peer = PeerConfig { passive: begin == Begin::Passive, ..config([10, 0, 0, 2], 64601) };
        let mut subject = Self { speaker, peer, first: ConnectionId(1), now: Instant::now() };
        subject.set_peer();
        match begin {
            Begin::Idle => subject.apply(Given::Stop),
            Begin::Active => subject.apply(Given::Refused),
            Begin::Connect | Begin::Passive => {}
        }
        subject.outputs();
        subject
    }

    fn set_peer(&mut self) {
        self.speaker.set_peers(self.now, [(PeerId("p".into()), self.peer.clone())].into());
        if self.speaker.status()[&PeerId("p".into())].state == State::Connect {
            // The driver hears of the attempt before anything can happen to it.
            assert_eq!(self.outputs().last(), Some(&"connect"));
        }
    }

    fn outputs(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.speaker.poll())
            .map(|output| match output {
                Output::Connect { .. } => "connect",
                Output::Close { .. } => "close",
                Output::Ttl { .. } => "ttl",
                Output::Received(_) => "received",
            })
            .collect()
    }

    fn apply(&mut self, given: Given) {
        let (now, id) = (self.now, self.first);
        let endpoint = Endpoint::new(([10, 0, 0, 1], 50000).into(), ([10, 0, 0, 2], 179).into());
        let speaker = &mut self.speaker;
        match given {
            Given::ConnectRetryTimer => speaker.handle_timeout(now + 6 * SECOND),
            Given::Early => speaker.handle_timeout(now),
            Given::Dialled => speaker.connected(now, id, endpoint),
            Given::Accepted => _ = speaker.accept(now, endpoint),
            Given::Refused => speaker.unreached(now, id, &Unreached::Refused),
            Given::NoRoute => speaker.unreached(now, id, &Unreached::NoRoute("unreachable".into())),
            Given::TimedOut => speaker.unreached(now, id, &Unreached::TimedOut),
            Given::Local => speaker.unreached(now, id, &Unreached::Local("no such device".into())),
            Given::Closed => speaker.closed(now, id, "reset"),
            Given::Octets => _ = speaker.receive(now, id, &[0; 19]),
            Given::Stop => speaker.shutdown(now, &Shutdown::Stop { reason: String::new() }),
            Given::OtherHoldTime => {
                self.peer.hold_time = HoldTime::new(30).expect("valid");
                speaker.set_peers(now, [(PeerId("p".into()), self.peer.clone())].into());
            }
        }
    }
}

/// Where each event leads, and what the driver is told.
fn expected(begin: Begin, given: Given) -> (State, &'static [&'static str]) {
    match (begin, given) {
        (Begin::Idle, _) => (State::Idle, &[]),

        // RFC 4271 dials anew at once; here that takes the quick retry's millisecond.
        (Begin::Connect, Given::ConnectRetryTimer) => (State::Active, &["close"]),
        (Begin::Connect, Given::Dialled | Given::Accepted) => (State::OpenSent, &[]),
        (Begin::Connect, Given::Refused | Given::NoRoute | Given::TimedOut | Given::Local) => (State::Active, &[]),
        (Begin::Connect, Given::Closed | Given::Octets | Given::Early) => (State::Connect, &[]),
        (Begin::Connect, Given::Stop) => (State::Idle, &["close"]),
        (Begin::Connect, Given::OtherHoldTime) => (State::Connect, &["close", "connect"]),

        (Begin::Active, Given::ConnectRetryTimer | Given::OtherHoldTime) => (State::Connect, &["connect"]),
        (Begin::Active | Begin::Passive, Given::Accepted) => (State::OpenSent, &[]),
        (Begin::Active | Begin::Passive, Given::Stop) => (State::Idle, &[]),
        // What the first connection still has to say finds nobody; who is passive does not dial.
        (Begin::Active | Begin::Passive, _) => (State::Active, &[]),
    }
}

#[test]
fn every_event_without_a_connection_leads_where_the_rfc_says() {
    for begin in [Begin::Idle, Begin::Connect, Begin::Active, Begin::Passive] {
        for given in Given::EVERY {
            let mut subject = Subject::new(begin);
            subject.apply(given);
            let state = subject.speaker.status()[&PeerId("p".into())].state;
            let outputs = subject.outputs();
            assert_eq!((state, &outputs[..]), expected(begin, given), "{given:?} in {begin:?}");
        }
    }
}

#[test]
fn peer_that_was_established_is_idle_after_a_stop() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.pass(SECOND);
    let now = pair.now;
    pair.ends[0].speaker.shutdown(now, &Shutdown::Stop { reason: "over".into() });
    assert_eq!(pair.status(0).state, State::Idle);
    assert_eq!(pair.ends[0].speaker.deadline(), None);
}
