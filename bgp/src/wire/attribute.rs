//! Path attributes: one table of what each must look like, how it is read, and what RFC 7606 asks for when
//! it is damaged.

use std::net::Ipv4Addr;

use super::{AsPath, DecodeError, ErrorKind, MpReach, MpUnreach, multiprotocol, update::Context};
use crate::{Asn, Community, LargeCommunity, Origin};

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
    /// AS4_PATH, from a speaker of two-octet AS numbers.
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

    /// Extended communities as received, eight octets each (RFC 4360).
    pub fn extended_communities(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.extended_communities.as_chunks::<8>().0.iter().map(|c| u64::from_be_bytes(*c))
    }

    /// Large communities as received.
    pub fn large_communities(&self) -> impl Iterator<Item = LargeCommunity> + use<'a> {
        self.large_communities.as_chunks::<12>().0.iter().map(|c| {
            let [a, b, c] = [&c[..4], &c[4..8], &c[8..]].map(|w| w.iter().fold(0, |n, o| n << 8 | u32::from(*o)));
            LargeCommunity(a, b, c)
        })
    }
}

/// Reads a value into its place; `Err(())` is "malformed".
type Codec = for<'a> fn(&mut PathAttributes<'a>, &'a [u8], &Context) -> Result<(), ()>;

/// One line of the table.
struct Rule {
    code: u8,
    /// The optional and transitive bits that it must have.
    flags: u8,
    /// When its value is malformed.
    malformed: Reaction,
    /// When its flags are wrong (RFC 7606 §3 c, unless the attribute's own RFC says otherwise).
    misflagged: Reaction,
    codec: Codec,
}

const fn rule(code: u8, flags: u8, malformed: Reaction, codec: Codec) -> Rule {
    Rule { code, flags, malformed, misflagged: Reaction::TreatAsWithdraw, codec }
}

const WELL_KNOWN: u8 = TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;
use Reaction::{Discard, TreatAsWithdraw};

/// RFC 7606 §7 and the RFC of each attribute. MP_REACH_NLRI and MP_UNREACH_NLRI, whose damage ends the
/// session, and what is in no line here, which is opaque, are handled beside it.
#[rustfmt::skip]
static RULES: [Rule; 20] = [
    rule(ORIGIN, WELL_KNOWN, TreatAsWithdraw, origin),
    rule(AS_PATH, WELL_KNOWN, TreatAsWithdraw, as_path),
    rule(NEXT_HOP, WELL_KNOWN, TreatAsWithdraw, next_hop),
    rule(MED, OPTIONAL, TreatAsWithdraw, |a, v, _| number(v).map(|n| a.med = Some(n))),
    rule(LOCAL_PREF, WELL_KNOWN, TreatAsWithdraw, |a, v, _| number(v).map(|n| a.local_pref = Some(n))),
    rule(ATOMIC_AGGREGATE, WELL_KNOWN, Discard, |_, v, _| ok(v.is_empty())),
    rule(AGGREGATOR, OPTIONAL_TRANSITIVE, Discard, aggregator),
    rule(COMMUNITIES, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |a, v, _| list(v, 4).map(|v| a.communities = v)),
    rule(ORIGINATOR_ID, OPTIONAL, TreatAsWithdraw, |_, v, _| ok(v.len() == 4)),
    rule(CLUSTER_LIST, OPTIONAL, TreatAsWithdraw, |_, v, _| list(v, 4).map(|_| ())),
    rule(EXTENDED_COMMUNITIES, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |a, v, _| list(v, 8).map(|v| a.extended_communities = v)),
    rule(AS4_PATH, OPTIONAL_TRANSITIVE, Discard, as4_path),
    rule(AS4_AGGREGATOR, OPTIONAL_TRANSITIVE, Discard, |_, v, c| ok(v.len() == 8 && !c.four_octet)),
    rule(TUNNEL_ENCAPSULATION, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |_, v, _| tunnels(v)),
    rule(IPV6_EXTENDED_COMMUNITIES, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |_, v, _| list(v, 20).map(|_| ())),
    Rule { misflagged: Discard, ..rule(AIGP, OPTIONAL, Discard, |_, v, _| aigp(v)) },
    rule(LARGE_COMMUNITIES, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |a, v, _| list(v, 12).map(|v| a.large_communities = v)),
    rule(ONLY_TO_CUSTOMER, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |a, v, _| number(v).map(|n| a.only_to_customer = Some(n))),
    Rule { misflagged: Discard, ..rule(PREFIX_SID, OPTIONAL_TRANSITIVE, Discard, |_, v, _| prefix_sid(v)) },
    rule(ATTR_SET, OPTIONAL_TRANSITIVE, TreatAsWithdraw, |_, v, _| attr_set(v)),
];

/// Where each code stands in [`RULES`]; 255 is nowhere.
static INDEX: [u8; 256] = {
    let mut index = [255; 256];
    let mut at = 0;
    while at < RULES.len() {
        index[RULES[at].code as usize] = at as u8;
        at += 1;
    }
    index
};

fn ok(valid: bool) -> Result<(), ()> {
    if valid { Ok(()) } else { Err(()) }
}

fn number(value: &[u8]) -> Result<u32, ()> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| ())
}

/// A list of elements of one size that must not be empty (RFC 7606 §7.8, §7.10, §7.14, RFC 8092 §5).
fn list(value: &[u8], size: usize) -> Result<&[u8], ()> {
    if value.is_empty() || !value.len().is_multiple_of(size) { Err(()) } else { Ok(value) }
}

fn origin<'a>(attributes: &mut PathAttributes<'a>, value: &'a [u8], _: &Context) -> Result<(), ()> {
    attributes.origin = Some(match value {
        [0] => Origin::Igp,
        [1] => Origin::Egp,
        [2] => Origin::Incomplete,
        _ => return Err(()),
    });
    Ok(())
}

fn as_path<'a>(attributes: &mut PathAttributes<'a>, value: &'a [u8], context: &Context) -> Result<(), ()> {
    attributes.as_path = Some(AsPath::check(value, context.four_octet).ok_or(())?);
    Ok(())
}

/// RFC 6793 §6: a speaker of four octets must not send it; a damaged one is discarded.
fn as4_path<'a>(attributes: &mut PathAttributes<'a>, value: &'a [u8], context: &Context) -> Result<(), ()> {
    let path = AsPath::check(value, true).filter(|_| !context.four_octet && !value.is_empty());
    attributes.as4_path = Some(path.ok_or(())?);
    Ok(())
}

/// RFC 4271 §6.3: a next hop is a host's address and not the receiver's own.
fn next_hop<'a>(attributes: &mut PathAttributes<'a>, value: &'a [u8], context: &Context) -> Result<(), ()> {
    let address = Ipv4Addr::from(number(value)?);
    let host = !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast();
    attributes.next_hop = Some(address);
    ok(host && context.local != Some(address.into()))
}

/// Six octets, or eight with four-octet AS numbers (RFC 7606 §7.7); never AS 0 (RFC 7607).
fn aggregator<'a>(_: &mut PathAttributes<'a>, value: &'a [u8], context: &Context) -> Result<(), ()> {
    let width = if context.four_octet { 4 } else { 2 };
    ok(value.len() == width + 4 && value[..width].iter().any(|o| *o != 0))
}

/// TLVs of two octets of type and two of length, at least one, each with well-formed sub-TLVs (RFC 9012 §13).
fn tunnels(value: &[u8]) -> Result<(), ()> {
    let mut rest = value;
    loop {
        let [_, _, high, low, tail @ ..] = rest else { return Err(()) };
        let (tlv, tail) = tail.split_at_checked(u16::from_be_bytes([*high, *low]).into()).ok_or(())?;
        tunnel_parts(tlv)?;
        rest = tail;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Sub-TLVs: one octet of length up to type 127, two above (RFC 9012 §2).
fn tunnel_parts(mut rest: &[u8]) -> Result<(), ()> {
    while let [kind, tail @ ..] = rest {
        let (length, tail) = match (kind, tail) {
            (0..128, [length, tail @ ..]) => (usize::from(*length), tail),
            (128.., [high, low, tail @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), tail),
            _ => return Err(()),
        };
        rest = tail.split_at_checked(length).ok_or(())?.1;
    }
    Ok(())
}

/// TLVs whose length counts their own three octets; type 1 has eleven (RFC 7311 §3).
fn aigp(mut rest: &[u8]) -> Result<(), ()> {
    ok(!rest.is_empty())?;
    while !rest.is_empty() {
        let [kind, high, low, ..] = rest else { return Err(()) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        ok(length >= 3 && (*kind != 1 || length == 11))?;
        rest = rest.split_at_checked(length).ok_or(())?.1;
    }
    Ok(())
}

/// TLVs of one octet of type and two of length (RFC 8669 §3); the SRv6 services are not empty (RFC 9252 §2).
fn prefix_sid(mut rest: &[u8]) -> Result<(), ()> {
    ok(!rest.is_empty())?;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else { return Err(()) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        ok(match kind {
            1 => length == 7,
            3 => length >= 8 && (length - 2).is_multiple_of(6),
            5 | 6 => length >= 1,
            _ => true,
        })?;
        rest = tail.split_at_checked(length).ok_or(())?.1;
    }
    Ok(())
}

/// An AS and attributes whose lengths add up (RFC 6368 §5).
fn attr_set(value: &[u8]) -> Result<(), ()> {
    let (_, mut rest) = value.split_at_checked(4).ok_or(())?;
    while !rest.is_empty() {
        rest = split(rest).ok_or(())?.rest;
    }
    Ok(())
}

/// One attribute taken off a list.
struct Split<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    rest: &'a [u8],
}

fn split(list: &[u8]) -> Option<Split<'_>> {
    let (flags, code, length, tail) = match list {
        [flags, code, high, low, tail @ ..] if flags & EXTENDED != 0 => {
            (*flags, *code, usize::from(u16::from_be_bytes([*high, *low])), tail)
        }
        [flags, code, length, tail @ ..] if flags & EXTENDED == 0 => (*flags, *code, usize::from(*length), tail),
        _ => return None,
    };
    let (value, rest) = tail.split_at_checked(length)?;
    Some(Split { flags, code, value, rest })
}

/// Reads the attribute list that starts `offset` octets into the message. Keeps the first fault of the
/// severest kind.
pub(super) fn decode<'a>(
    list: &'a [u8],
    offset: usize,
    context: &Context,
) -> Result<(PathAttributes<'a>, Option<Fault>), DecodeError> {
    let mut reader = Reader { attributes: PathAttributes::default(), fault: None, seen: [0; 4], context };
    let mut rest = list;
    while !rest.is_empty() {
        let at = offset + list.len() - rest.len();
        let Some(next) = split(rest) else {
            reader.overrun(rest.get(1).copied(), at)?;
            break;
        };
        rest = next.rest;
        reader.read(&next, at)?;
    }
    Ok((reader.attributes, reader.fault))
}

struct Reader<'a, 'c> {
    attributes: PathAttributes<'a>,
    fault: Option<Fault>,
    seen: [u64; 4],
    context: &'c Context,
}

impl<'a> Reader<'a, '_> {
    fn fault(&mut self, offset: usize, attribute: u8, reaction: Reaction) {
        if self.fault.is_none_or(|f| f.reaction < reaction) {
            self.fault = Some(Fault { offset, attribute, reaction });
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
                self.fault(at, code.unwrap_or(0), TreatAsWithdraw);
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
        self.fault(at, code, Discard);
        Ok(true)
    }

    fn read(&mut self, next: &Split<'a>, at: usize) -> Result<(), DecodeError> {
        let &Split { flags, code, value, .. } = next;
        if self.repeated(code, at)? {
            return Ok(());
        }
        let value_at = at + if flags & EXTENDED == 0 { 3 } else { 4 };
        match (code, RULES.get(usize::from(INDEX[usize::from(code)]))) {
            (MP_REACH, _) => self.attributes.reach = multiprotocol::reach(value, value_at, self.context)?,
            (MP_UNREACH, _) => self.attributes.unreach = multiprotocol::unreach(value, value_at, self.context)?,
            (_, Some(rule)) => {
                self.apply(rule, flags, value, at);
                return Ok(());
            }
            // An unknown one that claims to be well known (RFC 4271 §6.3); the reset that it once asked for
            // became this (RFC 7606 §3 c: the flags contradict what can be known of the code).
            (_, None) if flags & OPTIONAL == 0 => self.fault(at, code, TreatAsWithdraw),
            (_, None) => {}
        }
        let misflagged = flags & (OPTIONAL | TRANSITIVE) != OPTIONAL;
        let own = self.attributes.reach.is_some_and(|r| self.context.local == Some(r.next_hop.global));
        if matches!(code, MP_REACH | MP_UNREACH) && misflagged || code == MP_REACH && own {
            self.fault(at, code, TreatAsWithdraw);
        }
        Ok(())
    }

    fn apply(&mut self, rule: &Rule, flags: u8, value: &'a [u8], at: usize) {
        // RFC 7606 §7.5, §7.9, §7.10: what is iBGP's alone is discarded from anybody else, damaged or not.
        let internal = matches!(rule.code, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST);
        if internal && !self.context.internal {
            self.fault(at, rule.code, Discard);
        } else if flags & (OPTIONAL | TRANSITIVE) != rule.flags {
            self.fault(at, rule.code, rule.misflagged);
        } else if (rule.codec)(&mut self.attributes, value, self.context).is_err() {
            self.fault(at, rule.code, rule.malformed);
        }
    }
}

/// Appends one attribute, its length in one octet or, where needed, two.
pub fn encode(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(value.len()).expect("attributes are far below 65,535 octets").to_be_bytes();
    match length {
        [0, low] => out.extend_from_slice(&[flags, code, low]),
        [high, low] => out.extend_from_slice(&[flags | EXTENDED, code, high, low]),
    }
    out.extend_from_slice(value);
}

/// Appends an AS_PATH (or AS4_PATH) of one AS, `count` times, in segments of at most 255 (RFC 4271 §4.3 b).
pub fn encode_as_path(code: u8, asn: Asn, count: usize, four_octet: bool, out: &mut Vec<u8>) {
    let mut value = Vec::with_capacity(2 + 4 * count);
    let mut left = count;
    while left > 0 {
        let part = left.min(255);
        value.extend_from_slice(&[2, u8::try_from(part).expect("at most 255")]);
        for _ in 0..part {
            match four_octet {
                true => value.extend_from_slice(&asn.value().to_be_bytes()),
                false => value.extend_from_slice(&asn.two_octet().to_be_bytes()),
            }
        }
        left -= part;
    }
    let flags = if code == AS_PATH { WELL_KNOWN } else { OPTIONAL_TRANSITIVE };
    encode(flags, code, &value, out);
}
