//! The keyed hashes of `bpf/hash.h`, word for word. Addresses and ports are taken as the little-endian loads of
//! their network bytes, which is what the programs see.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::types::{ADDRESS_BITS_LOG2, ADDRESS_BUCKETS_LOG2, Ip, SERVICE_BUCKETS_LOG2};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a connection is recognised by, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The client's address.
    pub client: IpAddr,
    /// The VIP.
    pub vip: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The VIP's port.
    pub vip_port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

/// Keys of the flow hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKeys(pub [u64; 6]);

impl FlowKeys {
    /// From the secret of the cluster; the same on every node.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut keys = [0; 6];
        for (n, key) in keys.iter_mut().enumerate() {
            let mut input = [0; 40];
            input[..32].copy_from_slice(secret);
            input[32] = n as u8 + 1;
            *key = super::maglev::key(&input) | 1;
        }
        Self(keys)
    }

    /// The hash of a flow: 32 bits, the top ones choose the slot.
    pub fn hash(&self, t: &Tuple, affinity: bool) -> u32 {
        let k = &self.0;
        let ports = if affinity {
            0
        } else {
            u64::from(t.client_port.to_be()) | u64::from(t.vip_port.to_be()) << 16 | u64::from(t.protocol) << 32
        };
        let h = match t.client {
            IpAddr::V4(v4) => {
                let word = u64::from(u32::from_le_bytes(v4.octets()));
                word.wrapping_add(k[3]).wrapping_mul(ports.wrapping_add(k[4]))
            }
            IpAddr::V6(v6) => {
                let w = words(v6.octets()).map(u64::from);
                let pair = |a: usize| w[a].wrapping_add(k[a]).wrapping_mul(w[a + 1].wrapping_add(k[a + 1]));
                pair(0).wrapping_add(pair(2)).wrapping_add(ports.wrapping_add(k[4]).wrapping_mul(k[5]))
            }
        };
        ((h ^ h >> 32).wrapping_mul(GOLDEN) >> 32) as u32
    }

    /// The bucket of `handshakes`, which has so many, for a client's SYNs.
    pub fn handshake_bucket(&self, client: IpAddr, port: u16, buckets: u32) -> u32 {
        let (k, w) = (&self.0, words(Ip::from(client).0).map(u64::from));
        let pair = |a: usize| w[a].wrapping_add(k[a]).wrapping_mul(w[a + 1].wrapping_add(k[a + 1]));
        let ports = u64::from(port.to_be()).wrapping_add(k[4]).wrapping_mul(k[5]);
        let h = pair(0).wrapping_add(pair(2)).wrapping_add(ports);
        let hash = (h ^ h >> 32).wrapping_mul(GOLDEN);
        (((hash >> 32) * u64::from(buckets)) >> 32) as u32
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| octets[4 * i + j])))
}

/// `ports` is 0 for the address itself.
fn hash(ip: Ip, ports: u64, seed: u64) -> u64 {
    let w = words(ip.0).map(u64::from);
    let turned = |bits| seed.rotate_left(bits) | 1;
    let h = match IpAddr::from(ip) {
        IpAddr::V4(_) => (w[3] | ports << 32).wrapping_mul(seed),
        IpAddr::V6(_) => (w[1] << 32 | w[0])
            .wrapping_mul(seed)
            .wrapping_add((w[3] << 32 | w[2]).wrapping_mul(turned(21)))
            .wrapping_add(ports.wrapping_mul(turned(42))),
    };
    (h ^ h >> 32).wrapping_mul(GOLDEN)
}

/// Where a key belongs: its bucket and its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The bucket, without its bank.
    pub bucket: usize,
    /// The fingerprint; odd.
    pub tag: u16,
}

impl Place {
    fn of(hash: u64, buckets_log2: u32) -> Self {
        Self { bucket: (hash >> (64 - buckets_log2)) as usize, tag: (hash >> 32) as u16 | 1 }
    }

    /// Of an address.
    pub fn of_address(ip: Ip, seed: u64) -> Self {
        Self::of(hash(ip, 0, seed), ADDRESS_BUCKETS_LOG2)
    }

    /// Of a port of a VIP.
    pub fn of_service(vip: Ip, ports: u64, seed: u64) -> Self {
        Self::of(hash(vip, ports, seed), SERVICE_BUCKETS_LOG2)
    }
}

/// The bit of an address.
pub fn address_bit(ip: Ip, seed: u64) -> usize {
    (hash(ip, 0, seed) >> (64 - ADDRESS_BITS_LOG2)) as usize
}

/// Protocol and port, as they go into hash and key.
pub fn ports(protocol: u8, port: u16) -> u64 {
    u64::from(protocol) << 16 | u64::from(port.to_be())
}

/// The key of a port of a VIP.
pub fn service_key(vip: u32, v6: bool, ports: u64) -> u64 {
    u64::from(vip) << 32 | u64::from(v6) << 24 | ports
}

/// What nodes are called in the header, never 0: a hash of the name, and where two names have the same, another one
/// for the later of them. Who knows the same nodes calls them the same; who does not differs in those at most that
/// would have been called the same.
pub fn node_ids<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, u16> {
    let sorted: BTreeSet<&str> = names.into_iter().map(String::as_str).collect();
    let mut taken = BTreeSet::from([0]);
    let mut id = |name: &str| {
        let mut hash = super::maglev::key(name.as_bytes());
        while !taken.insert((hash >> 48) as u16) {
            hash = super::maglev::key(&hash.to_le_bytes());
        }
        (hash >> 48) as u16
    };
    sorted.into_iter().map(|name| (name, id(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is called, and address and port of the `n`th client.
    type Pattern = (&'static str, fn(u32) -> (u32, u16));

    /// How many of these have each slot of a table of 1,024.
    fn loads(keys: &FlowKeys, of: &[Tuple], affinity: bool) -> BTreeMap<u32, usize> {
        let mut loads = BTreeMap::new();
        of.iter().for_each(|t| *loads.entry(keys.hash(t, affinity) >> 22).or_default() += 1);
        loads
    }

    fn buckets(keys: &FlowKeys, of: &[Tuple]) -> BTreeMap<u32, usize> {
        let mut loads = BTreeMap::new();
        of.iter().for_each(|t| *loads.entry(keys.handshake_bucket(t.client, t.client_port, 1024)).or_default() += 1);
        loads
    }

    fn clients(v6: bool) -> impl Iterator<Item = Tuple> {
        let vip = if v6 { "2001:db8::10" } else { "192.0.2.10" }.parse().expect("an address");
        (0_u32..).map(move |n| {
            let client = match v6 {
                true => std::net::Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)).into(),
                false => std::net::Ipv4Addr::from(0x0b00_0000 | n).into(),
            };
            Tuple { client, vip, client_port: 1024 + (n % 60_000) as u16, vip_port: 80, protocol: 6 }
        })
    }

    /// As evenly as 4,096 balls in 1,024 boxes: four in each, and hardly ever more than 20.
    fn assert_spread(loads: &BTreeMap<u32, usize>, what: &str) {
        let most = loads.values().max().copied().unwrap_or_default();
        assert!(loads.len() > 900 && most <= 20, "{what}: {} places, {most} in one", loads.len());
    }

    #[test]
    fn sources_chosen_for_one_key_do_not_collide_under_another() {
        let (known, ours) = (FlowKeys::new(&[1; 32]), FlowKeys::new(&[2; 32]));
        for v6 in [false, true] {
            for affinity in [false, true] {
                let slot = |t: &Tuple| known.hash(t, affinity) >> 22 == 77;
                let chosen: Vec<Tuple> = clients(v6).filter(slot).take(4096).collect();
                assert_eq!(loads(&known, &chosen, affinity).len(), 1, "who knows the key can aim");
                assert_spread(&loads(&ours, &chosen, affinity), &format!("slots, v6 {v6}, affinity {affinity}"));
            }
            let bucket = |t: &Tuple| known.handshake_bucket(t.client, t.client_port, 1024) == 77;
            let chosen: Vec<Tuple> = clients(v6).filter(bucket).take(4096).collect();
            assert_eq!(buckets(&known, &chosen).len(), 1);
            assert_spread(&buckets(&ours, &chosen), &format!("handshakes, v6 {v6}"));
        }
    }

    #[test]
    fn no_pattern_of_sources_collides_under_keys_that_nobody_knows() {
        let first = clients(false).next().expect("one");
        let patterns: [Pattern; 4] = [
            ("one address, every port", |n| (0x0b00_0001, n as u16)),
            ("addresses in a row", |n| (0x0b00_0000 | n, 40_000)),
            ("the upper half of the address", |n| (n << 20 | 5, 40_000)),
            ("address and port together", |n| (0x0b00_0000 | n << 8, n as u16)),
        ];
        for secret in 0..50 {
            let keys = FlowKeys::new(&[secret; 32]);
            for (what, make) in patterns {
                let of = |n| {
                    let (address, client_port) = make(n);
                    Tuple { client: std::net::Ipv4Addr::from(address).into(), client_port, ..first }
                };
                let all: Vec<Tuple> = (0..4096).map(of).collect();
                let most = loads(&keys, &all, false).into_values().max().unwrap_or_default();
                assert!(most <= 64, "{what}, secret {secret}: {most} of 4,096 in one of 1,024 slots");
            }
        }
    }

    #[test]
    fn no_two_nodes_are_called_the_same_in_the_header() {
        let names: Vec<String> = (0..8000).map(|n| format!("node-{n}")).collect();
        let all = node_ids(&names);
        assert_eq!(all.values().collect::<BTreeSet<_>>().len(), 8000);
        let fewer = node_ids(&names[..7000]);
        let renamed = fewer.iter().filter(|(name, id)| all[*name] != **id).count();
        assert!(renamed < 700, "{renamed} nodes are called something else after others came");
    }
}
