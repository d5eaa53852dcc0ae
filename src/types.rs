//! The words that everything else is said in: what the cluster wants ([`Snapshot`]) and what this node
//! does about it ([`NodeState`]). Values only; no I/O, no decisions. Everything is parsed already: a `Peer`
//! has a valid AS, a `Pool` has ranges that are not empty. Objects that could not be parsed are [`Problem`]s.

mod claim;
mod peer;
mod pool;
mod provider;
mod service;
mod shared;
mod state;
pub mod stored;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

pub use claim::{
    Claim, ClaimId, ClaimProblem, ClaimSpec, ClaimState, InvalidClaimId, LeaseId, Need, PoolProvider, Reclaim,
};
pub use peer::{AddressFrom, Advertisement, BfdProfile, NodeSelector, Operator, Peer, Requirement, Selector};
pub use pool::{AddressRange, Allocation, Pool};
pub use provider::{ClaimTiming, ManageRoutes, PeersFrom, ProviderConfig, ProviderKind, Secret};
pub use service::{
    Endpoint, Family, FamilyPolicy, Node, Ports, Protocol, Service, ServiceKey, ServicePort, TrafficPolicy,
};
pub use shared::{Map, Set};
pub use state::{
    BfdState, DatapathState, LeavingState, NodeState, Problem, RouteState, ServiceState, ServiceTraffic, SessionState,
    Severity, SourceState, TrafficState, UplinkState, WithheldState,
};

/// The annotation of a Node with what its provider says of the machine; anything but `Active` keeps the node from
/// announcing. The leader writes it where it asks the provider, else people may.
pub const DEVICE_STATE: &str = "ironcast.dev/device-state";

/// Marks what is ours among addresses (`IFA_PROTO`, Linux 5.18), routes and rules of the kernel; only that is ever
/// removed. `ip -d address` and `ip route` show `proto 73`, which iproute2 assigns to nobody.
pub const KERNEL_MARK: u8 = 73;

/// Labels as Kubernetes has them.
pub type Labels = BTreeMap<String, String>;

/// Everything that is known of the cluster at one moment; the input of `plan`. Made only when the first
/// complete list of every kind has arrived. What there is much of is shared with the index and with older snapshots.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// LoadBalancer Services, and Services that were one and still hold an address.
    pub services: Map<ServiceKey, Arc<Service>>,
    /// Endpoints by Service, all slices united.
    pub endpoints: Map<ServiceKey, Arc<[Endpoint]>>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Labels of namespaces by name.
    pub namespaces: BTreeMap<String, Labels>,
    /// Valid pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Valid peers by name.
    pub peers: BTreeMap<String, Peer>,
    /// Valid advertisements by name.
    pub advertisements: BTreeMap<String, Advertisement>,
    /// Valid BFD profiles by name.
    pub bfd_profiles: BTreeMap<String, BfdProfile>,
    /// Valid provider configurations by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Claims as the journal has them.
    pub claims: BTreeMap<ClaimId, Claim>,
    /// It was saved by a predecessor, and no API server has confirmed it yet: it is announced, and nobody gives out
    /// addresses by it.
    pub saved: bool,
    /// Objects that were refused, each with the field and the next step. The rest of the snapshot stands.
    pub problems: Vec<Problem>,
}

/// A reference to an object, for messages and Events.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ObjectRef {
    /// `Service`, `IPAddressPool` …
    pub kind: String,
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// A reference from its three parts.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// The family of an address.
pub fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}
