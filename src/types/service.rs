//! Services, endpoints and nodes, reduced to what decisions need.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::Labels;

/// `namespace/name`. A copy shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceKey {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// IPv4 or IPv6, in the order Kubernetes writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Family {
    /// `IPv4`
    #[serde(rename = "IPv4")]
    Ipv4,
    /// `IPv6`
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FamilyPolicy {
    /// One family, the first of `ipFamilies`.
    #[default]
    SingleStack,
    /// Both where possible, one is enough.
    PreferDualStack,
    /// Both or nothing.
    RequireDualStack,
}

/// `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficPolicy {
    /// Any node takes the packet to any pod.
    #[default]
    Cluster,
    /// Only nodes with a pod take packets, only to their own pods.
    Local,
}

/// L4 protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name, empty where there is one port only.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// NodePort, where allocated.
    pub node_port: Option<u16>,
}

/// A Service of `type: LoadBalancer`, or one that was and still holds addresses (`load_balancer` false).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub key: ServiceKey,
    /// `metadata.uid`; in manifest mode derived from the name.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.type` is LoadBalancer now.
    pub load_balancer: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `spec.ipFamilies`, order kept; never empty.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`.
    pub selector: Labels,
    /// `spec.sessionAffinity: ClientIP` and its timeout.
    pub affinity: Option<Duration>,
    /// `spec.loadBalancerSourceRanges` says who may come: kube-proxy sees to it.
    pub source_ranges: bool,
    /// Addresses asked for by annotation or `spec.loadBalancerIP`.
    pub requested_addresses: Vec<IpAddr>,
    /// Pool asked for by annotation.
    pub requested_pool: Option<String>,
    /// Sharing key by annotation.
    pub sharing_key: Option<String>,
    /// Addresses that it has: `status.loadBalancer.ingress[].ip`, or the state file's. This is what *held* means
    /// for addresses of a pool.
    pub assigned: Vec<IpAddr>,
    /// `metadata.creationTimestamp` in seconds of Unix time; older Services choose first.
    pub created: i64,
}

/// One endpoint of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// The node that it runs on.
    pub node: Option<Arc<str>>,
    /// `conditions.ready` (absent means ready).
    pub ready: bool,
    /// `conditions.serving` (absent means as `ready`).
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// Those of a slice are one list.
    pub ports: Arc<Ports>,
}

/// Target ports by port name and protocol.
pub type Ports = [(String, Protocol, u16)];

impl Endpoint {
    /// Takes traffic: ready, or terminating and still serving.
    pub fn takes_traffic(&self) -> bool {
        self.ready || (self.serving && self.terminating)
    }
}

/// A node, reduced.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations` under our prefixes.
    pub annotations: Labels,
    /// `status.addresses` of type InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// Condition Ready is True; absent counts as ready (manifest mode).
    pub ready: bool,
    /// Condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// `spec.unschedulable`: it is cordoned.
    pub unschedulable: bool,
    /// `spec.taints`, each as `key=value`.
    pub taints: Vec<String>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
}
