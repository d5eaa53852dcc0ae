//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760), with the next hops of RFC 2545 and RFC 8950.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{DecodeError, ErrorKind, SAFI_UNICAST, attribute, family_of, nlri::Nlri, update::Context};
use crate::Family;

/// Where packets go (RFC 2545 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The address that the route is resolved by.
    pub global: IpAddr,
    /// The link-local address beside it, on a shared link.
    pub link_local: Option<Ipv6Addr>,
}

impl NextHop {
    /// Appends the length and the addresses as they stand in MP_REACH_NLRI, and the reserved octet after them.
    #[inline]
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match (self.global, self.link_local) {
            (IpAddr::V4(global), _) => {
                let [a, b, c, d] = global.octets();
                out.extend_from_slice(&[4, a, b, c, d, 0]);
            }
            (IpAddr::V6(global), None) => {
                let mut octets = [0; 18];
                octets[0] = 16;
                octets[1..17].copy_from_slice(&global.octets());
                out.extend_from_slice(&octets);
            }
            (IpAddr::V6(global), Some(link_local)) => {
                let mut octets = [0; 34];
                octets[0] = 32;
                octets[1..17].copy_from_slice(&global.octets());
                octets[17..33].copy_from_slice(&link_local.octets());
                out.extend_from_slice(&octets);
            }
        }
    }
}

/// Routes announced for a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MpReach<'a> {
    /// Where their packets go.
    pub next_hop: NextHop,
    /// The destinations.
    pub nlri: Nlri<'a>,
}

/// Routes withdrawn from a family; with no prefix at all, the End-of-RIB marker (RFC 4724 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MpUnreach<'a> {
    /// The destinations.
    pub nlri: Nlri<'a>,
}

/// Reads an MP_REACH_NLRI whose value starts `offset` octets into the message; nothing for a family that was
/// not negotiated, which is ignored.
///
/// A damaged one ends the session: its prefixes cannot be known, so they cannot be treated as withdrawn
/// (RFC 7606 §3 j, §7.11). Of the two reactions that RFC 7606 leaves, disabling the family would keep a
/// session whose routes are stale without anybody's notice.
pub(super) fn reach<'a>(
    value: &'a [u8],
    offset: usize,
    context: &Context,
    place: &mut Option<MpReach<'a>>,
) -> Result<(), DecodeError> {
    let damaged = |at| DecodeError { offset: offset + at, kind: ErrorKind::Multiprotocol(attribute::MP_REACH) };
    let [afi_high, afi_low, safi, length, rest @ ..] = value else { return Err(damaged(0)) };
    let family = family_of(u16::from_be_bytes([*afi_high, *afi_low]), *safi);
    let Some(family) = family.filter(|f| context.families.contains(*f)) else { return Ok(()) };
    let (next_hop, rest) = rest.split_at_checked((*length).into()).ok_or_else(|| damaged(3))?;
    let next_hop = decode_next_hop(family, next_hop, context).ok_or_else(|| damaged(3))?;
    let (_reserved, octets) = rest.split_first().ok_or_else(|| damaged(value.len()))?;
    let nlri = prefixes(family, octets, offset + value.len() - octets.len(), context)?;
    *place = Some(MpReach { next_hop, nlri });
    Ok(())
}

/// What nearly every MP_REACH_NLRI is: IPv6 prefixes with one address as their next hop, and undamaged. [`reach`] says
/// the same of it, and reads every other.
#[inline]
pub(super) fn usual_reach<'a>(value: &'a [u8], context: &Context) -> Option<MpReach<'a>> {
    let ([0, 2, SAFI_UNICAST, 16], rest) = value.split_first_chunk()? else { return None };
    let (global, [_reserved, octets @ ..]) = rest.split_first_chunk::<16>()? else { return None };
    let family = Some(Family::Ipv6Unicast).filter(|family| context.families.contains(*family))?;
    let nlri = Nlri::check(family, context.add_path.contains(family), octets).ok()?;
    Some(MpReach { next_hop: NextHop { global: Ipv6Addr::from(*global).into(), link_local: None }, nlri })
}

/// Reads an MP_UNREACH_NLRI like [`reach`].
pub(super) fn unreach<'a>(
    value: &'a [u8],
    offset: usize,
    context: &Context,
) -> Result<Option<MpUnreach<'a>>, DecodeError> {
    let [afi_high, afi_low, safi, octets @ ..] = value else {
        return Err(DecodeError { offset, kind: ErrorKind::Multiprotocol(attribute::MP_UNREACH) });
    };
    let family = family_of(u16::from_be_bytes([*afi_high, *afi_low]), *safi);
    let Some(family) = family.filter(|f| context.families.contains(*f)) else { return Ok(None) };
    prefixes(family, octets, offset + 3, context).map(|nlri| Some(MpUnreach { nlri }))
}

#[inline]
fn prefixes<'a>(family: Family, octets: &'a [u8], offset: usize, context: &Context) -> Result<Nlri<'a>, DecodeError> {
    Nlri::check(family, context.add_path.contains(family), octets)
        .map_err(|at| DecodeError { offset: offset + at, kind: ErrorKind::Prefix })
}

/// IPv6 next hops stand for IPv4 prefixes only where RFC 8950 was negotiated.
#[inline]
fn decode_next_hop(family: Family, octets: &[u8], context: &Context) -> Option<NextHop> {
    let v6 = family == Family::Ipv6Unicast || context.extended_next_hop;
    match octets.len() {
        4 if family == Family::Ipv4Unicast => {
            let octets: [u8; 4] = octets.try_into().ok()?;
            Some(NextHop { global: Ipv4Addr::from(octets).into(), link_local: None })
        }
        16 if v6 => {
            let octets: [u8; 16] = octets.try_into().ok()?;
            Some(NextHop { global: Ipv6Addr::from(octets).into(), link_local: None })
        }
        32 if v6 => {
            let (global, link_local) = octets.split_first_chunk::<16>()?;
            let link_local: [u8; 16] = link_local.try_into().ok()?;
            Some(NextHop { global: Ipv6Addr::from(*global).into(), link_local: Some(link_local.into()) })
        }
        _ => None,
    }
}
