use super::*;
use crate::bfd::{Auth, AuthKind, DetectMult};

fn interval(millis: u64) -> Interval {
    Interval::new(Duration::from_millis(millis)).expect("valid")
}

fn params(millis: u64, mult: u8) -> Params {
    Params::new(interval(millis), DetectMult::new(mult).expect("not 0"))
}

fn session(now: Instant, params: Params) -> Session {
    Session::new(now, Discriminator(NonZeroU32::MIN), params, 42)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a peer at 3 × 50 ms says.
fn says(state: State) -> Header {
    Header {
        diag: Diag::NONE,
        state,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).expect("not 0"),
        my_discr: NonZeroU32::new(2).expect("not 0"),
        your_discr: 1,
        desired_min_tx: 50_000,
        required_min_rx: 50_000,
        required_min_echo_rx: 0,
    }
}

fn hear(session: &mut Session, now: Instant, header: &Header) {
    let datagram = Datagram::new(header);
    let _ = session.handle(now, now, &Packet::decode(datagram.as_ref()).expect("valid"));
}

/// The packets that the session wants to send now.
fn sent(session: &mut Session) -> Vec<Header> {
    let mut packets = vec![];
    while let Some(output) = session.poll() {
        if let Output::Transmit(datagram) = output {
            packets.push(Packet::decode(datagram.as_ref()).expect("valid").header);
        }
    }
    packets
}

/// Up at `now`, its poll sequence done, nothing left to send.
fn up(now: Instant, params: Params) -> Session {
    let mut session = session(now, params);
    hear(&mut session, now, &says(State::Down));
    hear(&mut session, now, &says(State::Up));
    hear(&mut session, now, &Header { final_: true, ..says(State::Up) });
    assert_eq!(session.state(), State::Up);
    sent(&mut session);
    session
}

/// A session brought to `state` by packets.
fn in_state(now: Instant, state: State) -> Session {
    match state {
        State::AdminDown => session(now, Params { admin_down: true, ..params(50, 3) }),
        State::Down => session(now, params(50, 3)),
        State::Init => {
            let mut session = session(now, params(50, 3));
            hear(&mut session, now, &says(State::Down));
            session
        }
        State::Up => up(now, params(50, 3)),
    }
}

/// RFC 5880 §6.2 and §6.8.6: every state, everything that a peer may say, and the end of the detection time.
#[test]
fn every_state_reacts_to_every_input_as_the_rfc_says() {
    use State::{AdminDown, Down, Init, Up};
    let table = [
        // state, [AdminDown, Down, Init, Up, detection time over]
        (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown, AdminDown]),
        (Down, [Down, Init, Up, Down, Down]),
        (Init, [Down, Init, Up, Up, Down]),
        (Up, [Down, Down, Up, Up, Down]),
    ];
    let now = Instant::now();
    for (state, expected) in table {
        for (received, want) in [AdminDown, Down, Init, Up].into_iter().zip(expected) {
            let mut session = in_state(now, state);
            hear(&mut session, now, &says(received));
            assert_eq!(session.state(), want, "{state} received {received}");
        }
        let mut session = in_state(now, state);
        session.handle_timeout(now + Duration::from_secs(10));
        assert_eq!(session.state(), expected[4], "{state}, detection time over");
    }
}

#[test]
fn diagnostics_tell_silence_from_a_word() {
    let now = Instant::now();
    let mut silent = up(now, params(50, 3));
    silent.handle_timeout(now + ms(150));
    assert_eq!((silent.status().diag, silent.status().failures), (Diag::DETECTION_TIME_EXPIRED, 1));
    let mut told = up(now, params(50, 3));
    hear(&mut told, now, &says(State::Down));
    assert_eq!((told.status().diag, told.status().failures), (Diag::NEIGHBOR_SIGNALED_DOWN, 1));
}

#[test]
fn orderly_end_of_either_side_is_no_failure() {
    let now = Instant::now();
    let mut told = up(now, params(50, 3));
    hear(&mut told, now, &says(State::AdminDown));
    assert_eq!((told.state(), told.status().failures), (State::Down, 0));
    let mut own = up(now, params(50, 3));
    own.set_params(now, Params { admin_down: true, ..params(50, 3) });
    assert_eq!((own.state(), own.status().failures), (State::AdminDown, 0));
}

#[test]
fn detection_time_is_the_peers_multiplier_times_the_slower_interval() {
    let now = Instant::now();
    let mut session = up(now, params(10, 7));
    assert_eq!(session.status().detection_time, ms(150), "the peer sends every 50 ms");
    hear(&mut session, now, &Header { desired_min_tx: 5_000, ..says(State::Up) });
    assert_eq!(session.status().detection_time, ms(30), "we take no more than one in 10 ms");
    session.handle_timeout(now + ms(29));
    assert_eq!(session.state(), State::Up);
    session.handle_timeout(now + ms(30));
    assert_eq!(session.state(), State::Down);
}

#[test]
fn no_detection_timer_runs_before_the_first_packet() {
    let now = Instant::now();
    let mut session = session(now, params(10, 3));
    assert_eq!(session.next_detection(), None);
    session.handle_timeout(now + Duration::from_secs(3600));
    assert_eq!(session.status().diag, Diag::NONE);
}

#[test]
fn packet_that_the_kernel_had_in_time_counts_though_we_are_late() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    let datagram = Datagram::new(&says(State::Up));
    let packet = Packet::decode(datagram.as_ref()).expect("valid");
    session.handle(now + ms(190), now + ms(140), &packet).expect("taken");
    session.handle_timeout(now + ms(190));
    assert_eq!(session.state(), State::Up);
    assert_eq!(session.next_detection(), Some(now + ms(290)), "counted from when the kernel had it");
}

#[test]
fn nothing_is_sent_faster_than_once_a_second_unless_up() {
    let now = Instant::now();
    let mut session = session(now, params(10, 3));
    let mut at = vec![];
    for step in 0..5000 {
        session.handle_timeout(now + ms(step));
        at.extend(sent(&mut session).iter().map(|packet| {
            assert_eq!((packet.desired_min_tx, packet.required_min_rx), (1_000_000, 10_000));
            step
        }));
    }
    assert!(at.windows(2).all(|pair| (750..=1001).contains(&(pair[1] - pair[0]))), "{at:?}");
    assert!((5..=7).contains(&at.len()), "{at:?}");
}

#[test]
fn jitter_takes_up_to_a_quarter_and_at_least_a_tenth_with_multiplier_one() {
    for (mult, longest) in [(3, 100.0), (1, 90.0)] {
        let mut now = Instant::now();
        let mut session = up(now, params(100, mult));
        let mut gaps = vec![];
        for _ in 0..2000 {
            let due = session.next_transmit().expect("sends");
            gaps.push(due.duration_since(now).as_secs_f64() * 1e3);
            now = due;
            session.handle_transmit(now);
            assert_eq!(sent(&mut session).len(), 1);
        }
        gaps.remove(0);
        assert!(gaps.iter().all(|gap| (75.0 - 0.01..=longest + 0.01).contains(gap)));
        let spread = gaps.iter().copied().fold(f64::MAX, f64::min)..gaps.iter().copied().fold(0.0, f64::max);
        assert!(spread.start < 76.0 && spread.end > longest - 1.0, "{spread:?}");
    }
}

#[test]
fn packets_that_come_in_do_not_postpone_those_that_go_out() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    let due = session.next_transmit();
    for step in 0..40 {
        hear(&mut session, now + ms(step), &says(State::Up));
        assert_eq!(session.next_transmit(), due);
    }
}

#[test]
fn peer_that_requires_nothing_is_sent_nothing_but_answers() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    hear(&mut session, now, &Header { required_min_rx: 0, ..says(State::Up) });
    assert_eq!(session.next_transmit(), None);
    hear(&mut session, now, &Header { required_min_rx: 0, poll: true, ..says(State::Up) });
    let answers = sent(&mut session);
    assert!(matches!(answers[..], [Header { final_: true, poll: false, .. }]), "{answers:?}");
    session.handle_timeout(now + ms(150));
    assert!(session.next_transmit().is_some(), "begins anew once the peer is forgotten");
}

#[test]
fn reduced_requirement_of_the_peer_is_honoured_at_once() {
    let now = Instant::now();
    let mut session = up(now, params(10, 3));
    hear(&mut session, now, &Header { required_min_rx: 1_000_000, ..says(State::Up) });
    session.handle_transmit(now + Duration::from_secs(1));
    assert!(session.next_transmit().expect("sends") > now + ms(1700));
    hear(&mut session, now + ms(1100), &Header { required_min_rx: 50_000, ..says(State::Up) });
    assert!(session.next_transmit().expect("sends") <= now + ms(1100));
}

#[test]
fn passive_end_waits_for_the_first_word() {
    let now = Instant::now();
    let mut session = session(now, Params { passive: true, ..params(50, 3) });
    session.handle_timeout(now + Duration::from_secs(60));
    assert!(sent(&mut session).is_empty() && session.deadline().is_none());
    hear(&mut session, now, &Header { your_discr: 0, ..says(State::Down) });
    assert!(matches!(sent(&mut session)[..], [Header { state: State::Init, your_discr: 2, .. }]));
}

#[test]
fn poll_is_answered_at_once_and_never_with_poll() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    session.set_params(now, params(20, 3));
    sent(&mut session);
    let due = session.next_transmit();
    hear(&mut session, now, &Header { poll: true, ..says(State::Up) });
    let answers = sent(&mut session);
    assert!(matches!(answers[..], [Header { final_: true, poll: false, .. }]), "{answers:?}");
    assert_eq!(session.next_transmit(), due);
}

#[test]
fn slower_sending_waits_for_the_peers_confirmation_and_one_packet_more() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    session.set_params(now, Params { required_min_rx: interval(50), ..params(400, 3) });
    assert!(matches!(sent(&mut session)[..], [Header { poll: true, desired_min_tx: 400_000, .. }]));
    assert_eq!(session.status().transmit_interval, ms(50));
    hear(&mut session, now, &Header { final_: true, ..says(State::Up) });
    assert!(!session.status().polling);
    assert_eq!(session.status().transmit_interval, ms(50));
    session.handle_transmit(now + ms(50));
    assert!(matches!(session.poll(), Some(Output::Transmit(_))));
    assert_eq!((session.poll(), session.poll()), (Some(Output::Changed), None), "the pace that is told has changed");
    assert_eq!(session.status().transmit_interval, ms(400));
}

#[test]
fn faster_detection_waits_for_the_peers_confirmation() {
    let now = Instant::now();
    let mut session = up(now, params(300, 3));
    assert_eq!(session.status().detection_time, ms(900));
    session.set_params(now, params(50, 3));
    assert_eq!(session.status().detection_time, ms(900));
    hear(&mut session, now, &Header { final_: true, ..says(State::Up) });
    assert_eq!(session.status().detection_time, ms(150));
}

#[test]
fn change_during_a_poll_sequence_needs_one_of_its_own() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    session.set_params(now, params(400, 3));
    session.set_params(now, params(600, 3));
    sent(&mut session);
    hear(&mut session, now, &Header { final_: true, ..says(State::Up) });
    assert_eq!(session.status().transmit_interval, ms(50), "the answer may be to the first");
    hear(&mut session, now, &Header { final_: true, ..says(State::Up) });
    session.handle_transmit(now + ms(50));
    assert_eq!(session.status().transmit_interval, ms(600));
}

#[test]
fn demand_of_the_peer_silences_us_while_both_are_up() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    hear(&mut session, now, &Header { demand: true, ..says(State::Up) });
    assert_eq!(session.next_transmit(), None);
    session.set_params(now, params(70, 3));
    assert!(session.next_transmit().is_some(), "a poll sequence is sent all the same");
    hear(&mut session, now, &Header { demand: true, state: State::Down, ..says(State::Up) });
    assert!(session.next_transmit().is_some());
}

#[test]
fn admin_down_is_said_as_often_as_the_peer_may_miss_packets_at_the_old_pace() {
    let now = Instant::now();
    let mut session = up(now, params(50, 3));
    session.set_params(now, Params { admin_down: true, ..params(50, 3) });
    let (mut said, mut at) = (0, now);
    for _ in 0..10 {
        said += sent(&mut session).iter().filter(|packet| packet.state == State::AdminDown).count();
        if session.is_finished() {
            break;
        }
        at = session.next_transmit().expect("goes on");
        session.handle_timeout(at);
    }
    assert_eq!(said, 3);
    assert!(at <= now + ms(100), "{:?}", at - now);
}

#[test]
fn echo_is_trusted_only_once_it_came_back_and_then_carries_detection() {
    let now = Instant::now();
    let with_echo = Params { echo: Some(interval(20)), ..params(100, 3) };
    let mut session = up(now, with_echo);
    hear(&mut session, now, &Header { required_min_echo_rx: 10_000, ..says(State::Up) });
    session.handle_transmit(now);
    let payload = std::iter::from_fn(|| session.poll())
        .find_map(|output| if let Output::Echo(payload) = output { Some(payload) } else { None })
        .expect("echo is sent");
    assert_eq!(session.status().detection_time, ms(300), "nothing changes before an echo came back");
    assert!(!session.handle_echo(now, now, &[0; 20]), "a stranger's");
    assert!(session.handle_echo(now, now, payload.as_ref()));
    assert!(!session.handle_echo(now, now, payload.as_ref()), "the same again");
    assert!(sent(&mut session).iter().any(|packet| packet.poll && packet.required_min_rx == 1_000_000));
    assert_eq!(session.next_detection(), Some(now + ms(60)));
    session.handle_timeout(now + ms(60));
    assert_eq!((session.state(), session.status().diag), (State::Down, Diag::ECHO_FAILED));
}

fn auth(kind: AuthKind, key: &[u8]) -> Option<Auth> {
    Some(Auth::new(kind, 5, key).expect("valid"))
}

fn authenticated(auth: Option<Auth>) -> Session {
    session(Instant::now(), Params { auth, ..params(50, 3) })
}

/// The next packet of a session, sent again by force.
fn packet_of(session: &mut Session) -> Datagram {
    session.encode(false)
}

fn offer(to: &mut Session, datagram: &Datagram) -> Result<(), Discard> {
    let now = Instant::now();
    to.handle(now, now, &Packet::decode(datagram.as_ref()).expect("valid"))
}

#[test]
fn authentication_refuses_by_reason() {
    use AuthKind::{KeyedSha1, MeticulousKeyedSha1, Password};
    let sent_with = |auth| packet_of(&mut authenticated(auth));
    let cases = [
        (auth(Password, b"a"), None, Err(Discard::MissingAuth)),
        (None, auth(Password, b"a"), Err(Discard::UnexpectedAuth)),
        (auth(Password, b"a"), auth(Password, b"a"), Ok(())),
        (auth(Password, b"a"), auth(Password, b"b"), Err(Discard::AuthFailed)),
        (auth(Password, b"a"), auth(KeyedSha1, b"a"), Err(Discard::AuthType)),
        (auth(KeyedSha1, b"a"), auth(KeyedSha1, b"a"), Ok(())),
        (auth(KeyedSha1, b"a"), auth(KeyedSha1, b"b"), Err(Discard::AuthFailed)),
        (auth(KeyedSha1, b"a"), auth(MeticulousKeyedSha1, b"a"), Err(Discard::AuthType)),
        (auth(MeticulousKeyedSha1, b"a"), auth(MeticulousKeyedSha1, b"a"), Ok(())),
    ];
    for (ours, theirs, want) in cases {
        let got = offer(&mut authenticated(ours.clone()), &sent_with(theirs.clone()));
        assert_eq!(got, want, "{ours:?} hears {theirs:?}");
    }
    let other_id = Some(Auth::new(KeyedSha1, 6, b"a").expect("valid"));
    assert_eq!(offer(&mut authenticated(auth(KeyedSha1, b"a")), &sent_with(other_id)), Err(Discard::AuthFailed));
}

#[test]
fn changed_octet_breaks_the_digest() {
    let auth = auth(AuthKind::KeyedSha1, b"key");
    let datagram = packet_of(&mut authenticated(auth.clone()));
    for at in [0, 1, 2, 7, 15, 19, 23, 31, 40, 51] {
        let mut octets = datagram.as_ref().to_vec();
        octets[at] ^= 0x10;
        let now = Instant::now();
        let got = Packet::decode(&octets).map(|packet| authenticated(auth.clone()).handle(now, now, &packet));
        assert!(!matches!(got, Ok(Ok(()))), "octet {at}");
    }
}

#[test]
fn meticulous_sequence_refuses_replay_and_too_far_ahead() {
    let key = auth(AuthKind::MeticulousKeyedSha1, b"key");
    let (mut from, mut to) = (authenticated(key.clone()), authenticated(key));
    let first = packet_of(&mut from);
    assert_eq!(offer(&mut to, &first), Ok(()));
    assert_eq!(offer(&mut to, &first), Err(Discard::Replayed));
    for _ in 0..8 {
        packet_of(&mut from);
    }
    assert_eq!(offer(&mut to, &packet_of(&mut from)), Ok(()), "three times the multiplier ahead");
    for _ in 0..9 {
        packet_of(&mut from);
    }
    assert_eq!(offer(&mut to, &packet_of(&mut from)), Err(Discard::Replayed), "one more than that");
}

#[test]
fn sequence_is_forgotten_after_two_detection_times() {
    let key = auth(AuthKind::MeticulousKeyedSha1, b"key");
    let (mut from, mut to) = (authenticated(key.clone()), authenticated(key));
    let first = packet_of(&mut from);
    let now = Instant::now();
    let packet = Packet::decode(first.as_ref()).expect("valid");
    assert_eq!(to.handle(now, now, &packet), Ok(()));
    let later = now + to.detection_time() * 2;
    assert_eq!(to.handle(later, later, &packet), Err(Discard::Replayed));
    assert_eq!(to.handle(later + ms(1), later + ms(1), &packet), Ok(()));
}
