//! A cluster of many Services: `make bench-cluster` (`SERVICES=10000 ENDPOINTS=10`). A real API server and etcd, one
//! daemon, and a router that only listens, all on loopback; the table says how long the daemon takes and what it costs.
//! Without arguments nothing runs, so that `cargo bench` stays short. `DAEMON` names another binary of the daemon, such as
//! the static one.

#[path = "cluster/router.rs"]
mod router;
#[path = "cluster/steps.rs"]
mod steps;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use router::{Heard, Router};
use steps::Change;
use support::{cluster::Cluster, program::Program, until};

const SPACE: &str = "ironcast-system";
/// Requests at once while the cluster is filled.
const AT_ONCE: usize = 32;
/// Changes that are timed.
const CHANGES: usize = 200;
const IDLE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (Some(services), endpoints) = (numbers.next(), numbers.next().unwrap_or(10)) else {
        println!("cluster: how many Services? `make bench-cluster`");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(bench(services, endpoints));
}

/// The stage and what was found.
struct Bench {
    cluster: Cluster,
    client: Client,
    router: Router,
    services: usize,
    rows: Vec<(String, String)>,
}

async fn bench(services: usize, endpoints: usize) {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.client().await;
    let mut bench = Bench { cluster, client, router: Router::start(), services, rows: Vec::new() };
    let begun = Instant::now();
    bench.install().await;
    bench.fill(endpoints).await;
    bench.row("the cluster is filled (not the daemon's time)", format!("{:.1?}", begun.elapsed()));
    let daemon = bench.first_start().await;
    drop(daemon);
    bench.router.forget();
    let daemon = bench.cold_start().await;
    bench.memory(&daemon).await;
    bench.changes(&daemon).await;
    bench.idle(&daemon).await;
    println!("\n{services} Services with {endpoints} endpoints each\n");
    for (name, figure) in &bench.rows {
        println!("{name:<58} {figure:>32}");
    }
}

impl Bench {
    fn row(&mut self, name: &str, figure: String) {
        eprintln!("{name}: {figure}");
        self.rows.push((name.into(), figure));
    }

    async fn install(&self) {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/crds");
        let crds = root.to_str().expect("UTF-8");
        self.cluster.kubectl(&["apply", "--server-side", "-f", crds]).expect("applied");
        self.cluster.kubectl(&["create", "namespace", SPACE]).expect("created");
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"];
        self.cluster.kubectl(&wait).expect("served");
        let ours = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: ironcast.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {SPACE}}}\nspec: {spec}\n"
            )
        };
        let peer = format!(
            "{{myASN: 64512, peerASN: 64500, peerAddress: 127.0.0.1, peerPort: {}, connectTime: 1s, holdTime: 0s}}",
            self.router.port()
        );
        let all = [
            ours("IPAddressPool", "edge", "{addresses: [10.64.0.0/14]}"),
            ours("BGPAdvertisement", "all", "{}"),
            ours("BGPPeer", "tor", &peer),
            "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n".into(),
        ]
        .concat();
        until("objects are taken", LIMIT, || async { self.cluster.apply(&all).ok() }).await;
        let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
        let patch = ["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", ready];
        self.cluster.kubectl(&patch).expect("patched");
    }

    /// Services and slices, as many at once as the API server takes.
    async fn fill(&self, endpoints: usize) {
        let services: Api<k8s_openapi::api::core::v1::Service> = Api::default_namespaced(self.client.clone());
        let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::default_namespaced(self.client.clone());
        let (services, slices) = (&services, &slices);
        let one = |n: usize| async move {
            let service = json!({
                "metadata": {"name": name(n), "labels": {"app": name(n)}},
                "spec": {
                    "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
                },
            });
            let service = serde_json::from_value(service).expect("a Service");
            services.create(&PostParams::default(), &service).await.expect("created");
            slices.create(&PostParams::default(), &slice(n, endpoints)).await.expect("created");
        };
        stream::iter(0..self.services).map(one).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    fn daemon(&self, logs: &str) -> Program {
        let folder = self.cluster.folder();
        let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display()).into();
        let command = [
            "env".into(),
            format!("RUST_LOG={logs}").into(),
            std::env::var_os("DAEMON").unwrap_or_else(|| env!("CARGO_BIN_EXE_ironcast").into()),
            "run".into(),
            "--node=n1".into(),
            "--datapath=none".into(),
            "--admin=none".into(),
            flag("kubeconfig", self.cluster.kubeconfig("admin")),
            flag("state-dir", folder.join("state")),
            flag("admin-socket", folder.join("admin.sock")),
        ];
        Program::start(None, &folder.join("daemon.log"), &command).expect("sh runs")
    }

    /// Every Service gets its address: as fast as the API server takes records.
    async fn first_start(&mut self) -> Program {
        let begun = Instant::now();
        let daemon = self.daemon("info");
        self.heard_all(&daemon).await;
        self.row("first start: every Service given an address and announced", format!("{:.1?}", begun.elapsed()));
        daemon
    }

    async fn heard_all(&mut self, daemon: &Program) -> SystemTime {
        let begun = Instant::now();
        while self.router.known() < self.services {
            assert!(daemon.running(), "{}", daemon.tail());
            assert!(begun.elapsed() < LIMIT, "{} of {}\n{}", self.router.known(), self.services, daemon.tail());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.router.last()
    }

    async fn cold_start(&mut self) -> Program {
        let _ = fs::remove_file(self.cluster.folder().join("daemon.log"));
        let begun = SystemTime::now();
        let daemon = self.daemon(steps::LOGS);
        let last = self.heard_all(&daemon).await;
        let listed = logged(&daemon, "the first complete list has arrived");
        let since = |from: SystemTime, to: SystemTime| format!("{:.2?}", to.duration_since(from).unwrap_or_default());
        self.row("cold start: process to complete lists", since(begun, listed));
        self.row("cold start: complete lists to the last route on the wire", since(listed, last));
        let (sum, count) = self.planning();
        self.row("planning, each time", format!("{:.1} ms", 1000.0 * sum / count.max(1.0)));
        daemon
    }

    /// Sum and number of decisions.
    fn planning(&self) -> (f64, f64) {
        let socket = self.cluster.folder().join("admin.sock");
        let output = Command::new("curl").args(["-s", "--unix-socket"]).arg(socket).arg("http://d/metrics").output();
        let metrics = String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned();
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
        };
        (value("ironcast_plan_duration_seconds_sum"), value("ironcast_plan_duration_seconds_count"))
    }

    async fn memory(&mut self, daemon: &Program) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.row("resident after a cold start", resident(daemon));
    }

    /// A Service's endpoints become unready and ready again: from the API server's answer to the router.
    async fn changes(&mut self, daemon: &Program) {
        let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::default_namespaced(self.client.clone());
        let ((before_sum, before_count), used) = (self.planning(), cpu(daemon.pid()));
        let mut changes = Vec::new();
        for change in 0..CHANGES {
            let n = change / 2 % self.services;
            let ready = change % 2 == 1;
            let conditions = json!({ "ready": ready, "serving": ready, "terminating": false });
            let endpoints = json!([{ "addresses": ["10.0.0.1"], "nodeName": "n1", "conditions": conditions }]);
            let patch = Patch::Merge(json!({ "endpoints": endpoints }));
            self.router.listen();
            let sent = SystemTime::now();
            slices.patch(&name(n), &PatchParams::default(), &patch).await.expect("patched");
            let answered = SystemTime::now();
            let Heard { at, announced } = self.router.next().await;
            assert_eq!(announced, ready, "change {change}");
            changes.push(Change { sent, answered, heard: at });
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        for (name, figure) in steps::table(&changes, &daemon.log()) {
            self.row(&name, figure);
        }
        let (sum, count) = self.planning();
        let each = 1000.0 * (sum - before_sum) / (count - before_count).max(1.0);
        self.row("planning after one change", format!("{each:.2} ms"));
        let used = 1000.0 * (cpu(daemon.pid()) - used) / CHANGES as f64;
        self.row("the daemon's CPU for each change", format!("{used:.1} ms"));
    }

    async fn idle(&mut self, daemon: &Program) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = cpu(daemon.pid());
        tokio::time::sleep(IDLE).await;
        let used = cpu(daemon.pid()) - before;
        self.row("idle CPU, of a core", format!("{:.2} %", 100.0 * used / IDLE.as_secs_f64()));
        self.row("resident at the end", resident(daemon));
    }
}

fn name(n: usize) -> String {
    format!("service-{n}")
}

fn slice(n: usize, endpoints: usize) -> k8s_openapi::api::discovery::v1::EndpointSlice {
    let endpoints: Vec<_> = (1..=endpoints)
        .map(|e| json!({"addresses": [format!("10.0.{}.{e}", n % 200)], "nodeName": "n1", "conditions": {"ready": true}}))
        .collect();
    let slice = json!({
        "metadata": {"name": name(n), "labels": {"kubernetes.io/service-name": name(n)}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    serde_json::from_value(slice).expect("a slice")
}

/// When the daemon's log said so.
fn logged(daemon: &Program, words: &str) -> SystemTime {
    daemon.log().lines().find(|line| line.contains(words)).and_then(steps::time_of).expect("it was logged")
}

/// With the part that no file is behind.
fn resident(daemon: &Program) -> String {
    format!("{:.1} MB, {:.1} of it the heap's", daemon.resident() as f64 / 1e6, daemon.anonymous() as f64 / 1e6)
}

/// Seconds of processor time so far.
fn cpu(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
