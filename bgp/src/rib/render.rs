//! The difference of two tables as UPDATEs.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    Encoding, Route, Table,
    difference::{Difference, Group},
    table::Common,
};
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

/// Changes that are being sent, so that the peers of an update group share them, and what they were made of.
#[derive(Debug, Default)]
pub(crate) struct Renders {
    renders: Vec<Render>,
    /// The last whole tables, as peers come up one after the other and routers reset their sessions.
    whole: VecDeque<Arc<Rendered>>,
    /// Tables that an encoding carries to the last route.
    carried: Vec<(Weak<Table>, Encoding)>,
}

#[derive(Debug)]
struct Render {
    from: Option<Weak<Table>>,
    to: Weak<Table>,
    encoding: Encoding,
    rendered: Weak<Rendered>,
}

/// How many whole tables are kept: what a full one has in octets for each prefix, 5 or 17, is little beside the
/// routes themselves, but every peer may have an encoding of its own.
const KEPT: usize = 2;

impl Renders {
    /// The change in the encoding, from a peer that is or was being sent the same if there is one.
    pub(crate) fn render(&mut self, change: &Change, encoding: &Encoding) -> Arc<Rendered> {
        self.renders.retain(|r| r.rendered.strong_count() > 0 && r.to.strong_count() > 0);
        self.carried.retain(|(table, _)| table.strong_count() > 0);
        let plain = change.refresh.is_empty();
        let same = self.renders.iter().filter(|r| plain && r.is(change, encoding)).find_map(|r| r.rendered.upgrade());
        if let Some(rendered) = same {
            return rendered;
        }
        let carried = change.from.as_ref().is_some_and(|from| self.carries(from, encoding));
        let (rendered, whole) = render(change, encoding, carried);
        let rendered = Arc::new(rendered);
        if whole && !self.carries(&change.to, encoding) {
            self.carried.push((Arc::downgrade(&change.to), *encoding));
        }
        if plain {
            self.remember(change, encoding, &rendered);
        }
        rendered
    }

    fn carries(&self, table: &Arc<Table>, encoding: &Encoding) -> bool {
        self.carried.iter().any(|(known, by)| known.as_ptr() == Arc::as_ptr(table) && by == encoding)
    }

    fn remember(&mut self, change: &Change, encoding: &Encoding, rendered: &Arc<Rendered>) {
        if change.from.is_none() {
            self.whole.push_back(rendered.clone());
            self.whole.drain(..self.whole.len().saturating_sub(KEPT));
        }
        self.renders.push(Render {
            from: change.from.as_ref().map(Arc::downgrade),
            to: Arc::downgrade(&change.to),
            encoding: *encoding,
            rendered: Arc::downgrade(rendered),
        });
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

/// The change in the encoding, and whether the encoding carries all of the new table. `carried` is whether it did so
/// with the old one: then only what changed needs a look.
fn render(change: &Change, encoding: &Encoding, carried: bool) -> (Rendered, bool) {
    let mut writer =
        Writer { encoding, out: Vec::new(), list: Vec::new(), updates: 0, chunks: Vec::new(), carried: true };
    let empty = Table::default();
    for family in encoding.families.iter() {
        let refresh = change.refresh.contains(family);
        if refresh && change.marked {
            message::encode_refresh(Refresh::Begin(family), &mut writer.out);
        }
        let from = change.from.as_deref().unwrap_or(&empty);
        match family {
            Family::Ipv4Unicast => writer.family::<Ipv4Net>(from, &change.to, refresh),
            Family::Ipv6Unicast => writer.family::<Ipv6Net>(from, &change.to, refresh),
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
    let unheard = |family: &Family| !encoding.families.contains(*family) && !change.to.is_empty(*family);
    let carried = carried && writer.carried && !Families::EVERY.iter().any(unheard);
    let (advertised, unsent, whole) = match change.to.source().filter(|_| carried) {
        Some(source) => (source.clone(), Families::NONE, true),
        None => advertised(&change.to, encoding),
    };
    (Rendered { chunks: writer.chunks, advertised, unsent }, whole)
}

/// The routes that the encoding can carry, the caller's own list where that is all of them; the families of those
/// that it cannot; and whether it can carry all.
fn advertised(table: &Table, encoding: &Encoding) -> (Arc<[Route]>, Families, bool) {
    let mut unsent = Families::NONE;
    let whole = look::<Ipv4Net>(table, encoding, &mut unsent) & look::<Ipv6Net>(table, encoding, &mut unsent);
    if let Some(source) = table.source().filter(|_| whole) {
        return (source.clone(), unsent, true);
    }
    let mut routes = Vec::new();
    told::<Ipv4Net>(table, encoding, &mut routes);
    told::<Ipv6Net>(table, encoding, &mut routes);
    (routes.into(), unsent, whole)
}

/// Whether the encoding can carry every route of a family; notes the family where one is missed.
fn look<P: Prefix>(table: &Table, encoding: &Encoding, unsent: &mut Families) -> bool {
    let (mut whole, mut last) = (true, None);
    for path in table.paths::<P>(encoding.add_path.contains(P::FAMILY), Common::default()) {
        if last.replace(Arc::as_ptr(path.attributes)) == Some(Arc::as_ptr(path.attributes))
            || encoding.next_hop(P::FAMILY, path.attributes).is_some()
        {
            continue;
        }
        whole = false;
        last = None;
        if !encoding.keeps(path.attributes) {
            unsent.insert(P::FAMILY);
        }
    }
    whole
}

/// Appends the routes of a family that a peer is told.
fn told<P: Prefix>(table: &Table, encoding: &Encoding, routes: &mut Vec<Route>) {
    let paths = table.paths::<P>(encoding.add_path.contains(P::FAMILY), Common::default());
    let sendable = paths.filter(|path| encoding.next_hop(P::FAMILY, path.attributes).is_some());
    routes.extend(sendable.map(|path| Route { prefix: path.prefix.into(), attributes: path.attributes.clone() }));
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
    /// Whether everything that was to be written could be.
    carried: bool,
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
    fn family<P: Prefix>(&mut self, from: &Table, to: &Table, refresh: bool) {
        match self.encoding.add_path.contains(P::FAMILY) {
            false => self.write(Difference::<P>::new(from, to, self.encoding, refresh)),
            true => self.write(Difference::<Path<P>>::new(from, to, self.encoding, refresh)),
        }
    }

    fn write<D: Destination>(&mut self, difference: Difference<'_, D>) {
        let Difference { withdrawn, announced } = difference;
        self.repeat(&withdrawn, |rest, limit, out, _| withdraw(rest, limit, out));
        for Group { attributes, hop, destinations } in announced {
            let Some(hop) = hop else {
                self.carried = false;
                continue;
            };
            let own = match (D::Prefix::FAMILY, hop.global) {
                (Family::Ipv4Unicast, IpAddr::V4(own)) => Some(own),
                _ => None,
            };
            self.list.clear();
            self.encoding.attributes(attributes, own, &mut self.list);
            self.repeat(&destinations, |rest, limit, out, list| announce(&hop, list, rest, limit, out));
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

#[cfg(test)]
mod tests;
