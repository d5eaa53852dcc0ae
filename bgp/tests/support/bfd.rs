//! Our BFD driver, and the routers' own.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    bfd::{Config, DetectMult, Endpoint, Interval, Params, Path, State},
    net::bfd::{Bfd, BfdConfig, Session, Sessions},
    speaker::PeerId,
};
use tokio::sync::watch;

use super::space::{Folder, Process, Space, run};

impl Space {
    /// A driver inside.
    pub fn bfd(&self) -> Driver {
        let (bfd, sessions) = self.enter(|| Bfd::start(BfdConfig::default())).expect("driver starts");
        Driver { bfd, sessions }
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
