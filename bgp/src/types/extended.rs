//! Extended communities (RFC 4360), and the one that weighs routes by bandwidth (RFC 10005).

use std::{fmt, net::Ipv4Addr, str::FromStr};

use super::{Asn, InvalidValue};

/// Bit of the type octet that keeps a community within its AS (RFC 4360 §2).
const NON_TRANSITIVE: u8 = 0x40;
/// Types with a two-octet AS, an IPv4 address, and a four-octet AS before the value (RFC 4360 §3, RFC 5668).
const TWO_OCTET_AS: u8 = 0x00;
const IPV4_ADDRESS: u8 = 0x01;
const FOUR_OCTET_AS: u8 = 0x02;
/// Sub-types (RFC 4360 §4 and §5, RFC 10005).
const ROUTE_TARGET: u8 = 0x02;
const ROUTE_ORIGIN: u8 = 0x03;
const LINK_BANDWIDTH: u8 = 0x04;

/// An extended community: eight octets, the first two of which say what the others are (RFC 4360). Written
/// `rt:AS:NUMBER` or `ro:AS:NUMBER`, with an IPv4 address in place of the AS too, and in any other case as the
/// octets themselves, `0x0004fde84e6e6b28`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub u64);

impl ExtendedCommunity {
    /// The octets in the order of the wire.
    pub const fn octets(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Whether it may cross the border of an AS.
    pub const fn is_transitive(self) -> bool {
        self.octets()[0] & NON_TRANSITIVE == 0
    }

    fn new(kind: u8, sub: u8, value: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = value;
        Self(u64::from_be_bytes([kind, sub, a, b, c, d, e, f]))
    }
}

/// A number that fits beside an AS of four octets or an address.
fn short(number: &str) -> Option<[u8; 2]> {
    number.parse::<u16>().ok().map(u16::to_be_bytes)
}

fn parse(text: &str) -> Option<ExtendedCommunity> {
    if let Some(octets) = text.strip_prefix("0x") {
        let plain = octets.len() == 16 && !octets.starts_with('+');
        return plain.then(|| u64::from_str_radix(octets, 16).ok())?.map(ExtendedCommunity);
    }
    let (kind, value) = text.split_once(':')?;
    let sub = match kind {
        "rt" => ROUTE_TARGET,
        "ro" => ROUTE_ORIGIN,
        _ => return None,
    };
    let (administrator, number) = value.split_once(':')?;
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        let ([a, b, c, d], [e, f]) = (address.octets(), short(number)?);
        return Some(ExtendedCommunity::new(IPV4_ADDRESS, sub, [a, b, c, d, e, f]));
    }
    let asn: u32 = administrator.parse().ok()?;
    Some(match u16::try_from(asn) {
        Ok(asn) => {
            let ([a, b], [c, d, e, f]) = (asn.to_be_bytes(), number.parse::<u32>().ok()?.to_be_bytes());
            ExtendedCommunity::new(TWO_OCTET_AS, sub, [a, b, c, d, e, f])
        }
        Err(_) => {
            let ([a, b, c, d], [e, f]) = (asn.to_be_bytes(), short(number)?);
            ExtendedCommunity::new(FOUR_OCTET_AS, sub, [a, b, c, d, e, f])
        }
    })
}

impl FromStr for ExtendedCommunity {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        parse(text).ok_or_else(|| {
            InvalidValue(format!(
                "extended community {text:?} is neither \"rt:AS:NUMBER\" nor \"ro:AS:NUMBER\" (the number up to 65535 \
                 where the AS has four octets or is an address) nor 0x and 16 hexadecimal digits"
            ))
        })
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, sub, a, b, c, d, e, g] = self.octets();
        let name = match sub {
            ROUTE_TARGET => "rt",
            ROUTE_ORIGIN => "ro",
            _ => return write!(f, "{:#018x}", self.0),
        };
        let last = u16::from_be_bytes([e, g]);
        match kind {
            TWO_OCTET_AS => {
                write!(f, "{name}:{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]))
            }
            IPV4_ADDRESS => write!(f, "{name}:{}:{last}", Ipv4Addr::new(a, b, c, d)),
            FOUR_OCTET_AS => write!(f, "{name}:{}:{last}", u32::from_be_bytes([a, b, c, d])),
            _ => write!(f, "{:#018x}", self.0),
        }
    }
}

/// The bandwidth that a next hop has to offer, by which routers weigh equal paths (RFC 10005). Only the ratio
/// between the routes of one prefix matters to them, so any measure will do, ready endpoints for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkBandwidth {
    /// An IEEE 754 number: not negative, not infinite, no NaN, and no negative zero, so that equal bits are
    /// equal bandwidths.
    bits: u32,
    transitive: bool,
}

impl LinkBandwidth {
    /// A bandwidth in octets per second; `transitive` is the form that crosses the border of an AS. An error for
    /// what is no bandwidth.
    pub fn new(octets_per_second: f32, transitive: bool) -> Result<Self, InvalidValue> {
        if !octets_per_second.is_finite() || octets_per_second < 0.0 {
            return Err(InvalidValue(format!(
                "link bandwidth {octets_per_second} is not a number of octets per second from 0 up (RFC 10005)"
            )));
        }
        Ok(Self { bits: (octets_per_second + 0.0).abs().to_bits(), transitive })
    }

    /// Octets per second.
    pub fn octets_per_second(self) -> f32 {
        f32::from_bits(self.bits)
    }

    /// Whether it may cross the border of an AS: type 0x0004, not 0x4004.
    pub const fn is_transitive(self) -> bool {
        self.transitive
    }

    /// The community that the AS sends, AS_TRANS in its field where the AS does not fit.
    pub fn community(self, asn: Asn) -> ExtendedCommunity {
        let kind = if self.transitive { TWO_OCTET_AS } else { TWO_OCTET_AS | NON_TRANSITIVE };
        let ([a, b], [c, d, e, f]) = (asn.two_octet().to_be_bytes(), self.bits.to_be_bytes());
        ExtendedCommunity::new(kind, LINK_BANDWIDTH, [a, b, c, d, e, f])
    }

    /// The bandwidth that a community says, with either form; `None` for any other, and for a value that is no
    /// bandwidth.
    pub fn of(community: ExtendedCommunity) -> Option<Self> {
        let [kind, sub, _, _, value @ ..] = community.octets();
        if kind & !NON_TRANSITIVE != TWO_OCTET_AS || sub != LINK_BANDWIDTH {
            return None;
        }
        Self::new(f32::from_bits(u32::from_be_bytes(value)), community.is_transitive()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_communities_read_back_what_they_print() {
        for (text, octets) in [
            ("rt:65000:100000", 0x0002_FDE8_0001_86A0),
            ("ro:65000:7", 0x0003_FDE8_0000_0007),
            ("rt:192.0.2.1:7", 0x0102_C000_0201_0007),
            ("rt:4200000001:7", 0x0202_FA56_EA01_0007),
            ("0x4004fde84e6e6b28", 0x4004_FDE8_4E6E_6B28),
        ] {
            let community: ExtendedCommunity = text.parse().expect("valid");
            assert_eq!(community.0, octets, "{text}");
            assert_eq!(community.to_string(), text);
        }
        for text in ["rt:4200000001:65536", "rt:65000", "lb:1:1", "0x4004", "0x+004fde84e6e6b28", "rt:192.0.2.1:65536"]
        {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn link_bandwidth_stands_as_octets_per_second_in_both_forms() {
        let asn = Asn::new(65000).expect("valid");
        for (transitive, octets) in [(true, 0x0004_FDE8_4E6E_6B28), (false, 0x4004_FDE8_4E6E_6B28)] {
            let bandwidth = LinkBandwidth::new(1e9, transitive).expect("a bandwidth");
            let community = bandwidth.community(asn);
            assert_eq!(community.0, octets);
            assert_eq!(community.is_transitive(), transitive);
            assert_eq!(LinkBandwidth::of(community), Some(bandwidth));
        }
        let large = LinkBandwidth::new(1.0, true).expect("a bandwidth").community(Asn::new(70_000).expect("valid"));
        assert_eq!(large.0, 0x0004_5BA0_3F80_0000, "AS_TRANS stands for four octets");
    }

    #[test]
    fn values_that_are_no_bandwidth_are_refused_and_ignored() {
        for value in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(LinkBandwidth::new(value, true).is_err(), "{value}");
            assert_eq!(LinkBandwidth::of(ExtendedCommunity(0x0004_FDE8 << 32 | u64::from(value.to_bits()))), None);
        }
        let zero = LinkBandwidth::new(0.0, true).expect("nothing is a bandwidth too");
        assert_eq!(LinkBandwidth::new(-0.0, true), Ok(zero));
        assert_eq!(LinkBandwidth::of("rt:65000:1".parse().expect("valid")), None);
    }
}
