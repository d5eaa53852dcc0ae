//! The difference of two tables as UPDATEs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use ipnet::IpNet;

use super::{Encoding, Route, Table, table::Entry};
use crate::{
    Family,
    wire::{
        Families, NextHop,
        message::{self, Refresh},
        nlri::{Destination, Path, Prefix},
        update,
    },
};

/// Octets are handed over in pieces of about this size, so that a KEEPALIVE never waits behind more.
const CHUNK: usize = 64 * 1024;

/// What a peer has to be told.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// What it was told; `None` after the session came up, which ends in an End-of-RIB per family.
    pub(crate) from: Option<Arc<Table>>,
    /// What it shall know.
    pub(crate) to: Arc<Table>,
    /// Families that it asked to hear again, whole (RFC 2918).
    pub(crate) refresh: Families,
    /// Whether a refresh is put between its marks (RFC 7313 §4).
    pub(crate) marked: bool,
}

/// A change, encoded.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// Whole messages each, with how many UPDATEs.
    pub(crate) chunks: Vec<(Bytes, u64)>,
    /// What stands in the Adj-RIB-Out once it is written.
    pub(crate) advertised: Arc<[Route]>,
    /// Families with routes that this session cannot carry.
    pub(crate) unsent: Families,
}

/// Changes that are being sent, so that the peers of an update group share them.
#[derive(Debug, Default)]
pub(crate) struct Renders(Vec<Render>);

#[derive(Debug)]
struct Render {
    from: Option<Weak<Table>>,
    to: Weak<Table>,
    encoding: Encoding,
    rendered: Weak<Rendered>,
}

impl Renders {
    /// The change in the encoding, from a peer that is being sent the same if there is one.
    pub(crate) fn render(&mut self, change: &Change, encoding: &Encoding) -> Arc<Rendered> {
        self.0.retain(|r| r.rendered.strong_count() > 0);
        let plain = change.refresh.is_empty();
        let same = self.0.iter().filter(|r| plain && r.is(change, encoding)).find_map(|r| r.rendered.upgrade());
        if let Some(rendered) = same {
            return rendered;
        }
        let rendered = Arc::new(render(change, encoding));
        if plain {
            self.0.push(Render {
                from: change.from.as_ref().map(Arc::downgrade),
                to: Arc::downgrade(&change.to),
                encoding: *encoding,
                rendered: Arc::downgrade(&rendered),
            });
        }
        rendered
    }
}

impl Render {
    fn is(&self, change: &Change, encoding: &Encoding) -> bool {
        let from = match (&self.from, &change.from) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.as_ptr() == Arc::as_ptr(theirs),
            _ => false,
        };
        from && self.to.as_ptr() == Arc::as_ptr(&change.to) && self.encoding == *encoding
    }
}

fn render(change: &Change, encoding: &Encoding) -> Rendered {
    let mut writer = Writer { encoding, out: Vec::new(), list: Vec::new(), updates: 0, chunks: Vec::new() };
    let empty = Table::default();
    for family in encoding.families.iter() {
        let refresh = change.refresh.contains(family);
        if refresh && change.marked {
            message::encode_refresh(Refresh::Begin(family), &mut writer.out);
        }
        let from = change.from.as_deref().unwrap_or(&empty);
        match family {
            Family::Ipv4Unicast => writer.family(&from.v4, from, &change.to.v4, &change.to, refresh),
            Family::Ipv6Unicast => writer.family(&from.v6, from, &change.to.v6, &change.to, refresh),
        }
        if refresh && change.marked {
            message::encode_refresh(Refresh::End(family), &mut writer.out);
        }
        if change.from.is_none() {
            update::encode_end_of_rib(family, &mut writer.out);
            writer.updates += 1;
        }
    }
    writer.cut(0);
    let (advertised, unsent) = advertised(&change.to, encoding);
    Rendered { chunks: writer.chunks, advertised, unsent }
}

/// The routes that the encoding can carry, the caller's own list where that is all of them, and the families of
/// those that it cannot.
fn advertised(table: &Table, encoding: &Encoding) -> (Arc<[Route]>, Families) {
    let family = |route: &Route| match route.prefix {
        IpNet::V4(_) => Family::Ipv4Unicast,
        IpNet::V6(_) => Family::Ipv6Unicast,
    };
    let sendable = |route: &Route| encoding.next_hop(family(route), &route.attributes).is_some();
    let missing = || table.source.iter().filter(|r| !sendable(r));
    let unsent: Families = missing().filter(|r| !encoding.keeps(&r.attributes)).map(family).collect();
    if !table.has_duplicates() && missing().next().is_none() {
        return (table.source.clone(), unsent);
    }
    let mut routes = Vec::new();
    table.told(&table.v4, encoding.add_path, &mut routes);
    table.told(&table.v6, encoding.add_path, &mut routes);
    routes.retain(sendable);
    (routes.into(), unsent)
}

impl Table {
    /// Appends the routes of a family that a peer is told.
    fn told<P: Prefix>(&self, entries: &[Entry<P>], add_path: Families, routes: &mut Vec<Route>) {
        routes.extend(paths(entries, add_path.contains(P::FAMILY)).map(|path| {
            let attributes = self.attributes[path.attributes as usize].clone();
            Route { prefix: path.prefix.into(), attributes }
        }));
    }
}

/// Announces prefixes with one set of attributes; returns how many went into the message. RFC 8950: IPv4 prefixes
/// with an IPv6 next hop stand in MP_REACH_NLRI; what withdraws them is the same either way.
fn announce<D: Destination>(hop: &NextHop, list: &[u8], prefixes: &[D], limit: usize, out: &mut Vec<u8>) -> usize {
    match (D::Prefix::FAMILY, hop.global) {
        (Family::Ipv4Unicast, IpAddr::V4(_)) => update::encode_announce(list, prefixes, limit, out),
        _ => update::encode_reach(hop, list, prefixes, limit, out),
    }
}

/// Withdraws prefixes; returns how many went into the message.
fn withdraw<D: Destination>(prefixes: &[D], limit: usize, out: &mut Vec<u8>) -> usize {
    match D::Prefix::FAMILY {
        Family::Ipv4Unicast => update::encode_withdraw(prefixes, limit, out),
        Family::Ipv6Unicast => update::encode_unreach(prefixes, limit, out),
    }
}

struct Writer<'a> {
    encoding: &'a Encoding,
    out: Vec<u8>,
    list: Vec<u8>,
    updates: u64,
    chunks: Vec<(Bytes, u64)>,
}

impl Writer<'_> {
    /// Ends the chunk when it is longer than `above`.
    fn cut(&mut self, above: usize) {
        if self.out.len() > above {
            let octets = Bytes::from(std::mem::take(&mut self.out));
            self.chunks.push((octets, std::mem::take(&mut self.updates)));
        }
    }

    /// Everything of one family: what went, then what came or changed, by attributes.
    fn family<P: Prefix>(&mut self, old: &[Entry<P>], from: &Table, new: &[Entry<P>], to: &Table, refresh: bool) {
        let (old, new) = (Side::new(old, from, self.encoding), Side::new(new, to, self.encoding));
        match self.encoding.add_path.contains(P::FAMILY) {
            false => self.write(Difference::<P>::new(&old, &new, refresh), &new),
            true => self.write(Difference::<Path<P>>::new(&old, &new, refresh), &new),
        }
    }

    fn write<D: Destination>(&mut self, difference: Difference<D>, new: &Side<'_, D::Prefix>) {
        let Difference { withdrawn, announced } = difference;
        self.repeat(&withdrawn, |rest, limit, out, _| withdraw(rest, limit, out));
        for ((prefixes, hop), attributes) in announced.iter().zip(&new.hops).zip(&new.table.attributes) {
            let Some(hop) = hop.filter(|_| !prefixes.is_empty()) else { continue };
            let own = match (D::Prefix::FAMILY, hop.global) {
                (Family::Ipv4Unicast, IpAddr::V4(own)) => Some(own),
                _ => None,
            };
            self.list.clear();
            self.encoding.attributes(attributes, own, &mut self.list);
            self.repeat(prefixes, |rest, limit, out, list| announce(&hop, list, rest, limit, out));
        }
    }

    fn repeat<D>(&mut self, mut rest: &[D], message: impl Fn(&[D], usize, &mut Vec<u8>, &[u8]) -> usize) {
        while !rest.is_empty() {
            match message(rest, self.encoding.limit, &mut self.out, &self.list) {
                0 => {
                    tracing::error!(prefixes = rest.len(), octets = self.list.len(), "attributes fill a whole message");
                    return;
                }
                taken => rest = &rest[taken..],
            }
            self.updates += 1;
            self.cut(CHUNK);
        }
    }
}

/// Prefixes that went, and those that came or changed, by the number of their attributes in the new table.
/// What this session could not carry before need not be withdrawn.
struct Difference<D> {
    withdrawn: Vec<D>,
    announced: Vec<Vec<D>>,
}

impl<D: Destination> Difference<D> {
    fn new(old: &Side<'_, D::Prefix>, new: &Side<'_, D::Prefix>, refresh: bool) -> Self {
        let numbers: HashMap<_, _> = new.table.attributes.iter().zip(0..).collect();
        let same: Vec<Option<u32>> = old.table.attributes.iter().map(|a| numbers.get(a).copied()).collect();
        let mut found = Self { withdrawn: Vec::new(), announced: vec![Vec::new(); new.hops.len()] };
        if let ([only], []) = (found.announced.as_mut_slice(), old.entries) {
            only.reserve(new.entries.len());
        }
        let told = |path: &Told<D::Prefix>| old.hops[path.attributes as usize].is_some();
        let mut rest = paths(old.entries, D::PATHS).peekable();
        for path in paths(new.entries, D::PATHS) {
            while let Some(gone) = rest.next_if(|o| o.key() < path.key()) {
                found.withdrawn.extend(Some(gone).filter(told).map(Told::destination::<D>));
            }
            let before = rest.next_if(|o| o.key() == path.key());
            let number = path.attributes as usize;
            if new.hops[number].is_none() {
                found.withdrawn.extend(before.filter(told).map(Told::destination::<D>));
            } else if refresh || before.is_none_or(|b| same[b.attributes as usize] != Some(path.attributes)) {
                found.announced[number].push(path.destination());
            }
        }
        found.withdrawn.extend(rest.filter(told).map(Told::destination::<D>));
        found
    }
}

/// One path as a peer is told it.
#[derive(Debug, Clone, Copy)]
struct Told<P> {
    prefix: P,
    id: u32,
    attributes: u32,
}

impl<P: Prefix> Told<P> {
    fn key(&self) -> (P, u32) {
        (self.prefix, self.id)
    }

    fn destination<D: Destination<Prefix = P>>(self) -> D {
        D::new(self.prefix, self.id)
    }
}

/// The paths of a sorted table: every one, numbered from 1 for each prefix, or only the last to each prefix.
fn paths<P: Prefix>(entries: &[Entry<P>], several: bool) -> impl Iterator<Item = Told<P>> {
    let (mut at, mut id) = (0, 0);
    std::iter::from_fn(move || {
        loop {
            let &Entry { prefix, attributes } = entries.get(at)?;
            at += 1;
            let last = entries.get(at).is_none_or(|next| next.prefix != prefix);
            let this = id + 1;
            id = if last { 0 } else { this };
            match several {
                true => return Some(Told { prefix, id: this, attributes }),
                false if last => return Some(Told { prefix, id: 1, attributes }),
                false => {}
            }
        }
    })
}

/// One table of a difference: a family's entries, and the next hop of each set of attributes.
struct Side<'a, P> {
    entries: &'a [Entry<P>],
    table: &'a Table,
    hops: Vec<Option<NextHop>>,
}

impl<'a, P: Prefix> Side<'a, P> {
    fn new(entries: &'a [Entry<P>], table: &'a Table, encoding: &Encoding) -> Self {
        let hops = table.attributes.iter().map(|a| encoding.next_hop(P::FAMILY, a)).collect();
        Self { entries, table, hops }
    }
}

#[cfg(test)]
mod tests;
