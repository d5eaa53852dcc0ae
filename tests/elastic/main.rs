//! Addresses of a provider on a cluster: a real API server, daemons as real processes with the rights of the manifests, the
//! emulated Packet API, and BIRD as both of its routers behind the nodes' gateway.

mod rights;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ironcast_emulator::{
    Emulator, Fault, Rule, Server,
    packet::{Device, Packet},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use support::{
    cluster::{Cluster, Place},
    fabric::{Fabric, v4, v6},
    program::Program,
    routers, skip, until,
};

/// Longer than a lease of leadership, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
const SPACE: &str = "ironcast-system";
const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
const TOKEN: &str = "a-token-for-the-leader-alone";
const NODES: [(&str, u8); 2] = [("n1", 11), ("n2", 12)];
/// The nodes' gateway, which is one of the two routers, and the other one behind it.
const ROUTERS: [(&str, &str); 2] = [("tor", "169.254.255.1"), ("tor2", "169.254.255.2")];
const API: u16 = 8088;

struct Site {
    // Order is the order of dropping.
    _birds: Vec<Program>,
    cluster: Cluster,
    provider: Server,
    devices: Vec<String>,
    folder: PathBuf,
    fabric: Fabric,
    _sweep: Program,
}

impl Site {
    async fn new(peers: &str) -> Option<Self> {
        if let Some(missing) = routers::missing() {
            skip(missing);
            return None;
        }
        let fabric = Fabric::new(&[("tor", 1), ("tor2", 3), ("cp", 10), NODES[0], NODES[1]]);
        let place = Place { netns: Some(fabric.name("cp")), address: v4(10).into() };
        let cluster = Cluster::start_audited(place).await?;
        let folder = tempfile::TempDir::with_prefix("ironcast-elastic-").expect("temporary folder").keep();
        let sweep = Program::sweep(&folder).expect("sh runs");
        NODES.iter().for_each(|(node, _)| std::fs::create_dir(folder.join(node)).expect("writable"));
        let mut packet = Packet::new(PROJECT);
        let device = |(node, number): &(&str, u8)| packet.add(Device::new(node, v4(*number), v4(1)));
        let devices = NODES.iter().map(device).collect();
        let listener = listen(&fabric.name("cp"), SocketAddr::new(v4(10).into(), API));
        let listener = tokio::net::TcpListener::from_std(listener).expect("of this runtime");
        let provider = Server::start(listener, Emulator::new(packet, &[TOKEN])).expect("it listens");
        let site = Self { _birds: birds(&fabric, &folder), cluster, provider, devices, folder, fabric, _sweep: sweep };
        site.install(peers).await;
        Some(site)
    }

    async fn install(&self, peers: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let file = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
        let apply = ["apply", "--server-side", "-f", &file("crds"), "-f", &file("manifests")];
        self.cluster.kubectl(&apply).expect("applied");
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"];
        self.cluster.kubectl(&wait).expect("served");
        for ((name, number), device) in NODES.iter().zip(&self.devices) {
            let node = format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{providerID: 'equinixmetal://{device}'}}\n"
            );
            self.cluster.apply(&node).expect("accepted");
            let status = format!(
                r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{}"}},{{"type":"InternalIP","address":"{}"}}],
                "conditions":[{{"type":"Ready","status":"True","reason":"Test","message":""}}]}}}}"#,
                v4(*number),
                v6(*number)
            );
            let patch = ["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status];
            self.cluster.kubectl(&patch).expect("patched");
        }
        let url = format!("http://{}:{API}", v4(10));
        let ours = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: packet-token, namespace: {SPACE}}}\nstringData: {{token: {TOKEN}}}\n---\n\
             apiVersion: ironcast.dev/v1alpha1\nkind: ProviderConfig\nmetadata: {{name: metal, namespace: {SPACE}}}\n\
             spec: {{type: packet, endpoint: '{url}/metal/v1', metadataEndpoint: '{url}/metadata', project: {PROJECT}, \
             credentialsSecret: {{name: packet-token}}, peers: {peers}, settleTime: 15s, releaseDelay: 3s, refreshInterval: 3s}}\n---\n\
             apiVersion: ironcast.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: elastic, namespace: {SPACE}}}\n\
             spec: {{provider: {{name: metal, type: public_ipv4, region: am}}}}\n---\n\
             apiVersion: ironcast.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: all, namespace: {SPACE}}}\nspec: {{}}\n"
        );
        until("the CRDs take objects", LIMIT, || async { self.cluster.apply(&ours).ok() }).await;
    }

    fn daemon(&self, node: &str) -> Program {
        self.cluster.daemon(&self.fabric.name(node), node, &self.folder.join(node), "none")
    }

    fn daemons(&self) -> Vec<Program> {
        NODES.iter().map(|(node, _)| self.daemon(node)).collect()
    }

    /// Killed, and started a moment later.
    fn kill_and_start(&self, daemons: &mut Vec<Program>, index: usize) {
        drop(daemons.remove(index));
        daemons.insert(index, self.daemon(NODES[index].0));
    }

    /// A Service with an endpoint on every node.
    fn deploy(&self, service: &str) {
        let endpoint = |(node, number): &(&str, u8)| {
            format!("{{addresses: [10.244.{number}.2], nodeName: {node}, conditions: {{ready: true}}}}")
        };
        let endpoints: Vec<String> = NODES.iter().map(endpoint).collect();
        let objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: default}}\n\
             spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {service}-1, namespace: default, \
             labels: {{kubernetes.io/service-name: {service}}}}}\nports: [{{name: '', port: 8080, protocol: TCP}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        );
        self.cluster.apply_server_side(&objects).expect("accepted");
    }

    fn undeploy(&self, service: &str) {
        self.cluster.kubectl(&["delete", "service", service]).expect("deleted");
    }

    async fn address(&self, service: &str) -> String {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        until(&format!("{service} has an address"), LIMIT, || async {
            let ip = self.cluster.kubectl(&["get", "service", service, "-o", path]).unwrap_or_default();
            (!ip.is_empty()).then_some(ip)
        })
        .await
    }

    /// Waits until the router sends to exactly these hosts.
    async fn routed(&self, address: &str, hosts: &[u8]) {
        let wanted: Vec<String> = hosts.iter().map(|number| v4(*number).to_string()).collect();
        let start = std::time::Instant::now();
        loop {
            let now = ROUTERS.map(|(router, _)| self.fabric.next_hops(router, &format!("{address}/32")));
            if now.iter().all(|now| *now == wanted) {
                return;
            }
            let logs = || NODES.map(|(node, _)| tail(&self.folder.join(node).join("daemon.log"))).join("\n--\n");
            assert!(start.elapsed() < LIMIT, "{address} goes to {now:?} and not to {wanted:?}\n{}", logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The claims' objects.
    fn claims(&self) -> Vec<Value> {
        let list = self.cluster.kubectl(&["get", "addressclaims", "-n", SPACE, "-o", "json"]).expect("served");
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    async fn phase(&self, phase: &str) -> Value {
        until(&format!("a claim is {phase}"), LIMIT, || async {
            self.claims().into_iter().find(|claim| claim["status"]["phase"] == phase)
        })
        .await
    }

    async fn leader(&self) -> usize {
        let path = "jsonpath={.spec.holderIdentity}";
        until("one leads", LIMIT, || async {
            let holder = self.cluster.kubectl(&["get", "lease", "ironcast", "-n", SPACE, "-o", path]).ok()?;
            NODES.iter().position(|(node, _)| holder.starts_with(&format!("{node}_")))
        })
        .await
    }

    fn note(&self, text: &str) {
        self.provider.emulator().note(since_1970(), text);
    }

    fn steer(&self, command: Value) {
        self.provider.emulator().steer(since_1970(), &command).expect("known");
    }

    /// What mattered at the provider, in its order.
    fn story(&self) -> Vec<String> {
        let emulator = self.provider.emulator();
        let word = |entry: &ironcast_emulator::Entry| match entry.method.as_str() {
            "POST" if entry.path.ends_with("/ips") && entry.effect == 201 => Some("claimed".to_owned()),
            "DELETE" if entry.path.contains("/ips/") && entry.effect == 204 => Some("released".to_owned()),
            "NOTE" => Some(entry.path.clone()),
            _ => None,
        };
        emulator.log().iter().filter_map(word).collect()
    }

    fn reservations(&self) -> Vec<Value> {
        self.provider.emulator().state()["ip_addresses"].as_array().expect("a list").clone()
    }

    /// The Node's word of its machine.
    async fn machine_is(&self, node: &str, state: &str) {
        let path = r"jsonpath={.metadata.annotations.ironcast\.dev/device-state}";
        until(&format!("{node} is {state}"), LIMIT, || async {
            (self.cluster.kubectl(&["get", "node", node, "-o", path]).ok()? == state).then_some(())
        })
        .await;
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

fn listen(namespace: &str, at: SocketAddr) -> TcpListener {
    let path = format!("/run/netns/{namespace}");
    let work = move || {
        let namespace = File::open(path).expect("the namespace is there");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
        TcpListener::bind(at).expect("the port is free")
    };
    let listener = thread::spawn(work).join().expect("no panic");
    listener.set_nonblocking(true).expect("it may be");
    listener
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The routers of the provider. BIRD takes a range of neighbours once, so each has one of its own.
fn birds(fabric: &Fabric, folder: &Path) -> Vec<Program> {
    let gateway = fabric.name(ROUTERS[0].0);
    ip(&format!("-n {gateway} route add {}/32 via {}", ROUTERS[1].1, v4(3)));
    for switch in ["ip_forward=1", "conf.all.send_redirects=0", "conf.eth0.send_redirects=0"] {
        ip(&format!("netns exec {gateway} sysctl -qw net.ipv4.{switch}"));
    }
    let start = |(host, router): (&str, &str)| {
        let name = fabric.name(host);
        ip(&format!("-n {name} address add {router}/32 dev lo"));
        let config = format!(
            "router id {router};\nlog stderr all;\nprotocol device {{ scan time 2; }}\nprotocol direct {{ ipv4; }}\n\
             protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on; }}\n\
             protocol bgp node {{ local {router} as 65530; neighbor range 10.77.0.0/24 as 65000; dynamic name \"node\"; multihop 5; \
             passive on; hold time 9; graceful restart aware; ipv4 {{ import all; export none; }}; }}\n"
        );
        let file = |kind: &str| folder.join(format!("{host}.{kind}"));
        std::fs::write(file("conf"), config).expect("writable");
        let command = ["bird".into(), "-f".into(), "-c".into(), file("conf").into(), "-s".into(), file("ctl").into()];
        Program::start(Some(&name), &file("log"), &command).expect("sh runs")
    };
    ROUTERS.map(start).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_claimed_announced_withdrawn_and_given_back_with_routers_from_the_metadata() {
    let Some(site) = Site::new("Metadata").await else { return };
    let daemons = site.daemons();
    site.deploy("web");
    let web = site.address("web").await;
    site.routed(&web, &[11, 12]).await;
    site.note("announced");
    for (node, _) in NODES {
        for (_, router) in ROUTERS {
            let via = site.fabric.next_hops(node, &format!("{router}/32"));
            assert_eq!(via, [v4(1).to_string()], "{node} reaches {router} over its gateway");
        }
    }
    let [claim] = &site.claims()[..] else { panic!("one claim: {:?}", site.claims()) };
    let [held] = &site.reservations()[..] else { panic!("one address: {:?}", site.reservations()) };
    let tags: Vec<&str> = held["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
    let name = claim["metadata"]["name"].as_str().expect("a name");
    assert!(tags.contains(&format!("ironcast-claim={name}").as_str()), "{tags:?}");
    assert!(tags.contains(&"ironcast-service=default/web"), "{tags:?}");
    assert_eq!((&claim["status"]["leaseID"], &claim["spec"]["service"]), (&held["id"], &json!("default/web")));
    let sessions = site.provider.emulator().state()["bgp_sessions"].as_array().map(Vec::len);
    assert_eq!(sessions, Some(2), "BGP is switched on for each machine");

    site.undeploy("web");
    site.routed(&web, &[]).await;
    site.note("withdrawn");
    until("the claim is over", LIMIT, || async { site.claims().is_empty().then_some(()) }).await;
    assert_eq!(site.story(), ["claimed", "announced", "withdrawn", "released"]);
    assert!(daemons.iter().all(Program::running));
    let logs =
        NODES.map(|(node, _)| std::fs::read_to_string(site.folder.join(node).join("daemon.log")).expect("a log"));
    assert!(!logs.iter().any(|log| log.contains(TOKEN)), "the token is in a log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_a_lost_journal_and_a_machine_that_is_off_leak_nothing() {
    let Some(site) = Site::new("Account").await else { return };
    let mut daemons = site.daemons();

    // Killed between the effect of the request and its answer.
    site.provider.emulator().inject(Rule::next("POST", "/ips", Fault::Late { millis: 9000 }));
    site.deploy("web");
    until("the provider has made the address", LIMIT, || async { (site.story() == ["claimed"]).then_some(()) }).await;
    assert_eq!(site.phase("Sent").await["spec"]["service"], "default/web");
    let first = site.leader().await;
    site.kill_and_start(&mut daemons, first);
    let web = site.address("web").await;
    site.routed(&web, &[11, 12]).await;
    assert_eq!(site.story(), ["claimed"], "the successor finds it by its marks");

    // Routers came in Secrets of each node, without the token.
    for (node, _) in NODES {
        let secret = format!("ironcast-routers.metal.{node}");
        let routers = site.cluster.kubectl(&["get", "secret", &secret, "-n", SPACE, "-o", "json"]).expect("written");
        let secret: Value = serde_json::from_str(&routers).expect("JSON");
        assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], node);
        assert!(!routers.contains(TOKEN));
    }

    // The journal is lost.
    drop(std::mem::take(&mut daemons));
    for claim in site.claims() {
        let name = claim["metadata"]["name"].as_str().expect("a name").to_owned();
        let bare =
            ["patch", "addressclaim", &name, "-n", SPACE, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#];
        site.cluster.kubectl(&bare).expect("patched");
        site.cluster.kubectl(&["delete", "addressclaim", &name, "-n", SPACE]).expect("deleted");
    }
    let mut daemons = site.daemons();
    site.phase("Bound").await;
    site.routed(&web, &[11, 12]).await;
    assert_eq!((site.address("web").await, site.story()), (web.clone(), vec!["claimed".to_owned()]));

    // A machine that the provider switches off announces nothing.
    site.steer(json!({ "device_state": [site.devices[1], "inactive"] }));
    site.machine_is("n2", "PoweredOff").await;
    site.routed(&web, &[11]).await;
    let path = "jsonpath={.status.withheld[*].reason}";
    until("the node says why", LIMIT, || async {
        let why = site.cluster.kubectl(&["get", "bgpnodestatus", "n2", "-n", SPACE, "-o", path]).ok()?;
        why.contains("deviceUnavailable").then_some(())
    })
    .await;
    site.steer(json!({ "device_state": [site.devices[1], "active"] }));
    site.machine_is("n2", "Active").await;
    site.routed(&web, &[11, 12]).await;

    // A machine gets another address: its peers and routes follow.
    let (node, tor) = (site.fabric.name("n1"), site.fabric.name("tor"));
    ip(&format!("-n {node} address add {}/24 dev eth0", v4(21)));
    ip(&format!("-n {tor} address add {}/24 dev eth0", v4(2)));
    site.steer(json!({ "device_address": [site.devices[0], v4(21), v4(2)] }));
    site.routed(&web, &[12, 21]).await;
    assert_eq!(site.fabric.next_hops("n1", &format!("{}/32", ROUTERS[0].1)), [v4(2).to_string()]);

    // Killed while the address waits to be given back.
    site.undeploy("web");
    site.phase("Releasing").await;
    let leader = site.leader().await;
    site.kill_and_start(&mut daemons, leader);
    until("the claim is over", LIMIT, || async { site.claims().is_empty().then_some(()) }).await;
    site.routed(&web, &[]).await;
    assert_eq!(site.story(), ["claimed", "released"]);
    assert!(site.reservations().is_empty());
}
