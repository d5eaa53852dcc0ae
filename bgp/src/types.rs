//! The values that BGP speaks of, each with its rule built in: an [`Asn`] is never 0 (RFC 7607), a
//! [`HoldTime`] is 0 or at least three seconds (RFC 4271 §4.2), a [`RouterId`] is never 0 (RFC 6286 §2.1).

mod extended;

use std::{fmt, net::Ipv4Addr, num::NonZeroU32, str::FromStr, time::Duration};

pub use extended::{ExtendedCommunity, LinkBandwidth};

/// A value that breaks the rule of its type. The text names the rule and what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// An autonomous system number, four octets (RFC 6793), never 0 (RFC 7607).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(NonZeroU32);

impl Asn {
    /// AS_TRANS, what a four-octet AS shows to a two-octet field (RFC 6793 §9).
    pub const TRANS: Asn = Asn(NonZeroU32::new(23456).expect("23456 is not 0"));

    /// The number, or an error for 0.
    pub fn new(asn: u32) -> Result<Self, InvalidValue> {
        NonZeroU32::new(asn)
            .map(Self)
            .ok_or_else(|| InvalidValue("AS number 0 is reserved (RFC 7607); use 1 to 4294967295".into()))
    }

    /// The number as it stands on the wire.
    pub const fn value(self) -> u32 {
        self.0.get()
    }

    /// The number in a two-octet field: itself, or AS_TRANS where it does not fit (RFC 6793 §4.2.2).
    pub fn two_octet(self) -> u16 {
        u16::try_from(self.value()).unwrap_or(23456)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The BGP Identifier: four octets, unique within the AS, never 0 (RFC 6286 §2.1). Written like an IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(Ipv4Addr);

impl RouterId {
    /// The identifier, or an error for 0.0.0.0.
    pub fn new(id: Ipv4Addr) -> Result<Self, InvalidValue> {
        if id.is_unspecified() {
            return Err(InvalidValue("router id 0.0.0.0 is not valid (RFC 6286 §2.1)".into()));
        }
        Ok(Self(id))
    }

    /// The identifier in the form of an address.
    pub const fn addr(self) -> Ipv4Addr {
        self.0
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Seconds without a message after which the peer is given up: 0 (never) or 3 to 65,535 (RFC 4271 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldTime(u16);

impl HoldTime {
    /// 90 seconds, what RFC 4271 §10 suggests.
    pub const DEFAULT: HoldTime = HoldTime(90);

    /// The time in whole seconds; 1 and 2 are errors.
    pub fn new(seconds: u16) -> Result<Self, InvalidValue> {
        match seconds {
            1 | 2 => Err(InvalidValue(format!(
                "hold time {seconds} s is not valid: use 0 (never) or at least 3 s (RFC 4271 §4.2)"
            ))),
            _ => Ok(Self(seconds)),
        }
    }

    /// Whole seconds, as on the wire.
    pub const fn seconds(self) -> u16 {
        self.0
    }

    /// The hold timer, `None` where it is switched off (0).
    pub fn duration(self) -> Option<Duration> {
        (self.0 != 0).then(|| Duration::from_secs(self.0.into()))
    }

    /// Time between KEEPALIVEs: a third of the hold time, `None` where keepalives are off.
    pub fn keepalive(self) -> Option<Duration> {
        self.duration().map(|d| d / 3)
    }
}

/// An address family that this speaker carries, always unicast (SAFI 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learned by EGP.
    Egp,
    /// Anything else.
    Incomplete,
}

/// A standard community (RFC 1997), `asn:value`, or one of the well-known names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Graceful shutdown (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xFFFF_0000);
    /// Long-lived graceful restart: stale (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xFFFF_0006);
    /// Not long-lived graceful restart (RFC 9494).
    pub const NO_LLGR: Community = Community(0xFFFF_0007);
    /// Blackhole (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xFFFF_029A);
    /// Not advertised outside the AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xFFFF_FF01);
    /// Not advertised to any peer (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xFFFF_FF02);
    /// Not advertised to external peers, confederation members included (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);

    const NAMES: [(&'static str, Community); 7] = [
        ("graceful-shutdown", Self::GRACEFUL_SHUTDOWN),
        ("llgr-stale", Self::LLGR_STALE),
        ("no-llgr", Self::NO_LLGR),
        ("blackhole", Self::BLACKHOLE),
        ("no-export", Self::NO_EXPORT),
        ("no-advertise", Self::NO_ADVERTISE),
        ("no-export-subconfed", Self::NO_EXPORT_SUBCONFED),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, c)| c == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF),
        }
    }
}

impl FromStr for Community {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Some((_, community)) = Self::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*community);
        }
        let invalid = || {
            InvalidValue(format!(
                "community {text:?} is neither \"asn:value\" with two numbers of 0 to 65535 nor a well-known name"
            ))
        };
        let (high, low) = text.split_once(':').ok_or_else(invalid)?;
        let high: u16 = high.parse().map_err(|_| invalid())?;
        let low: u16 = low.parse().map_err(|_| invalid())?;
        Ok(Self(u32::from(high) << 16 | u32::from(low)))
    }
}

/// A large community (RFC 8092), `global:local1:local2`, each of four octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

impl LargeCommunity {
    /// The octets in the order of the wire.
    pub fn octets(self) -> [u8; 12] {
        let mut octets = [0; 12];
        let [global, local1, local2] = [self.0, self.1, self.2].map(u32::to_be_bytes);
        octets[..4].copy_from_slice(&global);
        octets[4..8].copy_from_slice(&local1);
        octets[8..].copy_from_slice(&local2);
        octets
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0, self.1, self.2)
    }
}

impl FromStr for LargeCommunity {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || {
            InvalidValue(format!(
                "large community {text:?} is not \"global:local1:local2\" with three numbers of 0 to 4294967295"
            ))
        };
        let parts = text.strip_prefix("large:").unwrap_or(text);
        let numbers: Vec<u32> = parts.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| invalid())?;
        match numbers[..] {
            [global, local1, local2] => Ok(Self(global, local1, local2)),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_number_zero_is_refused() {
        assert!(Asn::new(0).is_err());
        assert_eq!(Asn::new(4_200_000_000).expect("valid").two_octet(), 23456);
    }

    #[test]
    fn hold_times_of_one_and_two_seconds_are_refused() {
        assert!(HoldTime::new(1).is_err() && HoldTime::new(2).is_err());
        assert_eq!(HoldTime::new(0).expect("valid").keepalive(), None);
        assert_eq!(HoldTime::new(9).expect("valid").keepalive(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn communities_read_back_what_they_print() {
        for text in ["no-export", "65000:100", "graceful-shutdown"] {
            assert_eq!(text.parse::<Community>().expect("valid").to_string(), text);
        }
        assert!("65536:1".parse::<Community>().is_err());
        assert_eq!("large:1:2:3".parse::<LargeCommunity>().expect("valid").to_string(), "1:2:3");
    }
}
