//! The driver against itself, in two network namespaces: authentication, echo, a cut link, an orderly end, and
//! what strangers send.
#![cfg(feature = "tokio")]

mod support;

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    bfd::{Auth, AuthKind, Config, Diag, Interval, Params, State},
    net::bfd::{Class, Sessions},
};
use support::{
    bfd::{Driver, params, single_hop},
    space::{Space, link, skipped},
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two drivers on one link.
struct Pair {
    spaces: [Space; 2],
    drivers: [Driver; 2],
}

impl Pair {
    fn new() -> Self {
        let spaces = [Space::new(), Space::new()];
        link((&spaces[0], "eth0", 1), (&spaces[1], "eth0", 2), 0);
        let drivers = [spaces[0].bfd(), spaces[1].bfd()];
        Self { spaces, drivers }
    }

    fn set(&self, left: Params, right: Params) {
        self.drivers[0].set(&single_hop("10.77.0.1", "10.77.0.2", "eth0"), left);
        self.drivers[1].set(&single_hop("10.77.0.2", "10.77.0.1", "eth0"), right);
    }

    fn up(params: Params) -> Self {
        let pair = Self::new();
        pair.set(params.clone(), params);
        pair.drivers.iter().for_each(|driver| _ = driver.wait_state(State::Up));
        pair
    }
}

fn failures(driver: &Driver) -> u64 {
    driver.session().expect("there").status.failures
}

#[test]
fn cut_link_is_noticed_at_both_ends() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::up(params(10));
    thread::sleep(ms(200));
    assert_eq!([failures(&pair.drivers[0]), failures(&pair.drivers[1])], [0, 0]);
    pair.spaces[0].ip("link set eth0 down");
    for driver in &pair.drivers {
        let took = driver.wait_state(State::Down);
        assert!(took <= ms(60), "{took:?}");
        assert_eq!(driver.session().expect("there").status.diag, Diag::DETECTION_TIME_EXPIRED);
    }
    pair.spaces[0].ip("link set eth0 up");
    pair.drivers.iter().for_each(|driver| _ = driver.wait_state(State::Up));
}

#[test]
fn thread_is_in_the_real_time_class_or_says_why_not() {
    if skipped(&[]) {
        return;
    }
    let space = Space::new();
    let driver = space.bfd();
    let deadline = Instant::now() + Duration::from_secs(5);
    while driver.bfd.report().class == Class::Starting {
        assert!(Instant::now() < deadline, "thread does not start");
        thread::sleep(ms(1));
    }
    assert!(matches!(driver.bfd.report().class, Class::RealTime(51) | Class::Refused(_)));
}

#[test]
fn meticulous_sha1_comes_up_and_another_key_does_not() {
    if skipped(&[]) {
        return;
    }
    let with = |key: &[u8]| Params {
        auth: Some(Auth::new(AuthKind::MeticulousKeyedSha1, 1, key).expect("valid")),
        ..params(20)
    };
    let pair = Pair::up(with(b"right"));
    thread::sleep(ms(300));
    assert_eq!(failures(&pair.drivers[0]), 0);
    pair.set(with(b"right"), with(b"wrong"));
    pair.drivers[0].wait_state(State::Down);
    assert!(pair.drivers[0].session().expect("there").counters.discarded() > 0);
}

#[test]
fn removed_session_says_admin_down_and_the_peer_counts_no_failure() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::up(params(20));
    pair.drivers[0].bfd.set_sessions(BTreeMap::new()).expect("runs");
    pair.drivers[1].wait_state(State::Down);
    let status = pair.drivers[1].session().expect("there").status;
    assert_eq!((status.failures, status.diag), (0, Diag::NEIGHBOR_SIGNALED_DOWN));
    assert_eq!(status.remote_state, State::AdminDown);
    assert!(pair.drivers[0].session().is_none());
}

#[test]
fn echo_comes_back_and_control_packets_slow_down() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::new();
    let forward = pair.spaces[1].command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status();
    assert!(forward.expect("sysctl starts").success());
    let interval = Some(Interval::new(ms(20)).expect("valid"));
    pair.set(Params { echo: interval, ..params(50) }, Params { echo_receive: interval, ..params(50) });
    let [echoing, reflecting] = &pair.drivers;
    echoing.wait("echo", Duration::from_secs(5), |session| session.status.echo && !session.status.polling);
    reflecting.wait("slow pace", Duration::from_secs(5), |session| session.status.transmit_interval == ms(1000));
    thread::sleep(ms(500));
    let counters = echoing.session().expect("there").counters;
    assert!(counters.echo_received() >= 20, "{counters:?}");
    assert_eq!(failures(echoing), 0);
    // Only the forwarding plane fails: the control packets go on.
    let stop = pair.spaces[1].command("sysctl").args(["-qw", "net.ipv4.ip_forward=0"]).status();
    assert!(stop.expect("sysctl starts").success());
    echoing.wait("echo failure", ms(500), |session| session.status.failures == 1);
}

#[test]
fn what_strangers_send_is_counted_and_changes_nothing() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::up(params(50));
    pair.spaces[0].enter(|| {
        let socket = UdpSocket::bind("10.77.0.1:0").expect("binds");
        let mut down = [0u8; 24];
        (down[0], down[1], down[2], down[3], down[7]) = (0x20, 0x40, 3, 24, 9);
        // TTL 64 though all else is in order; then no control packet; then a discriminator that nobody has.
        socket.send_to(&down, "10.77.0.2:3784").expect("sends");
        socket.set_ttl(255).expect("sets");
        socket.send_to(&down[..20], "10.77.0.2:3784").expect("sends");
        down[8] = 1;
        socket.send_to(&down, "10.77.0.2:3784").expect("sends");
    });
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let report = pair.drivers[1].bfd.report();
        if (report.wrong_ttl, report.malformed, report.unmatched) == (1, 1, 1) {
            break;
        }
        assert!(Instant::now() < deadline, "{report:?}");
        thread::sleep(ms(5));
    }
    assert_eq!(failures(&pair.drivers[1]), 0);
}

/// From another address of the link, with the right TTL: without the number that stands for the session, nothing.
#[test]
fn guessed_discriminators_bring_no_session_down() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::up(params(50));
    pair.spaces[0].ip("addr add 10.77.0.9/24 dev eth0");
    pair.spaces[0].enter(|| {
        let socket = UdpSocket::bind("10.77.0.9:49152").expect("binds");
        socket.set_ttl(255).expect("sets");
        let mut down = [0u8; 24];
        (down[0], down[1], down[2], down[3], down[7]) = (0x20, 0x40, 3, 24, 9);
        for guess in (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761)) {
            down[8..12].copy_from_slice(&guess.to_be_bytes());
            let _ = socket.send_to(&down, "10.77.0.2:3784");
        }
    });
    let deadline = Instant::now() + Duration::from_secs(2);
    while pair.drivers[1].bfd.report().unmatched < 1000 {
        assert!(Instant::now() < deadline, "{:?}", pair.drivers[1].bfd.report());
        thread::sleep(ms(5));
    }
    assert_eq!([failures(&pair.drivers[0]), failures(&pair.drivers[1])], [0, 0]);
}

#[test]
fn flood_neither_silences_the_sender_nor_brings_the_session_down() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::up(params(50));
    pair.spaces[0].enter(|| {
        let socket = UdpSocket::bind("10.77.0.1:0").expect("binds");
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            let _ = socket.send_to(&[0x20; 24], "10.77.0.2:3784");
        }
    });
    assert_eq!([failures(&pair.drivers[0]), failures(&pair.drivers[1])], [0, 0]);
    assert!(pair.drivers[1].bfd.report().malformed > 1000);
}

#[test]
fn missing_interface_is_a_problem_that_heals() {
    if skipped(&[]) {
        return;
    }
    let space = Space::new();
    let driver = space.bfd();
    driver.set(&single_hop("10.77.0.1", "10.77.0.2", "later0"), params(50));
    driver.wait("problem", Duration::from_secs(2), |session| {
        session.problem.as_ref().is_some_and(|problem| problem.contains("No such device"))
    });
    let other = Space::new();
    link((&space, "later0", 1), (&other, "eth0", 2), 0);
    driver.wait("opened", Duration::from_secs(3), |session| session.problem.is_none());
}

#[test]
fn two_sessions_on_one_path_are_refused_by_name() {
    if skipped(&[]) {
        return;
    }
    let pair = Pair::new();
    let endpoint = single_hop("10.77.0.1", "10.77.0.2", "eth0");
    let config = Config { endpoint, params: params(50) };
    let ids = ["a", "b"].map(|id| ironcast_bgp::speaker::PeerId(id.into()));
    let sessions = ids.clone().map(|id| (id, config.clone()));
    pair.drivers[0].bfd.set_sessions(sessions.into()).expect("runs");
    let settled = |sessions: &Sessions| {
        let problems: Vec<_> = ids.iter().filter_map(|id| sessions.get(id)?.problem.as_deref()).collect();
        matches!(problems[..], [problem] if problem.contains("watches the same path"))
    };
    let deadline = Instant::now() + Duration::from_secs(3);
    while !settled(&pair.drivers[0].sessions.borrow()) {
        assert!(Instant::now() < deadline, "{:?}", pair.drivers[0].sessions.borrow());
        thread::sleep(ms(5));
    }
}

#[test]
fn driver_ends_with_its_last_handle() {
    if skipped(&[]) {
        return;
    }
    let space = Space::new();
    let Driver { bfd, sessions } = space.bfd();
    drop(bfd);
    let deadline = Instant::now() + Duration::from_secs(2);
    while sessions.has_changed().is_ok() {
        assert!(Instant::now() < deadline, "thread goes on");
        thread::sleep(ms(1));
    }
}
