//! Which intervals are advertised and which are in force: they differ while a poll sequence runs (RFC 5880
//! §6.5, §6.8.3). And the jitter of what is sent (§6.8.7).

use std::time::Duration;

use super::super::DetectMult;

/// Intervals in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// In force for sending: the smaller of old and new until the peer has confirmed the new one, so that its
    /// detection time never runs out in between.
    pub(super) tx: u32,
    /// In force for detection: the larger of old and new until the peer has confirmed the new one.
    pub(super) rx: u32,
    advertised: (u32, u32),
    poll: Poll,
    /// A slower `tx` was confirmed, and no packet in the old interval has followed yet.
    slower: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Poll {
    #[default]
    None,
    Running,
    /// The values changed again while it ran: the next F may answer the values before.
    Again,
}

impl Pace {
    /// Not Up: nothing to negotiate, the values hold at once and no poll runs.
    pub(super) fn settle(&mut self, tx: u32, rx: u32) {
        *self = Self { tx, rx, advertised: (tx, rx), poll: Poll::None, slower: false };
    }

    /// Up: begins a poll sequence if the values are new, and says so.
    pub(super) fn change(&mut self, tx: u32, rx: u32) -> bool {
        if self.advertised == (tx, rx) {
            return false;
        }
        self.advertised = (tx, rx);
        self.tx = self.tx.min(tx);
        self.rx = self.rx.max(rx);
        self.poll = if self.poll == Poll::None { Poll::Running } else { Poll::Again };
        true
    }

    /// A poll sequence runs: packets carry P.
    pub(super) fn polling(&self) -> bool {
        self.poll != Poll::None
    }

    /// The peer answered with F.
    pub(super) fn finish_poll(&mut self) {
        match self.poll {
            Poll::None => {}
            Poll::Again => self.poll = Poll::Running,
            Poll::Running => {
                let before = self.tx;
                self.settle(self.advertised.0, self.advertised.1);
                self.slower = before < self.tx;
                self.tx = self.tx.min(before);
            }
        }
    }

    /// A packet was sent because it was due. The first one after a slower pace was confirmed still goes in the old
    /// interval: where packets overtake each other, the last that the peer has may be one from before the change, and its
    /// detection time as short as it was then. `true`: this was that packet, the new interval is in force now.
    pub(super) fn sent(&mut self) -> bool {
        let slower = self.slower && self.poll == Poll::None;
        if slower {
            self.settle(self.advertised.0, self.advertised.1);
        }
        slower
    }
}

/// Random reduction of intervals, drawn anew with each packet: to 75–100 %, with a multiplier of 1 to 75–90 %.
#[derive(Debug, Clone)]
pub(super) struct Jitter {
    random: u64,
    /// The part of the interval that is kept, of 65,536.
    keep: u32,
}

const WHOLE: u32 = 1 << 16;

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        // xorshift has no way out of 0.
        Self { random: seed | 1, keep: WHOLE }
    }

    /// 64 random bits (xorshift64*).
    pub(super) fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn draw(&mut self, mult: DetectMult) {
        let most = if mult.value().get() == 1 { WHOLE / 10 * 9 } else { WHOLE };
        let least = WHOLE / 4 * 3;
        self.keep = least + (self.next() >> 40) as u32 % (most - least + 1);
    }

    /// An interval of that many microseconds with the current reduction.
    pub(super) fn apply(&self, micros: u32) -> Duration {
        Duration::from_nanos(u64::from(micros) * 1000 * u64::from(self.keep) / u64::from(WHOLE))
    }
}
