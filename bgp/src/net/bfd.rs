//! The BFD driver: a thread of its own around [`crate::bfd`].
//!
//! It is no task of the runtime, because a runtime's other tasks would make it late, and lateness of some
//! milliseconds is what a peer with 3 × 10 ms takes for a failure. The thread is in the real-time class where
//! that is allowed ([`Report::class`] says), sleeps until absolute deadlines, sends before it does anything
//! else, and reads everything that waits before it declares a peer down; a packet counts from the moment that
//! the kernel had it. In steady state it allocates nothing and takes no lock.
//!
//! One socket per family receives for all single-hop sessions (port 3784), one for all multi-hop sessions
//! (4784); they are opened with the first session that needs them. Each session sends from a socket of its own,
//! with a source port in 49152–65535 that no other session has (RFC 5881 §4). All sockets belong to the network
//! namespace of the thread that called [`Bfd::start`].

mod driver;
mod echo;
mod link;
mod metrics;
mod receive;
mod socket;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio::sync::watch;

pub use metrics::{Class, Counters, Report};

use crate::{
    bfd::{Config, Status},
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
    metrics: metrics::Metrics,
}

#[derive(Debug, Default)]
struct Commands {
    sessions: Option<BTreeMap<PeerId, Config>>,
    stop: Option<Stop>,
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    /// AdminDown to everybody, then the end.
    Orderly,
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
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            bell: socket::Bell::new()?,
            metrics: metrics::Metrics::default(),
        });
        let (publish, sessions) = watch::channel(Sessions::default());
        let driver = driver::Driver::new(Arc::clone(&shared), publish)?;
        thread::Builder::new().name("bfd".into()).spawn(move || driver.run(&config))?;
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

    /// Ends the driver and waits for it, a second at most. `keep`: without a word, because something else goes
    /// on answering for these sessions; otherwise every session says AdminDown, which peers do not take for a
    /// failure.
    pub async fn shutdown(&self, keep: bool) -> Result<(), Ended> {
        self.alive()?;
        self.handle.command(|commands| commands.stop = Some(if keep { Stop::Silent } else { Stop::Orderly }));
        let mut sessions = self.sessions.clone();
        while sessions.changed().await.is_ok() {}
        Ok(())
    }

    fn alive(&self) -> Result<(), Ended> {
        // The sending half lives as long as the thread.
        if self.sessions.has_changed().is_err() { Err(Ended) } else { Ok(()) }
    }
}
