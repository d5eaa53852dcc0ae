//! What people and controllers of others put into the API server.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use serde_json::{Value, json};

use super::dice::Dice;
use crate::source::{
    api::{BGPAdvertisement, BGPPeer, IPAddressPool, ProviderConfig},
    index::ObjectKey,
};

/// The namespace of the daemon and of everything else.
pub(super) const NAMESPACE: &str = "s";
/// The pool whose addresses are claimed.
pub(super) const CLAIMED: &str = "elastic";
/// Static pools by name.
pub(super) const POOLS: [(&str, &str); 2] = [("a", "192.0.2.16/29"), ("b", "198.51.100.64-198.51.100.67")];

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

pub(super) fn peer(router: usize, hold: u32, graceful: bool) -> BGPPeer {
    parse(json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": "BGPPeer",
        "metadata": { "name": format!("r{router}"), "namespace": NAMESPACE },
        "spec": {
            "myASN": 64512, "peerASN": 64600 + router, "peerAddress": format!("10.0.1.{}", router + 1),
            "holdTime": format!("{hold}s"), "enableGracefulRestart": graceful,
        },
    }))
}

pub(super) fn advertisement() -> BGPAdvertisement {
    parse(json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": "BGPAdvertisement",
        "metadata": { "name": "all", "namespace": NAMESPACE }, "spec": {},
    }))
}

pub(super) fn pool(name: &str, range: &str, automatic: bool) -> IPAddressPool {
    parse(json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": "IPAddressPool",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "addresses": [range], "autoAssign": automatic },
    }))
}

pub(super) fn claimed_pool() -> IPAddressPool {
    parse(json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": "IPAddressPool",
        "metadata": { "name": CLAIMED, "namespace": NAMESPACE },
        "spec": { "provider": { "name": "metal" } },
    }))
}

pub(super) fn provider() -> ProviderConfig {
    parse(json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": "ProviderConfig",
        "metadata": { "name": "metal", "namespace": NAMESPACE },
        "spec": { "type": "packet", "project": "1", "endpoint": "https://api.example" },
    }))
}

pub(super) fn node(name: &str, n: usize, ready: bool, cordoned: bool) -> Node {
    let ready = if ready { "True" } else { "Unknown" };
    parse(json!({
        "metadata": { "name": name },
        "spec": { "unschedulable": cordoned },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": format!("10.0.0.{}", n + 10) }],
            "conditions": [{ "type": "Ready", "status": ready }],
        },
    }))
}

/// What people say of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) name: String,
    pub(super) uid: u64,
    pub(super) created: i64,
    /// Of this many ports, so that two Services of one key often clash.
    pub(super) port: u16,
    pub(super) sharing: Option<&'static str>,
    pub(super) address: Option<&'static str>,
    pub(super) pool: Option<&'static str>,
    pub(super) class: Option<&'static str>,
    pub(super) local: bool,
    pub(super) load_balancer: bool,
}

impl Wish {
    pub(super) fn drawn(dice: &mut Dice, name: String, uid: u64, created: i64) -> Self {
        let mut wish = Self {
            name,
            uid,
            created,
            port: 80,
            sharing: None,
            address: None,
            pool: None,
            class: None,
            local: dice.once_in(3),
            load_balancer: true,
        };
        for _ in 0..3 {
            wish.change(dice);
        }
        // The API server lets nobody change it later.
        (wish.class, wish.load_balancer) = (if dice.once_in(10) { Some("other") } else { None }, true);
        wish
    }

    /// Somebody edits it.
    pub(super) fn change(&mut self, dice: &mut Dice) {
        match dice.below(9) {
            0 | 1 => self.port = 80 + dice.below(3) as u16,
            2 | 3 => self.sharing = dice.pick(&[None, Some("x"), Some("x"), Some("y")]).flatten(),
            4 => self.address = dice.pick(&[None, None, Some("192.0.2.17"), Some("192.0.2.18")]).flatten(),
            5 | 6 => self.pool = dice.pick(&[None, Some("a"), Some(CLAIMED), Some(CLAIMED)]).flatten(),
            7 => self.local = !self.local,
            _ => self.load_balancer = !self.load_balancer || !dice.once_in(3),
        }
        if self.pool == Some(CLAIMED) || self.pool.is_some() && dice.once_in(2) {
            self.address = None;
        }
    }

    /// The object; `before` keeps what others wrote.
    pub(super) fn object(&self, before: Option<&Service>) -> Service {
        let mut annotations = serde_json::Map::new();
        let asked =
            [("allow-shared-ip", self.sharing), ("load-balancer-ips", self.address), ("address-pool", self.pool)];
        for (key, value) in asked {
            if let Some(value) = value {
                annotations.insert(format!("ironcast.dev/{key}"), value.into());
            }
        }
        let mut service: Service = parse(json!({
            "metadata": {
                "name": self.name, "namespace": NAMESPACE, "uid": self.uid.to_string(), "annotations": annotations,
                "creationTimestamp": k8s_openapi::jiff::Timestamp::from_second(self.created).expect("a time").to_string(),
            },
            "spec": {
                "type": if self.load_balancer { "LoadBalancer" } else { "ClusterIP" },
                "loadBalancerClass": self.class, "ipFamilies": ["IPv4"],
                "externalTrafficPolicy": if self.local { "Local" } else { "Cluster" },
                "selector": { "app": if self.local { self.name.as_str() } else { "any" } },
                "ports": [{ "port": self.port, "protocol": "TCP" }],
            },
        }));
        // The API server clears the record of a Service that is no load balancer any more.
        service.status = before.filter(|_| self.load_balancer).and_then(|before| before.status.clone());
        service
    }
}

/// Endpoints of a Service on these nodes.
pub(super) fn slice(service: &str, nodes: &BTreeSet<String>) -> EndpointSlice {
    let endpoints: Vec<Value> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| json!({ "addresses": [format!("10.1.0.{}", n + 1)], "nodeName": node }))
        .collect();
    parse(json!({
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "port": 8080 }],
        "metadata": {
            "name": format!("{service}-1"), "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": service },
        },
    }))
}
