//! The receiving sockets and the time up to which they are known to be empty.

use std::{
    io,
    time::{Instant, SystemTime},
};

use socket2::Socket;

use super::socket::{self, BATCH, Datagram, Inbox};
use crate::bfd::{MULTI_HOP_PORT, SINGLE_HOP_PORT};

/// Batches read from one socket before the driver looks at its timers again: a flood must not silence us.
const MAX_BATCHES: usize = 16;

/// One receiving socket.
pub(super) struct Receiver {
    pub(super) socket: Socket,
    pub(super) multi_hop: bool,
    /// Everything that the kernel had until then was read.
    pub(super) read_until: Instant,
}

impl Receiver {
    pub(super) fn open(v6: bool, multi_hop: bool, now: Instant) -> io::Result<Self> {
        let port = if multi_hop { MULTI_HOP_PORT } else { SINGLE_HOP_PORT };
        Ok(Self { socket: socket::receiver(v6, port)?, multi_hop, read_until: now })
    }

    /// Reads what waits and hands each packet over with the moment at which the kernel had it.
    pub(super) fn read(
        &mut self,
        inbox: &mut Inbox,
        mut take: impl FnMut(Instant, Instant, Datagram<'_>),
    ) -> io::Result<()> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut latest = self.read_until;
        for _ in 0..MAX_BATCHES {
            let count = match inbox.receive(&self.socket) {
                Ok(count) => count,
                Err(error) => {
                    // What cannot be read cannot save a session; waiting for it would keep a dead one.
                    self.read_until = now;
                    return Err(error);
                }
            };
            for index in 0..count {
                let datagram = inbox.datagram(index);
                // The stamp is wall time, which may be set at any moment: never earlier than the last look,
                // when the queue was empty, and never in the future.
                let age = datagram.stamp.map(|stamp| wall.saturating_sub(stamp)).unwrap_or_default();
                let received_at = now.checked_sub(age).unwrap_or(now).clamp(self.read_until.min(now), now);
                latest = latest.max(received_at);
                take(now, received_at, datagram);
            }
            if count < BATCH {
                self.read_until = now;
                return Ok(());
            }
        }
        // The queue is in order of arrival: what came before the last one that was read has been read.
        self.read_until = latest;
        Ok(())
    }
}
