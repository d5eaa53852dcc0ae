//! Whether what a daemon takes of the machine stays what it was. Pure.
//!
//! A single sample says little: what an allocator gives back to the kernel, and when, is worth some percent. So minute five is
//! the median of the five samples around it, and the end the median of the last five.

use std::collections::BTreeMap;

use crate::lab::{
    process::Usage,
    report::{Expectation, Sample},
};

/// By then everything has been done a few times, and buffers are as large as they get.
const WARM: u64 = 5;
/// Samples around a moment.
const AROUND: u64 = 2;
/// A run of so many minutes has the two moments apart from each other.
const SHORTEST: u64 = 12;
/// How much more memory, in percent of what it was, is still the same.
const PERCENT: u64 = 5;
/// Connections of the lab's own looks, and threads for blocking calls, come and go.
const SPARE: u32 = 4;

/// Memory, files and threads of each daemon at the end against those of minute five; `None` where the run was too short.
pub(super) fn judge(samples: &[Sample]) -> Option<Vec<Expectation>> {
    let mut daemons: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        daemons.entry(&sample.daemon).or_default().push(sample);
    }
    daemons.into_iter().map(|(daemon, all)| of_daemon(daemon, &all)).collect()
}

fn of_daemon(daemon: &str, all: &[&Sample]) -> Option<Expectation> {
    let around = |sample: &&&Sample| sample.minute.abs_diff(WARM) <= AROUND;
    let early: Vec<Usage> = all.iter().filter(around).map(|sample| sample.usage).collect();
    let late: Vec<Usage> = all.iter().rev().take(1 + 2 * AROUND as usize).map(|sample| sample.usage).collect();
    let minute = all.last()?.minute;
    if minute < SHORTEST || early.is_empty() {
        return None;
    }
    let (was, is) = (median(&early), median(&late));
    let is_flat = u64::from(is.resident) * 100 <= u64::from(was.resident) * (100 + PERCENT);
    let words = |minute: u64, usage: Usage| {
        let Usage { resident, files, threads, .. } = usage;
        format!("{resident} KiB, {files} files, {threads} threads about minute {minute}")
    };
    Some(Expectation {
        name: format!("{daemon} takes what it took"),
        expected: format!("at most {PERCENT} % of memory, {SPARE} files and {SPARE} threads more"),
        seen: format!("{}; {}", words(WARM, was), words(minute, is)),
        ok: is_flat && is.files <= was.files + SPARE && is.threads <= was.threads + SPARE,
        waiting: None,
    })
}

/// Of each number by itself.
fn median(usages: &[Usage]) -> Usage {
    let of = |number: fn(&Usage) -> u32| {
        let mut all: Vec<u32> = usages.iter().map(number).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Usage {
        resident: of(|usage| usage.resident),
        anonymous: of(|usage| usage.anonymous),
        files: of(|usage| usage.files),
        threads: of(|usage| usage.threads),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: u64, resident: u32, files: u32, threads: u32) -> Sample {
        let usage = Usage { resident, anonymous: resident / 2, files, threads };
        Sample { minute, daemon: "n1".into(), usage, flows: 0 }
    }

    /// Growth until minute three, one peak at minute five, then what is given until the end.
    fn ok(resident: u32, files: u32, threads: u32) -> bool {
        let early = (0..8).map(|minute| match minute {
            0..3 => sample(minute, 10_000, 20, 5),
            5 => sample(minute, 90_000, 30, 8),
            _ => sample(minute, 20_000, 30, 8),
        });
        let late = (8..=60).map(|minute| sample(minute, resident, files, threads));
        let judged = judge(&early.chain(late).collect::<Vec<_>>()).expect("long enough");
        judged.iter().all(|expectation| expectation.ok)
    }

    #[test]
    fn growth_since_minute_five_is_told_from_what_comes_and_goes() {
        assert!(ok(21_000, 34, 12), "within five percent and four");
        assert!(!ok(21_001, 30, 8), "memory");
        assert!(!ok(20_000, 35, 8), "files");
        assert!(!ok(20_000, 30, 13), "threads");
        let short: Vec<Sample> = (0..12).map(|minute| sample(minute, 1, 1, 1)).collect();
        assert!(judge(&short).is_none(), "too short");
    }
}
