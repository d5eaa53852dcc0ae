//! How much of a prefix's traffic this node should take beside others: its ready endpoints.

use ipnet::IpNet;

use super::Settings;
use crate::types::{Family, Service, Snapshot, TrafficPolicy, family_of};

/// Ready endpoints of the Services on this node.
pub(super) struct Weights<'a> {
    snapshot: &'a Snapshot,
    node: &'a str,
}

impl<'a> Weights<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, settings: &'a Settings) -> Self {
        Self { snapshot, node: &settings.node }
    }

    /// The endpoints on this node of the Services behind the prefix, in its family. `None` where a Service among them
    /// has the policy Cluster: every node takes its packets to all pods, so that no node is worth more.
    pub(super) fn of<'s>(&self, prefix: &IpNet, services: impl Iterator<Item = &'s Service>) -> Option<u32> {
        let family = family_of(prefix.addr());
        let mut weight = 0;
        for service in services {
            if service.traffic_policy == TrafficPolicy::Cluster {
                return None;
            }
            weight += self.endpoints(service, family);
        }
        Some(weight)
    }

    fn endpoints(&self, service: &Service, family: Family) -> u32 {
        let endpoints = self.snapshot.endpoints.get(&service.key).map(AsRef::as_ref).unwrap_or_default();
        let here = endpoints.iter().filter(|endpoint| {
            endpoint.takes_traffic()
                && endpoint.node.as_deref() == Some(self.node)
                && family_of(endpoint.address) == family
        });
        u32::try_from(here.count()).unwrap_or(u32::MAX)
    }
}
