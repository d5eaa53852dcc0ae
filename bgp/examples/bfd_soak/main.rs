//! BFD under load: this driver against itself, BIRD and FRR in network namespaces, every core busy.
//!
//! `bfd_soak [SECONDS] [INTERVAL_MS] [PEER…]`, as root; peers are `self`, `bird` and `frr`, `self` where none is
//! named. Nothing fails on purpose here, so every failure is a false one. Prints one line per failure: which end
//! declared it, for how long its kernel had had no packet from the other end ([`witness`]), what every processor missed
//! before ([`canary`]), and the lateness of the driver; at the end the sum, and what a session costs.
//!
//! Whose failure it is: of the end that declared it, where its kernel had a packet within every detection time; else of
//! the end that was silent. What is a router's is counted apart, and so is what is ours while a processor stood still
//! for a detection time less one interval, all its gaps within two detection times taken together. The exit code is 1 if
//! there was another one.

mod canary;
mod witness;

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use canary::{Canaries, Gap};
use ironcast_bgp::{
    bfd::{Config, DetectMult, Diag, Endpoint, Interval, Params, Path, State, Status},
    net::bfd::{Bfd, BfdConfig, Sessions},
    speaker::PeerId,
};
use tokio::sync::watch;
use witness::Witness;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long sessions have to come up before the load begins.
const START: Duration = Duration::from_secs(20);

/// A driver and what it publishes.
type Driver = (Bfd, watch::Receiver<Sessions>);

/// The node's namespace and one for each peer; `10.78.N.1` is the node, `10.78.N.2` the peer. Gone with the value.
struct Spaces {
    prefix: String,
    peers: usize,
    folder: PathBuf,
}

impl Spaces {
    fn new(peers: usize) -> Outcome<Self> {
        let prefix = format!("icsoak{}", std::process::id());
        let folder = std::env::temp_dir().join(&prefix);
        fs::create_dir(&folder)?;
        let spaces = Self { prefix, peers, folder };
        for name in spaces.names() {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        let node = spaces.name(0);
        for n in 1..=peers {
            let peer = spaces.name(n);
            run(&format!("ip -n {node} link add dev eth{n} type veth peer name eth0 netns {peer}"))?;
            for (name, device, host) in [(&node, format!("eth{n}"), 1), (&peer, "eth0".into(), 2)] {
                run(&format!("ip -n {name} addr add 10.78.{n}.{host}/24 dev {device}"))?;
                run(&format!("ip -n {name} link set {device} up"))?;
            }
        }
        Ok(spaces)
    }

    fn name(&self, n: usize) -> String {
        format!("{}x{n}", self.prefix)
    }

    fn names(&self) -> impl Iterator<Item = String> + use<'_> {
        (0..=self.peers).map(|n| self.name(n))
    }

    /// A router's program in the namespace of peer `n`, in the real-time class like the driver: its lateness is not
    /// what is measured.
    fn router(&self, n: usize, command: &str) -> Outcome<Router> {
        let words = format!("--net=/run/netns/{} chrt --fifo 40 {command}", self.name(n));
        let mut nsenter = Command::new("nsenter");
        nsenter.args(words.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Router(nsenter.spawn()?))
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = run(&format!("ip netns del {name}"));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A router's process, killed with the value.
struct Router(Child);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &str) -> Outcome<()> {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command}: {status}").into()) }
}

/// Everything that runs at the other end of a link.
enum Peer {
    Ours(Driver),
    Routers(#[allow(dead_code)] Vec<Router>), // held, not read
}

fn start_peer(spaces: &Spaces, n: usize, kind: &str, millis: u64, params: &Params) -> Outcome<Peer> {
    let path = |name: &str| spaces.folder.join(format!("{n}{name}")).display().to_string();
    match kind {
        "self" => {
            let driver = start(&spaces.name(n))?;
            driver.0.set_sessions([session(n, [2, 1], "eth0", params)].into())?;
            Ok(Peer::Ours(driver))
        }
        "bird" => {
            let times = format!("min rx interval {millis} ms; min tx interval {millis} ms; multiplier 3;");
            let config = format!(
                "router id 10.78.0.{n};\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ {times} }}; \
                 neighbor 10.78.{n}.1 dev \"eth0\" local 10.78.{n}.2; }}\n"
            );
            fs::write(path("bird.conf"), config)?;
            let command =
                format!("/usr/sbin/bird -f -c {} -s {} -P {}", path("bird.conf"), path("bird.ctl"), path("bird.pid"));
            Ok(Peer::Routers(vec![spaces.router(n, &command)?]))
        }
        "frr" => {
            let config = format!(
                "bfd\n peer 10.78.{n}.1 local-address 10.78.{n}.2 interface eth0\n  detect-multiplier 3\n  \
                 receive-interval {millis}\n  transmit-interval {millis}\n  no shutdown\n exit\nexit\n"
            );
            let folder = path("frr");
            fs::create_dir(&folder)?;
            fs::write(format!("{folder}/bfdd.conf"), config)?;
            fs::write(format!("{folder}/zebra.conf"), "")?;
            run(&format!("chown -R frr:frr {folder}"))?;
            let daemon = |name: &str, more: &str| {
                let files = format!("-f {folder}/{name}.conf -i {folder}/{name}.pid -z {folder}/zserv.api");
                let flags = format!("--vty_socket {folder} -P 0{more}");
                spaces.router(n, &format!("/usr/lib/frr/{name} {files} {flags}"))
            };
            let zebra = daemon("zebra", "")?;
            let begun = Instant::now();
            while !std::path::Path::new(&format!("{folder}/zserv.api")).exists() {
                if begun.elapsed() > Duration::from_secs(10) {
                    return Err("zebra does not listen".into());
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(Peer::Routers(vec![zebra, daemon("bfdd", &format!(" --bfdctl {folder}/bfdd.sock"))?]))
        }
        other => Err(format!("{other:?} is no peer: use self, bird or frr").into()),
    }
}

fn start(space: &str) -> Outcome<Driver> {
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

fn session(n: usize, [local, peer]: [u8; 2], interface: &str, params: &Params) -> (PeerId, Config) {
    let net = u8::try_from(n).unwrap_or(u8::MAX);
    let endpoint = Endpoint {
        peer: [10, 78, net, peer].into(),
        local: Some([10, 78, net, local].into()),
        interface: Some(interface.into()),
        path: Path::SingleHop,
    };
    (PeerId(format!("peer{n}").into()), Config { endpoint, params: params.clone() })
}

/// Both ends of the link to peer `n`, watched.
fn witnessed<'a>(spaces: &Spaces, n: usize, kind: &'a str) -> Outcome<End<'a>> {
    let witnesses = [Witness::start(&spaces.name(0), &format!("eth{n}"))?, Witness::start(&spaces.name(n), "eth0")?];
    Ok(End { kind, witnesses })
}

fn main() -> Outcome<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(120), |text| text.parse())?;
    let millis = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let mut kinds: Vec<String> = arguments.collect();
    if kinds.is_empty() {
        kinds.push("self".into());
    }
    let params = Params::new(Interval::new(Duration::from_millis(millis))?, DetectMult::new(3)?);
    let spaces = Spaces::new(kinds.len())?;
    let numbered = || (1..).zip(&kinds);
    let peers = numbered().map(|(n, kind)| start_peer(&spaces, n, kind, millis, &params));
    let peers = peers.collect::<Outcome<Vec<Peer>>>()?;
    let node = start(&spaces.name(0))?;
    let sessions = numbered().map(|(n, _)| session(n, [1, 2], &format!("eth{n}"), &params)).collect();
    node.0.set_sessions(sessions)?;
    wait_up(&node, kinds.len())?;

    let ends = numbered().map(|(n, kind)| witnessed(&spaces, n, kind));
    let mut ends = ends.collect::<Outcome<Vec<End<'_>>>>()?;
    let canaries = Canaries::start(Duration::from_millis(millis / 4));
    let busy = AtomicBool::new(true);
    let (start, before, stolen) = (Instant::now(), THREADS.map(cpu_time), stolen());
    let failures = thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) * 4 {
            scope.spawn(|| {
                // What else there is to do on this machine goes on; no processor is idle all the same.
                // SAFETY: takes no pointers; 0 is this thread.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // What is seen is seen at once.
        canary::run_before_others(20).expect("it is root");
        let failures = watch_for(Duration::from_secs(seconds), (&node, &peers), &mut ends, &canaries, 3 * millis);
        busy.store(false, Ordering::Relaxed);
        failures
    });
    // Threads of the same name may serve the other end too.
    let threads = kinds.iter().filter(|kind| *kind == "self").count() as f64 + kinds.len() as f64;
    let share = |n: usize| (cpu_time(THREADS[n]) - before[n]).as_secs_f64() / seconds as f64 / threads * 100.0;
    let shares = [share(0), share(1)];
    let mut gaps = canaries.since(start);
    canaries.stop()?;
    gaps.retain(|gap| gap.length > Duration::from_millis(millis / 2));
    let longest = gaps.iter().map(|gap| gap.length).max().unwrap_or_default();
    println!(
        "{seconds} s at 3 × {millis} ms beside {} with every core busy: {} false downs of ours, {} more while the machine \
         stood still, {} of the routers",
        kinds.join(", "),
        failures.ours,
        failures.still,
        failures.theirs
    );
    println!(
        "processors stood still {} times for more than {} ms, {longest:?} at most; {:?} were stolen",
        gaps.len(),
        millis / 2,
        self::stolen().saturating_sub(stolen)
    );
    println!(
        "a session takes {:.2} % of a core, {:.2} of it to stand by; {:?}",
        shares[0] + shares[1],
        shares[1],
        node.0.report()
    );
    for (id, session) in node.1.borrow().iter() {
        println!("{id}: {:?}", session.counters);
    }
    drop(peers);
    Ok(if failures.ours == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_up(node: &Driver, count: usize) -> Outcome<()> {
    let begun = Instant::now();
    let up = || node.1.borrow().values().filter(|s| s.status.state == State::Up && !s.status.polling).count();
    while up() < count {
        if begun.elapsed() > START {
            return Err(format!("{} of {count} sessions are up: {:?}", up(), node.1.borrow()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A peer's link: what came in on it here, and there.
struct End<'a> {
    kind: &'a str,
    witnesses: [Witness; 2],
}

/// False downs.
#[derive(Default)]
struct Failures {
    ours: u64,
    /// Ours while the machine stood still.
    still: u64,
    theirs: u64,
}

/// What one failure was.
struct Failure {
    /// This end declared it.
    here: bool,
    /// The longest time for which the kernel of the end that declared it had no packet.
    silence: Duration,
    /// The longest that one processor stood still within two detection times.
    still: Duration,
}

impl Failure {
    fn of(status: &Status, end: &End<'_>, gaps: &[Gap], detection: Duration) -> Self {
        let here = status.diag == Diag::DETECTION_TIME_EXPIRED;
        let at = SystemTime::now() - status.since.elapsed();
        let silence = end.witnesses[usize::from(!here)].silence(at);
        Self { here, silence, still: canary::longest(gaps, 2 * detection) }
    }

    /// The end that is to blame is ours.
    fn is_ours(&self, kind: &str, detection: Duration) -> bool {
        let declarer = self.silence < detection;
        kind == "self" || self.here == declarer
    }
}

/// Prints what fails and counts it; a session that ends down without a failure counts too.
fn watch_for(
    span: Duration,
    (node, peers): (&Driver, &[Peer]),
    ends: &mut [End<'_>],
    canaries: &Canaries,
    detection: u64,
) -> Failures {
    let (start, detection) = (Instant::now(), Duration::from_millis(detection));
    let mut known: BTreeMap<PeerId, u64> = BTreeMap::new();
    let mut failures = Failures::default();
    while start.elapsed() < span {
        thread::sleep(Duration::from_millis(20));
        let sessions = node.1.borrow().clone();
        for (((id, session), end), peer) in sessions.iter().zip(ends.iter_mut()).zip(peers) {
            end.witnesses.iter_mut().for_each(Witness::drain);
            let known = known.entry(id.clone()).or_default();
            if session.status.failures <= *known {
                continue;
            }
            let count = session.status.failures - *known;
            *known = session.status.failures;
            // A canary that stands still reports when it runs again.
            thread::sleep(Duration::from_millis(100));
            let gaps = canaries.since(Instant::now() - Duration::from_millis(600));
            let failure = Failure::of(&session.status, end, &gaps, detection);
            let sum = match failure.is_ours(end.kind, detection) {
                false => &mut failures.theirs,
                true if failure.still >= detection * 2 / 3 => &mut failures.still,
                true => &mut failures.ours,
            };
            *sum += count;
            print_failure(start.elapsed(), end.kind, &session.status, &failure, peer, &gaps, node);
        }
    }
    let sessions = node.1.borrow();
    let down = sessions.values().filter(|s| s.status.state != State::Up && s.status.failures == 0).count();
    failures.ours += down as u64;
    failures
}

fn print_failure(
    at: Duration,
    kind: &str,
    status: &Status,
    failure: &Failure,
    peer: &Peer,
    gaps: &[Gap],
    node: &Driver,
) {
    let declared_by = match failure.here {
        true => "this end".to_owned(),
        false => format!("the other end ({})", status.remote_diag),
    };
    let end = Instant::now();
    let gaps: Vec<String> = gaps
        .iter()
        .map(|gap| format!("cpu{} {:?} until {:?} ago", gap.cpu, gap.length, end.duration_since(gap.end)))
        .collect();
    let far = match peer {
        Peer::Ours(far) => format!("; the other end: {:?}", far.0.report()),
        Peer::Routers(_) => String::new(),
    };
    println!(
        "{at:?}: {kind}: declared by {declared_by} {:?} ago, whose kernel had no packet for {:?}; stood still {:?} in all: \
         [{}]; {:?}{far}",
        status.since.elapsed(),
        failure.silence,
        failure.still,
        gaps.join(", "),
        node.0.report()
    );
}

/// Time that the host took from all processors since boot (`/proc/stat`, in hundredths of a second).
fn stolen() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0);
    Duration::from_millis(ticks * 10)
}

/// The threads of a driver: the one that works, and the one that stands by.
const THREADS: [&str; 2] = ["bfd", "bfd-relief"];

/// What the threads of this name in all drivers of this process have used of the processor.
fn cpu_time(thread: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path());
    let drivers = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread));
    // The first number is nanoseconds on a processor.
    let time = |task: PathBuf| {
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    drivers.filter_map(time).sum()
}
