//! Values that many objects have in common, once in memory.

use std::{collections::BTreeSet, sync::Arc};

/// See the module.
#[derive(Debug)]
pub(super) struct Words<T: ?Sized> {
    known: BTreeSet<Arc<T>>,
    /// With more than this it is time to forget those that nobody has any more.
    room: usize,
}

impl<T: ?Sized> Default for Words<T> {
    fn default() -> Self {
        Self { known: BTreeSet::new(), room: 64 }
    }
}

impl<T: ?Sized + Ord> Words<T> {
    /// The one of this value.
    pub(super) fn one_of(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(value) {
            return known.clone();
        }
        if self.known.len() >= self.room {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.room = 2 * self.known.len().max(32);
        }
        self.known.insert(value.clone());
        value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_become_one_and_those_that_nobody_has_are_forgotten() {
        let mut words = Words::<str>::default();
        let [one, other] = [Arc::from("a"), Arc::from("a")];
        assert!(Arc::ptr_eq(&words.one_of(&one), &words.one_of(&other)));
        for n in 0..10_000 {
            words.one_of(&n.to_string().into());
        }
        assert!(
            words.known.len() <= words.room && words.known.contains("a"),
            "{} of {}",
            words.known.len(),
            words.room
        );
    }
}
