//! The books: what every fault cost, and whether it had to. Pure.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::schedule::{Fault, Step};

/// Pods with their connections that are alive and dead.
pub(super) type Pods = BTreeMap<String, [usize; 2]>;

/// What one step cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entry {
    /// Connections that died though their pod and its node lived.
    pub(super) lost: usize,
    /// Connections that died with their node's cable.
    pub(super) unavoidable: usize,
    /// New requests that failed.
    pub(super) failed: u64,
    /// Requests that were answered.
    pub(super) answered: u64,
    /// Time for which requests failed.
    pub(super) black_hole: Duration,
    /// Addresses recorded in the end that no Service has.
    pub(super) leaked: usize,
    /// Addresses routed in the end that no Service has.
    pub(super) stray: usize,
}

impl Entry {
    /// From the counts before and after; `dead` pods are those of a node that was cut off. A request is sent every `pause`.
    pub(super) fn new(
        [before, after]: [&Pods; 2],
        dead: impl Fn(&str) -> bool,
        [failed, answered]: [u64; 2],
        pause: Duration,
    ) -> Self {
        let mut entry = Self { failed, answered, ..Self::default() };
        entry.black_hole = pause * u32::try_from(failed).unwrap_or(u32::MAX);
        for (pod, [_, gone]) in after {
            let new = gone - before.get(pod).map_or(0, |[_, gone]| *gone);
            *if dead(pod) { &mut entry.unavoidable } else { &mut entry.lost } += new;
        }
        entry
    }

    /// With what was found in the end.
    pub(super) fn with(self, leaked: usize, stray: usize) -> Self {
        Self { leaked, stray, ..self }
    }

    /// Within what the fault may cost.
    pub(super) fn is_bearable(&self, step: &Step) -> bool {
        self.lost + self.leaked + self.stray == 0 && self.black_hole <= step.fault.silence(step.lasts)
    }

    /// Connections that died.
    pub(super) fn died(&self) -> usize {
        self.lost + self.unavoidable
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, unavoidable, failed, answered, black_hole, leaked, stray } = self;
        write!(
            f,
            "{lost} connections lost, {unavoidable} that had to be; {failed} of {} requests failed",
            answered + failed
        )?;
        if !black_hole.is_zero() {
            write!(f, ", {:.2} s of black hole", black_hole.as_secs_f64())?;
        }
        if leaked + stray > 0 {
            write!(f, "; {leaked} addresses leaked, {stray} routed and nobody's")?;
        }
        Ok(())
    }
}

/// All steps.
#[derive(Debug, Default)]
pub(super) struct Ledger(Vec<(Step, Entry)>);

impl Ledger {
    pub(super) fn book(&mut self, step: &Step, entry: Entry) {
        self.0.push((step.clone(), entry));
    }

    pub(super) fn steps(&self) -> usize {
        self.0.len()
    }

    /// Connections lost that need not have been.
    pub(super) fn lost(&self) -> usize {
        self.0.iter().map(|(_, entry)| entry.lost).sum()
    }

    /// Connections lost that had to be.
    pub(super) fn unavoidable(&self) -> usize {
        self.0.iter().map(|(_, entry)| entry.unavoidable).sum()
    }

    /// Addresses that nobody has any more and that are recorded still.
    pub(super) fn leaked(&self) -> usize {
        self.0.iter().map(|(_, entry)| entry.leaked).sum()
    }

    /// Addresses that nobody has any more and that are routed still.
    pub(super) fn stray(&self) -> usize {
        self.0.iter().map(|(_, entry)| entry.stray).sum()
    }

    /// Time for which requests failed, whether they might or not.
    pub(super) fn dark(&self) -> Duration {
        self.0.iter().map(|(_, entry)| entry.black_hole).sum()
    }

    /// Requests that failed where nothing may.
    pub(super) fn failed(&self) -> u64 {
        let strict = self.0.iter().filter(|(step, _)| step.fault.silence(step.lasts).is_zero());
        strict.map(|(_, entry)| entry.failed).sum()
    }

    /// Time for which requests failed, beyond what the faults may cost.
    pub(super) fn overdue(&self) -> Duration {
        self.0.iter().map(|(step, entry)| entry.black_hole.saturating_sub(step.fault.silence(step.lasts))).sum()
    }

    /// Steps by fault: how often, what was lost of connections in all, what failed of requests.
    pub(super) fn by_fault(&self) -> BTreeMap<Fault, [u64; 3]> {
        let mut sums: BTreeMap<Fault, [u64; 3]> = BTreeMap::new();
        for (step, entry) in &self.0 {
            let sum = sums.entry(step.fault).or_default();
            *sum = [sum[0] + 1, sum[1] + entry.died() as u64, sum[2] + entry.failed];
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_died_with_its_node_is_excused() {
        let pods = |a: usize, b: usize| Pods::from([("a".into(), [10 - a, a]), ("b".into(), [10 - b, b])]);
        let pause = Duration::from_millis(10);
        let step = |fault| Step { fault, node: 0, lasts: Duration::from_secs(1), written: 0, deleted: 0, seed: 0 };
        let cut = Entry::new([&pods(1, 0), &pods(4, 0)], |pod| pod == "a", [20, 500], pause);
        assert_eq!((cut.lost, cut.unavoidable, cut.black_hole), (0, 3, Duration::from_millis(200)));
        assert!(cut.is_bearable(&step(Fault::CableCut)) && !cut.is_bearable(&step(Fault::DaemonKilled)));
        let needless = Entry::new([&pods(0, 0), &pods(0, 1)], |pod| pod == "a", [0, 500], pause);
        assert!(!needless.is_bearable(&step(Fault::CableCut)), "b's node lived");
        let silent = Entry::new([&pods(0, 0), &pods(0, 0)], |_| false, [80, 500], pause);
        assert!(!silent.is_bearable(&step(Fault::CableCut)), "for too long");
        let leaking = silent.clone().with(1, 0);
        assert!(!Entry { black_hole: Duration::ZERO, ..leaking }.is_bearable(&step(Fault::CableCut)), "for ever");
        let mut ledger = Ledger::default();
        ledger.book(&step(Fault::CableCut), silent);
        ledger.book(&step(Fault::LossToNode), cut);
        assert_eq!((ledger.lost(), ledger.failed(), ledger.overdue()), (0, 0, Duration::from_millis(300)));
        assert_eq!((ledger.unavoidable(), ledger.dark()), (3, Duration::from_millis(1000)));
    }
}
