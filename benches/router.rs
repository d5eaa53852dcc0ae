//! Beside a real router: how soon BIRD's kernel has the route after the daemon starts from its saved state and after
//! BIRD resets the session, with ExaBGP in the same place for comparison; and how often a router that refuses is
//! bothered. Needs root, BIRD and ExaBGP. `cargo bench --bench router [-- ROUNDS]`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "192.0.2.1";
const PATIENCE: Duration = Duration::from_secs(30);
/// BIRD takes a peer back so long after an error; then it waits for it.
const ERROR_WAIT: Duration = Duration::from_millis(2500);
/// How long a router refuses.
const REFUSING: Duration = Duration::from_secs(10);

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7);
    let is_root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !is_root || !Path::new("/usr/sbin/bird").exists() {
        println!("skipped: needs root and BIRD (Debian: bird2)");
        return;
    }
    let site = Site::new();
    let bird = site.bird("10.77.1.2", 64_601);
    let ours = measure(&site, rounds, &|| site.daemon());
    print("ironcast", &ours, None);
    if Path::new("/usr/sbin/exabgp").exists() {
        print("ExaBGP", &measure(&site, rounds, &|| site.exabgp()), Some(&ours));
    }
    println!("\nconnections opened in {} s towards a router that …", REFUSING.as_secs());
    drop(bird);
    println!("{:50}{:4}", "does not run: its host answers with a reset", site.attempts());
    let bird = site.bird("10.77.1.2", 64_999);
    println!("{:50}{:4}", "expects another AS, and says so", site.attempts());
    drop(bird);
    let _bird = site.bird("10.77.1.3", 64_601);
    println!("{:50}{:4}", "knows no such neighbour, accepts and closes", site.attempts());
}

/// Medians are taken of these.
struct Times {
    start: Vec<Duration>,
    reset: Vec<Duration>,
}

/// Both ends of every time are what BIRD's kernel tells; a start begins before the process does.
fn measure(site: &Site, rounds: usize, start: &dyn Fn() -> Running) -> Times {
    let mut times = Times { start: Vec::new(), reset: Vec::new() };
    // The first start records addresses; those that follow find them.
    for round in 0..=rounds {
        thread::sleep(ERROR_WAIT);
        let changes = site.changes();
        let begin = Instant::now();
        let speaker = start();
        let added = changes.until(true);
        thread::sleep(Duration::from_millis(300));
        let begin_reset = Instant::now();
        site.birdc("restart node");
        let gone = changes.until(false);
        let back = changes.until(true);
        if round > 0 {
            times.start.push(added - begin);
            times.reset.push(back - gone.max(begin_reset));
        }
        drop(speaker);
        changes.until(false);
    }
    times
}

fn print(name: &str, times: &Times, ours: Option<&Times>) {
    let line = |what: &str, times: &[Duration], ours: Option<&[Duration]>| {
        let (low, middle, high) = spread(times);
        let ratio = ours.map(|ours| format!("  {:.1} × ours", middle / spread(ours).1)).unwrap_or_default();
        println!("{name:10}{what:46}{middle:8.1} ms ({low:.1} to {high:.1}){ratio}");
    };
    line("process started → route in BIRD's kernel", &times.start, ours.map(|t| &t.start[..]));
    line("BIRD resets: route gone → route back", &times.reset, ours.map(|t| &t.reset[..]));
}

/// Least, median and most, in milliseconds.
fn spread(times: &[Duration]) -> (f64, f64, f64) {
    let mut all: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    all.sort_by(f64::total_cmp);
    (all[0], all[all.len() / 2], all[all.len() - 1])
}

/// A node and a router, a cable between them.
struct Site {
    name: String,
    folder: PathBuf,
}

impl Site {
    fn new() -> Self {
        let name = format!("icbench{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(folder.join("manifests")).expect("a folder");
        fs::write(folder.join("manifests/all.yaml"), MANIFESTS).expect("written");
        fs::write(folder.join("exabgp.conf"), EXABGP).expect("written");
        let site = Self { name, folder };
        for end in ["tor", "node"] {
            run(&format!("ip netns add {}-{end}", site.name));
            run(&format!("ip -n {}-{end} link set lo up", site.name));
        }
        let name = &site.name;
        run(&format!("ip link add eth0 netns {name}-node type veth peer name p1 netns {name}-tor"));
        for (end, device, host) in [("tor", "p1", 1), ("node", "eth0", 2)] {
            run(&format!("ip -n {name}-{end} address add 10.77.1.{host}/24 dev {device}"));
            run(&format!("ip -n {name}-{end} link set {device} up"));
        }
        site
    }

    fn start(&self, end: &str, command: &[&str]) -> Running {
        let log = fs::File::options().create(true).append(true).open(self.folder.join(format!("{end}.log")));
        let log = log.expect("a log");
        let mut process = Command::new("nsenter");
        process.arg(format!("--net=/run/netns/{}-{end}", self.name)).args(command);
        let process = process.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Running(process.spawn().expect("nsenter starts"))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// BIRD, which knows this neighbour with this AS.
    fn bird(&self, neighbor: &str, asn: u32) -> Running {
        let config = format!(
            "router id 10.255.0.1;\nlog stderr all;\nprotocol device {{}}\nprotocol direct {{ ipv4; }}\n\
             protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
             protocol bgp node {{ local 10.77.1.1 as 64500; neighbor {neighbor} as {asn}; passive on; hold time 90;\n\
             error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n"
        );
        fs::write(self.folder.join("bird.conf"), config).expect("written");
        let (config, control, pid) = (self.path("bird.conf"), self.path("bird.ctl"), self.path("bird.pid"));
        let running = self.start("tor", &["bird", "-f", "-c", &config, "-s", &control, "-P", &pid]);
        let begin = Instant::now();
        while !self.birdc("show status").contains("Daemon is up") {
            assert!(begin.elapsed() < PATIENCE, "BIRD does not start");
            thread::sleep(Duration::from_millis(20));
        }
        running
    }

    fn birdc(&self, command: &str) -> String {
        let output = Command::new("birdc").args(["-s", &self.path("bird.ctl"), command]).output();
        String::from_utf8_lossy(&output.expect("birdc starts").stdout).into_owned()
    }

    fn daemon(&self) -> Running {
        let (manifests, state, socket) = (self.path("manifests"), self.path("state"), self.path("node.sock"));
        let program = env!("CARGO_BIN_EXE_ironcast");
        let mut command = vec![program, "run", "--node", "node", "--vip-interface", "none", "--admin", "none"];
        command.extend(["--manifests", &manifests, "--state-dir", &state, "--admin-socket", &socket]);
        self.start("node", &command)
    }

    fn exabgp(&self) -> Running {
        let config = self.path("exabgp.conf");
        let mut command = vec!["env", "exabgp_daemon_user=root", "exabgp_api_cli=false", "exabgp_tcp_delay=0"];
        command.extend(["exabgp", &config]);
        self.start("node", &command)
    }

    /// How many connections the daemon opens towards a router that refuses.
    fn attempts(&self) -> u64 {
        let before = self.opened();
        let _daemon = self.daemon();
        thread::sleep(REFUSING);
        self.opened() - before
    }

    /// `Tcp: … ActiveOpens …` of the node's kernel.
    fn opened(&self) -> u64 {
        let mut command = Command::new("ip");
        let output = command.args(["netns", "exec", &format!("{}-node", self.name), "cat", "/proc/net/snmp"]).output();
        let text = String::from_utf8_lossy(&output.expect("ip starts").stdout).into_owned();
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let found = names.zip(values).find(|(name, _)| *name == "ActiveOpens");
        found.and_then(|(_, value)| value.parse().ok()).expect("a number")
    }

    /// What becomes of the route from now on.
    fn changes(&self) -> Changes {
        let mut command = Command::new("ip");
        command.args(["-n", &format!("{}-tor", self.name), "-o", "monitor", "route"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("ip starts");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in lines.filter(|line| line.contains(VIP)) {
                let _ = sender.send((Instant::now(), !line.starts_with("Deleted")));
            }
        });
        // It subscribes before its first line, which no change of ours may miss.
        thread::sleep(Duration::from_millis(200));
        Changes { events, _process: Running(process) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for end in ["tor", "node"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{end}", self.name)]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Changes {
    events: Receiver<(Instant, bool)>,
    _process: Running,
}

impl Changes {
    /// When the route came, or went.
    fn until(&self, there: bool) -> Instant {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok((at, is)) if is == there => return at,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("never: route there: {there}")
                }
            }
        }
    }
}

/// A process; killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().expect("a program")).args(words).status().expect("it starts");
    assert!(status.success(), "{command}");
}

const EXABGP: &str = "neighbor 10.77.1.1 { router-id 10.77.1.2; local-address 10.77.1.2; local-as 64601; peer-as 64500;
hold-time 90; family { ipv4 unicast; } announce { ipv4 { unicast 192.0.2.1/32 next-hop self; } } }
";

const MANIFESTS: &str = r#"
{apiVersion: v1, kind: Node, metadata: {name: node},
 status: {addresses: [{type: InternalIP, address: 10.77.1.2}], conditions: [{type: Ready, status: "True"}]}}
---
{apiVersion: ironcast.dev/v1alpha1, kind: IPAddressPool, metadata: {name: pool, namespace: ironcast-system},
 spec: {addresses: [192.0.2.1/32]}}
---
{apiVersion: ironcast.dev/v1alpha1, kind: BGPAdvertisement, metadata: {name: all, namespace: ironcast-system}, spec: {}}
---
{apiVersion: ironcast.dev/v1alpha1, kind: BGPPeer, metadata: {name: tor, namespace: ironcast-system},
 spec: {myASN: 64601, peerASN: 64500, peerAddress: 10.77.1.1}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default},
 spec: {type: LoadBalancer, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, protocol: TCP}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}},
 endpoints: [{addresses: [10.78.0.1], nodeName: node, conditions: {ready: true}}], ports: [{port: 80, protocol: TCP}]}
"#;
