//! How the thread waits.
//!
//! Where a timer is near, and with a fast session one always is, it sleeps until then and looks at its sockets when it
//! wakes: one wake-up and one system call for a packet in each direction, instead of one for each. Nothing is lost by
//! it. A packet counts from when the kernel had it, everything that waits is read before a peer is declared down, and
//! what a peer says is heard [`NEAR`] later at most. Otherwise, and while somebody floods the sockets, whose queues
//! would run over, the thread waits for packets too.

use std::{
    io,
    time::{Duration, Instant},
};

use super::socket::{self, Bell, Timer};

/// The sockets can wait for a timer that is no further away.
const NEAR: Duration = Duration::from_millis(10);
/// Between two looks at the sockets, while timers follow each other more closely.
const LOOK: Duration = Duration::from_millis(4);
/// How long the sockets are watched after a flood.
pub(super) const WARY: Duration = Duration::from_secs(1);

pub(super) struct Waiter {
    timer: Timer,
    looked: Instant,
}

/// What to wait for.
pub(super) struct Plan {
    /// When something is to be done in any case.
    pub(super) due: Option<Instant>,
    /// The sockets are to be watched: somebody floods them.
    pub(super) wary: bool,
    /// The receivers and that of echo packets.
    pub(super) sockets: [libc::pollfd; 5],
}

/// What there is to do.
pub(super) struct Woken {
    pub(super) now: Instant,
    /// How late the timer was that is over, if one is.
    pub(super) lateness: Option<Duration>,
    /// Receivers to read from.
    pub(super) readable: [bool; 4],
    /// The echo receiver is to be read from.
    pub(super) echo: bool,
    /// Somebody has rung the bell.
    pub(super) bell: bool,
}

impl Waiter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { timer: Timer::new()?, looked: Instant::now() })
    }

    /// Waits until something is due or there is something else to do.
    pub(super) fn wait(&mut self, plan: &Plan, bell: &Bell) -> io::Result<Woken> {
        match plan.due {
            Some(at) if !plan.wary && at <= Instant::now() + NEAR => {
                self.timer.sleep_until(at);
                Ok(self.after_sleep(at, bell))
            }
            _ => self.poll(plan, bell),
        }
    }

    fn after_sleep(&mut self, due: Instant, bell: &Bell) -> Woken {
        let now = Instant::now();
        let look = now >= self.looked + LOOK;
        if look {
            self.looked = now;
        }
        let lateness = (due <= now).then(|| now.duration_since(due));
        Woken { now, lateness, readable: [look; 4], echo: look, bell: bell.rings() }
    }

    fn poll(&mut self, plan: &Plan, bell: &Bell) -> io::Result<Woken> {
        self.timer.arm(plan.due)?;
        let [a, b, c, d, echo] = plan.sockets;
        let mut entries = [a, b, c, d, echo, socket::poll_entry(Some(&self.timer)), socket::poll_entry(Some(bell))];
        socket::wait(&mut entries)?;
        let now = Instant::now();
        let ready = entries.map(|entry| entry.revents != 0);
        let lateness = self.timer.take_fired(now).map(|due| now.duration_since(due));
        let readable = [ready[0], ready[1], ready[2], ready[3]];
        Ok(Woken { now, lateness, readable, echo: ready[4], bell: ready[6] })
    }
}

/// Whether so many packets at once are a flood: more than sessions send.
pub(super) fn is_flood(packets: usize, sessions: usize) -> bool {
    packets > socket::BATCH + 2 * sessions
}
