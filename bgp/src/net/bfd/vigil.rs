//! Who keeps vigil. A thread sleeps on one processor, and a processor can stand still for longer than peers are patient:
//! its host lends it to somebody else, or its kernel does something that cannot be interrupted. So there are two
//! threads, on different halves of the processors:
//!
//! ```text
//!  keeper  ──sleep──▶ turn ──sleep──▶ turn ──sleep ▒▒▒▒▒▒▒▒▒▒▒▒▒▒ stands still ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▶ turn ──▶
//!  relief  ──────sleep──────▶ all is well ──sleep──▶ overdue: turn ──▶ turn ──▶ turn ──▶ all is well ──▶
//! ```
//!
//! Each says before it sleeps when it means to wake. The relief wakes every [`EVERY`], and where the keeper is overdue it
//! does the keeper's work until the keeper is back. Both know of the other when it is overdue: then a processor of this
//! machine stands still, where a peer's packets may be stuck too, and nobody is declared down for a while
//! ([`Vigil::not_before`]).

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Later than this nobody wakes whose processor runs.
const SLACK: Duration = Duration::from_millis(2);
/// Between two looks of the relief: a peer with 3 × 10 ms has heard nothing for 20 ms at worst when it takes over.
const EVERY: Duration = Duration::from_millis(8);
/// The same while nothing is due soon.
const IDLE: Duration = Duration::from_secs(1);
/// How long what was stuck has to come through once a processor runs again.
const AFTERMATH: Duration = Duration::from_millis(5);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Keeper,
    Relief,
}

impl Role {
    const fn other(self) -> Self {
        match self {
            Self::Keeper => Self::Relief,
            Self::Relief => Self::Keeper,
        }
    }
}

/// What the two know of each other; nanoseconds since `origin`.
#[derive(Debug)]
pub(super) struct Vigil {
    origin: Instant,
    /// When each means to be awake; never where it waits for something else, or is not there.
    planned: [AtomicU64; 2],
    /// Nobody is declared down before.
    not_before: AtomicU64,
    over: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Vigil {
    pub(super) fn new(now: Instant) -> Self {
        let planned = [const { AtomicU64::new(NEVER) }; 2];
        Self { origin: now, planned, not_before: AtomicU64::new(0), over: AtomicBool::new(false) }
    }

    /// It sleeps until then, or is awake now.
    pub(super) fn plan(&self, role: Role, at: Option<Instant>) {
        self.planned[role as usize].store(at.map_or(NEVER, |at| self.nanos(at)), Relaxed);
    }

    /// How late it is, where that means that its processor stands still.
    pub(super) fn overdue(&self, role: Role, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.planned(role)?);
        (late > SLACK).then_some(late)
    }

    /// It woke so late. What delayed it may have delayed packets: they get the time that was lost to come through, as
    /// much as `most`.
    pub(super) fn note_woken(&self, now: Instant, lateness: Duration, most: Duration) {
        self.not_before.fetch_max(self.nanos(now + lateness.min(most)), Relaxed);
    }

    /// Nobody is declared down before this moment, as one of the two sees it.
    pub(super) fn not_before(&self, role: Role, now: Instant) -> Instant {
        if self.overdue(role.other(), now).is_some() {
            self.not_before.fetch_max(self.nanos(now + AFTERMATH), Relaxed);
        }
        self.origin + Duration::from_nanos(self.not_before.load(Relaxed))
    }

    /// When the relief looks next, where the keeper is well.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let keeper = self.planned(Role::Keeper).map_or(now + IDLE, |at| at + SLACK);
        keeper.clamp(now + EVERY, now + IDLE)
    }

    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn planned(&self, role: Role) -> Option<Instant> {
        let nanos = self.planned[role as usize].load(Relaxed);
        (nanos != NEVER).then(|| self.origin + Duration::from_nanos(nanos))
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_keeper_is_noticed_in_time_and_nobody_is_declared_down_meanwhile() {
        let start = Instant::now();
        let ms = |millis| start + Duration::from_millis(millis);
        let vigil = Vigil::new(start);
        assert_eq!(vigil.overdue(Role::Keeper, ms(1000)), None, "it has not begun");
        vigil.plan(Role::Keeper, Some(ms(10)));
        assert_eq!(vigil.next_look(ms(0)), ms(12));
        assert_eq!(vigil.next_look(ms(9)), ms(17), "not more often than it must");
        assert_eq!(vigil.overdue(Role::Keeper, ms(12)), None);
        assert_eq!(vigil.not_before(Role::Relief, ms(12)), start);
        assert_eq!(vigil.overdue(Role::Keeper, ms(13)), Some(Duration::from_millis(3)));
        assert_eq!(vigil.not_before(Role::Relief, ms(13)), ms(18));
        vigil.plan(Role::Keeper, Some(ms(60)));
        vigil.note_woken(ms(60), Duration::from_millis(50), Duration::from_millis(30));
        assert_eq!(vigil.not_before(Role::Relief, ms(60)), ms(90), "as much as was lost, within bounds");
        vigil.plan(Role::Keeper, None);
        assert_eq!((vigil.overdue(Role::Keeper, ms(999)), vigil.next_look(ms(60))), (None, ms(1060)));
    }
}
