//! Who has which address while one plan is made.
//!
//! Addresses are only ever taken, never given back within a plan. So what a search for a free address (or for
//! one that may be shared) has passed over once stays unfit, and every search goes on where the last one
//! stopped: all searches together cost one pass over what is taken, however large the pools are.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::pools::{PoolIndex, Pools, gives_out};
use crate::types::{AddressRange, Family, Labels, Protocol, Service, ServiceKey, TrafficPolicy, family_of};

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit<'a> {
    /// A node or a router has it.
    InUse,
    /// Recorded for this Service, which gives it back; free once the record is gone.
    Returning(&'a ServiceKey),
    /// This Service has it, and the two may not share.
    Taken(&'a ServiceKey),
}

/// Which pods are behind, as far as sharing an address is concerned: routers do not see ports, so Services on
/// one address must be announced by the same nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Backend<'a> {
    Anywhere,
    /// Pods of a namespace by their labels.
    Local(&'a str, &'a Labels),
}

struct Holding<'a> {
    first: &'a ServiceKey,
    key: Option<&'a str>,
    backend: Backend<'a>,
    ports: HashSet<(Protocol, u16)>,
}

#[derive(Default, Clone, Copy)]
struct Cursor {
    range: usize,
    offset: u128,
}

#[derive(PartialEq, Eq, Hash)]
struct SharingSearch<'a> {
    group: Group<'a>,
    backend: Backend<'a>,
    ports: Vec<(Protocol, u16)>,
}

type Group<'a> = (&'a str, PoolIndex, Family);

/// See the module.
pub(super) struct Ledger<'a> {
    pools: &'a Pools<'a>,
    in_use: HashSet<IpAddr>,
    returning: HashMap<IpAddr, &'a ServiceKey>,
    taken: HashMap<IpAddr, Holding<'a>>,
    free_from: HashMap<(PoolIndex, Family), Cursor>,
    groups: HashMap<Group<'a>, Vec<IpAddr>>,
    shared_from: HashMap<SharingSearch<'a>, usize>,
    reserved: HashMap<(PoolIndex, Family, &'a ServiceKey), Vec<AddressRange>>,
}

impl<'a> Ledger<'a> {
    /// An empty ledger; `in_use` are addresses of nodes and routers.
    pub(super) fn new(pools: &'a Pools<'a>, in_use: HashSet<IpAddr>) -> Self {
        Self {
            pools,
            in_use,
            returning: HashMap::new(),
            taken: HashMap::new(),
            free_from: HashMap::new(),
            groups: HashMap::new(),
            shared_from: HashMap::new(),
            reserved: reserved(pools),
        }
    }

    /// Whether the Service may newly have the address, alone or shared.
    pub(super) fn check(&self, address: IpAddr, service: &Service) -> Result<(), Unfit<'a>> {
        if self.in_use.contains(&address) {
            return Err(Unfit::InUse);
        }
        if let Some(service) = self.returning.get(&address) {
            return Err(Unfit::Returning(service));
        }
        self.check_sharing(address, service)
    }

    /// Whether those who have the address let the Service share it.
    pub(super) fn check_sharing(&self, address: IpAddr, service: &Service) -> Result<(), Unfit<'a>> {
        match self.taken.get(&address) {
            Some(holding) if !holding.admits(service) => Err(Unfit::Taken(holding.first)),
            _ => Ok(()),
        }
    }

    /// Gives the address to the Service; `pools` are those that offer it. Only after a check.
    pub(super) fn take(&mut self, address: IpAddr, service: &'a Service, pools: &[PoolIndex]) {
        let key = sharing_key(service);
        let new = !self.taken.contains_key(&address);
        let holding = self.taken.entry(address).or_insert_with(|| Holding {
            first: &service.key,
            key,
            backend: backend(service),
            ports: HashSet::new(),
        });
        if let Some(key) = key {
            holding.ports.extend(ports(service));
            if new {
                for pool in pools {
                    self.groups.entry((key, *pool, family_of(address))).or_default().push(address);
                }
            }
        }
    }

    /// The address stays with nobody until the record of this Service is gone.
    pub(super) fn hold_back(&mut self, address: IpAddr, recorded: &'a ServiceKey) {
        self.returning.entry(address).or_insert(recorded);
    }

    /// The first address of the pool that nobody has and that is not reserved for another Service; one that is reserved
    /// for this one comes first.
    pub(super) fn free(&mut self, pool: PoolIndex, family: Family, service: &Service) -> Option<IpAddr> {
        let reserved = self.reserved.get(&(pool, family, &service.key)).into_iter().flatten();
        let mut addresses = reserved.flat_map(AddressRange::iter);
        let ours = addresses.find(|address| gives_out(self.pools.pool(pool), *address) && self.is_free(*address));
        if ours.is_some() {
            return ours;
        }
        let mut cursor = self.free_from.get(&(pool, family)).copied().unwrap_or_default();
        let found = self.advance(&mut cursor, pool, family);
        self.free_from.insert((pool, family), cursor);
        found
    }

    fn advance(&self, cursor: &mut Cursor, index: PoolIndex, family: Family) -> Option<IpAddr> {
        let pool = self.pools.pool(index);
        while let Some(range) = pool.ranges.get(cursor.range) {
            if range.family() == family && !pool.reserved.contains_key(range) {
                while let Some(address) = range.nth(cursor.offset) {
                    if gives_out(pool, address) && self.is_free(address) {
                        return Some(address);
                    }
                    let Some(next) = cursor.offset.checked_add(1) else { break };
                    cursor.offset = next;
                }
            }
            *cursor = Cursor { range: cursor.range + 1, offset: 0 };
        }
        None
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.taken.contains_key(&address) && !self.in_use.contains(&address) && !self.returning.contains_key(&address)
    }

    /// The first address of the pool that Services with the same sharing key have and that this one may share.
    pub(super) fn shared(&mut self, pool: PoolIndex, family: Family, service: &'a Service) -> Option<IpAddr> {
        let group = (sharing_key(service)?, pool, family);
        let addresses = self.groups.get(&group)?;
        let mut wanted: Vec<_> = ports(service).collect();
        wanted.sort_unstable();
        let search = SharingSearch { group, backend: backend(service), ports: wanted };
        let from = self.shared_from.get(&search).copied().unwrap_or_default();
        let fit = addresses[from..].iter().position(|address| self.check(*address, service).is_ok());
        let position = fit.map_or(addresses.len(), |skipped| from + skipped);
        let found = addresses.get(position).copied();
        self.shared_from.insert(search, position);
        found
    }
}

impl Holding<'_> {
    fn admits(&self, service: &Service) -> bool {
        self.key.is_some()
            && self.key == sharing_key(service)
            && self.backend == backend(service)
            && ports(service).all(|port| !self.ports.contains(&port))
    }
}

fn reserved<'a>(pools: &Pools<'a>) -> HashMap<(PoolIndex, Family, &'a ServiceKey), Vec<AddressRange>> {
    let mut reserved: HashMap<_, Vec<AddressRange>> = HashMap::new();
    for pool in 0..pools.len() {
        for (range, service) in &pools.pool(pool).reserved {
            reserved.entry((pool, range.family(), service)).or_default().push(*range);
        }
    }
    reserved
}

fn sharing_key(service: &Service) -> Option<&str> {
    service.sharing_key.as_deref().filter(|key| !key.is_empty())
}

fn backend(service: &Service) -> Backend<'_> {
    match service.traffic_policy {
        TrafficPolicy::Cluster => Backend::Anywhere,
        TrafficPolicy::Local => Backend::Local(&service.key.namespace, &service.selector),
    }
}

fn ports(service: &Service) -> impl Iterator<Item = (Protocol, u16)> {
    service.ports.iter().map(|port| (port.protocol, port.port))
}
