//! Any packets at any time into a BFD session, with parameters that change: its state moves as RFC 5880 §6.8.6 says
//! and no other way, what it sends is valid and not too often, and its deadlines lie ahead.
#![no_main]

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use ironcast_bgp::bfd::{
    Auth, AuthKind, Datagram, DetectMult, Discard, Discriminator, Interval, Output, Packet, Params, Session, State,
};
use ironcast_bgp_fuzz::{Input, memory};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut input = Input(&data[..data.len().min(4096)]);
    memory::within(16 * 1024, || run(&mut input));
});

fn params(input: &mut Input<'_>) -> Params {
    let interval = |octet: u8| Interval::new(Duration::from_millis(u64::from(octet) * 40 + 1)).expect("in range");
    let flags = input.octet();
    let on = |bit: u8| flags & 1 << bit != 0;
    let auth = [None, Some(AuthKind::Password), Some(AuthKind::KeyedSha1), Some(AuthKind::MeticulousKeyedSha1)];
    Params {
        required_min_rx: interval(input.octet()),
        echo: on(0).then(|| interval(input.octet())),
        echo_receive: on(1).then(|| interval(input.octet())),
        passive: on(2),
        control_plane_independent: on(3),
        admin_down: on(4) && on(5),
        auth: auth[usize::from(flags >> 6)].map(|kind| Auth::new(kind, 1, b"key").expect("valid")),
        ..Params::new(interval(input.octet()), DetectMult::new(input.octet().max(1)).expect("not 0"))
    }
}

fn run(input: &mut Input<'_>) {
    let mut now = Instant::now();
    let mut configured = params(input);
    let discr = Discriminator(NonZeroU32::new(7).expect("not 0"));
    let mut session = Session::new(now, discr, configured.clone(), 1);
    let mut failures = 0;
    let mut sent: Option<Instant> = None;
    while !input.is_empty() {
        let before = session.state();
        match input.octet() {
            0..160 => packet(&mut session, now, input),
            160..224 => {
                now += Duration::from_micros(u64::from(input.word() >> 8));
                session.handle_timeout(now);
                let after = session.state();
                let down = matches!((before, after), (State::Up | State::Init, State::Down));
                assert!(after == before || down, "time takes {before} to {after}");
            }
            224..240 => {
                configured = params(input);
                session.set_params(now, configured.clone());
                assert_eq!(session.state() == State::AdminDown, configured.admin_down);
                assert!(session.state() == before || before == State::AdminDown || configured.admin_down);
            }
            _ => {
                let payload = input.take(20);
                session.handle_echo(now, now, payload);
                assert_eq!(session.state(), before, "an echo moves no state");
            }
        }
        drain(&mut session, now, &configured, &mut sent);
        let status = session.status();
        assert!(status.failures >= failures && status.failures <= failures + 1);
        failures = status.failures;
        assert!(session.state() != State::Up || status.remote_discr.is_some(), "Up with nobody");
        // A driver that sleeps until the deadline does not spin. Two calls: the first may forget a peer that wanted
        // nothing sent, which makes a packet due.
        for _ in 0..2 {
            session.handle_timeout(now);
            drain(&mut session, now, &configured, &mut sent);
        }
        assert!(session.deadline().is_none_or(|at| at > now), "{:?} behind", session.deadline().map(|at| now - at));
    }
}

/// A packet that is nearly right: its fixed fields are, the rest is the input's.
fn packet(session: &mut Session, now: Instant, input: &mut Input<'_>) {
    let mut octets = [0; 80];
    let taken = input.take(24);
    octets[..taken.len()].copy_from_slice(taken);
    octets[0] = 0x20 | octets[0] & 0x1F;
    octets[3] = octets[3].clamp(24, 80);
    let extra = if octets[1] & 4 != 0 { input.take(usize::from(octets[3]) - 24) } else { &[] };
    octets[24..24 + extra.len()].copy_from_slice(extra);
    let Ok(packet) = Packet::decode(&octets) else { return };
    let (before, said) = (session.state(), packet.header.state);
    let result = session.handle(now, now, &packet);
    let after = match (before, said) {
        _ if result.is_err() => before,
        (State::AdminDown, _) => State::AdminDown,
        (_, State::AdminDown) => State::Down,
        (State::Down, State::Down) => State::Init,
        (State::Down | State::Init, State::Init) => State::Up,
        (State::Init, State::Up) => State::Up,
        (State::Up, State::Down) => State::Down,
        _ => before,
    };
    assert_eq!(session.state(), after, "{before} hears {said}: {result:?}");
    if before == State::AdminDown {
        assert!(result.is_err());
    }
    if result == Err(Discard::AdminDown) {
        assert_eq!(before, State::AdminDown);
    }
}

fn drain(session: &mut Session, now: Instant, params: &Params, sent: &mut Option<Instant>) {
    let mut packets = 0;
    while let Some(output) = session.poll() {
        let Output::Transmit(datagram) = output else { continue };
        packets += 1;
        valid(&datagram, session, params);
        *sent = Some(now);
    }
    assert!(packets <= 2, "{packets} packets at once");
    assert!(session.poll().is_none());
}

fn valid(datagram: &Datagram, session: &Session, params: &Params) {
    let packet = Packet::decode(datagram.as_ref()).expect("what we send is valid");
    let header = packet.header;
    assert!(!(header.poll && header.final_), "RFC 5880 §6.5");
    assert_eq!(header.my_discr, session.discr().0);
    assert_eq!(header.state, session.state());
    assert_eq!(packet.auth.is_some(), params.auth.is_some());
    if header.state != State::Up {
        assert!(header.desired_min_tx >= 1_000_000, "RFC 5880 §6.8.3");
    }
}
