//! When to dial again.
//!
//! A router that restarts its session refuses connections for seconds and then wants us back at once: refusals
//! are cheap, so they are repeated fast. A NOTIFICATION is an answer: one quick retry, then we back off.

use std::time::{Duration, Instant};

use crate::jitter::Jitter;

/// The first retry of every kind.
const QUICK: Duration = Duration::from_millis(1);
/// The first pause between refused connections; it doubles up to [`REFUSED_MAX`].
const REFUSED: Duration = Duration::from_millis(5);
const REFUSED_MAX: Duration = Duration::from_millis(250);
/// The first pause after a connection that the peer accepted and closed, which it logs; it doubles up to
/// `connect_retry`.
const CLOSED: Duration = Duration::from_millis(10);
/// So many refusals, about 15 seconds, are repeated fast; after that the pause doubles up to `connect_retry`.
const FAST_REFUSALS: u32 = 64;
/// The first pause after a second NOTIFICATION; it doubles up to [`NOTIFIED_MAX`] or `connect_retry`.
const NOTIFIED: Duration = Duration::from_secs(1);
const NOTIFIED_MAX: Duration = Duration::from_secs(120);
/// A peer that announced too much is left alone for so long, whoever dials: it would announce the same again, and
/// take what it was told up and down with every session.
const TOO_MANY: Duration = Duration::from_secs(120);
/// A session that held so long wipes the slate.
const SETTLED: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The peer's kernel answered with a reset, or ours knows no way there.
    Refused,
    /// Nobody answered; the attempt itself took its time.
    TimedOut,
    /// This host cannot dial as configured.
    Local,
    /// A connection broke that had been Established.
    Lost,
    /// The peer closed a connection without a word before it was Established.
    Closed,
    /// One end sent a NOTIFICATION.
    Notified,
    /// One end refused the other's OPEN: nobody changes a configuration within milliseconds.
    Mismatch,
    /// The peer announced more than it may.
    TooMany,
}

/// What failed so far, and when the next attempt is due.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) at: Option<Instant>,
    /// Until then the peer is not taken back even if it dials.
    shut: Option<Instant>,
    refused: u32,
    closed: u32,
    notified: u32,
    /// The last answer was an OPEN error. A router that closes connections without a word after it (BIRD does, for its
    /// error wait time) still means the same.
    mismatch: bool,
}

impl Retry {
    /// The next attempt is due now.
    pub(super) fn now(&mut self, now: Instant) {
        (self.at, self.shut) = (Some(now), None);
    }

    /// The peer announced too much.
    pub(super) fn shut(&mut self, now: Instant) {
        self.shut = Some(now + TOO_MANY);
    }

    /// Whether the peer is not taken back yet.
    pub(super) fn is_shut(&self, now: Instant) -> bool {
        self.shut.is_some_and(|until| now < until)
    }

    /// A session ended that had been Established for `held`.
    pub(super) fn was_established(&mut self, held: Duration) {
        (self.refused, self.closed, self.mismatch) = (0, 0, false);
        if held >= SETTLED {
            self.notified = 0;
        }
    }

    /// Sets the time of the next attempt; `most` is the configured connect retry time.
    pub(super) fn after(&mut self, failure: Failure, now: Instant, most: Duration, jitter: &mut Jitter) {
        let pause = match failure {
            Failure::Refused => {
                self.refused = self.refused.saturating_add(1);
                refused_pause(self.refused, most)
            }
            Failure::Lost => QUICK,
            Failure::Closed if self.mismatch => self.notified_pause(most),
            Failure::Closed => {
                self.closed = self.closed.saturating_add(1);
                doubled(CLOSED, self.closed - 1).min(most.max(CLOSED))
            }
            Failure::Notified | Failure::Mismatch => {
                self.mismatch = failure == Failure::Mismatch;
                self.notified_pause(most)
            }
            Failure::TooMany => TOO_MANY,
            Failure::TimedOut => QUICK,
            Failure::Local => most.min(Duration::from_secs(5)),
        };
        self.at = Some(now + if pause > QUICK { jitter.shorten(pause) } else { pause });
    }

    fn notified_pause(&mut self, most: Duration) -> Duration {
        self.notified = self.notified.saturating_add(1);
        match self.notified {
            1 => QUICK,
            n => doubled(NOTIFIED, n - 2).min(NOTIFIED_MAX.max(most)),
        }
    }
}

fn refused_pause(count: u32, most: Duration) -> Duration {
    match count.checked_sub(FAST_REFUSALS) {
        None => doubled(REFUSED, count.saturating_sub(1)).min(REFUSED_MAX),
        Some(slow) => doubled(REFUSED_MAX, slow).min(most.max(REFUSED_MAX)),
    }
}

fn doubled(pause: Duration, times: u32) -> Duration {
    pause.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(failure: Failure, count: usize) -> Vec<Duration> {
        let (mut retry, mut jitter, now) = (Retry::default(), Jitter::new(1), Instant::now());
        let most = Duration::from_secs(30);
        let mut pause = || {
            retry.after(failure, now, most, &mut jitter);
            retry.at.expect("set") - now
        };
        (0..count).map(|_| pause()).collect()
    }

    #[test]
    fn notifications_back_off_from_the_second_on() {
        let pauses = pauses(Failure::Notified, 12);
        assert_eq!(pauses[0], QUICK);
        assert!((0.75..=1.0).contains(&pauses[1].as_secs_f64()), "{pauses:?}");
        assert!((1.5..=2.0).contains(&pauses[2].as_secs_f64()), "{pauses:?}");
        assert!((90.0..=120.0).contains(&pauses[11].as_secs_f64()), "{pauses:?}");
    }

    #[test]
    fn router_that_closes_silently_after_an_open_error_is_still_refusing() {
        let (mut retry, mut jitter, now) = (Retry::default(), Jitter::new(1), Instant::now());
        let mut pause = |failure| {
            retry.after(failure, now, Duration::from_secs(30), &mut jitter);
            retry.at.expect("set") - now
        };
        assert_eq!(pause(Failure::Mismatch), QUICK);
        assert!((0.75..=1.0).contains(&pause(Failure::Closed).as_secs_f64()));
        assert!((1.5..=2.0).contains(&pause(Failure::Closed).as_secs_f64()));
        assert!((3.0..=4.0).contains(&pause(Failure::Mismatch).as_secs_f64()));
        // After a Cease the router restarts, and wants us back at once.
        pause(Failure::Notified);
        assert!(pause(Failure::Closed) <= CLOSED);
    }

    #[test]
    fn connections_that_are_accepted_and_closed_are_made_ever_more_rarely() {
        let pauses = pauses(Failure::Closed, 20);
        assert!(pauses[0] <= CLOSED);
        assert!(pauses[..8].iter().sum::<Duration>() >= Duration::from_millis(1900), "{pauses:?}");
        assert!((22.5..=30.0).contains(&pauses[19].as_secs_f64()), "{pauses:?}");
    }

    #[test]
    fn refusals_are_repeated_fast_for_some_seconds_and_then_slowly() {
        let pauses = pauses(Failure::Refused, 100);
        assert!(pauses[0] <= REFUSED);
        let fast: Duration = pauses[..FAST_REFUSALS as usize].iter().sum();
        assert!((8.0..20.0).contains(&fast.as_secs_f64()), "{fast:?}");
        assert!(pauses[99].as_secs_f64() >= 22.5, "{pauses:?}");
    }
}
