use super::*;
use crate::{
    Asn, HoldTime, RouterId,
    jitter::Jitter,
    speaker::{PeerAs, PeerConfig},
    wire::{
        Families,
        message::{Kind, Refresh, frame},
        open::Open,
        update,
    },
};

mod negotiation;

const SECOND: Duration = Duration::from_secs(1);

/// An end of a session, its configuration changed by `change`.
fn end(asn: u32, id: [u8; 4], change: impl FnOnce(&mut PeerConfig)) -> Local {
    let asn = Asn::new(asn).expect("valid");
    let mut config = PeerConfig::new([10, 0, 0, 2].into(), asn, PeerAs::External);
    config.families = Families::EVERY.into();
    change(&mut config);
    Local::new(config.into(), RouterId::new(id.into()).expect("valid"), false, false)
}

fn local(asn: u32, id: [u8; 4]) -> Local {
    end(asn, id, |_| {})
}

fn ours(change: impl FnOnce(&mut PeerConfig)) -> Local {
    end(64601, [10, 0, 0, 1], change)
}

fn theirs(change: impl FnOnce(&mut PeerConfig)) -> Local {
    end(64500, [10, 0, 0, 2], change)
}

fn session(now: Instant, local: Local) -> Session {
    let endpoint = Endpoint::new(([10, 0, 0, 1], 50000).into(), ([10, 0, 0, 2], 179).into());
    Session::new(now, local, endpoint, Jitter::new(1))
}

fn their_open() -> Open {
    theirs(|_| {}).open()
}

fn octets(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// A session in the state, with nothing left to transmit or to tell.
fn in_state(now: Instant, state: State, ours: Local) -> Session {
    let mut session = session(now, ours);
    if state >= State::OpenConfirm {
        session.receive(now, &octets(|o| their_open().encode(o)));
    }
    if state == State::Established {
        session.receive(now, &octets(message::encode_keepalive));
    }
    assert_eq!(session.state(), state);
    while session.transmit(now).is_some() {}
    while session.poll().is_some() {}
    session
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Given {
    Open,
    UnacceptableOpen,
    OpenOfOurAs,
    MalformedOpen,
    Keepalive,
    Update,
    DamagedUpdate,
    Notification,
    Refresh,
    ShortRefresh,
    BrokenMarker,
    OverlongKeepalive,
    UnknownType,
    HoldTimer,
    KeepaliveTimer,
    Closed,
    Stop,
    Refuse,
    Drop,
    Early,
}

impl Given {
    const EVERY: [Given; 20] = [
        Self::Open,
        Self::UnacceptableOpen,
        Self::OpenOfOurAs,
        Self::MalformedOpen,
        Self::Keepalive,
        Self::Update,
        Self::DamagedUpdate,
        Self::Notification,
        Self::Refresh,
        Self::ShortRefresh,
        Self::BrokenMarker,
        Self::OverlongKeepalive,
        Self::UnknownType,
        Self::HoldTimer,
        Self::KeepaliveTimer,
        Self::Closed,
        Self::Stop,
        Self::Refuse,
        Self::Drop,
        Self::Early,
    ];

    fn octets(self) -> Vec<u8> {
        octets(|out| match self {
            Self::Open => their_open().encode(out),
            Self::UnacceptableOpen => {
                their_open().encode(out);
                out[22..24].copy_from_slice(&[0, 1]);
            }
            Self::OpenOfOurAs => local(64601, [10, 0, 0, 2]).open().encode(out),
            Self::Keepalive => message::encode_keepalive(out),
            Self::Update => update::encode_end_of_rib(Family::Ipv4Unicast, out),
            Self::DamagedUpdate => {
                update::encode_end_of_rib(Family::Ipv4Unicast, out);
                out[22] = 9;
            }
            Self::Notification => Notification::cease(4).encode(out),
            Self::Refresh => message::encode_refresh(Refresh::Request(Family::Ipv4Unicast), out),
            Self::ShortRefresh => {
                let start = message::start(out, Kind::RouteRefresh);
                out.push(0);
                message::finish(out, start);
            }
            Self::MalformedOpen => {
                their_open().encode(out);
                out[28] = 1;
            }
            Self::BrokenMarker => out.extend_from_slice(&[0; 19]),
            Self::OverlongKeepalive => {
                message::encode_keepalive(out);
                out[17] = 20;
                out.push(0);
            }
            Self::UnknownType => {
                message::encode_keepalive(out);
                out[18] = 9;
            }
            _ => {}
        })
    }

    fn apply(self, session: &mut Session, now: Instant) {
        match self {
            Self::HoldTimer => session.handle_timeout(now + 300 * SECOND),
            // A third of 90 seconds, less up to a quarter; the hold timer is far away.
            Self::KeepaliveTimer => session.handle_timeout(now + 31 * SECOND),
            Self::Early => session.handle_timeout(now + SECOND),
            Self::Closed => session.closed("reset by peer"),
            Self::Stop => session.stop(Notification::cease(2), true),
            Self::Refuse => session.refuse(Notification::maximum_prefixes(Family::Ipv4Unicast, 9), "too many".into()),
            Self::Drop => session.drop_silently(),
            _ => {
                session.receive(now, &self.octets());
            }
        }
    }
}

/// RFC 4271 §8.2.2 and RFC 6608: where each event leads, and the NOTIFICATION that goes out. Idle, Connect and
/// Active have their table in `peer/tests/states.rs`.
fn expected(state: State, given: Given) -> (State, Option<(u8, u8)>) {
    use State::{Established, Idle, OpenConfirm, OpenSent};
    let ends = |code, subcode| (Idle, Some((code, subcode)));
    match (state, given) {
        (_, Given::BrokenMarker) => ends(1, 1),
        (_, Given::OverlongKeepalive) => ends(1, 2),
        (_, Given::UnknownType) => ends(1, 3),
        (_, Given::HoldTimer) => ends(4, 0),
        (_, Given::Stop) => ends(6, 2),
        (_, Given::Refuse) => ends(6, 1),
        (_, Given::Notification | Given::Closed | Given::Drop) => (Idle, None),
        (_, Given::KeepaliveTimer | Given::Early) => (state, None),

        (OpenSent, Given::Open) => (OpenConfirm, None),
        (OpenSent, Given::MalformedOpen) => ends(2, 0),
        (OpenSent, Given::UnacceptableOpen) => ends(2, 6),
        (OpenSent, Given::OpenOfOurAs) => ends(2, 2),
        (OpenSent, _) => ends(5, 1),

        (OpenConfirm, Given::Keepalive) => (Established, None),
        (OpenConfirm, _) => ends(5, 2),

        (Established, Given::Keepalive | Given::Update | Given::Refresh) => (Established, None),
        (Established, Given::DamagedUpdate) => ends(3, 1),
        (Established, Given::ShortRefresh) => ends(7, 1),
        (Established, _) => ends(5, 3),

        _ => panic!("{state} has no connection"),
    }
}

#[test]
fn every_event_in_every_state_leads_where_the_rfc_says() {
    let now = Instant::now();
    for state in [State::OpenSent, State::OpenConfirm, State::Established] {
        for given in Given::EVERY {
            let mut session = in_state(now, state, ours(|_| {}));
            given.apply(&mut session, now);
            let last = session.farewell().or_else(|| session.transmit(now));
            let notification = last.as_deref().and_then(|octets| {
                let frame = frame(octets, false).expect("valid").expect("complete");
                (frame.kind == Kind::Notification).then(|| (frame.body()[0], frame.body()[1]))
            });
            assert_eq!((session.state(), notification), expected(state, given), "{given:?} in {state}");
            let ended = std::iter::from_fn(|| session.poll()).any(|e| matches!(e, Event::Ended(_)));
            assert_eq!(ended, session.state() == State::Idle, "{given:?} in {state}");
        }
    }
}

/// RFC 6608 §4: the data is the type of the message that was unexpected.
#[test]
fn unexpected_message_is_named_by_its_type() {
    let now = Instant::now();
    let cases =
        [(State::OpenSent, Given::Update), (State::OpenConfirm, Given::Refresh), (State::Established, Given::Open)];
    for ((state, given), kind) in cases.into_iter().zip([Kind::Update, Kind::RouteRefresh, Kind::Open]) {
        let mut session = in_state(now, state, ours(|_| {}));
        given.apply(&mut session, now);
        let last = session.farewell().expect("a NOTIFICATION");
        assert_eq!(last[message::HEADER + 2..], [kind as u8], "{given:?} in {state}");
    }
}

#[test]
fn nothing_wakes_a_session_that_is_over() {
    let now = Instant::now();
    for given in Given::EVERY {
        let mut session = in_state(now, State::Established, ours(|_| {}));
        session.closed("gone");
        while session.poll().is_some() {}
        given.apply(&mut session, now);
        assert_eq!(session.state(), State::Idle, "{given:?}");
        assert!(session.poll().is_none() && session.deadline().is_none(), "{given:?}");
        assert_eq!(session.transmit(now), None, "{given:?}");
    }
}

#[test]
fn hold_time_zero_switches_both_timers_off() {
    let now = Instant::now();
    let never = ours(|c| c.hold_time = HoldTime::new(0).expect("valid"));
    let mut session = in_state(now, State::Established, never);
    assert_eq!(session.deadline(), None);
    session.handle_timeout(now + 1_000_000 * SECOND);
    assert_eq!(session.state(), State::Established);
}

#[test]
fn router_that_closes_or_falls_silent_early_may_want_ttl_security() {
    use crate::speaker::Ttl;
    let now = Instant::now();
    let told = |state, ttl, end: fn(&mut Session, Instant)| {
        let mut session = in_state(now, state, ours(|c| c.ttl = ttl));
        end(&mut session, now);
        let Some(Event::Ended(end)) = session.poll() else { panic!("it is over") };
        end.words().expect("a fault")
    };
    let closed = |session: &mut Session, _| session.closed("closed by the router");
    assert!(told(State::OpenSent, Ttl::Direct, closed).contains("does it want TTL security"));
    assert!(told(State::OpenSent, Ttl::Security { hops: 1 }, closed).ends_with("as a neighbour?"));
    let silent = |session: &mut Session, now| session.handle_timeout(now + 300 * SECOND);
    assert!(told(State::OpenConfirm, Ttl::Direct, silent).contains("does not hear us since"));
    assert!(told(State::Established, Ttl::Direct, silent).contains("does not hear us since"));
}

#[test]
fn silent_peer_is_given_up_after_the_negotiated_hold_time_and_not_before() {
    let now = Instant::now();
    let ours = ours(|c| c.hold_time = HoldTime::new(9).expect("valid"));
    let mut session = in_state(now, State::Established, ours);
    session.receive(now + 8 * SECOND, &Given::Keepalive.octets());
    session.handle_timeout(now + 16 * SECOND);
    assert_eq!(session.state(), State::Established);
    session.handle_timeout(now + 17 * SECOND);
    let Some(Event::Ended(end)) = session.poll() else { panic!("it is over") };
    assert!(end.words().expect("a fault").contains("Hold Timer Expired"));
}

#[test]
fn peer_that_says_nothing_at_all_is_given_up_after_four_minutes() {
    let now = Instant::now();
    let mut session = session(now, ours(|_| {}));
    assert_eq!(session.deadline(), Some(now + 240 * SECOND));
    session.handle_timeout(now + 240 * SECOND);
    assert_eq!(session.state(), State::Idle);
}

#[test]
fn keepalives_go_out_before_a_third_of_the_hold_time_and_pass_a_backlog() {
    let now = Instant::now();
    let mut session = in_state(now, State::Established, ours(|_| {}));
    let chunks = vec![(Bytes::from_static(b"one"), 1), (Bytes::from_static(b"two"), 1)];
    session.send(Arc::new(Rendered { chunks, advertised: Default::default(), unsent: Families::NONE }));
    assert_eq!(session.transmit(now).as_deref(), Some(b"one".as_slice()));
    let due = session.deadline().expect("armed");
    assert!((now + 22 * SECOND..=now + 30 * SECOND).contains(&due), "{:?}", due - now);
    session.handle_timeout(due);
    assert_eq!(session.transmit(due).map(|o| o.len()), Some(19));
    assert_eq!(session.transmit(due).as_deref(), Some(b"two".as_slice()));
    assert!(session.poll().is_none());
    assert_eq!(session.transmit(due), None);
    assert!(matches!(session.poll(), Some(Event::Drained)));
}

#[test]
fn peer_that_reads_nothing_is_given_up_after_the_send_hold_time() {
    let now = Instant::now();
    let mut session = in_state(now, State::Established, ours(|_| {}));
    let chunks = vec![(Bytes::from_static(b"one"), 1)];
    session.send(Arc::new(Rendered { chunks, advertised: Default::default(), unsent: Families::NONE }));
    assert!(session.transmit(now).is_some());
    for minute in 1..8 {
        session.receive(now + 60 * minute * SECOND, &Given::Keepalive.octets());
        session.handle_timeout(now + 60 * minute * SECOND);
        assert_eq!(session.state(), State::Established);
    }
    session.receive(now + 479 * SECOND, &Given::Keepalive.octets());
    session.handle_timeout(now + 480 * SECOND);
    assert_eq!(session.state(), State::Idle);
}

#[test]
fn end_for_good_is_a_hard_reset_where_the_peer_would_keep_the_routes() {
    let now = Instant::now();
    let graceful = |asn, id| end(asn, id, |c| c.graceful_restart = Some(120 * SECOND));
    let mut session = session(now, graceful(64601, [10, 0, 0, 1]));
    session.receive(now, &octets(|o| graceful(64500, [10, 0, 0, 2]).open().encode(o)));
    session.receive(now, &Given::Keepalive.octets());
    session.stop(Notification::shutdown(2, "drained"), true);
    let last = session.farewell().expect("a NOTIFICATION");
    let notification = Notification::decode(&last[message::HEADER..]);
    assert!(notification.is_hard_reset(), "{notification}");
    let ended = std::iter::from_fn(|| session.poll()).find_map(|e| match e {
        Event::Ended(end) => Some(end),
        _ => None,
    });
    assert_eq!(ended.expect("over").graceful, None);
}

#[test]
fn families_that_only_one_end_has_are_not_used_and_none_in_common_is_told() {
    let now = Instant::now();
    let only = |family| move |c: &mut PeerConfig| c.families = [family].into();
    let mut v6 = session(now, ours(only(Family::Ipv6Unicast)));
    v6.receive(now, &Given::Open.octets());
    assert_eq!(v6.negotiated().map(|n| n.families), Some([Family::Ipv6Unicast].into_iter().collect()));
    let mut v6 = session(now, ours(only(Family::Ipv6Unicast)));
    v6.receive(now, &octets(|o| theirs(only(Family::Ipv4Unicast)).open().encode(o)));
    let Some(Event::Ended(end)) = v6.poll() else { panic!("refused") };
    let words = end.words().expect("a fault");
    assert!(words.contains("we offer ipv6-unicast, it offers ipv4-unicast"), "{words}");
}

#[test]
fn peer_without_extended_messages_is_sent_none_and_may_send_none() {
    let now = Instant::now();
    let mut open = their_open();
    open.capabilities.extended_message = false;
    let mut plain = session(now, ours(|_| {}));
    plain.receive(now, &octets(|o| open.encode(o)));
    let extended = in_state(now, State::Established, ours(|_| {}));
    let limit = |s: &Session| s.negotiated().map(|n| n.limit());
    assert_eq!((limit(&plain), limit(&extended)), (Some(message::MAX), Some(message::MAX_EXTENDED)));
    plain.receive(now, &Given::Keepalive.octets());
    let mut header = [0xFF; 19];
    header[16..].copy_from_slice(&[0x10, 0x01, Kind::Update as u8]);
    plain.receive(now, &header);
    assert_eq!(plain.state(), State::Idle);
}

#[test]
fn refresh_of_the_peer_is_handed_up() {
    let now = Instant::now();
    let mut session = in_state(now, State::Established, ours(|_| {}));
    session.receive(now, &Given::Refresh.octets());
    assert!(matches!(session.poll(), Some(Event::Refresh(Family::Ipv4Unicast))));
}
