//! What ours is measured beside.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::Ipv4Net;
use ironcast_bgp::rib::{Attributes, Route};

use super::{Way, attributes, prefix};

/// Octets before the prefixes of an UPDATE of ours: header, ORIGIN, AS_PATH of one AS, NEXT_HOP, MED.
const HEAD: usize = 23 + 4 + 9 + 7 + 7;
/// Host prefixes that fit into one.
const FULL: usize = (4096 - HEAD) / 5;

type Entry = (Ipv4Net, Arc<Attributes>);

fn entries(list: &[Route]) -> Vec<Entry> {
    let v4 = |n| prefix(u32::try_from(n).unwrap());
    list.iter().enumerate().map(|(n, route)| (v4(n), route.attributes.clone())).collect()
}

fn encode(prefixes: &[Ipv4Net], med: u32, out: &mut Vec<u8>) {
    for part in prefixes.chunks(FULL) {
        let start = out.len();
        out.extend_from_slice(&[0xFF; HEAD]);
        let length = u16::try_from(HEAD + part.len() * 5).unwrap().to_be_bytes();
        out[start + 16..start + 23].copy_from_slice(&[length[0], length[1], 2, 0, 0, 0, 27]);
        out[start + 23..start + 36].copy_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFB, 0xF4]);
        out[start + 36..start + 43].copy_from_slice(&[0x40, 3, 4, 10, 0, 0, 1]);
        out[start + 43..start + 46].copy_from_slice(&[0x80, 4, 4]);
        out[start + 46..start + 50].copy_from_slice(&med.to_be_bytes());
        for prefix in part {
            let [a, b, c, d] = prefix.addr().octets();
            out.extend_from_slice(&[prefix.prefix_len(), a, b, c, d]);
        }
    }
}

/// A whole set, written without a look at anything but the prefixes.
pub(crate) fn encode_all(list: &[Route]) -> Vec<u8> {
    let prefixes: Vec<Ipv4Net> = (0..u32::try_from(list.len()).unwrap()).map(prefix).collect();
    let mut out = Vec::new();
    encode(&prefixes, 0, &mut out);
    out
}

/// UPDATEs that so many prefixes need, with the End-of-RIB of two families.
pub(crate) fn fewest(count: u32) -> usize {
    (count as usize).div_ceil(FULL) + 2
}

fn changed<'a>(
    old: impl Iterator<Item = (&'a Ipv4Net, &'a Arc<Attributes>)>,
    new: impl Iterator<Item = (&'a Ipv4Net, &'a Arc<Attributes>)>,
) -> usize {
    let mut out = Vec::new();
    for ((_, before), (prefix, now)) in old.zip(new) {
        if !Arc::ptr_eq(before, now) {
            encode(&[*prefix], now.med.unwrap(), &mut out);
        }
    }
    out.len()
}

/// A sorted list, copied for each change.
pub(crate) fn list(list: &[Route]) -> Way {
    let mut set = entries(list);
    let change = move |n: u32| {
        let mut next = set.clone();
        let at = n.wrapping_mul(7919) as usize % next.len();
        next[at].1 = attributes(n);
        let octets = changed(set.iter().map(|(p, a)| (p, a)), next.iter().map(|(p, a)| (p, a)));
        set = next;
        octets
    };
    Way { name: "sorted list", change: Box::new(change) }
}

/// A map, copied for each change.
pub(crate) fn map(list: &[Route]) -> Way {
    let mut set: BTreeMap<Ipv4Net, Arc<Attributes>> = entries(list).into_iter().collect();
    let change = move |n: u32| {
        let mut next = set.clone();
        let at = n.wrapping_mul(7919) % u32::try_from(next.len()).unwrap();
        next.insert(prefix(at), attributes(n));
        let octets = changed(set.iter(), next.iter());
        set = next;
        octets
    };
    Way { name: "BTreeMap", change: Box::new(change) }
}
