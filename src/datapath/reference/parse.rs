//! From a frame to what is asked of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Outcome;
use crate::{
    datapath::{
        hash::Tuple,
        spec::{Frontend, Spec},
        types::{FLAG_ANSWER, FLAG_FINAL, FLAG_PROBE, FLAG_RING, HOPS_MAX, PORT, Reason, VERSION},
    },
    types::Protocol,
};

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival {
    /// As it is: this is the first node.
    pub first: bool,
    /// Hops in its header, else 0.
    pub hops: u8,
    /// Marked final.
    pub last: bool,
    /// Goes round all nodes of the Service.
    pub ring: bool,
    /// The nodes that were asked, the last one first ([`crate::datapath::hash::node_ids`]); 0 is none. On the ring:
    /// where it began, and how many more it may ask.
    pub asked: [u16; 3],
}

/// A packet to a Service of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// How it came.
    pub arrival: Arrival,
    /// Its flow; for an ICMP error that of the packet that it is about.
    pub tuple: Tuple,
    /// Bytes of the IP packet.
    pub length: u32,
    /// May not be fragmented.
    pub whole: bool,
    /// A SYN without ACK.
    pub fresh: bool,
    /// A FIN or RST.
    pub ends: bool,
    /// An ICMP error.
    pub error: bool,
}

type Judged<T> = Result<T, Outcome>;

fn dropped<T>(reason: Reason) -> Judged<T> {
    Err(Outcome::Drop(reason))
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

fn v4(b: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(b.get(at..at + 4)?).ok()?).into())
}

fn v6(b: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(b.get(at..at + 16)?).ok()?).into())
}

/// A frame as far as the packet path looks: a packet for a Service of ours, or what becomes of it.
pub fn parse(spec: &Spec, frame: &[u8]) -> Judged<Parsed> {
    let Some((six, ip)) = ethernet(frame) else { return Err(Outcome::Foreign) };
    let header = if six { 40 } else { 20 };
    if ip.len() < header {
        return Err(Outcome::Foreign);
    }
    let first = Arrival { first: true, ..Arrival::default() };
    let to = if six { v6(ip, 24) } else { v4(ip, 16) }.expect("the header is there");
    if spec.addresses.contains(&to) {
        return packet(spec, six, ip, first);
    }
    if !is_tunnel(spec, six, ip, to) {
        return Err(Outcome::Foreign);
    }
    let from = if six { v6(ip, 8) } else { v4(ip, 12) }.expect("the header is there");
    let known = |(name, n): (&String, &crate::datapath::spec::Node)| *name != spec.node && n.addresses.contains(&from);
    if !spec.nodes.iter().any(known) {
        return dropped(Reason::DropSpoofed);
    }
    tunnelled(spec, be16(ip, header + 4).unwrap_or_default(), &ip[header + 8..])
}

/// Behind Ethernet and its tags; `None` for what is not IP.
fn ethernet(frame: &[u8]) -> Option<(bool, &[u8])> {
    let mut at = 12;
    let mut kind = be16(frame, at)?;
    if kind == 0x8100 || kind == 0x88a8 {
        at += 4;
        kind = be16(frame, at)?;
        if kind == 0x8100 {
            at += 4;
            kind = be16(frame, at)?;
        }
    }
    match kind {
        0x0800 => Some((false, &frame[at + 2..])),
        0x86dd => Some((true, &frame[at + 2..])),
        _ => None,
    }
}

fn is_tunnel(spec: &Spec, six: bool, ip: &[u8], to: IpAddr) -> bool {
    let own = spec.nodes.get(&spec.node).is_some_and(|n| n.addresses.contains(&to));
    let udp =
        if six { ip[6] == 17 } else { ip[9] == 17 && ip[0] == 0x45 && be16(ip, 6).is_some_and(|f| f & 0x3fff == 0) };
    let at = if six { 40 } else { 20 };
    own && udp && ip.len() >= at + 8 && be16(ip, at + 2) == Some(PORT)
}

/// Our header and what follows it.
fn tunnelled(spec: &Spec, udp_length: u16, bytes: &[u8]) -> Judged<Parsed> {
    let Some((header, inner)) = bytes.split_at_checked(8) else { return dropped(Reason::DropMalformed) };
    let (hops, flags) = (header[1] & 15, header[1] >> 4);
    match flags {
        _ if header[0] != VERSION => return dropped(Reason::DropHeader),
        0 | FLAG_FINAL | FLAG_RING if hops > HOPS_MAX => return dropped(Reason::DropHops),
        0 | FLAG_FINAL | FLAG_RING => {}
        FLAG_PROBE if udp_length == 16 => return Err(Outcome::Probe),
        FLAG_PROBE => return dropped(Reason::DropMalformed),
        FLAG_ANSWER => return Err(Outcome::Foreign),
        _ => return dropped(Reason::DropHeader),
    }
    if inner.len() < 20 {
        return dropped(Reason::DropMalformed);
    }
    let six = inner[0] >> 4 == 6;
    let asked = [2, 4, 6].map(|at| u16::from_le_bytes([header[at], header[at + 1]]));
    let arrival = Arrival { first: false, hops, last: flags == FLAG_FINAL, ring: flags == FLAG_RING, asked };
    match packet(spec, six, inner, arrival) {
        Err(Outcome::Pass(reason)) => dropped(reason),
        judged => judged,
    }
}

/// An IP packet that should be for a VIP.
fn packet(spec: &Spec, six: bool, ip: &[u8], arrival: Arrival) -> Judged<Parsed> {
    let (mut parsed, protocol, at) = if six { header_v6(ip, arrival)? } else { header_v4(ip, arrival)? };
    if !spec.addresses.contains(&parsed.tuple.vip) {
        return dropped(Reason::DropSpoofed);
    }
    match protocol {
        6 => tcp(ip, at, &mut parsed)?,
        17 => udp(ip, at, &mut parsed)?,
        1 if !six => icmp(ip, at, false, &mut parsed)?,
        58 if six => icmp(ip, at, true, &mut parsed)?,
        132 if arrival.first => return sctp(spec, ip, at, &parsed),
        _ => return dropped(Reason::DropProtocol),
    }
    Ok(parsed)
}

fn begin(arrival: Arrival, client: IpAddr, vip: IpAddr, length: u32, whole: bool) -> Parsed {
    let tuple = Tuple { client, vip, client_port: 0, vip_port: 0, protocol: 0 };
    Parsed { arrival, tuple, length, whole, fresh: false, ends: false, error: false }
}

fn header_v4(ip: &[u8], arrival: Arrival) -> Judged<(Parsed, u8, usize)> {
    let field = |at| be16(ip, at).expect("the header is there");
    let (from, to) = (v4(ip, 12).expect("the header is there"), v4(ip, 16).expect("the header is there"));
    if ip[0] >> 4 != 4 || ip[0] & 15 < 5 || field(2) < 20 || from == to {
        return dropped(Reason::DropMalformed);
    }
    if field(6) & 0x3fff != 0 {
        return Err(Outcome::Pass(Reason::PassFragment));
    }
    if ip[0] != 0x45 {
        return Err(Outcome::Pass(Reason::PassOptions));
    }
    Ok((begin(arrival, from, to, field(2).into(), field(6) & 0x4000 != 0), ip[9], 20))
}

fn header_v6(ip: &[u8], arrival: Arrival) -> Judged<(Parsed, u8, usize)> {
    let (Some(from), Some(to)) = (v6(ip, 8), v6(ip, 24)) else { return dropped(Reason::DropMalformed) };
    if ip[0] >> 4 != 6 || from == to {
        return dropped(Reason::DropMalformed);
    }
    let length = u32::from(be16(ip, 4).expect("the header is there")) + 40;
    let (mut next, mut at) = (ip[6], 40);
    for _ in 0..=4 {
        match next {
            44 => return Err(Outcome::Pass(Reason::PassFragment)),
            0 | 43 | 60 => {
                let Some(extension) = ip.get(at..at + 8) else { return dropped(Reason::DropMalformed) };
                next = extension[0];
                at += 8 + usize::from(extension[1]) * 8;
                if at > 512 {
                    break;
                }
            }
            _ => return Ok((begin(arrival, from, to, length, true), next, at)),
        }
    }
    dropped(Reason::DropExtensions)
}

fn tcp(ip: &[u8], at: usize, parsed: &mut Parsed) -> Judged<()> {
    let Some(tcp) = ip.get(at..at + 20) else { return dropped(Reason::DropMalformed) };
    if at as u32 + 20 > parsed.length || tcp[12] >> 4 < 5 {
        return dropped(Reason::DropMalformed);
    }
    parsed.fresh = tcp[13] & 0x12 == 0x02;
    parsed.ends = !parsed.fresh && tcp[13] & 0x05 != 0;
    ports(tcp, 6, parsed, false);
    Ok(())
}

fn udp(ip: &[u8], at: usize, parsed: &mut Parsed) -> Judged<()> {
    let Some(udp) = ip.get(at..at + 8) else { return dropped(Reason::DropMalformed) };
    if at as u32 + 8 > parsed.length || be16(udp, 4).is_none_or(|l| l < 8) {
        return dropped(Reason::DropMalformed);
    }
    ports(udp, 17, parsed, false);
    Ok(())
}

fn ports(l4: &[u8], protocol: u8, parsed: &mut Parsed, ours: bool) {
    let (from, to) = (be16(l4, 0).unwrap_or(0), be16(l4, 2).unwrap_or(0));
    let (client_port, vip_port) = if ours { (to, from) } else { (from, to) };
    parsed.tuple = Tuple { client_port, vip_port, protocol, ..parsed.tuple };
}

/// Echo, or an error about a packet of ours: then that packet's flow.
fn icmp(ip: &[u8], at: usize, six: bool, parsed: &mut Parsed) -> Judged<()> {
    let Some(icmp) = ip.get(at..at + 8) else { return dropped(Reason::DropMalformed) };
    match (six, icmp[0]) {
        (false, 8) | (true, 128) => {
            let first = parsed.arrival.first;
            return Err(if first { Outcome::Echo } else { Outcome::Drop(Reason::DropIcmp) });
        }
        (false, 3 | 11 | 12) | (true, 1..=4) => {}
        _ => return dropped(Reason::DropIcmp),
    }
    let about = &ip[at + 8..];
    let header = if six { 40 } else { 20 };
    if about.len() < header {
        return dropped(Reason::DropMalformed);
    }
    let length = if six { 40 } else { usize::from(about[0] & 15) * 4 };
    if about[0] >> 4 != if six { 6 } else { 4 } || length < header {
        return dropped(Reason::DropMalformed);
    }
    let (from, to) = if six { (v6(about, 8), v6(about, 24)) } else { (v4(about, 12), v4(about, 16)) };
    let fragment = !six && be16(about, 6).is_some_and(|f| f & 0x1fff != 0);
    if from != Some(parsed.tuple.vip) || fragment {
        return dropped(Reason::DropIcmp);
    }
    let Some(l4) = about.get(length..length + 8) else { return dropped(Reason::DropMalformed) };
    let protocol = if six { about[6] } else { about[9] };
    if protocol != 6 && protocol != 17 {
        return dropped(Reason::DropIcmp);
    }
    parsed.error = true;
    parsed.tuple.client = to.expect("the header is there");
    ports(l4, protocol, parsed, true);
    Ok(())
}

fn sctp(spec: &Spec, ip: &[u8], at: usize, parsed: &Parsed) -> Judged<Parsed> {
    let Some(port) = ip.get(at..at + 4).and_then(|l4| be16(l4, 2)) else { return dropped(Reason::DropMalformed) };
    let front = Frontend { address: parsed.tuple.vip, protocol: Protocol::Sctp, port };
    if spec.ports.contains_key(&front) {
        Err(Outcome::Pass(Reason::PassProtocol))
    } else {
        dropped(Reason::DropProtocol)
    }
}
