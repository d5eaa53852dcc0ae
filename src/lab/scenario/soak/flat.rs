//! Whether what a daemon takes of the machine stays what it was. Pure.

use std::collections::BTreeMap;

use crate::lab::{
    process::Usage,
    report::{Expectation, Sample},
};

/// By then everything has been done a few times, and buffers are as large as they get.
const WARM: u64 = 5;
/// A run is judged when it goes on for so long after that.
const AFTER: u64 = 5;
/// How much more memory, in percent of what it was, is still the same.
const PERCENT: u64 = 5;
/// Connections of the lab's own looks, and threads for blocking calls, come and go.
const SPARE: u32 = 4;

/// Memory, files and threads of each daemon at its last sample against those of minute five; `None` where the run was too
/// short.
pub(super) fn judge(samples: &[Sample]) -> Option<Vec<Expectation>> {
    let mut daemons: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.minute >= WARM) {
        daemons.entry(&sample.daemon).or_default().push(sample);
    }
    let long = |all: &Vec<&Sample>| all.last().is_some_and(|last| last.minute >= WARM + AFTER);
    if daemons.is_empty() || !daemons.values().all(long) {
        return None;
    }
    Some(daemons.into_iter().map(|(daemon, all)| against(daemon, all[0], all[all.len() - 1])).collect())
}

fn against(daemon: &str, first: &Sample, last: &Sample) -> Expectation {
    let (was, is) = (first.usage, last.usage);
    let is_flat = u64::from(is.resident) * 100 <= u64::from(was.resident) * (100 + PERCENT);
    let words = |minute: u64, usage: Usage| {
        let Usage { resident, files, threads, .. } = usage;
        format!("{resident} KiB, {files} files, {threads} threads at minute {minute}")
    };
    Expectation {
        name: format!("{daemon} takes what it took"),
        expected: format!("at most {PERCENT} % and {SPARE} more than {}", words(first.minute, was)),
        seen: format!("{}; {}", words(first.minute, was), words(last.minute, is)),
        ok: is_flat && is.files <= was.files + SPARE && is.threads <= was.threads + SPARE,
        waiting: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: u64, resident: u32, files: u32, threads: u32) -> Sample {
        let usage = Usage { resident, anonymous: resident / 2, files, threads };
        Sample { minute, daemon: "n1".into(), usage, flows: 0 }
    }

    fn ok(last: Sample) -> bool {
        let samples = [sample(1, 10_000, 20, 5), sample(5, 20_000, 30, 8), sample(30, 40_000, 90, 30), last];
        judge(&samples).expect("long enough").iter().all(|expectation| expectation.ok)
    }

    #[test]
    fn growth_since_minute_five_is_told_from_what_comes_and_goes() {
        assert!(ok(sample(60, 21_000, 34, 12)), "within five percent and four");
        assert!(!ok(sample(60, 21_001, 30, 8)), "memory");
        assert!(!ok(sample(60, 20_000, 35, 8)), "files");
        assert!(!ok(sample(60, 20_000, 30, 13)), "threads");
        assert!(judge(&[sample(5, 1, 1, 1), sample(9, 1, 1, 1)]).is_none(), "too short");
    }
}
