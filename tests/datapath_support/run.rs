//! Frames through the loaded programs.

use std::net::IpAddr;

use ironcast::datapath::{
    hash::{FlowKeys, Tuple, node_ids},
    kernel::{Answer, Datapath, Hook, Options},
    spec::Spec,
    types::Reason,
};

use super::*;

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const PORT: u16 = 40_000;

/// The loaded programs; `None` for an ordinary user, who may not load any.
pub fn loaded(spec: &Spec) -> Option<Datapath> {
    loaded_at(Hook::Xdp, spec)
}

/// The same for a hook; with the programs of `bypass` where the spec asks for it.
pub fn loaded_at(hook: Hook, spec: &Spec) -> Option<Datapath> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: loading programs needs root");
        return None;
    }
    let options = Options {
        hook,
        slots: 1 << 16,
        backends: 1 << 10,
        flows: 1 << 14,
        syns: 1 << 14,
        services: 64,
        bypass: spec.bypass.is_some(),
        ..Options::default()
    };
    let mut datapath = Datapath::load(options).expect("the programs load");
    datapath.apply(spec).expect("the tables fit");
    Some(datapath)
}

pub fn ask(datapath: &Datapath, frame: &[u8]) -> Answer {
    datapath.ask(frame, 1).expect("the program runs")
}

pub fn count(datapath: &Datapath, reason: Reason) -> u64 {
    datapath.reasons().expect("readable")[&reason]
}

/// The frame gives this verdict and is counted under this reason.
pub fn expect(datapath: &Datapath, frame: &[u8], verdict: u32, reason: Reason) -> Answer {
    let before = count(datapath, reason);
    let answer = ask(datapath, frame);
    assert_eq!(answer.verdict, verdict, "{reason:?}: {frame:02x?}");
    assert_eq!(count(datapath, reason), before + 1, "{reason:?} counted: {frame:02x?}");
    answer
}

pub fn hash(spec: &Spec, client: IpAddr, vip: IpAddr, port: u16, protocol: u8) -> u32 {
    let tuple = Tuple { client, vip, client_port: PORT, vip_port: port, protocol };
    FlowKeys::new(&spec.secret).hash(&tuple, port == 87)
}

/// A packet as the first node sends it to another.
pub fn outer(inner: &Packet, node: u8, header: [u8; 8], hash: u32) -> Vec<u8> {
    let (from, to) = if node == 3 { (ip("fd00::1"), ip("fd00::3")) } else { (ip("10.0.0.1"), ip("10.0.0.2")) };
    let mut packet = inner.encapsulated(from, to, header);
    packet.payload[..2].copy_from_slice(&(0xc000 | (hash & 0x3fff) as u16).to_be_bytes());
    packet.tos = inner.tos & 0xfc;
    packet.frame_between(NEXT_MAC, OWN_MAC)
}

/// A reply of a pod through the program at egress.
pub fn reply(datapath: &Datapath, packet: &Packet) -> Answer {
    datapath.ask_reply(&packet.frame_between(ROUTER_MAC, OWN_MAC), 1).expect("the program runs")
}

/// A client's segment to a port of the VIP.
pub fn segment(v6: bool, port: u16, flags: u8) -> Packet {
    let (client, vip) = ends(v6);
    Packet::tcp((client, PORT), (vip, port), flags, b"")
}

/// The same as another node sends it here, after nobody was asked.
pub fn sent_on(packet: &Packet, hops: u8, last: bool) -> Packet {
    sent_after(packet, hops, last, &[])
}

/// The same after these nodes were asked, the last one first.
pub fn sent_after(packet: &Packet, hops: u8, last: bool, asked: &[&str]) -> Packet {
    packet.encapsulated(ip("10.0.0.2"), ip("10.0.0.1"), tunnel(hops, last, ids(asked)))
}

/// What these nodes are called in the header.
pub fn ids(asked: &[&str]) -> [u16; 3] {
    let names: Vec<String> = ["n1", "n2", "n3", "n7", "n8", "n9"].map(String::from).into();
    let all = node_ids(&names);
    let mut ids = [0; 3];
    for (id, node) in ids.iter_mut().zip(asked) {
        *id = all[node];
    }
    ids
}
