//! What of two tables a peer has to be told.

use std::{collections::HashMap, sync::Arc};

use super::{
    Attributes, Encoding, Table,
    table::{Common, Told},
};
use crate::wire::{
    NextHop,
    nlri::{Destination, Prefix},
};

/// Prefixes that went, and those that came or changed, by their attributes. What this session could not carry
/// before need not be withdrawn.
pub(super) struct Difference<'a, D> {
    pub(super) withdrawn: Vec<D>,
    pub(super) announced: Vec<Group<'a, D>>,
}

/// Destinations that share their attributes.
pub(super) struct Group<'a, D> {
    pub(super) attributes: &'a Arc<Attributes>,
    /// `None` where this session cannot carry them; there are no destinations then.
    pub(super) hop: Option<NextHop>,
    pub(super) destinations: Vec<D>,
}

impl<'a, D: Destination> Difference<'a, D> {
    pub(super) fn new(old: &'a Table, new: &'a Table, encoding: &Encoding, refresh: bool) -> Self {
        let family = D::Prefix::FAMILY;
        let same = if refresh { Common::default() } else { new.common(old, family) };
        let mut withdrawn = Vec::new();
        let mut groups = Groups::new(encoding);
        let told = |path: &Told<'_, D::Prefix>| encoding.next_hop(family, path.attributes).is_some();
        let destination = |path: Told<'_, D::Prefix>| D::new(path.prefix, path.id);
        let mut rest = old.paths::<D::Prefix>(D::PATHS, same).peekable();
        for path in new.paths::<D::Prefix>(D::PATHS, same) {
            let key = (path.prefix, path.id);
            while let Some(gone) = rest.next_if(|o| (o.prefix, o.id) < key) {
                withdrawn.extend(Some(gone).filter(told).map(destination));
            }
            let before = rest.next_if(|o| (o.prefix, o.id) == key);
            if !refresh && before.is_some_and(|b| is_same(b.attributes, path.attributes)) {
                continue;
            }
            let group = groups.of(path.attributes);
            match group.hop {
                Some(_) => group.destinations.push(destination(path)),
                None => withdrawn.extend(before.filter(told).map(destination)),
            }
        }
        withdrawn.extend(rest.filter(told).map(destination));
        Self { withdrawn, announced: groups.list }
    }
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
