//! Authentication of control packets (RFC 5880 §6.7): simple password, keyed and meticulous keyed SHA-1.

use std::{fmt, sync::Arc};

use super::{
    packet::{AuthSection, Datagram, Packet, SHA1_DIGEST},
    session::Discard,
    sha1::sha1,
};
use crate::InvalidValue;

/// Which authentication section is sent and accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthKind {
    /// The password in the clear (§6.7.2).
    Password,
    /// SHA-1 over packet and key; the sequence number grows when the packet changes (§6.7.4).
    KeyedSha1,
    /// The same, and the sequence number grows with every packet.
    MeticulousKeyedSha1,
}

impl AuthKind {
    /// The code point of the field Auth Type (RFC 5880 §4.1).
    pub const fn code(self) -> u8 {
        match self {
            Self::Password => 1,
            Self::KeyedSha1 => 4,
            Self::MeticulousKeyedSha1 => 5,
        }
    }

    const fn max_key(self) -> usize {
        match self {
            Self::Password => 16,
            Self::KeyedSha1 | Self::MeticulousKeyedSha1 => 20,
        }
    }
}

/// One key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    kind: AuthKind,
    key_id: u8,
    key: Arc<[u8]>,
}

impl Auth {
    /// A key of 1 to 16 octets for a password, 1 to 20 for SHA-1.
    pub fn new(kind: AuthKind, key_id: u8, key: &[u8]) -> Result<Self, InvalidValue> {
        let max = kind.max_key();
        if key.is_empty() || key.len() > max {
            return Err(InvalidValue(format!("BFD key of {} octets is not valid: use 1 to {max}", key.len())));
        }
        Ok(Self { kind, key_id, key: key.into() })
    }

    /// The key with trailing zeros, as it stands in the place of the digest (§6.7.4).
    fn padded(&self) -> [u8; 20] {
        let mut padded = [0; 20];
        padded[..self.key.len()].copy_from_slice(&self.key);
        padded
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("kind", &self.kind).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The sequence numbers of one session.
#[derive(Debug, Clone)]
pub(super) struct Sequences {
    /// bfd.XmitAuthSeq.
    transmit: u32,
    /// bfd.RcvAuthSeq, `None` while bfd.AuthSeqKnown is 0.
    received: Option<u32>,
}

impl Sequences {
    /// Begins at a random number (§6.8.1).
    pub(super) const fn new(start: u32) -> Self {
        Self { transmit: start, received: None }
    }

    /// bfd.AuthSeqKnown becomes 0: nothing was heard for twice the detection time.
    pub(super) fn forget(&mut self) {
        self.received = None;
    }

    /// Signs `packet`. `changed`: it says something else than the one before.
    pub(super) fn sign(&mut self, auth: &Auth, packet: &mut Datagram, changed: bool) {
        if auth.kind == AuthKind::Password {
            return packet.push_password(auth.key_id, &auth.key);
        }
        if changed || auth.kind == AuthKind::MeticulousKeyedSha1 {
            self.transmit = self.transmit.wrapping_add(1);
        }
        packet.push_sha1(auth.kind, auth.key_id, self.transmit, &auth.padded());
        let digest = sha1(packet.as_ref());
        packet.set_digest(&digest);
    }

    /// Checks `packet` against what the session uses (§6.7.2, §6.7.4) and remembers its sequence number.
    pub(super) fn verify(&mut self, auth: Option<&Auth>, packet: &Packet<'_>) -> Result<(), Discard> {
        let (auth, section) = match (auth, packet.auth) {
            (None, None) => return Ok(()),
            (Some(auth), Some(section)) => (auth, section),
            (None, Some(_)) => return Err(Discard::UnexpectedAuth),
            (Some(_), None) => return Err(Discard::MissingAuth),
        };
        match section {
            AuthSection::Password { key_id, password } if auth.kind == AuthKind::Password => {
                if key_id == auth.key_id && same(password, &auth.key) { Ok(()) } else { Err(Discard::AuthFailed) }
            }
            AuthSection::Sha1 { meticulous, key_id, sequence, digest }
                if auth.kind != AuthKind::Password && meticulous == (auth.kind == AuthKind::MeticulousKeyedSha1) =>
            {
                if key_id != auth.key_id {
                    return Err(Discard::AuthFailed);
                }
                if !self.in_window(sequence, meticulous, packet.header.detect_mult.get()) {
                    return Err(Discard::Replayed);
                }
                if !same(&expected_digest(packet.raw, auth), digest) {
                    return Err(Discard::AuthFailed);
                }
                self.received = Some(sequence);
                Ok(())
            }
            _ => Err(Discard::AuthType),
        }
    }

    /// At most three detection times ahead of the last one, in circular arithmetic; never the same number again
    /// where it has to grow with every packet.
    fn in_window(&self, sequence: u32, meticulous: bool, detect_mult: u8) -> bool {
        let Some(last) = self.received else { return true };
        (u32::from(meticulous)..=3 * u32::from(detect_mult)).contains(&sequence.wrapping_sub(last))
    }
}

/// The digest that `raw`, a packet with a SHA-1 section, must carry.
fn expected_digest(raw: &[u8], auth: &Auth) -> [u8; 20] {
    let mut copy = [0; u8::MAX as usize];
    let copy = &mut copy[..raw.len()];
    copy.copy_from_slice(raw);
    copy[SHA1_DIGEST..SHA1_DIGEST + 20].copy_from_slice(&auth.padded());
    sha1(copy)
}

/// Compares without telling by its duration how much is equal.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}
