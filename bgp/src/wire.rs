//! BGP messages as they stand on the wire.
//!
//! Decoding works over the receive buffer and allocates nothing in the UPDATE path: prefixes and communities
//! are views that are iterated in place. Every error carries the offset of the octet that broke the rule,
//! counted from the first octet of the message's marker. Encoding appends to a buffer that the caller reuses.
//!
//! ```text
//!  message  framing, KEEPALIVE, ROUTE-REFRESH        open          OPEN and its parameters (RFC 4271, 9072)
//!  update   UPDATE: layout, what RFC 7606 asks for   capability    what an OPEN offers (RFC 5492)
//!  attribute  one table: flags, codec, reaction      nlri          prefixes
//!  notification  codes in words                      error         what a decoder says
//! ```

mod as_path;
pub mod attribute;
pub mod capability;
mod error;
pub mod message;
mod multiprotocol;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod update;

pub use as_path::{AsPath, MergedPath, Numbers, Segment, SegmentKind};
pub use error::{DecodeError, ErrorKind};
pub use multiprotocol::{MpReach, MpUnreach, NextHop};

use crate::Family;

/// A set of families, one octet, copied freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Families(u8);

impl Families {
    /// No family.
    pub const NONE: Families = Families(0);
    /// Every family that this crate carries, in the order of their code points.
    pub const EVERY: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    const fn bit(family: Family) -> u8 {
        match family {
            Family::Ipv4Unicast => 1,
            Family::Ipv6Unicast => 2,
        }
    }

    /// Whether the family is in the set.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    /// Adds a family.
    pub const fn insert(&mut self, family: Family) {
        self.0 |= Self::bit(family);
    }

    /// Takes a family out.
    pub const fn remove(&mut self, family: Family) {
        self.0 &= !Self::bit(family);
    }

    /// What both sets have.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families in order.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Self::EVERY.into_iter().filter(move |f| self.contains(*f))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::NONE;
        families.into_iter().for_each(|f| set.insert(f));
        set
    }
}

/// SAFI of unicast routes (RFC 4760 §6).
pub const SAFI_UNICAST: u8 = 1;

/// The address family identifier (IANA address family numbers).
pub const fn afi(family: Family) -> u16 {
    match family {
        Family::Ipv4Unicast => 1,
        Family::Ipv6Unicast => 2,
    }
}

/// The family of an AFI and SAFI, `None` where this crate does not carry it.
pub const fn family_of(afi: u16, safi: u8) -> Option<Family> {
    match (afi, safi) {
        (1, SAFI_UNICAST) => Some(Family::Ipv4Unicast),
        (2, SAFI_UNICAST) => Some(Family::Ipv6Unicast),
        _ => None,
    }
}
