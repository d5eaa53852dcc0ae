//! The folder that the daemons watch: ordinary Kubernetes objects, one file each, written whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    proxy::ProxiedService,
    site::{NODE_ASN, Node, POD_PORT, ROUTER_ASN},
};
use crate::source::state_file;

/// Where Services get IPv4 addresses (RFC 5737).
pub(crate) const POOL_V4: &str = "192.0.2.0/24";
/// Where Services get IPv6 addresses (RFC 3849).
pub(crate) const POOL_V6: &str = "2001:db8:10::1-2001:db8:10::ffff";
const POOL: &str = "lab";
/// Our resources live here.
const SYSTEM: &str = "ironcast-system";

/// The namespace of our resources.
#[cfg(feature = "emulator")]
pub(crate) fn system() -> &'static str {
    SYSTEM
}

/// Services live here.
pub(crate) const NAMESPACE: &str = "default";

/// A Service as the lab wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceSpec {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// `TCP` or `UDP`.
    pub(crate) protocol: &'static str,
    /// The pods' port.
    pub(crate) target: u16,
    /// `externalTrafficPolicy: Local`.
    pub(crate) local: bool,
    /// `type: LoadBalancer`; otherwise ClusterIP.
    pub(crate) load_balancer: bool,
    /// Only pods of these nodes stand behind it; empty is all.
    pub(crate) nodes: Vec<String>,
    /// `ironcast.dev/load-balancer-ips`.
    pub(crate) requested: Option<String>,
    /// `ironcast.dev/address-pool`: one IPv4 address of this pool, not one of each family.
    pub(crate) pool: Option<String>,
}

impl ServiceSpec {
    /// Port 80, `Cluster`, every pod.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            name,
            port: 80,
            protocol: "TCP",
            target: POD_PORT,
            local: false,
            load_balancer: true,
            nodes: Vec::new(),
            requested: None,
            pool: None,
        }
    }

    /// `namespace/name`, as the daemons say it.
    pub(crate) fn key(&self) -> String {
        format!("{NAMESPACE}/{}", self.name)
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Manifests {
    folder: PathBuf,
    /// `prefixBudget` of the IPv4 sessions.
    budget: Option<u32>,
}

impl Manifests {
    /// Makes the folder with everything but Services: these nodes, pools, peers, the advertisement.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn create(
        folder: PathBuf,
        nodes: &[Node],
        graceful_restart: bool,
        budget: Option<u32>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let manifests = Self { folder, budget };
        manifests.write("pool", &[pool()])?;
        manifests.write("advertisement", &[advertisement()])?;
        for node in nodes {
            manifests.put_node(node, true, graceful_restart)?;
        }
        Ok(manifests)
    }

    /// Writes a node and its sessions.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn put_node(&self, node: &Node, ready: bool, graceful_restart: bool) -> anyhow::Result<()> {
        self.write(&node.name, &node_objects(node, ready, graceful_restart, self.budget))
    }

    /// Writes objects that only some scenario has.
    ///
    /// # Errors
    /// The file cannot be written.
    #[cfg(feature = "emulator")]
    pub(crate) fn put_objects(&self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        self.write(name, objects)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a Service with its slices in one step.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn put(&self, service: &ServiceSpec, endpoints: &[Endpoint]) -> anyhow::Result<()> {
        self.write(&file(service), &[vec![service_object(service)], slices(service, endpoints)].concat())
    }

    /// Removes a Service with its slices.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn delete(&self, service: &ServiceSpec) -> anyhow::Result<()> {
        let path = self.path(&file(service));
        std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Every address in the daemons' state file.
    ///
    /// # Errors
    /// It cannot be read or says something else than expected.
    pub(crate) fn recorded(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let record = state_file::load(&self.folder)?.unwrap_or_default();
        Ok(record.addresses().into_values().flatten().collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.yaml"))
    }

    /// Whole or not at all: a daemon never reads half a file.
    fn write(&self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        let texts: Result<Vec<String>, _> = objects.iter().map(serde_norway::to_string).collect();
        let (path, half) = (self.path(name), self.folder.join(format!(".{name}.half")));
        std::fs::write(&half, texts?.join("---\n")).with_context(|| format!("write {}", half.display()))?;
        std::fs::rename(&half, &path).with_context(|| format!("write {}", path.display()))
    }
}

/// A pod behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) node: String,
    pub(crate) address: [IpAddr; 2],
    pub(crate) condition: Condition,
}

/// What its slices say of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Ready,
    NotReady,
    /// Deleted, and still serving what it has.
    Terminating,
    /// In no slice.
    Gone,
}

/// The same Service for the rules of the nodes.
pub(crate) fn proxied(service: &ServiceSpec, endpoints: &[Endpoint], addresses: &[IpAddr]) -> ProxiedService {
    let ready = endpoints.iter().filter(|e| e.condition == Condition::Ready);
    ProxiedService {
        name: service.name.clone(),
        addresses: addresses.to_vec(),
        port: service.port,
        target: service.target,
        local: service.local,
        endpoints: ready.flat_map(|e| e.address.map(|ip| (ip, e.node.clone()))).collect(),
    }
}

fn file(service: &ServiceSpec) -> String {
    format!("service-{}", service.name)
}

pub(crate) fn ours(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": SYSTEM}, "spec": spec,
    })
}

/// One for both families: a dual-stack Service takes both of its addresses from one pool.
fn pool() -> Value {
    ours("IPAddressPool", POOL, json!({"addresses": [POOL_V4, POOL_V6], "avoidBuggyIPs": true}))
}

fn advertisement() -> Value {
    ours("BGPAdvertisement", "all", json!({"ipAddressPools": [POOL]}))
}

/// The Node and its two sessions, one per family.
fn node_objects(node: &Node, ready: bool, graceful_restart: bool, budget: Option<u32>) -> Vec<Value> {
    let name = &node.name;
    let ready = if ready { "True" } else { "False" };
    let labels = json!({"kubernetes.io/hostname": name});
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"podCIDRs": node.pod_cidr},
        "status": {
            "addresses": node.address.map(|ip| json!({"type": "InternalIP", "address": ip})),
            "conditions": [{"type": "Ready", "status": ready}],
        },
    });
    let peer = |family: &str, address: IpAddr| {
        let mut spec = json!({
            "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "peerAddress": address,
            "holdTime": "9s", "keepaliveTime": "3s", "connectTime": "1s",
            "enableGracefulRestart": graceful_restart,
            "nodeSelectors": [{"matchLabels": labels}],
        });
        if let Some(budget) = budget.filter(|_| family == "v4") {
            spec["prefixBudget"] = budget.into();
        }
        ours("BGPPeer", &format!("{name}-{family}"), spec)
    };
    let [v4, v6] = node.gateway;
    vec![object, peer("v4", v4), peer("v6", v6)]
}

fn service_object(service: &ServiceSpec) -> Value {
    let ips = service.requested.iter().map(|ips| ("ironcast.dev/load-balancer-ips", ips));
    let annotations = ips.chain(service.pool.iter().map(|pool| ("ironcast.dev/address-pool", pool)));
    let (policy, families) = match service.pool {
        Some(_) => ("SingleStack", json!(["IPv4"])),
        None => ("RequireDualStack", json!(["IPv4", "IPv6"])),
    };
    let mut spec = json!({
        "type": if service.load_balancer { "LoadBalancer" } else { "ClusterIP" },
        "ipFamilyPolicy": policy, "ipFamilies": families,
        "selector": {"app": "web"},
        "ports": [{"name": "it", "protocol": service.protocol, "port": service.port, "targetPort": service.target}],
    });
    if service.load_balancer {
        spec["externalTrafficPolicy"] = if service.local { "Local" } else { "Cluster" }.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": service.name, "namespace": NAMESPACE,
            "annotations": annotations.collect::<BTreeMap<_, _>>(),
        },
        "spec": spec,
    })
}

fn slices(service: &ServiceSpec, endpoints: &[Endpoint]) -> Vec<Value> {
    let slice = |i: usize, family: &str| {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .filter(|e| e.condition != Condition::Gone)
            .map(|e| {
                let (ready, terminating) = (e.condition == Condition::Ready, e.condition == Condition::Terminating);
                let conditions = json!({"ready": ready, "serving": ready || terminating, "terminating": terminating});
                json!({"addresses": [e.address[i]], "nodeName": e.node, "conditions": conditions})
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", service.name, family.to_lowercase()), "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": service.name},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "it", "protocol": service.protocol, "port": service.target}],
        })
    };
    vec![slice(0, "IPv4"), slice(1, "IPv6")]
}
