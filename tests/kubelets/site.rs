//! A cluster of three nodes below one router, a client behind it, and what an operator sees of them.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ironcast::datapath::kernel::{Datapath, Options, Step};

use crate::{
    load::enter,
    node::{self, Node},
    support::{
        cluster::{Cluster, Place},
        fabric::{Fabric, v4},
        program::Program,
        routers, skip, until,
    },
};

pub(crate) const NODES: [(&str, u8); 3] = [("n1", 11), ("n2", 12), ("n3", 13)];
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Everything that runs.
pub(crate) struct Site {
    // Order is the order of dropping.
    pub(crate) nodes: Vec<Node>,
    _programs: [Program; 2],
    _passing: Datapath,
    pub(crate) cluster: Cluster,
    pub(crate) fabric: Fabric,
    _sweep: [Program; 2],
}

impl Site {
    /// Starts all of it; the nodes are not ready yet. `None`, with a line that says why, where something is absent.
    pub(crate) async fn start(image: &Path) -> Option<Self> {
        if let Some(missing) = routers::missing().map(str::to_owned).or_else(node::missing) {
            skip(&missing);
            return None;
        }
        let folder = tempfile::TempDir::with_prefix("ironcast-kubelets-").expect("temporary folder").keep();
        let sweep =
            [Program::sweep(&folder).expect("sh runs"), Program::remove_group(&node::group()).expect("sh runs")];
        let fabric = Fabric::new(&[("bird", 1), ("cp", 10), NODES[0], NODES[1], NODES[2], ("client", 99)]);
        wire(&fabric);
        let place = Place { netns: Some(fabric.name("cp")), address: v4(10).into() };
        let cluster = Cluster::start_for(place, &NODES.map(|(name, _)| name)).await?;
        images(&folder, image);
        let programs = [routers::bird(&fabric, "bird", &folder), scheduler(&fabric, &cluster, &folder)];
        let nodes = NODES.map(|node| Node::start(&fabric, &cluster, node, &folder)).into();
        Some(Self { nodes, _programs: programs, _passing: passing(&fabric), cluster, fabric, _sweep: sweep })
    }

    /// kubectl, which must succeed; else all that the nodes logged last.
    pub(crate) fn kubectl(&self, line: &str) -> String {
        self.kubectl_with(&line.split(' ').collect::<Vec<_>>())
    }

    /// The same with arguments that hold spaces.
    pub(crate) fn kubectl_with(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", self.tail()))
    }

    /// What was logged last, by nodes and daemons.
    pub(crate) fn tail(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(Node::tail).collect();
        let pods = self.cluster.kubectl(&["get", "pods", "-A", "-o", "wide"]).unwrap_or_default();
        let events = ["get", "events", "-A", "--field-selector=type=Warning"];
        let events = self.cluster.kubectl(&events).unwrap_or_default();
        let daemons =
            ["logs", "-n", "ironcast-system", "-l", "app.kubernetes.io/name=ironcast", "--tail=15", "--prefix"];
        let daemons = self.cluster.kubectl(&daemons).unwrap_or_else(|error| error);
        format!("{}\n{pods}\n{events}\n{daemons}", nodes.join("\n"))
    }

    /// The first address of a Service.
    pub(crate) fn address(&self, service: &str) -> Option<Ipv4Addr> {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        self.cluster.kubectl(&["get", "service", service, "-o", path]).ok()?.parse().ok()
    }

    /// The nodes that the router's kernel sends packets for an address to.
    pub(crate) fn hops(&self, address: Ipv4Addr) -> Vec<String> {
        self.fabric.next_hops("bird", &format!("{address}/32"))
    }

    pub(crate) async fn until_routed(&self, address: Ipv4Addr, to: &[&str]) {
        let wanted: Vec<String> =
            NODES.iter().filter(|(name, _)| to.contains(name)).map(|(_, number)| v4(*number).to_string()).collect();
        let start = std::time::Instant::now();
        while self.hops(address) != wanted {
            let late = start.elapsed() > LIMIT;
            assert!(!late, "{address} goes to {:?}, not {wanted:?}\n{}", self.hops(address), self.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the node's kernel has of addresses, routes, rules, programs at interfaces and settings; pods' own veths and
    /// what kube-proxy made for a Service left out.
    pub(crate) fn kernel(&self, node: &str) -> BTreeSet<String> {
        let look = "ip -br address; ip -o link; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; \
                    ip neigh show proxy; ip tunnel; tc filter show dev eth0 ingress; \
                    grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_* /proc/sys/net/ipv4/fib_* /proc/sys/net/ipv4/tcp_*";
        let netns = format!("--net=/run/netns/{}", self.fabric.name(node));
        let output = Command::new("nsenter").args([&netns, "sh", "-c", look]).output().expect("nsenter runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let volatile = ["veth", "cni0", "tcp_fastopen_key", " cache "];
        let lines =
            text.lines().filter(|line| line.contains("203.0.113") || !volatile.iter().any(|v| line.contains(v)));
        lines.map(|line| line.trim().to_owned()).collect()
    }

    /// Waits until every kubelet says that its node is ready.
    pub(crate) async fn until_ready(&self) {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let start = std::time::Instant::now();
        loop {
            let ready = self.cluster.kubectl(&["get", "nodes", "-o", path]).unwrap_or_default();
            if ready.matches("True").count() == NODES.len() {
                return;
            }
            assert!(start.elapsed() < LIMIT, "nodes are {ready:?}\n{}", self.tail());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The client hangs on the router and not on the bridge; nodes forward, and reach it over the router.
fn wire(fabric: &Fabric) {
    let run = |host: &str, line: String| {
        let netns = format!("--net=/run/netns/{}", fabric.name(host));
        let output = Command::new("nsenter").arg(netns).args(line.split(' ')).output().expect("nsenter runs");
        assert!(output.status.success(), "{host}: {line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let set = "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.fib_multipath_hash_policy=1";
    run("bird", set.into());
    run("client", "ip link delete eth0".into());
    run("bird", format!("ip link add client type veth peer name eth0 netns {}", fabric.name("client")));
    run("bird", "ip address add 10.78.0.1/24 dev client".into());
    run("bird", "ip link set client up".into());
    run("client", "ip address add 10.78.0.2/24 dev eth0".into());
    // A veth leaves checksums to a card; XDP sends frames out again as they are.
    run("client", "ethtool -K eth0 tx off".into());
    run("client", "ip link set eth0 up".into());
    run("client", "ip route add default via 10.78.0.1".into());
    // However many there are, the kernel takes some again within seconds, as a NAT does: memory of what a port was used
    // for before, at pods and in the packet path, must break nothing.
    run("client", "sysctl -qw net.ipv4.ip_local_port_range=1024\t65535".into());
    for (node, number) in NODES {
        run(node, set.into());
        run(node, format!("ip route add default via {}", v4(1)));
        for (_, other) in NODES.iter().filter(|(_, other)| *other != number) {
            run(node, format!("ip route add 10.244.{other}.0/24 via {}", v4(*other)));
        }
    }
}

/// A veth drops what XDP sends out again unless a program stands at its other end: one that passes everything.
fn passing(fabric: &Fabric) -> Datapath {
    let bridge = fabric.name("bridge");
    let load = move || {
        enter(&bridge);
        let options = Options { slots: 1 << 10, backends: 8, flows: 128, syns: 128, services: 4, ..Options::default() };
        let mut passing = Datapath::load(options).expect("the programs load");
        for (_, number) in NODES {
            let mode = passing.attach(&format!("p{number}"), Step::Native);
            assert!(mode.step == Step::Native, "p{number}: {:?}", mode.failed);
        }
        passing
    };
    std::thread::spawn(load).join().expect("no panic")
}

/// The images that every node imports.
fn images(folder: &Path, image: &Path) {
    let images = folder.join("images");
    fs::create_dir(&images).expect("writable");
    fs::copy(image, images.join("ironcast.tar")).expect("the image is there");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubelets/busybox");
    let packed = Command::new(script).arg(images.join("busybox.tar")).status().expect("it runs");
    assert!(packed.success(), "tests/kubelets/busybox failed");
}

fn scheduler(fabric: &Fabric, cluster: &Cluster, folder: &Path) -> Program {
    let program: PathBuf = node::programs().expect("looked for before").join("kube-scheduler");
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig("admin").display());
    let flags = ["--leader-elect=false".into(), "--bind-address=127.0.0.1".into(), kubeconfig.into()];
    let command: Vec<_> = std::iter::once(program.into()).chain(flags).collect();
    Program::start(Some(&fabric.name("cp")), &folder.join("scheduler.log"), &command).expect("sh runs")
}

/// Waits for a Service's address.
pub(crate) async fn address(site: &Site, service: &str) -> Ipv4Addr {
    until(&format!("{service} has an address"), LIMIT, || async { site.address(service) }).await
}
