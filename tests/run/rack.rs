//! A router and nodes in network namespaces: BIRD in one, `ironcast run` in the others, a folder of manifests that
//! they share. Everything goes with the test, also when it is killed.

#![allow(unreachable_pub)] // for the tests of the program beside

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::program::Program;

/// Longer than anything here takes on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Where servers on the nodes listen.
pub const PORT: u16 = 8080;
const ROUTER_ASN: u32 = 64500;
const NODE_ASN: u32 = 64512;

/// The whole.
pub struct Rack {
    folder: TempDir,
    name: String,
    nodes: usize,
    _router: Program,
    _namespaces: Namespaces,
}

impl Rack {
    /// Builds a router with so many nodes beside it, and a folder with everything but Services. `None`, after a line
    /// that says why, where this machine cannot.
    pub fn new(nodes: usize) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            super::support::skip("needs root for network namespaces");
            return None;
        }
        if Command::new("bird").arg("--version").output().is_err() {
            super::support::skip("needs BIRD 2 (Debian: bird2)");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("icrun{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let folder = TempDir::with_prefix("ironcast-run-").expect("a folder");
        let all = ["tor".to_owned()].into_iter().chain((1..=nodes).map(|n| format!("n{n}")));
        let namespaces = Namespaces::new(all.map(|n| format!("{name}-{n}")).collect());
        for n in 1..=nodes {
            link(&name, n);
        }
        let router = router(&name, folder.path());
        let rack = Self { folder, name, nodes, _router: router, _namespaces: namespaces };
        fs::create_dir(rack.manifests()).expect("a folder");
        rack.write(
            "pool",
            &[ours("IPAddressPool", "edge", json!({"addresses": ["203.0.113.0/24", "2001:db8:ffff::/112"]}))],
        );
        rack.write("advertisement", &[ours("BGPAdvertisement", "all", json!({}))]);
        (1..=nodes).for_each(|n| rack.write(&format!("n{n}"), &node(n)));
        Some(rack)
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Writes a file of the folder, whole.
    pub fn write(&self, name: &str, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(|o| serde_norway::to_string(o).expect("writable")).collect();
        self.write_text(name, &text.join("---\n"));
    }

    /// Writes a file of the folder, whatever is in it.
    pub fn write_text(&self, name: &str, text: &str) {
        let half = self.folder.path().join("half");
        fs::write(&half, text).expect("written");
        fs::rename(&half, self.manifests().join(format!("{name}.yaml"))).expect("renamed");
    }

    /// Writes a Service with one endpoint on every node.
    pub fn put(&self, service: &str, families: &[&str]) {
        self.write(service, &service_objects(service, families, self.nodes));
    }

    /// Starts the daemon of a node.
    pub fn daemon(&self, node: usize, more: &[&str]) -> Program {
        let path = |name: String| self.folder.path().join(name);
        let mut command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_ironcast").into(), "run".into()];
        command.extend(["--manifests".into(), self.manifests().into()]);
        command.extend(["--node".into(), format!("n{node}").into(), "--admin".into(), "none".into()]);
        command.extend(["--admin-socket".into(), self.socket(node).into()]);
        command.extend(["--state-dir".into(), path(format!("state-n{node}")).into()]);
        command.extend(more.iter().map(OsString::from));
        Program::start(Some(&self.namespace(&format!("n{node}"))), &path(format!("n{node}.log")), &command)
            .expect("it starts")
    }

    /// Another verb of the program, asked of a node's daemon.
    pub fn ask(&self, node: usize, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
        command.args(arguments).arg("--socket").arg(self.socket(node)).output().expect("it runs")
    }

    /// `/state.json` of a node's daemon, if it answers.
    pub fn state(&self, node: usize) -> Option<Value> {
        serde_json::from_slice(&self.ask(node, &["status", "-o", "json"]).stdout).ok()
    }

    /// What `ip` says in a namespace.
    pub fn ip(&self, place: &str, arguments: &str) -> String {
        let namespace = format!("--net=/run/netns/{}", self.namespace(place));
        run("nsenter", &format!("{namespace} ip {arguments}"))
    }

    /// The next hops of an address in the router's kernel.
    pub fn next_hops(&self, address: IpAddr) -> Vec<String> {
        let routes = self.ip("tor", &format!("route show exact {address}"));
        let routes = if address.is_ipv6() { self.ip("tor", &format!("-6 route show exact {address}")) } else { routes };
        let words: Vec<&str> = routes.split_whitespace().collect();
        words.windows(2).filter(|w| w[0] == "via").map(|w| w[1].to_owned()).collect()
    }

    /// Answers every connection to [`PORT`] in a node's namespace with the node's name, until the test ends.
    pub fn serve(&self, node: usize) {
        let path = self.path_of(&format!("n{node}"));
        thread::spawn(move || {
            enter(&path);
            let listener = TcpListener::bind(("::", PORT)).expect("the port is free");
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.read(&mut [0; 512]);
                let _ = write!(stream, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nn{node}");
            }
        });
    }

    /// The answer to an HTTP request that the router's host sends to an address.
    pub fn fetch(&self, address: IpAddr) -> Result<String, String> {
        let path = self.path_of("tor");
        let work = move || -> std::io::Result<String> {
            enter(&path);
            let to = SocketAddr::new(address, PORT);
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = thread::spawn(work).join().expect("no panic").map_err(|e| e.to_string())?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or(answer)
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("n{node}.sock"))
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    fn path_of(&self, place: &str) -> PathBuf {
        Path::new("/run/netns").join(self.namespace(place))
    }
}

/// Asks again until the answer is there.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn enter(path: &Path) {
    let namespace = File::open(path).expect("the namespace is there");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
}

/// Network namespaces that go when a shell that holds them sees our end close.
struct Namespaces {
    shell: Child,
}

impl Namespaces {
    fn new(names: Vec<String>) -> Self {
        const SWEEP: &str = r#"read -r _; for n in "$@"; do ip netns del "$n"; done"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", SWEEP, "sh"]).args(&names).process_group(0).stdin(Stdio::piped());
        let shell = shell.spawn().expect("a shell");
        for name in &names {
            run("ip", &format!("netns add {name}"));
            run("ip", &format!("-n {name} link set lo up"));
        }
        Self { shell }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Link `n` between the router (10.0.n.1) and node n (10.0.n.2).
fn link(name: &str, n: usize) {
    run("ip", &format!("link add p{n} netns {name}-tor type veth peer name eth0 netns {name}-n{n}"));
    for (place, device, host) in [("tor".to_owned(), format!("p{n}"), 1), (format!("n{n}"), "eth0".to_owned(), 2)] {
        run("ip", &format!("-n {name}-{place} address add 10.0.{n}.{host}/24 dev {device}"));
        run("ip", &format!("-n {name}-{place} address add fd00:{n}::{host}/64 dev {device} nodad"));
        run("ip", &format!("-n {name}-{place} link set {device} up"));
    }
}

fn router(name: &str, folder: &Path) -> Program {
    let config = format!(
        "router id 10.255.0.1;\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths yes; }}\n\
         protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths yes; }}\n\
         template bgp node {{ local as {ROUTER_ASN}; hold time 9; passive on; graceful restart aware;\n\
         ipv4 {{ import all; export none; extended next hop on; }}; ipv6 {{ import all; export none; }}; }}\n\
         protocol bgp from node {{ neighbor range 10.0.0.0/16 external; dynamic name \"four\"; }}\n\
         protocol bgp from node {{ neighbor range fd00::/16 external; dynamic name \"six\"; }}\n"
    );
    let file = folder.join("bird.conf");
    fs::write(&file, config).expect("written");
    let command = ["bird", "-f", "-c"].map(OsString::from).into_iter().chain([
        file.into(),
        "-s".into(),
        folder.join("bird.ctl").into(),
    ]);
    let command: Vec<OsString> = command.collect();
    Program::start(Some(&format!("{name}-tor")), &folder.join("bird.log"), &command).expect("BIRD starts")
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect("it runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {problem}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One of our resources.
pub fn ours(kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "ironcast-system"});
    json!({"apiVersion": "ironcast.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn node(n: usize) -> [Value; 3] {
    let labels = json!({"kubernetes.io/hostname": format!("n{n}")});
    let peer = |family: &str, address: String| {
        let spec = json!({
            "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "peerAddress": address, "holdTime": "9s",
            "connectTime": "1s", "enableGracefulRestart": true, "nodeSelectors": [{"matchLabels": labels}],
        });
        ours("BGPPeer", &format!("n{n}-{family}"), spec)
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{n}"), "labels": labels},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("10.0.{n}.2")}]},
    });
    [object, peer("v4", format!("10.0.{n}.1")), peer("v6", format!("fd00:{n}::1"))]
}

fn service_objects(name: &str, families: &[&str], nodes: usize) -> Vec<Value> {
    let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "ipFamilyPolicy": policy, "ipFamilies": families,
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
        },
    });
    let slice = |family: &&str| {
        let address = |n: usize| if *family == "IPv4" { format!("10.0.{n}.2") } else { format!("fd00:{n}::2") };
        let endpoint =
            |n| json!({"addresses": [address(n)], "nodeName": format!("n{n}"), "conditions": {"ready": true}});
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("{name}-{}", family.to_lowercase()), "namespace": "shop",
                "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": (1..=nodes).map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
        })
    };
    [service].into_iter().chain(families.iter().map(slice)).collect()
}
