//! The BFD driver: a thread of its own around [`crate::bfd`].
//!
//! It is no task of the runtime, because a runtime's other tasks would make it late, and lateness of some
//! milliseconds is what a peer with 3 × 10 ms takes for a failure. The thread is in the real-time class where
//! that is allowed ([`Report::class`] says), sleeps until absolute deadlines, sends before it does anything
//! else, and reads everything that waits before it declares a peer down; a packet counts from the moment that
//! the kernel had it. In steady state it allocates nothing, and the only lock that it takes is free: a second thread on
//! other processors takes over while its own stands still (`vigil`).
//!
//! One socket per family receives for all single-hop sessions (port 3784), one for all multi-hop sessions
//! (4784); they are opened with the first session that needs them. Each session sends from a socket of its own,
//! with a source port in 49152–65535 that no other session has (RFC 5881 §4). All sockets belong to the network
//! namespace of the thread that called [`Bfd::start`].
//!
//! A process that restarts [hands its sessions over](Bfd::hand_over): its peers agree to be patient, and the next
//! process [goes on](Bfd::start_after) with the same discriminators.

mod driver;
mod echo;
mod link;
mod metrics;
mod receive;
mod socket;
mod threads;
mod vigil;
mod wait;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

pub use metrics::{Class, Counters, Report};

use crate::{
    bfd::{Config, Endpoint, Handover, Status},
    speaker::PeerId,
};

/// How the driver runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdConfig {
    /// Priority in the real-time class (`SCHED_FIFO`), 1 to 99; `None` stays in the normal class.
    pub priority: Option<u8>,
}

impl Default for BfdConfig {
    /// Above the threads of interrupt handlers (50), which must not delay what they deliver.
    fn default() -> Self {
        Self { priority: Some(51) }
    }
}

/// Every session by the peer that it belongs to.
pub type Sessions = Arc<BTreeMap<PeerId, Session>>;

/// One session as the driver sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The protocol's view; its `failures` is what a client acts on (see [`crate::bfd`]).
    pub status: Status,
    /// Why the session has no sockets, in one line; it is tried again every second.
    pub problem: Option<Arc<str>>,
    /// Packets of this session, counted live.
    pub counters: Arc<Counters>,
}

/// A session that a successor may go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    /// Whose it is.
    pub peer: PeerId,
    /// The path, which must be the successor's too.
    pub endpoint: Endpoint,
    /// The port that it sent from.
    pub source_port: u16,
    /// The protocol's part.
    pub handover: Handover,
}

/// A handle to a running driver; cheap to clone. When the last one is dropped the driver ends without a word.
#[derive(Debug, Clone)]
pub struct Bfd {
    handle: Arc<Handle>,
    sessions: watch::Receiver<Sessions>,
}

/// The BFD driver has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BFD driver has ended")]
pub struct Ended;

/// What the handles and the thread have in common.
#[derive(Debug)]
struct Shared {
    /// Newest wins. The thread only ever tries the lock: who holds it rings the bell behind.
    commands: Mutex<Commands>,
    bell: socket::Bell,
    vigil: vigil::Vigil,
    /// What is to be published, newest wins. A watch has a lock, and whoever looks at it may be put off the processor
    /// meanwhile; so a third thread publishes, and the others only ever try this lock.
    news: Mutex<Option<Sessions>>,
    /// There are some, or it is over.
    herald: socket::Bell,
    /// What a successor gets, written when the thread ends.
    legacy: Mutex<Vec<Legacy>>,
    metrics: metrics::Metrics,
}

#[derive(Debug, Default)]
struct Commands {
    sessions: Option<BTreeMap<PeerId, Config>>,
    stop: Option<Stop>,
}

#[derive(Debug, Clone)]
enum Stop {
    /// AdminDown to everybody, then the end.
    Orderly,
    /// Patience asked of these peers, AdminDown said to the others, then the end.
    HandOver { keep: BTreeSet<PeerId>, window: Duration },
    /// The end.
    Silent,
}

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Handle {
    fn command(&self, set: impl FnOnce(&mut Commands)) {
        set(&mut self.0.commands.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.bell.ring();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.command(|commands| {
            commands.stop.get_or_insert(Stop::Silent);
        });
    }
}

impl Bfd {
    /// Starts the thread with no sessions. The watch shows every session as it is, newest wins; it closes when
    /// the driver ends.
    pub fn start(config: BfdConfig) -> io::Result<(Self, watch::Receiver<Sessions>)> {
        Self::start_after(config, Vec::new())
    }

    /// The same for the successor of a process that [handed over](Self::hand_over): where a session of the same path
    /// is set, it is Up from the start.
    pub fn start_after(config: BfdConfig, legacy: Vec<Legacy>) -> io::Result<(Self, watch::Receiver<Sessions>)> {
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            bell: socket::Bell::new()?,
            vigil: vigil::Vigil::new(Instant::now()),
            news: Mutex::default(),
            herald: socket::Bell::new()?,
            legacy: Mutex::default(),
            metrics: metrics::Metrics::default(),
        });
        let (publish, sessions) = watch::channel(Sessions::default());
        let keeper = threads::Keeper::new(Arc::clone(&shared), driver::Driver::new(Arc::clone(&shared), legacy))?;
        let herald = threads::Herald::new(Arc::clone(&shared), publish, &config);
        thread::Builder::new().name("bfd-herald".into()).spawn(move || herald.run())?;
        thread::Builder::new().name("bfd".into()).spawn(move || keeper.run(&config))?;
        Ok((Self { handle: Arc::new(Handle(shared)), sessions: sessions.clone() }, sessions))
    }

    /// Replaces the set of sessions. New ones begin in Down; changed parameters are negotiated while the session
    /// stays Up; another endpoint is another session; what is gone says AdminDown first.
    pub fn set_sessions(&self, sessions: BTreeMap<PeerId, Config>) -> Result<(), Ended> {
        self.alive()?;
        self.handle.command(|commands| commands.sessions = Some(sessions));
        Ok(())
    }

    /// Scheduling class, lateness and discarded packets.
    pub fn report(&self) -> Report {
        self.handle.0.metrics.report()
    }

    /// Ends the driver so that a successor can go on with the sessions of `keep` within `window`: their peers agree to
    /// hear nothing for so long. Every other session, and one whose peer does not agree within a second, says
    /// AdminDown. Until the window is over nobody watches the path.
    pub async fn hand_over(&self, keep: BTreeSet<PeerId>, window: Duration) -> Result<Vec<Legacy>, Ended> {
        self.end(Stop::HandOver { keep, window }).await?;
        Ok(std::mem::take(&mut *self.handle.0.legacy.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Ends the driver and waits for it, a second at most. `keep`: without a word, because something else goes
    /// on answering for these sessions; otherwise every session says AdminDown, which peers do not take for a
    /// failure.
    pub async fn shutdown(&self, keep: bool) -> Result<(), Ended> {
        self.end(if keep { Stop::Silent } else { Stop::Orderly }).await
    }

    async fn end(&self, stop: Stop) -> Result<(), Ended> {
        self.alive()?;
        self.handle.command(|commands| commands.stop = Some(stop));
        let mut sessions = self.sessions.clone();
        while sessions.changed().await.is_ok() {}
        Ok(())
    }

    fn alive(&self) -> Result<(), Ended> {
        // The sending half lives as long as the thread.
        if self.sessions.has_changed().is_err() { Err(Ended) } else { Ok(()) }
    }
}
