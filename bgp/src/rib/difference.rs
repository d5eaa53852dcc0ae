//! What of two sets a peer has to be told.

use std::{collections::HashMap, sync::Arc};

use super::{Attributes, Encoding, Routes, chunks::Entry, routes::Part};
use crate::wire::{
    NextHop,
    nlri::{Destination, Prefix},
};

/// Prefixes that went, and those that came or changed, by their attributes. What this session could not carry
/// before need not be withdrawn.
pub(super) struct Difference<'a, D> {
    pub(super) withdrawn: Vec<D>,
    pub(super) announced: Vec<Group<'a, D>>,
    /// There are paths beside the one that is told.
    pub(super) hidden: bool,
}

/// Destinations that share their attributes.
pub(super) struct Group<'a, D> {
    pub(super) attributes: &'a Arc<Attributes>,
    /// `None` where this session cannot carry them; there are no destinations then.
    pub(super) hop: Option<NextHop>,
    pub(super) destinations: Vec<D>,
}

impl<'a, D: Destination<Prefix: Part>> Difference<'a, D> {
    pub(super) fn new(old: &'a Routes, new: &'a Routes, encoding: &Encoding, refresh: bool) -> Self {
        let (old, new) = (D::Prefix::of_set(old), D::Prefix::of_set(new));
        let mut withdrawn = Vec::new();
        let mut groups = Groups::new(encoding);
        let mut hidden = false;
        let was_told = |path: &&Entry<_>| encoding.next_hop(D::Prefix::FAMILY, &path.attributes).is_some();
        for (before, now) in old.beside(new, refresh) {
            hidden |= !D::PATHS && now.len() > 1;
            let (before, now) = (told::<D>(before), told::<D>(now));
            for at in 0..before.len().max(now.len()) {
                let number = u32::try_from(at).map_or(u32::MAX, |n| n + 1);
                let old = before.get(at);
                let Some(path) = now.get(at) else {
                    withdrawn.extend(old.filter(was_told).map(|old| D::new(old.prefix, number)));
                    continue;
                };
                if !refresh && old.is_some_and(|old| is_same(&old.attributes, &path.attributes)) {
                    continue;
                }
                let group = groups.of(&path.attributes);
                match group.hop {
                    Some(_) => group.destinations.push(D::new(path.prefix, number)),
                    None => withdrawn.extend(old.filter(was_told).map(|old| D::new(old.prefix, number))),
                }
            }
        }
        Self { withdrawn, announced: groups.list, hidden }
    }
}

/// Of the paths to a prefix those that a peer is told: all of them, numbered from 1, or the last.
pub(super) fn told<D: Destination>(paths: &[Entry<D::Prefix>]) -> &[Entry<D::Prefix>] {
    if D::PATHS { paths } else { &paths[paths.len().saturating_sub(1)..] }
}

fn is_same(one: &Arc<Attributes>, other: &Arc<Attributes>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Groups by attributes: by identity where possible, by value elsewhere.
struct Groups<'a, 'e, D> {
    encoding: &'e Encoding,
    list: Vec<Group<'a, D>>,
    last: Option<(*const Attributes, usize)>,
    by_identity: HashMap<*const Attributes, usize>,
    by_value: HashMap<&'a Attributes, usize>,
}

impl<'a, 'e, D: Destination> Groups<'a, 'e, D> {
    fn new(encoding: &'e Encoding) -> Self {
        let (by_identity, by_value) = Default::default();
        Self { encoding, list: Vec::new(), last: None, by_identity, by_value }
    }

    fn of(&mut self, attributes: &'a Arc<Attributes>) -> &mut Group<'a, D> {
        let identity = Arc::as_ptr(attributes);
        let at = match self.last {
            Some((last, at)) if last == identity => at,
            _ => self.find(identity, attributes),
        };
        self.last = Some((identity, at));
        &mut self.list[at]
    }

    fn find(&mut self, identity: *const Attributes, attributes: &'a Arc<Attributes>) -> usize {
        *self.by_identity.entry(identity).or_insert_with(|| {
            *self.by_value.entry(attributes).or_insert_with(|| {
                let hop = self.encoding.next_hop(D::Prefix::FAMILY, attributes);
                self.list.push(Group { attributes, hop, destinations: Vec::new() });
                self.list.len() - 1
            })
        })
    }
}
