//! A set of routes in the form that differences are computed in.

use std::{collections::HashMap, sync::Arc};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Attributes, Route};

/// A prefix and the number of its attributes in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<P> {
    pub(super) prefix: P,
    pub(super) attributes: u32,
}

/// A set of routes, sorted by prefix; several paths to one prefix stand in the caller's order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(super) attributes: Vec<Arc<Attributes>>,
    pub(super) v4: Vec<Entry<Ipv4Net>>,
    pub(super) v6: Vec<Entry<Ipv6Net>>,
    /// What the caller gave; without it the Adj-RIB-Out would be copied for every question.
    pub(super) source: Arc<[Route]>,
}

impl Table {
    /// The table of a set of routes.
    pub(crate) fn new(source: Arc<[Route]>) -> Self {
        let mut table = Self::default();
        let mut numbers = Numbers::default();
        for route in source.iter() {
            let attributes = numbers.number(&route.attributes, &mut table.attributes);
            match route.prefix {
                IpNet::V4(prefix) => table.v4.push(Entry { prefix: prefix.trunc(), attributes }),
                IpNet::V6(prefix) => table.v6.push(Entry { prefix: prefix.trunc(), attributes }),
            }
        }
        order(&mut table.v4);
        order(&mut table.v6);
        table.source = source;
        table
    }

    /// A table of the first `count` routes of the set, and the routes after them; `None` if there are none.
    pub(crate) fn first(&self, count: usize) -> Option<(Self, Arc<[Route]>)> {
        let (first, rest) = self.source.split_at_checked(count).filter(|(_, rest)| !rest.is_empty())?;
        Some((Self::new(first.into()), rest.into()))
    }

    /// Whether the table was made of this very set.
    pub(crate) fn is_of(&self, source: &Arc<[Route]>) -> bool {
        Arc::ptr_eq(&self.source, source)
    }

    /// Whether a prefix has several paths, or the very same route was given twice.
    pub(super) fn has_duplicates(&self) -> bool {
        let several = |n: usize, paths: usize| n != paths;
        several(count(&self.v4), self.v4.len())
            || several(count(&self.v6), self.v6.len())
            || self.v4.len() + self.v6.len() != self.source.len()
    }
}

/// How many prefixes there are.
fn count<P: PartialEq>(entries: &[Entry<P>]) -> usize {
    entries.chunk_by(|a, b| a.prefix == b.prefix).count()
}

/// The sort is stable, so paths to one prefix keep their order.
fn order<P: Ord + Copy>(entries: &mut Vec<Entry<P>>) {
    if entries.is_sorted_by(|a, b| a.prefix < b.prefix) {
        return;
    }
    entries.sort_by_key(|e| e.prefix);
    entries.dedup();
}

/// Numbers sets of attributes: by identity where possible, by value elsewhere.
#[derive(Default)]
struct Numbers {
    last: Option<(*const Attributes, u32)>,
    known: HashMap<Arc<Attributes>, u32>,
}

impl Numbers {
    fn number(&mut self, attributes: &Arc<Attributes>, list: &mut Vec<Arc<Attributes>>) -> u32 {
        let identity = Arc::as_ptr(attributes);
        if let Some((last, number)) = self.last
            && last == identity
        {
            return number;
        }
        let number = *self.known.entry(attributes.clone()).or_insert_with(|| {
            list.push(attributes.clone());
            u32::try_from(list.len() - 1).expect("fewer than 2^32 sets of attributes")
        });
        self.last = Some((identity, number));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, med: u32) -> Route {
        let attributes = Arc::new(Attributes { med: Some(med), ..Attributes::default() });
        Route { prefix: prefix.parse().expect("valid"), attributes }
    }

    #[test]
    fn equal_attributes_share_a_number_even_behind_different_pointers() {
        let table = Table::new([route("10.0.0.2/32", 1), route("10.0.0.1/32", 1), route("2001:db8::/64", 2)].into());
        assert_eq!(table.attributes.len(), 2);
        assert_eq!(table.v4[0].prefix.to_string(), "10.0.0.1/32");
        assert_eq!(table.v4[0].attributes, table.v4[1].attributes);
        assert_eq!(table.v6[0].attributes, 1);
    }

    #[test]
    fn paths_to_one_prefix_keep_their_order_and_the_same_route_counts_once() {
        let twice = route("10.0.0.1/32", 2);
        let table = Table::new([route("10.0.0.1/32", 7), route("10.0.0.0/32", 3), twice.clone(), twice].into());
        let meds: Vec<_> = table.v4.iter().map(|e| table.attributes[e.attributes as usize].med).collect();
        assert_eq!(meds, [Some(3), Some(7), Some(2)]);
        assert!(table.has_duplicates());
    }
}
