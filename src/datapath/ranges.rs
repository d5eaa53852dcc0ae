//! Ranges of an array, given out and taken back.

use std::collections::BTreeMap;

/// Free ranges of an array.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// Start to length; neighbours are joined.
    free: BTreeMap<u32, u32>,
}

impl Ranges {
    /// All of an array of so many entries.
    pub fn new(entries: u32) -> Self {
        Self { free: BTreeMap::from([(0, entries)]) }
    }

    /// The first range that is long enough; `None` when the array is too full.
    pub fn take(&mut self, length: u32) -> Option<u32> {
        let (&start, &found) = self.free.iter().find(|(_, l)| **l >= length)?;
        self.free.remove(&start);
        if found > length {
            self.free.insert(start + length, found - length);
        }
        Some(start)
    }

    /// Takes a range back.
    pub fn give(&mut self, mut start: u32, mut length: u32) {
        if length == 0 {
            return;
        }
        if let Some((&before, &l)) = self.free.range(..start).next_back().filter(|(s, l)| *s + *l == start) {
            self.free.remove(&before);
            (start, length) = (before, length + l);
        }
        if let Some(l) = self.free.remove(&(start + length)) {
            length += l;
        }
        self.free.insert(start, length);
    }

    /// Entries that are free.
    pub fn left(&self) -> u32 {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_joined_and_taken_again() {
        let mut ranges = Ranges::new(100);
        let taken: Vec<u32> = (0..10).map(|_| ranges.take(10).expect("there is room")).collect();
        assert_eq!(ranges.take(1), None);
        for &start in taken.iter().rev().step_by(2).chain(taken.iter().step_by(2)) {
            ranges.give(start, 10);
        }
        assert_eq!(ranges.left(), 100);
        assert_eq!(ranges.take(100), Some(0));
    }
}
