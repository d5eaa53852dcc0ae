//! Writes where the fuzzers begin: `seeds DIR` makes DIR/TARGET/ for every target, from our own encoders and from
//! messages that broke real routers.

use std::{fs, io, path::Path};

use ironcast_bgp::wire::{
    message::{self, Refresh},
    notification::Notification,
};
use ironcast_bgp::{Family, bfd};
use ironcast_bgp_fuzz::{
    AS_PATH, NEXT_HOP, ORIGIN,
    dialogue::{self, EXTENDED, INTERNAL, OLD, PLAIN, keepalive, open},
};
use libfuzzer_sys as _; // the instrumented code calls it

/// Attributes, well formed and not, one of each kind.
const ATTRIBUTES: &[&[u8]] = &[
    &[],
    &[0x80, 4, 4, 0, 0, 0, 1],
    &[0x40, 5, 4, 0, 0, 0, 100],
    &[0x40, 6, 0],
    &[0xC0, 7, 8, 0, 0, 0xFC, 0x59, 10, 0, 0, 1],
    &[0xC0, 8, 4, 0xFC, 0x59, 0, 1],
    &[0x80, 9, 4, 10, 0, 0, 1],
    &[0x80, 10, 4, 10, 0, 0, 1],
    &[0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20, 1, 0xD, 0xB8],
    &[0x80, 15, 3, 0, 2, 1],
    &[0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xD, 0xB8],
    &[0xC0, 16, 8, 0x40, 4, 0xFC, 0x59, 0x4B, 0, 0, 0],
    &[0xC0, 17, 6, 2, 1, 0, 1, 0, 1],
    &[0xC0, 18, 8, 0, 1, 0, 1, 10, 0, 0, 1],
    &[0xC0, 23, 6, 0, 8, 0, 2, 1, 0],
    &[0xC0, 23, 6, 0, 1, 0xFF, 0xFF, 1, 2],
    &[0x80, 26, 11, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 9],
    &[0xC0, 28, 3, 0xFF, 0xFF, 0xFF],
    &[0xD0, 32, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
    &[0xC0, 35, 4, 0, 0, 0xFC, 0x59],
    &[0xC0, 40, 10, 1, 0, 7, 0, 0, 0, 0, 0, 0, 1],
    &[0xC0, 128, 8, 0, 0, 0xFC, 0x59, 0x40, 1, 1, 0],
    &[0x90, 4, 0],
];

fn updates() -> impl Iterator<Item = Vec<u8>> {
    let body = |attributes: &[&[u8]], prefixes: &[u8]| {
        let list = attributes.concat();
        [&[0, 0, 0, list.len() as u8], &list[..], prefixes].concat()
    };
    let with = ATTRIBUTES.iter().map(move |a| body(&[ORIGIN, AS_PATH, NEXT_HOP, a], &[32, 198, 51, 100, 1, 0, 8, 10]));
    let others = [vec![0; 4], vec![0, 5, 32, 198, 51, 100, 1, 0, 0], vec![0, 9, 0, 0], body(&[&[0x40]], &[])];
    with.chain(others)
}

/// Each attribute as [`ironcast_bgp_fuzz::update_body`] reads it: as it is, one octet shorter and longer, with each
/// flag another, twice.
fn built() -> impl Iterator<Item = Vec<u8>> {
    let plain = ATTRIBUTES.iter().filter(|a| a.len() >= 3 && a[0] & 0x10 == 0);
    plain.flat_map(|attribute| {
        let [flags, code, _, value @ ..] = attribute else { unreachable!("filtered") };
        let of = |flags: u8, value: &[u8]| [&[flags, *code, value.len() as u8], value].concat();
        let shorter = &value[..value.len().saturating_sub(1)];
        let longer = [value, &[0]].concat();
        let flipped = (4..8).map(|bit| of(flags ^ 1 << bit, value));
        let whole = of(*flags, value);
        let others = [of(*flags, shorter), of(*flags, &longer), [&whole[..], &whole].concat(), whole];
        flipped.chain(others).map(|list| [&[0], &list[..]].concat()).collect::<Vec<_>>()
    })
}

fn main() -> io::Result<()> {
    let root = std::env::args().nth(1).expect("the folder for the seeds");
    let put = |target: &str, number: usize, octets: &[u8]| {
        let folder = Path::new(&root).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{number}")), octets)
    };
    let mut stream = Vec::new();
    message::encode_refresh(Refresh::Request(Family::Ipv6Unicast), &mut stream);
    Notification::shutdown(2, "maintenance").hard().encode(&mut stream);
    let streams = [keepalive(), stream, dialogue::message(2, &[0; 4]), open(&PLAIN)];
    for (number, stream) in streams.iter().enumerate() {
        put("message", number, &[&[0], &stream[..]].concat())?;
        put("session", 1000 + number, &[&[4, 255], &stream[..]].concat())?;
        put("session", 2000 + number, &[&[12, 255], &open(&PLAIN)[..], &[255], &stream].concat())?;
    }
    for (number, router) in [PLAIN, EXTENDED, INTERNAL, OLD].iter().enumerate() {
        put("open", number, &open(router)[19..])?;
    }
    put("open", 4, &dialogue::open_with(64601, &[255, 255, 0, 5, 2, 0, 2, 2, 0])[19..])?;
    for (number, body) in updates().enumerate() {
        put("update", number, &[&[0], &body[..]].concat())?;
        put("update", 100 + number, &[&[2], &body[..]].concat())?;
        let said = [&[2, (body.len() >> 4) as u8, body.len() as u8 & 15], &body[..]].concat();
        put("session", number, &[&[0], &said[..], &[4, 0, 0], &said].concat())?;
        put("session", 100 + number, &[&[16], &said[..]].concat())?;
    }
    for (number, built) in built().enumerate() {
        let length = [(built.len() >> 4) as u8, built.len() as u8 & 15];
        put("update", 1000 + number, &[&[0x80], &built[..]].concat())?;
        put("update", 2000 + number, &[&[0x82], &built[..]].concat())?;
        // 0x80 is 2 modulo 7, as an UPDATE's type is.
        put("session", 3000 + number, &[&[0, 0x80][..], &length, &built].concat())?;
    }
    put("advertisement", 0, &[133, 0, 0, 0, 0, 0, 0, 0])?;
    let advertisement = [&[134, 0, 0, 0, 64, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0][..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    put("advertisement", 1, &advertisement)?;
    bfd_seeds(put)
}

fn bfd_seeds(put: impl Fn(&str, usize, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let packet = |state: u8| {
        let mut octets = [0x20, state << 6, 3, 24, 0, 0, 0, 9, 0, 0, 0, 7].to_vec();
        octets.extend_from_slice(&[0, 0, 0xC3, 0x50].repeat(3));
        bfd::Packet::decode(&octets).expect("valid");
        octets
    };
    let mut talk = vec![0; 4];
    for (number, state) in [1, 2, 3, 0].into_iter().enumerate() {
        put("bfd_packet", number, &packet(state))?;
        talk.extend_from_slice(&[&[0], &packet(state)[..], &[160, 1, 0, 0, 0]].concat());
        put("bfd_session", number, &talk)?;
    }
    let signed = [&[0x20, 0x44, 3, 52, 0, 0, 0, 9, 0, 0, 0, 0][..], &[0, 0, 0xC3, 0x50].repeat(3), &[4, 28], &[1; 26]];
    put("bfd_packet", 4, &signed.concat())
}
