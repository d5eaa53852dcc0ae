//! Namespaces, links and routers for the BFD tests. Everything is gone when its value is dropped.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test uses its part

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    bfd::{Config, DetectMult, Endpoint, Interval, Params, Path, State},
    net::bfd::{Bfd, BfdConfig, Session, Sessions},
    speaker::PeerId,
};
use tokio::sync::watch;

/// `true` if the test has to be skipped, said in one line; a failure where nothing may be skipped.
pub fn skipped(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !PathBuf::from(program).exists());
    // SAFETY: takes nothing and cannot fail.
    let reason = match (unsafe { libc::geteuid() }, missing) {
        (0, None) => return false,
        (0, Some(program)) => format!("{program} is not installed"),
        _ => "not root".into(),
    };
    assert!(std::env::var_os("IRONCAST_NO_SKIP").is_none(), "skipping is forbidden: {reason}");
    eprintln!("skipped: {reason}");
    true
}

pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("program starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace.
pub struct Space(pub String);

impl Space {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("icbfd{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Self(name)
    }

    pub fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.0));
    }

    /// `program arguments…` in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    /// A router's daemon, in the real-time class like our driver, so that a busy machine does not make it late.
    pub fn daemon(&self, program: &str) -> Command {
        let mut command = self.command("chrt");
        command.args(["--fifo", "40", program]);
        command
    }

    /// Runs `body` on a thread inside.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).expect("namespace exists");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this thread moves.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
                body()
            });
            thread.join().expect("body does not panic")
        })
    }

    /// A driver inside.
    pub fn bfd(&self) -> Driver {
        let (bfd, sessions) = self.enter(|| Bfd::start(BfdConfig::default())).expect("driver starts");
        Driver { bfd, sessions }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Joins two namespaces; each end gets the addresses `10.77.NET.HOST/24` and `fd77:NET::HOST/64`.
pub fn link(a: (&Space, &str, u8), b: (&Space, &str, u8), net: u8) {
    let ((from, from_device, _), (to, to_device, _)) = (a, b);
    from.ip(&format!("link add {from_device} type veth peer name {to_device} netns {}", to.0));
    for (space, device, host) in [a, b] {
        space.ip(&format!("addr add 10.77.{net}.{host}/24 dev {device}"));
        space.ip(&format!("addr add fd77:{net}::{host}/64 dev {device} nodad"));
        space.ip(&format!("link set {device} up"));
    }
}

pub fn peer() -> PeerId {
    PeerId("router".into())
}

pub fn params(millis: u64) -> Params {
    let interval = Interval::new(Duration::from_millis(millis)).expect("valid");
    Params::new(interval, DetectMult::new(3).expect("not 0"))
}

pub fn single_hop(local: &str, peer: &str, interface: &str) -> Endpoint {
    Endpoint { interface: Some(interface.into()), path: Path::SingleHop, ..multi_hop(local, peer) }
}

pub fn multi_hop(local: &str, peer: &str) -> Endpoint {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let path = Path::MultiHop { minimum_ttl: 60 }; // BIRD sends with 64
    Endpoint { peer: address(peer), local: Some(address(local)), interface: None, path }
}

/// A running driver and its watch.
pub struct Driver {
    pub bfd: Bfd,
    pub sessions: watch::Receiver<Sessions>,
}

impl Driver {
    pub fn set(&self, endpoint: &Endpoint, params: Params) {
        let config = Config { endpoint: endpoint.clone(), params };
        self.bfd.set_sessions(BTreeMap::from([(peer(), config)])).expect("driver runs");
    }

    pub fn session(&self) -> Option<Session> {
        self.sessions.borrow().get(&peer()).cloned()
    }

    /// Waits for a session that pleases; how long it took.
    pub fn wait(&self, what: &str, limit: Duration, pleases: impl Fn(&Session) -> bool) -> Duration {
        let start = Instant::now();
        loop {
            let session = self.session();
            if session.as_ref().is_some_and(&pleases) {
                return start.elapsed();
            }
            assert!(start.elapsed() < limit, "{what}: {session:?}");
            thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn wait_state(&self, state: State) -> Duration {
        self.wait(&format!("state {state}"), Duration::from_secs(15), |session| session.status.state == state)
    }
}

/// A child that is killed with its value, and its folder removed.
pub struct Process(pub Child);

impl Process {
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes no pointers; the child has not been waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder for sockets and configuration.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("folder can be made");
        Self(path)
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("file can be written");
        path
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Another implementation of BFD.
pub trait Router {
    /// Starts in `space` one session from `local` to `peer`, on `interface` or over several hops.
    fn start(space: &Space, local: &str, peer: &str, interface: Option<&str>, millis: u64) -> Self;
    /// Whether its command line says that the session is up, and all it says.
    fn state(&self) -> (bool, String);
    fn process(&self) -> &Process;

    fn wait_up(&self) {
        let start = Instant::now();
        loop {
            let (up, text) = self.state();
            if up {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(15), "router says: {text}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

pub struct Bird {
    process: Process,
    folder: Folder,
}

impl Router for Bird {
    fn start(space: &Space, local: &str, peer: &str, interface: Option<&str>, millis: u64) -> Self {
        let folder = Folder::new(&space.0);
        let times = format!("min rx interval {millis} ms; min tx interval {millis} ms; multiplier 3;");
        let neighbor = match interface {
            Some(device) => format!("neighbor {peer} dev \"{device}\" local {local};"),
            None => format!("neighbor {peer} local {local} multihop on;"),
        };
        let config = format!(
            "router id 10.77.0.1;\nprotocol device {{}}\n\
             protocol bfd {{ interface \"*\" {{ {times} }}; multihop {{ {times} }}; {neighbor} }}\n"
        );
        let config = folder.file("bird.conf", &config);
        let control = folder.path("bird.ctl");
        let mut command = space.daemon("/usr/sbin/bird");
        command.args(["-f", "-c", &config, "-s", &control, "-P", &folder.path("bird.pid")]);
        let process = Process(command.stderr(Stdio::null()).spawn().expect("bird starts"));
        Self { process, folder }
    }

    fn state(&self) -> (bool, String) {
        let mut command = Command::new("/usr/sbin/birdc");
        let output = command.args(["-s", &self.folder.path("bird.ctl"), "show bfd sessions"]).output();
        let text = String::from_utf8_lossy(&output.expect("birdc starts").stdout).into_owned();
        (text.lines().any(|line| line.split_whitespace().nth(2) == Some("Up")), text)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

pub struct Frr {
    process: Process,
    _zebra: Process,
    folder: Folder,
}

impl Router for Frr {
    fn start(space: &Space, local: &str, peer: &str, interface: Option<&str>, millis: u64) -> Self {
        let folder = Folder::new(&space.0);
        let key = match interface {
            Some(device) => format!("peer {peer} local-address {local} interface {device}"),
            None => format!("peer {peer} multihop local-address {local}"),
        };
        let config = format!(
            "hostname r\nbfd\n {key}\n  detect-multiplier 3\n  receive-interval {millis}\n  \
             transmit-interval {millis}\n  no shutdown\n exit\nexit\n"
        );
        let zserv = folder.path("zserv.api");
        // The daemons give up root before they make their sockets.
        run(&format!("chown frr:frr {}", folder.path("")));
        let start = |program: &str, config: &str| {
            let mut command = space.daemon(&format!("/usr/lib/frr/{program}"));
            command.args(["-z", &zserv, "-f", &folder.file(program, config)]);
            command.args(["-i", &folder.path(&format!("{program}.pid")), "--vty_socket", &folder.path("")]);
            if program == "bfdd" {
                command.args(["--bfdctl", &folder.path("bfdd.sock")]);
            }
            Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("FRR starts"))
        };
        let zebra = start("zebra", "hostname r\n");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !PathBuf::from(&zserv).exists() {
            assert!(Instant::now() < deadline, "zebra does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        let process = start("bfdd", &config);
        Self { process, _zebra: zebra, folder }
    }

    fn state(&self) -> (bool, String) {
        let mut command = Command::new("/usr/bin/vtysh");
        let output =
            command.args(["--vty_socket", &self.folder.path(""), "-d", "bfdd", "-c", "show bfd peers"]).output();
        let text = String::from_utf8_lossy(&output.expect("vtysh starts").stdout).into_owned();
        (text.contains("Status: up"), text)
    }

    fn process(&self) -> &Process {
        &self.process
    }
}
