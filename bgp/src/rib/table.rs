//! A set of routes in the form that differences are computed in: the caller's own list, read in the order of the
//! prefixes. A list that is sorted already, as the planner's is, costs one look at each route.

use std::sync::{Arc, Weak};

use ipnet::IpNet;

use super::{Attributes, Route};
use crate::{Family, wire::nlri::Prefix};

/// A set of routes, sorted by prefix; several paths to one prefix stand in the caller's order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// What the caller gave.
    source: Arc<[Route]>,
    /// The same, host bits zero; the very same where they were.
    routes: Arc<[Route]>,
    /// The order of the prefixes, where the list has another; a route that is there twice counts once.
    order: Option<Box<[u32]>>,
    /// Whether a prefix has several paths.
    several: bool,
    /// Where IPv6 starts in the order.
    v6: usize,
    /// What it has in common with the table before it.
    since: Option<(Weak<Table>, Common)>,
}

/// How many routes at the start and at the end of two sorted lists are one and the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Common {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Common {
    fn new(old: &[Route], new: &[Route]) -> Self {
        let same =
            |(old, new): &(&Route, &Route)| Arc::ptr_eq(&old.attributes, &new.attributes) && old.prefix == new.prefix;
        let first = old.iter().zip(new).take_while(same).count();
        let last = old[first..].iter().rev().zip(new[first..].iter().rev()).take_while(same).count();
        Self { first, last }
    }
}

/// One path as a peer is told it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a, P> {
    pub(super) prefix: P,
    pub(super) id: u32,
    pub(super) attributes: &'a Arc<Attributes>,
}

impl Table {
    /// The table of a set of routes.
    pub(crate) fn new(source: Arc<[Route]>) -> Self {
        Self::after(None, source)
    }

    /// The table of a set of routes that most likely differs little from the one before: whoever changes a few
    /// routes of many keeps the others' attributes, and those routes need no second look.
    pub(crate) fn after(before: Option<&Arc<Table>>, source: Arc<[Route]>) -> Self {
        let before = before.filter(|table| table.order.is_none());
        let common = before.map_or(Common::default(), |table| Common::new(&table.routes, &source));
        let since = before.map(|table| (Arc::downgrade(table), common));
        // The middle, and its neighbours to compare with.
        let middle = common.first.saturating_sub(1)..(source.len() - common.last + 1).min(source.len());
        let middle = &source[middle];
        let (is_bare, is_sorted) =
            (middle.iter().all(|r| r.prefix == r.prefix.trunc()), middle.is_sorted_by(|a, b| a.prefix < b.prefix));
        let routes = match is_bare {
            true => source.clone(),
            false => source.iter().map(|r| Route { prefix: r.prefix.trunc(), ..r.clone() }).collect(),
        };
        let mut table = Self { source, routes, since, ..Self::default() };
        if !is_bare && !table.routes.is_sorted_by(|a, b| a.prefix < b.prefix) || !is_sorted {
            table.sort();
        }
        let is_v4 = |n: usize| table.route(n).is_some_and(|r| matches!(r.prefix, IpNet::V4(_)));
        table.v6 = partition(table.len(), is_v4);
        table
    }

    /// The sort is stable, so paths to one prefix keep their order.
    fn sort(&mut self) {
        let count = u32::try_from(self.routes.len()).expect("fewer than 2^32 routes");
        let mut order: Vec<u32> = (0..count).collect();
        let route = |n: &u32| &self.routes[*n as usize];
        order.sort_by_key(|n| route(n).prefix);
        order.dedup_by(|a, b| route(a) == route(b));
        self.several = order.is_sorted_by(|a, b| route(a).prefix < route(b).prefix).then_some(()).is_none();
        self.order = Some(order.into());
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

    /// The caller's list, where it says what a peer is told if it is told all of it.
    pub(super) fn source(&self) -> Option<&Arc<[Route]>> {
        let same = Arc::ptr_eq(&self.source, &self.routes) && !self.several && self.len() == self.routes.len();
        same.then_some(&self.source)
    }

    /// Whether there is no route of the family.
    pub(super) fn is_empty(&self, family: Family) -> bool {
        self.count(family) == 0
    }

    fn len(&self) -> usize {
        self.order.as_ref().map_or(self.routes.len(), |order| order.len())
    }

    /// The route at a place of the order.
    fn route(&self, at: usize) -> Option<&Route> {
        match &self.order {
            None => self.routes.get(at),
            Some(order) => order.get(at).map(|n| &self.routes[*n as usize]),
        }
    }

    /// What the table has of a family in common with an older one, as far as that can be told without much ado.
    pub(super) fn common(&self, old: &Table, family: Family) -> Common {
        if self.order.is_some() || old.order.is_some() {
            return Common::default();
        }
        let common = match &self.since {
            Some((before, common)) if std::ptr::eq(before.as_ptr(), old) => *common,
            _ => Common::new(&old.routes, &self.routes),
        };
        let shorter = |family| self.count(family).min(old.count(family));
        match family {
            Family::Ipv4Unicast => {
                let first = common.first.min(shorter(family));
                let same6 = self.count(Family::Ipv6Unicast) == old.count(Family::Ipv6Unicast);
                let beyond = if same6 { common.last.saturating_sub(self.count(Family::Ipv6Unicast)) } else { 0 };
                Common { first, last: beyond.min(shorter(family) - first) }
            }
            Family::Ipv6Unicast => {
                let first = common.first.saturating_sub(self.v6).min(shorter(family));
                Common { first, last: common.last.min(shorter(family) - first) }
            }
        }
    }

    fn count(&self, family: Family) -> usize {
        match family {
            Family::Ipv4Unicast => self.v6,
            Family::Ipv6Unicast => self.len() - self.v6,
        }
    }

    /// The paths of a family in order, but the first and the last so many routes: every path, numbered
    /// from 1 for each prefix, or only the last to each prefix.
    pub(super) fn paths<P: Prefix>(&self, several: bool, without: Common) -> impl Iterator<Item = Told<'_, P>> {
        let (start, end) = match P::FAMILY {
            Family::Ipv4Unicast => (0, self.v6),
            Family::Ipv6Unicast => (self.v6, self.len()),
        };
        let (mut at, end, mut id) = (start + without.first, end - without.last, 0);
        std::iter::from_fn(move || {
            while at < end {
                let route = self.route(at)?;
                at += 1;
                let last = !self.several || self.route(at).is_none_or(|next| next.prefix != route.prefix);
                let this = id + 1;
                id = if last { 0 } else { this };
                if several || last {
                    let id = if several { this } else { 1 };
                    return Some(Told { prefix: P::of(route.prefix)?, id, attributes: &route.attributes });
                }
            }
            None
        })
    }
}

/// How many of the first `count` numbers are below the place where the predicate turns false.
fn partition(count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use ipnet::{Ipv4Net, Ipv6Net};

    use super::*;

    fn route(prefix: &str, med: u32) -> Route {
        let attributes = Arc::new(Attributes { med: Some(med), ..Attributes::default() });
        Route { prefix: prefix.parse().expect("valid"), attributes }
    }

    fn told<P: Prefix>(table: &Table, several: bool) -> Vec<(String, u32, Option<u32>)> {
        let word = |t: Told<'_, P>| (t.prefix.into().to_string(), t.id, t.attributes.med);
        table.paths::<P>(several, Common::default()).map(word).collect()
    }

    fn line(prefix: &str, id: u32, med: u32) -> (String, u32, Option<u32>) {
        (prefix.into(), id, Some(med))
    }

    #[test]
    fn routes_are_read_in_the_order_of_their_prefixes_by_family() {
        let table = Table::new([route("2001:db8::/64", 2), route("10.0.0.2/32", 1), route("10.0.0.1/32", 3)].into());
        assert_eq!(told::<Ipv4Net>(&table, false), [line("10.0.0.1/32", 1, 3), line("10.0.0.2/32", 1, 1)]);
        assert_eq!(told::<Ipv6Net>(&table, true), [line("2001:db8::/64", 1, 2)]);
        assert!(table.source().is_some());
    }

    #[test]
    fn what_two_tables_share_is_told_by_family_and_with_or_without_a_hint() {
        let all = [
            route("10.0.0.1/32", 1),
            route("10.0.0.2/32", 1),
            route("10.0.0.3/32", 1),
            route("2001:db8::1/128", 1),
            route("2001:db8::2/128", 1),
        ];
        let mut changed = all.clone();
        changed[1] = route("10.0.0.2/32", 9);
        let old = Arc::new(Table::new(all.clone().into()));
        for new in [Table::new(changed.clone().into()), Table::after(Some(&old), changed.into())] {
            assert_eq!(new.common(&old, Family::Ipv4Unicast), Common { first: 1, last: 1 });
            let v6 = new.common(&old, Family::Ipv6Unicast);
            assert_eq!(v6.first + v6.last, 2);
        }
        let fewer = Table::after(Some(&old), [&all[..3], &all[4..]].concat().into());
        assert_eq!(fewer.common(&old, Family::Ipv4Unicast).first, 3);
        assert_eq!(fewer.common(&old, Family::Ipv6Unicast), Common { first: 0, last: 1 });
    }

    #[test]
    fn change_that_breaks_the_order_is_noticed_at_the_seams_of_what_is_known() {
        let all = [route("10.0.0.1/32", 1), route("10.0.0.3/32", 1), route("10.0.0.5/32", 1)];
        let old = Arc::new(Table::new(all.clone().into()));
        for prefix in ["10.0.0.1/32", "10.0.0.0/32", "10.0.0.5/32", "10.0.0.9/32"] {
            let mut changed = all.clone();
            changed[1] = route(prefix, 2);
            let (one, other) = (Table::new(changed.clone().into()), Table::after(Some(&old), changed.into()));
            assert_eq!(told::<Ipv4Net>(&one, true), told::<Ipv4Net>(&other, true));
            assert!(other.order.is_some(), "{prefix} is out of order");
        }
    }

    #[test]
    fn paths_to_one_prefix_keep_their_order_and_the_same_route_counts_once() {
        let twice = route("10.0.0.1/32", 2);
        let table = Table::new([route("10.0.0.1/32", 7), route("10.0.0.0/32", 3), twice.clone(), twice].into());
        let all = [line("10.0.0.0/32", 1, 3), line("10.0.0.1/32", 1, 7), line("10.0.0.1/32", 2, 2)];
        assert_eq!(told::<Ipv4Net>(&table, true), all);
        assert_eq!(told::<Ipv4Net>(&table, false), [line("10.0.0.0/32", 1, 3), line("10.0.0.1/32", 1, 2)]);
        assert!(table.source().is_none());
    }

    #[test]
    fn host_bits_do_not_count() {
        let table = Table::new([route("10.0.0.9/24", 1), route("10.0.0.1/24", 2)].into());
        assert_eq!(told::<Ipv4Net>(&table, false), [line("10.0.0.0/24", 1, 2)]);
        assert!(table.source().is_none());
    }
}
