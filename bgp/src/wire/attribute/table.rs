//! The table: what each attribute must look like, and what is done where it does not (RFC 7606 §7 and the RFC of
//! each attribute).

use super::*;

/// How long a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// This long.
    Exactly(u8),
    /// One element of this size at least, and whole ones only.
    Elements(u8),
    /// An AS number, as wide as the session has them, and this many octets more.
    AsAnd(u8),
    /// The value says itself.
    Any,
}

impl Length {
    pub(super) fn fits(self, octets: usize, four_octet: bool) -> bool {
        match self {
            Self::Exactly(length) => octets == usize::from(length),
            Self::Elements(size) => octets != 0 && octets.is_multiple_of(size.into()),
            Self::AsAnd(more) => octets == usize::from(more) + if four_octet { 4 } else { 2 },
            Self::Any => true,
        }
    }
}

/// Who may send an attribute; from anybody else it is discarded, damaged or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Anyone,
    /// A peer in our AS (RFC 7606 §7.5, §7.9, §7.10).
    Internal,
    /// A speaker of two-octet AS numbers (RFC 6793 §3).
    TwoOctet,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) code: u8,
    /// The optional and transitive bits that it must have.
    pub(super) flags: u8,
    pub(super) length: Length,
    pub(super) from: Sender,
    /// When its length or value is wrong; `None` ends the session.
    pub(super) malformed: Option<Reaction>,
    /// When its flags are wrong (RFC 7606 §3 c, unless the attribute's own RFC says otherwise).
    pub(super) misflagged: Reaction,
}

impl Rule {
    const fn new(code: u8, flags: u8, length: Length, malformed: Option<Reaction>) -> Self {
        Self { code, flags, length, from: Sender::Anyone, malformed, misflagged: TreatAsWithdraw }
    }

    const fn from(self, from: Sender) -> Self {
        Self { from, ..self }
    }

    const fn misflagged(self, misflagged: Reaction) -> Self {
        Self { misflagged, ..self }
    }
}

const WELL_KNOWN: u8 = TRANSITIVE;
const BOTH: u8 = OPTIONAL | TRANSITIVE;
const WITHDRAW: Option<Reaction> = Some(TreatAsWithdraw);
const DISCARD: Option<Reaction> = Some(Discard);
const RESET: Option<Reaction> = None;
use Length::{Any, AsAnd, Elements, Exactly};
use Reaction::{Discard, TreatAsWithdraw};
use Sender::{Internal, TwoOctet};

/// The attributes that this speaker knows. The prefixes of damaged multiprotocol attributes cannot be known and so
/// cannot be withdrawn (RFC 7606 §3 j, §7.11): those two end the session.
#[rustfmt::skip]
pub(super) static RULES: [Rule; 22] = [
    Rule::new(ORIGIN,                    WELL_KNOWN, Exactly(1),   WITHDRAW),
    Rule::new(AS_PATH,                   WELL_KNOWN, Any,          WITHDRAW),
    Rule::new(NEXT_HOP,                  WELL_KNOWN, Exactly(4),   WITHDRAW),
    Rule::new(MED,                       OPTIONAL,   Exactly(4),   WITHDRAW),
    Rule::new(LOCAL_PREF,                WELL_KNOWN, Exactly(4),   WITHDRAW).from(Internal),
    Rule::new(ATOMIC_AGGREGATE,          WELL_KNOWN, Exactly(0),   DISCARD),
    Rule::new(AGGREGATOR,                BOTH,       AsAnd(4),     DISCARD),
    Rule::new(COMMUNITIES,               BOTH,       Elements(4),  WITHDRAW),
    Rule::new(ORIGINATOR_ID,             OPTIONAL,   Exactly(4),   WITHDRAW).from(Internal),
    Rule::new(CLUSTER_LIST,              OPTIONAL,   Elements(4),  WITHDRAW).from(Internal),
    Rule::new(MP_REACH,                  OPTIONAL,   Any,          RESET),
    Rule::new(MP_UNREACH,                OPTIONAL,   Any,          RESET),
    Rule::new(EXTENDED_COMMUNITIES,      BOTH,       Elements(8),  WITHDRAW),
    Rule::new(AS4_PATH,                  BOTH,       Any,          DISCARD).from(TwoOctet),
    Rule::new(AS4_AGGREGATOR,            BOTH,       Exactly(8),   DISCARD).from(TwoOctet),
    Rule::new(TUNNEL_ENCAPSULATION,      BOTH,       Any,          WITHDRAW),
    Rule::new(IPV6_EXTENDED_COMMUNITIES, BOTH,       Elements(20), WITHDRAW),
    Rule::new(AIGP,                      OPTIONAL,   Any,          DISCARD).misflagged(Discard),
    Rule::new(LARGE_COMMUNITIES,         BOTH,       Elements(12), WITHDRAW),
    Rule::new(ONLY_TO_CUSTOMER,          BOTH,       Exactly(4),   WITHDRAW),
    Rule::new(PREFIX_SID,                BOTH,       Any,          DISCARD).misflagged(Discard),
    Rule::new(ATTR_SET,                  BOTH,       Any,          WITHDRAW),
];

/// The line of each code, at its place; elsewhere lines of a code that is not the place's.
static BY_CODE: [Rule; 256] = {
    let nobody = Rule::new(0, OPTIONAL, Any, DISCARD);
    let mut lines = [nobody; 256];
    lines[0].code = 1;
    let mut at = 0;
    while at < RULES.len() {
        lines[RULES[at].code as usize] = RULES[at];
        at += 1;
    }
    lines
};

/// The line of a code.
#[inline]
pub(super) fn rule(code: u8) -> Option<&'static Rule> {
    let rule = &BY_CODE[usize::from(code)];
    (rule.code == code).then_some(rule)
}
