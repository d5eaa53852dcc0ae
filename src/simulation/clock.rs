//! The virtual clock and what happens next.

use std::{
    collections::BTreeMap,
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

/// Where the virtual time begins, far enough from the machine's own beginning that nothing ends before it.
static START: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(86_400));

/// Events in the order of their times; those of one time in the order in which they were put in.
#[derive(Debug)]
pub(super) struct Clock<E> {
    pub(super) now: Duration,
    queue: BTreeMap<(Duration, u64), E>,
    next: u64,
}

impl<E> Clock<E> {
    pub(super) fn new() -> Self {
        Self { now: Duration::ZERO, queue: BTreeMap::new(), next: 0 }
    }

    pub(super) fn after(&mut self, wait: Duration, event: E) {
        self.next += 1;
        self.queue.insert((self.now + wait, self.next), event);
    }

    pub(super) fn at(&mut self, instant: Instant, event: E) {
        let time = instant.saturating_duration_since(*START);
        self.after(time.saturating_sub(self.now), event);
    }

    /// The next event, until then; the clock goes there.
    pub(super) fn pop(&mut self, until: Duration) -> Option<E> {
        let entry = self.queue.first_entry()?;
        let time = entry.key().0;
        if time > until {
            self.now = until;
            return None;
        }
        self.now = time;
        Some(entry.remove())
    }

    pub(super) fn instant(&self) -> Instant {
        *START + self.now
    }

    /// The time of day; `skew` is a clock that is wrong.
    pub(super) fn time(&self, skew: i64) -> SystemTime {
        let noon = Duration::from_secs(1_700_000_000_u64.checked_add_signed(skew).expect("a time"));
        SystemTime::UNIX_EPOCH + noon + self.now
    }
}
