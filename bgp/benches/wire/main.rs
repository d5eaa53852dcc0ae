//! Our codec beside a hand-written floor and the codecs of other crates: UPDATEs of one prefix and of as many as
//! fit, both families, parsed and encoded. Every codec visits every prefix that it parses.
//!
//! `cargo bench -p ironcast-bgp --bench wire` prints the table: medians of rounds in which the codecs take turns,
//! as nanoseconds, as a ratio to the floor, and how often the allocator was called. It fails where ours allocates.
//! `-- '1 v6'` prints that column alone, `-- --criterion` measures the same with criterion instead.
#![allow(missing_docs, clippy::unwrap_used)] // a bench: what fails here may panic

mod counting;
mod floor;
mod others;
mod ours;
mod table;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// A route as every codec is given it: eBGP, one AS, a next hop of the prefix's family.
pub(crate) struct Routes {
    pub name: &'static str,
    pub asn: u32,
    pub hop4: Ipv4Addr,
    pub hop6: Ipv6Addr,
    pub v4: Vec<Ipv4Net>,
    pub v6: Vec<Ipv6Net>,
    /// The message, as the floor writes it.
    pub octets: Vec<u8>,
}

/// What of a prefix a codec must have seen.
pub(crate) trait Seen {
    fn seen(self) -> u64;
}

impl Seen for Ipv4Net {
    fn seen(self) -> u64 {
        u64::from(self.addr().to_bits()) + u64::from(self.prefix_len())
    }
}

impl Seen for Ipv6Net {
    fn seen(self) -> u64 {
        (self.addr().to_bits() as u64).wrapping_add(self.prefix_len().into())
    }
}

impl Routes {
    fn new(name: &'static str, v4: u32, v6: u32) -> Self {
        let net4 = |n: u32| Ipv4Net::new((0xC633_6400 + n * 7).into(), 32).unwrap();
        let net6 = |n: u32| Ipv6Net::new((0x2001_0db8_u128 << 96 | u128::from(n * 7)).into(), 128).unwrap();
        let (v4, v6) = ((0..v4).map(net4).collect(), (0..v6).map(net6).collect());
        let (hop4, hop6) = ([10, 0, 1, 2].into(), "2001:db8:1::2".parse().unwrap());
        let mut routes = Self { name, asn: 64601, hop4, hop6, v4, v6, octets: Vec::new() };
        let mut octets = Vec::new();
        let length = floor::encode(&routes, &mut octets);
        octets.truncate(length);
        routes.octets = octets;
        routes
    }

    /// What a codec that saw every prefix has summed up.
    fn seen(&self) -> u64 {
        let v4 = self.v4.iter().map(|p| p.seen());
        v4.chain(self.v6.iter().map(|p| p.seen())).fold(0, u64::wrapping_add)
    }
}

/// One codec at work on one message.
pub(crate) struct Codec<'a> {
    pub name: &'static str,
    /// Parses the message and sums up its prefixes.
    pub parse: Box<dyn FnMut() -> u64 + 'a>,
    /// Encodes the message and returns how long it is.
    pub encode: Box<dyn FnMut() -> usize + 'a>,
}

fn codecs(routes: &Routes) -> Vec<Codec<'_>> {
    let mut codecs = vec![floor::codec(routes), ours::codec(routes)];
    codecs.extend(others::codecs(routes));
    for codec in &mut codecs {
        assert_eq!((codec.parse)(), routes.seen(), "{} parses {}", codec.name, routes.name);
        let length = (codec.encode)();
        assert!(length.abs_diff(routes.octets.len()) <= 16, "{} encodes {}: {length} octets", codec.name, routes.name);
    }
    codecs
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let columns: Vec<Routes> = [("1 v4", 1, 0), ("800 v4", 800, 0), ("1 v6", 0, 1), ("230 v6", 0, 230)]
        .into_iter()
        .filter(|(name, ..)| asked.is_empty() || asked.iter().any(|a| a == name))
        .map(|(name, v4, v6)| Routes::new(name, v4, v6))
        .collect();
    match std::env::args().any(|a| a == "--criterion") {
        true => criterion(&columns),
        false => table::print(&columns),
    }
}

fn criterion(columns: &[Routes]) {
    let mut criterion = criterion::Criterion::default();
    for routes in columns {
        for mut codec in codecs(routes) {
            criterion.bench_function(&format!("parse {}/{}", routes.name, codec.name), |b| b.iter(&mut codec.parse));
            criterion.bench_function(&format!("encode {}/{}", routes.name, codec.name), |b| b.iter(&mut codec.encode));
        }
    }
    criterion.final_summary();
}
