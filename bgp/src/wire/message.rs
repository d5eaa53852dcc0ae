//! The frame around every message (RFC 4271 §4.1), KEEPALIVE and ROUTE-REFRESH.

use super::{DecodeError, ErrorKind, SAFI_UNICAST, afi, family_of};
use crate::Family;

/// Marker, length and type.
pub const HEADER: usize = 19;
/// The longest message without RFC 8654.
pub const MAX: usize = 4096;
/// The longest message with extended messages negotiated (RFC 8654).
pub const MAX_EXTENDED: usize = 65_535;

const MARKER: [u8; 16] = [0xFF; 16];

/// The type of a message (RFC 4271 §4.1, RFC 2918 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the RFC's own words
#[repr(u8)]
pub enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

/// One message in the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: Kind,
    /// The whole message, header included.
    pub octets: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the header.
    pub fn body(&self) -> &'a [u8] {
        &self.octets[HEADER..]
    }
}

/// Takes the first message off the receive buffer; `None` while it is not complete. `extended` is whether
/// RFC 8654 was negotiated, which lifts the limit for everything but OPEN and KEEPALIVE.
#[inline]
pub fn frame(buffer: &[u8], extended: bool) -> Result<Option<Frame<'_>>, DecodeError> {
    if buffer.first_chunk() != Some(&MARKER)
        && let Some(offset) = buffer.iter().take(16).position(|o| *o != 0xFF)
    {
        return Err(DecodeError { offset, kind: ErrorKind::Marker });
    }
    let Some([high, low, kind]) = buffer.get(16..HEADER) else { return Ok(None) };
    let length = u16::from_be_bytes([*high, *low]);
    let (kind, shortest) = match kind {
        1 => (Kind::Open, 29),
        2 => (Kind::Update, 23),
        3 => (Kind::Notification, 21),
        4 => (Kind::Keepalive, 19),
        5 => (Kind::RouteRefresh, 19), // its own length rule has its own subcode (RFC 7313 §5)
        other => return Err(DecodeError { offset: 18, kind: ErrorKind::Type(*other) }),
    };
    let longest = match kind {
        Kind::Keepalive => HEADER,
        Kind::Open => MAX,
        _ if extended => MAX_EXTENDED,
        _ => MAX,
    };
    if !(shortest..=longest).contains(&usize::from(length)) {
        return Err(DecodeError { offset: 16, kind: ErrorKind::Length(length) });
    }
    Ok(buffer.get(..length.into()).map(|octets| Frame { kind, octets }))
}

/// Starts a message in `out`; [`finish`] writes its length. Returns where the message starts.
pub fn start(out: &mut Vec<u8>, kind: Kind) -> usize {
    start_with(out, &with_kind([0xFF; HEADER], kind))
}

/// Starts an UPDATE without withdrawn routes and, until their length is written, without attributes, like [`start`].
#[inline]
pub(super) fn start_update(out: &mut Vec<u8>) -> usize {
    let mut head = with_kind([0xFF; HEADER + 4], Kind::Update);
    head[HEADER..].copy_from_slice(&[0; 4]);
    start_with(out, &head)
}

fn with_kind<const N: usize>(mut head: [u8; N], kind: Kind) -> [u8; N] {
    head[16..HEADER].copy_from_slice(&[0, 0, kind as u8]);
    head
}

#[inline]
fn start_with(out: &mut Vec<u8>, head: &[u8]) -> usize {
    let start = out.len();
    out.extend_from_slice(head);
    start
}

/// Writes the length of the message that began at `start`.
#[inline]
pub fn finish(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).expect("messages are built within the negotiated size");
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let at = start(out, Kind::Keepalive);
    finish(out, at);
}

/// What a ROUTE-REFRESH says (RFC 2918, RFC 7313).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Send everything of the family again.
    Request(Family),
    /// Beginning of a refresh.
    Begin(Family),
    /// End of a refresh.
    End(Family),
    /// A family or subtype that this speaker does not know; ignored (RFC 7313 §5).
    Unknown,
}

/// Reads a ROUTE-REFRESH.
pub fn decode_refresh(octets: &[u8]) -> Result<Refresh, DecodeError> {
    let Some(&[afi_high, afi_low, subtype, safi]) = octets.get(HEADER..) else {
        return Err(DecodeError { offset: 16, kind: ErrorKind::RefreshLength });
    };
    let family = family_of(u16::from_be_bytes([afi_high, afi_low]), safi);
    Ok(match (subtype, family) {
        (0, Some(family)) => Refresh::Request(family),
        (1, Some(family)) => Refresh::Begin(family),
        (2, Some(family)) => Refresh::End(family),
        _ => Refresh::Unknown,
    })
}

/// Appends a ROUTE-REFRESH; [`Refresh::Unknown`] appends nothing.
pub fn encode_refresh(refresh: Refresh, out: &mut Vec<u8>) {
    let (subtype, family) = match refresh {
        Refresh::Request(family) => (0, family),
        Refresh::Begin(family) => (1, family),
        Refresh::End(family) => (2, family),
        Refresh::Unknown => return,
    };
    let at = start(out, Kind::RouteRefresh);
    out.extend_from_slice(&afi(family).to_be_bytes());
    out.extend_from_slice(&[subtype, SAFI_UNICAST]);
    finish(out, at);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_of_a_message_is_incomplete_and_never_an_error() {
        let mut out = Vec::new();
        encode_refresh(Refresh::Request(Family::Ipv6Unicast), &mut out);
        for end in 0..out.len() {
            assert_eq!(frame(&out[..end], false), Ok(None), "{end} octets");
        }
        let whole = frame(&out, false).expect("valid").expect("complete");
        assert_eq!(decode_refresh(whole.octets), Ok(Refresh::Request(Family::Ipv6Unicast)));
    }

    #[test]
    fn broken_marker_is_told_with_its_offset() {
        let error = frame(&[0xFF, 0xFF, 0x7F], false).expect_err("broken");
        assert_eq!(error, DecodeError { offset: 2, kind: ErrorKind::Marker });
    }

    #[test]
    fn only_extended_messages_may_pass_4096_octets() {
        let mut header = [0xFF; 19];
        header[16..].copy_from_slice(&[0x10, 0x01, 2]);
        assert_eq!(frame(&header, false).expect_err("too long").kind, ErrorKind::Length(4097));
        assert_eq!(frame(&header, true), Ok(None));
        header[18] = 1;
        assert_eq!(frame(&header, true).expect_err("an OPEN stays short").kind, ErrorKind::Length(4097));
    }
}
