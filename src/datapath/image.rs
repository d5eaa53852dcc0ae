//! One bank of the tables, as it stands in the kernel: pure, from a [`Spec`] and the places of its tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

use super::{
    hash::{FlowKeys, Place, address_bit, node_ids, ports, service_key},
    spec::{Backend, Route, Spec, TableId},
    types::{self, ADDRESS_BUCKETS_LOG2, ADDRESSES, Address, Bucket, Ip, SERVICE_BUCKETS_LOG2, SERVICES, WAYS},
};
use crate::types::{Protocol, ServiceKey};

/// Why a [`Spec`] cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// More than the kernel's arrays hold.
    #[error("{what}: {wanted} are more than the {room} that the packet path has room for")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        wanted: usize,
        /// How many there may be.
        room: usize,
    },
    /// A port names a table that is not there.
    #[error("service {service}: table {table} is missing")]
    NoTable {
        /// The Service.
        service: ServiceKey,
        /// The table.
        table: TableId,
    },
    /// No seed spreads the keys so that every bucket is large enough.
    #[error("no seed places the {what} without overflow")]
    NoSeed {
        /// Which keys.
        what: &'static str,
    },
}

/// Where a table stands in the kernel's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Its first slot.
    pub slots: u32,
    /// log₂ of the number of its slots.
    pub log2: u8,
    /// Its first backend.
    pub backends: u32,
    /// Of these, one on the next node of its ring; 0 is none.
    pub ring: u16,
    /// It has a history, and more nodes than a slot names.
    pub deep: bool,
}

/// Numbers by name that stay as long as the name does.
#[derive(Debug, Clone)]
pub struct Numbers<K> {
    numbers: BTreeMap<K, u32>,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Numbers<K> {
    /// Keeps the numbers of those that are still there, and numbers the new ones from `first` on.
    pub fn keep<'a>(&mut self, names: impl Iterator<Item = &'a K>, first: u32)
    where
        K: 'a,
    {
        let names: BTreeSet<K> = names.cloned().collect();
        self.numbers.retain(|k, _| names.contains(k));
        let taken: BTreeSet<u32> = self.numbers.values().copied().collect();
        let mut free = (first..).filter(|n| !taken.contains(n));
        for name in names {
            self.numbers.entry(name).or_insert_with(|| free.next().expect("numbers do not end"));
        }
    }

    /// All names with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.numbers.iter().map(|(k, n)| (k, *n))
    }

    /// The number of a name.
    pub fn of(&self, name: &K) -> Option<u32> {
        self.numbers.get(name).copied()
    }
}

/// What nodes are called: in our own tables, and in the header.
#[derive(Debug)]
pub struct Nodes<'a> {
    numbers: &'a Numbers<String>,
    ids: BTreeMap<&'a str, u16>,
}

impl<'a> Nodes<'a> {
    /// Those of this spec, with these numbers (from 1; the own node has none).
    pub fn new(spec: &'a Spec, numbers: &'a Numbers<String>) -> Self {
        Self { numbers, ids: node_ids(spec.nodes.keys()) }
    }

    fn id(&self, name: &str) -> u32 {
        self.ids.get(name).copied().unwrap_or(0).into()
    }
}

/// The content of a bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Of the address table and the service table; odd.
    pub seed: u64,
    /// Which addresses may be known.
    pub address_bits: Vec<u64>,
    /// Entries of VIPs; they are the first.
    pub vips: u32,
    /// Its buckets.
    pub address_buckets: Vec<Bucket>,
    /// Its entries.
    pub addresses: Vec<Address>,
    /// Its buckets.
    pub service_buckets: Vec<Bucket>,
    /// Its entries.
    pub services: Vec<types::Service>,
    /// Nodes by number.
    pub nodes: Vec<types::Node>,
    /// What this node is called in the header.
    pub id: u32,
    /// Keys of the flow hash.
    pub flow_keys: FlowKeys,
    /// Clamp on IPv4.
    pub mss4: u16,
    /// Clamp on IPv6.
    pub mss6: u16,
    /// `CONFIG_*`.
    pub flags: u32,
    /// Interfaces that replies leave by under `bypass`.
    pub way_back: [u32; types::WAYS_BACK],
}

/// Lays a bank out. `services` numbers the Services.
pub fn image(
    spec: &Spec,
    places: &BTreeMap<TableId, Placement>,
    nodes: &Nodes<'_>,
    services: &Numbers<ServiceKey>,
) -> Result<Image, ImageError> {
    let addresses = addresses(spec);
    let entries = service_entries(spec, places, services, &addresses)?;
    room("addresses", addresses.len(), ADDRESSES)?;
    room("ports of services", entries.len(), SERVICES)?;
    let (seed, address_buckets, service_buckets) = place(&addresses, &entries)?;
    let (mss4, mss6) = clamps(spec);
    Ok(Image {
        seed,
        address_bits: address_bits(&addresses, seed),
        vips: addresses.iter().filter(|a| is_vip(a)).count() as u32,
        address_buckets,
        addresses,
        service_buckets,
        services: entries.into_iter().map(|(_, s)| s).collect(),
        nodes: node_entries(spec, nodes.numbers)?,
        id: nodes.id(&spec.node),
        flow_keys: FlowKeys::new(&spec.secret),
        mss4,
        mss6,
        flags: if spec.bypass.is_some() { types::CONFIG_BYPASS } else { 0 },
        way_back: ways_back(spec),
    })
}

fn room(what: &'static str, wanted: usize, room: usize) -> Result<(), ImageError> {
    if wanted > room { Err(ImageError::Full { what, wanted, room }) } else { Ok(()) }
}

/// Everything that the address table knows, VIPs numbered.
fn addresses(spec: &Spec) -> Vec<Address> {
    let mut kinds: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut mark = |address: IpAddr, kind| *kinds.entry(address).or_default() |= kind;
    for (name, node) in &spec.nodes {
        let kind = if *name == spec.node { types::KIND_SELF } else { types::KIND_NODE };
        node.addresses.iter().for_each(|&a| mark(a, kind));
    }
    for backend in spec.tables.values().flat_map(|t| &t.living).filter(|b| b.node == spec.node) {
        mark(backend.address, types::KIND_POD);
    }
    spec.addresses.iter().for_each(|&a| mark(a, types::KIND_VIP));
    let (mut all, others): (Vec<Address>, Vec<Address>) = kinds
        .iter()
        .map(|(&ip, &kind)| Address { ip: ip.into(), kind, interface: interface(spec, ip), ..Address::default() })
        .partition(is_vip);
    all.extend(others);
    all.iter_mut().enumerate().for_each(|(n, a)| a.index = n as u32);
    all
}

fn interface(spec: &Spec, pod: IpAddr) -> u32 {
    spec.bypass.as_ref().and_then(|b| b.interfaces.get(&pod)).copied().unwrap_or(0)
}

/// Interfaces in turns, so that replies spread over them.
fn ways_back(spec: &Spec) -> [u32; types::WAYS_BACK] {
    let back = spec.bypass.as_ref().map_or(&[][..], |b| &b.back[..]);
    let mut turns = back.iter().copied().cycle();
    std::array::from_fn(|_| turns.next().unwrap_or(0))
}

fn is_vip(address: &Address) -> bool {
    address.kind & types::KIND_VIP != 0
}

fn address_bits(addresses: &[Address], seed: u64) -> Vec<u64> {
    let mut bits = vec![0; 1 << (types::ADDRESS_BITS_LOG2 - 6)];
    for address in addresses {
        let bit = address_bit(address.ip, seed);
        bits[bit / 64] |= 1 << (bit % 64);
    }
    bits
}

/// One's complement sum of the 16-bit words of these bytes, as the programs load them.
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|w| u32::from(u16::from_le_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (folded + (folded >> 16)) as u16
}

/// The sums of an address, and of it with a port.
fn sums(address: IpAddr, port: u16) -> (u16, u16) {
    let ip = match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    (ip, sum(&[ip.to_le_bytes(), port.to_be_bytes()].concat()))
}

/// IP's number of a protocol.
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Entries with the address that they are found by.
fn service_entries(
    spec: &Spec,
    places: &BTreeMap<TableId, Placement>,
    services: &Numbers<ServiceKey>,
    addresses: &[Address],
) -> Result<Vec<(Ip, types::Service)>, ImageError> {
    let vips: BTreeMap<IpAddr, u32> = addresses.iter().filter(|a| is_vip(a)).map(|a| (a.ip.into(), a.index)).collect();
    let sharing = sharing(spec);
    let mut entries = Vec::new();
    for (front, target) in &spec.ports {
        let Some(&vip) = vips.get(&front.address) else { continue };
        let missing = || ImageError::NoTable { service: target.service.clone(), table: target.table.clone() };
        let place = places.get(&target.table).ok_or_else(missing)?;
        let affinity = if target.affinity { types::SERVICE_AFFINITY } else { 0 };
        let pass = if target.pass || front.protocol == Protocol::Sctp { types::SERVICE_PASS } else { 0 };
        let deep = if place.deep { types::SERVICE_DEEP } else { 0 };
        let shares = if sharing.contains(&target.table) { types::SERVICE_SHARES } else { 0 };
        let (address, (ip, all)) = (Ip::from(front.address), sums(front.address, front.port));
        let entry = types::Service {
            key: service_key(vip, front.address.is_ipv6(), ports(protocol_number(front.protocol), front.port)),
            slots: place.slots,
            backends: place.backends,
            counters: services.of(&target.service).unwrap_or(0),
            last: std::array::from_fn(|n| address.0[12 + n]),
            // What is taken away is added as its complement.
            less_ip: !ip,
            less: !all,
            shift: 32 - place.log2,
            flags: affinity | pass | deep | shares,
            ring: place.ring,
        };
        entries.push((address, entry));
    }
    Ok(entries)
}

/// Tables with a pod of this node that another port or address leads to as well: there, two connections may look the
/// same to it.
fn sharing(spec: &Spec) -> BTreeSet<&TableId> {
    let mut ways: BTreeMap<&TableId, usize> = BTreeMap::new();
    spec.ports.values().for_each(|target| *ways.entry(&target.table).or_default() += 1);
    let mut by_pod: HashMap<(IpAddr, u16), &TableId> = HashMap::new();
    let mut sharing: BTreeSet<&TableId> = ways.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect();
    for (id, table) in spec.tables.iter().filter(|(id, _)| ways.contains_key(id)) {
        for pod in table.living.iter().filter(|b| b.node == spec.node) {
            match by_pod.entry((pod.address, pod.port)) {
                Entry::Vacant(free) => drop(free.insert(id)),
                Entry::Occupied(other) => sharing.extend([id, *other.get()]),
            }
        }
    }
    sharing
}

/// Finds a seed with which no bucket overflows, of addresses or of ports.
fn place(addresses: &[Address], ports: &[(Ip, types::Service)]) -> Result<(u64, Vec<Bucket>, Vec<Bucket>), ImageError> {
    let mut what = "addresses";
    for seed in (0_u64..64).map(|n| super::maglev::key(&n.to_le_bytes()) | 1) {
        let buckets = try_place(ADDRESS_BUCKETS_LOG2, addresses, |a| Place::of_address(a.ip, seed));
        let Some(address_buckets) = buckets else { continue };
        what = "ports of services";
        let of_port = |(vip, s): &(Ip, types::Service)| Place::of_service(*vip, s.key & 0xff_ffff, seed);
        if let Some(service_buckets) = try_place(SERVICE_BUCKETS_LOG2, ports, of_port) {
            return Ok((seed, address_buckets, service_buckets));
        }
    }
    Err(ImageError::NoSeed { what })
}

fn try_place<T>(log2: u32, entries: &[T], at: impl Fn(&T) -> Place) -> Option<Vec<Bucket>> {
    let mut buckets = vec![Bucket::default(); 1 << log2];
    for (n, entry) in entries.iter().enumerate() {
        let Place { bucket, tag } = at(entry);
        let bucket = &mut buckets[bucket];
        let way = (0..WAYS).find(|&w| bucket.tag[w] == 0)?;
        bucket.tag[way] = tag;
        bucket.entry[way] = n as u16;
    }
    Some(buckets)
}

fn node_entries(spec: &Spec, numbers: &Numbers<String>) -> Result<Vec<types::Node>, ImageError> {
    let last = spec.nodes.keys().filter_map(|n| numbers.of(n)).max().unwrap_or(0) as usize;
    room("nodes", last + 1, types::NODES)?;
    let mut entries = vec![types::Node::default(); last + 1];
    for (name, node) in spec.nodes.iter().filter(|(name, _)| **name != spec.node) {
        if let (Some(n), Some(route)) = (numbers.of(name), &node.route) {
            entries[n as usize] = node_entry(route);
        }
    }
    Ok(entries)
}

fn node_entry(route: &Route) -> types::Node {
    types::Node {
        to: route.next_hop_mac,
        from: route.source_mac,
        vlan: route.vlan.unwrap_or(0),
        family: if route.destination.is_ipv4() { 4 } else { 6 },
        ip: route.destination.into(),
        source: route.source.into(),
        ifindex: route.interface,
        mtu: route.mtu,
        sum: constant_sum(route),
    }
}

/// One's complement sum over what never changes in an outer IPv4 header: fragment field, TTL, protocol, addresses.
fn constant_sum(route: &Route) -> u16 {
    let (IpAddr::V4(to), IpAddr::V4(from)) = (route.destination, route.source) else { return 0 };
    let mut bytes = vec![0x40, 0, 64, 17];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    sum(&bytes)
}

/// Largest segments that reach every other node in one piece.
fn clamps(spec: &Spec) -> (u16, u16) {
    let room = |r: &Route| r.mtu.saturating_sub(if r.destination.is_ipv4() { types::OVER_V4 } else { types::OVER_V6 });
    let smallest = spec.nodes.values().filter_map(|n| n.route.as_ref()).map(room).min().unwrap_or(0);
    (smallest.saturating_sub(40), smallest.saturating_sub(60))
}

/// A backend as it stands in the array.
pub fn backend_entry(backend: &Backend, spec: &Spec, nodes: &Nodes<'_>) -> types::Backend {
    let own = backend.node == spec.node;
    // A node that is not in the list has no number: the last one stands for "not reachable".
    let node = if own { 0 } else { nodes.numbers.of(&backend.node).unwrap_or(types::NODES as u32 - 1) };
    let (more_ip, more) = sums(backend.address, backend.port);
    types::Backend {
        ip: Ip::from(backend.address),
        port: backend.port.to_be(),
        node: node as u16,
        id: nodes.id(&backend.node),
        more_ip,
        more,
        reserved: 0,
    }
}
