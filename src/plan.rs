//! The heart: [`plan`] turns what is known into what is wanted. Pure, total, the same on every node.
//!
//! ```text
//!  Snapshot ─▶ allocate (addresses, stable) ─▶ eligibility (Announce | Withhold(reason)) ─▶ routes per peer ─▶ Desired
//! ```

mod again;
mod allocate;
mod eligibility;
mod fill;
mod found;
mod identity;
mod ledger;
mod needs;
mod nodes;
mod pools;
mod problems;
mod routes;
mod weights;
mod why;
mod width;
mod words;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ironcast_bgp::{RouterId, rib::Routes};

use crate::types::{Map, Need, Peer, Problem, Service, ServiceKey, Set, Snapshot, WithheldState};

pub use again::Planner;
pub use found::Gateway;
pub use identity::default_router_id;
pub use nodes::asked_to_leave;
pub use why::why_pool;
pub use words::{GaveUp, PendingReason, Withhold};

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
    /// `--on-cordon drain`: a cordoned node leaves too.
    pub cordon_drains: bool,
    /// `--maintenance-taint`: a node with one of these leaves too; `key` or `key=value`.
    pub maintenance_taints: BTreeSet<String>,
    /// Default gateways of this host, at most one of each family; known where a peer asks for them.
    pub gateways: Vec<Gateway>,
    /// How far the operator's `ironcast drain` has come.
    pub drain: Leaving,
    /// How far a cordon or a maintenance taint has come.
    pub cordon: Leaving,
}

impl Settings {
    /// Takes Services without a class and leaves by nothing but a drain.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            class: None,
            unclassed: true,
            ignore_exclude_label: false,
            cordon_drains: false,
            maintenance_taints: BTreeSet::new(),
            gateways: Vec::new(),
            drain: Leaving::Not,
            cordon: Leaving::Not,
        }
    }

    /// The further of the two ways out.
    pub fn leaving(&self) -> Leaving {
        self.drain.max(self.cordon)
    }
}

/// How far a node has come in leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Leaving {
    /// It stays.
    #[default]
    Not,
    /// It still announces, with the community graceful-shutdown (RFC 8326), so that routers turn to others first.
    Last,
    /// It withdraws.
    Gone,
}

/// What should become of each Service's addresses. Plans that give the same share it.
pub type Allocations = Arc<BTreeMap<ServiceKey, Allocated>>;

/// What this node wants to be so. What there is much of is shared with other plans that have the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// For every Service of ours: its addresses as they should be, the same on every node. Only the leader acts on it.
    pub allocations: Allocations,
    /// Recorded addresses that a Service must give back, and why; whether it gets others stands in `allocations`.
    pub given_up: BTreeMap<ServiceKey, Vec<(IpAddr, GaveUp)>>,
    /// Addresses that Services lack and that a provider may have, the oldest Service first. Only the leader claims.
    pub needs: Vec<Need>,
    /// Our BGP identifier where neither the operator nor a peer gives one; `plan` always sets it.
    pub router_id: Option<RouterId>,
    /// Peers of this node by name. One whose `missing_secret` is set gets no new session yet.
    pub peers: BTreeMap<String, Peer>,
    /// What each peer is told; peers that are told the same share one set.
    pub exports: BTreeMap<String, Routes>,
    /// Which Services stand behind a prefix, in the order of their names.
    pub behind: Map<IpNet, Arc<[ServiceKey]>>,
    /// Recorded addresses whose packets this node can serve, announced or not: a node that drains withdraws its
    /// routes and still answers what is under way.
    pub addresses: Set<IpAddr>,
    /// How far this node has come in leaving.
    pub leaving: Leaving,
    /// What is not announced, and why.
    pub withheld: Vec<Withheld>,
    /// The snapshot's problems and those that only the whole shows (overlapping pools …).
    pub problems: Vec<Problem>,
}

/// A plan and what it was made of: who records addresses must know which of its records the plan has seen.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What was known.
    pub snapshot: Arc<Snapshot>,
    /// What should be, given that.
    pub desired: Arc<Desired>,
}

/// What should become of a Service's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allocated {
    /// It has these; order as `ipFamilies`.
    Addresses {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The pool of the first one. A dual-stack Service may have its second address from another pool.
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

impl Withheld {
    /// In words, for people.
    pub fn state(&self) -> WithheldState {
        WithheldState {
            service: self.service.to_string(),
            peer: self.peer.clone(),
            reason: self.reason.as_str().into(),
            detail: self.reason.detail().into(),
        }
    }
}

/// What should be, given what is known. Pure and total: the same snapshot and settings give the same answer,
/// and a bad object costs that object alone.
pub fn plan(snapshot: &Snapshot, settings: &Settings) -> Desired {
    let pools = pools::Pools::new(snapshot);
    let services = by_age(snapshot);
    let book = allocate::allocate(snapshot, settings, &pools, &services);
    let mut here = eligibility::judge(snapshot, settings, &book.granted);
    nodes::leave(snapshot, settings, &pools, &mut here);
    let found = found::find(snapshot, settings);
    let peers = routes::peers_of_node(snapshot, settings, &found.peers);
    let routes = routes::export(snapshot, settings, &pools, &peers, &here.announce);
    let withheld: BTreeSet<Withheld> = here.withheld.into_iter().chain(routes.withheld).collect();
    let node = snapshot.nodes.get(&settings.node).map(|node| &**node);
    Desired {
        router_id: Some(default_router_id(node, &settings.node)),
        allocations: book.outcome.into(),
        given_up: book.given_up,
        needs: book.needs,
        exports: routes.exports,
        behind: shared(routes.behind),
        addresses: here.addresses.into_iter().collect(),
        leaving: settings.leaving(),
        withheld: withheld.into_iter().collect(),
        problems: problems::problems(snapshot, settings, &peers, found.problems),
        peers: peers.into_iter().map(|peer| (peer.name.clone(), peer.clone())).collect(),
    }
}

fn shared(behind: BTreeMap<IpNet, BTreeSet<ServiceKey>>) -> Map<IpNet, Arc<[ServiceKey]>> {
    behind.into_iter().map(|(prefix, services)| (prefix, services.into_iter().collect())).collect()
}

/// Oldest first, then by name: the order in which Services choose.
fn by_age(snapshot: &Snapshot) -> Vec<&Service> {
    let mut services: Vec<&Service> = snapshot.services.values().map(|service| &**service).collect();
    services.sort_by_key(|service| service.created); // stable: equal ages stay in the order of names
    services
}
