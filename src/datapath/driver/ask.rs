//! Answers questions: the real program runs on a made-up frame, and the reference says what it expects of it.

use std::net::{IpAddr, SocketAddr};

use super::owner::Owner;
use crate::datapath::{
    hash::Tuple,
    kernel::{Answer, Datapath, DatapathError, Side},
    query::{CandidateAnswer, FlowAnswer, FlowList, L4, PacketAnswer, Query, Question},
    reference::{Memory, Outcome, Reference},
    spec::Spec,
    types::{Flow, FlowKey, Handshake, PORT, VERSION},
};

mod frame;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

impl Owner {
    /// Answers; whoever asked may be gone.
    pub(super) fn answer(&self, query: Query) {
        match query {
            Query::Packet(question, to) => drop(to.send(self.explain(&question))),
            Query::Flows(limit, to) => drop(to.send(self.flows(limit))),
        }
    }

    /// Where the packet would go, if this node were the first to get it.
    fn explain(&self, question: &Question) -> Result<PacketAnswer, String> {
        if question.from.is_ipv4() != question.to.is_ipv4() {
            return Err("client and Service must have addresses of the same family".into());
        }
        let (datapath, spec) = self.running().ok_or("the packet path is not loaded")?;
        answer(datapath, spec, question).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }

    /// Some of the connections that are remembered.
    fn flows(&self, limit: usize) -> Result<FlowList, String> {
        let (datapath, _) = self.running().ok_or("the packet path is not loaded")?;
        let mut list = flows(datapath, limit).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        let counted = self.count().unwrap_or_default();
        list.packets = counted.reasons.iter().filter(|(_, n)| **n > 0).map(|(r, n)| (r.word().into(), *n)).collect();
        list.services = counted.services.into_iter().map(|(key, n)| (key.to_string(), n.into())).collect();
        Ok(list)
    }
}

fn answer(datapath: &Datapath, spec: &Spec, question: &Question) -> Result<PacketAnswer, DatapathError> {
    let tuple = tuple(question);
    let frame = frame::of(question);
    let (memory, remembered) = memory(datapath, &tuple)?;
    let front = spec.ports.iter().find(|(front, _)| {
        front.address == tuple.vip
            && front.port == tuple.vip_port
            && crate::datapath::image::protocol_number(front.protocol) == tuple.protocol
    });
    let reference = Reference::for_table(spec, front.map(|(_, target)| &target.table));
    let expected = reference.judge(&frame, &memory);
    let seen = datapath.ask_in_vain(&frame)?;
    let program = said(&seen, &frame, spec);
    let candidates = front.map(|(front, _)| reference.candidates(&tuple, front.protocol)).unwrap_or_default();
    let candidate = |b: &crate::datapath::spec::Backend| CandidateAnswer {
        pod: SocketAddr::new(b.address, b.port),
        node: b.node.clone(),
    };
    Ok(PacketAnswer {
        node: spec.node.clone(),
        service: front.map(|(_, target)| target.service.to_string()),
        reference: words(&expected),
        agree: program == words(&expected),
        program,
        reason: match &expected {
            Outcome::Drop(reason) | Outcome::Pass(reason) => Some(reason.word().into()),
            _ => None,
        },
        candidates: candidates.iter().flatten().map(|b| candidate(b)).collect(),
        remembered,
    })
}

fn tuple(q: &Question) -> Tuple {
    Tuple {
        client: q.from.ip(),
        vip: q.to.ip(),
        client_port: q.from.port(),
        vip_port: q.to.port(),
        protocol: q.protocol.number(),
    }
}

/// What this node remembers of the flow, for the reference and for people.
fn memory(datapath: &Datapath, tuple: &Tuple) -> Result<(Memory, Option<String>), DatapathError> {
    let mut memory = Memory::default();
    let mut words = None;
    let by_vip = FlowKey::by_vip(tuple);
    if let Some(handshake) = datapath.handshake(tuple)? {
        let pod = end(handshake.pod.into(), handshake.pod_port);
        memory.begin(tuple, pod.ip(), pod.port());
        words = Some(format!("{pod}, handshake"));
    }
    if let Some(flow) = datapath.flow(Side::Vip, &by_vip)? {
        let pod = end(flow.ip.into(), flow.port);
        memory.flows.insert(*tuple, (pod.ip(), pod.port(), flow.closing != 0));
        words = Some(format!("{pod}, {}", if flow.closing != 0 { "closing" } else { "established" }));
    }
    Ok((memory, words))
}

fn end(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, u16::from_be(port))
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Foreign | Outcome::Pass(_) => "leaves it to the kernel as it is".into(),
        Outcome::Drop(_) => "drops it".into(),
        Outcome::Echo | Outcome::Probe => "answers it".into(),
        Outcome::TooBig { mtu } => format!("answers that at most {mtu} bytes fit"),
        Outcome::Deliver { pod, port, .. } => format!("delivers it to {}", SocketAddr::new(*pod, *port)),
        Outcome::Forward { node, onward, .. } => format!("sends it to {node}, hop {}", onward.hops),
    }
}

/// What the program did, read from its verdict and the frame that left.
fn said(seen: &Answer, asked: &[u8], spec: &Spec) -> String {
    let left = frame::Seen::new(&seen.frame);
    match (seen.verdict, left) {
        (XDP_DROP, _) => "drops it".into(),
        (XDP_PASS, _) if seen.frame == asked => "leaves it to the kernel as it is".into(),
        (XDP_PASS, Some(left)) => format!("delivers it to {}", left.to),
        (_, Some(left)) if left.to.port() == PORT && left.tunnel.is_some_and(|t| t[0] == VERSION) => {
            let node = spec.nodes.iter().find(|(_, node)| node.addresses.contains(&left.to.ip()));
            let node = node.map_or_else(|| left.to.ip().to_string(), |(name, _)| name.clone());
            format!("sends it to {node}, hop {}", left.tunnel.map_or(0, |t| t[1] & 15))
        }
        (verdict, _) => format!("ends with verdict {verdict}"),
    }
}

fn flows(datapath: &Datapath, limit: usize) -> Result<FlowList, DatapathError> {
    let mut list = FlowList::default();
    let (found, more) = datapath.some_flows(Side::Vip, limit)?;
    list.flows.extend(found.iter().map(|(key, flow)| flow_answer(key, flow)));
    let handshakes = datapath.handshakes()?;
    let left = limit - list.flows.len();
    list.more = more || handshakes.len() > left;
    list.flows.extend(handshakes.iter().take(left).map(handshake_answer));
    list.flows.sort();
    Ok(list)
}

fn handshake_answer(h: &Handshake) -> FlowAnswer {
    FlowAnswer {
        vip: end(h.vip.into(), h.vip_port),
        protocol: L4::Tcp.word().into(),
        client: end(h.client.into(), h.client_port),
        pod: end(h.pod.into(), h.pod_port),
        state: "handshake".into(),
    }
}

fn flow_answer(key: &FlowKey, flow: &Flow) -> FlowAnswer {
    let state = if flow.closing != 0 { "closing" } else { "established" };
    FlowAnswer {
        vip: end(key.other.into(), key.other_port),
        protocol: if key.protocol == L4::Tcp.number() { L4::Tcp } else { L4::Udp }.word().into(),
        client: end(key.client.into(), key.client_port),
        pod: end(flow.ip.into(), flow.port),
        state: state.into(),
    }
}
