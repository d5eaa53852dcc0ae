//! Floods from spoofed sources against the real programs, while thousands of flows are open whose pods only the
//! owner's memory knows any more. Needs root.
#![cfg(feature = "xdp")]

mod datapath_support;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    time::{Duration, Instant},
};

use datapath_support::{run::*, *};
use ironcast::{
    datapath::{
        hash::Tuple,
        kernel::{Datapath, Side},
        reference::Reference,
        spec::{Backend, Membership, Spec, Table},
        types::{FlowKey, Reason},
    },
    types::Protocol,
};

const FIN: u8 = 0x01;
const RST: u8 = 0x04;
/// Open flows of each protocol and family.
const OPEN: u32 = 1000;
const MILLION: u32 = 1_000_000;

/// A flow that was opened before the table changed.
#[derive(Debug, Clone, Copy)]
struct Open {
    tuple: Tuple,
    pod: IpAddr,
}

/// Pods `numbers` of this node, and one of each other node where `others`.
fn pods(v6: bool, numbers: Range<u16>, others: bool) -> Vec<Backend> {
    let own = numbers.map(|n| {
        let address = if v6 {
            IpAddr::from(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 1, 0x100 + n))
        } else {
            IpAddr::from(Ipv4Addr::new(10, 1, 1, 100 + n as u8))
        };
        Backend { address, port: 8080, node: "n1".into() }
    });
    let other = |n: u8| Backend { address: pod(v6, n), port: 8080, node: format!("n{n}") };
    own.chain([2, 3].into_iter().filter(|_| others).map(other)).collect()
}

/// Port 80 of both families in front of many pods of this node: as it was, or with most of the pods replaced.
fn site(moved: bool) -> Spec {
    let mut spec = spec();
    for (v6, id) in [(false, "v4-80"), (true, "v6-80")] {
        let (old, new) = (pods(v6, 0..6, false), pods(v6, 5..12, true));
        let members =
            |of: &[Backend]| Membership { slots_log2: 10, members: of.iter().map(|b| (b.clone(), 1)).collect() };
        let mut table = Table { history: vec![members(&old)], living: old.iter().cloned().collect(), forgetful: false };
        if moved {
            table.history.insert(0, members(&new));
            table.living.extend(new);
        }
        spec.tables.insert(id.into(), table);
    }
    spec.generation += u32::from(moved);
    spec
}

fn tuple(v6: bool, protocol: u8, n: u32) -> Tuple {
    let client = if v6 {
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, (n >> 8) as u16, n as u16))
    } else {
        Ipv4Addr::from(0xc633_6400 | n & 0xff).into()
    };
    Tuple { client, vip: ends(v6).1, client_port: 20_000 + n as u16, vip_port: 80, protocol }
}

/// What the client of a flow sends, or its pod.
fn packet(t: &Tuple, pod: Option<IpAddr>, flags: u8) -> Packet {
    let client = (t.client, t.client_port);
    let (from, to) = match pod {
        Some(pod) => ((pod, 8080), client),
        None => (client, (t.vip, t.vip_port)),
    };
    if t.protocol == 6 { Packet::tcp(from, to, flags, b"") } else { Packet::udp(from, to, b"data") }
}

/// Source and destination of a frame without tags and options.
fn ends_of(frame: &[u8]) -> [(IpAddr, u16); 2] {
    let v6 = frame[12] == 0x86;
    let address = |at: usize| -> IpAddr {
        if v6 {
            <[u8; 16]>::try_from(&frame[at..at + 16]).expect("sixteen").into()
        } else {
            <[u8; 4]>::try_from(&frame[at..at + 4]).expect("four").into()
        }
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if v6 {
        [(address(22), port(54)), (address(38), port(56))]
    } else {
        [(address(26), port(34)), (address(30), port(36))]
    }
}

/// The pod of this node that gets the client's packet.
fn pod_of(dp: &Datapath, t: &Tuple, flags: u8) -> Option<IpAddr> {
    let answer = ask(dp, &packet(t, None, flags).frame());
    (answer.verdict == XDP_PASS).then(|| ends_of(&answer.frame)[1].0)
}

/// Whether what the pod says leaves with the VIP.
fn is_translated(dp: &Datapath, open: &Open, flags: u8) -> bool {
    let answer = reply(dp, &packet(&open.tuple, Some(open.pod), flags));
    answer.verdict == TCX_NEXT && ends_of(&answer.frame)[0] == (open.tuple.vip, open.tuple.vip_port)
}

fn open(dp: &Datapath, tuple: Tuple) -> Open {
    let pod = pod_of(dp, &tuple, SYN).expect("a pod of this node");
    let open = Open { tuple, pod };
    if tuple.protocol == 17 {
        assert!(is_translated(dp, &open, 0));
        return open;
    }
    assert!(is_translated(dp, &open, SYN | ACK));
    assert_eq!(pod_of(dp, &tuple, ACK), Some(pod));
    assert!(is_translated(dp, &open, ACK));
    open
}

/// Thousands of flows, opened before most of the pods were replaced.
struct Scene {
    dp: Datapath,
    flows: Vec<Open>,
    /// Of them, those that a node without memory would send elsewhere.
    moved: usize,
}

fn scene() -> Option<Scene> {
    let mut dp = loaded(&site(false))?;
    let kinds = [(false, 6), (true, 6), (false, 17), (true, 17)];
    let flows: Vec<Open> = kinds
        .iter()
        .flat_map(|&(v6, protocol)| (0..OPEN).map(move |n| tuple(v6, protocol, n)))
        .map(|t| open(&dp, t))
        .collect();
    let now = site(true);
    dp.apply(&now).expect("the tables fit");
    let reference = Reference::new(&now);
    let moved = |open: &&Open| {
        let protocol = if open.tuple.protocol == 6 { Protocol::Tcp } else { Protocol::Udp };
        reference.candidates(&open.tuple, protocol)[0].is_some_and(|b| b.address != open.pod)
    };
    let moved = flows.iter().filter(moved).count();
    assert!(moved > flows.len() / 2, "{moved} of {} would be sent elsewhere without memory", flows.len());
    let scene = Scene { dp, flows, moved };
    assert_eq!(scene.broken(|_| true), 0, "before any flood");
    Some(scene)
}

impl Scene {
    /// Flows whose client's packets do not reach their own pod, whose answers do not leave with the VIP, or whose state
    /// is not that of an open one.
    fn broken(&self, which: impl Fn(&Open) -> bool) -> usize {
        let is_whole = |open: &Open| {
            let t = &open.tuple;
            let there = self.dp.flow(Side::Vip, &FlowKey::by_vip(t)).expect("readable");
            let back = Tuple { vip: open.pod, vip_port: 8080, ..*t };
            let back = self.dp.flow(Side::Pod, &FlowKey::by_vip(&back)).expect("readable");
            there.is_some_and(|f| f.closing == 0 && IpAddr::from(f.ip) == open.pod)
                && back.is_some_and(|f| f.closing == 0 && IpAddr::from(f.ip) == t.vip)
                && pod_of(&self.dp, t, ACK) == Some(open.pod)
                && is_translated(&self.dp, open, ACK)
        };
        self.flows.iter().filter(|open| which(open) && !is_whole(open)).count()
    }

    fn connections_broken(&self) -> usize {
        self.broken(|open| open.tuple.protocol == 6)
    }

    /// Sends so many frames, each with a source of its own, and says how fast.
    fn flood(&self, what: &str, spoofed: &Spoofed, count: u32) {
        let (began, mut kernel) = (Instant::now(), Duration::ZERO);
        let mut frame = spoofed.frame.clone();
        for n in 0..count {
            spoofed.forge(&mut frame, n);
            kernel += ask(&self.dp, &frame).duration;
        }
        let rate = |took: Duration| f64::from(count) / took.as_secs_f64() / 1e6;
        println!(
            "{count} {what}: {:.2} million a second of the program's time, {:.2} with a system call for each; {} flows open, \
             {} of them with a pod that memory alone knows",
            rate(kernel),
            rate(began.elapsed()),
            self.flows.len(),
            self.moved
        );
    }
}

/// A frame, and where in it the address and the port of a client stand.
struct Spoofed {
    frame: Vec<u8>,
    address: usize,
    port: usize,
    v6: bool,
}

impl Spoofed {
    fn of(v6: bool, packet: &Packet) -> Self {
        let (address, port) = if v6 { (22, 54) } else { (26, 34) };
        Self { frame: packet.frame(), address, port, v6 }
    }

    fn segment(v6: bool, port: u16, flags: u8) -> Self {
        Self::of(v6, &segment(v6, port, flags))
    }

    fn datagram(v6: bool, port: u16) -> Self {
        let (client, vip) = ends(v6);
        Self::of(v6, &Packet::udp((client, PORT), (vip, port), b"data"))
    }

    /// An error about what the VIP is said to have sent to a client.
    fn error(v6: bool, kind: u8, code: u8) -> Self {
        let (client, vip) = ends(v6);
        let quoted = Packet::tcp((vip, 80), (client, PORT), ACK, b"").ip();
        let router = ip(if v6 { "2001:db8:1::1" } else { "203.0.113.9" });
        let frame = Packet::icmp(router, vip, kind, code, [0, 0, 5, 0], &quoted).frame();
        let (address, port) = if v6 { (14 + 48 + 24, 14 + 48 + 42) } else { (14 + 28 + 16, 14 + 28 + 22) };
        Self { frame, address, port, v6 }
    }

    /// Another client for each number up to 2^24.
    fn forge(&self, frame: &mut [u8], n: u32) {
        if self.v6 {
            frame[self.address..self.address + 8].copy_from_slice(&[0x20, 1, 0x0d, 0xb8, 0xba, 0xd0, 0, 0]);
            frame[self.address + 12..self.address + 16].copy_from_slice(&n.to_be_bytes());
        } else {
            frame[self.address..self.address + 4].copy_from_slice(&(0x0b00_0000 | n).to_be_bytes());
        }
        frame[self.port..self.port + 2].copy_from_slice(&(1024 + (n % 60_000) as u16).to_be_bytes());
    }
}

#[test]
fn a_million_spoofed_syns_take_no_established_flow() {
    let Some(scene) = scene() else { return };
    for v6 in [false, true] {
        scene.flood(&format!("SYNs, v6 {v6}"), &Spoofed::segment(v6, 80, SYN), MILLION / 2);
        assert_eq!(scene.broken(|_| true), 0, "v6 {v6}");
    }
    // Who comes now is served: the flood's entries give way.
    for v6 in [false, true] {
        let newcomers: BTreeSet<IpAddr> = (0..100)
            .filter_map(|n| {
                let t = tuple(v6, 6, 5000 + n);
                let pod = pod_of(&scene.dp, &t, SYN)?;
                Some(open(&scene.dp, t)).filter(|o| o.pod == pod).map(|o| o.pod)
            })
            .collect();
        assert!(newcomers.len() > 3, "{newcomers:?}");
    }
}

#[test]
fn segments_that_belong_to_no_connection_take_no_established_flow() {
    let Some(scene) = scene() else { return };
    for v6 in [false, true] {
        for (what, flags) in [("ACKs", ACK), ("FINs", FIN | ACK), ("RSTs", RST), ("SYN-ACKs", SYN | ACK)] {
            scene.flood(&format!("{what}, v6 {v6}"), &Spoofed::segment(v6, 80, flags), MILLION / 10);
            // The last hop: nobody knows it, and this node's pod must answer. Its place is one among the handshakes.
            let spoofed = Spoofed::segment(v6, 80, flags);
            let frame = sent_on(&segment(v6, 80, flags), 2, true).frame();
            let outside = frame.len() - spoofed.frame.len();
            let within = Spoofed { frame, address: spoofed.address + outside, port: spoofed.port + outside, v6 };
            scene.flood(&format!("{what} that another node sent back, v6 {v6}"), &within, MILLION / 20);
            assert_eq!(scene.broken(|_| true), 0, "{what}, v6 {v6}");
        }
    }
    assert_eq!(scene.dp.flows(Side::Vip).expect("readable").len(), scene.flows.len(), "nothing was kept");
}

#[test]
fn datagrams_push_out_datagrams_and_no_connection() {
    let Some(scene) = scene() else { return };
    for v6 in [false, true] {
        let kept = scene.dp.flows(Side::Vip).expect("readable").len();
        scene.flood(&format!("datagrams, v6 {v6}"), &Spoofed::datagram(v6, 80), MILLION / 4);
        assert_eq!(scene.connections_broken(), 0, "v6 {v6}");
        let now = scene.dp.flows(Side::Vip).expect("readable").len();
        assert!(now >= kept && now <= 2 * OPEN as usize + (1 << 13), "{kept}, then {now}: the table is bounded");
    }
    let gone = scene.broken(|open| open.tuple.protocol == 17);
    assert!(gone > 0, "the flood was larger than the table");
    // Whose slot did not move goes on with its pod, memory or not.
    let reference = site(true);
    let reference = Reference::new(&reference);
    let mut stayed = 0;
    for open in scene.flows.iter().filter(|open| open.tuple.protocol == 17) {
        let own = reference.candidates(&open.tuple, Protocol::Udp)[0].is_some_and(|b| b.address == open.pod);
        if own {
            stayed += 1;
            assert_eq!(pod_of(&scene.dp, &open.tuple, 0), Some(open.pod));
            assert!(is_translated(&scene.dp, open, 0));
        }
    }
    assert!(stayed > 100, "{stayed}");
}

#[test]
fn what_is_for_no_port_of_a_service_leaves_no_trace() {
    let Some(scene) = scene() else { return };
    for v6 in [false, true] {
        let before = count(&scene.dp, Reason::DropUnknownPort);
        scene.flood(&format!("SYNs to an unknown port, v6 {v6}"), &Spoofed::segment(v6, 9999, SYN), MILLION / 10);
        scene.flood(&format!("datagrams to an unknown port, v6 {v6}"), &Spoofed::datagram(v6, 9999), MILLION / 10);
        assert_eq!(count(&scene.dp, Reason::DropUnknownPort) - before, u64::from(MILLION / 5));
    }
    assert_eq!(scene.broken(|_| true), 0);
    assert_eq!(scene.dp.handshakes().expect("readable").len(), 0);
}

#[test]
fn forged_icmp_errors_leave_no_trace() {
    let Some(scene) = scene() else { return };
    for (v6, kind, code) in [(false, 3, 4), (false, 3, 1), (true, 2, 0), (true, 1, 3)] {
        scene.flood(&format!("ICMP errors {kind}/{code}"), &Spoofed::error(v6, kind, code), MILLION / 20);
    }
    let flows = scene.dp.flows(Side::Vip).expect("readable").len();
    assert_eq!((flows, scene.dp.handshakes().expect("readable").len()), (scene.flows.len(), 0));
    assert_eq!(scene.broken(|_| true), 0);
}

/// The limit of what a path that follows no sequence numbers can promise.
#[test]
fn who_guesses_all_four_numbers_marks_a_connection_and_its_pod_keeps_it() {
    let Some(scene) = scene() else { return };
    let connections = || scene.flows.iter().filter(|open| open.tuple.protocol == 6).step_by(10);
    for open in connections() {
        for flags in [RST, FIN | ACK, SYN | ACK] {
            pod_of(&scene.dp, &open.tuple, flags);
        }
        assert_eq!(pod_of(&scene.dp, &open.tuple, ACK), Some(open.pod), "the pod judges by sequence numbers");
        assert!(is_translated(&scene.dp, open, ACK));
    }
    assert!(connections().count() >= 200);
}
