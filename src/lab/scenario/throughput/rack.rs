//! The client, and a node with a pod for each row.
//!
//! ```text
//!  client ─┬─ eth0 node 1 p0 ── eth0 pod 1      nodes know the pod and the client's gateway by permanent neighbours;
//!          └─ eth0 node 2 p0 ── eth0 pod 2 …    what reaches a pod, or comes back to the client, is counted, dropped
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{
        SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, tc::TcAttachOptions,
    },
};
use tokio::process::Command;

use super::Row;
use crate::{
    datapath::{
        kernel::{Datapath, Options, Step},
        spec::{self, Backend, Bypass, Frontend, Membership, Route, Spec, Target},
    },
    lab::{
        claim::Claim,
        netns::{Namespace, feed},
        proxy::{ProxiedService, Proxy},
        site::Node,
    },
    types::{Protocol, ServiceKey},
};

static HARNESS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// The Service that is measured; the other 999 are there to be looked past.
const VIP: [u8; 4] = [198, 51, 100, 7];
const POD: [u8; 4] = [10, 78, 1, 11];
const SERVICES: u16 = 1000;
/// Ethernet, IPv4, TCP, 100 octets.
const LENGTH: usize = 154;
/// Frames that are sent before the node's work is done for them; a veth's ring takes 256.
const BATCH: u32 = 64;
/// So many different flows the harness makes.
const FLOWS: u32 = 1 << 22;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// `struct bench` of `bpf/bench.bpf.c`: ten words of the frame's head, length and flows, next and family, twice and
/// interface, and how many frames have ended.
type State = [u64; 14];
/// The place of the last.
const ENDED: usize = 13;

/// Everything that is sent to and through.
pub(super) struct Rack {
    client: Namespace,
    harness: Option<Ebpf>,
    nodes: BTreeMap<Row, Place>,
    /// Flows used up by now.
    next: u32,
    /// The one that everything happens on.
    cpu: usize,
}

struct Place {
    /// The client's interface to it.
    interface: u32,
    node_mac: [u8; 6],
    _datapath: Option<Datapath>,
}

/// What came of sending.
pub(super) struct Sent {
    /// For one frame, as the kernel measured it.
    pub(super) each: Duration,
    pub(super) ended: u64,
}

impl Rack {
    /// # Errors
    /// The kernel refused a step.
    pub(super) async fn build(claim: &Claim, rows: &[Row]) -> anyhow::Result<Self> {
        let client = claim.namespace("client");
        let mut harness = Ebpf::load(HARNESS).context("load the harness")?;
        for name in ["bench_send", "bench_end", "bench_back"] {
            xdp(&mut harness, name)?.load().with_context(|| format!("load {name}"))?;
        }
        classifier(&mut harness)?.load().context("load bench_end_at_pod")?;
        batch(&format!("netns add {}\n", client.name())).await?;
        client.set(&[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")])?;
        let mut rack = Self {
            client,
            harness: Some(harness),
            nodes: BTreeMap::new(),
            next: 0,
            cpu: rustix::thread::sched_getcpu(),
        };
        for (n, row) in rows.iter().enumerate() {
            let place = rack.place(claim, *row, n + 1).await.with_context(|| format!("the node `{}`", row.word()))?;
            rack.nodes.insert(*row, place);
        }
        Ok(rack)
    }

    async fn place(&mut self, claim: &Claim, row: Row, n: usize) -> anyhow::Result<Place> {
        let (node, pod) = (claim.namespace(&format!("n{n}")), claim.namespace(&format!("p{n}")));
        batch(&format!("netns add {}\nnetns add {}\n", node.name(), pod.name())).await?;
        node.set(&[
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ])?;
        batch(&cables(&self.client, &node, &pod, n)).await?;
        let port = format!("n{n}");
        for (namespace, device) in [(&self.client, &*port), (&node, "eth0"), (&node, "p0"), (&pod, "eth0")] {
            namespace.feed("ip", &["link", "set", device, "up"], "").await?;
        }
        let (interface, client_mac) = link(&self.client, &port)?;
        let (uplink, node_mac) = link(&node, "eth0")?;
        let (veth, _) = link(&node, "p0")?;
        let (_, pod_mac) = link(&pod, "eth0")?;
        node.feed("ip", &["-batch", "-"], &addresses(row, client_mac, pod_mac)).await?;
        // Frames of XDP are taken by a veth that has a program, or GRO.
        node.feed("ethtool", &["-K", "eth0", "gro", "on"], "").await?;
        // What the stack sends out ends as a buffer, as at a pod: XDP would make it a frame again first.
        let by_the_stack = row == Row::RulesOnward;
        self.inside(&self.client.clone(), move |harness| {
            if by_the_stack {
                return end_in_buffers(harness, &port);
            }
            xdp(harness, "bench_end")?.attach(&port, XdpMode::Driver).context("attach the client's end")?;
            Ok(())
        })?;
        self.inside(&pod, |harness| end_in_buffers(harness, "eth0"))?;
        let of_row = match row {
            Row::Drop => Some("bench_end"),
            Row::Back => Some("bench_back"),
            _ => None,
        };
        if let Some(name) = of_row {
            self.inside(&node, move |harness| {
                xdp(harness, name)?.attach("eth0", XdpMode::Driver).with_context(|| format!("attach {name}"))?;
                Ok(())
            })?;
        }
        if matches!(row, Row::Bypass | Row::Stack | Row::Rules | Row::RulesOnward) {
            load_rules(&node, row).await?;
        }
        let wanted = matches!(row, Row::FirstNode | Row::Bypass | Row::Stack);
        let spec = spec(row, uplink, veth, node_mac, client_mac);
        let datapath = if wanted { Some(node.inside(move || packet_path(&spec))??) } else { None };
        Ok(Place { interface, node_mac, _datapath: datapath })
    }

    /// Does something with the harness in a namespace.
    fn inside<T: Send + 'static>(
        &mut self,
        namespace: &Namespace,
        work: impl FnOnce(&mut Ebpf) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut harness = self.harness.take().context("the harness is there")?;
        let (harness, result) = namespace.inside(move || {
            let result = work(&mut harness);
            (harness, result)
        })?;
        self.harness = Some(harness);
        result
    }

    /// Sends so many frames of so many flows (or of new ones each), and waits until they have ended.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) fn send(
        &mut self,
        row: Row,
        new: bool,
        frames: u32,
        flows: u32,
        patience: Duration,
    ) -> anyhow::Result<Sent> {
        let place = &self.nodes[&row];
        let frame = frame(place.node_mac, if new { SYN } else { ACK });
        let (next, flows) = if new { (self.next, FLOWS) } else { (0, flows) };
        let interface = place.interface;
        let mut state = [0; 14];
        for (word, bytes) in state[..10].iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        state[10] = LENGTH as u64 | u64::from(flows) << 32;
        state[11] = next.into();
        state[12] = u64::from(interface) << 32;
        if new {
            self.next = (self.next + frames) % FLOWS;
        }
        let (client, cpu) = (self.client.clone(), self.cpu);
        self.inside(&client, move |harness| {
            undisturbed(cpu)?;
            send(harness, state, &frame, frames, patience)
        })
    }
}

/// Holds this thread to one CPU, on which nothing else runs meanwhile.
fn undisturbed(cpu: usize) -> anyhow::Result<()> {
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one)?;
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let taken = std::process::Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status()?;
    anyhow::ensure!(taken.success(), "chrt could not give this thread a real-time priority");
    Ok(())
}

/// On a thread of its own.
fn send(harness: &mut Ebpf, state: State, frame: &[u8], frames: u32, patience: Duration) -> anyhow::Result<Sent> {
    states(harness)?.set(0, state, 0)?;
    let program: &Xdp = harness.program("bench_send").context("it is in the object")?.try_into()?;
    let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
    let options = TestRunOptions { data_in: Some(frame), repeat: frames, attrs, ..Default::default() };
    let each = program.test_run(options).context("send live frames")?.duration;
    let (sent, mut ended) = (Instant::now(), states(harness)?.get(&0, 0)?[ENDED]);
    while ended < u64::from(frames) && sent.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(1));
        ended = states(harness)?.get(&0, 0)?[ENDED];
    }
    Ok(Sent { each, ended })
}

fn states(harness: &mut Ebpf) -> anyhow::Result<Array<&mut MapData, State>> {
    Ok(Array::try_from(harness.map_mut("bench_state").context("it is in the object")?)?)
}

fn xdp<'a>(harness: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(harness.program_mut(name).context("it is in the object")?.try_into()?)
}

fn end_in_buffers(harness: &mut Ebpf, device: &str) -> anyhow::Result<()> {
    let options = TcAttachOptions::TcxOrder(aya::programs::LinkOrder::first());
    classifier(harness)?
        .attach_with_options(device, TcAttachType::Ingress, options)
        .with_context(|| format!("attach the end at {device}"))?;
    Ok(())
}

fn classifier(harness: &mut Ebpf) -> anyhow::Result<&mut SchedClassifier> {
    Ok(harness.program_mut("bench_end_at_pod").context("it is in the object")?.try_into()?)
}

async fn batch(lines: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]).kill_on_drop(true), lines).await
}

fn cables(client: &Namespace, node: &Namespace, pod: &Namespace, n: usize) -> String {
    let (client, node, pod) = (client.name(), node.name(), pod.name());
    format!(
        "link add eth0 netns {node} type veth peer name n{n} netns {client}
link add eth0 netns {pod} type veth peer name p0 netns {node}
"
    )
}

fn addresses(row: Row, client_mac: [u8; 6], pod_mac: [u8; 6]) -> String {
    let pod = IpAddr::from(POD);
    let way = if row == Row::RulesOnward { "via 10.76.0.2" } else { "dev p0" };
    format!(
        "address add 10.76.0.1/24 dev eth0
neighbour replace 10.76.0.2 lladdr {} dev eth0 nud permanent
route add default via 10.76.0.2
route add {pod}/32 {way}
neighbour replace {pod} lladdr {} dev p0 nud permanent
",
        words(client_mac),
        words(pod_mac)
    )
}

fn words(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Index and Ethernet address.
fn link(namespace: &Namespace, name: &str) -> anyhow::Result<(u32, [u8; 6])> {
    let name = name.to_owned();
    namespace.inside(move || {
        // `/sys` may show another namespace: ask by a socket of this one.
        let output = std::process::Command::new("ip").args(["-j", "link", "show", &name]).output()?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let index = links[0]["ifindex"].as_u64().with_context(|| format!("no link {name}"))?;
        let mut mac = [0; 6];
        for (byte, hex) in mac.iter_mut().zip(links[0]["address"].as_str().unwrap_or_default().split(':')) {
            *byte = u8::from_str_radix(hex, 16)?;
        }
        Ok((u32::try_from(index)?, mac))
    })?
}

/// kube-proxy's kind of rules, and a checksum that conntrack does not look at: frames carry none. What is masqueraded
/// needs a port of the node's own: what is never answered gives it back after a second.
async fn load_rules(node: &Namespace, row: Row) -> anyhow::Result<()> {
    let services: Vec<ProxiedService> = (0..SERVICES).map(|n| proxied(n, row)).collect();
    let site_node = Node {
        name: "n1".into(),
        namespace: node.clone(),
        address: [IpAddr::from([10, 76, 0, 1]); 2],
        gateway: [IpAddr::from([10, 76, 0, 2]); 2],
        pod_cidr: [String::new(), String::new()],
        pod_gateway: [IpAddr::from([10, 76, 0, 1]); 2],
        pods: vec![],
    };
    Proxy::default().sync(&[site_node], &services).await?;
    node.set(&[("net/netfilter/nf_conntrack_checksum", "0"), ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "1")])
}

/// The measured one is in the middle. A pod here is that of a `Local` Service, so that the rules need not masquerade:
/// they do less than for `Cluster`.
fn proxied(n: u16, row: Row) -> ProxiedService {
    let measured = n == SERVICES / 2;
    let [high, low] = n.to_be_bytes();
    ProxiedService {
        name: format!("s{n}"),
        addresses: vec![if measured { IpAddr::from(VIP) } else { IpAddr::from([192, 0, high + 2, low]) }],
        port: 80,
        target: 8080,
        local: row != Row::RulesOnward,
        endpoints: vec![(POD.into(), if row == Row::RulesOnward { "n2" } else { "n1" }.into())],
    }
}

fn packet_path(spec: &Spec) -> anyhow::Result<Datapath> {
    let bypass = spec.bypass.is_some();
    let options = Options { slots: 1 << 12, backends: 16, services: 16, bypass, ..Options::default() };
    let mut datapath = Datapath::load(options)?;
    if bypass {
        datapath.attach_from_pod("p0")?;
        datapath.attach_to_pods("eth0")?;
    }
    datapath.apply(spec)?;
    let mode = datapath.attach("eth0", Step::Native);
    anyhow::ensure!(mode.step == Step::Native, "{:?}", mode.failed);
    Ok(datapath)
}

/// One Service with one pod: here, or behind the client for the first node.
fn spec(row: Row, uplink: u32, veth: u32, node_mac: [u8; 6], client_mac: [u8; 6]) -> Spec {
    let (own, other) = (IpAddr::from([10, 76, 0, 1]), IpAddr::from([10, 76, 0, 2]));
    let route = Route {
        destination: other,
        source: own,
        interface: uplink,
        source_mac: node_mac,
        next_hop_mac: client_mac,
        vlan: None,
        mtu: 1500,
    };
    let here = if row == Row::FirstNode { "other" } else { "own" };
    let backend = Backend { address: POD.into(), port: 8080, node: here.into() };
    let members = BTreeMap::from([(backend.clone(), 1)]);
    let table = spec::Table {
        history: vec![Membership { slots_log2: 10, members }],
        living: BTreeSet::from([backend]),
        forgetful: false,
    };
    let front = Frontend { address: VIP.into(), protocol: Protocol::Tcp, port: 80 };
    let service = ServiceKey::new("lab", "measured");
    let bypass = Bypass { interfaces: BTreeMap::from([(POD.into(), veth)]), back: vec![uplink] };
    Spec {
        generation: 1,
        secret: [7; 32],
        node: "own".into(),
        nodes: BTreeMap::from([
            ("own".into(), spec::Node { addresses: BTreeSet::from([own]), route: None }),
            ("other".into(), spec::Node { addresses: BTreeSet::from([other]), route: Some(route) }),
        ]),
        addresses: BTreeSet::from([VIP.into()]),
        ports: BTreeMap::from([(front, Target { service, table: "t".into(), affinity: false, pass: false })]),
        tables: BTreeMap::from([("t".into(), table)]),
        bypass: (row == Row::Bypass).then_some(bypass),
    }
}

/// A segment from 203.0.113.0, of which the harness changes the last byte and the port.
fn frame(to: [u8; 6], flags: u8) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 0xfe, 8, 0]);
    let mut ip = vec![0x45, 0, 0, (LENGTH - 14) as u8, 0, 255, 0x40, 0, 62, 6, 0, 0, 203, 0, 113, 0];
    ip.extend(VIP);
    let sum: u32 = ip.chunks_exact(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let check = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    frame.extend(ip);
    frame.extend([4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    frame.resize(LENGTH, 0);
    frame
}
