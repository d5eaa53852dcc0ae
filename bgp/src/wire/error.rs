//! What a decoder says about a message that must end the session.

use super::notification::{Notification, code, open, update};

/// A message that cannot be used, and where. It always ends the session: what RFC 7606 repairs is no
/// [`DecodeError`] but a [`Fault`](super::attribute::Fault) of a decoded UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}, at octet {offset} of the message")]
pub struct DecodeError {
    /// Octets from the start of the message's marker.
    pub offset: usize,
    /// What is wrong there.
    pub kind: ErrorKind,
}

/// The rule that a message broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ErrorKind {
    #[error("the marker is not all ones")]
    Marker,
    #[error("message length {0} is not valid for its type")]
    Length(u16),
    #[error("message type {0} is unknown")]
    Type(u8),
    #[error("BGP version {0} is not 4")]
    Version(u8),
    #[error("AS 0 is not a peer (RFC 7607)")]
    AsZero,
    #[error("BGP identifier 0.0.0.0 is not valid (RFC 6286)")]
    Identifier,
    #[error("hold time {0} s is neither 0 nor at least 3 s")]
    HoldTime(u16),
    #[error("optional parameter {0} is unknown")]
    Parameter(u8),
    #[error("an optional parameter or capability is cut short")]
    OpenTruncated,
    #[error("the lengths of withdrawn routes and attributes do not fit into the message")]
    AttributeListLength,
    #[error("attribute {0} stands twice")]
    Duplicate(u8),
    #[error("attribute {0} cannot be read, so its prefixes are unknown")]
    Multiprotocol(u8),
    #[error("attribute {0} is malformed, and there is no route to withdraw for it (RFC 7606 §5.2)")]
    NothingReachable(u8),
    #[error("a prefix is cut short or longer than its family allows")]
    Prefix,
    #[error("a ROUTE-REFRESH is not 23 octets long")]
    RefreshLength,
}

impl DecodeError {
    /// The NOTIFICATION that the rule's RFC asks for. `message` is what broke it, header included, and empty where
    /// its end is not known.
    pub fn notification(&self, message: &[u8]) -> Notification {
        let of = |code, subcode, data: &[u8]| Notification::new(code, subcode, data);
        match self.kind {
            ErrorKind::Marker => of(code::HEADER, 1, &[]),
            ErrorKind::Length(length) => of(code::HEADER, 2, &length.to_be_bytes()),
            ErrorKind::Type(kind) => of(code::HEADER, 3, &[kind]),
            ErrorKind::Version(_) => of(code::OPEN, open::VERSION, &4u16.to_be_bytes()),
            ErrorKind::AsZero => of(code::OPEN, open::PEER_AS, &[]),
            ErrorKind::Identifier => of(code::OPEN, open::IDENTIFIER, &[]),
            ErrorKind::HoldTime(_) => of(code::OPEN, open::HOLD_TIME, &[]),
            ErrorKind::Parameter(_) => of(code::OPEN, open::PARAMETER, &[]),
            ErrorKind::OpenTruncated => of(code::OPEN, open::UNSPECIFIC, &[]),
            ErrorKind::AttributeListLength | ErrorKind::Duplicate(_) | ErrorKind::NothingReachable(_) => {
                of(code::UPDATE, update::ATTRIBUTE_LIST, &[])
            }
            // RFC 4271 §6.3: the attribute, whole.
            ErrorKind::Multiprotocol(attribute) => {
                of(code::UPDATE, update::OPTIONAL_ATTRIBUTE, super::update::attribute(message, attribute))
            }
            ErrorKind::Prefix => of(code::UPDATE, update::NETWORK, &[]),
            // RFC 7313 §5: the message, whole.
            ErrorKind::RefreshLength => of(code::ROUTE_REFRESH, 1, message),
        }
    }
}
