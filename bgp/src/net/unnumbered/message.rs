//! Router Solicitation and Router Advertisement on the wire (RFC 4861 §4.1 and §4.2), reduced to what a speaker
//! needs: that somebody is there.

use std::ops::Range;

/// ICMPv6 types (RFC 4861 §4).
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// Where the Router Lifetime stands in an advertisement.
const LIFETIME: Range<usize> = 6..8;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Asks routers to advertise themselves.
    Solicitation,
    /// A router is here.
    Advertisement {
        /// Seconds for which it is a default router; 0: it is none.
        lifetime: u16,
    },
}

/// What makes a message invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than the fixed part.
    #[error("{0} octets are too few")]
    Length(usize),
    /// No message that we read.
    #[error("ICMPv6 type {0}")]
    Type(u8),
    /// Not 0.
    #[error("ICMPv6 code {0}")]
    Code(u8),
    /// An option has length 0, or is longer than the message.
    #[error("the option at offset {0} has an impossible length")]
    Option(usize),
}

impl Message {
    /// What we say: here is somebody who is no default router.
    pub const OURS: Message = Message::Advertisement { lifetime: 0 };

    /// Reads a message from its ICMPv6 type on; the kernel has checked the checksum. The tests are those of
    /// RFC 4861 §6.1.1 and §6.1.2. The content of options is skipped.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let [kind, code, ..] = *octets else { return Err(DecodeError::Length(octets.len())) };
        let fixed = match kind {
            SOLICITATION => 8,
            ADVERTISEMENT => 16,
            other => return Err(DecodeError::Type(other)),
        };
        if code != 0 {
            return Err(DecodeError::Code(code));
        }
        if octets.len() < fixed {
            return Err(DecodeError::Length(octets.len()));
        }
        options(octets, fixed)?;
        Ok(match kind {
            SOLICITATION => Self::Solicitation,
            _ => Self::Advertisement { lifetime: u16::from_be_bytes([octets[LIFETIME.start], octets[7]]) },
        })
    }

    /// The message; the kernel fills in the checksum. Everything that an advertisement may say of the link is
    /// left unsaid (RFC 4861 §4.2: "unspecified by this router").
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Solicitation => vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0],
            Self::Advertisement { lifetime } => {
                let mut octets = vec![0; 16];
                octets[0] = ADVERTISEMENT;
                octets[LIFETIME].copy_from_slice(&lifetime.to_be_bytes());
                octets
            }
        }
    }
}

/// Each option is a type, a length in units of eight octets, and a value (RFC 4861 §4.6).
fn options(octets: &[u8], start: usize) -> Result<(), DecodeError> {
    let mut at = start;
    while at < octets.len() {
        let length = octets.get(at + 1).map_or(0, |units| usize::from(*units) * 8);
        if length == 0 || at + length > octets.len() {
            return Err(DecodeError::Option(at));
        }
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What FRR 8.4 sends on an unnumbered link: hop limit 64, lifetime 3 s, its link address.
    const FRR: [u8; 24] = [
        134, 0, 0x12, 0x34, 64, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, // the fixed part
        1, 1, 0x0E, 0x7E, 0x9A, 0x92, 0xD4, 0xCD, // source link-layer address
    ];

    #[test]
    fn what_we_say_is_what_we_read() {
        for message in [Message::Solicitation, Message::OURS, Message::Advertisement { lifetime: 1800 }] {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        assert_eq!(Message::OURS.encode().len(), 16);
    }

    #[test]
    fn advertisement_of_a_router_is_read_with_its_options() {
        assert_eq!(Message::decode(&FRR), Ok(Message::Advertisement { lifetime: 3 }));
    }

    #[test]
    fn each_rule_of_the_rfc_discards() {
        let change = |at: usize, value: u8| {
            let mut octets = FRR;
            octets[at] = value;
            Message::decode(&octets)
        };
        assert_eq!(change(0, 135), Err(DecodeError::Type(135)));
        assert_eq!(change(1, 1), Err(DecodeError::Code(1)));
        assert_eq!(change(17, 0), Err(DecodeError::Option(16)), "an option of length 0 never ends");
        assert_eq!(change(17, 2), Err(DecodeError::Option(16)));
        assert_eq!(Message::decode(&FRR[..17]), Err(DecodeError::Option(16)));
        assert_eq!(Message::decode(&FRR[..15]), Err(DecodeError::Length(15)));
        assert_eq!(Message::decode(&[133, 0, 0, 0, 0, 0, 0]), Err(DecodeError::Length(7)));
        assert_eq!(Message::decode(&[]), Err(DecodeError::Length(0)));
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..64), kind in 132..136u8) {
            let mut octets = octets;
            octets.iter_mut().take(1).for_each(|first| *first = kind);
            let _ = Message::decode(&octets);
        }
    }
}
