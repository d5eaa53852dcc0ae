//! Waiting after failures, and the numbers that spread it.

use std::time::{Duration, SystemTime};

/// A stream of numbers that nobody guesses as long as the seed is not known to them (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// When something that failed may be tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    failures: u32,
    pub(super) until: SystemTime,
}

impl Default for Retry {
    fn default() -> Self {
        Self { failures: 0, until: SystemTime::UNIX_EPOCH }
    }
}

impl Retry {
    pub(super) fn may(&self, now: SystemTime) -> bool {
        now >= self.until
    }

    pub(super) fn success(&mut self, now: SystemTime) {
        *self = Self { failures: 0, until: self.until.min(now) };
    }

    /// Doubles the wait, between 75 % and 125 % of it; never shorter than what was `asked` for.
    pub(super) fn fail(
        &mut self,
        now: SystemTime,
        (first, most): (Duration, Duration),
        asked: Option<Duration>,
        random: &mut Random,
    ) {
        let wait = first.saturating_mul(1 << self.failures.min(20)).min(most);
        let spread = 0.75 + 0.5 * ((random.next() >> 40) as f64 / (1_u64 << 24) as f64);
        self.failures = self.failures.saturating_add(1);
        self.until = now + wait.mul_f64(spread).max(asked.unwrap_or_default());
    }
}
