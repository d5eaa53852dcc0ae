//! The whole speaker over loopback against a raw TCP sink that speaks just enough BGP: how long from Established
//! until the last of many prefixes is on the wire, how much memory that takes, and how long from a changed set of
//! routes to the UPDATE. Beside each the floor: a plain loop that writes the same octets to the same sink.
//!
//! `cargo bench -p ironcast-bgp --bench speaker`, with numbers of prefixes behind `--` if only those are wanted.
#![allow(missing_docs, clippy::unwrap_used)] // a bench: what fails here may panic

mod memory;
mod sink;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use ironcast_bgp::{
    Asn, Family, RouterId,
    net::Speaker,
    rib::{Attributes, Route, Routes},
    speaker::{Exports, PeerAs, PeerConfig, PeerId, SpeakerConfig},
};
use sink::{Heard, Sink};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ROUNDS: usize = 11;
const CHANGES: u32 = 6_000;

fn main() {
    let asked: Vec<u32> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let wanted = |n: &u32| asked.is_empty() || asked.contains(n);
    println!("Established → last prefix on the wire");
    println!("{:<12}{:>14}{:>14}{:>8}{:>16}", "prefixes", "speaker ms", "floor ms", "ratio", "memory MB");
    for count in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(wanted) {
        converge(count, false);
    }
    for count in [100_000].into_iter().filter(wanted) {
        converge(count, true);
    }
    println!("\none route of a set changed → UPDATE on the wire, µs, the time to change or make the set in it");
    let title = format!("{:>10}{:>10}{:>10}   ", "p50", "p99", "worst");
    println!("{:<12}{:<33}{:<33}{:<33}", "", "  in place", "  anew, after the former set", "  anew, alone");
    println!("{:<12}{title}{title}{title}", "of prefixes");
    for count in [1, 1_000, 10_000, 100_000].into_iter().filter(wanted) {
        change(count);
    }
    println!(
        "\n64 peers × 10,000 prefixes: Established → last prefix of the last peer {:.1} ms",
        many_peers(64, 10_000)
    );
}

fn id(name: &str) -> PeerId {
    PeerId(name.into())
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn prefix(n: u32, v6: bool) -> IpNet {
    let net = match v6 {
        false => IpNet::new(Ipv4Addr::from(0x0A00_0000 + n).into(), 32),
        true => IpNet::new(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(), 128),
    };
    net.unwrap()
}

/// Routes that share their attributes.
fn routes(count: u32, v6: bool) -> Routes {
    let attributes = attributes(0, v6);
    (0..count).map(|n| Route { prefix: prefix(n, v6), attributes: attributes.clone() }).collect()
}

fn attributes(med: u32, v6: bool) -> Arc<Attributes> {
    let next_hop = v6.then(|| "2001:db8:1::1".parse().unwrap());
    Arc::new(Attributes { next_hop, med: Some(med), ..Attributes::default() })
}

fn peer(at: SocketAddr, number: u32) -> PeerConfig {
    let mut peer = PeerConfig::new(at.ip(), asn(64500 + number), PeerAs::Exactly(asn(64999)));
    peer.port = at.port();
    peer.families = [Family::Ipv4Unicast, Family::Ipv6Unicast].into();
    peer
}

/// A speaker on a thread of its own; it ends when the handle does.
fn start() -> Speaker {
    let router_id = RouterId::new([10, 0, 0, 1].into()).unwrap();
    let config = SpeakerConfig { router_id, listen: Vec::new(), restarted: false, dynamic: Vec::new() };
    let (handle, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (speaker, run) = Speaker::start(config, None).unwrap();
            handle.send(speaker).unwrap();
            run.await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn tell(speaker: &Speaker, routes: &[(&str, Routes)]) {
    let exports: Exports = routes.iter().map(|(name, routes)| (id(name), routes.clone())).collect();
    block(speaker.set_exports(exports)).unwrap();
}

fn median(mut values: Vec<Duration>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2].as_secs_f64() * 1e3
}

fn converge(count: u32, v6: bool) {
    let rounds = if count >= 1_000_000 { 3 } else { ROUNDS };
    let (mut ours, mut floor, mut memory) = (Vec::new(), Vec::new(), 0.0f64);
    for _ in 0..rounds {
        let sink = Sink::new();
        let speaker = start();
        std::thread::sleep(Duration::from_millis(5));
        let idle = memory::reset_peak();
        tell(&speaker, &[("sink", routes(count, v6))]);
        block(speaker.set_peers(BTreeMap::from([(id("sink"), peer(sink.address(), 0))]))).unwrap();
        let Heard { took, octets } = sink.hear();
        memory = memory.max(memory::peak().saturating_sub(idle) as f64 / 1e6);
        ours.push(took);
        drop(speaker);
        floor.push(sink::floor(octets));
    }
    let (ours, floor) = (median(ours), median(floor));
    let name = format!("{count}{}", if v6 { " v6" } else { "" });
    println!("{name:<12}{ours:>14.2}{floor:>14.2}{:>8.1}{memory:>16.1}", ours / floor);
}

type Way = fn(&Routes, &[Route], Route) -> Routes;

/// How a caller comes from one set to the next.
const WAYS: [Way; 3] = [
    |former, _, changed| {
        let mut next = former.clone();
        next.insert(changed);
        next
    },
    |former, all, _| Routes::after(former, all.iter().map(|route| (route.prefix, &route.attributes))),
    |_, all, _| all.iter().cloned().collect(),
];

fn change(count: u32) {
    let sink = Sink::new();
    let speaker = start();
    let mut set = routes(count, false);
    let mut all: Vec<Route> =
        set.iter().map(|(prefix, attributes)| Route { prefix, attributes: attributes.clone() }).collect();
    tell(&speaker, &[("sink", set.clone())]);
    block(speaker.set_peers(BTreeMap::from([(id("sink"), peer(sink.address(), 0))]))).unwrap();
    let updates = sink.updates(count);
    let mut took = WAYS.map(|_| Vec::new());
    for n in 0..CHANGES {
        // Not in step with any timer of the speaker's.
        std::thread::sleep(Duration::from_micros(u64::from(n * 37 % 700)));
        let route = &mut all[(n.wrapping_mul(7919) % count) as usize];
        route.attributes = attributes(n + 1, false);
        let route = route.clone();
        let way = n as usize % WAYS.len();
        let start = Instant::now();
        let next = WAYS[way](&set, &all, route);
        block(speaker.set_exports([(id("sink"), next.clone())].into())).unwrap();
        took[way].push(updates.recv().unwrap() - start);
        set = next;
    }
    print!("{count:<12}");
    for mut took in took {
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        print!("{:>10.0}{:>10.0}{:>10.0}   ", at(0.5), at(0.99), at(1.0));
    }
    println!();
}

/// All peers in one update group; each from another loopback address, as no two peers share theirs.
fn many_peers(peers: u8, count: u32) -> f64 {
    let sinks: Vec<Sink> = (0..peers).map(|n| Sink::at([127, 0, 1, n + 1].into())).collect();
    let speaker = start();
    let shared = routes(count, false);
    let names: Vec<String> = (0..peers).map(|n| format!("sink{n}")).collect();
    tell(&speaker, &names.iter().map(|name| (name.as_str(), shared.clone())).collect::<Vec<_>>());
    let start = Instant::now();
    let configs = names.iter().zip(&sinks).map(|(name, sink)| (id(name), peer(sink.address(), 0)));
    block(speaker.set_peers(configs.collect())).unwrap();
    let hearing: Vec<_> = sinks.into_iter().map(|sink| std::thread::spawn(move || sink.hear())).collect();
    hearing.into_iter().for_each(|thread| assert!(thread.join().unwrap().octets > u64::from(count) * 5));
    start.elapsed().as_secs_f64() * 1e3
}
