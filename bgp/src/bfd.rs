//! Bidirectional Forwarding Detection without I/O: RFC 5880 (base), 5881 (single hop), 5883 (multi-hop), and the
//! facts that a client protocol needs of a session (RFC 5882).
//!
//! ```text
//!  payload ──▶ Packet::decode ──▶ Demux (discriminator, else source + interface) ──▶ Session::handle(received_at)
//!                                                                                        │
//!  socket ◀── Output::Transmit ◀── Session::poll ◀── Session::handle_transmit(now), handle_timeout(now)
//! ```
//!
//! [`Session`] holds one session's variables. Time is an argument; `received_at` is when the *kernel* had the
//! packet, so a late process does not shorten the peer's life. The driver is `net::bfd`.
//!
//! Asynchronous mode and the echo function are offered. Demand mode is not offered, but a peer that asks for it
//! gets it: nothing is sent periodically while both ends are Up (RFC 5880 §6.6). Keyed MD5 is left out; its
//! packets are discarded under their own reason.
//!
//! # For a client protocol (RFC 5882)
//!
//! A BGP session is torn down when [`Status::failures`] grows, never when the session is merely not Up: the peer
//! may not run BFD yet (§4.1), or may have stopped it on purpose (AdminDown is no failure, §3.2, §4.2).
//! The count is kept because a watch shows the newest state only: a session that failed and recovered between
//! two looks has still failed. When the peer has [`Status::remote_control_plane_independent`] false and a
//! graceful restart of it is under way, a failure tells of its control plane and must not end the restart
//! (§4.3.2).

mod auth;
mod demux;
mod packet;
mod session;
mod sha1;

use std::{
    fmt,
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

pub use auth::{Auth, AuthKind};
pub use demux::{Arrival, Demux, Unmatched};
pub use packet::{AuthSection, Datagram, DecodeError, DecodeErrorKind, Header, MAX_PACKET, Packet};
pub use session::{Discard, EchoPayload, Handover, Output, Session, Status};

use crate::InvalidValue;

/// UDP port of single-hop control packets (RFC 5881 §4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of echo packets (RFC 5881 §4).
pub const ECHO_PORT: u16 = 3785;
/// UDP port of multi-hop control packets (RFC 5883 §5).
pub const MULTI_HOP_PORT: u16 = 4784;

/// What a session does, all of it changeable while the session is Up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// bfd.DesiredMinTxInterval once Up; one second at least before (RFC 5880 §6.8.3).
    pub desired_min_tx: Interval,
    /// bfd.RequiredMinRxInterval.
    pub required_min_rx: Interval,
    /// bfd.DetectMult: how many of our packets the *peer* may miss.
    pub detect_mult: DetectMult,
    /// Sends echo packets this often while Up and where the peer loops them back. Single hop only.
    pub echo: Option<Interval>,
    /// Lets the peer send echo packets, no faster than this; the forwarding plane has to loop them back.
    pub echo_receive: Option<Interval>,
    /// Sends nothing before the peer has spoken (RFC 5880 §6.1).
    pub passive: bool,
    /// How packets are signed and what is accepted.
    pub auth: Option<Auth>,
    /// The C bit: this end's BFD survives a restart of its control plane.
    pub control_plane_independent: bool,
    /// Held in AdminDown.
    pub admin_down: bool,
}

impl Params {
    /// Asynchronous mode with the same interval both ways and everything else off.
    pub const fn new(interval: Interval, detect_mult: DetectMult) -> Self {
        Self {
            desired_min_tx: interval,
            required_min_rx: interval,
            detect_mult,
            echo: None,
            echo_receive: None,
            passive: false,
            auth: None,
            control_plane_independent: false,
            admin_down: false,
        }
    }
}

/// One session as the caller wants it. Another endpoint is another session; everything in `params` is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which path.
    pub endpoint: Endpoint,
    /// What is done there.
    pub params: Params,
}

/// The path that a session watches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address; the kernel's choice for the route where `None`.
    pub local: Option<IpAddr>,
    /// The link of a single-hop session: needed for link-local peers, checked on what is received where given.
    pub interface: Option<String>,
    /// How far away the peer is.
    pub path: Path,
}

/// How far away a peer is, and therefore which port and which TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// On the same link: TTL 255 sent and asked for (RFC 5881 §5).
    SingleHop,
    /// Some routers away (RFC 5883).
    MultiHop {
        /// Packets with a smaller TTL are discarded; 1 accepts all. Not every router begins at 255: BIRD 2.0
        /// sends multi-hop packets with 64.
        minimum_ttl: u8,
    },
}

/// Microseconds between packets, as the wire has them, from 1 ms to 60 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u32);

impl Interval {
    /// One second: the floor of the transmit interval while a session is not Up (RFC 5880 §6.8.3).
    pub const SLOW: Interval = Interval(1_000_000);

    /// The interval, or an error outside of 1 ms to 60 s.
    pub fn new(interval: Duration) -> Result<Self, InvalidValue> {
        match u32::try_from(interval.as_micros()) {
            Ok(micros @ 1_000..=60_000_000) => Ok(Self(micros)),
            _ => Err(InvalidValue(format!("BFD interval {interval:?} is not valid: use 1 ms to 60 s"))),
        }
    }

    /// The nearest interval within the bounds.
    pub fn clamped(interval: Duration) -> Self {
        Self(u32::try_from(interval.as_micros()).unwrap_or(u32::MAX).clamp(1_000, 60_000_000))
    }

    /// As on the wire.
    pub const fn micros(self) -> u32 {
        self.0
    }
}

/// bfd.DetectMult, never 0 (RFC 5880 §6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DetectMult(NonZeroU8);

impl DetectMult {
    /// The multiplier, or an error for 0.
    pub fn new(mult: u8) -> Result<Self, InvalidValue> {
        let mult = NonZeroU8::new(mult);
        mult.map(Self).ok_or_else(|| InvalidValue("BFD detect multiplier 0 is not valid: use 1 to 255".into()))
    }

    /// As on the wire.
    pub const fn value(self) -> NonZeroU8 {
        self.0
    }
}

/// What tells one session from another at one end; unique there, never 0 (RFC 5880 §6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Discriminator(pub NonZeroU32);

impl fmt::Display for Discriminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// bfd.SessionState (RFC 5880 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the RFC's own words
pub enum State {
    AdminDown,
    Down,
    Init,
    Up,
}

impl State {
    /// From the two bits of the field Sta.
    const fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    /// The two bits of the field Sta.
    const fn bits(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "admin-down",
            Self::Down => "down",
            Self::Init => "init",
            Self::Up => "up",
        })
    }
}

/// A diagnostic code, five bits (RFC 5880 §4.1; IANA "BFD Diagnostic Codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Diag(pub u8);

impl Diag {
    /// Nothing to say.
    pub const NONE: Diag = Diag(0);
    /// No packet for a detection time.
    pub const DETECTION_TIME_EXPIRED: Diag = Diag(1);
    /// Echo packets did not come back.
    pub const ECHO_FAILED: Diag = Diag(2);
    /// The other end said Down or AdminDown.
    pub const NEIGHBOR_SIGNALED_DOWN: Diag = Diag(3);
    /// The forwarding plane was reset.
    pub const FORWARDING_PLANE_RESET: Diag = Diag(4);
    /// The path is known to be down.
    pub const PATH_DOWN: Diag = Diag(5);
    /// A concatenated path is down.
    pub const CONCATENATED_PATH_DOWN: Diag = Diag(6);
    /// Switched off by an operator.
    pub const ADMINISTRATIVELY_DOWN: Diag = Diag(7);
    /// A concatenated path is down on the way back.
    pub const REVERSE_CONCATENATED_PATH_DOWN: Diag = Diag(8);
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            other => return write!(f, "diagnostic {other}"),
        })
    }
}
