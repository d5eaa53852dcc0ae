//! Path attributes: a table of what each must look like and what RFC 7606 asks for when it is damaged, how each
//! is read, and how each is written.

mod encode;
mod table;
mod value;

use std::net::Ipv4Addr;

pub use encode::{encode, encode_as_path, encode_four, encode_list, encode_origin};

use super::{AsPath, DecodeError, ErrorKind, MpReach, MpUnreach, as_path::MergedPath, multiprotocol, update::Context};
use crate::{Community, ExtendedCommunity, LargeCommunity, Origin};
use value::{number, ok};

#[allow(missing_docs)] // the RFCs' own words
mod codes {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const TUNNEL_ENCAPSULATION: u8 = 23;
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    pub const AIGP: u8 = 26;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const ONLY_TO_CUSTOMER: u8 = 35;
    pub const PREFIX_SID: u8 = 40;
    pub const ATTR_SET: u8 = 128;
}
pub use codes::*;

/// The attribute is optional, not well-known.
pub const OPTIONAL: u8 = 0x80;
/// The attribute is passed on.
pub const TRANSITIVE: u8 = 0x40;
/// Somebody passed it on without knowing it.
pub const PARTIAL: u8 = 0x20;
/// Two octets of length follow.
pub const EXTENDED: u8 = 0x10;

/// What RFC 7606 asks for, in order of severity. The severest of a message counts. Resets are a
/// [`DecodeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reaction {
    /// The attribute is left out, the routes stand.
    Discard,
    /// The announced prefixes are handled as if they had been withdrawn.
    TreatAsWithdraw,
}

/// A damage that the session survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Octets from the start of the message's marker to the attribute.
    pub offset: usize,
    /// The attribute's code; for a missing one, the code that is missing.
    pub attribute: u8,
    /// What is done about it.
    pub reaction: Reaction,
}

/// Who formed an aggregate (RFC 4271 §5.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregator {
    /// Its AS, never 0.
    pub asn: u32,
    /// Its address, or BGP identifier.
    pub address: Ipv4Addr,
}

/// The attributes of one UPDATE, checked, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathAttributes<'a> {
    /// ORIGIN.
    pub origin: Option<Origin>,
    /// AS_PATH.
    pub as_path: Option<AsPath<'a>>,
    /// NEXT_HOP, of the prefixes in the message's own field.
    pub next_hop: Option<Ipv4Addr>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, iBGP only.
    pub local_pref: Option<u32>,
    /// The routes below the aggregate may be less specific than it.
    pub atomic_aggregate: bool,
    /// AGGREGATOR, or AS4_AGGREGATOR where that stands for it.
    pub aggregator: Option<Aggregator>,
    /// AS4_PATH, from a speaker of two-octet AS numbers; [`PathAttributes::path`] has both in one.
    pub as4_path: Option<AsPath<'a>>,
    /// Only To Customer (RFC 9234).
    pub only_to_customer: Option<u32>,
    /// MP_REACH_NLRI of a negotiated family.
    pub reach: Option<MpReach<'a>>,
    /// MP_UNREACH_NLRI of a negotiated family.
    pub unreach: Option<MpUnreach<'a>>,
    communities: &'a [u8],
    extended_communities: &'a [u8],
    large_communities: &'a [u8],
}

impl<'a> PathAttributes<'a> {
    /// Standard communities as received.
    pub fn communities(&self) -> impl Iterator<Item = Community> + use<'a> {
        self.communities.as_chunks::<4>().0.iter().map(|c| Community(u32::from_be_bytes(*c)))
    }

    /// The AS numbers of the whole path, AS4_PATH in place of what two octets could not say (RFC 6793 §4.2.3).
    pub fn path(&self) -> MergedPath<'a> {
        MergedPath::new(self.as_path.unwrap_or_default(), self.as4_path)
    }

    /// Extended communities as received.
    pub fn extended_communities(&self) -> impl Iterator<Item = ExtendedCommunity> + use<'a> {
        self.extended_communities.as_chunks::<8>().0.iter().map(|c| ExtendedCommunity(u64::from_be_bytes(*c)))
    }

    /// Large communities as received.
    pub fn large_communities(&self) -> impl Iterator<Item = LargeCommunity> + use<'a> {
        self.large_communities.as_chunks::<12>().0.iter().map(|c| {
            let [a, b, c] = [&c[..4], &c[4..8], &c[8..]].map(|w| w.iter().fold(0, |n, o| n << 8 | u32::from(*o)));
            LargeCommunity(a, b, c)
        })
    }
}

/// Flags, without those that say nothing of the value, and code of what nearly every UPDATE has.
mod usual {
    /// In the order in which they stand, so that they are one load.
    pub(super) const fn with(flags: u8, code: u8) -> u16 {
        u16::from_le_bytes([flags, code])
    }
    pub(super) const ORIGIN: u16 = with(super::TRANSITIVE, super::ORIGIN);
    pub(super) const AS_PATH: u16 = with(super::TRANSITIVE, super::AS_PATH);
    pub(super) const NEXT_HOP: u16 = with(super::TRANSITIVE, super::NEXT_HOP);
    pub(super) const MP_REACH: u16 = with(super::OPTIONAL, super::MP_REACH);
}

/// One attribute taken off a list.
struct Split<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    rest: &'a [u8],
}

#[inline]
fn split(list: &[u8]) -> Option<Split<'_>> {
    let [flags, code, length, tail @ ..] = list else { return None };
    let (length, tail) = match (flags & EXTENDED, tail) {
        (0, tail) => (usize::from(*length), tail),
        (_, [low, tail @ ..]) => (usize::from(u16::from_be_bytes([*length, *low])), tail),
        _ => return None,
    };
    let (value, rest) = tail.split_at_checked(length)?;
    Some(Split { flags: *flags, code: *code, value, rest })
}

/// The first attribute of the code, header included, as far as the list goes; empty if there is none.
pub(super) fn find(list: &[u8], code: u8) -> &[u8] {
    let mut rest = list;
    loop {
        let after = split(rest).map_or(&[][..], |next| next.rest);
        match rest.get(1) {
            Some(found) if *found == code => return &rest[..rest.len() - after.len()],
            Some(_) => rest = after,
            None => return &[],
        }
    }
}

/// What is so with an attribute list as a whole.
pub(super) struct List {
    /// Whether there is an MP_REACH_NLRI, of any family.
    pub(super) reach: bool,
    /// Whether there is anything but MP_UNREACH_NLRI.
    pub(super) more: bool,
}

/// Reads the attribute list that starts `offset` octets into the message.
#[inline]
pub(super) fn decode<'a>(
    list: &'a [u8],
    offset: usize,
    context: &Context,
    attributes: &mut PathAttributes<'a>,
    fault: &mut Option<Fault>,
) -> Result<List, DecodeError> {
    let mut reader = Reader { attributes, as4_aggregator: None, fault, seen: [0; 4], context };
    let end = offset + list.len();
    let (mut rest, mut overrun) = (list, false);
    loop {
        rest = reader.usual(rest);
        if rest.is_empty() {
            break;
        }
        let at = end - rest.len();
        let Some(next) = split(rest) else {
            reader.overrun(rest.get(1).copied(), at)?;
            overrun = true;
            break;
        };
        reader.read(&next, at)?;
        rest = next.rest;
    }
    if !context.four_octet {
        reader.widen();
    }
    let [seen, high @ ..] = &reader.seen;
    let reach = seen & 1 << MP_REACH != 0;
    let more = overrun || seen & !(1 << MP_UNREACH) != 0 || high.iter().any(|codes| *codes != 0);
    Ok(List { reach, more })
}

struct Reader<'a, 'c> {
    attributes: &'c mut PathAttributes<'a>,
    as4_aggregator: Option<Aggregator>,
    fault: &'c mut Option<Fault>,
    seen: [u64; 4],
    context: &'c Context,
}

impl<'a> Reader<'a, '_> {
    fn fault(&mut self, offset: usize, attribute: u8, reaction: Reaction) {
        if self.fault.is_none_or(|f| f.reaction < reaction) {
            *self.fault = Some(Fault { offset, attribute, reaction });
        }
    }

    /// RFC 7606 §4: an attribute that overruns the list takes the routes with it, or the session when it
    /// would have held the prefixes.
    fn overrun(&mut self, code: Option<u8>, at: usize) -> Result<(), DecodeError> {
        match code {
            Some(code @ (MP_REACH | MP_UNREACH)) => {
                Err(DecodeError { offset: at, kind: ErrorKind::Multiprotocol(code) })
            }
            code => {
                self.fault(at, code.unwrap_or(0), Reaction::TreatAsWithdraw);
                Ok(())
            }
        }
    }

    /// RFC 7606 §3 g: the first of two counts, but two of the multiprotocol kind end the session.
    fn repeated(&mut self, code: u8, at: usize) -> Result<bool, DecodeError> {
        let (word, bit) = (usize::from(code >> 6), 1 << (code & 63));
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            return Ok(false);
        }
        if matches!(code, MP_REACH | MP_UNREACH) {
            return Err(DecodeError { offset: at, kind: ErrorKind::Duplicate(code) });
        }
        self.fault(at, code, Reaction::Discard);
        Ok(true)
    }

    /// Reads what nearly every UPDATE has, as long as nothing is wrong with it, and returns the rest of the list. It
    /// spares these attributes the way through the table; [`Reader::read`] says the same of them.
    #[inline]
    fn usual(&mut self, list: &'a [u8]) -> &'a [u8] {
        let (mut rest, mut seen) = (list, self.seen[0]);
        while let Some(Split { flags, code, value, rest: after }) = split(rest) {
            let (bit, read) = match usual::with(flags, code) & !usual::with(EXTENDED, 0) {
                usual::ORIGIN if seen & 1 << ORIGIN == 0 => {
                    (1 << ORIGIN, origin(value).map(|origin| self.attributes.origin = Some(origin)))
                }
                usual::AS_PATH if seen & 1 << AS_PATH == 0 => {
                    let path = AsPath::check(value, self.context.four_octet);
                    (1 << AS_PATH, path.map(|path| self.attributes.as_path = Some(path)))
                }
                usual::NEXT_HOP if seen & 1 << NEXT_HOP == 0 => (1 << NEXT_HOP, self.next_hop(value)),
                usual::MP_REACH if seen & 1 << MP_REACH == 0 => (1 << MP_REACH, self.usual_reach(value)),
                _ => break,
            };
            if read.is_none() {
                break;
            }
            seen |= bit;
            rest = after;
        }
        self.seen[0] = seen;
        rest
    }

    #[inline(never)]
    fn read(&mut self, next: &Split<'a>, at: usize) -> Result<(), DecodeError> {
        let &Split { flags, code, value, .. } = next;
        if self.repeated(code, at)? {
            return Ok(());
        }
        let value_at = at + if flags & EXTENDED == 0 { 3 } else { 4 };
        let Some(rule) = table::rule(code) else {
            // An unknown one that claims to be well known (RFC 4271 §6.3); the reset that it once asked for
            // became this (RFC 7606 §3 c: the flags contradict what can be known of the code).
            if flags & OPTIONAL == 0 {
                self.fault(at, code, Reaction::TreatAsWithdraw);
            }
            return Ok(());
        };
        let misflagged = flags & (OPTIONAL | TRANSITIVE) != rule.flags;
        if !self.may_send(rule.from) {
            self.fault(at, code, Reaction::Discard);
        } else if misflagged && rule.malformed.is_some() {
            self.fault(at, code, rule.misflagged);
        } else if !rule.length.fits(value.len(), self.context.four_octet)
            || self.value(code, value, value_at)?.is_none()
        {
            let kind = ErrorKind::Multiprotocol(code);
            let reaction = rule.malformed.ok_or(DecodeError { offset: at, kind })?;
            self.fault(at, code, reaction);
        } else if misflagged {
            self.fault(at, code, rule.misflagged);
        }
        Ok(())
    }

    fn may_send(&self, from: table::Sender) -> bool {
        match from {
            table::Sender::Anyone => true,
            table::Sender::Internal => self.context.internal,
            table::Sender::TwoOctet => !self.context.four_octet,
        }
    }

    /// Reads a value into its place; `None` is "malformed".
    fn value(&mut self, code: u8, value: &'a [u8], at: usize) -> Result<Option<()>, DecodeError> {
        let attributes = &mut *self.attributes;
        Ok(match code {
            ORIGIN => origin(value).map(|origin| attributes.origin = Some(origin)),
            AS_PATH => AsPath::check(value, self.context.four_octet).map(|path| attributes.as_path = Some(path)),
            NEXT_HOP => self.next_hop(value),
            MED => number(value).map(|n| attributes.med = Some(n)),
            LOCAL_PREF => number(value).map(|n| attributes.local_pref = Some(n)),
            ATOMIC_AGGREGATE => {
                attributes.atomic_aggregate = true;
                Some(())
            }
            AGGREGATOR => aggregator(value).map(|a| attributes.aggregator = Some(a)),
            COMMUNITIES => keep(&mut attributes.communities, value),
            MP_REACH => return self.reach(value, at),
            MP_UNREACH => {
                attributes.unreach = multiprotocol::unreach(value, at, self.context)?;
                Some(())
            }
            EXTENDED_COMMUNITIES => keep(&mut attributes.extended_communities, value),
            AS4_PATH => {
                AsPath::check(value, true).filter(|_| !value.is_empty()).map(|path| attributes.as4_path = Some(path))
            }
            AS4_AGGREGATOR => aggregator(value).map(|a| self.as4_aggregator = Some(a)),
            TUNNEL_ENCAPSULATION => value::tunnels(value),
            AIGP => value::aigp(value),
            LARGE_COMMUNITIES => keep(&mut attributes.large_communities, value),
            ONLY_TO_CUSTOMER => number(value).map(|n| attributes.only_to_customer = Some(n)),
            PREFIX_SID => value::prefix_sid(value),
            ATTR_SET => value::attr_set(value),
            _ => Some(()),
        })
    }

    /// RFC 4271 §6.3: a next hop is a host's address and not the receiver's own.
    #[inline]
    fn next_hop(&mut self, value: &[u8]) -> Option<()> {
        let address = Ipv4Addr::from(number(value)?);
        let host = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
        self.attributes.next_hop = Some(address);
        ok(host && self.context.local != Some(address.into()))
    }

    #[inline]
    fn usual_reach(&mut self, value: &'a [u8]) -> Option<()> {
        let reach = multiprotocol::usual_reach(value, self.context)?;
        ok(self.context.local != Some(reach.next_hop.global))?;
        self.attributes.reach = Some(reach);
        Some(())
    }

    /// A next hop that is our own does not hide the prefixes: their routes are withdrawn.
    fn reach(&mut self, value: &'a [u8], at: usize) -> Result<Option<()>, DecodeError> {
        multiprotocol::reach(value, at, self.context, &mut self.attributes.reach)?;
        if self.attributes.reach.is_some_and(|r| self.context.local == Some(r.next_hop.global)) {
            self.fault(at, MP_REACH, Reaction::TreatAsWithdraw);
        }
        Ok(Some(()))
    }

    /// RFC 6793 §4.2.3: of two aggregators the wide one counts where the other is AS_TRANS; where it is not,
    /// somebody aggregated anew, and the wide path is out of date too.
    fn widen(&mut self) {
        let attributes = &mut *self.attributes;
        match (attributes.aggregator, self.as4_aggregator) {
            (Some(Aggregator { asn: AS_TRANS, .. }), Some(wide)) => attributes.aggregator = Some(wide),
            (Some(_), Some(_)) => attributes.as4_path = None,
            (_, None) | (None, _) => {}
        }
    }
}

/// Stands in two octets for an AS that needs four (RFC 6793 §9).
const AS_TRANS: u32 = 23456;

fn keep<'a>(place: &mut &'a [u8], value: &'a [u8]) -> Option<()> {
    *place = value;
    Some(())
}

#[inline]
fn origin(value: &[u8]) -> Option<Origin> {
    match value {
        [0] => Some(Origin::Igp),
        [1] => Some(Origin::Egp),
        [2] => Some(Origin::Incomplete),
        _ => None,
    }
}

/// An AS of two or four octets, never 0 (RFC 7607), and an address.
fn aggregator(value: &[u8]) -> Option<Aggregator> {
    let (asn, address) = value.split_last_chunk::<4>()?;
    let asn = asn.iter().fold(0, |n, o| n << 8 | u32::from(*o));
    ok(asn != 0)?;
    Some(Aggregator { asn, address: (*address).into() })
}

#[cfg(test)]
mod tests;
