//! A node and a router with a switch between them, each in a network namespace; everything goes with the test.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::program::Program;

/// Longer than anything here takes on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const NODE_ASN: u32 = 64512;
pub(crate) const ROUTER_ASN: u32 = 64500;
/// The address of every Service here.
pub(crate) const VIP: &str = "203.0.113.1";

/// The whole.
pub(crate) struct Site {
    folder: TempDir,
    name: String,
    _namespaces: Program,
}

impl Site {
    /// A node (10.78.0.2, fd78::2 and a link-local address on `eth0`) and a router (10.78.0.1, fd78::1 on `p1`);
    /// one Service.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("icbfd{}p{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let site = Self {
            folder: TempDir::with_prefix("ironcast-peering-").expect("a folder"),
            _namespaces: Program::remove_namespaces(&["node", "mid", "tor"].map(|place| format!("{name}-{place}")))
                .expect("sh runs"),
            name,
        };
        for place in ["node", "mid", "tor"] {
            run("ip", &format!("netns add {}", site.netns(place)));
            site.ip(place, "link set lo up");
        }
        site.ip("mid", "link add br0 type bridge");
        site.ip("mid", "link set br0 up");
        for (place, device, host) in [("node", "eth0", 2), ("tor", "p1", 1)] {
            site.ip("mid", &format!("link add dev {place} type veth peer name {device} netns {}", site.netns(place)));
            site.ip("mid", &format!("link set dev {place} master br0 up"));
            site.ip(place, &format!("address add 10.78.0.{host}/24 dev {device}"));
            site.ip(place, &format!("address add fd78::{host}/64 dev {device} nodad"));
            site.ip(place, &format!("link set {device} up"));
        }
        fs::create_dir(site.manifests()).expect("a folder");
        site.write("pool", "IPAddressPool", json!({"addresses": ["203.0.113.0/24", "2001:db8:ffff::/112"]}));
        site.write("advertisement", "BGPAdvertisement", json!({}));
        site.write_objects("node", &[node()]);
        site.service("web", VIP);
        site
    }

    /// A file for the routers and logs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    pub(crate) fn netns(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// Writes one of our resources, of the file's name.
    pub(crate) fn write(&self, name: &str, kind: &str, spec: Value) {
        let metadata = json!({"name": name, "namespace": "ironcast-system"});
        let object = json!({"apiVersion": "ironcast.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        self.write_objects(name, &[object]);
    }

    /// A Service that asks for this address.
    pub(crate) fn service(&self, name: &str, address: &str) {
        self.write_objects(name, &service(name, address));
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.manifests().join(format!("{name}.yaml"))).expect("it was there");
    }

    fn write_objects(&self, name: &str, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(|o| serde_norway::to_string(o).expect("writable")).collect();
        let half = self.folder.path().join("half");
        fs::write(&half, text.join("---\n")).expect("written");
        fs::rename(&half, self.manifests().join(format!("{name}.yaml"))).expect("renamed");
    }

    /// What `ip` says in a namespace.
    pub(crate) fn ip(&self, place: &str, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.netns(place)))
    }

    /// The switch carries nothing any more, or again; nobody sees a carrier change.
    pub(crate) fn freeze(&self, frozen: bool) {
        let state = if frozen { 0 } else { 3 };
        run("bridge", &format!("-n {} link set dev tor state {state}", self.netns("mid")));
    }

    /// Starts the daemon.
    pub(crate) fn daemon(&self) -> Program {
        let path = |name: &str| self.folder.path().join(name);
        let mut command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_ironcast").into(), "run".into()];
        command.extend(["--manifests".into(), self.manifests().into(), "--node".into(), "n1".into()]);
        command.extend(["--admin".into(), "none".into(), "--admin-socket".into(), path("n1.sock").into()]);
        command.extend(["--state-dir".into(), path("state").into()]);
        Program::start(Some(&self.netns("node")), &path("n1.log"), &command).expect("it starts")
    }

    /// Another verb of the program, asked of the daemon.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
        command.args(arguments).arg("--socket").arg(self.folder.path().join("n1.sock")).output().expect("it runs")
    }

    /// `/state.json`, if the daemon answers.
    pub(crate) fn state(&self) -> Option<Value> {
        serde_json::from_slice(&self.ask(&["status", "-o", "json"]).stdout).ok()
    }

    /// The session of a peer.
    pub(crate) fn session(&self, peer: &str) -> Option<Value> {
        self.state()?["sessions"].as_array()?.iter().find(|s| s["peer"] == peer).cloned()
    }

    /// The next hop of the Service in the router's kernel, `via 10.78.0.2` or `via inet6 fe80::…`.
    pub(crate) fn next_hop(&self) -> Option<String> {
        let routes = self.ip("tor", &format!("route show {VIP}"));
        let words: Vec<&str> = routes.split_whitespace().skip_while(|word| *word != "via").take(3).collect();
        match words[..] {
            ["via", "inet6", hop] => Some(format!("via inet6 {hop}")),
            ["via", hop, ..] => Some(format!("via {hop}")),
            _ => None,
        }
    }

    /// Waits until the router's kernel has (or no longer has) a route to the Service; how long that took.
    pub(crate) fn wait_route(&self, there: bool) -> Duration {
        let start = Instant::now();
        until(&format!("route in the router's kernel: {there}"), || (self.next_hop().is_some() == there).then_some(()));
        start.elapsed()
    }
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.78.0.2"}]},
    })
}

fn service(name: &str, address: &str) -> [Value; 2] {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "ipFamilies": ["IPv4"], "loadBalancerIP": address,
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [{"addresses": ["10.78.0.2"], "nodeName": "n1", "conditions": {"ready": true}}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    });
    [service, slice]
}

/// Asks again every few milliseconds until the answer is there.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect("it runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {problem}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
