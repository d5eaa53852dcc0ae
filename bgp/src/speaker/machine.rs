//! Many peers, without I/O: what a driver puts in and takes out.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    ConnectionId, DynamicPeers, Endpoint, Exports, Output, PeerConfig, PeerId, PeerStatus, Shutdown, SpeakerConfig,
    Unreached,
};
use crate::{
    bmp,
    jitter::Jitter,
    peer::{Peer, Shared},
    rib::{Renders, Routes},
    wire::notification::{Notification, cease},
};

/// Peers that connected by themselves are bounded, whoever may come from the prefixes.
const MAX_DYNAMIC: usize = 4096;

/// A BGP speaker as a state machine. After every call the driver carries out what [`Speaker::poll`] says, offers
/// every connection whose last octets are written to [`Speaker::transmit`], and arms one timer for
/// [`Speaker::deadline`].
#[derive(Debug)]
pub struct Speaker {
    peers: BTreeMap<PeerId, Peer>,
    connections: HashMap<ConnectionId, PeerId>,
    dynamic: Vec<DynamicPeers>,
    /// `None` before the first.
    exports: Option<Exports>,
    /// What a peer is told that the exports do not name.
    nothing: Routes,
    shared: Shared,
    stopped: bool,
}

impl Speaker {
    /// A speaker without peers. `deliver` hands on received routes (the router role); `seed` drives the jitter.
    pub fn new(config: &SpeakerConfig, deliver: bool, seed: u64) -> Self {
        let shared = Shared {
            router_id: config.router_id,
            restarted: config.restarted,
            deliver,
            outputs: VecDeque::new(),
            renders: Renders::default(),
            jitter: Jitter::new(seed),
            last_connection: 0,
            changed: false,
            monitor: None,
        };
        Self {
            peers: BTreeMap::new(),
            connections: HashMap::new(),
            dynamic: config.dynamic.clone(),
            exports: None,
            nothing: Routes::default(),
            shared,
            stopped: false,
        }
    }

    /// Replaces the set of peers. Peers that came by themselves stay.
    pub fn set_peers(&mut self, now: Instant, wanted: BTreeMap<PeerId, PeerConfig>) {
        if self.stopped {
            return;
        }
        let gone: Vec<PeerId> =
            self.peers.keys().filter(|id| !wanted.contains_key(*id) && !is_dynamic(id)).cloned().collect();
        for id in gone {
            if let Some(mut peer) = self.peers.remove(&id) {
                peer.stop(now, &Notification::cease(cease::DECONFIGURED), &mut self.shared);
            }
        }
        for (id, config) in wanted {
            match self.peers.get_mut(&id) {
                Some(peer) => peer.reconfigure(now, config, &mut self.shared),
                None => self.add(now, id, config),
            }
        }
        self.shared.changed = true;
    }

    fn add(&mut self, now: Instant, id: PeerId, config: PeerConfig) {
        let mut peer = Peer::new(now, id.clone(), config, &mut self.shared);
        if let Some(exports) = &self.exports {
            peer.set_target(now, exports.get(&id).unwrap_or(&self.nothing), &mut self.shared);
        }
        self.peers.insert(id, peer);
    }

    /// Replaces what every peer is told. Before the first call no peer is told anything, not even that it has
    /// been told everything.
    pub fn set_exports(&mut self, now: Instant, exports: Exports) {
        if self.stopped {
            return;
        }
        for (id, peer) in &mut self.peers {
            peer.set_target(now, exports.get(id).unwrap_or(&self.nothing), &mut self.shared);
        }
        self.exports = Some(exports);
    }

    /// Somebody has connected; `None` refuses: no such peer, or it has a connection already.
    pub fn accept(&mut self, now: Instant, endpoint: Endpoint) -> Option<ConnectionId> {
        if self.stopped {
            return None;
        }
        let remote = endpoint.remote.ip().to_canonical();
        let known = self.peers.iter().find(|(_, p)| p.config().address == remote).map(|(id, _)| id.clone());
        let id = match known {
            Some(id) => id,
            None => self.add_dynamic(now, remote)?,
        };
        let connection = self.peers.get_mut(&id)?.accept(now, endpoint, &mut self.shared)?;
        self.connections.insert(connection, id);
        Some(connection)
    }

    fn add_dynamic(&mut self, now: Instant, remote: IpAddr) -> Option<PeerId> {
        let template = self.dynamic.iter().find(|d| d.prefix.contains(&remote))?.template.clone();
        if self.peers.keys().filter(|id| is_dynamic(id)).count() >= MAX_DYNAMIC {
            let quiet = self.peers.iter().find(|(id, p)| is_dynamic(id) && p.is_quiet()).map(|(id, _)| id.clone())?;
            self.peers.remove(&quiet);
        }
        let id = PeerId(format!("dynamic/{remote}").into());
        self.add(now, id.clone(), PeerConfig { address: remote, passive: true, ..template });
        Some(id)
    }

    /// A connection that [`Output::Connect`] asked for is made.
    pub fn connected(&mut self, now: Instant, id: ConnectionId, endpoint: Endpoint) {
        if let Some((peer, shared)) = self.of(id) {
            peer.connected(now, id, endpoint, shared);
        }
    }

    /// A connection that [`Output::Connect`] asked for could not be made.
    pub fn unreached(&mut self, now: Instant, id: ConnectionId, why: &Unreached) {
        if let Some((peer, shared)) = self.of(id) {
            peer.unreached(now, id, why, shared);
        }
        self.connections.remove(&id);
    }

    /// BFD says of the path to a peer that it is lost, or that it is there. Only changes count.
    pub fn path(&mut self, now: Instant, id: &PeerId, up: bool) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.path(now, up, &mut self.shared);
        }
    }

    /// A connection broke, or the peer closed it; the text says how.
    pub fn closed(&mut self, now: Instant, id: ConnectionId, why: &str) {
        if let Some((peer, shared)) = self.of(id) {
            peer.closed(now, id, why, shared);
        }
    }

    /// The peer that a connection belongs to.
    pub fn peer(&self, id: ConnectionId) -> Option<&PeerId> {
        self.connections.get(&id)
    }

    /// The configuration of the peer that a connection belongs to.
    pub fn config(&self, id: ConnectionId) -> Option<&Arc<PeerConfig>> {
        self.peers.get(self.connections.get(&id)?).map(Peer::config)
    }

    /// Reads as many messages as are complete and returns how many octets that took.
    pub fn receive(&mut self, now: Instant, id: ConnectionId, buffer: &[u8]) -> usize {
        let mut taken = 0;
        while let Some((peer, shared)) = self.of(id)
            && let Some(length) = peer.receive(now, id, &buffer[taken..], shared)
        {
            taken += length;
        }
        taken
    }

    /// The next octets for a connection, to be asked for only when all before are written.
    #[must_use]
    pub fn transmit(&mut self, now: Instant, id: ConnectionId) -> Option<Bytes> {
        let (peer, shared) = self.of(id)?;
        peer.transmit(now, id, shared)
    }

    fn of(&mut self, id: ConnectionId) -> Option<(&mut Peer, &mut Shared)> {
        let peer = self.peers.get_mut(self.connections.get(&id)?)?;
        Some((peer, &mut self.shared))
    }

    /// When [`Speaker::handle_timeout`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::deadline).min()
    }

    /// Fires what is due; early calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in self.peers.values_mut().filter(|p| p.deadline().is_some_and(|at| at <= now)) {
            peer.handle_timeout(now, &mut self.shared);
        }
    }

    /// The driver reads nothing at present, because what it read before is not taken from it: no peer's hold time
    /// passes. To be said before every [`Speaker::handle_timeout`] while that is so.
    pub fn not_reading(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|peer| peer.not_reading(now));
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        let output = self.shared.outputs.pop_front()?;
        match &output {
            Output::Connect { id, peer, .. } => {
                self.connections.insert(*id, peer.clone());
            }
            Output::Close { id, .. } => {
                self.connections.remove(id);
            }
            Output::Ttl { .. } | Output::Received(_) => {}
        }
        Some(output)
    }

    /// Ends every session. Nothing starts again.
    pub fn shutdown(&mut self, now: Instant, how: &Shutdown) {
        self.stopped = true;
        for peer in self.peers.values_mut() {
            match how {
                Shutdown::Stop { reason } => {
                    peer.stop(now, &Notification::shutdown(cease::SHUTDOWN, reason), &mut self.shared);
                }
                Shutdown::Restart => peer.drop_silently(now, &mut self.shared),
            }
        }
    }

    /// Tells of every peer with an address in the prefix why nobody is admitted from there.
    pub fn blame(&mut self, prefix: &ipnet::IpNet, why: &str) {
        for peer in self.peers.values_mut().filter(|p| prefix.contains(&p.config().address)) {
            peer.blame(format!("this node takes no connection from {}: {why}", peer.config().address));
            self.shared.changed = true;
        }
    }

    /// Whether any status changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.shared.changed)
    }

    /// Whether any status changed since the last [`Speaker::take_changed`].
    pub fn is_changed(&self) -> bool {
        self.shared.changed
    }

    /// Whether [`Speaker::poll_monitor`] shall have something to say; off at first.
    pub fn set_monitored(&mut self, on: bool) {
        match (on, &self.shared.monitor) {
            (true, None) => self.shared.monitor = Some(VecDeque::new()),
            (false, Some(_)) => self.shared.monitor = None,
            _ => {}
        }
    }

    /// What happened to a session since the last call, oldest first.
    #[must_use]
    pub fn poll_monitor(&mut self) -> Option<bmp::Event> {
        self.shared.monitor.as_mut()?.pop_front()
    }

    /// What whoever begins to monitor now has to be told before anything else.
    pub fn monitored(&self) -> Vec<bmp::Event> {
        self.peers.values().flat_map(Peer::monitored).collect()
    }

    /// The peers as they are.
    pub fn status(&self) -> BTreeMap<PeerId, PeerStatus> {
        self.peers.iter().map(|(id, peer)| (id.clone(), peer.status().clone())).collect()
    }
}

#[cfg(test)]
impl Speaker {
    /// The only peer.
    pub(crate) fn peers_for_test(&self) -> &Peer {
        self.peers.values().next().expect("there is one")
    }
}

fn is_dynamic(id: &PeerId) -> bool {
    id.0.starts_with("dynamic/")
}
