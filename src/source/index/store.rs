//! The objects of one kind: their last valid values, and what is wrong with their newest versions.

use std::collections::BTreeMap;

use super::ObjectKey;
use crate::{
    source::convert::Converted,
    types::{Problem, Severity},
};

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Store<T> {
    entries: BTreeMap<ObjectKey, Entry<T>>,
    /// Only of objects that have any.
    problems: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Number of the list that is being received, or was last.
    round: u64,
}

#[derive(Debug)]
struct Entry<T> {
    /// The last valid version; `None` where there never was one.
    value: Option<T>,
    created: i64,
    seen: u64,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), problems: BTreeMap::new(), round: 0 }
    }
}

impl<T: PartialEq> Store<T> {
    /// A new version of an object. A version without a value leaves the last valid one in use. Returns whether
    /// anything changed.
    pub(super) fn put(&mut self, key: ObjectKey, created: i64, converted: Converted<T>) -> bool {
        let Converted { value, mut problems } = converted;
        let entry = self.entries.entry(key.clone()).or_insert(Entry { value: None, created, seen: 0 });
        entry.seen = self.round;
        let mut changed = entry.created != created;
        entry.created = created;
        match value {
            // One that is the same stays, and what others share with it.
            Some(value) if entry.value.as_ref() == Some(&value) => {}
            Some(value) => (entry.value, changed) = (Some(value), true),
            None if entry.value.is_some() => problems.iter_mut().for_each(still_in_use),
            None => {}
        }
        changed | self.set_problems(key, problems)
    }

    /// An object whose newest version could not even be decoded.
    pub(super) fn reject(&mut self, key: ObjectKey, problem: Problem) -> bool {
        let created = self.entries.get(&key).map_or(0, |entry| entry.created);
        self.put(key, created, Converted { value: None, problems: vec![problem] })
    }

    /// The object is gone.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.problems.remove(key);
        self.entries.remove(key).is_some()
    }

    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// The keys that the list did not hold.
    pub(super) fn unseen(&self) -> Vec<ObjectKey> {
        self.entries.iter().filter(|(_, entry)| entry.seen < self.round).map(|(key, _)| key.clone()).collect()
    }

    /// The value in use.
    pub(super) fn value(&self, key: &ObjectKey) -> Option<&T> {
        self.entries.get(key)?.value.as_ref()
    }

    /// The value in use, to change it.
    pub(super) fn value_mut(&mut self, key: &ObjectKey) -> Option<&mut T> {
        self.entries.get_mut(key)?.value.as_mut()
    }

    /// Every value in use, with the time of its object's creation.
    pub(super) fn values(&self) -> impl Iterator<Item = (&ObjectKey, i64, &T)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, entry.created, entry.value.as_ref()?)))
    }

    /// What is wrong with the newest versions.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    fn set_problems(&mut self, key: ObjectKey, problems: Vec<Problem>) -> bool {
        match problems.is_empty() {
            true => self.problems.remove(&key).is_some(),
            false => self.problems.insert(key, problems.clone()).is_none_or(|before| before != problems),
        }
    }
}

/// Says that an object's last valid version goes on.
pub(super) fn still_in_use(problem: &mut Problem) {
    if problem.severity == Severity::Error {
        problem.message.push_str(" (the last valid version stays in use)");
    }
}
