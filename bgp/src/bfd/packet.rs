//! The BFD control packet (RFC 5880 §4): decoded without copying, encoded into a fixed buffer.

use std::num::{NonZeroU8, NonZeroU32};

use super::{AuthKind, Diag, State};

/// Octets of the mandatory section.
const HEADER: usize = 24;
/// The longest packet that is ever sent: header and a SHA-1 section.
pub const MAX_PACKET: usize = HEADER + SHA1_SECTION;
/// Octets of the keyed SHA-1 section (RFC 5880 §4.4).
pub(super) const SHA1_SECTION: usize = 28;
/// Where the SHA-1 digest stands in the packet.
pub(super) const SHA1_DIGEST: usize = HEADER + 8;

/// A control packet as it came in; it borrows the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What stands in the mandatory section.
    pub header: Header,
    /// The authentication section, if the A bit is set.
    pub auth: Option<AuthSection<'a>>,
    /// The packet's own octets, cut to its Length field: what a digest is computed over.
    pub(super) raw: &'a [u8],
}

/// The mandatory section (RFC 5880 §4.1). Intervals are microseconds, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Why the sender's last session went down.
    pub diag: Diag,
    /// The sender's state.
    pub state: State,
    /// P: the sender asks for a packet with F.
    pub poll: bool,
    /// F: the answer to P.
    pub final_: bool,
    /// C: the sender's BFD does not share fate with its control plane.
    pub control_plane_independent: bool,
    /// D: the sender wants demand mode.
    pub demand: bool,
    /// How many of the sender's intervals may pass without a packet.
    pub detect_mult: NonZeroU8,
    /// The sender's discriminator.
    pub my_discr: NonZeroU32,
    /// The sender's copy of the receiver's discriminator, 0 before it knows it.
    pub your_discr: u32,
    /// µs; the sender does not want to send faster.
    pub desired_min_tx: u32,
    /// µs; the sender cannot receive faster; 0: send nothing periodically.
    pub required_min_rx: u32,
    /// µs; the sender loops echo packets back no faster; 0: not at all.
    pub required_min_echo_rx: u32,
}

/// The authentication section (RFC 5880 §4.2 to 4.4), checked for its shape and not yet for its truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthSection<'a> {
    /// Type 1.
    Password {
        /// Which key.
        key_id: u8,
        /// 1 to 16 octets.
        password: &'a [u8],
    },
    /// Types 4 and 5.
    Sha1 {
        /// Type 5.
        meticulous: bool,
        /// Which key.
        key_id: u8,
        /// Protects against replay.
        sequence: u32,
        /// The digest or, while it is computed, the key.
        digest: &'a [u8; 20],
    },
    /// A type that this implementation has not got (2 and 3 are keyed MD5).
    Other(u8),
}

/// Why octets are not a control packet, and at which octet. Such a packet is discarded (RFC 5880 §6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at octet {offset}")]
pub struct DecodeError {
    /// Counted from the first octet of the UDP payload.
    pub offset: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// The rules of RFC 5880 §6.8.6 that need no session, and those of the authentication sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The payload ends before the mandatory section does.
    #[error("payload ends inside the mandatory section")]
    Truncated,
    /// Not 1.
    #[error("version {0} is not 1")]
    Version(u8),
    /// Below 24, or below 26 with the A bit.
    #[error("length {0} is below the minimum")]
    LengthTooSmall(u8),
    /// More than the payload has.
    #[error("length {0} exceeds the payload")]
    LengthBeyondPayload(u8),
    /// Detect Mult is 0.
    #[error("detect mult is 0")]
    DetectMultZero,
    /// The M bit is set.
    #[error("multipoint bit is set")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("my discriminator is 0")]
    MyDiscrZero,
    /// Your Discriminator is 0 though the sender claims to be in Init or Up.
    #[error("your discriminator is 0 in state {0}")]
    YourDiscrZero(State),
    /// The authentication length does not fit its type or the packet.
    #[error("authentication length {0} is wrong")]
    AuthLength(u8),
}

impl DecodeError {
    const fn at(offset: usize, kind: DecodeErrorKind) -> Self {
        Self { offset, kind }
    }
}

impl<'a> Packet<'a> {
    /// Reads one packet from a UDP payload; octets behind its Length are ignored. The checks come in the order
    /// of RFC 5880 §6.8.6.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        use DecodeErrorKind as Kind;
        let Some(fixed) = payload.first_chunk::<HEADER>() else {
            return Err(DecodeError::at(payload.len(), Kind::Truncated));
        };
        let (flags, length) = (fixed[1], fixed[3]);
        let authenticated = flags & 0x04 != 0;
        let version = fixed[0] >> 5;
        if version != 1 {
            return Err(DecodeError::at(0, Kind::Version(version)));
        }
        if usize::from(length) < HEADER + if authenticated { 2 } else { 0 } {
            return Err(DecodeError::at(3, Kind::LengthTooSmall(length)));
        }
        let Some(raw) = payload.get(..length.into()) else {
            return Err(DecodeError::at(3, Kind::LengthBeyondPayload(length)));
        };
        let detect_mult = NonZeroU8::new(fixed[2]).ok_or(DecodeError::at(2, Kind::DetectMultZero))?;
        if flags & 0x01 != 0 {
            return Err(DecodeError::at(1, Kind::Multipoint));
        }
        let my_discr = NonZeroU32::new(word(fixed, 4)).ok_or(DecodeError::at(4, Kind::MyDiscrZero))?;
        let (state, your_discr) = (State::from_bits(flags >> 6), word(fixed, 8));
        if your_discr == 0 && matches!(state, State::Init | State::Up) {
            return Err(DecodeError::at(8, Kind::YourDiscrZero(state)));
        }
        let auth = if authenticated { Some(AuthSection::decode(&raw[HEADER..])?) } else { None };
        let header = Header {
            diag: Diag(fixed[0] & 0x1F),
            state,
            poll: flags & 0x20 != 0,
            final_: flags & 0x10 != 0,
            control_plane_independent: flags & 0x08 != 0,
            demand: flags & 0x02 != 0,
            detect_mult,
            my_discr,
            your_discr,
            desired_min_tx: word(fixed, 12),
            required_min_rx: word(fixed, 16),
            required_min_echo_rx: word(fixed, 20),
        };
        Ok(Self { header, auth, raw })
    }
}

impl<'a> AuthSection<'a> {
    /// `section` begins with the type and has at least two octets.
    fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let (kind, length) = (section[0], section[1]);
        let wrong = DecodeError::at(HEADER + 1, DecodeErrorKind::AuthLength(length));
        let section = section.get(..length.into()).ok_or(wrong)?;
        match (kind, section) {
            (1, [_, _, key_id, password @ ..]) if (1..=16).contains(&password.len()) => {
                Ok(Self::Password { key_id: *key_id, password })
            }
            (4 | 5, [_, _, key_id, _reserved, a, b, c, d, digest @ ..]) => Ok(Self::Sha1 {
                meticulous: kind == 5,
                key_id: *key_id,
                sequence: u32::from_be_bytes([*a, *b, *c, *d]),
                digest: digest.try_into().map_err(|_| wrong)?,
            }),
            (1 | 4 | 5, _) | (_, [] | [_]) => Err(wrong),
            (other, _) => Ok(Self::Other(other)),
        }
    }
}

/// A packet ready to be sent; it owns its octets so that nothing is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    octets: [u8; MAX_PACKET],
    len: u8,
}

impl Datagram {
    /// A packet without authentication.
    pub fn new(header: &Header) -> Self {
        let mut octets = [0; MAX_PACKET];
        octets[0] = 1 << 5 | header.diag.0 & 0x1F;
        octets[1] = header.state.bits() << 6
            | u8::from(header.poll) << 5
            | u8::from(header.final_) << 4
            | u8::from(header.control_plane_independent) << 3
            | u8::from(header.demand) << 1;
        octets[2] = header.detect_mult.get();
        octets[3] = HEADER as u8;
        let words = [
            header.my_discr.get(),
            header.your_discr,
            header.desired_min_tx,
            header.required_min_rx,
            header.required_min_echo_rx,
        ];
        for (slot, word) in octets[4..HEADER].chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        Self { octets, len: HEADER as u8 }
    }

    /// Appends a simple password section and sets the A bit. `password` has 1 to 16 octets.
    pub(super) fn push_password(&mut self, key_id: u8, password: &[u8]) {
        let length = 3 + password.len();
        self.octets[HEADER..HEADER + 3].copy_from_slice(&[AuthKind::Password.code(), length as u8, key_id]);
        self.octets[HEADER + 3..HEADER + length].copy_from_slice(password);
        self.set_auth_len(length);
    }

    /// Appends a SHA-1 section with `key` in the place of the digest, as the computation wants it, and sets the
    /// A bit.
    pub(super) fn push_sha1(&mut self, kind: AuthKind, key_id: u8, sequence: u32, key: &[u8; 20]) {
        self.octets[HEADER..HEADER + 4].copy_from_slice(&[kind.code(), SHA1_SECTION as u8, key_id, 0]);
        self.octets[HEADER + 4..HEADER + 8].copy_from_slice(&sequence.to_be_bytes());
        self.set_auth_len(SHA1_SECTION);
        self.set_digest(key);
    }

    pub(super) fn set_digest(&mut self, digest: &[u8; 20]) {
        self.octets[SHA1_DIGEST..SHA1_DIGEST + 20].copy_from_slice(digest);
    }

    fn set_auth_len(&mut self, section: usize) {
        self.octets[1] |= 0x04;
        self.len = (HEADER + section) as u8;
        self.octets[3] = self.len;
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.len.into()]
    }
}

fn word(fixed: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

#[cfg(test)]
mod tests;
