//! The heart: [`plan`] turns what is known into what is wanted. Pure, total, the same on every node.
//!
//! ```text
//!  Snapshot ─▶ allocate (addresses, stable) ─▶ eligibility (Announce | Withhold(reason)) ─▶ routes per peer ─▶ Desired
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ironcast_bgp::rib::Route;

use crate::types::{Peer, Problem, ServiceKey, Snapshot};

/// What does not come from the cluster: who we are and how the operator started us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// `--load-balancer-class`: Services of this class are ours.
    pub class: Option<String>,
    /// Services without a class are ours too.
    pub unclassed: bool,
    /// `--ignore-exclude-label`: the label `node.kubernetes.io/exclude-from-external-load-balancers` means nothing.
    pub ignore_exclude_label: bool,
    /// The operator asked this node to drain.
    pub draining: bool,
}

/// What this node wants to be so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// For every Service of ours: its addresses as they should be. Only the leader acts on it.
    pub allocations: BTreeMap<ServiceKey, Allocated>,
    /// Sessions of this node by peer name.
    pub peers: BTreeMap<String, Peer>,
    /// What each peer is told; peers that are told the same share one `Arc`.
    pub exports: BTreeMap<String, Arc<[Route]>>,
    /// Which Services stand behind a prefix.
    pub behind: BTreeMap<ipnet::IpNet, BTreeSet<ServiceKey>>,
    /// Addresses that this node answers for (announced by it, or ready to be).
    pub addresses: BTreeSet<IpAddr>,
    /// What is not announced, and why.
    pub withheld: Vec<Withheld>,
    /// The snapshot's problems and those that only the whole shows (overlapping pools …).
    pub problems: Vec<Problem>,
}

/// What should become of a Service's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allocated {
    /// It has these; order as `ipFamilies`.
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The pool that they are of.
        pool: String,
    },
    /// It must wait.
    Pending {
        /// For the Event and the condition: reason in CamelCase.
        reason: PendingReason,
        /// The sentence with the next step.
        message: String,
    },
    /// It is no longer ours, or no longer a load balancer: its addresses go back.
    Released,
}

/// Why a Service has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PendingReason {
    /// Every pool that it may use is full.
    PoolExhausted,
    /// There is no pool that it may use.
    NoPool,
    /// The address asked for is in no pool that it may use.
    AddressOutsidePools,
    /// The address asked for is taken, and may not be shared.
    AddressTaken,
    /// The request contradicts itself or the Service (family, number of addresses, unknown pool).
    InvalidRequest,
}

/// A Service that this node does not announce.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// The Service.
    pub service: ServiceKey,
    /// The peer, where the reason is about one only.
    pub peer: Option<String>,
    /// Why.
    pub reason: Withhold,
}

/// Why not. The words are those that people grep for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Withhold {
    /// `addressPending`
    AddressPending,
    /// `noEndpoints`
    NoEndpoints,
    /// `noLocalEndpoints`
    NoLocalEndpoints,
    /// `nodeLabeledExcludeBalancers`
    NodeLabeledExcludeBalancers,
    /// `nodeNetworkUnavailable`
    NodeNetworkUnavailable,
    /// `nodeNotReady`
    NodeNotReady,
    /// `noMatchingAdvertisement`
    NoMatchingAdvertisement,
    /// `conflictingAdvertisements`
    ConflictingAdvertisements,
    /// `prefixBudget`
    PrefixBudget,
    /// `datapathNotReady`
    DatapathNotReady,
    /// `draining`
    Draining,
}

/// What should be, given what is known. Pure and total: the same snapshot and settings give the same answer,
/// and a bad object costs that object alone.
pub fn plan(snapshot: &Snapshot, settings: &Settings) -> Desired {
    let _ = (snapshot, settings);
    Desired::default()
}
