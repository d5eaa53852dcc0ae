//! What the driver counts. Written by its thread alone, read by anybody, never locked.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Later than this is counted as late.
const LATE: Duration = Duration::from_millis(1);

/// Packets of one session.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    discarded: AtomicU64,
    send_errors: AtomicU64,
    echo_sent: AtomicU64,
    echo_received: AtomicU64,
}

macro_rules! counters {
    ($($name:ident, $note:ident: $doc:literal;)*) => {
        impl Counters {
            $(
                #[doc = $doc]
                pub fn $name(&self) -> u64 {
                    self.$name.load(Relaxed)
                }

                pub(super) fn $note(&self) {
                    self.$name.fetch_add(1, Relaxed);
                }
            )*
        }
    };
}

counters! {
    sent, note_sent: "Control packets sent.";
    received, note_received: "Control packets that counted.";
    discarded, note_discarded: "Control packets of this session that were discarded: authentication, AdminDown.";
    send_errors, note_send_error: "Packets that the kernel refused to send.";
    echo_sent, note_echo_sent: "Echo packets sent.";
    echo_received, note_echo_received: "Echo packets that came back.";
}

/// Which scheduling class the thread got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The thread has not started yet.
    Starting,
    /// Real time, with this priority.
    RealTime(u8),
    /// The normal class, because none was asked for.
    Normal,
    /// The normal class, because the kernel refused: the daemon needs CAP_SYS_NICE or a real-time limit.
    Refused(String),
}

/// The driver as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which scheduling class the thread got.
    pub class: Class,
    /// What the thread runs on cannot be paged out (`mlockall`): the process has CAP_IPC_LOCK or a large limit.
    pub memory_locked: bool,
    /// Timers that fired.
    pub wakeups: u64,
    /// Of these more than a millisecond late.
    pub late: u64,
    /// The latest.
    pub max_lateness: Duration,
    /// Times that the second thread did what the first should have done, whose processor stood still.
    pub reliefs: u64,
    /// Payloads that are no control packets (RFC 5880 §6.8.6).
    pub malformed: u64,
    /// Control packets that belong to no session.
    pub unmatched: u64,
    /// Control packets whose TTL was too small (RFC 5881 §5, RFC 5883 §6).
    pub wrong_ttl: u64,
    /// Times that a socket could not be read.
    pub receive_errors: u64,
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) class: OnceLock<Class>,
    pub(super) memory_locked: AtomicBool,
    wakeups: AtomicU64,
    late: AtomicU64,
    max_lateness: AtomicU64,
    pub(super) reliefs: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) unmatched: AtomicU64,
    pub(super) wrong_ttl: AtomicU64,
    pub(super) receive_errors: AtomicU64,
}

impl Metrics {
    /// Counts a timer that fired; `true` if it was late.
    pub(super) fn note_wakeup(&self, lateness: Duration) -> bool {
        self.wakeups.fetch_add(1, Relaxed);
        self.late.fetch_add((lateness > LATE).into(), Relaxed);
        self.max_lateness.fetch_max(lateness.as_nanos() as u64, Relaxed);
        lateness > LATE
    }

    pub(super) fn report(&self) -> Report {
        Report {
            class: self.class.get().cloned().unwrap_or(Class::Starting),
            memory_locked: self.memory_locked.load(Relaxed),
            wakeups: self.wakeups.load(Relaxed),
            late: self.late.load(Relaxed),
            max_lateness: Duration::from_nanos(self.max_lateness.load(Relaxed)),
            reliefs: self.reliefs.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            unmatched: self.unmatched.load(Relaxed),
            wrong_ttl: self.wrong_ttl.load(Relaxed),
            receive_errors: self.receive_errors.load(Relaxed),
        }
    }
}
