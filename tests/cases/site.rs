//! Where a case happens: routers and nodes in network namespaces of its own, its objects in a namespace of its own on
//! the API server that all cases share. Services have the case's class, so that nobody else takes them.

use std::{
    ffi::OsString,
    fs,
    future::Future,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    bird::{Bird, RoutePath},
    support::program::Program,
};

/// Longer than anything takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// Long enough for what must not happen.
pub(crate) const CALM: Duration = Duration::from_millis(1500);
pub(crate) const NODE_ASN: u32 = 64512;
pub(crate) const ROUTER_ASN: u32 = 64500;

/// What the runner gives to a case.
#[derive(Clone)]
pub(crate) struct Lot {
    /// Tells the cases' addresses apart.
    pub(crate) number: u8,
    pub(crate) name: String,
    /// Namespace of the bridge that everything hangs on.
    pub(crate) bridge: String,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) folder: PathBuf,
}

/// The whole.
pub(crate) struct Site {
    // Order is the order of dropping.
    daemons: Vec<Option<Program>>,
    pub(crate) routers: Vec<Bird>,
    pub(crate) lot: Lot,
    pub(crate) client: Client,
    _namespaces: Program,
}

impl Site {
    /// So many routers that take every node of the case, and nodes with a daemon each.
    pub(crate) async fn new(lot: Lot, routers: usize, nodes: usize) -> Self {
        let mut site = Self::bare(lot, routers, nodes).await;
        for router in 1..=routers {
            let config = site.router_config(ROUTER_ASN, NODE_ASN);
            site.route(router, &config);
        }
        site.defaults().await;
        (1..=nodes).for_each(|node| site.start(node, &[]));
        site
    }

    /// Namespaces and Node objects, nothing that runs.
    pub(crate) async fn bare(lot: Lot, routers: usize, nodes: usize) -> Self {
        let hosts: Vec<String> =
            (1..=routers).map(|r| format!("r{r}")).chain((1..=nodes).map(|n| format!("n{n}"))).collect();
        let names: Vec<String> = hosts.iter().map(|host| format!("{}-{}{host}", lot.bridge, lot.number)).collect();
        let _namespaces = Program::remove_namespaces(&names).expect("sh runs");
        lay_cables(&lot, &hosts);
        fs::create_dir_all(&lot.folder).expect("a folder");
        let client = client(&lot).await;
        let daemons = (0..nodes).map(|_| None).collect();
        let site = Self { daemons, routers: Vec::new(), lot, client, _namespaces };
        site.apply("v1", "Namespace", "", &site.lot.name, json!({})).await;
        for node in 1..=nodes {
            site.label(node, json!({})).await;
            site.node_status(node, json!({})).await;
        }
        site
    }

    /// A pool of both families, an advertisement of everything, and a peer for each router and family.
    pub(crate) async fn defaults(&self) {
        let pool = json!({"addresses": [self.v4_pool(), self.v6_pool()]});
        self.ours("IPAddressPool", "edge", pool).await;
        self.ours("BGPAdvertisement", "all", json!({})).await;
        for router in 1..=self.routers.len() {
            self.peer(router, 4, json!({})).await;
            self.peer(router, 6, json!({})).await;
        }
    }

    pub(crate) fn v4_pool(&self) -> String {
        format!("10.200.{}.0/24", self.lot.number)
    }

    pub(crate) fn v6_pool(&self) -> String {
        format!("fd79:{:x}::/112", self.lot.number)
    }

    /// IPv4 address of a host: routers are 1 to 9, nodes from 11 on.
    pub(crate) fn v4(&self, host: &str) -> String {
        format!("10.78.{}.{}", self.lot.number, host_number(host))
    }

    pub(crate) fn v6(&self, host: &str) -> String {
        format!("fd78::{:x}:{:x}", self.lot.number, host_number(host))
    }

    pub(crate) fn netns(&self, host: &str) -> String {
        format!("{}-{}{host}", self.lot.bridge, self.lot.number)
    }

    /// Name of a Node object.
    pub(crate) fn node(&self, node: usize) -> String {
        format!("{}-n{node}", self.lot.name)
    }

    pub(crate) fn class(&self) -> String {
        format!("cases.test/{}", self.lot.name)
    }

    /// A BIRD that takes every node of the case over both families.
    pub(crate) fn router_config(&self, own: u32, nodes: u32) -> String {
        let n = self.lot.number;
        format!(
            "template bgp node {{ local as {own}; passive on; direct; hold time 9; error wait time 1, 2; graceful restart aware;\n\
             ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n\
             protocol bgp four from node {{ neighbor range 10.78.{n}.0/24 as {nodes}; dynamic name \"four\"; }}\n\
             protocol bgp six from node {{ neighbor range fd78::{n:x}:0/112 as {nodes}; dynamic name \"six\"; }}\n"
        )
    }

    /// Starts a router; they are numbered in the order of starting.
    pub(crate) fn route(&mut self, router: usize, config: &str) {
        assert_eq!(router, self.routers.len() + 1);
        let folder = self.lot.folder.join(format!("r{router}"));
        fs::create_dir_all(&folder).expect("a folder");
        self.routers.push(Bird::start(&self.netns(&format!("r{router}")), &folder, config));
    }

    /// Starts a node's daemon.
    pub(crate) fn start(&mut self, node: usize, more: &[&str]) {
        let path = |name: String| self.lot.folder.join(name);
        let mut command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_ironcast").into(), "run".into()];
        let flags = [
            format!("--node={}", self.node(node)),
            format!("--namespace={}", self.lot.name),
            format!("--load-balancer-class={}", self.class()),
            format!("--kubeconfig={}", self.lot.kubeconfig.display()),
            format!("--state-dir={}", path(format!("state{node}")).display()),
            format!("--admin-socket={}", self.socket(node).display()),
            "--admin=none".into(),
            "--datapath=none".into(),
            "--drain-wait=2".into(),
        ];
        command.extend(flags.into_iter().map(Into::into));
        command.extend(more.iter().map(Into::into));
        let netns = self.netns(&format!("n{node}"));
        let daemon = Program::start(Some(&netns), &path(format!("n{node}.log")), &command).expect("it starts");
        self.daemons[node - 1] = Some(daemon);
    }

    /// Ends it: as a restart, or at once.
    pub(crate) fn stop(&mut self, node: usize, politely: bool) {
        let daemon = self.daemons[node - 1].take().expect("it runs");
        if politely {
            assert!(daemon.terminate(Duration::from_secs(10)), "{}", daemon.tail());
        }
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.lot.folder.join(format!("n{node}.sock"))
    }

    /// Another verb of the program, asked of a node's daemon.
    pub(crate) fn ask(&self, node: usize, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
        let output = command.args(arguments).arg("--socket").arg(self.socket(node)).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `/state.json`, `Null` while the daemon does not answer.
    pub(crate) fn state(&self, node: usize) -> Value {
        serde_json::from_str(&self.ask(node, &["status", "-o", "json"])).unwrap_or_default()
    }

    /// `/metrics`.
    pub(crate) fn metrics(&self, node: usize) -> String {
        let socket = self.socket(node);
        let output = Command::new("curl").args(["-s", "--unix-socket"]).arg(socket).arg("http://d/metrics").output();
        String::from_utf8_lossy(&output.expect("curl runs").stdout).into_owned()
    }

    fn api(&self, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let plural = match kind {
            "Community" => "communities".to_owned(),
            "BGPNodeStatus" => "bgpnodestatuses".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    /// Server-side apply; `body` is everything but kind and name.
    pub(crate) async fn apply(&self, version: &str, kind: &str, namespace: &str, name: &str, body: Value) {
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
        merge(&mut object, body);
        let params = PatchParams::apply("cases").force();
        let api = self.api(version, kind, namespace);
        if let Err(error) = api.patch(name, &params, &Patch::Apply(&object)).await {
            panic!("{kind} {name}: {error}");
        }
    }

    /// Applies one of our resources.
    pub(crate) async fn ours(&self, kind: &str, name: &str, spec: Value) {
        self.apply("ironcast.dev/v1alpha1", kind, &self.lot.name, name, json!({ "spec": spec })).await;
    }

    /// What is there of one of our resources, `Null` where it is not.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        let api = self.api("ironcast.dev/v1alpha1", kind, &self.lot.name);
        let object = api.get_opt(name).await.expect("it answers");
        object.map(|object| object.data).unwrap_or_default()
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        let version = match kind {
            "Service" | "Secret" => "v1",
            "EndpointSlice" => "discovery.k8s.io/v1",
            _ => "ironcast.dev/v1alpha1",
        };
        self.api(version, kind, &self.lot.name).delete(name, &DeleteParams::default()).await.expect("it was there");
    }

    /// The peer `tor1-4` and so on, with `more` in its spec.
    pub(crate) async fn peer(&self, router: usize, family: u8, more: Value) {
        let host = format!("r{router}");
        let mut spec = json!({
            "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "connectTime": "1s", "holdTime": "9s",
            "peerAddress": if family == 4 { self.v4(&host) } else { self.v6(&host) },
            "nodeSelectors": [{"matchLabels": {"case": self.lot.name}}],
        });
        merge(&mut spec, more);
        spec.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        self.ours("BGPPeer", &format!("tor{router}-{family}"), spec).await;
    }

    /// Labels of a node beside those of every case.
    pub(crate) async fn label(&self, node: usize, more: Value) {
        let mut labels = json!({"case": self.lot.name, "node": format!("n{node}")});
        merge(&mut labels, more);
        self.apply("v1", "Node", "", &self.node(node), json!({"metadata": {"labels": labels}})).await;
    }

    /// `spec` of a Node.
    pub(crate) async fn node_spec(&self, node: usize, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let api = self.api("v1", "Node", "");
        api.patch(&self.node(node), &PatchParams::default(), &patch).await.expect("patched");
    }

    /// Conditions by type beside Ready, which is True.
    pub(crate) async fn node_status(&self, node: usize, more: Value) {
        let mut conditions = json!({"Ready": "True"});
        merge(&mut conditions, more);
        let conditions = conditions.as_object().expect("an object").iter();
        let conditions: Vec<Value> = conditions
            .map(|(kind, status)| json!({"type": kind, "status": status, "reason": "Test", "message": ""}))
            .collect();
        let host = format!("n{node}");
        let addresses = [self.v4(&host), self.v6(&host)].map(|a| json!({"type": "InternalIP", "address": a}));
        let patch = Patch::Merge(json!({"status": {"addresses": addresses, "conditions": conditions}}));
        let api = self.api("v1", "Node", "");
        api.patch_status(&self.node(node), &PatchParams::default(), &patch).await.expect("patched");
    }

    /// A dual-stack Service with a ready endpoint on each of `nodes`.
    pub(crate) async fn service(&self, name: &str, nodes: &[usize], more: Value) {
        let mut spec = json!({
            "type": "LoadBalancer", "loadBalancerClass": self.class(), "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        });
        let mut metadata = more.get("metadata").cloned().unwrap_or_else(|| json!({}));
        merge(&mut metadata, json!({ "name": name }));
        merge(&mut spec, more.get("spec").cloned().unwrap_or_else(|| json!({})));
        spec.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        let body = json!({ "metadata": metadata, "spec": spec });
        self.apply("v1", "Service", &self.lot.name, name, body).await;
        self.endpoints(name, &nodes.iter().map(|node| (*node, json!({"ready": true}))).collect::<Vec<_>>()).await;
    }

    /// The endpoints of a Service: nodes and conditions.
    pub(crate) async fn endpoints(&self, service: &str, pods: &[(usize, Value)]) {
        for (family, prefix) in [("IPv4", "10.244.0."), ("IPv6", "fd44::")] {
            let endpoints: Vec<Value> = pods
                .iter()
                .map(|(n, conditions)| {
                    json!({"addresses": [format!("{prefix}{n}")], "nodeName": self.node(*n), "conditions": conditions})
                })
                .collect();
            let body = json!({
                "metadata": {"labels": {"kubernetes.io/service-name": service}},
                "addressType": family, "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            });
            let name = format!("{service}-{}", family.to_lowercase());
            self.apply("discovery.k8s.io/v1", "EndpointSlice", &self.lot.name, &name, body).await;
        }
    }

    /// The recorded addresses of a Service, in their order.
    pub(crate) async fn addresses(&self, service: &str) -> Vec<String> {
        let object = self.api("v1", "Service", &self.lot.name).get(service).await.expect("it is there");
        let ingress = object.data["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        ingress.iter().filter_map(|entry| entry["ip"].as_str().map(Into::into)).collect()
    }

    /// The same once there are so many.
    pub(crate) async fn given(&self, service: &str, count: usize) -> Vec<String> {
        until(&format!("{service} has {count} addresses"), || async {
            Some(self.addresses(service).await).filter(|addresses| addresses.len() == count)
        })
        .await
    }

    /// Paths of a router to a host route.
    pub(crate) fn paths(&self, router: usize, address: &str) -> Vec<RoutePath> {
        self.routers[router - 1].paths(&host_route(address))
    }

    /// The nodes whose path the router has, by number.
    pub(crate) fn nodes_of(&self, router: usize, prefix: &str) -> Vec<usize> {
        let paths = self.routers[router - 1].paths(prefix);
        let is = |node: &usize| {
            let host = format!("n{node}");
            paths.iter().any(|path| path.next_hop == self.v4(&host) || path.next_hop == self.v6(&host))
        };
        (1..=self.daemons.len()).filter(is).collect()
    }

    /// Waits until exactly these nodes announce each address to a router.
    pub(crate) async fn announced(&self, router: usize, addresses: &[String], nodes: &[usize]) {
        for address in addresses {
            let prefix = if address.contains('/') { address.clone() } else { host_route(address) };
            let mut last = Vec::new();
            let start = Instant::now();
            loop {
                let now = self.nodes_of(router, &prefix);
                if now == nodes {
                    break;
                }
                last.clone_from(&now);
                assert!(start.elapsed() < LIMIT, "{prefix} at router {router}: {last:?} and not {nodes:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Text of the Events of an object of the case with this reason.
    pub(crate) async fn events(&self, namespace: &str, object: &str, reason: &str) -> String {
        let params = ListParams::default().fields(&format!("involvedObject.name={object},reason={reason}"));
        let list = self.api("v1", "Event", namespace).list(&params).await.expect("listed");
        list.iter().filter_map(|event| event.data["message"].as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for daemon in self.daemons.iter().flatten() {
                eprintln!("-- {}: a daemon:\n{}", self.lot.name, daemon.tail());
            }
            for router in &self.routers {
                eprintln!("-- {}: a router:\n{}\n{}", self.lot.name, router.ask("show protocols"), router.tail());
            }
        }
    }
}

fn host_route(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

fn host_number(host: &str) -> u8 {
    let (kind, number) = host.split_at(1);
    let number: u8 = number.parse().expect("r1 or n1");
    if kind == "r" { number } else { 10 + number }
}

/// `more` into `value`, object by object.
fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                merge(value.entry(key).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more,
    }
}

async fn client(lot: &Lot) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(&lot.kubeconfig).expect("written by us");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.expect("valid");
    Client::try_from(config).expect("valid")
}

/// A namespace for each host, on the bridge.
fn lay_cables(lot: &Lot, hosts: &[String]) {
    let Lot { number, bridge, .. } = lot;
    let mut batch = String::new();
    for host in hosts {
        let (name, port, h) = (format!("{bridge}-{number}{host}"), format!("p{number}{host}"), host_number(host));
        ip(&["netns", "add", &name]);
        batch += &format!("link add {port} type veth peer name eth0 netns {name}\nlink set {port} master br0 up\n");
        let inside = format!(
            "link set lo up\naddress add 10.78.{number}.{h}/16 dev eth0\n\
             address add fd78::{number:x}:{h:x}/64 dev eth0 nodad\nlink set eth0 up\n"
        );
        // The cable first.
        batches(bridge, &std::mem::take(&mut batch));
        batches(&name, &inside);
    }
}

fn batches(netns: &str, text: &str) {
    let mut child =
        Command::new("ip").args(["-n", netns, "-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "ip -n {netns}: {text}");
}

pub(crate) fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Asks again until the answer is there.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    crate::support::until(what, LIMIT, ask).await
}

/// The same without waiting in the question.
pub(crate) async fn until_so(what: &str, mut ask: impl FnMut() -> bool) {
    until(what, || std::future::ready(ask().then_some(()))).await;
}
