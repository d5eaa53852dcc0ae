//! The difference of two sets as UPDATEs.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Attributes, Encoding, Routes,
    difference::{Difference, Group, told},
    routes::{Known, Part},
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
    pub(crate) from: Option<Routes>,
    /// What it shall know.
    pub(crate) to: Routes,
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
    pub(crate) advertised: Routes,
    /// Families with routes that this session cannot carry.
    pub(crate) unsent: Families,
}

/// Changes that are being sent, so that the peers of an update group share them, and what they were made of.
#[derive(Debug, Default)]
pub(crate) struct Renders {
    renders: Vec<Render>,
    /// The last whole sets, as peers come up one after the other and routers reset their sessions.
    whole: VecDeque<Arc<Rendered>>,
    /// Sets that an encoding carries to the last route.
    carried: Vec<(Known, Encoding)>,
}

#[derive(Debug)]
struct Render {
    from: Option<Known>,
    to: Known,
    encoding: Encoding,
    rendered: Weak<Rendered>,
}

/// How many whole sets are kept: what a full one has in octets for each prefix, 5 or 17, is little beside the
/// routes themselves, but every peer may have an encoding of its own.
const KEPT: usize = 2;

impl Renders {
    /// The change in the encoding, from a peer that is or was being sent the same if there is one.
    pub(crate) fn render(&mut self, change: &Change, encoding: &Encoding) -> Arc<Rendered> {
        self.renders.retain(|r| r.rendered.strong_count() > 0 && !r.to.is_gone());
        self.carried.retain(|(set, _)| !set.is_gone());
        let plain = change.refresh.is_empty();
        let same = self.renders.iter().filter(|r| plain && r.is(change, encoding)).find_map(|r| r.rendered.upgrade());
        if let Some(rendered) = same {
            return rendered;
        }
        // Of a peer that was told nothing every route is looked at.
        let carried = change.from.as_ref().is_none_or(|from| self.carries(from, encoding));
        let (rendered, whole) = render(change, encoding, carried);
        let rendered = Arc::new(rendered);
        if whole && !self.carries(&change.to, encoding) {
            self.carried.push((change.to.downgrade(), *encoding));
        }
        if plain {
            self.remember(change, encoding, &rendered);
        }
        rendered
    }

    fn carries(&self, routes: &Routes, encoding: &Encoding) -> bool {
        self.carried.iter().any(|(known, by)| known.is(routes) && by == encoding)
    }

    fn remember(&mut self, change: &Change, encoding: &Encoding, rendered: &Arc<Rendered>) {
        if change.from.is_none() {
            self.whole.push_back(rendered.clone());
            self.whole.drain(..self.whole.len().saturating_sub(KEPT));
        }
        self.renders.push(Render {
            from: change.from.as_ref().map(Routes::downgrade),
            to: change.to.downgrade(),
            encoding: *encoding,
            rendered: Arc::downgrade(rendered),
        });
    }
}

impl Render {
    fn is(&self, change: &Change, encoding: &Encoding) -> bool {
        let from = match (&self.from, &change.from) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.is(theirs),
            _ => false,
        };
        from && self.to.is(&change.to) && self.encoding == *encoding
    }
}

/// The change in the encoding, and whether the encoding carries all of the new set. `carried` is whether it did so
/// with the old one: then only what changed needs a look.
fn render(change: &Change, encoding: &Encoding, carried: bool) -> (Rendered, bool) {
    let mut writer = Writer { encoding, out: Vec::new(), updates: 0, chunks: Vec::new(), carried: true };
    let empty = Routes::default();
    for family in encoding.families.iter() {
        let refresh = change.refresh.contains(family);
        if refresh && change.marked {
            message::encode_refresh(Refresh::Begin(family), &mut writer.out);
        }
        let from = change.from.as_ref().unwrap_or(&empty);
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
    let whole = carried && writer.carried && unheard(&change.to, encoding).is_empty();
    let (advertised, unsent) = match whole {
        true => (change.to.clone(), Families::NONE),
        false => advertised(&change.to, encoding),
    };
    let whole = advertised.is(&change.to);
    (Rendered { chunks: writer.chunks, advertised, unsent }, whole)
}

/// Families with routes that the session does not have.
fn unheard(routes: &Routes, encoding: &Encoding) -> Families {
    let missing = |family: &Family| !encoding.families.contains(*family) && routes.count(*family) > 0;
    Families::EVERY.into_iter().filter(missing).collect()
}

/// The routes that the encoding can carry, the set itself where that is all of them, and the families of those that it
/// cannot.
fn advertised(routes: &Routes, encoding: &Encoding) -> (Routes, Families) {
    let mut unsent = Families::NONE;
    let mut carried = Vec::new();
    carry_all::<Ipv4Net>(routes, encoding, &mut carried, &mut unsent);
    carry_all::<Ipv6Net>(routes, encoding, &mut carried, &mut unsent);
    (Routes::after(routes, carried), unsent)
}

/// Appends the routes of a family that a peer is told.
fn carry_all<'a, P: Part>(
    routes: &'a Routes,
    encoding: &Encoding,
    carried: &mut Vec<(IpNet, &'a Arc<Attributes>)>,
    unsent: &mut Families,
) {
    let mut last = None;
    for paths in P::of_set(routes).prefixes() {
        let several = encoding.add_path.contains(P::FAMILY);
        for path in if several { told::<Path<P>>(paths) } else { told::<P>(paths) } {
            // Routes that share their attributes stand beside each other mostly.
            let known = last == Some(Arc::as_ptr(&path.attributes));
            if known || encoding.next_hop(P::FAMILY, &path.attributes).is_some() {
                last = Some(Arc::as_ptr(&path.attributes));
                carried.push((path.prefix.into(), &path.attributes));
            } else if !encoding.keeps(&path.attributes) {
                unsent.insert(P::FAMILY);
            }
        }
    }
}

/// Announces prefixes with one set of attributes; returns how many went into the message. RFC 8950: IPv4 prefixes
/// with an IPv6 next hop stand in MP_REACH_NLRI; what withdraws them is the same either way.
fn announce<D: Destination>(
    hop: &NextHop,
    attributes: &Attributes,
    encoding: &Encoding,
    prefixes: &[D],
    out: &mut Vec<u8>,
) -> usize {
    match (D::Prefix::FAMILY, hop.global) {
        (Family::Ipv4Unicast, IpAddr::V4(own)) => {
            let list = |out: &mut Vec<u8>| encoding.attributes(attributes, Some(own), out);
            update::encode_announce(list, prefixes, encoding.limit, out)
        }
        _ => {
            let list = |out: &mut Vec<u8>| encoding.attributes(attributes, None, out);
            update::encode_reach(hop, list, prefixes, encoding.limit, out)
        }
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
    fn family<P: Part>(&mut self, from: &Routes, to: &Routes, refresh: bool) {
        match self.encoding.add_path.contains(P::FAMILY) {
            false => self.write(Difference::<P>::new(from, to, self.encoding, refresh)),
            true => self.write(Difference::<Path<P>>::new(from, to, self.encoding, refresh)),
        }
    }

    fn write<D: Destination>(&mut self, difference: Difference<'_, D>) {
        let Difference { withdrawn, announced, hidden } = difference;
        self.carried &= !hidden;
        let encoding = self.encoding;
        self.repeat(&withdrawn, |rest, out| withdraw(rest, encoding.limit, out));
        for Group { attributes, hop, destinations } in announced {
            match hop {
                Some(hop) => self.repeat(&destinations, |rest, out| announce(&hop, attributes, encoding, rest, out)),
                None => self.carried = false,
            }
        }
    }

    fn repeat<D>(&mut self, mut rest: &[D], message: impl Fn(&[D], &mut Vec<u8>) -> usize) {
        while !rest.is_empty() {
            match message(rest, &mut self.out) {
                0 => {
                    tracing::error!(prefixes = rest.len(), "attributes fill a whole message");
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
