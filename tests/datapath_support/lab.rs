//! Client, router, two nodes, a pod on each, in namespaces of their own.
//!
//! ```text
//!  client ── router ─┬─ a ── pa        10.77.N.0/24, fd77:N::/64  nodes        VIPs 10.99.0.1, fd99::1
//!                    └─ b ── pb        10.78.N.0/24, fd78:N::/64  pods
//! ```

use std::process::Command;

use ironcast::datapath::{
    kernel::{Datapath, Hook, Options, Step},
    spec::{Backend, Bypass, Frontend, Membership, Node, Route, Spec, Table, Target},
};
use ironcast::types::{Protocol, ServiceKey};

use super::{backend, ip};

pub const VIPS: [&str; 2] = ["10.99.0.1", "fd99::1"];

/// A bpffs of one test, gone with it.
pub struct Bpffs(tempfile::TempDir);

impl Bpffs {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        run(&format!("mount -t bpf bpf {}", folder.path().display()));
        Self(folder)
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).output();
    }
}

pub struct Lab {
    prefix: String,
    /// Specs have packets delivered past the nodes' stack.
    pub bypass: bool,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["client", "router", "a", "b", "pa", "pb"] {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(name)]).output();
        }
    }
}

fn run(words: &str) {
    let mut parts = words.split_whitespace();
    let out = Command::new(parts.next().expect("a command")).args(parts).output().expect("it runs");
    assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Lab {
    pub fn new(tag: &str) -> Self {
        let lab = Self { prefix: format!("icdp{}{tag}", std::process::id()), bypass: false };
        for name in ["client", "router", "a", "b", "pa", "pb"] {
            run(&format!("ip netns add {}", lab.ns(name)));
            lab.ip(name, "link set lo up");
            lab.sysctl(name, "net.ipv6.conf.all.accept_dad=0");
            lab.sysctl(name, "net.ipv6.conf.default.accept_dad=0");
        }
        for name in ["router", "a", "b"] {
            lab.sysctl(name, "net.ipv4.ip_forward=1");
            lab.sysctl(name, "net.ipv6.conf.all.forwarding=1");
        }
        lab.join("client", "up0", "router", "rc", 0);
        lab.join("a", "up0", "router", "ra", 1);
        lab.join("b", "up0", "router", "rb", 2);
        lab.join("pa", "eth0", "a", "pod0", 101);
        lab.join("pb", "eth0", "b", "pod0", 102);
        for (n, pods) in [(1, 101), (2, 102)] {
            lab.ip("router", &format!("route add 10.77.{pods}.0/24 via 10.77.{n}.2"));
            lab.ip("router", &format!("route add fd77:{pods}::/64 via fd77:{n}::2"));
        }
        lab
    }

    pub fn ns(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn ip(&self, name: &str, words: &str) {
        run(&format!("ip -n {} {words}", self.ns(name)));
    }

    pub fn inside(&self, name: &str, words: &str) {
        run(&format!("nsenter --net=/run/netns/{} {words}", self.ns(name)));
    }

    pub fn sysctl(&self, name: &str, what: &str) {
        self.inside(name, &format!("sysctl -qw {what}"));
    }

    /// A link: the first end gets .2 and the default route, the second .1.
    fn join(&self, a: &str, dev_a: &str, b: &str, dev_b: &str, n: u8) {
        let (na, nb) = (self.ns(a), self.ns(b));
        run(&format!("ip link add {dev_a} netns {na} type veth peer name {dev_b} netns {nb}"));
        for (name, dev, host) in [(a, dev_a, 2), (b, dev_b, 1)] {
            self.ip(name, &format!("addr add 10.77.{n}.{host}/24 dev {dev}"));
            self.ip(name, &format!("addr add fd77:{n}::{host}/64 dev {dev} nodad"));
            self.ip(name, &format!("link set {dev} up"));
        }
        self.ip(a, &format!("route add default via 10.77.{n}.1"));
        self.ip(a, &format!("route add default via fd77:{n}::1"));
    }

    /// The router sends the VIPs to this node.
    pub fn route_vips(&self, node: u8) {
        self.ip("router", &format!("route replace {}/32 via 10.77.{node}.2", VIPS[0]));
        self.ip("router", &format!("route replace {}/128 via fd77:{node}::2", VIPS[1]));
    }

    /// Does something in a namespace, on a thread that ends there.
    pub fn at<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.ns(name));
        std::thread::spawn(move || {
            let ns = std::fs::File::open(&path).expect("the namespace is there");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&ns), kind).expect("root may enter");
            work()
        })
    }

    fn mac(&self, name: &str, dev: &str) -> ([u8; 6], u32) {
        let dev = dev.to_string();
        self.at(name, move || {
            let out = Command::new("ip").args(["-j", "link", "show", &dev]).output().expect("ip runs").stdout;
            let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            let text = json[0]["address"].as_str().expect("an address").to_string();
            let mut mac = [0; 6];
            for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
                *byte = u8::from_str_radix(hex, 16).expect("hex");
            }
            (mac, json[0]["ifindex"].as_u64().expect("a number") as u32)
        })
        .join()
        .expect("it ends")
    }

    /// The pods of a family, on a and on b.
    pub fn pods(v6: bool) -> [Backend; 2] {
        let at = |n: u8| if v6 { format!("fd77:{n}::2") } else { format!("10.77.{n}.2") };
        [backend(&at(101), 8080, "a"), backend(&at(102), 8080, "b")]
    }

    /// The tables of a node. `history`: which of the pods a and b took new connections, newest first.
    pub fn spec(&self, node: &str, generation: u32, history: &[[bool; 2]]) -> Spec {
        let mut spec = Spec { generation, secret: [3; 32], node: node.into(), ..Spec::default() };
        let (own, other) = if node == "a" { (1, 2) } else { (2, 1) };
        let (source_mac, interface) = self.mac(node, "up0");
        let (next_hop_mac, _) = self.mac("router", if node == "a" { "ra" } else { "rb" });
        let (destination, source) = (ip(&format!("10.77.{other}.2")), ip(&format!("10.77.{own}.2")));
        let route = Route { destination, source, interface, source_mac, next_hop_mac, vlan: None, mtu: 1500 };
        for (name, n) in [("a", 1), ("b", 2)] {
            let addresses = [ip(&format!("10.77.{n}.2")), ip(&format!("fd77:{n}::2"))].into();
            spec.nodes.insert(name.into(), Node { addresses, route: (name != node).then_some(route) });
        }
        for (vip, v6) in [(VIPS[0], false), (VIPS[1], true)] {
            let pods = Self::pods(v6);
            let members = |m: &[bool; 2]| {
                let members = pods.iter().zip(m).filter(|(_, on)| **on).map(|(p, _)| (p.clone(), 1)).collect();
                Membership { slots_log2: 10, members }
            };
            let table = Table {
                history: history.iter().map(members).collect(),
                living: pods.iter().cloned().collect(),
                forgetful: false,
            };
            spec.tables.insert(vip.into(), table);
            spec.addresses.insert(ip(vip));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let front = Frontend { address: ip(vip), protocol, port: 80 };
                let service = ServiceKey::new("lab", "web");
                spec.ports.insert(front, Target { service, table: vip.into(), affinity: false, pass: false });
            }
        }
        if self.bypass {
            let (_, veth) = self.mac(node, "pod0");
            let own = [false, true].into_iter().flat_map(Self::pods).filter(|pod| pod.node == node);
            let interfaces = own.map(|pod| (pod.address, veth)).collect();
            spec.bypass = Some(Bypass { interfaces, back: vec![interface] });
        }
        spec
    }

    /// Loads and attaches the packet path on a node.
    pub fn start(&self, node: &str, spec: Spec, step: Step, pins: Option<std::path::PathBuf>) -> Datapath {
        let bypass = spec.bypass.is_some();
        self.at(node, move || {
            let hook = if step == Step::Tcx { Hook::Tcx } else { Hook::Xdp };
            let options = Options {
                hook,
                slots: 1 << 16,
                backends: 1 << 8,
                flows: 1 << 14,
                syns: 1 << 14,
                services: 16,
                pins,
                bypass,
            };
            let mut datapath = Datapath::load(options).expect("the programs load");
            if bypass {
                datapath.attach_from_pod("pod0").expect("attached to the pod's interface");
                datapath.attach_to_pods("up0").expect("attached to the uplink");
            }
            datapath.apply(&spec).expect("the tables fit");
            let mode = datapath.attach("up0", step);
            assert_eq!(mode.step, step, "{mode:?}");
            datapath
        })
        .join()
        .expect("the packet path starts")
    }

    /// veth drops what XDP sends back unless its peer has a program: one that knows nothing passes everything.
    pub fn receive_frames_of_xdp(&self) -> Datapath {
        self.at("router", || {
            let options =
                Options { slots: 1 << 10, backends: 8, flows: 128, syns: 128, services: 4, ..Options::default() };
            let mut datapath = Datapath::load(options).expect("the programs load");
            for interface in ["ra", "rb"] {
                assert_eq!(datapath.attach(interface, Step::Native).step, Step::Native);
            }
            datapath
        })
        .join()
        .expect("the router starts")
    }
}
