//! What a node says of itself: `/state.json`, the content of `BGPNodeStatus`, what `ironcast status` prints.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Family, ObjectRef};

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but not as somebody may expect.
    Warning,
    /// The object is refused; the others keep working.
    Error,
}

/// Something that a person must mend: which object, which field, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The object.
    pub object: ObjectRef,
    /// Path of the field, `spec.addresses[0]`; empty when it is about the whole object.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// The next step.
    pub hint: String,
    /// How bad.
    pub severity: Severity,
    /// File of the manifest, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything that a node knows of itself, served at `/state.json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeState {
    /// Name of the node.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// Where the world is seen.
    pub source: SourceState,
    /// This daemon allocates addresses and writes Service status.
    pub leader: bool,
    /// The operator drains this node.
    #[serde(default)]
    pub draining: bool,
    /// How far this node has come in leaving; absent while it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<LeavingState>,
    /// BGP sessions.
    pub sessions: Vec<SessionState>,
    /// LoadBalancer Services and their addresses.
    pub services: Vec<ServiceState>,
    /// What is really announced, from the Adj-RIB-Out.
    pub routes: Vec<RouteState>,
    /// What is not, and why.
    pub withheld: Vec<WithheldState>,
    /// Objects that were refused.
    pub problems: Vec<Problem>,
    /// The packet path; absent where it is switched off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<DatapathState>,
    /// What the packet path has counted; only at `/state.json`, since it changes with every packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficState>,
}

/// What the packet path of a node has counted since its counters were made; they outlive restarts of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficState {
    /// Milliseconds since it was counted.
    pub age_milliseconds: u64,
    /// TCP connections that pods of this node have taken.
    pub connections: u64,
    /// Packets by Service, `namespace/name`.
    pub services: BTreeMap<String, ServiceTraffic>,
}

/// Packets of a Service on a node, since it got its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServiceTraffic {
    /// To pods of this node.
    pub delivered: u64,
    /// Sent to their owner as first node.
    pub encapsulated: u64,
    /// Sent on as asked node.
    pub chained: u64,
    /// Dropped.
    pub refused: u64,
    /// Bytes of all but the dropped.
    pub bytes: u64,
}

/// How far a node has come in leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LeavingState {
    /// It announces with the community graceful-shutdown, so that routers turn to others.
    GracefulShutdown,
    /// It has withdrawn, or nobody else announces what is left.
    Withdrawing,
    /// It announces nothing.
    Drained,
}

/// The packet path of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatapathState {
    /// How each uplink is served.
    pub uplinks: Vec<UplinkState>,
    /// Counts changes of the tables; absent before the first.
    pub generation: Option<u32>,
    /// Addresses that the tables in the kernel have.
    pub addresses: usize,
    /// Nodes that no way is known to; packets to their pods are left to kube-proxy.
    #[serde(default)]
    pub unreachable: Vec<String>,
    /// Why packets are left to kube-proxy altogether, or tables are not what they should be.
    pub problem: Option<String>,
}

/// How an uplink is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UplinkState {
    /// The interface.
    pub interface: String,
    /// `native`, `generic`, `tcx` or `announce-only`.
    pub mode: String,
    /// The better modes, each with the kernel's reason against it.
    pub failed: Vec<String>,
}

/// State of the source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceState {
    /// `kubernetes` or `manifests`.
    pub kind: String,
    /// The first complete list of every kind has arrived.
    pub complete: bool,
}

/// One BGP session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionState {
    /// Name of the `BGPPeer`.
    pub peer: String,
    /// Its address.
    pub address: IpAddr,
    /// RFC 4271 state.
    pub state: String,
    /// Seconds in that state.
    pub since_seconds: u64,
    /// Our AS.
    pub local_asn: u32,
    /// Its AS, once known.
    pub remote_asn: Option<u32>,
    /// Families negotiated.
    pub families: Vec<String>,
    /// Capabilities negotiated.
    pub capabilities: Vec<String>,
    /// Hold time negotiated.
    pub hold_time_seconds: Option<u16>,
    /// Prefixes in its Adj-RIB-Out.
    pub advertised: usize,
    /// Why the last connection ended.
    pub last_error: Option<String>,
    /// How often it was Established.
    pub established_count: u64,
    /// The BFD session of the peer, where it has a profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// Octets sent to it that its TCP has not acknowledged; only at `/state.json`, since it changes with every message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<u64>,
}

/// The BFD session that watches the path to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdState {
    /// Name of the `BFDProfile`.
    pub profile: String,
    /// RFC 5880 state: `admin-down`, `down`, `init`, `up`.
    pub state: String,
    /// Seconds in that state.
    pub since_seconds: u64,
    /// Why it went down last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostic: Option<String>,
    /// How often the path was lost.
    pub failures: u64,
    /// The state that the router's last packet showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_state: Option<String>,
    /// Between our packets, as negotiated.
    pub transmit_milliseconds: u64,
    /// Silence after which the path counts as lost, as negotiated.
    pub detection_milliseconds: u64,
    /// Echo packets come back.
    pub echo: bool,
    /// Why no packets can be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    /// `namespace/name`.
    pub service: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Pool of the addresses.
    pub pool: Option<String>,
    /// Why it is this pool, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_reason: Option<String>,
    /// Families asked for.
    pub families: Vec<Family>,
    /// Why it has no address yet.
    pub pending: Option<String>,
    /// Endpoints that take traffic, in the cluster.
    pub endpoints: usize,
}

/// One prefix in the Adj-RIB-Out of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteState {
    /// The prefix.
    pub prefix: String,
    /// Name of the peer.
    pub peer: String,
    /// Services behind it.
    pub services: Vec<String>,
    /// Communities in words.
    pub communities: Vec<String>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
}

/// A Service that this node does not announce (to one peer, or at all).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WithheldState {
    /// `namespace/name`.
    pub service: String,
    /// The peer, where it is about one.
    pub peer: Option<String>,
    /// The word that people grep for: `noLocalEndpoints` …
    pub reason: String,
    /// The same as a sentence with the next step.
    pub detail: String,
}
