use super::*;
use crate::{
    Asn, HoldTime, RouterId,
    jitter::Jitter,
    speaker::{AddPath, PeerAs, PeerConfig, Role},
    wire::{
        Families,
        message::{Kind, Refresh, frame},
        open::Open,
        update,
    },
};

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
    session.send(Arc::new(Rendered { chunks, advertised: Arc::default(), unsent: Families::NONE }));
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
    session.send(Arc::new(Rendered { chunks, advertised: Arc::default(), unsent: Families::NONE }));
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

/// What comes of two ends.
fn negotiated(ours: Local, theirs: &Local) -> Arc<Negotiated> {
    let now = Instant::now();
    let mut session = session(now, ours);
    session.receive(now, &octets(|o| theirs.open().encode(o)));
    session.negotiated().expect("they fit").clone()
}

#[test]
fn ipv6_next_hops_for_ipv4_need_both_ends_and_the_family() {
    let with = |on, families: &'static [Family]| {
        move |c: &mut PeerConfig| {
            c.extended_next_hop = on;
            c.families = families.iter().copied().collect();
        }
    };
    let (both, v6) = (&Families::EVERY[..], &[Family::Ipv6Unicast][..]);
    let agreed = |a, b, fa, fb| negotiated(ours(with(a, fa)), &theirs(with(b, fb))).extended_next_hop;
    assert!(agreed(true, true, both, both));
    assert!(!agreed(true, false, both, both) && !agreed(false, true, both, both));
    assert!(!agreed(true, true, v6, both) && !agreed(true, true, both, v6));
    assert!(PeerConfig::new("fe80::1".parse().expect("valid"), ours(|_| {}).asn(), PeerAs::External).extended_next_hop);
}

#[test]
fn several_paths_go_where_one_end_sends_and_the_other_receives() {
    let with = |send, receive| move |c: &mut PeerConfig| c.add_path = AddPath { send, receive };
    let every = Families::from_iter(Families::EVERY);
    for (us, them) in [((true, false), (false, true)), ((true, true), (true, true)), ((true, false), (true, false))] {
        let agreed = negotiated(ours(with(us.0, us.1)), &theirs(with(them.0, them.1)));
        let expected = |on| if on { every } else { Families::NONE };
        assert_eq!(agreed.add_path_send, expected(us.0 && them.1), "{us:?} {them:?}");
        assert_eq!(agreed.add_path_receive, expected(us.1 && them.0), "{us:?} {them:?}");
        assert_eq!(agreed.context([10, 0, 0, 1].into()).add_path, agreed.add_path_receive);
    }
    let v6 = negotiated(
        ours(with(true, true)),
        &theirs(|c| {
            with(true, true)(c);
            c.families = [Family::Ipv6Unicast].into();
        }),
    );
    assert_eq!(v6.add_path_send, [Family::Ipv6Unicast].into_iter().collect());
}

/// The NOTIFICATION that our end sends to the other's OPEN, in our operator's words and in the other's.
fn refusal(ours: Local, theirs: Local) -> Option<(String, String)> {
    let now = Instant::now();
    let mut here = session(now, ours);
    here.receive(now, &octets(|o| theirs.open().encode(o)));
    let Some(Event::Ended(end)) = here.poll() else { return None };
    let last = here.farewell().expect("a NOTIFICATION");
    let mut there = session(now, theirs);
    there.receive(now, &last);
    let Some(Event::Ended(refused)) = there.poll() else { panic!("it reads that it is refused") };
    Some((end.words().expect("a fault"), refused.words().expect("a fault")))
}

#[test]
fn roles_that_do_not_fit_end_the_session_with_the_words_of_both_ends() {
    let role = |role, strict| move |c: &mut PeerConfig| (c.role, c.role_strict) = (role, strict);
    let told = |us, strict, them| refusal(ours(role(us, strict)), theirs(role(them, false)));
    let (customer, provider) = (Some(Role::Customer), Some(Role::Provider));
    for (us, strict, them) in [(customer, true, provider), (customer, false, None), (None, true, provider)] {
        assert_eq!(told(us, strict, them), None, "{us:?} {them:?}");
    }
    let (here, there) = told(customer, false, Some(Role::Peer)).expect("refused");
    assert!(here.contains("Role Mismatch") && here.contains("we are customer") && here.contains("says peer"), "{here}");
    assert!(there.contains("Role Mismatch") && there.contains("we say that we are peer"), "{there}");
    let (here, there) = told(customer, true, None).expect("refused");
    assert!(here.contains("it says nothing of roles") && there.contains("set a role here"), "{here} {there}");
    let internal = |c: &mut PeerConfig| (c.peer_as, c.role) = (PeerAs::Internal, customer);
    assert_eq!(ours(internal).open().capabilities.role, None, "within an AS nobody has a role");
}

#[test]
fn second_role_that_differs_from_the_first_is_refused() {
    let now = Instant::now();
    let mut session = session(now, ours(|c| c.role = Some(Role::Customer)));
    let mut open = octets(|o| theirs(|c| c.role = Some(Role::Provider)).open().encode(o));
    open.extend_from_slice(&[2, 3, 9, 1, 4]);
    open[28] += 5;
    message::finish(&mut open, 0);
    session.receive(now, &open);
    let Some(Event::Ended(end)) = session.poll() else { panic!("refused") };
    assert!(end.words().expect("a fault").contains("several roles at once"));
}

#[test]
fn what_the_other_end_refuses_is_told_with_what_we_said() {
    let wrong_as = |c: &mut PeerConfig| c.peer_as = PeerAs::Exactly(Asn::new(64999).expect("valid"));
    let (here, there) = refusal(ours(wrong_as), theirs(|_| {})).expect("refused");
    assert!(here.contains("shows AS 64500, but peerASN is 64999"), "{here}");
    assert!(there.contains("Bad Peer AS; we show AS 64500"), "{there}");
    let only = |family| move |c: &mut PeerConfig| c.families = [family].into();
    let families = (only(Family::Ipv4Unicast), only(Family::Ipv6Unicast));
    let (here, there) = refusal(ours(families.0), theirs(families.1)).expect("refused");
    assert!(here.contains("we offer ipv4-unicast, it offers ipv6-unicast"), "{here}");
    assert!(there.contains("we offer ipv6-unicast"), "{there}");
}

/// An UPDATE of 192.0.2.1/32 from AS 64500, with an attribute more.
fn update_with(attribute: &[u8]) -> Vec<u8> {
    let mut list = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFB, 0xF4, 0x40, 3, 4, 10, 0, 0, 2];
    list.extend_from_slice(attribute);
    octets(|out| {
        _ = update::encode_announce(
            &list,
            &["192.0.2.1/32".parse::<ipnet::Ipv4Net>().expect("valid")],
            message::MAX,
            out,
        )
    })
}

#[test]
fn leaked_route_is_refused_and_counted_and_takes_the_one_before_with_it() {
    let now = Instant::now();
    let ours = Local { deliver: true, ..ours(|c| c.role = Some(Role::Peer)) };
    let mut session = in_state(now, State::Established, ours);
    let otc = |asn: u32| [&[0xC0, 35, 4][..], &asn.to_be_bytes()].concat();
    session.receive(now, &update_with(&otc(64500)));
    assert!(matches!(session.poll(), Some(Event::Announce(_, 0))), "a peer's own route");
    session.receive(now, &update_with(&otc(64501)));
    assert!(matches!(session.poll(), Some(Event::Withdraw(_, 0))), "another's");
    let counters = session.take_counters();
    assert_eq!((counters.prefixes_received, counters.prefixes_leaked, counters.treated_as_withdraw), (2, 1, 0));
    assert_eq!(session.state(), State::Established);
}
