//! The RIB without sockets: what a changed set costs until its UPDATE is encoded, what a whole set costs, update
//! groups, packing, and memory. The speaker is driven as a driver drives it: a set goes in, octets come out.
//!
//! Beside it stand what one would write by hand (a sorted list, copied, merged with the one before, and encoded
//! without any rule) and a map as many speakers have it (`BTreeMap`, copied and compared).
//!
//! `cargo bench -p ironcast-bgp --bench rib` prints the tables; `-- --criterion` measures the changes with criterion.
#![allow(missing_docs, clippy::unwrap_used)] // a bench: what fails here may panic

mod live;
mod others;
mod ours;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use ironcast_bgp::rib::{Attributes, Route};

#[global_allocator]
static ALLOCATOR: live::Live = live::Live::new();

const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
const ROUNDS: usize = 101;

pub(crate) fn prefix(n: u32) -> Ipv4Net {
    Ipv4Net::new((0x0A00_0000 + n).into(), 32).unwrap()
}

pub(crate) fn attributes(med: u32) -> Arc<Attributes> {
    Arc::new(Attributes { med: Some(med), ..Attributes::default() })
}

/// Routes that share their attributes.
pub(crate) fn routes(count: u32) -> Vec<Route> {
    let attributes = attributes(0);
    (0..count).map(|n| Route { prefix: prefix(n).into(), attributes: attributes.clone() }).collect()
}

/// One way to keep a set of routes, at work: changes one route each time, and returns the octets to send.
pub(crate) struct Way {
    pub name: &'static str,
    pub change: Box<dyn FnMut(u32) -> usize>,
}

fn ways(count: u32) -> Vec<Way> {
    let list = routes(count);
    vec![others::list(&list), others::map(&list), ours::in_place(&list), ours::anew(&list)]
}

fn main() {
    if std::env::args().any(|a| a == "--criterion") {
        return criterion();
    }
    changes();
    whole();
    groups();
    memory();
}

fn criterion() {
    let mut criterion = criterion::Criterion::default();
    for count in SIZES {
        for mut way in ways(count) {
            let mut n = 0;
            criterion.bench_function(&format!("one of {count} changes/{}", way.name), |b| {
                b.iter(|| {
                    n += 1;
                    (way.change)(n)
                });
            });
        }
    }
    criterion.final_summary();
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e6
}

fn changes() {
    println!("one route of a set changes → its UPDATE is encoded, µs (ratio to the list)");
    let columns: Vec<Vec<(&str, f64)>> = SIZES.map(measure).into();
    print!("{:<24}", "");
    SIZES.iter().for_each(|count| print!("{:>20}", format!("of {count}")));
    println!();
    for row in 0..columns[0].len() {
        print!("{:<24}", columns[0][row].0);
        for column in &columns {
            let (took, floor) = (column[row].1, column[0].1);
            print!("{:>20}", format!("{took:.2} ({:.2})", took / floor));
        }
        println!();
    }
}

/// The ways take turns, so that a machine that slows down slows all of them.
fn measure(count: u32) -> Vec<(&'static str, f64)> {
    let mut ways = ways(count);
    let mut took = vec![Vec::new(); ways.len()];
    let octets: Vec<usize> = ways.iter_mut().map(|way| (way.change)(1)).collect();
    assert!(octets.iter().all(|o| *o == octets[0]), "all say the same: {octets:?}");
    for n in 2..2 + u32::try_from(ROUNDS).unwrap() {
        for (way, took) in ways.iter_mut().zip(&mut took) {
            let start = Instant::now();
            black_box((way.change)(black_box(n)));
            took.push(start.elapsed());
        }
    }
    ways.iter().map(|way| way.name).zip(took.into_iter().map(median)).collect()
}

fn whole() {
    println!("\na whole set → octets for a new peer");
    println!("{:<12}{:>12}{:>12}{:>8}{:>10}{:>14}", "prefixes", "ours µs", "floor µs", "ratio", "UPDATEs", "fewest");
    for count in SIZES {
        let list = routes(count);
        let (mut ours, mut floor, mut updates) = (Vec::new(), Vec::new(), 0);
        for _ in 0..11 {
            let (took, sent) = ours::whole(&list, 1);
            ours.push(took);
            updates = sent[0].updates;
            let start = Instant::now();
            black_box(others::encode_all(black_box(&list)));
            floor.push(start.elapsed());
        }
        let (ours, floor) = (median(ours), median(floor));
        let ratio = ours / floor;
        println!("{count:<12}{ours:>12.1}{floor:>12.1}{ratio:>8.2}{updates:>10}{:>14}", others::fewest(count));
    }
}

fn groups() {
    let (took, sent) = ours::whole(&routes(10_000), 64);
    let mut encoded: Vec<_> = sent.iter().flat_map(|peer| &peer.pieces).collect();
    let pieces = sent[0].pieces.len();
    encoded.sort_unstable();
    encoded.dedup();
    println!(
        "\n64 peers × 10,000 prefixes: {:.2} ms; {} pieces of octets for {} sent: one encoding",
        took.as_secs_f64() * 1e3,
        encoded.len(),
        pieces * 64
    );
    assert_eq!(encoded.len(), pieces, "one encoding for the group");
}

fn memory() {
    println!("\nheap octets for each route: a set, and what a change leaves while the former set lives");
    for count in SIZES {
        let (each, change) = ours::memory(&routes(count));
        println!("{count:<12}{each:>8.1}{change:>12} octets in all");
    }
}
