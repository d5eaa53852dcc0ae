//! What the programs do, said once more in plain Rust: the judge of the tests, and what explains a packet
//! where the kernel cannot be asked. It shares with the programs only the hash and the slots.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{
    hash::{FlowKeys, Tuple},
    image::protocol_number,
    slots::{Layout, lay_out},
    spec::{Backend, Frontend, Route, Spec, TableId, Target},
    types::{HOPS_MAX, OVER_V4, OVER_V6, Reason, SLOT_CHECK},
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
        /// Hops in the header.
        hops: u8,
        /// Marked final.
        last: bool,
        /// Hash of the flow, for the source port.
        hash: u32,
    },
}

/// What the owner writes down with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// Nothing.
    Nothing,
    /// A handshake under way.
    Handshake,
    /// A flow.
    Flow,
}

/// What an owner remembers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Established flows and the pods that have them; `true`: closing.
    pub flows: HashMap<Tuple, (IpAddr, u16, bool)>,
    /// Handshakes under way: client and pod, and the VIP that the client knows the pod by.
    pub handshakes: HashMap<[(IpAddr, u16); 2], (IpAddr, u16)>,
}

impl Memory {
    /// A SYN was let through to the pod.
    pub fn begin(&mut self, t: &Tuple, pod: IpAddr, port: u16) {
        self.handshakes.insert([(t.client, t.client_port), (pod, port)], (t.vip, t.vip_port));
    }

    fn has_begun(&self, t: &Tuple, b: &Backend) -> bool {
        let known = self.handshakes.get(&[(t.client, t.client_port), (b.address, b.port)]);
        known == Some(&(t.vip, t.vip_port))
    }
}

/// The tables, ready to be asked.
#[derive(Debug)]
pub struct Reference<'a> {
    spec: &'a Spec,
    keys: FlowKeys,
    layouts: BTreeMap<TableId, Layout>,
}

/// A packet on its way through the decision.
struct Question<'a> {
    parsed: &'a Parsed,
    candidates: [Option<&'a Backend>; 3],
    check: bool,
    hash: u32,
}

impl<'a> Reference<'a> {
    /// Lays the tables out.
    pub fn new(spec: &'a Spec) -> Self {
        let layouts = spec.tables.iter().map(|(id, t)| (id.clone(), lay_out(t))).collect();
        Self { spec, keys: FlowKeys::new(&spec.secret), layouts }
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
        let question = Question { parsed, candidates, check, hash };
        match self.choose(&question, memory) {
            Outcome::Forward { node, hops, last, hash } => self.fits(parsed, node, hops, last, hash),
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
            return send(q, cur, false, false);
        }
        if first && !q.check && !self.own(cur) {
            return send(q, cur, false, false);
        }
        if !q.check && self.own(cur) && q.parsed.tuple.protocol == 6 {
            return deliver(q, cur.address, cur.port, Remember::Nothing);
        }
        self.choose_with_memory(q, cur, memory)
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
                None => send(q, cur, false, false),
            };
        }
        let under_way = |b: &&Backend| self.own(b) && memory.has_begun(&q.parsed.tuple, b);
        if q.parsed.tuple.protocol == 6
            && let Some(b) = q.candidates.iter().flatten().copied().find(under_way)
        {
            return deliver(q, b.address, b.port, Remember::Nothing);
        }
        if arrival.first && !self.own(cur) {
            return send(q, cur, false, false);
        }
        let mut others = q.candidates.iter().flatten().filter(|b| !self.own(b));
        if !arrival.last
            && let Some(next) = others.nth(arrival.hops.into())
        {
            return send(q, next, true, false);
        }
        let own = if self.own(cur) { Some(cur) } else { any_own().filter(|_| arrival.last) };
        match own {
            Some(b) => deliver(q, b.address, b.port, Remember::Flow),
            None => send(q, cur, true, true),
        }
    }

    /// Whether the packet fits the way, and what happens when it does not.
    fn fits(&self, parsed: &Parsed, node: String, hops: u8, last: bool, hash: u32) -> Outcome {
        let Some(route) = self.route(&node) else {
            return match parsed.arrival.first {
                true => Outcome::Pass(Reason::PassUnreachable),
                false => Outcome::Drop(Reason::DropUnreachable),
            };
        };
        let over = if route.destination.is_ipv4() { OVER_V4 } else { OVER_V6 };
        if parsed.length + u32::from(over) <= u32::from(route.mtu) {
            return Outcome::Forward { node, hops, last, hash };
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
        other => other,
    };
    Outcome::Deliver { pod, port, remember }
}

/// To another node: as first node without having been asked (hop 0), or one hop on.
fn send(q: &Question<'_>, to: &Backend, asked: bool, last: bool) -> Outcome {
    let arrival = q.parsed.arrival;
    let hops = if arrival.first && !asked { 0 } else { arrival.hops + 1 };
    if hops > HOPS_MAX {
        return Outcome::Drop(Reason::DropHops);
    }
    Outcome::Forward { node: to.node.clone(), hops, last, hash: q.hash }
}
