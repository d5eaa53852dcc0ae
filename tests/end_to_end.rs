//! The whole way: a Service made with kubectl on a real API server, daemons as real processes on two nodes, and the
//! kernel tables of a BIRD and an FRR router.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use support::{
    cluster::{Cluster, Place},
    fabric::{Fabric, v4, v6},
    program::Program,
    routers::{self, BIRD_ASN, FRR_ASN, NODE_ASN},
    skip, until,
};

const LIMIT: Duration = Duration::from_secs(30);
const SPACE: &str = "ironcast-system";
const ROUTERS: [&str; 2] = ["bird", "frr"];
const NODES: [(&str, u8); 2] = [("n1", 11), ("n2", 12)];
/// The bound that operators are promised of a release build.
const MEMORY: u64 = 20 << 20;
/// What the packet path takes beyond that at most.
const PACKET_PATH: u64 = 2 << 20;
/// This node leaves packets to kube-proxy, as a cluster under upgrade has them.
const WITHOUT_PACKET_PATH: &str = "n2";

/// Control plane, routers and nodes on one bridge.
struct Site {
    // Order is the order of dropping.
    _routers: Vec<Program>,
    cluster: Cluster,
    folder: PathBuf,
    fabric: Fabric,
    _sweep: Program,
}

impl Site {
    async fn new() -> Option<Self> {
        if let Some(missing) = routers::missing() {
            skip(missing);
            return None;
        }
        let fabric = Fabric::new(&[("bird", 1), ("frr", 2), ("cp", 10), NODES[0], NODES[1]]);
        let place = Place { netns: Some(fabric.name("cp")), address: v4(10).into() };
        let cluster = Cluster::start_at(place).await?;
        let folder = tempfile::TempDir::with_prefix("ironcast-end-to-end-").expect("temporary folder").keep();
        let sweep = Program::sweep(&folder).expect("sh runs");
        // FRR's own user must pass.
        for name in ROUTERS.iter().chain(NODES.iter().map(|(name, _)| name)) {
            fs::create_dir(folder.join(name)).expect("writable");
        }
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        let mut routers = vec![routers::bird(&fabric, "bird", &folder.join("bird"))];
        routers.extend(routers::frr(&fabric, "frr", &folder.join("frr")));
        let site = Self { _routers: routers, cluster, folder, fabric, _sweep: sweep };
        site.install().await;
        Some(site)
    }

    /// What an operator applies, and what kubelets would.
    async fn install(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let file = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
        self.cluster
            .kubectl(&["apply", "--server-side", "-f", &file("crds"), "-f", &file("manifests")])
            .expect("applied");
        self.cluster
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"])
            .expect("served");
        for (name, number) in NODES {
            let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
            self.cluster.apply(&node).expect("accepted");
            let status = format!(
                r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{}"}},{{"type":"InternalIP","address":"{}"}}],
                "conditions":[{{"type":"Ready","status":"True","reason":"Test","message":""}}]}}}}"#,
                v4(number),
                v6(number)
            );
            self.patch_status("node", name, "default", &status);
        }
        let ours = include_str!("end_to_end.yaml");
        until("the CRDs take objects", LIMIT, || async {
            let applied = self.cluster.apply(ours);
            applied.inspect_err(|error| println!("{error}")).ok()
        })
        .await;
        for (kind, asn, number) in [("bird", BIRD_ASN, 1), ("frr", FRR_ASN, 2)] {
            for address in [v4(number).to_string(), v6(number).to_string()] {
                let family = if address.contains(':') { 6 } else { 4 };
                let peer = format!(
                    "apiVersion: ironcast.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {kind}{family}, namespace: {SPACE}}}\n\
                     spec: {{myASN: {NODE_ASN}, peerASN: {asn}, peerAddress: '{address}', enableGracefulRestart: true, holdTime: 9s}}\n"
                );
                self.cluster.apply(&peer).expect("accepted");
            }
        }
    }

    fn patch_status(&self, kind: &str, name: &str, namespace: &str, patch: &str) {
        let arguments = ["patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch];
        self.cluster.kubectl(&arguments).expect("patched");
    }

    /// Two ready pods behind the Service, one on each node; the real controller makes the slices.
    async fn deploy(&self, service: &str) {
        let kinds = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: default}}\nspec: {{type: LoadBalancer, \
             ipFamilyPolicy: RequireDualStack, selector: {{app: {service}}}, ports: [{{port: 80}}]}}\n"
        );
        self.cluster.apply(&kinds).expect("accepted");
        until("the service account of pods", LIMIT, || async {
            self.cluster.kubectl(&["get", "serviceaccount", "default"]).ok()
        })
        .await;
        for (node, number) in NODES {
            let pod = format!("{service}-{node}");
            let yaml = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: default, labels: {{app: {service}}}}}\n\
                 spec: {{nodeName: {node}, containers: [{{name: a, image: a}}]}}\n"
            );
            self.cluster.apply(&yaml).expect("accepted");
            let status = format!(
                r#"{{"status":{{"phase":"Running","podIP":"10.244.{number}.2","podIPs":[{{"ip":"10.244.{number}.2"}},
                {{"ip":"fd44::{number}:2"}}],"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
            );
            self.patch_status("pod", &pod, "default", &status);
        }
    }

    fn daemon(&self, node: &str) -> Program {
        let datapath = if node == WITHOUT_PACKET_PATH { "none" } else { "auto" };
        self.cluster.daemon(&self.fabric.name(node), node, &self.folder.join(node), datapath)
    }

    fn addresses(&self, service: &str) -> Vec<String> {
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let output = self.cluster.kubectl(&["get", "service", service, "-o", path]).unwrap_or_default();
        output.split_whitespace().map(Into::into).collect()
    }

    /// Waits until both routers have the prefix with every node as next hop, or not at all.
    async fn until_routed(&self, what: &str, address: &str, routed: bool, daemons: &[Program]) {
        let mut hops: Vec<String> = match (routed, address.contains(':')) {
            (false, _) => Vec::new(),
            (true, false) => NODES.iter().map(|(_, n)| v4(*n).to_string()).collect(),
            (true, true) => Vec::new(), // counted: FRR's next hops are link-local
        };
        hops.sort();
        let count = if routed { NODES.len() } else { 0 };
        let start = std::time::Instant::now();
        loop {
            let now = ROUTERS.map(|router| self.fabric.next_hops(router, &prefix(address)));
            if now.iter().all(|now| now.len() == count && (hops.is_empty() || *now == hops)) {
                return;
            }
            if start.elapsed() > LIMIT {
                let logs: Vec<String> = daemons.iter().map(Program::tail).collect();
                panic!("not within {LIMIT:?}: {what}: {address} is {now:?}\n{}", logs.join("\n--\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn prefix(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reaches_the_kernels_of_bird_and_frr_and_leaves_them_with_its_deletion() {
    let Some(mut site) = Site::new().await else { return };
    let mut daemons: Vec<Program> = NODES.iter().map(|(node, _)| site.daemon(node)).collect();
    site.deploy("web").await;
    let web = until("both addresses", LIMIT, || async {
        let addresses = site.addresses("web");
        (addresses.len() == 2).then_some(addresses)
    })
    .await;
    assert_eq!(web, ["203.0.113.0", "2001:db8:f::"], "the first of each range, in the order of ipFamilies");
    for address in &web {
        site.until_routed("the first light", address, true, &daemons).await;
    }

    from_outside(&site).await;

    // Restarting every daemon changes neither: one after the other, then both at once, in order and with -9.
    let stop = AtomicBool::new(false);
    let watcher = async {
        let mut looks = 0;
        while !stop.load(Relaxed) {
            if looks % 20 == 0 {
                assert_eq!(site.addresses("web"), web, "the addresses stay");
            }
            for (router, address) in ROUTERS.iter().flat_map(|router| web.iter().map(move |address| (router, address)))
            {
                assert!(!site.fabric.next_hops(router, &prefix(address)).is_empty(), "{router} lost {address}");
            }
            looks += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        looks
    };
    let restarts = async {
        for (index, (node, _)) in NODES.iter().enumerate() {
            restart(&site, &mut daemons, index, node).await;
            for address in &web {
                site.until_routed("one daemon restarted", address, true, &daemons).await;
            }
        }
        daemons.clear(); // killed
        tokio::time::sleep(Duration::from_millis(500)).await;
        daemons.extend(NODES.iter().map(|(node, _)| site.daemon(node)));
        tokio::time::sleep(Duration::from_secs(12)).await; // longer than the hold time
        for address in &web {
            site.until_routed("every daemon killed and started", address, true, &daemons).await;
        }
        stop.store(true, Relaxed);
    };
    let (looks, ()) = tokio::join!(watcher, restarts);
    assert!(looks > 20, "looked {looks} times only");

    // An API server that is away changes nothing.
    site.cluster.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(11)).await;
    for address in &web {
        site.until_routed("the API server is away", address, true, &daemons).await;
    }
    site.cluster.start_apiserver().await;

    site.cluster.kubectl(&["delete", "service", "web"]).expect("deleted");
    for address in &web {
        site.until_routed("deleted", address, false, &daemons).await;
    }
    assert!(daemons.iter().all(Program::running));
    memory(&site, &daemons).await;
}

async fn restart(site: &Site, daemons: &mut [Program], index: usize, node: &str) {
    assert!(daemons[index].terminate(Duration::from_secs(10)), "{}", daemons[index].tail());
    daemons[index] = site.daemon(node);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// What an operator sees from a machine that has a kubeconfig and no daemon, also as kubectl's plugin.
async fn from_outside(site: &Site) {
    let plugin = site.folder.join("kubectl-ironcast");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ironcast"), &plugin).expect("a link");
    let path = std::env::join_paths([&site.folder, site.cluster.assets(), Path::new("/usr/bin")]).expect("a path");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", site.fabric.name("cp")))
            .arg("kubectl")
            .arg("ironcast")
            .args(arguments);
        command.env("PATH", &path).env("KUBECONFIG", site.cluster.kubeconfig("admin"));
        let output = command.output().expect("nsenter runs");
        (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), output.status.code())
    };
    let status = until("status of the cluster", LIMIT, || async {
        let (status, code) = ask(&["status"]);
        let up = status.matches("4 of 4 up").count() == 2 && status.lines().any(|line| line.ends_with("n1 n2"));
        (code == Some(0) && up).then_some(status)
    })
    .await;
    assert!(status.starts_with("Cluster · 2 nodes · 2 daemons"), "{status}");
    let (json, _) = ask(&["status", "-o", "json"]);
    let state: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(state["services"][0]["announcedBy"], serde_json::json!(["n1", "n2"]), "{json}");
    let (node, code) = ask(&["status", "--node", "n1"]);
    assert!(code == Some(0) && node.starts_with("Node n1 · ") && node.contains("bird4"), "{node}");
    let (story, code) = ask(&["explain", "service", "web"]);
    let told = story.lines().filter(|line| line.contains("announced  by n1 n2: 203.0.113.0/32 to ")).count();
    assert!(code == Some(0) && told == 2 && story.contains("of pool "), "{story}");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_ironcast"));
    daemon.args(["explain", "service", "web", "--socket"]).arg(site.folder.join("n1").join("admin.sock"));
    until("routers have acknowledged what they were told", LIMIT, || {
        let output = daemon.output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stdout).matches(", acknowledged by its TCP").count();
        async move { (told == 4).then_some(()) }
    })
    .await;
    let (unknown, code) = ask(&["explain", "service", "nobody"]);
    assert!(code == Some(1) && unknown.contains("check the name"), "{unknown}");
    let (nowhere, code) = ask(&["status", "--node", "n9"]);
    assert!(code == Some(2) && nowhere.contains("there is no node n9; nodes: n1, n2"), "{nowhere}");
    assert!(ask(&["--help"]).0.contains("Usage: kubectl ironcast"), "it calls itself what it was called");
}

/// Resident memory of `ironcast run` with 100 Services, all of them announced.
async fn memory(site: &Site, daemons: &[Program]) {
    let services: String = (0..100)
        .map(|n| {
            let spec = "{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}";
            let (service, slice) = (format!("many-{n}"), format!("many-{n}-1"));
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: default}}\nspec: {spec}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {slice}, \
                 namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\nports: [{{name: '', port: 8080, \
                 protocol: TCP}}]\nendpoints: [{{addresses: [10.244.11.2], nodeName: n1, conditions: {{ready: true}}}}]\n"
            )
        })
        .collect();
    site.cluster.apply_server_side(&services).expect("accepted");
    site.until_routed("the last of 100", "203.0.113.99", true, daemons).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (daemon, (node, _)) in daemons.iter().zip(NODES) {
        let (resident, anonymous) = (daemon.resident(), daemon.anonymous());
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
        println!(
            "{node}: ironcast run with 100 Services: {:.1} MB resident, {:.1} MB of it anonymous ({build} build)",
            mib(resident),
            mib(anonymous)
        );
        let limit = if node == WITHOUT_PACKET_PATH { MEMORY } else { MEMORY + PACKET_PATH };
        // The text of a debug build says nothing of the one that is installed.
        let counted = if cfg!(debug_assertions) { anonymous } else { resident };
        assert!(counted < limit, "{counted} octets");
    }
}
