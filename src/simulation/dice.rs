//! Numbers of one seed.

use std::time::Duration;

use crate::provider::claims::patience::Random;

#[derive(Debug)]
pub(super) struct Dice(pub(super) Random);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Random(seed))
    }

    /// Less than `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.0.next() % n as u64) as usize
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Milliseconds from `least`, less than `most`.
    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.0.next() % (most - least))
    }

    /// One of them.
    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())].clone()) }
    }
}
