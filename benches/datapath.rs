//! What the packet path costs, over the kernel's test loop: the lowest decile of interleaved rounds of `BPF_PROG_TEST_RUN`;
//! and how long it takes to make a Maglev table and to write it to the kernel.
//! Needs root. `cargo bench --bench datapath [-- ROUNDS]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::{
    Ebpf,
    maps::{Array, ProgramArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use ironcast::{
    datapath::{
        kernel::{Datapath, Options},
        maglev::{self, Member},
        slots::log2_for,
        spec::{Backend, Frontend, Membership, Node, Route, Spec, Table, Target},
    },
    types::{Protocol, ServiceKey},
};

static HARNESS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

const VIPS: u16 = 400;
const BACKENDS: u8 = 100;
const LENGTH: usize = 128;
/// A few milliseconds: most runs meet no interruption.
const REPEAT: u32 = 50_000;
const FLOWS: [u32; 3] = [1, 10_000, 1_000_000];

/// `struct bench`.
#[repr(C)]
#[derive(Clone, Copy)]
struct State {
    head: [u64; 10],
    length: u32,
    flows: u32,
    next: u32,
    v6: u32,
    twice: u32,
    interface: u32,
    ended: u64,
}

// SAFETY: integers only, without padding: the size is asserted.
unsafe impl aya::Pod for State {}
const _: () = assert!(size_of::<State>() == 112);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    /// The loop and the harness, with an empty program.
    Floor,
    /// The same, the head moved there and back.
    Restore,
    Pass,
    Dnat,
    Encapsulate,
}

impl Case {
    fn target(self) -> f64 {
        match self {
            Self::Pass => 5.0,
            Self::Dnat => 25.0,
            Self::Encapsulate => 45.0,
            _ => f64::INFINITY,
        }
    }

    fn port(self) -> u16 {
        if self == Self::Encapsulate { 81 } else { 80 }
    }
}

fn vip(v6: bool, n: u16) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, n).into()
    } else {
        Ipv4Addr::from(0xc633_6400 + u32::from(n)).into()
    }
}

fn pod(v6: bool, n: u8) -> IpAddr {
    if v6 { Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n.into()).into() } else { Ipv4Addr::new(10, 1, 0, n).into() }
}

fn table(v6: bool, node: impl Fn(u8) -> String) -> Table {
    let members: BTreeMap<Backend, u32> =
        (0..BACKENDS).map(|n| (Backend { address: pod(v6, n), port: 8080, node: node(n) }, 1)).collect();
    Table {
        forgetful: false,
        living: members.keys().cloned().collect(),
        history: vec![Membership { slots_log2: log2_for(members.len()), members }],
    }
}

/// 400 VIPs a family with two ports each; port 80 has its 100 pods here, port 81 on 50 other nodes.
fn spec() -> Spec {
    let mut spec = Spec { generation: 1, secret: [5; 32], node: "n".into(), ..Spec::default() };
    spec.nodes.insert("n".into(), Node { addresses: BTreeSet::from([Ipv4Addr::new(10, 0, 0, 1).into()]), route: None });
    for n in 0..50 {
        let destination = Ipv4Addr::new(10, 0, 1, n).into();
        let source = Ipv4Addr::new(10, 0, 0, 1).into();
        let (source_mac, next_hop_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let route = Route { destination, source, interface: 1, source_mac, next_hop_mac, vlan: None, mtu: 1500 };
        spec.nodes.insert(format!("n{n}"), Node { addresses: BTreeSet::from([destination]), route: Some(route) });
    }
    for v6 in [false, true] {
        spec.tables.insert(format!("here {v6}"), table(v6, |_| "n".into()));
        spec.tables.insert(format!("there {v6}"), table(v6, |n| format!("n{}", n / 2)));
        for n in 0..VIPS {
            spec.addresses.insert(vip(v6, n));
            for (port, place) in [(80, "here"), (81, "there")] {
                let front = Frontend { address: vip(v6, n), protocol: Protocol::Tcp, port };
                let service = ServiceKey::new("bench", format!("s{n}"));
                spec.ports
                    .insert(front, Target { service, table: format!("{place} {v6}"), affinity: false, pass: false });
            }
        }
    }
    spec
}

/// A TCP segment of an established connection.
fn frame(case: Case, v6: bool) -> Vec<u8> {
    let to = if case == Case::Pass { vip(v6, 50_000) } else { vip(v6, 7) };
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xfe];
    match to {
        IpAddr::V4(to) => {
            f.extend([8, 0, 0x45, 0]);
            f.extend(((LENGTH - 14) as u16).to_be_bytes());
            f.extend([0, 0, 0x40, 0, 60, 6, 0, 0, 203, 0, 113, 0]);
            f.extend(to.octets());
        }
        IpAddr::V6(to) => {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend(((LENGTH - 54) as u16).to_be_bytes());
            f.extend([6, 60]);
            f.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0).octets());
            f.extend(to.octets());
        }
    }
    f.extend([4, 0]);
    f.extend(case.port().to_be_bytes());
    f.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    f.resize(LENGTH, 0);
    f
}

struct Harness {
    ebpf: Ebpf,
    state: Array<aya::maps::MapData, State>,
    target: ProgramArray<aya::maps::MapData>,
}

impl Harness {
    fn new() -> Self {
        let mut ebpf = Ebpf::load(HARNESS).expect("the harness loads");
        let program: &mut Xdp = ebpf.program_mut("bench_run").expect("there").try_into().expect("XDP");
        program.load().expect("the harness is accepted");
        let nothing: &mut Xdp = ebpf.program_mut("bench_nothing").expect("there").try_into().expect("XDP");
        nothing.load().expect("the empty program is accepted");
        let state = Array::try_from(ebpf.take_map("bench_state").expect("there")).expect("an array");
        let target = ProgramArray::try_from(ebpf.take_map("bench_target").expect("there")).expect("programs");
        Self { ebpf, state, target }
    }

    /// Mean nanoseconds of a run.
    fn run(&mut self, datapath: &Datapath, case: Case, v6: bool, flows: u32) -> f64 {
        let frame = frame(case, v6);
        let mut head = [0; 10];
        for (word, bytes) in head.iter_mut().zip(frame.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight"));
        }
        let twice = u32::from(case == Case::Restore);
        let state = State { head, length: LENGTH as u32, flows, next: 0, v6: v6.into(), twice, interface: 0, ended: 0 };
        self.state.set(0, state, 0).expect("written");
        let nothing: &Xdp = self.ebpf.program("bench_nothing").expect("there").try_into().expect("XDP");
        let (program, verdict) = match case {
            Case::Floor | Case::Restore => (nothing.fd(), 1),
            Case::Pass | Case::Dnat => (Ok(datapath.incoming().expect("loaded")), 2),
            Case::Encapsulate => (Ok(datapath.incoming().expect("loaded")), 3),
        };
        self.target.set(0, program.expect("loaded"), 0).expect("set");
        let program: &Xdp = self.ebpf.program("bench_run").expect("there").try_into().expect("XDP");
        let options = TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..Default::default() };
        let result = program.test_run(options).expect("it runs");
        assert_eq!(result.return_value, verdict, "{case:?} v6 {v6} flows {flows}");
        result.duration.as_nanos() as f64
    }
}

/// Milliseconds of the work, undisturbed.
fn milliseconds(mut work: impl FnMut()) -> f64 {
    let once = |()| {
        let start = std::time::Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e3
    };
    undisturbed(std::iter::repeat_n((), 200).map(once).collect())
}

/// A Maglev table of 100 members: made, and written.
fn print_tables(datapath: &Datapath) {
    let members: Vec<Member> = (0..100_u32).map(|n| Member { key: maglev::key(&n.to_be_bytes()), weight: 1 }).collect();
    println!("| ms | of 100 members | target |");
    println!("|---|---|---|");
    let met = |took: f64, target: f64| if took <= target { "met" } else { "MISSED" };
    for slots in [65_521, 65_536] {
        let took = milliseconds(|| drop(std::hint::black_box(maglev::build(&members, slots))));
        println!("| {slots} slots made | {took:.2} | ≤ 1 {} |", met(took, 1.0));
    }
    let slots = vec![1; 65_536];
    let took = milliseconds(|| datapath.write_spare_slots(&slots).expect("it is written"));
    println!("| {} slots written | {took:.3} | ≤ 0.1 {} |\n", slots.len(), met(took, 0.1));
}

/// The lowest decile: what others on the machine add is noise, and never negative.
fn undisturbed(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 10]
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: loading programs needs root");
        return;
    }
    let rounds: usize = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(60);
    let options = Options { slots: 1 << 19, backends: 1 << 12, flows: 1 << 12, syns: 1 << 12, ..Options::default() };
    let mut datapath = Datapath::load(options).expect("the programs load");
    datapath.apply(&spec()).expect("the tables fit");
    if !cfg!(debug_assertions) {
        print_tables(&datapath);
    }
    let mut harness = Harness::new();
    let mut cases = vec![(Case::Restore, false, 1)];
    for v6 in [false, true] {
        for flows in FLOWS {
            cases.extend([Case::Floor, Case::Pass, Case::Dnat, Case::Encapsulate].map(|c| (c, v6, flows)));
        }
    }
    let mut measured: BTreeMap<(Case, bool, u32), Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for &(case, v6, flows) in &cases {
            measured.entry((case, v6, flows)).or_default().push(harness.run(&datapath, case, v6, flows));
        }
    }
    print(&measured.into_iter().map(|(k, v)| (k, undisturbed(v))).collect());
}

fn print(costs: &BTreeMap<(Case, bool, u32), f64>) {
    let floor = costs[&(Case::Floor, false, 1)];
    // There and back is two moves; restoring a frame that grew is one.
    let restore = (costs[&(Case::Restore, false, 1)] - floor) / 2.0;
    println!(
        "test loop with harness and an empty program {floor:.0} ns, restoring a grown frame {restore:.0} ns more; the rest is over that\n"
    );
    println!("| ns over the loop | family | 1 flow | 10,000 | 1,000,000 | target | flat |");
    println!("|---|---|---|---|---|---|---|");
    for case in [Case::Pass, Case::Dnat, Case::Encapsulate] {
        for v6 in [false, true] {
            let over = |flows| {
                let restored = if case == Case::Encapsulate { restore } else { 0.0 };
                costs[&(case, v6, flows)] - costs[&(Case::Floor, v6, flows)] - restored
            };
            let [one, some, many] = FLOWS.map(over);
            let met = if one.max(some).max(many) <= case.target() { "met" } else { "MISSED" };
            let flat = (costs[&(case, v6, FLOWS[2])] / costs[&(case, v6, 1)] - 1.0) * 100.0;
            let family = if v6 { "IPv6" } else { "IPv4" };
            println!(
                "| {case:?} | {family} | {one:.1} | {some:.1} | {many:.1} | ≤ {} {met} | {flat:+.0} % |",
                case.target()
            );
        }
    }
}
