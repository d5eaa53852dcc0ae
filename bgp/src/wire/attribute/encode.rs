//! Attributes as they are written. Nothing is collected first: each length is known before its value.

use super::{AS_PATH, EXTENDED, OPTIONAL, ORIGIN, TRANSITIVE};
use crate::{Asn, Origin};

/// Appends flags, code and the length of a value, in one octet or, where needed, two.
fn header(flags: u8, code: u8, length: usize, out: &mut Vec<u8>) {
    let length = u16::try_from(length).expect("attributes are far below 65,535 octets").to_be_bytes();
    match length {
        [0, low] => out.extend_from_slice(&[flags, code, low]),
        [high, low] => out.extend_from_slice(&[flags | EXTENDED, code, high, low]),
    }
}

/// Appends one attribute.
#[inline]
pub fn encode(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    header(flags, code, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends one attribute of four octets: NEXT_HOP, MED, LOCAL_PREF, ONLY_TO_CUSTOMER.
#[inline]
pub fn encode_four(flags: u8, code: u8, [a, b, c, d]: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(&[flags, code, 4, a, b, c, d]);
}

/// Appends one attribute whose value is a list of elements of one size; nothing where there are none, as an empty
/// list is malformed (RFC 7606 §7.8, §7.14, RFC 8092 §5).
pub fn encode_list<const N: usize>(
    flags: u8,
    code: u8,
    elements: impl Iterator<Item = [u8; N]> + Clone,
    out: &mut Vec<u8>,
) {
    let count = elements.clone().count();
    if count > 0 {
        header(flags, code, count * N, out);
        elements.for_each(|element| out.extend_from_slice(&element));
    }
}

/// Appends ORIGIN.
#[inline]
pub fn encode_origin(origin: Origin, out: &mut Vec<u8>) {
    let value = match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    out.extend_from_slice(&[TRANSITIVE, ORIGIN, 1, value]);
}

/// Appends an AS_PATH (or AS4_PATH) of one AS, `count` times, in segments of at most 255 (RFC 4271 §4.3 b).
#[inline]
pub fn encode_as_path(code: u8, asn: Asn, count: usize, four_octet: bool, out: &mut Vec<u8>) {
    if count == 1 && four_octet && code == AS_PATH {
        // What nearly every path of ours is.
        let [a, b, c, d] = asn.value().to_be_bytes();
        return out.extend_from_slice(&[TRANSITIVE, AS_PATH, 6, 2, 1, a, b, c, d]);
    }
    let flags = if code == AS_PATH { TRANSITIVE } else { OPTIONAL | TRANSITIVE };
    let width = if four_octet { 4 } else { 2 };
    header(flags, code, 2 * count.div_ceil(255) + width * count, out);
    let mut left = count;
    while left > 0 {
        let part = left.min(255);
        out.extend_from_slice(&[2, u8::try_from(part).expect("at most 255")]);
        for _ in 0..part {
            match four_octet {
                true => out.extend_from_slice(&asn.value().to_be_bytes()),
                false => out.extend_from_slice(&asn.two_octet().to_be_bytes()),
            }
        }
        left -= part;
    }
}
