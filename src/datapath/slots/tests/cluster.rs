//! A cluster in memory: the reference on every node, each with its own view of the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    datapath::{
        hash::Tuple,
        reference::{Arrival, Memory, Outcome, Parsed, Reference, Remember},
        spec::{Backend, Frontend, Node, Route, Spec, Table, Target},
        types::{HOPS_MAX, RING_MAX},
    },
    types::{Protocol, ServiceKey},
};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// SplitMix64: the same story every time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)) >> 11) as usize % sides
    }

    /// The numbers below `n`, in any order.
    pub(super) fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.roll(i + 1));
        }
        order
    }
}

/// Pods are dealt out to the nodes one by one.
pub(super) fn pod(n: usize, nodes: usize) -> Backend {
    let address = Ipv4Addr::new(10, 1, (n / 200) as u8, (n % 200) as u8 + 1).into();
    Backend { address, port: 80, node: format!("n{}", n % nodes) }
}

pub(super) fn members(pods: std::ops::Range<usize>, nodes: usize) -> BTreeMap<Backend, u32> {
    pods.map(|n| (pod(n, nodes), 1)).collect()
}

fn spec(node: usize, nodes: usize, table: &Table) -> Spec {
    let address = |n: usize| IpAddr::from(Ipv4Addr::new(10, 0, 0, n as u8 + 1));
    let mut spec = Spec { secret: [1; 32], node: format!("n{node}"), addresses: [VIP].into(), ..Spec::default() };
    for n in 0..nodes {
        let mac = [2; 6];
        let route = Route {
            destination: address(n),
            source: address(node),
            interface: 1,
            source_mac: mac,
            next_hop_mac: mac,
            vlan: None,
            mtu: 1500,
        };
        let route = (n != node).then_some(route);
        spec.nodes.insert(format!("n{n}"), Node { addresses: [address(n)].into(), route });
    }
    let front = Frontend { address: VIP, protocol: Protocol::Tcp, port: 80 };
    let service = ServiceKey::new("test", "web");
    spec.ports.insert(front, Target { service, table: "t".into(), affinity: false, pass: false });
    spec.tables.insert("t".into(), table.clone());
    spec
}

/// A flow and the pod that has it.
#[derive(Clone, Copy)]
struct Open {
    tuple: Tuple,
    pod: IpAddr,
}

/// A SYN that its pod has not answered yet.
struct Opening {
    open: Open,
    port: u16,
    owner: usize,
}

pub(super) struct Cluster {
    pub(super) nodes: usize,
    pub(super) dice: Dice,
    /// Each node's own view, and the reference on it.
    tables: Vec<Table>,
    views: Vec<Reference<'static>>,
    memories: Vec<Memory>,
    open: Vec<Open>,
    opening: Vec<Opening>,
    next_port: u32,
}

/// Where a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At a pod of this node, with nothing written down. If it is not the flow's, it answers with a reset that leaves
    /// with its own address, since this node knows no such flow: the client has no connection with that address, and
    /// says again what was lost.
    Pod(usize, IpAddr, u16),
    /// At a pod that becomes the flow's owner: its reset leaves with the VIP.
    Owner,
    Nowhere,
}

/// Packets of living flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) asked: usize,
    /// Flows that were reset.
    pub(super) broken: usize,
    /// Packets that must be sent again.
    pub(super) lost: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.broken += other.broken;
        self.asked += other.asked;
        self.lost += other.lost;
    }
}

impl Cluster {
    pub(super) fn new(nodes: usize, first: BTreeMap<Backend, u32>, seed: u64) -> Self {
        let living = first.keys().cloned().collect();
        let table = Table::default().changed(first, living);
        let mut cluster = Self {
            nodes,
            dice: Dice(seed),
            tables: vec![],
            views: vec![],
            memories: vec![Memory::default(); nodes],
            open: vec![],
            opening: vec![],
            next_port: 0,
        };
        for node in 0..nodes {
            cluster.views.push(view(node, nodes, &table));
            cluster.tables.push(table.clone());
        }
        cluster
    }

    pub(super) fn table(&self, node: usize) -> &Table {
        &self.tables[node]
    }

    pub(super) fn see(&mut self, node: usize, table: Table) {
        self.views[node] = view(node, self.nodes, &table);
        self.tables[node] = table;
    }

    /// Where a packet that enters at a node ends.
    fn walk(&self, enter: usize, tuple: Tuple, fresh: bool) -> End {
        let mut at = enter;
        let mut arrival = Arrival { first: true, ..Arrival::default() };
        for _ in 0..usize::from(HOPS_MAX) + usize::from(RING_MAX) + 3 {
            let parsed = Parsed { arrival, tuple, length: 100, whole: true, fresh, ends: false, error: false };
            match self.views[at].serve(&parsed, &self.memories[at]) {
                Outcome::Deliver { remember, .. } if !fresh && remember != Remember::Nothing => return End::Owner,
                Outcome::Deliver { pod, port, .. } => return End::Pod(at, pod, port),
                Outcome::Forward { node, onward, .. } => {
                    at = node[1..].parse().expect("a number");
                    arrival = onward;
                }
                _ => return End::Nowhere,
            }
        }
        panic!("a loop");
    }

    /// A packet of a flow enters by one of these nodes.
    fn speak(&mut self, by: &std::ops::Range<usize>, flow: Open) -> Tally {
        let enter = by.start + self.dice.roll(by.len());
        match self.walk(enter, flow.tuple, false) {
            End::Pod(_, pod, _) if pod == flow.pod => Tally { asked: 1, ..Tally::default() },
            End::Owner => Tally { asked: 1, broken: 1, lost: 0 },
            _ => Tally { asked: 1, broken: 0, lost: 1 },
        }
    }

    /// Clients begin; the router chose the nodes. A SYN that nobody takes is tried again later.
    pub(super) fn open(&mut self, count: usize) {
        self.open_by(0..self.nodes, count);
    }

    /// The same by these nodes.
    pub(super) fn open_by(&mut self, by: std::ops::Range<usize>, count: usize) {
        for _ in 0..count {
            self.next_port += 1;
            let client = Ipv4Addr::from(0xc633_6400 + self.next_port / 60_000).into();
            let client_port = (self.next_port % 60_000) as u16 + 1;
            let tuple = Tuple { client, vip: VIP, client_port, vip_port: 80, protocol: 6 };
            let enter = by.start + self.dice.roll(by.len());
            if let End::Pod(owner, pod, port) = self.walk(enter, tuple, true) {
                self.memories[owner].begin(&tuple, pod, port);
                self.opening.push(Opening { open: Open { tuple, pod }, port, owner });
            }
        }
    }

    /// Clients that began complete the handshake, through nodes of the router's new choice.
    pub(super) fn complete(&mut self, living: &BTreeSet<Backend>) -> Tally {
        self.complete_by(0..self.nodes, living)
    }

    /// The same by these nodes.
    pub(super) fn complete_by(&mut self, by: std::ops::Range<usize>, living: &BTreeSet<Backend>) -> Tally {
        let mut tally = Tally::default();
        for opening in std::mem::take(&mut self.opening) {
            let Opening { open, port, owner } = opening;
            if !living.iter().any(|b| b.address == open.pod) {
                continue;
            }
            tally += self.speak(&by, open);
            self.memories[owner].establish(&open.tuple, open.pod, port);
            self.open.push(open);
        }
        tally
    }

    /// The router rehashes and every flow says something.
    pub(super) fn talk(&mut self, living: &BTreeSet<Backend>) -> Tally {
        self.open.retain(|f| living.iter().any(|b| b.address == f.pod));
        let mut tally = Tally::default();
        for flow in self.open.clone() {
            tally += self.speak(&(0..self.nodes), flow);
        }
        tally
    }
}

/// The reference borrows its spec for as long as it lives: here, for ever.
fn view(node: usize, nodes: usize, table: &Table) -> Reference<'static> {
    Reference::new(Box::leak(Box::new(spec(node, nodes, table))))
}
