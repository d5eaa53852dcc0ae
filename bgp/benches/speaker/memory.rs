//! The resident set of this process and its peak.

use std::fs;

fn field(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Forgets the peak and returns what is resident now, in octets.
pub(crate) fn reset_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    field("VmRSS:")
}

/// The largest resident set since then, in octets.
pub(crate) fn peak() -> u64 {
    field("VmHWM:")
}
