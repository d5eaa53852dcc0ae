//! What BFD says of the path to a peer.

use std::time::Instant;

use super::{Connection, Peer, Shared, Stage};
use crate::speaker::Output;

impl Peer {
    /// BFD lost the path, or has it back. A lost path ends the session, nothing less than Established: the peer may
    /// not run BFD yet (RFC 5882 §4.1). A path that is back is dialled anew at once: a SYN that went into the gap
    /// would be repeated after seconds only.
    pub(crate) fn path(&mut self, now: Instant, up: bool, shared: &mut Shared) {
        let may_dial = !self.stopped && !self.retry.is_shut(now);
        match self.established() {
            Some(session) if !up => session.path_down(),
            None if up && may_dial => self.redial(now, shared),
            _ => {}
        }
        self.settle(now, shared);
    }

    fn redial(&mut self, now: Instant, shared: &mut Shared) {
        let dialling = |c: &Connection| matches!(c.stage, Stage::Dialling { .. });
        let gone = self.connections.extract_if(.., |c| dialling(c));
        shared.outputs.extend(gone.map(|c| Output::Close { id: c.id, farewell: None }));
        self.dial(now, shared);
    }
}
