//! How long to wait before asking again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubles from `first` to `most`, each wait jittered so that a thousand nodes do not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.most);
        jitter(wait)
    }

    /// It worked: the next failure waits shortly again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between 75 % and 125 % of `duration`, evenly.
pub(crate) fn jitter(duration: Duration) -> Duration {
    // Every RandomState has fresh keys, which is randomness enough to spread a herd.
    let random = RandomState::new().hash_one(0u8) >> 32;
    duration.mul_f64(0.75 + 0.5 * (random as f64 / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
        for base in [1.0, 2.0, 3.0, 3.0] {
            let wait = backoff.wait().as_secs_f64();
            assert!((base * 0.75..=base * 1.25).contains(&wait), "{wait} around {base}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(1250));
    }

    #[test]
    fn jitter_differs_from_call_to_call() {
        let second = Duration::from_secs(1);
        assert!((0..10).any(|_| jitter(second) != jitter(second)));
    }
}
