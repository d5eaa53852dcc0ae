//! Small worlds for tests.

use std::{collections::BTreeSet, net::IpAddr};

use ironcast_bgp::{
    Asn, HoldTime,
    speaker::{AddPath, PeerAs},
};

use super::{Allocated, Desired, PendingReason, Settings, Withhold, plan};
use crate::types::{
    Advertisement, Allocation, Endpoint, Family, FamilyPolicy, Labels, Node, Operator, Peer, Pool, Protocol,
    Requirement, Selector, Service, ServiceKey, ServicePort, Snapshot, TrafficPolicy,
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

pub(super) fn selector(key: &str, value: &str) -> Selector {
    let values = BTreeSet::from([value.to_string()]);
    Selector(vec![Requirement { key: key.into(), operator: Operator::In, values }])
}

pub(super) fn settings(node: &str) -> Settings {
    Settings::new(node)
}

/// An IPv4 Service of policy Cluster with port 80/TCP.
pub(super) fn service(name: &str, created: i64) -> Service {
    Service {
        key: key(name),
        uid: format!("uid-{name}"),
        labels: labels(&[("app", name)]),
        load_balancer: true,
        deleting: false,
        class: None,
        families: vec![Family::Ipv4],
        family_policy: FamilyPolicy::SingleStack,
        traffic_policy: TrafficPolicy::Cluster,
        ports: vec![port(80)],
        selector: labels(&[("app", name)]),
        affinity: None,
        source_ranges: false,
        requested_addresses: Vec::new(),
        requested_pool: None,
        sharing_key: None,
        assigned: Vec::new(),
        created,
    }
}

pub(super) fn port(port: u16) -> ServicePort {
    ServicePort { name: String::new(), protocol: Protocol::Tcp, port, node_port: None }
}

pub(super) fn endpoint(address: &str, node: &str) -> Endpoint {
    let ports = [(String::new(), Protocol::Tcp, 8080)].into();
    Endpoint { address: ip(address), node: Some(node.into()), ready: true, serving: true, terminating: false, ports }
}

pub(super) fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        labels: labels(&[("pool", name)]),
        ranges: ranges.iter().map(|range| range.parse().expect("a range")).collect(),
        reserved: Default::default(),
        provider: None,
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        disabled: false,
    }
}

pub(super) fn allocation(priority: u32) -> Allocation {
    let (namespaces, namespace_selectors, service_selectors) = (Vec::new(), Vec::new(), Vec::new());
    Allocation { priority, namespaces, namespace_selectors, service_selectors }
}

/// A peer that carries both families.
pub(super) fn peer(name: &str, address: &str) -> Peer {
    Peer {
        name: name.into(),
        my_asn: Asn::new(64500).expect("valid"),
        local_asn: None,
        peer_as: PeerAs::Exactly(Asn::new(64501).expect("valid")),
        address: Some(ip(address)),
        interface: None,
        port: 179,
        source: None,
        router_id: None,
        vrf: None,
        hold_time: HoldTime::DEFAULT,
        keepalive: None,
        connect_time: None,
        multihop: None,
        ttl_security: None,
        passive: false,
        password: None,
        ao_keys: Vec::new(),
        missing_secret: None,
        node_selectors: Vec::new(),
        long_lived: None,
        role: None,
        role_strict: false,
        add_path: AddPath::default(),
        shows_my_asn: false,
        bfd: None,
        graceful_restart: false,
        dual_stack: true,
        prefix_budget: None,
        maximum_paths: None,
        address_from: None,
        maximum_prefixes: None,
    }
}

/// All pools to all peers as host routes.
pub(super) fn advertisement(name: &str) -> Advertisement {
    Advertisement {
        name: name.into(),
        aggregation_length: 32,
        aggregation_length_v6: 128,
        local_pref: None,
        med: None,
        prepend: 0,
        link_bandwidth: None,
        communities: BTreeSet::new(),
        large_communities: BTreeSet::new(),
        pools: BTreeSet::new(),
        pool_selectors: Vec::new(),
        service_selectors: Vec::new(),
        node_selectors: Vec::new(),
        peers: BTreeSet::new(),
    }
}

/// A snapshot that is built up object by object.
#[derive(Debug, Default, Clone)]
pub(super) struct World(pub(super) Snapshot);

impl World {
    /// Nodes n1 and n2, one peer, one advertisement of everything, the pool 192.0.2.0/29 and 2001:db8::/64.
    pub(super) fn usual() -> Self {
        Self::default()
            .node(&node("n1", "198.51.100.1"))
            .node(&node("n2", "198.51.100.2"))
            .peer(peer("tor", "198.51.100.254"))
            .advertise(advertisement("all"))
            .pool(pool("main", &["192.0.2.0/29", "2001:db8::/64"]))
    }

    pub(super) fn node(mut self, node: &Node) -> Self {
        self.0.nodes.insert(node.name.clone(), node.clone().into());
        self
    }

    pub(super) fn peer(mut self, peer: Peer) -> Self {
        self.0.peers.insert(peer.name.clone(), peer);
        self
    }

    pub(super) fn advertise(mut self, advertisement: Advertisement) -> Self {
        self.0.advertisements.insert(advertisement.name.clone(), advertisement);
        self
    }

    pub(super) fn pool(mut self, pool: Pool) -> Self {
        self.0.pools.insert(pool.name.clone(), pool);
        self
    }

    /// The Service with a ready endpoint of each family on n1.
    pub(super) fn served(self, service: Service) -> Self {
        self.serve(service, &[endpoint("10.0.1.1", "n1"), endpoint("fd00::1:1", "n1")])
    }

    pub(super) fn serve(mut self, service: Service, endpoints: &[Endpoint]) -> Self {
        self.0.endpoints.insert(service.key.clone(), endpoints.into());
        self.0.services.insert(service.key.clone(), service.into());
        self
    }

    pub(super) fn plan(&self) -> Desired {
        plan(&self.0, &settings("n1"))
    }

    /// Writes what the leader would write: the addresses of every Service as planned.
    pub(super) fn record(&mut self, desired: &Desired) {
        for (key, allocated) in desired.allocations.iter() {
            let service = self.0.services.get_mut(key).expect("a planned Service exists");
            let mut changed = (**service).clone();
            changed.assigned = match allocated {
                Allocated::Addresses { addresses, .. } => addresses.clone(),
                Allocated::Pending { .. } | Allocated::Released => Vec::new(),
            };
            *service = changed.into();
        }
    }

    /// Records twice, so that what one Service gave back reaches those that waited, and plans once more.
    pub(super) fn settled(mut self) -> Desired {
        for _ in 0..2 {
            let desired = self.plan();
            self.record(&desired);
        }
        self.plan()
    }
}

pub(super) fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), addresses: vec![ip(address)], ready: true, ..Node::default() }
}

/// Questions to the answer.
pub(super) trait Asked {
    fn addresses_of(&self, name: &str) -> Vec<IpAddr>;
    fn pending(&self, name: &str) -> Option<PendingReason>;
    fn reasons(&self, name: &str) -> Vec<(Option<&str>, Withhold)>;
    fn told(&self, peer: &str) -> Vec<String>;
}

impl Asked for Desired {
    fn addresses_of(&self, name: &str) -> Vec<IpAddr> {
        match self.allocations.get(&key(name)) {
            Some(Allocated::Addresses { addresses, .. }) => addresses.clone(),
            _ => Vec::new(),
        }
    }

    fn pending(&self, name: &str) -> Option<PendingReason> {
        match self.allocations.get(&key(name)) {
            Some(Allocated::Pending { reason, .. }) => Some(*reason),
            _ => None,
        }
    }

    fn reasons(&self, name: &str) -> Vec<(Option<&str>, Withhold)> {
        let of_service = self.withheld.iter().filter(|withheld| withheld.service == key(name));
        of_service.map(|withheld| (withheld.peer.as_deref(), withheld.reason)).collect()
    }

    fn told(&self, peer: &str) -> Vec<String> {
        self.exports
            .get(peer)
            .map_or_else(Vec::new, |routes| routes.iter().map(|(prefix, _)| prefix.to_string()).collect())
    }
}
