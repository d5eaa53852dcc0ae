//! Values that have a structure of their own, and are only checked for it. `None` is "malformed".

use super::split;

/// TLVs of two octets of type and two of length, at least one, each with well-formed sub-TLVs (RFC 9012 §13).
pub(super) fn tunnels(value: &[u8]) -> Option<()> {
    let mut rest = value;
    loop {
        let [_, _, high, low, tail @ ..] = rest else { return None };
        let (tlv, tail) = tail.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
        tunnel_parts(tlv)?;
        rest = tail;
        if rest.is_empty() {
            return Some(());
        }
    }
}

/// Sub-TLVs: one octet of length up to type 127, two above (RFC 9012 §2).
fn tunnel_parts(mut rest: &[u8]) -> Option<()> {
    while let [kind, tail @ ..] = rest {
        let (length, tail) = match (kind, tail) {
            (0..128, [length, tail @ ..]) => (usize::from(*length), tail),
            (128.., [high, low, tail @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), tail),
            _ => return None,
        };
        rest = tail.split_at_checked(length)?.1;
    }
    Some(())
}

/// TLVs whose length counts their own three octets; type 1 has eleven (RFC 7311 §3).
pub(super) fn aigp(mut rest: &[u8]) -> Option<()> {
    ok(!rest.is_empty())?;
    while !rest.is_empty() {
        let [kind, high, low, ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        ok(length >= 3 && (*kind != 1 || length == 11))?;
        rest = rest.split_at_checked(length)?.1;
    }
    Some(())
}

/// TLVs of one octet of type and two of length (RFC 8669 §3); the SRv6 services are not empty (RFC 9252 §2).
pub(super) fn prefix_sid(mut rest: &[u8]) -> Option<()> {
    ok(!rest.is_empty())?;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        ok(match kind {
            1 => length == 7,
            3 => length >= 8 && (length - 2).is_multiple_of(6),
            5 | 6 => length >= 1,
            _ => true,
        })?;
        rest = tail.split_at_checked(length)?.1;
    }
    Some(())
}

/// An AS and attributes whose lengths add up (RFC 6368 §5).
pub(super) fn attr_set(value: &[u8]) -> Option<()> {
    let (_, mut rest) = value.split_at_checked(4)?;
    while !rest.is_empty() {
        rest = split(rest)?.rest;
    }
    Some(())
}

pub(super) fn ok(valid: bool) -> Option<()> {
    valid.then_some(())
}

pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
