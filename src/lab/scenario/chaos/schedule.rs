//! What happens when, from a seed alone: the same seed, nodes and minutes give the same schedule.

use std::{fmt, time::Duration};

/// What a step costs beside the fault itself: everything agrees again, and requests under way have ended.
const SETTLES: Duration = Duration::from_secs(6);

/// The longest that new connections may fail after a cable is cut: the router sees the carrier go, its kernel moves the
/// flows, tables of the other nodes follow the pods.
const NOTICED: Duration = Duration::from_millis(500);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    /// kill -9 of a daemon; another starts after the time.
    DaemonKilled,
    /// SIGSTOP of a daemon for the time, shorter than the hold time.
    DaemonFrozen,
    /// SIGTERM of a daemon, as at an upgrade; another starts after the time.
    DaemonUpgraded,
    /// kill -9 of a daemon, and every file of its own that can be written is torn in the middle.
    StateTorn,
    /// SIGSTOP of the router for the time: it neither reads nor writes, its kernel forwards.
    RouterFrozen,
    /// The node's cable is out for the time, and its pods are not ready.
    CableCut,
    /// Whatever the router sends to the node is lost for the time; the other way works.
    LossOneWay,
    /// `ironcast drain` for the time.
    NodeDrained,
}

/// Each with the longest that it lasts, in milliseconds.
const FAULTS: [(Fault, u64); 8] = [
    // Tables of a daemon that was away for longer are trusted by nobody for a day.
    (Fault::DaemonKilled, 3000),
    (Fault::DaemonFrozen, 6000),
    (Fault::DaemonUpgraded, 2000),
    (Fault::StateTorn, 3000),
    (Fault::RouterFrozen, 6000),
    (Fault::CableCut, 4000),
    // Shorter than what a connection that hangs is given.
    (Fault::LossOneWay, 2500),
    (Fault::NodeDrained, 3000),
];
const SHORTEST: u64 = 300;

/// One fault, and the Services that come and go meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) fault: Fault,
    /// Number of the node that it befalls.
    pub(super) node: usize,
    pub(super) lasts: Duration,
    /// Services that are written while it lasts.
    pub(super) written: usize,
    /// Services of former steps that are deleted while it lasts.
    pub(super) deleted: usize,
}

impl Fault {
    /// What may be lost, in words.
    pub(super) fn costs(self) -> &'static str {
        match self {
            Self::CableCut => "connections to pods of that node, requests until the router has noticed",
            Self::LossOneWay => "requests by that node while it lasts: without BFD only the hold time would notice",
            _ => "nothing",
        }
    }

    /// The longest that new requests may fail.
    pub(super) fn silence(self, lasts: Duration) -> Duration {
        match self {
            Self::CableCut => NOTICED,
            Self::LossOneWay => lasts,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DaemonKilled => "daemon killed",
            Self::DaemonFrozen => "daemon frozen",
            Self::DaemonUpgraded => "daemon upgraded",
            Self::StateTorn => "daemon killed, its files torn",
            Self::RouterFrozen => "router frozen",
            Self::CableCut => "cable cut",
            Self::LossOneWay => "loss on the way to the node",
            Self::NodeDrained => "node drained",
        })
    }
}

/// Steps for so long; every fault comes before one comes again.
pub(super) fn schedule(seed: u64, nodes: usize, length: Duration) -> Vec<Step> {
    let mut chance = Chance(seed);
    let (mut steps, mut left, mut bag) = (Vec::new(), length, Vec::new());
    loop {
        if bag.is_empty() {
            bag = FAULTS.to_vec();
        }
        let (fault, longest) = bag.swap_remove(chance.below(bag.len()));
        let lasts = Duration::from_millis(SHORTEST + chance.next() % (longest - SHORTEST));
        let step = Step { fault, node: chance.below(nodes), lasts, written: chance.below(4), deleted: chance.below(4) };
        let Some(rest) = left.checked_sub(lasts + SETTLES) else { return steps };
        left = rest;
        steps.push(step);
    }
}

/// splitmix64: small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn schedule_depends_on_its_seed_alone_and_leaves_no_fault_out() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let first = schedule(1, 3, minutes(3));
        assert_eq!(first, schedule(1, 3, minutes(3)));
        assert_ne!(first, schedule(2, 3, minutes(3)));
        let kinds: BTreeSet<Fault> = first.iter().map(|step| step.fault).collect();
        assert_eq!(kinds.len(), FAULTS.len(), "{first:?}");
        let took: Duration = first.iter().map(|step| step.lasts + SETTLES).sum();
        assert!(took <= minutes(3) && took > minutes(2), "{took:?}");
        assert!(first.iter().all(|step| step.node < 3));
    }
}
