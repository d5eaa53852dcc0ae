//! BFD under load: this driver against itself or a router, in two network namespaces, every core busy.
//!
//! `bfd_soak [SECONDS] [INTERVAL_MS]`, as root, prints one line per failure and the lateness at the end; the exit
//! code is 1 if there was a false down. The other end is this driver too, so every failure is one of ours.
use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    os::fd::AsRawFd,
    process::{Command, ExitCode},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    bfd::{Config, DetectMult, Endpoint, Interval, Params, Path, State},
    net::bfd::{Bfd, BfdConfig, Sessions},
    speaker::PeerId,
};
use tokio::sync::watch;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Both namespaces, gone with the value.
struct Spaces([String; 2]);

impl Spaces {
    fn new() -> Outcome<Self> {
        let spaces = Self(["a", "b"].map(|end| format!("icsoak{}{end}", std::process::id())));
        let [a, b] = &spaces.0;
        for name in &spaces.0 {
            run(&format!("netns add {name}"))?;
        }
        run(&format!("-n {a} link add eth0 type veth peer name eth0 netns {b}"))?;
        for (name, host) in [(a, 1), (b, 2)] {
            run(&format!("-n {name} addr add 10.78.0.{host}/24 dev eth0"))?;
            run(&format!("-n {name} link set eth0 up"))?;
        }
        Ok(spaces)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = run(&format!("netns del {name}"));
        }
    }
}

fn run(arguments: &str) -> Outcome<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {status}").into()) }
}

fn start(space: &str) -> Outcome<(Bfd, watch::Receiver<Sessions>)> {
    let file = File::open(format!("/run/netns/{space}"))?;
    let started = thread::spawn(move || {
        // SAFETY: the descriptor is open; only this thread moves, and the driver's thread inherits.
        match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Bfd::start(BfdConfig::default()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    Ok(started.join().map_err(|_| "thread panicked")??)
}

fn session(host: u8, params: &Params) -> BTreeMap<PeerId, Config> {
    let endpoint = Endpoint {
        peer: [10, 78, 0, 3 - host].into(),
        local: Some([10, 78, 0, host].into()),
        interface: Some("eth0".into()),
        path: Path::SingleHop,
    };
    BTreeMap::from([(PeerId("soak".into()), Config { endpoint, params: params.clone() })])
}

fn main() -> Outcome<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(120), |text| text.parse())?;
    let millis = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let params = Params::new(Interval::new(Duration::from_millis(millis))?, DetectMult::new(3)?);
    let spaces = Spaces::new()?;
    let ends = [start(&spaces.0[0])?, start(&spaces.0[1])?];
    for (host, (bfd, _)) in (1..).zip(&ends) {
        bfd.set_sessions(session(host, &params))?;
    }
    let busy = AtomicBool::new(true);
    let failures = thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) * 4 {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let failures = watch_for(Duration::from_secs(seconds), &ends);
        busy.store(false, Ordering::Relaxed);
        failures
    });
    println!("{seconds} s at 3 × {millis} ms with every core busy: {failures} false downs");
    for (bfd, sessions) in &ends {
        let counters = sessions.borrow().values().map(|session| format!("{:?}", session.counters)).collect::<String>();
        println!("{:?} {counters}", bfd.report());
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what fails and counts it.
fn watch_for(span: Duration, ends: &[(Bfd, watch::Receiver<Sessions>)]) -> u64 {
    let start = Instant::now();
    let mut known = [0; 2];
    while start.elapsed() < span {
        thread::sleep(Duration::from_millis(20));
        for (known, (bfd, sessions)) in known.iter_mut().zip(ends) {
            let Some(status) = sessions.borrow().values().next().map(|session| session.status) else { continue };
            if status.failures > *known {
                *known = status.failures;
                println!("{:?}: {} ({:?})", start.elapsed(), status.diag, bfd.report());
            }
        }
    }
    let up = ends.iter().filter(|(_, sessions)| sessions.borrow().values().any(|s| s.status.state == State::Up));
    println!("{} of 2 ends are up", up.count());
    known.iter().sum()
}
