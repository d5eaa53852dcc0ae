//! From what is known of the cluster to a [`Spec`]: the only part of the packet path that knows what a Service is.
//! No I/O; what it remembers is the recent memberships of every table ([`spec::Table::history`]), and addresses
//! that have just been given up.
//!
//! | in the cluster | in the tables |
//! |---|---|
//! | recorded address of a Service of ours | owned address, on every node, whether announced from it or not |
//! | its port, in that family | a port with a table of its own |
//! | endpoint that is ready | member: takes new connections |
//! | none is ready: endpoints that terminate and still serve | members |
//! | any other endpoint | lives: keeps the connections that it has |
//! | endpoint that does not serve, on a node that is not ready | gone |
//! | an endpoint on no node of the cluster; SCTP; `loadBalancerSourceRanges` | the port is left to kube-proxy |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::spec::{self, Backend, Frontend, Route, Spec, Table, TableId, Target};
use crate::{
    plan::{Allocated, Desired},
    types::{Endpoint, Protocol, Service, ServicePort, Snapshot, family_of},
};

mod record;
#[cfg(test)]
mod tests;

/// How long an address stays in the tables after it was given up: routers withdraw first, and what is under way
/// still arrives.
pub const LINGER: Duration = Duration::from_secs(2);
/// A membership that was replaced so long ago is forgotten: connections that old are taken for over.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What a [`Spec`] is made of, beside what is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// What is known of the cluster.
    pub snapshot: &'a Snapshot,
    /// What is decided: which addresses are whose.
    pub desired: &'a Desired,
    /// Secret of the cluster.
    pub secret: [u8; 32],
    /// The ways to other nodes that are resolved, by name.
    pub routes: &'a BTreeMap<String, Route>,
}

/// Remembers what tables were, and makes what they should be.
#[derive(Debug, Default)]
pub struct Tables {
    node: String,
    generation: u32,
    remembered: BTreeMap<TableId, Remembered>,
    lingering: BTreeMap<IpAddr, Lingering>,
    last: Spec,
    /// There was no record, or nobody kept it for a while: connections may have begun under memberships that we never
    /// saw.
    stranger: bool,
}

/// A table, and since when each but the newest of its memberships is over.
#[derive(Debug, Clone, Default)]
struct Remembered {
    table: Table,
    /// For `table.history[1..]`.
    replaced: Vec<Instant>,
    /// There were memberships before this that nobody here saw.
    strange: Option<Instant>,
}

#[derive(Debug)]
struct Lingering {
    until: Instant,
    ports: BTreeMap<Frontend, Target>,
}

impl Tables {
    /// Without memory. Tables of the first [`Spec`] are forgetful, since connections of before may go anywhere.
    pub fn new(node: impl Into<String>) -> Self {
        Self { node: node.into(), stranger: true, ..Self::default() }
    }

    /// This node was away: between the record and now there may have been memberships that it never saw. One that
    /// looks like the last is no proof, since pods may have come and gone.
    pub fn was_away(&mut self) {
        self.stranger = true;
    }

    /// What the tables of this node should be now. The generation changes when anything else does.
    pub fn spec(&mut self, inputs: &Inputs<'_>, now: Instant) -> Spec {
        let mut spec = Spec {
            secret: inputs.secret,
            node: self.node.clone(),
            nodes: self.nodes(inputs),
            generation: self.generation,
            ..Spec::default()
        };
        for (service, addresses) in owned(inputs) {
            spec.addresses.extend(&addresses);
            for port in &service.ports {
                self.add_port(&mut spec, inputs, service, &addresses, port, now);
            }
        }
        self.let_linger(&mut spec, now);
        self.remembered.retain(|id, _| spec.tables.contains_key(id));
        self.stranger = false;
        if spec != self.last {
            self.generation = self.generation.wrapping_add(1);
            spec.generation = self.generation;
            self.last = spec.clone();
        }
        spec
    }

    /// When [`Tables::spec`] gives something else though nothing changed outside.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = |r: &Remembered| r.replaced.last().copied().into_iter().chain(r.strange).min();
        let aging = self.remembered.values().filter_map(oldest).map(|since| since + REMEMBERED);
        self.lingering.values().map(|l| l.until).chain(aging).min()
    }

    fn nodes(&self, inputs: &Inputs<'_>) -> BTreeMap<String, spec::Node> {
        let names = inputs.snapshot.nodes.keys().chain([&self.node]);
        let node = |name: &String| {
            let addresses = inputs.snapshot.nodes.get(name).map(|n| n.addresses.iter().copied().collect());
            let route = inputs.routes.get(name).copied().filter(|_| *name != self.node);
            spec::Node { addresses: addresses.unwrap_or_default(), route }
        };
        names.map(|name| (name.clone(), node(name))).collect()
    }

    fn add_port(
        &mut self,
        spec: &mut Spec,
        inputs: &Inputs<'_>,
        service: &Service,
        addresses: &[IpAddr],
        port: &ServicePort,
        now: Instant,
    ) {
        let endpoints = inputs.snapshot.endpoints.get(&service.key).map_or(&[][..], |e| &e[..]);
        for &address in addresses {
            let front = Frontend { address, protocol: port.protocol, port: port.port };
            let id = table_id(service, port, address);
            let behind = Behind::new(inputs.snapshot, &self.node, endpoints, port, address);
            let target = Target {
                service: service.key.clone(),
                table: id.clone(),
                affinity: service.affinity.is_some(),
                pass: port.protocol == Protocol::Sctp || service.source_ranges || behind.foreign,
            };
            let table = self.remember(&id, behind, now);
            spec.tables.insert(id, table);
            // Services that share an address have different ports; should two claim one, the first has it.
            spec.ports.entry(front).or_insert(target);
        }
    }

    /// The table after what stands behind it now.
    fn remember(&mut self, id: &TableId, behind: Behind, now: Instant) -> Table {
        let known = self.remembered.entry(id.clone()).or_default();
        if self.stranger {
            known.strange = Some(now);
            known.table.forgetful = true;
        }
        let before = known.table.history.first().cloned();
        known.table = known.table.changed(behind.members, behind.living);
        if before.is_some() && known.table.history.first() != before.as_ref() {
            known.replaced.insert(0, now);
            known.replaced.truncate(spec::HISTORY - 1);
        }
        let is_young = |since: &Instant| now.saturating_duration_since(*since) < REMEMBERED;
        let young = known.replaced.iter().copied().filter(is_young).count();
        if young < known.replaced.len() {
            known.replaced.truncate(young);
            known.table.history.truncate(young + 1);
            known.table.forgetful = known.strange.is_some();
        }
        if known.strange.is_some_and(|since| !is_young(&since)) {
            known.strange = None;
            // A history that is full may have been longer.
            known.table.forgetful = known.table.history.len() == spec::HISTORY;
        }
        known.table.clone()
    }

    /// Addresses of the last tables that nobody has any more stay for a while, with their ports.
    fn let_linger(&mut self, spec: &mut Spec, now: Instant) {
        for &address in self.last.addresses.difference(&spec.addresses) {
            let ports = self.last.ports.iter().filter(|(front, _)| front.address == address);
            let ports = ports.map(|(f, t)| (*f, t.clone())).collect();
            self.lingering.entry(address).or_insert(Lingering { until: now + LINGER, ports });
        }
        self.lingering.retain(|address, l| l.until > now && !spec.addresses.contains(address));
        for (address, lingering) in &self.lingering {
            spec.addresses.insert(*address);
            for (front, target) in &lingering.ports {
                let Some(table) = self.last.tables.get(&target.table) else { continue };
                spec.tables.entry(target.table.clone()).or_insert_with(|| table.clone());
                spec.ports.insert(*front, target.clone());
            }
        }
    }
}

/// Services of ours with the addresses that are recorded for them.
fn owned<'a>(inputs: &Inputs<'a>) -> impl Iterator<Item = (&'a Service, Vec<IpAddr>)> {
    inputs.desired.allocations.iter().filter_map(|(key, allocated)| {
        let Allocated::Addresses { addresses, .. } = allocated else { return None };
        let service = &**inputs.snapshot.services.get(key)?;
        let recorded: Vec<IpAddr> = addresses.iter().copied().filter(|a| service.assigned.contains(a)).collect();
        (!recorded.is_empty()).then_some((service, recorded))
    })
}

/// Ports of one family share no table with others: their pods' ports may differ from node to node.
fn table_id(service: &Service, port: &ServicePort, address: IpAddr) -> TableId {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    format!("{}/{}/{protocol}/{}", service.key, port.port, family_of(address))
}

/// What stands behind a port in one family.
#[derive(Debug, Default)]
struct Behind {
    members: BTreeMap<Backend, u32>,
    living: BTreeSet<Backend>,
    /// Some endpoint is on no node of the cluster: nobody could be its owner.
    foreign: bool,
}

impl Behind {
    fn new(snapshot: &Snapshot, own: &str, endpoints: &[Endpoint], port: &ServicePort, address: IpAddr) -> Self {
        let mut behind = Self::default();
        let (mut ready, mut parting) = (BTreeMap::new(), BTreeMap::new());
        for endpoint in endpoints.iter().filter(|e| family_of(e.address) == family_of(address)) {
            let Some(target) = target_port(endpoint, port) else { continue };
            let node = endpoint.node.as_deref().filter(|n| *n == own || snapshot.nodes.contains_key(*n));
            let Some(node) = node else {
                behind.foreign |= endpoint.takes_traffic();
                continue;
            };
            if !lives(endpoint, snapshot, node) {
                continue;
            }
            let backend = Backend { address: endpoint.address, port: target, node: node.into() };
            behind.living.insert(backend.clone());
            if endpoint.ready {
                ready.insert(backend, 1);
            } else if endpoint.takes_traffic() {
                parting.insert(backend, 1);
            }
        }
        behind.members = if ready.is_empty() { parting } else { ready };
        behind
    }
}

fn target_port(endpoint: &Endpoint, port: &ServicePort) -> Option<u16> {
    let named = endpoint.ports.iter().find(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
    named.map(|(_, _, target)| *target)
}

/// A pod that fails its probe may still have connections; one that fails it on a node that is not ready is gone
/// with its node, and who asked that node would wait for ever.
fn lives(endpoint: &Endpoint, snapshot: &Snapshot, node: &str) -> bool {
    let node_ready = snapshot.nodes.get(node).is_none_or(|node| node.ready);
    node_ready || endpoint.ready || endpoint.serving
}
