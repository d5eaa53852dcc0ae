//! What an operator and a client protocol see of a session.

use std::time::{Duration, Instant};

use super::{
    super::{Diag, Discriminator, State},
    Session, micros,
};

/// A session as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// This end's state.
    pub state: State,
    /// Why the session went down last, or is down.
    pub diag: Diag,
    /// Since when it is in this state.
    pub since: Instant,
    /// How often the session went from Up to Down for a reason that a client must act on (RFC 5882 §3.2: neither
    /// end was in AdminDown). Only ever grows.
    pub failures: u64,
    /// This end's discriminator.
    pub local_discr: Discriminator,
    /// The peer's, while it is heard.
    pub remote_discr: Option<Discriminator>,
    /// The state that the peer's last packet showed.
    pub remote_state: State,
    /// The diagnostic that the peer's last packet showed.
    pub remote_diag: Diag,
    /// The C bit of the peer's last packet (RFC 5882 §4.3.2); kept when the peer falls silent.
    pub remote_control_plane_independent: bool,
    /// Between our packets, before jitter.
    pub transmit_interval: Duration,
    /// Without a packet for this long the peer is declared down.
    pub detection_time: Duration,
    /// A poll sequence runs: the peer has not confirmed new intervals yet.
    pub polling: bool,
    /// Echo packets come back.
    pub echo: bool,
}

/// Why a well-formed packet was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Discard {
    /// The session is in AdminDown (RFC 5880 §6.8.6).
    #[error("session is administratively down")]
    AdminDown,
    /// The A bit is set and no authentication is configured.
    #[error("packet is authenticated, session is not")]
    UnexpectedAuth,
    /// The A bit is clear and authentication is configured.
    #[error("packet is not authenticated, session is")]
    MissingAuth,
    /// Another type of authentication than configured.
    #[error("packet has another type of authentication")]
    AuthType,
    /// Wrong key, key id or digest.
    #[error("key id or digest is wrong")]
    AuthFailed,
    /// The sequence number is outside of the window.
    #[error("sequence number is out of the window")]
    Replayed,
}

impl Session {
    /// The session as it is now.
    pub fn status(&self) -> Status {
        Status {
            state: self.state,
            diag: self.diag,
            since: self.since,
            failures: self.failures,
            local_discr: self.discr,
            remote_discr: self.remote_discr(),
            remote_state: self.remote.state,
            remote_diag: self.remote.diag,
            remote_control_plane_independent: self.remote.control_plane_independent,
            transmit_interval: micros(self.transmit_interval()),
            detection_time: self.detection_time(),
            polling: self.pace.polling(),
            echo: self.echo.proven(),
        }
    }
}
