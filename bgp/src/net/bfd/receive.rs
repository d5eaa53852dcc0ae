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

    /// Reads what waits and hands each packet over with the moment at which the kernel had it. Returns how many there
    /// were.
    pub(super) fn read(
        &mut self,
        inbox: &mut Inbox,
        mut take: impl FnMut(Instant, Instant, Datagram<'_>),
    ) -> io::Result<usize> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let wall = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (mut latest, mut total) = (self.read_until, 0);
        for _ in 0..MAX_BATCHES {
            let count = match inbox.receive(&self.socket) {
                Ok(count) => count,
                Err(error) => {
                    // What cannot be read cannot save a session; waiting for it would keep a dead one.
                    self.read_until = now;
                    return Err(error);
                }
            };
            total += count;
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
                return Ok(total);
            }
        }
        // The queue is in order of arrival: what came before the last one that was read has been read.
        self.read_until = latest;
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        thread,
        time::Duration,
    };

    use super::*;

    /// Sends one packet, reads it 30 ms later, and says how long after sending it counts as received.
    fn reads_late(receiver: &mut Receiver, inbox: &mut Inbox, sender: &UdpSocket, to: SocketAddr) -> Duration {
        let before = Instant::now();
        sender.send_to(b"one", to).expect("sends");
        thread::sleep(Duration::from_millis(30));
        let mut got = vec![];
        let read = receiver.read(inbox, |_, at, datagram| {
            got.push((at, datagram.payload.to_vec(), datagram.source, datagram.interface));
        });
        read.expect("reads");
        let [(at, payload, source, interface)] = &got[..] else { panic!("{got:?}") };
        assert_eq!((&payload[..], *source), (&b"one"[..], to.ip()));
        assert_eq!(*interface, socket::interface_index("lo").expect("loopback"));
        at.saturating_duration_since(before)
    }

    #[test]
    fn packet_counts_from_when_the_kernel_had_it_and_not_from_when_it_was_read() {
        let mut inbox = Inbox::new();
        for (v6, local) in [(false, "127.0.0.1:0"), (true, "[::1]:0")] {
            let socket = socket::receiver(v6, 0).expect("opens");
            let port = socket.local_addr().expect("bound").as_socket().expect("internet").port();
            let mut receiver = Receiver { socket, multi_hop: false, read_until: Instant::now() };
            let sender = UdpSocket::bind(local).expect("binds");
            let to = SocketAddr::new(sender.local_addr().expect("bound").ip(), port);
            // The kernel begins to stamp a moment after the first socket has asked for it.
            let punctual = |_| reads_late(&mut receiver, &mut inbox, &sender, to) < Duration::from_millis(10);
            assert!((0..50).any(punctual), "{local}: always counted from reading");
        }
    }

    #[test]
    fn everything_that_waits_is_read_however_much_it_is() {
        let mut inbox = Inbox::new();
        let socket = socket::receiver(false, 0).expect("opens");
        let to = socket.local_addr().expect("bound").as_socket().expect("internet").port();
        let mut receiver = Receiver { socket, multi_hop: false, read_until: Instant::now() };
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        for count in [0usize, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH] {
            (0..count).for_each(|_| _ = sender.send_to(b"x", ("127.0.0.1", to)).expect("sends"));
            let (mut got, start) = (0, Instant::now());
            receiver.read(&mut inbox, |_, _, _| got += 1).expect("reads");
            assert_eq!(got, count);
            assert!(receiver.read_until >= start);
        }
    }
}
