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
    /// kill -9 of a daemon; for the time each that starts has too little memory, and is killed by the kernel.
    DaemonStarved,
    /// The disks of a daemon, and the one with the record, are full for the time.
    DiskFull,
    /// kill -9 of a daemon; for the time another runs that cannot write its files.
    DiskReadOnly,
    /// SIGSTOP of the router for the time: it neither reads nor writes, its kernel forwards.
    RouterFrozen,
    /// kill -9 of the router; another starts after the time and finds its routes in the kernel.
    RouterRestarted,
    /// Every session is reset again and again for the time.
    RouterFlaps,
    /// The router takes a few octets now and then for the time.
    RouterSlow,
    /// kill -9 of the router; for the time somebody with its address answers with garbage.
    RouterHostile,
    /// From the router's address, and from a client's, a node gets garbage to all its open ports for the time.
    Garbage,
    /// The node's cable is out for the time, and its pods are not ready.
    CableCut,
    /// Whatever the router sends to the node is lost for the time; the other way works.
    LossToNode,
    /// Whatever the node sends is lost for the time; the other way works.
    LossFromNode,
    /// Packets to the node are doubled and overtake each other for the time.
    Garbled,
    /// `ironcast drain` for the time.
    NodeDrained,
    /// A thousand Services come and go, a hundred at once.
    Wave,
}

/// What a fault is.
struct Nature {
    name: &'static str,
    /// Of a node, or of all together.
    of_node: bool,
    /// The longest that it lasts, in milliseconds.
    longest: u64,
    cost: Cost,
}

/// What may be lost.
enum Cost {
    Nothing,
    /// Requests by that node.
    WhileItLasts,
    /// Connections to pods of that node, and requests until it is noticed.
    Node,
}

const FAULTS: [Fault; 19] = [
    Fault::DaemonKilled,
    Fault::DaemonFrozen,
    Fault::DaemonUpgraded,
    Fault::StateTorn,
    Fault::DaemonStarved,
    Fault::DiskFull,
    Fault::DiskReadOnly,
    Fault::RouterFrozen,
    Fault::RouterRestarted,
    Fault::RouterFlaps,
    Fault::RouterSlow,
    Fault::RouterHostile,
    Fault::Garbage,
    Fault::CableCut,
    Fault::LossToNode,
    Fault::LossFromNode,
    Fault::Garbled,
    Fault::NodeDrained,
    Fault::Wave,
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
    /// For what the fault itself decides.
    pub(super) seed: u64,
}

impl Fault {
    fn nature(self) -> Nature {
        use Cost::{Node, Nothing, WhileItLasts};
        let of_node = |name, longest, cost| Nature { name, of_node: true, longest, cost };
        let of_all = |name, longest| Nature { name, of_node: false, longest, cost: Nothing };
        match self {
            // Tables of a daemon that was away for longer are trusted by nobody for a day.
            Self::DaemonKilled => of_node("daemon killed", 3000, Nothing),
            Self::DaemonFrozen => of_node("daemon frozen", 6000, Nothing),
            Self::DaemonUpgraded => of_node("daemon upgraded", 2000, Nothing),
            Self::StateTorn => of_node("daemon killed, its files torn", 3000, Nothing),
            Self::DaemonStarved => of_node("daemon without memory", 3000, Nothing),
            Self::DiskFull => of_node("disks full", 6000, Nothing),
            Self::DiskReadOnly => of_node("daemon killed, its disk read-only", 6000, Nothing),
            Self::RouterFrozen => of_all("router frozen", 6000),
            Self::RouterRestarted => of_all("router killed", 6000),
            Self::RouterFlaps => of_all("router flaps", 6000),
            Self::RouterSlow => of_all("router slow to read", 6000),
            Self::RouterHostile => of_all("router talks garbage", 4000),
            Self::Garbage => of_node("garbage from outside", 4000, Nothing),
            Self::CableCut => of_node("cable cut", 4000, Node),
            // Shorter than what a connection that hangs is given.
            Self::LossToNode => of_node("loss on the way to the node", 2500, WhileItLasts),
            Self::LossFromNode => of_node("loss on the way from the node", 2500, WhileItLasts),
            Self::Garbled => of_node("packets doubled and out of order", 6000, Nothing),
            Self::NodeDrained => of_node("node drained", 3000, Nothing),
            Self::Wave => of_all("1,000 Services", 3000),
        }
    }

    /// Whether it befalls one node.
    pub(super) fn is_of_node(self) -> bool {
        self.nature().of_node
    }

    /// Whether only our own router has it: other makes have ways of their own to keep routes over a restart.
    fn is_of_builtin(self) -> bool {
        matches!(self, Self::RouterRestarted | Self::RouterHostile)
    }

    /// What may be lost, in words.
    pub(super) fn costs(self) -> &'static str {
        match self.nature().cost {
            Cost::Nothing => "nothing",
            Cost::WhileItLasts => "requests by that node while it lasts: without BFD only the hold time would notice",
            Cost::Node => "connections to pods of that node, requests until the router has noticed",
        }
    }

    /// The longest that new requests may fail.
    pub(super) fn silence(self, lasts: Duration) -> Duration {
        match self.nature().cost {
            Cost::Nothing => Duration::ZERO,
            Cost::WhileItLasts => lasts,
            Cost::Node => NOTICED,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.nature().name)
    }
}

/// Steps for so long; every fault comes before one comes again.
pub(super) fn schedule(seed: u64, nodes: usize, builtin: bool, length: Duration) -> Vec<Step> {
    let mut chance = Chance(seed);
    let (mut steps, mut left, mut bag) = (Vec::new(), length, Vec::new());
    loop {
        if bag.is_empty() {
            bag = FAULTS.into_iter().filter(|fault| builtin || !fault.is_of_builtin()).collect();
        }
        let fault = bag.swap_remove(chance.below(bag.len()));
        let lasts = Duration::from_millis(SHORTEST + chance.next() % (fault.nature().longest - SHORTEST));
        let (node, written, deleted) = (chance.below(nodes), chance.below(4), chance.below(4));
        let step = Step { fault, node, lasts, written, deleted, seed: chance.next() };
        let Some(rest) = left.checked_sub(lasts + SETTLES) else { return steps };
        left = rest;
        steps.push(step);
    }
}

/// splitmix64: small, and the same everywhere.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
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
        let of = |seed, builtin| schedule(seed, 3, builtin, minutes(3));
        for seed in 1..=5 {
            let steps = of(seed, true);
            assert_eq!(steps, of(seed, true));
            let kinds: BTreeSet<Fault> = steps.iter().map(|step| step.fault).collect();
            assert_eq!(kinds.len(), FAULTS.len(), "seed {seed}: {steps:?}");
            let took: Duration = steps.iter().map(|step| step.lasts + SETTLES).sum();
            assert!(took <= minutes(3) && took > minutes(2), "{took:?}");
            assert!(steps.iter().all(|step| step.node < 3));
        }
        assert_ne!(of(1, true), of(2, true));
        assert!(of(1, false).iter().all(|step| step.fault != Fault::RouterRestarted), "other routers keep nothing");
    }
}
