//! What the programs do, said once more in plain Rust: the judge of the tests, and what explains a packet
//! where the kernel cannot be asked. It shares with the programs only the hash and the slots.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{
    hash::{FlowKeys, Tuple, node_ids},
    image::protocol_number,
    slots::{Layout, lay_out, next_on_ring},
    spec::{Backend, Frontend, Route, Spec, TableId, Target},
    types::{HOPS_MAX, OVER_V4, OVER_V6, RING_MAX, Reason, SLOT_CHECK},
};
use crate::types::Protocol;

mod parse;

pub use parse::{Arrival, Parsed, parse};

/// What becomes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Not ours; untouched, not counted.
    Foreign,
    /// To the stack as it is.
    Pass(Reason),
    /// Gone.
    Drop(Reason),
    /// Answered as an echo request.
    Echo,
    /// Answered as another node's probe.
    Probe,
    /// Answered with the size that fits.
    TooBig {
        /// Bytes of IP.
        mtu: u16,
    },
    /// To a pod of this node.
    Deliver {
        /// The pod.
        pod: IpAddr,
        /// Its port.
        port: u16,
        /// What the owner writes down.
        remember: Remember,
    },
    /// To another node.
    Forward {
        /// The node.
        node: String,
        /// How it will arrive there.
        onward: Arrival,
        /// Hash of the flow, for the source port.
        hash: u32,
    },
}

/// What the owner writes down with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// Nothing.
    Nothing,
    /// A handshake under way, or a segment that nobody knows: the pod says what it is.
    Handshake,
    /// A flow of datagrams.
    Flow,
}

/// What an owner remembers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Established flows and the pods that have them; `true`: closing.
    pub flows: HashMap<Tuple, (IpAddr, u16, bool)>,
    /// Handshakes under way: the pods that were sent a SYN.
    pub handshakes: HashMap<Tuple, (IpAddr, u16)>,
    /// Seen from the pod (which stands in the VIP's place): the VIP that answers have; `true`: closing.
    pub replies: HashMap<Tuple, (IpAddr, u16, bool)>,
}

/// A flow as its pod sees it.
fn at_pod(t: &Tuple, pod: IpAddr, port: u16) -> Tuple {
    Tuple { vip: pod, vip_port: port, ..*t }
}

impl Memory {
    /// A SYN was let through to the pod.
    pub fn begin(&mut self, t: &Tuple, pod: IpAddr, port: u16) {
        if self.other(t, pod, port).is_some() {
            self.replies.remove(&at_pod(t, pod, port));
        }
        self.handshakes.insert(*t, (pod, port));
    }

    /// A flow was delivered that nobody knew.
    pub fn keep(&mut self, t: &Tuple, pod: IpAddr, port: u16) {
        if let Some((vip, vip_port, _)) = self.other(t, pod, port) {
            self.flows.remove(&Tuple { vip, vip_port, ..*t });
        }
        self.replies.insert(at_pod(t, pod, port), (t.vip, t.vip_port, false));
        self.flows.insert(*t, (pod, port, false));
    }

    /// The client begins anew where an older connection of the same ports was closing.
    pub fn forget(&mut self, t: &Tuple) {
        self.flows.remove(t);
        self.handshakes.remove(t);
    }

    /// The client ends the connection.
    pub fn end(&mut self, t: &Tuple) {
        let Some((pod, port, closing)) = self.flows.get_mut(t) else { return };
        *closing = true;
        let back = at_pod(t, *pod, *port);
        if let Some((.., closing)) = self.replies.get_mut(&back).filter(|r| (r.0, r.1) == (t.vip, t.vip_port)) {
            *closing = true;
        }
    }

    /// What the pod has with this client's port through another VIP.
    fn other(&self, t: &Tuple, pod: IpAddr, port: u16) -> Option<(IpAddr, u16, bool)> {
        self.replies.get(&at_pod(t, pod, port)).copied().filter(|r| (r.0, r.1) != (t.vip, t.vip_port))
    }

    /// The pod has answered.
    pub fn establish(&mut self, t: &Tuple, pod: IpAddr, port: u16) {
        self.handshakes.remove(t);
        self.keep(t, pod, port);
    }
}

/// The tables, ready to be asked.
#[derive(Debug)]
pub struct Reference<'a> {
    spec: &'a Spec,
    keys: FlowKeys,
    layouts: BTreeMap<TableId, Layout>,
    ids: BTreeMap<&'a str, u16>,
}

/// A packet on its way through the decision.
struct Question<'a> {
    parsed: &'a Parsed,
    layout: Option<&'a Layout>,
    candidates: [Option<&'a Backend>; 3],
    check: bool,
    hash: u32,
}

impl<'a> Reference<'a> {
    /// Lays the tables out.
    pub fn new(spec: &'a Spec) -> Self {
        let layouts = spec.tables.iter().map(|(id, t)| (id.clone(), lay_out(t))).collect();
        Self { spec, keys: FlowKeys::new(&spec.secret), layouts, ids: node_ids(spec.nodes.keys()) }
    }

    /// The same with one table alone, or none: for questions about one flow.
    pub fn for_table(spec: &'a Spec, table: Option<&TableId>) -> Self {
        let one = table.and_then(|id| Some((id.clone(), lay_out(spec.tables.get(id)?))));
        let (keys, ids) = (FlowKeys::new(&spec.secret), node_ids(spec.nodes.keys()));
        Self { spec, keys, layouts: one.into_iter().collect(), ids }
    }

    /// What becomes of a frame that comes in on an uplink.
    pub fn judge(&self, frame: &[u8], memory: &Memory) -> Outcome {
        match parse(self.spec, frame) {
            Err(outcome) => outcome,
            Ok(parsed) => self.serve(&parsed, memory),
        }
    }

    /// The candidates of a flow, current owner first: who gets it where the nodes agree.
    pub fn candidates(&self, tuple: &Tuple, protocol: Protocol) -> [Option<&Backend>; 3] {
        let front = Frontend { address: tuple.vip, protocol, port: tuple.vip_port };
        match self.spec.ports.get(&front) {
            Some(target) => self.slot(target, tuple).0,
            None => [None; 3],
        }
    }

    fn slot(&self, target: &Target, tuple: &Tuple) -> ([Option<&Backend>; 3], bool, u32) {
        let hash = self.keys.hash(tuple, target.affinity);
        let Some(layout) = self.layouts.get(&target.table) else { return ([None; 3], false, hash) };
        let slot = layout.slots[(hash >> (32 - layout.log2)) as usize];
        let backend = |n: u32| ((slot >> (16 * n) & 0xffff) as usize).checked_sub(1).map(|i| &layout.backends[i]);
        ([backend(0), backend(1), backend(2)], slot & SLOT_CHECK != 0, hash)
    }

    /// What becomes of a packet that is parsed already.
    pub fn serve(&self, parsed: &Parsed, memory: &Memory) -> Outcome {
        let is = |p: &Protocol| protocol_number(*p) == parsed.tuple.protocol;
        let Some(protocol) = [Protocol::Tcp, Protocol::Udp].into_iter().find(is) else {
            return Outcome::Drop(Reason::DropProtocol);
        };
        let front = Frontend { address: parsed.tuple.vip, protocol, port: parsed.tuple.vip_port };
        let Some(target) = self.spec.ports.get(&front) else { return Outcome::Drop(Reason::DropUnknownPort) };
        if target.pass {
            let first = parsed.arrival.first;
            return if first { Outcome::Pass(Reason::PassForeign) } else { Outcome::Drop(Reason::DropUnreachable) };
        }
        let (candidates, check, hash) = self.slot(target, &parsed.tuple);
        let layout = self.layouts.get(&target.table);
        let question = Question { parsed, layout, candidates, check, hash };
        match self.choose(&question, memory) {
            Outcome::Forward { node, onward, hash } => self.fits(parsed, node, onward, hash),
            Outcome::Deliver { pod, port, remember }
                if remember != Remember::Nothing
                    && parsed.tuple.protocol == 6
                    && memory.other(&parsed.tuple, pod, port).is_some_and(|(.., closing)| !closing) =>
            {
                Outcome::Drop(Reason::DropCollision)
            }
            outcome => outcome,
        }
    }

    fn own(&self, b: &Backend) -> bool {
        b.node == self.spec.node
    }

    fn choose(&self, q: &Question<'_>, memory: &Memory) -> Outcome {
        let Some(cur) = q.candidates[0] else { return Outcome::Drop(Reason::DropNoBackend) };
        let first = q.parsed.arrival.first;
        let any_own = q.candidates.iter().flatten().any(|b| self.own(b));
        if first && !any_own {
            return unasked(q, cur);
        }
        if first && !q.check && !self.own(cur) {
            return unasked(q, cur);
        }
        if !q.check && self.own(cur) && q.parsed.tuple.protocol == 6 {
            return deliver(q, cur.address, cur.port, Remember::Nothing);
        }
        self.choose_with_memory(q, cur, memory)
    }

    /// Whether the packet is a SYN that memory has an older, closing connection of: the packet path forgets that one, or
    /// what follows the SYN would be taken for its.
    pub fn forgets(&self, parsed: &Parsed, memory: &Memory) -> bool {
        let closing = memory.flows.get(&parsed.tuple).is_some_and(|(.., closing)| *closing);
        let front = Frontend { address: parsed.tuple.vip, protocol: Protocol::Tcp, port: parsed.tuple.vip_port };
        let Some(target) = self.spec.ports.get(&front).filter(|target| closing && parsed.fresh && !target.pass) else {
            return false;
        };
        let (candidates, check, _) = self.slot(target, &parsed.tuple);
        let Some(cur) = candidates[0] else { return false };
        let settled = !check && (self.own(cur) || parsed.arrival.first);
        let elsewhere = parsed.arrival.first && !candidates.iter().flatten().any(|b| self.own(b));
        !settled && !elsewhere
    }

    fn choose_with_memory(&self, q: &Question<'_>, cur: &Backend, memory: &Memory) -> Outcome {
        let arrival = q.parsed.arrival;
        let fresh = q.parsed.fresh;
        let any_own = || q.candidates.iter().flatten().copied().find(|b| self.own(b));
        if let Some(&(pod, port, closing)) = memory.flows.get(&q.parsed.tuple)
            && !(fresh && closing)
        {
            return deliver(q, pod, port, Remember::Nothing);
        }
        if fresh {
            let own = if self.own(cur) { Some(cur) } else { any_own().filter(|_| arrival.hops + 1 >= HOPS_MAX) };
            return match own {
                Some(b) => deliver(q, b.address, b.port, Remember::Nothing),
                None => self.send(q, cur, false),
            };
        }
        if q.parsed.tuple.protocol == 6
            && let Some(&(pod, port)) = memory.handshakes.get(&q.parsed.tuple)
        {
            return deliver(q, pod, port, Remember::Nothing);
        }
        if arrival.first && !self.own(cur) {
            return self.send(q, cur, false);
        }
        let asked = |b: &Backend| self.ids.get(&*b.node).is_some_and(|id| arrival.asked.contains(id));
        if !arrival.last
            && !arrival.ring
            && arrival.hops + 1 < HOPS_MAX
            && let Some(next) = q.candidates.iter().flatten().find(|b| !self.own(b) && !asked(b))
        {
            return self.send(q, next, false);
        }
        if let Some(outcome) = self.round_the_ring(q) {
            return outcome;
        }
        let own = if self.own(cur) { Some(cur) } else { any_own().filter(|_| arrival.last) };
        match own {
            Some(b) => deliver(q, b.address, b.port, Remember::Flow),
            None => self.send(q, cur, true),
        }
    }

    /// Nobody who is named knows the flow: where there are more nodes, each of the Service's is asked.
    fn round_the_ring(&self, q: &Question<'_>) -> Option<Outcome> {
        let (arrival, layout) = (q.parsed.arrival, q.layout?);
        if arrival.last || q.parsed.tuple.protocol != 6 || !(arrival.ring || layout.deep) {
            return None;
        }
        let next = next_on_ring(&layout.ring, &layout.backends, self.spec)?;
        let next = &layout.backends[usize::from(next) - 1];
        let id = self.ids.get(&*next.node).copied().unwrap_or(0);
        let [start, left, _] = if arrival.ring { arrival.asked } else { [id, RING_MAX, 0] };
        if left == 0 || arrival.ring && id == start {
            return None;
        }
        let onward = Arrival { first: false, hops: HOPS_MAX - 1, last: false, ring: true, asked: [start, left - 1, 0] };
        Some(Outcome::Forward { node: next.node.clone(), onward, hash: q.hash })
    }

    /// To another node, by one that was asked.
    fn send(&self, q: &Question<'_>, to: &Backend, last: bool) -> Outcome {
        let arrival = q.parsed.arrival;
        let hops = if arrival.first { 0 } else { arrival.hops + 1 };
        if hops > HOPS_MAX {
            return Outcome::Drop(Reason::DropHops);
        }
        let asked = [self.ids.get(&*self.spec.node).copied().unwrap_or(0), arrival.asked[0], arrival.asked[1]];
        let onward = Arrival { first: false, hops, last, ring: false, asked };
        Outcome::Forward { node: to.node.clone(), onward, hash: q.hash }
    }

    /// Whether the packet fits the way, and what happens when it does not.
    fn fits(&self, parsed: &Parsed, node: String, onward: Arrival, hash: u32) -> Outcome {
        let Some(route) = self.route(&node) else {
            return match parsed.arrival.first {
                true => Outcome::Pass(Reason::PassUnreachable),
                false => Outcome::Drop(Reason::DropUnreachable),
            };
        };
        let over = if route.destination.is_ipv4() { OVER_V4 } else { OVER_V6 };
        if parsed.length + u32::from(over) <= u32::from(route.mtu) {
            return Outcome::Forward { node, onward, hash };
        }
        match parsed {
            p if !p.arrival.first => Outcome::Drop(Reason::DropUnreachable),
            p if !p.whole => Outcome::Pass(Reason::PassTooBig),
            _ => Outcome::TooBig { mtu: route.mtu - over },
        }
    }

    /// The way to a node.
    pub fn route(&self, node: &str) -> Option<&Route> {
        self.spec.nodes.get(node)?.route.as_ref()
    }
}

fn deliver(q: &Question<'_>, pod: IpAddr, port: u16, remember: Remember) -> Outcome {
    let remember = match remember {
        _ if q.parsed.error => Remember::Nothing,
        _ if q.parsed.fresh => Remember::Handshake,
        Remember::Flow if q.parsed.tuple.protocol == 6 => Remember::Handshake,
        other => other,
    };
    Outcome::Deliver { pod, port, remember }
}

/// By the first node, which has no candidate or a settled slot: nobody was asked.
fn unasked(q: &Question<'_>, to: &Backend) -> Outcome {
    let onward = Arrival { first: false, ..Arrival::default() };
    Outcome::Forward { node: to.node.clone(), onward, hash: q.hash }
}
