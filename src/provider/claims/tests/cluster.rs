//! A cluster as small as can be: Services that want one address each, nodes that see it late and announce.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;

use crate::{
    provider::claims::World,
    types::{Claim, ClaimId, Family, Need, PoolProvider, Reclaim, ServiceKey},
};

/// A node sees the cluster at most so late, unless it is cut off.
pub(super) const LATE: Duration = Duration::from_secs(12);

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) services: BTreeSet<ServiceKey>,
    /// `status.loadBalancer`.
    pub(super) recorded: BTreeMap<ServiceKey, IpAddr>,
    pub(super) journal: BTreeMap<ClaimId, Claim>,
    pub(super) nodes: Vec<Node>,
}

pub(super) struct Node {
    pub(super) announces: BTreeSet<IpAddr>,
    /// As its status object has it.
    pub(super) reported: BTreeSet<IpAddr>,
    pub(super) synced: SystemTime,
    pub(super) cut_off: bool,
}

impl Cluster {
    pub(super) fn new(now: SystemTime) -> Self {
        let node = || Node { announces: BTreeSet::new(), reported: BTreeSet::new(), synced: now, cut_off: false };
        Self { nodes: vec![node(), node()], ..Self::default() }
    }

    /// Addresses that may be recorded for a Service.
    fn usable(&self, service: &ServiceKey) -> BTreeSet<IpAddr> {
        let ours = self.journal.values().filter(|claim| claim.spec.service.as_ref() == Some(service));
        ours.filter_map(Claim::usable).map(|network| network.addr()).collect()
    }

    /// What the leader's plan and recorder do.
    pub(super) fn record(&mut self) {
        self.recorded.retain(|service, _| self.services.contains(service));
        for service in &self.services {
            let usable = self.usable(service);
            match self.recorded.get(service) {
                Some(address) if usable.contains(address) => {}
                _ => {
                    self.recorded.remove(service);
                    if let Some(address) = usable.first() {
                        self.recorded.insert(service.clone(), *address);
                    }
                }
            }
        }
    }

    pub(super) fn sync(&mut self, node: usize, now: SystemTime) {
        let announces = self.recorded.values().copied().collect();
        let node = &mut self.nodes[node];
        if !node.cut_off {
            (node.announces, node.synced) = (announces, now);
        }
    }

    /// Nodes that are late by more than they may be catch up.
    pub(super) fn turn(&mut self, now: SystemTime) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].synced + LATE <= now {
                self.sync(node, now);
            }
            // The status is written right after the routes: as late as a node is, so late is its status.
            if !self.nodes[node].cut_off {
                self.nodes[node].reported = self.nodes[node].announces.clone();
            }
        }
    }

    pub(super) fn announces(&self, network: IpNet) -> bool {
        self.nodes.iter().any(|node| node.announces.iter().any(|address| network.contains(address)))
    }

    pub(super) fn world(&self) -> World {
        let lacks = |service: &&ServiceKey| !self.recorded.contains_key(*service);
        let terms = PoolProvider {
            name: "metal".into(),
            kind: None,
            region: None,
            reclaim: Reclaim::Delete,
            block: None,
            block_v6: None,
        };
        World {
            needs: self.services.iter().filter(lacks).map(need).collect(),
            used: self.recorded.values().copied().collect(),
            announced: self.nodes.iter().flat_map(|node| node.reported.iter().map(|a| IpNet::from(*a))).collect(),
            pools: [("p".to_owned(), terms)].into(),
        }
    }
}

fn need(service: &ServiceKey) -> Need {
    Need { service: service.clone(), pool: "p".into(), family: Family::Ipv4, address: None }
}
