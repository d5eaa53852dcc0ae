//! What the packet path says of itself to the rest of the daemon. Values only, there with and without the feature
//! `xdp`.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use super::types::{Reason, ServiceCounters};
use crate::types::{DatapathState, ServiceKey, Set};

/// A moment of the packet path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// For people.
    pub state: DatapathState,
    /// Addresses whose packets are taken care of.
    pub served: Served,
    /// The programs stand where they will stand, or cannot: sessions may come up. Attaching a program may blink the
    /// link, which a session had better not see.
    pub settled: bool,
}

impl Report {
    /// Packets are left to kube-proxy, for this reason.
    pub fn without(problem: &str) -> Self {
        let state = DatapathState { problem: Some(problem.into()), ..DatapathState::default() };
        Self { state, served: Served::Everything, settled: true }
    }
}

/// Addresses whose packets are taken care of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// All of them: kube-proxy takes what we do not.
    Everything,
    /// Those that the tables in the kernel have.
    Only(Set<IpAddr>),
}

impl Default for Served {
    fn default() -> Self {
        Self::Only(Set::default())
    }
}

/// Packets counted since the counters were made; they outlive restarts of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// When it was.
    pub at: Option<Instant>,
    /// By what became of them.
    pub reasons: BTreeMap<Reason, u64>,
    /// By Service.
    pub services: BTreeMap<ServiceKey, ServiceCounters>,
}

/// What becomes of programs and tables when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// They stay and forward until our successor takes over.
    Keep,
    /// They go.
    Remove,
}
