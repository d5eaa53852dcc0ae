//! A plain cache of what was seen; knows no client, does no I/O. Both sources feed it, one task owns it.
//!
//! ```text
//!  list begins ─▶ apply … ─▶ list ends      per kind; what the list did not hold is deleted
//!  apply, delete, reject                    changes
//!  snapshot                                 None until the first list of every expected kind has ended
//! ```
//!
//! Objects are converted when they come, so that nothing of their size is kept. Nothing that works is lost by
//! a bad edit: an object that turns invalid stays in use as it last was, and a [`Problem`] says so.

mod object;

pub use object::{Kind, Object, ObjectKey};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::types::{Problem, ServiceKey, Snapshot};

/// The cache.
#[derive(Debug, Default)]
pub struct Index {
    pending: BTreeSet<Kind>,
}

impl Index {
    /// An empty cache that is complete when a list of each of these kinds has ended.
    pub fn new(expected: impl IntoIterator<Item = Kind>) -> Self {
        Self { pending: expected.into_iter().collect() }
    }

    /// A complete list of this kind begins: the objects follow by [`Self::apply`] and [`Self::reject`], then
    /// [`Self::list_ends`]. What was known stays in use until then.
    pub fn list_begins(&mut self, kind: Kind) {
        let _ = kind;
    }

    /// The list is complete: objects of the kind that were not seen since [`Self::list_begins`] are gone.
    pub fn list_ends(&mut self, kind: Kind) {
        self.pending.remove(&kind);
    }

    /// A complete list at once.
    pub fn reset(&mut self, kind: Kind, objects: impl IntoIterator<Item = Object>) {
        self.list_begins(kind);
        objects.into_iter().for_each(|object| self.apply(&object));
        self.list_ends(kind);
    }

    /// An object is new or changed.
    pub fn apply(&mut self, object: &Object) {
        let _ = object;
    }

    /// An object is there but could not be decoded: its last valid version stays in use.
    pub fn reject(&mut self, kind: Kind, key: ObjectKey, problem: Problem) {
        let _ = (kind, key, problem);
    }

    /// An object is gone.
    pub fn delete(&mut self, kind: Kind, key: &ObjectKey) {
        let _ = (kind, key);
    }

    /// From now on addresses of Services come from this record and not from their status (manifest mode).
    pub fn assign(&mut self, record: BTreeMap<ServiceKey, Vec<IpAddr>>) {
        let _ = record;
    }

    /// Kinds whose first complete list is still awaited.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.pending.iter().copied()
    }

    /// Everything that is known, once it is complete. What is valid by itself but not beside the others
    /// (overlapping pools …) is settled here, in favour of what was in use before.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        self.pending.is_empty().then(Snapshot::default)
    }
}
