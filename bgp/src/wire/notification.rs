//! NOTIFICATION: why a session ends, in codes and in words (RFC 4271 §4.5, 4486, 6608, 7313, 8538, 9003, 9234).

use std::fmt;

use super::message::{self, Kind};
use crate::Family;

/// Error codes.
#[allow(missing_docs)] // the RFCs' own words
pub mod code {
    pub const HEADER: u8 = 1;
    pub const OPEN: u8 = 2;
    pub const UPDATE: u8 = 3;
    pub const HOLD_TIMER: u8 = 4;
    pub const FSM: u8 = 5;
    pub const CEASE: u8 = 6;
    pub const ROUTE_REFRESH: u8 = 7;
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of the OPEN Message Error.
#[allow(missing_docs)] // the RFCs' own words
pub mod open {
    pub const UNSPECIFIC: u8 = 0;
    pub const VERSION: u8 = 1;
    pub const PEER_AS: u8 = 2;
    pub const IDENTIFIER: u8 = 3;
    pub const PARAMETER: u8 = 4;
    pub const HOLD_TIME: u8 = 6;
    pub const CAPABILITY: u8 = 7;
    pub const ROLE: u8 = 11;
}

/// Subcodes of the UPDATE Message Error.
#[allow(missing_docs)] // the RFCs' own words
pub mod update {
    pub const ATTRIBUTE_LIST: u8 = 1;
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    pub const NETWORK: u8 = 10;
}

/// Subcodes of Cease (RFC 4486, RFC 8538, RFC 9384).
#[allow(missing_docs)] // the RFCs' own words
pub mod cease {
    pub const MAXIMUM_PREFIXES: u8 = 1;
    pub const SHUTDOWN: u8 = 2;
    pub const DECONFIGURED: u8 = 3;
    pub const RESET: u8 = 4;
    pub const REJECTED: u8 = 5;
    pub const CONFIGURATION: u8 = 6;
    pub const COLLISION: u8 = 7;
    pub const RESOURCES: u8 = 8;
    pub const HARD_RESET: u8 = 9;
    pub const BFD_DOWN: u8 = 10;
}

/// A NOTIFICATION's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// What kind of error.
    pub code: u8,
    /// Which error of that kind.
    pub subcode: u8,
    /// Whatever helps, by code.
    pub data: Vec<u8>,
}

impl Notification {
    /// One from its three fields.
    pub fn new(code: u8, subcode: u8, data: &[u8]) -> Self {
        Self { code, subcode, data: data.to_vec() }
    }

    /// A Cease.
    pub fn cease(subcode: u8) -> Self {
        Self::new(code::CEASE, subcode, &[])
    }

    /// A Cease with the operator's words, cut at 255 octets on a character (RFC 9003 §2).
    pub fn shutdown(subcode: u8, reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(255)];
        let mut data = vec![u8::try_from(reason.len()).expect("cut at 255 octets")];
        data.extend_from_slice(reason.as_bytes());
        Self { code: code::CEASE, subcode, data }
    }

    /// A Cease because of more prefixes of a family than the limit (RFC 4486 §4).
    pub fn maximum_prefixes(family: Family, limit: u32) -> Self {
        let mut data = super::afi(family).to_be_bytes().to_vec();
        data.push(super::SAFI_UNICAST);
        data.extend_from_slice(&limit.to_be_bytes());
        Self { code: code::CEASE, subcode: cease::MAXIMUM_PREFIXES, data }
    }

    /// The same as a hard reset, which graceful restart does not soften (RFC 8538 §3.1).
    #[must_use]
    pub fn hard(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self { code: code::CEASE, subcode: cease::HARD_RESET, data }
    }

    /// Whether it is a Cease / Hard Reset.
    pub fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (code::CEASE, cease::HARD_RESET)
    }

    /// Reads the body of a NOTIFICATION; the frame has made sure of two octets.
    pub fn decode(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => Self::new(*code, *subcode, data),
            _ => Self::new(0, 0, &[]),
        }
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = message::start(out, Kind::Notification);
        out.extend_from_slice(&[self.code, self.subcode]);
        let room = message::MAX - message::HEADER - 2;
        out.extend_from_slice(&self.data[..self.data.len().min(room)]);
        message::finish(out, start);
    }

    /// The operator's words in a shutdown or reset (RFC 9003 §2): a length of at most 255 and UTF-8, or, in words
    /// of ours, why they cannot be shown.
    fn words(&self) -> Option<String> {
        if self.code != code::CEASE || !matches!(self.subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (length, text) = self.data.split_first()?;
        let Some(text) = text.get(..usize::from(*length)) else {
            return Some(format!("its words are cut short: {} of {length} octets came", text.len()));
        };
        let Ok(text) = std::str::from_utf8(text) else {
            return Some(format!("its words of {length} octets are not UTF-8"));
        };
        let text: String = text.chars().filter(|c| is_plain(*c)).collect();
        (!text.is_empty()).then(|| format!("{text:?}"))
    }

    /// What the data of a Cease adds to its name.
    fn detail(&self) -> Option<String> {
        match (self.code, self.subcode, &self.data[..]) {
            // RFC 4486 §4: the family and the limit.
            (code::CEASE, cease::MAXIMUM_PREFIXES, &[high, low, safi, a, b, c, d]) => {
                let afi = u16::from_be_bytes([high, low]);
                let family = super::family_of(afi, safi);
                let family = family.map_or_else(|| format!("AFI {afi}, SAFI {safi}"), |f| f.to_string());
                Some(format!("{} of {family}", u32::from_be_bytes([a, b, c, d])))
            }
            _ => self.words(),
        }
    }
}

/// Whether a character of the peer may stand in a line of ours: it neither controls the terminal nor turns the
/// direction of what follows.
fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
    Some(match (code, subcode) {
        (code::HEADER, 1) => "Connection Not Synchronized",
        (code::HEADER, 2) => "Bad Message Length",
        (code::HEADER, 3) => "Bad Message Type",
        (code::OPEN, 1) => "Unsupported Version Number",
        (code::OPEN, 2) => "Bad Peer AS",
        (code::OPEN, 3) => "Bad BGP Identifier",
        (code::OPEN, 4) => "Unsupported Optional Parameter",
        (code::OPEN, 5) => "Authentication Failure",
        (code::OPEN, 6) => "Unacceptable Hold Time",
        (code::OPEN, 7) => "Unsupported Capability",
        (code::OPEN, 11) => "Role Mismatch",
        (code::UPDATE, 1) => "Malformed Attribute List",
        (code::UPDATE, 2) => "Unrecognized Well-known Attribute",
        (code::UPDATE, 3) => "Missing Well-known Attribute",
        (code::UPDATE, 4) => "Attribute Flags Error",
        (code::UPDATE, 5) => "Attribute Length Error",
        (code::UPDATE, 6) => "Invalid ORIGIN Attribute",
        (code::UPDATE, 8) => "Invalid NEXT_HOP Attribute",
        (code::UPDATE, 9) => "Optional Attribute Error",
        (code::UPDATE, 10) => "Invalid Network Field",
        (code::UPDATE, 11) => "Malformed AS_PATH",
        (code::FSM, 1) => "Unexpected Message in OpenSent",
        (code::FSM, 2) => "Unexpected Message in OpenConfirm",
        (code::FSM, 3) => "Unexpected Message in Established",
        (code::CEASE, cease::MAXIMUM_PREFIXES) => "Maximum Number of Prefixes Reached",
        (code::CEASE, cease::SHUTDOWN) => "Administrative Shutdown",
        (code::CEASE, cease::DECONFIGURED) => "Peer De-configured",
        (code::CEASE, cease::RESET) => "Administrative Reset",
        (code::CEASE, cease::REJECTED) => "Connection Rejected",
        (code::CEASE, cease::CONFIGURATION) => "Other Configuration Change",
        (code::CEASE, cease::COLLISION) => "Connection Collision Resolution",
        (code::CEASE, cease::RESOURCES) => "Out of Resources",
        (code::CEASE, cease::HARD_RESET) => "Hard Reset",
        (code::CEASE, cease::BFD_DOWN) => "BFD Down",
        (code::ROUTE_REFRESH, 1) => "Invalid Message Length",
        _ => return None,
    })
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.code {
            code::HEADER => "Message Header Error",
            code::OPEN => "OPEN Message Error",
            code::UPDATE => "UPDATE Message Error",
            code::HOLD_TIMER => "Hold Timer Expired",
            code::FSM => "Finite State Machine Error",
            code::CEASE => "Cease",
            code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
            code::SEND_HOLD_TIMER => "Send Hold Timer Expired",
            other => return write!(f, "code {other}, subcode {}", self.subcode),
        };
        f.write_str(name)?;
        match subcode_name(self.code, self.subcode) {
            Some(subcode) => write!(f, " / {subcode}")?,
            None if self.subcode != 0 => write!(f, " / subcode {}", self.subcode)?,
            None => {}
        }
        match (self.is_hard_reset(), &self.data[..]) {
            // One level only: a peer could nest thousands.
            (true, [code::CEASE, cease::HARD_RESET, ..]) => Ok(()),
            (true, [_, _, ..]) => write!(f, " ({})", Notification::decode(&self.data)),
            _ => self.detail().map_or(Ok(()), |detail| write!(f, " ({detail})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_words_survive_the_wire_and_a_hard_reset() {
        let sent = Notification::shutdown(cease::SHUTDOWN, "kernel update\u{1F980}").hard();
        let mut out = Vec::new();
        sent.encode(&mut out);
        let read = Notification::decode(&out[message::HEADER..]);
        assert_eq!(read, sent);
        assert_eq!(read.to_string(), "Cease / Hard Reset (Cease / Administrative Shutdown (\"kernel update🦀\"))");
    }

    #[test]
    fn long_words_are_cut_on_a_character() {
        let notification = Notification::shutdown(cease::SHUTDOWN, &"ä".repeat(200));
        assert_eq!(notification.data.len(), 1 + 254);
        assert_eq!(notification.data[0], 254);
    }

    #[test]
    fn shutdown_words_that_cannot_be_shown_are_named() {
        let said = |data: &[u8]| Notification::new(code::CEASE, cease::SHUTDOWN, data).to_string();
        let plain = "Cease / Administrative Shutdown";
        assert_eq!(said(&[9, b'h', b'i']), format!("{plain} (its words are cut short: 2 of 9 octets came)"));
        assert_eq!(said(&[2, 0xC3, 0x28]), format!("{plain} (its words of 2 octets are not UTF-8)"));
        assert_eq!(said("\u{8}by\u{202E}e\x1b\n".as_bytes()), format!("{plain} (\"bye\")"));
        assert_eq!(said(&[0]), plain);
        assert_eq!(said(&[]), plain);
    }

    #[test]
    fn limit_of_prefixes_is_said_with_its_family() {
        let notification = Notification::maximum_prefixes(Family::Ipv6Unicast, 1000);
        assert_eq!(notification.data, [0, 2, 1, 0, 0, 3, 0xE8]);
        assert_eq!(notification.to_string(), "Cease / Maximum Number of Prefixes Reached (1000 of ipv6-unicast)");
        let other = Notification::new(code::CEASE, cease::MAXIMUM_PREFIXES, &[0x40, 4, 71, 0, 0, 0, 9]);
        assert!(other.to_string().ends_with("(9 of AFI 16388, SAFI 71)"), "{other}");
    }

    #[test]
    fn hard_resets_inside_each_other_are_told_once() {
        let nested = [code::CEASE, cease::HARD_RESET].repeat(32_000);
        assert_eq!(Notification::decode(&nested).to_string(), "Cease / Hard Reset");
        let inside = Notification::cease(cease::SHUTDOWN).hard();
        assert_eq!(inside.to_string(), "Cease / Hard Reset (Cease / Administrative Shutdown)");
    }
}
