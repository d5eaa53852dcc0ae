//! Which Services this node announces, and why not the others: the facts of the node and of the endpoints.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Leaving, Settings, Withheld, Withhold,
    allocate::{Grant, Granted},
    nodes,
};
use crate::types::{Endpoint, Family, Service, ServiceKey, Snapshot, TrafficPolicy, family_of};

/// A Service that this node may announce, with the addresses that are recorded and have endpoints.
pub(super) struct Candidate<'a> {
    pub(super) service: &'a Service,
    pub(super) addresses: Vec<Grant>,
}

/// The verdict on every Service of ours.
#[derive(Default)]
pub(super) struct Here<'a> {
    /// By age of the Service.
    pub(super) announce: Vec<Candidate<'a>>,
    pub(super) withheld: Vec<Withheld>,
    /// Recorded addresses with endpoints for this node, announced or not.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Judges every Service for this node.
pub(super) fn judge<'a>(snapshot: &Snapshot, settings: &Settings, granted: &[Granted<'a>]) -> Here<'a> {
    let node = node_reason(snapshot, settings);
    let mut here = Here::default();
    for Granted { service, addresses } in granted {
        let recorded: Vec<Grant> =
            addresses.iter().copied().filter(|grant| service.assigned.contains(&grant.address)).collect();
        if recorded.is_empty() {
            here.withhold(&service.key, Withhold::AddressPending);
            continue;
        }
        let endpoints = snapshot.endpoints.get(&service.key).map_or(&[][..], |endpoints| &endpoints[..]);
        let mut reasons = HashMap::new();
        let mut reason_of = |grant: &Grant| {
            let family = family_of(grant.address);
            *reasons.entry(family).or_insert_with(|| endpoint_reason(service, endpoints, family, &settings.node))
        };
        let (served, unserved): (Vec<Grant>, Vec<Grant>) =
            recorded.into_iter().partition(|grant| reason_of(grant).is_none());
        here.addresses.extend(served.iter().map(|grant| grant.address));
        match node {
            Some(reason) => here.withhold(&service.key, reason),
            None => {
                unserved.iter().filter_map(&mut reason_of).for_each(|reason| here.withhold(&service.key, reason));
                if !served.is_empty() {
                    here.announce.push(Candidate { service, addresses: served });
                }
            }
        }
    }
    here
}

impl Here<'_> {
    pub(super) fn withhold(&mut self, service: &ServiceKey, reason: Withhold) {
        self.withheld.push(Withheld { service: service.clone(), peer: None, reason });
    }
}

/// Why this node announces nothing at all. A node without an object (manifest mode) has nothing against it.
fn node_reason(snapshot: &Snapshot, settings: &Settings) -> Option<Withhold> {
    if settings.drain == Leaving::Gone {
        return Some(Withhold::Draining);
    }
    nodes::unfit(snapshot.nodes.get(&settings.node)?, settings)
}

/// Why this node does not serve the Service's address of this family.
fn endpoint_reason(service: &Service, endpoints: &[Endpoint], family: Family, node: &str) -> Option<Withhold> {
    let mut serving = endpoints
        .iter()
        .filter(|endpoint| family_of(endpoint.address) == family && endpoint.takes_traffic())
        .peekable();
    if serving.peek().is_none() {
        return Some(Withhold::NoEndpoints);
    }
    match service.traffic_policy {
        TrafficPolicy::Cluster => None,
        TrafficPolicy::Local => {
            let local = serving.any(|endpoint| endpoint.node.as_deref() == Some(node));
            (!local).then_some(Withhold::NoLocalEndpoints)
        }
    }
}
