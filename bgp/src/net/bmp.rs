//! Connections to BMP stations (RFC 7854 §3.2): this end dials, again and again with back-off.
//!
//! ```text
//!  speaker's task ──Event──▶ feed (bounded, per station) ──▶ station's task ──▶ TCP
//!        ▲                                                        │
//!        └────────────── Note: connected, lost ───────────────────┘
//! ```
//!
//! The speaker's task owns `Stations` and never waits for one: what does not fit into a station's feed costs that
//! station its connection, and it begins anew with everything that is so by then. Each station has a task of its
//! own that ends with the speaker's.

mod feed;
mod link;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{
    bmp::{Event, Identity},
    jitter::Jitter,
    speaker::{PeerId, PeerStatus, Speaker},
};
use feed::Feed;

/// How long the last words to all stations may take.
const FAREWELL: Duration = Duration::from_secs(1);

type Peers = watch::Receiver<Arc<BTreeMap<PeerId, PeerStatus>>>;

/// What is so with a station now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StationStatus {
    /// There is a connection.
    pub connected: bool,
    /// How many there were.
    pub connections: u64,
    /// How many were given up because the station read too slowly.
    pub overflows: u64,
    /// Why the last one ended or could not be made.
    pub last_error: Option<String>,
}

/// What a station's task tells the speaker's.
pub(super) struct Note {
    station: SocketAddr,
    change: Change,
}

enum Change {
    Connected(Feed),
    Lost(String),
}

struct Entry {
    task: AbortHandle,
    feed: Option<Feed>,
    status: StationStatus,
}

/// The stations of a speaker, owned by its task.
pub(super) struct Stations {
    entries: BTreeMap<SocketAddr, Entry>,
    tasks: JoinSet<()>,
    notes: (mpsc::Sender<Note>, mpsc::Receiver<Note>),
    peers: Peers,
    status: watch::Sender<Arc<BTreeMap<SocketAddr, StationStatus>>>,
    jitter: Jitter,
}

impl Stations {
    /// None. `peers` is where Stats Reports come from.
    pub(super) fn new(
        peers: Peers,
        status: watch::Sender<Arc<BTreeMap<SocketAddr, StationStatus>>>,
        seed: u64,
    ) -> Self {
        let notes = mpsc::channel(16);
        Self { entries: BTreeMap::new(), tasks: JoinSet::new(), notes, peers, status, jitter: Jitter::new(seed) }
    }

    /// Replaces the set of stations; those that stay keep their connections.
    pub(super) fn set(&mut self, identity: &Arc<Identity>, wanted: &BTreeSet<SocketAddr>) {
        self.entries.retain(|station, entry| {
            let stays = wanted.contains(station);
            if !stays && !entry.feed.take().is_some_and(|feed| feed.end()) {
                entry.task.abort();
            }
            stays
        });
        for station in wanted {
            if !self.entries.contains_key(station) {
                let link = link::Link {
                    station: *station,
                    identity: identity.clone(),
                    notes: self.notes.0.clone(),
                    peers: self.peers.clone(),
                    jitter: self.jitter.fork(),
                };
                let task = self.tasks.spawn(link.run());
                self.entries.insert(*station, Entry { task, feed: None, status: StationStatus::default() });
            }
        }
        self.publish();
    }

    /// The next note of a station's task; cancel safe.
    pub(super) async fn note(&mut self) -> Note {
        // Tasks that ended, of stations that are no longer wanted, are forgotten on the way.
        while self.tasks.try_join_next().is_some() {}
        self.notes.1.recv().await.expect("a sender is kept here")
    }

    /// Acts on a note. A station that has just connected is first told everything that is so.
    pub(super) fn on_note(&mut self, note: Note, speaker: &mut Speaker) {
        let Note { station, change } = note;
        let Some(entry) = self.entries.get_mut(&station) else { return };
        match change {
            Change::Connected(feed) => {
                tracing::info!(%station, "BMP station connected");
                speaker.set_monitored(true);
                let begun = feed.begin(speaker.monitored());
                entry.feed = Some(feed).filter(|_| begun);
                entry.status.connected = true;
                entry.status.connections += 1;
            }
            Change::Lost(why) => {
                tracing::warn!(%station, reason = why, "BMP station not connected");
                entry.feed = None;
                entry.status.connected = false;
                entry.status.last_error = Some(why);
            }
        }
        speaker.set_monitored(self.entries.values().any(|e| e.feed.is_some()));
        self.publish();
    }

    /// Tells every station that is connected.
    pub(super) fn tell(&mut self, event: &Event) {
        let mut overflowed = false;
        for entry in self.entries.values_mut() {
            if entry.feed.as_ref().is_some_and(|feed| !feed.push(event)) {
                // Dropping the feed ends the connection; its task says so in a note.
                entry.feed = None;
                entry.status.overflows += 1;
                overflowed = true;
            }
        }
        if overflowed {
            self.publish();
        }
    }

    fn publish(&self) {
        let status = self.entries.iter().map(|(station, entry)| (*station, entry.status.clone()));
        self.status.send_replace(Arc::new(status.collect()));
    }

    /// Says a last word to every station and waits until it is said, or for a second.
    pub(super) async fn end(mut self) {
        for entry in self.entries.values_mut() {
            if !entry.feed.take().is_some_and(|feed| feed.end()) {
                entry.task.abort();
            }
        }
        let said = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(FAREWELL, said).await.is_err() {
            tracing::debug!("a BMP station did not take the last word in time");
        }
    }
}
