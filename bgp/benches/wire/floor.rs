//! What one would write by hand for exactly these messages: enough checks to be safe, no reaction to damage beyond
//! giving up, and nothing that another message might need.

use std::hint::black_box;

use super::{Codec, Routes};

pub(crate) fn codec(routes: &Routes) -> Codec<'_> {
    let mut out = Vec::new();
    Codec {
        name: "floor",
        parse: Box::new(|| parse(black_box(&routes.octets)).unwrap()),
        encode: Box::new(move || {
            let length = encode(black_box(routes), &mut out);
            black_box(&out[..length]).len()
        }),
    }
}

fn two(octets: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?])))
}

/// The attributes of the message; what the caller goes on with.
#[derive(Default)]
struct Attributes<'a> {
    origin: Option<u8>,
    path: Option<&'a [u8]>,
    hop4: Option<[u8; 4]>,
    hop6: Option<[u8; 16]>,
    reach: &'a [u8],
}

fn parse(octets: &[u8]) -> Option<u64> {
    let (marker, _) = octets.split_first_chunk::<16>()?;
    if *marker != [0xFF; 16] || two(octets, 16)? != octets.len() || octets.get(18) != Some(&2) {
        return None;
    }
    let withdrawn = two(octets, 19)?;
    let start = 21 + withdrawn + 2;
    let end = start + two(octets, start - 2)?;
    let attributes = parse_attributes(octets.get(start..end)?)?;
    black_box((attributes.origin?, attributes.path?, attributes.hop4, attributes.hop6));
    let v4 = parse_v4(octets.get(end..)?)?;
    Some(v4.wrapping_add(parse_v6(attributes.reach)?))
}

fn parse_attributes(list: &[u8]) -> Option<Attributes<'_>> {
    let mut found = Attributes::default();
    let mut at = 0;
    while at < list.len() {
        let (flags, code) = (*list.get(at)?, *list.get(at + 1)?);
        let (length, start) = match flags & 0x10 {
            0 => (usize::from(*list.get(at + 2)?), at + 3),
            _ => (two(list, at + 2)?, at + 4),
        };
        let value = list.get(start..start + length)?;
        at = start + length;
        match (code, flags & 0xC0) {
            (1, 0x40) => found.origin = value.first().copied().filter(|o| *o < 3),
            (2, 0x40) => found.path = Some(value),
            (3, 0x40) => found.hop4 = Some(value.try_into().ok()?),
            (14, 0x80) => {
                let ([0, 2, 1, 16], rest) = value.split_first_chunk()? else { return None };
                let (hop, rest) = rest.split_first_chunk()?;
                found.hop6 = Some(*hop);
                found.reach = rest.get(1..)?;
            }
            _ => return None,
        }
    }
    Some(found)
}

fn parse_v4(mut rest: &[u8]) -> Option<u64> {
    let mut sum = 0u64;
    while let [length, tail @ ..] = rest {
        let octets = usize::from(*length).div_ceil(8);
        let address = match tail.first_chunk::<4>() {
            Some(whole) => u32::from_be_bytes(*whole),
            None => {
                let mut padded = [0; 4];
                padded[..tail.len()].copy_from_slice(tail);
                u32::from_be_bytes(padded)
            }
        };
        if *length > 32 {
            return None;
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
        sum = sum.wrapping_add(u64::from(address & mask) + u64::from(*length));
        rest = tail.get(octets..)?;
    }
    Some(sum)
}

fn parse_v6(mut rest: &[u8]) -> Option<u64> {
    let mut sum = 0u64;
    while let [length, tail @ ..] = rest {
        let octets = usize::from(*length).div_ceil(8);
        let address = match tail.first_chunk::<16>() {
            Some(whole) => u128::from_be_bytes(*whole),
            None => {
                let mut padded = [0; 16];
                padded[..tail.len()].copy_from_slice(tail);
                u128::from_be_bytes(padded)
            }
        };
        if *length > 128 {
            return None;
        }
        let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
        sum = sum.wrapping_add((address & mask) as u64).wrapping_add(u64::from(*length));
        rest = tail.get(octets..)?;
    }
    Some(sum)
}

/// Header, attributes and prefixes in one pass over a buffer that is large enough.
pub(crate) fn encode(routes: &Routes, out: &mut Vec<u8>) -> usize {
    let v6 = routes.v6.len() * 17;
    out.resize(MAX, 0);
    let path = routes.asn.to_be_bytes();
    let mut at = match v6 {
        0 => {
            out[..23].copy_from_slice(&HEAD);
            out[23..36].copy_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, path[0], path[1], path[2], path[3]]);
            out[36..39].copy_from_slice(&[0x40, 3, 4]);
            out[39..43].copy_from_slice(&routes.hop4.octets());
            out[22] = 20;
            43
        }
        _ => {
            let length = u16::try_from(21 + v6).unwrap().to_be_bytes();
            out[..23].copy_from_slice(&HEAD);
            out[23..31].copy_from_slice(&[0x90, 14, length[0], length[1], 0, 2, 1, 16]);
            out[31..47].copy_from_slice(&routes.hop6.octets());
            out[47] = 0;
            48
        }
    };
    for prefix in &routes.v4 {
        let [a, b, c, d] = prefix.addr().octets();
        out[at..at + 5].copy_from_slice(&[prefix.prefix_len(), a, b, c, d]);
        at += 1 + usize::from(prefix.prefix_len()).div_ceil(8);
    }
    for prefix in &routes.v6 {
        let slot = &mut out[at..at + 17];
        slot[0] = prefix.prefix_len();
        slot[1..].copy_from_slice(&prefix.addr().octets());
        at += 1 + usize::from(prefix.prefix_len()).div_ceil(8);
    }
    if v6 != 0 {
        let tail = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, path[0], path[1], path[2], path[3]];
        out[at..at + 13].copy_from_slice(&tail);
        at += 13;
        let list = u16::try_from(at - 23).unwrap().to_be_bytes();
        out[21..23].copy_from_slice(&list);
    }
    let length = u16::try_from(at).unwrap().to_be_bytes();
    out[16..18].copy_from_slice(&length);
    at
}

const MAX: usize = 4096;

const HEAD: [u8; 23] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0, 0, 0, 0,
];
