//! UPDATE: layout and the checks that concern the message as a whole (RFC 4271 §4.3, §6.3, RFC 7606).

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    DecodeError, ErrorKind, Families, NextHop, SAFI_UNICAST, afi,
    attribute::{self, Fault, List, PathAttributes, Reaction},
    message::{self, HEADER, Kind},
    nlri::{Destination, Nlri, Prefix},
};
use crate::Family;

/// What a session negotiated that decides how its UPDATEs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// AS numbers have four octets (RFC 6793).
    pub four_octet: bool,
    /// The peer is in our AS.
    pub internal: bool,
    /// Families of the session; everything else is ignored.
    pub families: Families,
    /// Families whose prefixes carry path identifiers (RFC 7911).
    pub add_path: Families,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Our own address, which no next hop may be.
    pub local: Option<IpAddr>,
}

/// An UPDATE, checked, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update<'a> {
    /// IPv4 prefixes withdrawn in the message's own field.
    pub withdrawn: Nlri<'a>,
    /// IPv4 prefixes announced in the message's own field.
    pub announced: Nlri<'a>,
    /// The attributes, MP_REACH_NLRI and MP_UNREACH_NLRI among them.
    pub attributes: PathAttributes<'a>,
    /// The severest damage.
    pub fault: Option<Fault>,
    blank: bool,
}

impl Default for Update<'_> {
    /// The End-of-RIB marker of IPv4.
    fn default() -> Self {
        let none = Nlri::empty(Family::Ipv4Unicast);
        Self { withdrawn: none, announced: none, attributes: PathAttributes::default(), fault: None, blank: true }
    }
}

impl<'a> Update<'a> {
    /// Whether the announced prefixes count as withdrawn (RFC 7606 §2).
    pub fn is_withdraw(&self) -> bool {
        self.fault.is_some_and(|f| f.reaction == Reaction::TreatAsWithdraw)
    }

    /// The family whose End-of-RIB this is (RFC 4724 §2).
    pub fn end_of_rib(&self) -> Option<Family> {
        let nothing = self.withdrawn.is_empty() && self.announced.is_empty() && self.attributes.reach.is_none();
        match self.attributes.unreach {
            Some(unreach) if nothing && unreach.nlri.is_empty() => Some(unreach.nlri.family()),
            _ => self.blank.then_some(Family::Ipv4Unicast),
        }
    }

    /// Announced prefixes of every family, with what must be their next hop.
    pub fn reachable(&self) -> impl Iterator<Item = (IpNet, IpAddr)> + use<'a> {
        let own = self.attributes.next_hop.map(IpAddr::from);
        let own = own.into_iter().flat_map({
            let announced = self.announced;
            move |hop| announced.iter().map(move |(_, prefix)| (prefix, hop))
        });
        let reach = self.attributes.reach.into_iter();
        own.chain(reach.flat_map(|r| r.nlri.iter().map(move |(_, prefix)| (prefix, r.next_hop.global))))
    }

    /// Withdrawn prefixes of every family, without those that RFC 7606 adds.
    pub fn unreachable(&self) -> impl Iterator<Item = IpNet> + use<'a> {
        let unreach = self.attributes.unreach.into_iter().flat_map(|u| u.nlri.iter());
        self.withdrawn.iter().chain(unreach).map(|(_, prefix)| prefix)
    }

    /// Announced prefixes of every family, whatever their attributes.
    pub fn announced_prefixes(&self) -> impl Iterator<Item = IpNet> + use<'a> {
        let reach = self.attributes.reach.into_iter().flat_map(|r| r.nlri.iter());
        self.announced.iter().chain(reach).map(|(_, prefix)| prefix)
    }
}

/// Reads the UPDATE in `octets`, header included. An error ends the session; damage that RFC 7606 repairs is
/// the update's `fault`.
pub fn decode<'a>(octets: &'a [u8], context: &Context) -> Result<Update<'a>, DecodeError> {
    let mut update = Update::default();
    decode_into(octets, context, &mut update)?;
    Ok(update)
}

/// Does what [`decode`] does in a place that the caller has: for one prefix, moving the result costs as much as
/// reading it. What stood there before does not count, and after an error what stands there is arbitrary.
pub fn decode_into<'a>(octets: &'a [u8], context: &Context, update: &mut Update<'a>) -> Result<(), DecodeError> {
    let (withdrawn, _) = section(octets, HEADER)?;
    let (list, announced) = section(octets, HEADER + 2 + withdrawn.len())?;
    let offset = offset_of(octets, list);
    (update.attributes, update.fault) = (PathAttributes::default(), None);
    let List { reach, more } = attribute::decode(list, offset, context, &mut update.attributes, &mut update.fault)?;
    // RFC 7606 §5.2: without prefixes to withdraw nobody can be sure that they were all found.
    if let Some(fault) = update.fault.filter(|f| f.reaction > Reaction::Discard)
        && announced.is_empty()
        && more
        && !reach
    {
        return Err(DecodeError { offset: fault.offset, kind: ErrorKind::NothingReachable(fault.attribute) });
    }
    update.blank = octets.len() == HEADER + 4;
    update.withdrawn = Nlri::empty(Family::Ipv4Unicast);
    if !withdrawn.is_empty() {
        update.withdrawn = withdrawn_prefixes(octets, withdrawn, context)?;
    }
    update.announced = own_prefixes(octets, announced, context)?;
    if let Some(missing) = missing(update, context)
        && !update.is_withdraw()
    {
        update.fault = Some(Fault { offset, attribute: missing, reaction: Reaction::TreatAsWithdraw });
    }
    Ok(())
}

/// Two octets of length at `at`, as many octets, and what follows them.
fn section(octets: &[u8], at: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    let cut = DecodeError { offset: at, kind: ErrorKind::AttributeListLength };
    let (length, rest) = octets.get(at..).and_then(|o| o.split_first_chunk()).ok_or(cut)?;
    rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(cut)
}

/// An attribute of a message, from its flags to its end or to that of the list; empty if it is not there.
pub(super) fn attribute(octets: &[u8], code: u8) -> &[u8] {
    let list = section(octets, HEADER).and_then(|(withdrawn, _)| section(octets, HEADER + 2 + withdrawn.len()));
    list.map_or(&[], |(list, _)| attribute::find(list, code))
}

fn offset_of(octets: &[u8], part: &[u8]) -> usize {
    nom::Offset::offset(octets, part)
}

/// The prefixes of the message's own fields, IPv4 always.
#[inline]
fn own_prefixes<'a>(octets: &'a [u8], part: &'a [u8], context: &Context) -> Result<Nlri<'a>, DecodeError> {
    let family = Family::Ipv4Unicast;
    let add_path = context.add_path.contains(family);
    let nlri = Nlri::check(family, add_path, part)
        .map_err(|at| DecodeError { offset: offset_of(octets, part) + at, kind: ErrorKind::Prefix })?;
    // Without the family there is no one to hand them to; the session itself is not wrong (RFC 4760 §6).
    Ok(if context.families.contains(family) { nlri } else { Nlri::empty(family) })
}

/// The same in a place of its own: few messages withdraw.
#[inline(never)]
fn withdrawn_prefixes<'a>(octets: &'a [u8], part: &'a [u8], context: &Context) -> Result<Nlri<'a>, DecodeError> {
    own_prefixes(octets, part, context)
}

/// The first mandatory attribute that announced prefixes lack (RFC 4271 §5, RFC 7606 §3 d).
#[inline]
fn missing(update: &Update<'_>, context: &Context) -> Option<u8> {
    let a = &update.attributes;
    if update.announced.is_empty() && a.reach.is_none() {
        return None;
    }
    if a.origin.is_none() {
        Some(attribute::ORIGIN)
    } else if a.as_path.is_none() {
        Some(attribute::AS_PATH)
    } else if !update.announced.is_empty() && a.next_hop.is_none() {
        Some(attribute::NEXT_HOP)
    } else if context.internal && a.local_pref.is_none() {
        Some(attribute::LOCAL_PREF)
    } else {
        None
    }
}

/// Appends an UPDATE that announces IPv4 prefixes in the message's own field. `attributes` appends the attribute list,
/// NEXT_HOP in it. As many prefixes as fit into `limit` octets go in; returns how many. 0 means that the attributes
/// leave no room, and nothing is appended.
pub fn encode_announce<D: Destination>(
    attributes: impl Fn(&mut Vec<u8>),
    prefixes: &[D],
    limit: usize,
    out: &mut Vec<u8>,
) -> usize {
    let start = message::start_update(out);
    let list = start + HEADER + 4;
    // Written in their place: to copy them from a buffer that was just written would wait for that.
    attributes(out);
    let octets = length(out.len() - list);
    out[list - 2..list].copy_from_slice(&octets);
    let taken = fill(prefixes, start + limit, out);
    close(start, taken, out)
}

/// Appends an UPDATE that withdraws IPv4 prefixes in the message's own field, like [`encode_announce`].
pub fn encode_withdraw<D: Destination>(prefixes: &[D], limit: usize, out: &mut Vec<u8>) -> usize {
    let start = message::start(out, Kind::Update);
    let field = out.len();
    out.extend_from_slice(&[0, 0]);
    let taken = fill(prefixes, start + limit - 2, out);
    let octets = length(out.len() - field - 2);
    out[field..field + 2].copy_from_slice(&octets);
    out.extend_from_slice(&[0, 0]);
    close(start, taken, out)
}

/// Appends an UPDATE that announces prefixes in MP_REACH_NLRI, which stands first (RFC 7606 §5.1), like
/// [`encode_announce`].
pub fn encode_reach<D: Destination>(
    next_hop: &NextHop,
    attributes: impl Fn(&mut Vec<u8>),
    prefixes: &[D],
    limit: usize,
    out: &mut Vec<u8>,
) -> usize {
    let start = message::start_update(out);
    // How much room the other attributes leave matters where there is more than one prefix.
    let room = if prefixes.len() > 1 { limit.saturating_sub(measure(&attributes, out)) } else { limit };
    let list = multiprotocol_start(attribute::MP_REACH, D::Prefix::FAMILY, out);
    next_hop.encode(out);
    let taken = fill(prefixes, start + room, out);
    multiprotocol_finish(list, attributes, out);
    close(start, if out.len() - start > limit { 0 } else { taken }, out)
}

/// How long the attributes are.
fn measure(attributes: impl Fn(&mut Vec<u8>), out: &mut Vec<u8>) -> usize {
    let before = out.len();
    attributes(out);
    let length = out.len() - before;
    out.truncate(before);
    length
}

/// Appends an UPDATE that withdraws prefixes in MP_UNREACH_NLRI, like [`encode_announce`].
pub fn encode_unreach<D: Destination>(prefixes: &[D], limit: usize, out: &mut Vec<u8>) -> usize {
    let start = message::start_update(out);
    let attribute = multiprotocol_start(attribute::MP_UNREACH, D::Prefix::FAMILY, out);
    let taken = fill(prefixes, start + limit, out);
    multiprotocol_finish(attribute, |_| {}, out);
    close(start, taken, out)
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = message::start_update(out);
    if family != Family::Ipv4Unicast {
        let attribute = multiprotocol_start(attribute::MP_UNREACH, family, out);
        multiprotocol_finish(attribute, |_| {}, out);
    }
    message::finish(out, start);
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).expect("messages are built within 65,535 octets").to_be_bytes()
}

/// A multiprotocol attribute whose length comes later; returns where the list starts.
#[inline]
fn multiprotocol_start(code: u8, family: Family, out: &mut Vec<u8>) -> usize {
    let [high, low] = afi(family).to_be_bytes();
    let list = out.len();
    out.extend_from_slice(&[attribute::OPTIONAL | attribute::EXTENDED, code, 0, 0, high, low, SAFI_UNICAST]);
    list
}

#[inline]
fn multiprotocol_finish(start: usize, others: impl Fn(&mut Vec<u8>), out: &mut Vec<u8>) {
    let value = length(out.len() - start - 4);
    out[start + 2..start + 4].copy_from_slice(&value);
    others(out);
    let whole = length(out.len() - start);
    out[start - 2..start].copy_from_slice(&whole);
}

/// Appends prefixes while they fit before `end`.
fn fill<D: Destination>(prefixes: &[D], end: usize, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    // Each is written with room to spare while there is some: a store of a known size.
    let roomy = (end.saturating_sub(start) / D::ROOM).min(prefixes.len());
    let (mut at, mut taken) = (start, roomy);
    if let ([only], 1) = (prefixes, roomy) {
        at += put(*only, out);
    } else {
        out.resize(start + roomy * D::ROOM, 0);
        for prefix in &prefixes[..roomy] {
            at += prefix.put(&mut out[at..at + D::ROOM]);
        }
    }
    out.truncate(at);
    for prefix in &prefixes[roomy..] {
        let before = out.len();
        let after = before + put(*prefix, out);
        out.truncate(if after > end { before } else { after });
        if after > end {
            break;
        }
        taken += 1;
    }
    taken
}

/// Appends as much as a prefix may need, and returns how much of it counts.
#[inline]
fn put<D: Destination>(prefix: D, out: &mut Vec<u8>) -> usize {
    let mut slot = [0; 21];
    let size = prefix.put(&mut slot);
    out.extend_from_slice(&slot[..D::ROOM]);
    size
}

#[inline]
fn close(start: usize, taken: usize, out: &mut Vec<u8>) -> usize {
    if taken == 0 {
        out.truncate(start);
    } else {
        message::finish(out, start);
    }
    taken
}
