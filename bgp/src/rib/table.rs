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

/// A set of routes, sorted by prefix, no prefix twice.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(super) attributes: Vec<Arc<Attributes>>,
    pub(super) v4: Vec<Entry<Ipv4Net>>,
    pub(super) v6: Vec<Entry<Ipv6Net>>,
    /// What the caller gave; without it the Adj-RIB-Out would be copied for every question.
    pub(super) source: Arc<[Route]>,
}

impl Table {
    /// The table of a set of routes. Of two with one prefix the later counts.
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

    /// Whether the table was made of this very set.
    pub(crate) fn is_of(&self, source: &Arc<[Route]>) -> bool {
        Arc::ptr_eq(&self.source, source)
    }

    /// Whether a prefix was given twice.
    pub(super) fn has_duplicates(&self) -> bool {
        self.v4.len() + self.v6.len() != self.source.len()
    }
}

fn order<P: Ord + Copy>(entries: &mut Vec<Entry<P>>) {
    if entries.is_sorted_by(|a, b| a.prefix < b.prefix) {
        return;
    }
    entries.reverse();
    entries.sort_by_key(|e| e.prefix);
    entries.dedup_by_key(|e| e.prefix);
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
    fn later_of_two_routes_with_one_prefix_counts() {
        let table = Table::new([route("10.0.0.1/32", 1), route("10.0.0.0/32", 3), route("10.0.0.1/32", 2)].into());
        assert_eq!(table.v4.len(), 2);
        assert_eq!(table.attributes[table.v4[1].attributes as usize].med, Some(2));
        assert!(table.has_duplicates());
    }
}
