//! Random shortening of timers, so that many peers do not act in one instant (RFC 4271 §10).

use std::time::Duration;

/// A source of jitter; deterministic for a seed, which is all that tests need.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// A source from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent source.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// The time less up to a quarter.
    pub(crate) fn shorten(&mut self, time: Duration) -> Duration {
        let part = u32::try_from(self.next() >> 40).expect("24 bits");
        time - time / 4 * (part >> 8) / (1 << 16)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shortened_by_at_most_a_quarter() {
        let mut jitter = Jitter::new(7);
        let times: Vec<_> = (0..1000).map(|_| jitter.shorten(Duration::from_secs(60))).collect();
        assert!(times.iter().all(|t| (45..=60).contains(&t.as_secs())));
        assert!(times.iter().max() > times.iter().min());
    }
}
