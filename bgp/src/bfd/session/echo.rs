//! The echo function of one session (RFC 5880 §6.4, §6.8.8 and §6.8.9).
//!
//! Nothing depends on echo before the first packet has come back: a peer may offer to loop packets back and its
//! forwarding plane, or our own kernel, drop them. Until then control packets keep their pace.

use std::time::Instant;

use super::{
    super::{DetectMult, Discriminator},
    pace::Jitter,
};

/// What an echo packet carries. Its content is the sender's own business (RFC 5880 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoPayload([u8; 20]);

impl EchoPayload {
    /// The discriminator of the session that sent `payload`, to find it by.
    pub fn discr(payload: &[u8]) -> Option<u32> {
        payload.first_chunk().map(|octets| u32::from_be_bytes(*octets))
    }
}

impl AsRef<[u8]> for EchoPayload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug, Clone)]
pub(super) struct Echo {
    /// Proves that a packet is ours.
    token: u64,
    sequence: u64,
    jitter: Jitter,
    last_sent: Option<Instant>,
    /// When the newest packet came back, and its number.
    back: Option<(Instant, u64)>,
}

impl Echo {
    pub(super) fn new(token: u64) -> Self {
        Self { token, sequence: 0, jitter: Jitter::new(token), last_sent: None, back: None }
    }

    /// No packet is sent or missed any more.
    pub(super) fn stop(&mut self) {
        (self.last_sent, self.back) = (None, None);
    }

    /// A packet has come back since the function started.
    pub(super) fn proven(&self) -> bool {
        self.back.is_some()
    }

    pub(super) fn last_back(&self) -> Option<Instant> {
        self.back.map(|(at, _)| at)
    }

    /// When the next packet is due; `None`: none was sent yet.
    pub(super) fn next(&self, interval: u32) -> Option<Instant> {
        self.last_sent.map(|at| at + self.jitter.apply(interval))
    }

    pub(super) fn mark_sent(&mut self, now: Instant, mult: DetectMult) {
        self.last_sent = Some(now);
        self.sequence += 1;
        self.jitter.draw(mult);
    }

    pub(super) fn payload(&self, discr: Discriminator) -> EchoPayload {
        let mut octets = [0; 20];
        octets[..4].copy_from_slice(&discr.0.get().to_be_bytes());
        octets[4..12].copy_from_slice(&self.sequence.to_be_bytes());
        octets[12..].copy_from_slice(&self.token.to_be_bytes());
        EchoPayload(octets)
    }

    /// Takes a packet that came back, if it is one of ours and newer than the last.
    pub(super) fn accept(&mut self, discr: Discriminator, at: Instant, payload: &[u8]) -> bool {
        let Some(sequence) = payload.get(4..12).and_then(|octets| octets.try_into().ok()).map(u64::from_be_bytes)
        else {
            return false;
        };
        let expected = EchoPayload::discr(payload) == Some(discr.0.get())
            && payload.get(12..20) == Some(&self.token.to_be_bytes());
        let newer = self.back.is_none_or(|(_, last)| sequence > last) && sequence <= self.sequence;
        if expected && newer && self.last_sent.is_some() {
            self.back = Some((self.back.map_or(at, |(last, _)| last.max(at)), sequence));
            return true;
        }
        false
    }
}
