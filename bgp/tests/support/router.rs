//! Real routers in a namespace of their own, one link away from the node under test.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    Asn,
    speaker::{PeerAs, PeerConfig},
};

use super::{
    PATIENCE,
    space::{self, Folder, Process, Space, run},
};

pub const ROUTER_AS: u32 = 64500;
pub const NODE_AS: u32 = 64601;

/// The routers that the tests know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bird,
    Frr,
    Gobgp,
}

impl Kind {
    /// What must be installed.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Bird => &["/usr/sbin/bird", "/usr/sbin/birdc"],
            Self::Frr => &["/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "/usr/bin/vtysh"],
            Self::Gobgp => &["/usr/bin/gobgpd", "/usr/bin/gobgp"],
        }
    }
}

/// How the router's side is configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    pub password: Option<&'static str>,
    /// The AS that the router expects of the node, if not the right one.
    pub expects: Option<u32>,
    /// IPv6 transport instead of IPv4.
    pub v6: bool,
    /// TTL security on both ends.
    pub gtsm: bool,
}

/// A router; the link to the node has `10.77.9.1` and `fd77:9::1` here, `.2` and `::2` there.
pub struct Router {
    space: Space,
    folder: Folder,
    kind: Kind,
    setup: Setup,
    processes: Vec<Process>,
}

impl Router {
    /// Starts a router, which waits for the node to dial; the node's namespace comes with it.
    pub fn new(kind: Kind, setup: Setup) -> (Space, Self) {
        let (node, space) = (Space::new(), Space::new());
        space::link((&node, "eth0", 2), (&space, "p1", 1), 9);
        let folder = Folder::new(&space.0);
        let mut router = Self { space, folder, kind, setup, processes: Vec::new() };
        router.start();
        (node, router)
    }

    /// The peer as the node configures it.
    pub fn peer(&self) -> PeerConfig {
        let address = if self.setup.v6 { "fd77:9::1" } else { "10.77.9.1" };
        super::peer(address.parse().expect("valid"), NODE_AS, PeerAs::Exactly(Asn::new(ROUTER_AS).expect("valid")))
    }

    /// Kills the router without a word.
    pub fn kill(&mut self) {
        self.processes.clear();
    }

    /// Starts the router (again).
    pub fn start(&mut self) {
        match self.kind {
            Kind::Bird => self.start_bird(),
            Kind::Frr => self.start_frr(),
            Kind::Gobgp => self.start_gobgp(),
        }
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = self.space.command(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.processes.push(Process(command.spawn().expect("the router starts")));
    }

    fn neighbour(&self) -> &'static str {
        if self.setup.v6 { "fd77:9::2" } else { "10.77.9.2" }
    }

    fn start_bird(&mut self) {
        let password = self.setup.password.map(|p| format!("password \"{p}\";")).unwrap_or_default();
        let gtsm = if self.setup.gtsm { "ttl security on;" } else { "" };
        let config = format!(
            "router id 10.255.0.1;\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n\
             protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
             protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n\
             protocol bgp node {{ local as {ROUTER_AS}; neighbor {} as {}; passive on; hold time 9; {password} {gtsm}\n\
             error wait time 1, 2; graceful restart aware; enable extended messages on;\n\
             ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n",
            self.neighbour(),
            self.setup.expects.unwrap_or(NODE_AS),
        );
        let config = self.folder.file("bird.conf", &config);
        let control = self.folder.path("bird.ctl");
        self.spawn("/usr/sbin/bird", &["-f", "-c", &config, "-s", &control, "-P", &self.folder.path("bird.pid")]);
    }

    fn start_frr(&mut self) {
        let peer = self.neighbour();
        let password = self.setup.password.map(|p| format!(" neighbor {peer} password {p}\n")).unwrap_or_default();
        let gtsm = if self.setup.gtsm { format!(" neighbor {peer} ttl-security hops 1\n") } else { String::new() };
        let config = format!(
            "router bgp {ROUTER_AS}\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n \
             bgp graceful-restart\n bgp graceful-restart stalepath-time 30\n neighbor {peer} remote-as {}\n \
             neighbor {peer} passive\n neighbor {peer} timers 3 9\n{password}{gtsm} address-family ipv4 unicast\n  \
             neighbor {peer} activate\n exit-address-family\n address-family ipv6 unicast\n  \
             neighbor {peer} activate\n exit-address-family\nexit\n",
            self.setup.expects.unwrap_or(NODE_AS),
        );
        let (zserv, folder) = (self.folder.path("zserv.api"), self.folder.path(""));
        // The daemons give up root before they make their sockets.
        run(&format!("chown frr:frr {folder}"));
        let _ = std::fs::remove_file(&zserv);
        for (program, config) in [("zebra", "hostname r\n"), ("bgpd", config.as_str())] {
            let config = self.folder.file(program, config);
            let pid = self.folder.path(&format!("{program}.pid"));
            let path = format!("/usr/lib/frr/{program}");
            let mut arguments = vec!["-z", &zserv, "-f", &config, "-i", &pid, "--vty_socket", &folder, "-P", "0"];
            arguments.extend((program == "bgpd").then_some("-l0.0.0.0"));
            arguments.extend((program == "bgpd").then_some("-l::"));
            self.spawn(&path, &arguments);
            wait("zebra listens", || PathBuf::from(&zserv).exists());
        }
    }

    fn start_gobgp(&mut self) {
        let password = self.setup.password.map(|p| format!("auth-password = \"{p}\"\n")).unwrap_or_default();
        let config = format!(
            "[global.config]\nas = {ROUTER_AS}\nrouter-id = \"10.255.0.1\"\n[[neighbors]]\n[neighbors.config]\n\
             neighbor-address = \"{}\"\npeer-as = {}\n{password}\
             [neighbors.transport.config]\npassive-mode = true\n[neighbors.timers.config]\nhold-time = 9\n\
             idle-hold-time-after-reset = 1\n\
             [neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 30\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n\
             [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n",
            self.neighbour(),
            self.setup.expects.unwrap_or(NODE_AS),
        );
        let config = self.folder.file("gobgp.toml", &config);
        self.spawn("/usr/bin/gobgpd", &["-f", &config, "--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
    }

    /// Ends the session on the router's side.
    pub fn reset_session(&self) {
        let peer = self.neighbour();
        match self.kind {
            Kind::Bird => self.ask("/usr/sbin/birdc", &["-s", &self.folder.path("bird.ctl"), "restart", "node"]),
            Kind::Frr => self.ask(
                "/usr/bin/vtysh",
                &["--vty_socket", &self.folder.path(""), "-d", "bgpd", "-c", &format!("clear bgp {peer}")],
            ),
            Kind::Gobgp => self.ask("/usr/bin/gobgp", &["neighbor", peer, "reset"]),
        };
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.space.command(program).args(arguments).output().expect("the program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the router uses the route: in its kernel, or for GoBGP, which has none, in its table.
    pub fn has(&self, prefix: &str) -> bool {
        let v6 = prefix.contains(':');
        if self.kind == Kind::Gobgp {
            let family = if v6 { "ipv6" } else { "ipv4" };
            return self.ask("/usr/bin/gobgp", &["global", "rib", "-a", family]).contains(prefix);
        }
        let family = if v6 { "-6" } else { "-4" };
        let output = Command::new("ip").args(["-n", &self.space.0, family, "route", "show", prefix]).output();
        !output.expect("ip starts").stdout.is_empty()
    }

    /// Waits, beside the runtime, until the router uses the route, or no longer does; how long it took.
    pub async fn until(&self, prefix: &str, there: bool) -> Duration {
        let start = Instant::now();
        while self.has(prefix) != there {
            assert!(start.elapsed() < PATIENCE, "never: {prefix} in {:?}: {there}", self.kind);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }
}

/// Waits until something holds; how long it took.
pub fn wait(what: &str, holds: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}
