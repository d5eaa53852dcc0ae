//! Connections between speakers: octets in order, late, held up while a way is cut, lost with a machine.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;
use ironcast_bgp::{
    Asn, HoldTime, RouterId,
    speaker::{
        ConnectionId, Endpoint, Exports, Output, PeerAs, PeerConfig, PeerId, Received, Speaker, SpeakerConfig,
        Unreached,
    },
};

use super::{
    Mutant,
    world::{Event, World},
};

/// One connection. End 0 is the node's, end 1 the router's.
pub(super) struct Wire {
    pub(super) node: usize,
    process: u64,
    pub(super) router: usize,
    ids: [ConnectionId; 2],
    inbox: [Vec<u8>; 2],
    /// When the last parcel to each end arrives: the next one comes later.
    last: [Duration; 2],
    /// What waits for the way to be mended.
    held: [Vec<Parcel>; 2],
    pub(super) open: [bool; 2],
}

#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Octets(Vec<u8>),
    End,
}

/// A router: a speaker of the same crate, and what it would forward.
pub(super) struct Router {
    pub(super) speaker: Speaker,
    /// By node and prefix; true while the session is away that it came by.
    pub(super) table: BTreeMap<(String, IpNet), bool>,
}

pub(super) fn node_address(n: usize) -> [u8; 4] {
    [10, 0, 0, n as u8 + 10]
}

pub(super) fn router_address(r: usize) -> [u8; 4] {
    [10, 0, 1, r as u8 + 1]
}

impl Router {
    pub(super) fn new(world: &World, r: usize, seed: u64) -> Self {
        let router_id = RouterId::new(router_address(r).into()).expect("valid");
        let config = SpeakerConfig { router_id, listen: Vec::new(), restarted: false, dynamic: Vec::new() };
        let mut speaker = Speaker::new(&config, true, seed);
        let asn = |n: u32| Asn::new(n).expect("valid");
        let peer = |n: usize| PeerConfig {
            passive: true,
            hold_time: HoldTime::new(90).expect("valid"),
            graceful_restart: world.graceful.then_some(Duration::from_secs(120)),
            ..PeerConfig::new(node_address(n).into(), asn(64600 + r as u32), PeerAs::Exactly(asn(64512)))
        };
        let peers = world.hosts.iter().enumerate().map(|(n, host)| (PeerId(host.name.as_str().into()), peer(n)));
        let now = world.clock.instant();
        speaker.set_peers(now, peers.collect());
        speaker.set_exports(now, Exports::new());
        Self { speaker, table: BTreeMap::new() }
    }

    fn received(&mut self, received: Received) {
        match received {
            Received::Announce { peer, route, .. } => {
                self.table.insert((peer.to_string(), route.prefix), false);
            }
            Received::Withdraw { peer, prefix, .. } => {
                self.table.remove(&(peer.to_string(), prefix));
            }
            Received::EndOfRib { .. } => {}
            Received::Down { peer, graceful: None } => self.table.retain(|(node, _), _| *node != *peer.0),
            Received::Down { peer, graceful: Some(_) } => {
                let of_peer = self.table.iter_mut().filter(|((node, _), _)| *node == *peer.0);
                of_peer.for_each(|(_, stale)| *stale = true);
            }
        }
    }

    /// What it has of a node, without what is stale.
    pub(super) fn fresh<'a>(&'a self, node: &'a str) -> impl Iterator<Item = IpNet> + 'a {
        let of_node = self.table.iter().filter(move |((name, _), stale)| name == node && !**stale);
        of_node.map(|((_, prefix), _)| *prefix)
    }
}

impl World {
    /// Does what the speaker of a node says, until it says nothing more.
    pub(super) fn pump_node(&mut self, n: usize) {
        let now = self.clock.instant();
        loop {
            let Some(daemon) = &mut self.hosts[n].daemon else { return };
            let process = daemon.process;
            let Some(speaker) = &mut daemon.speaker else { return };
            match speaker.poll() {
                Some(Output::Connect { id, config, .. }) => self.dial(n, process, id, config.address),
                Some(Output::Close { id, farewell }) => self.close(n, 0, id, farewell.map(|f| f.to_vec())),
                Some(_) => {}
                None => break,
            }
        }
        for w in self.wires_of(n, 0) {
            let Some(speaker) = self.hosts[n].daemon.as_mut().and_then(|d| d.speaker.as_mut()) else { return };
            let mut octets = Vec::new();
            while let Some(more) = speaker.transmit(now, self.wires[&w].ids[0]) {
                octets.extend_from_slice(&more);
            }
            if !octets.is_empty() {
                self.send(w, 1, Parcel::Octets(octets));
            }
        }
        let Some(daemon) = &mut self.hosts[n].daemon else { return };
        let process = daemon.process;
        let deadline = daemon.speaker.as_ref().and_then(Speaker::deadline);
        if daemon.take_status() {
            self.told_by_speaker(n);
        }
        if let Some(deadline) = deadline {
            self.arm(n, Some(process), deadline);
        }
    }

    pub(super) fn pump_router(&mut self, r: usize) {
        let now = self.clock.instant();
        while let Some(output) = self.routers[r].speaker.poll() {
            match output {
                Output::Close { id, farewell } => self.close(r, 1, id, farewell.map(|f| f.to_vec())),
                Output::Received(Received::Withdraw { prefix, .. })
                    if self.mutant == Some(Mutant::ForgetsToWithdraw) && self.is_nobodys(prefix.addr()) => {}
                Output::Received(received) => {
                    self.trace(|| format!("router r{r}: {received:?}"));
                    self.routers[r].received(received);
                }
                Output::Connect { .. } | Output::Ttl { .. } => {}
            }
        }
        for w in self.wires_of(r, 1) {
            let mut octets = Vec::new();
            while let Some(more) = self.routers[r].speaker.transmit(now, self.wires[&w].ids[1]) {
                octets.extend_from_slice(&more);
            }
            if !octets.is_empty() {
                self.send(w, 0, Parcel::Octets(octets));
            }
        }
        if let Some(deadline) = self.routers[r].speaker.deadline() {
            self.arm(r, None, deadline);
        }
    }

    /// One timer for each speaker, armed again only where it is earlier.
    fn arm(&mut self, which: usize, process: Option<u64>, deadline: std::time::Instant) {
        let key = (which, process);
        if self.armed.get(&key).is_none_or(|armed| deadline < *armed) {
            self.armed.insert(key, deadline);
            self.clock.at(deadline, Event::Timer { which, process, deadline });
        }
    }

    pub(super) fn timer(&mut self, which: usize, process: Option<u64>, deadline: std::time::Instant) {
        let key = (which, process);
        if self.armed.get(&key) != Some(&deadline) {
            return;
        }
        self.armed.remove(&key);
        let now = self.clock.instant();
        match process {
            Some(process) => {
                let daemon = self.hosts[which].daemon.as_mut().filter(|daemon| daemon.process == process);
                let Some(speaker) = daemon.and_then(|daemon| daemon.speaker.as_mut()) else { return };
                speaker.handle_timeout(now);
                self.pump_node(which);
            }
            None => {
                self.routers[which].speaker.handle_timeout(now);
                self.pump_router(which);
            }
        }
    }

    fn wires_of(&self, which: usize, end: usize) -> Vec<usize> {
        let of = |wire: &Wire| wire.open[end] && which == if end == 0 { wire.node } else { wire.router };
        self.wires.iter().filter(|(_, wire)| of(wire)).map(|(w, _)| *w).collect()
    }

    fn dial(&mut self, node: usize, process: u64, id: ConnectionId, address: IpAddr) {
        let router = (0..self.routers.len()).find(|r| IpAddr::from(router_address(*r)) == address);
        let wait = match router {
            Some(r) if !self.hosts[node].cut.contains(&r) => self.dice.millis(1, 20),
            _ => Duration::from_secs(3),
        };
        self.clock.after(wait, Event::Dialled { node, process, id, router: router.unwrap_or(usize::MAX) });
    }

    pub(super) fn dialled(&mut self, node: usize, process: u64, id: ConnectionId, router: usize) {
        let now = self.clock.instant();
        let there = router < self.routers.len() && !self.hosts[node].cut.contains(&router);
        let to = (router_address(router.min(100)), 179).into();
        let from = (node_address(node), 50_000).into();
        let accepted = match there {
            true => self.routers[router].speaker.accept(now, Endpoint::new(to, from)),
            false => None,
        };
        let daemon = self.hosts[node].daemon.as_mut().filter(|daemon| daemon.process == process);
        let speaker = daemon.and_then(|daemon| daemon.speaker.as_mut());
        match (accepted, speaker) {
            (Some(other), Some(speaker)) => {
                speaker.connected(now, id, Endpoint::new(from, to));
                self.serial += 1;
                let wire = Wire {
                    node,
                    process,
                    router,
                    ids: [id, other],
                    inbox: Default::default(),
                    last: [self.clock.now; 2],
                    held: Default::default(),
                    open: [true; 2],
                };
                self.wires.insert(self.serial as usize, wire);
            }
            (Some(other), None) => self.routers[router].speaker.closed(now, other, "reset"),
            (None, Some(speaker)) => {
                let why = if there { Unreached::Refused } else { Unreached::TimedOut };
                speaker.unreached(now, id, &why);
            }
            (None, None) => {}
        }
        self.pump_node(node);
        if router < self.routers.len() {
            self.pump_router(router);
        }
    }

    fn close(&mut self, which: usize, end: usize, id: ConnectionId, farewell: Option<Vec<u8>>) {
        let of = |wire: &Wire| {
            wire.open[end] && wire.ids[end] == id && which == if end == 0 { wire.node } else { wire.router }
        };
        let Some(w) = self.wires.iter().find(|(_, wire)| of(wire)).map(|(w, _)| *w) else { return };
        if let Some(farewell) = farewell {
            self.send(w, 1 - end, Parcel::Octets(farewell));
        }
        self.send(w, 1 - end, Parcel::End);
        self.shut(w, end);
    }

    /// One end is gone; with the other one the wire goes.
    fn shut(&mut self, w: usize, end: usize) {
        let Some(wire) = self.wires.get_mut(&w) else { return };
        wire.open[end] = false;
        if wire.open == [false; 2] {
            self.wires.remove(&w);
        }
    }

    fn send(&mut self, w: usize, to: usize, parcel: Parcel) {
        let late = if !self.calm && self.dice.once_in(20) { 2000 } else { 15 };
        let wait = self.dice.millis(1, late);
        let Some(wire) = self.wires.get_mut(&w) else { return };
        if self.hosts[wire.node].cut.contains(&wire.router) {
            wire.held[to].push(parcel);
            return;
        }
        wire.last[to] = (self.clock.now + wait).max(wire.last[to]);
        let wait = wire.last[to] - self.clock.now;
        self.clock.after(wait, Event::Parcel { wire: w, to, parcel });
    }

    pub(super) fn parcel(&mut self, w: usize, to: usize, parcel: Parcel) {
        let now = self.clock.instant();
        let Some(wire) = self.wires.get_mut(&w) else { return };
        let (node, router) = (wire.node, wire.router);
        if self.hosts[node].cut.contains(&router) {
            wire.held[to].push(parcel);
            return;
        }
        if !wire.open[to] {
            // Whoever still writes to an end that is gone hears a reset, if the machine is there.
            if to == 1 || self.hosts[node].up {
                self.reset(w, 1 - to);
            }
            return;
        }
        let (id, process) = (wire.ids[to], wire.process);
        let speaker = match to {
            0 => {
                let daemon = self.hosts[node].daemon.as_mut().filter(|daemon| daemon.process == process);
                daemon.and_then(|daemon| daemon.speaker.as_mut())
            }
            _ => Some(&mut self.routers[router].speaker),
        };
        let Some(speaker) = speaker else { return };
        match parcel {
            Parcel::Octets(octets) => {
                wire.inbox[to].extend_from_slice(&octets);
                let inbox = std::mem::take(&mut wire.inbox[to]);
                let taken = speaker.receive(now, id, &inbox);
                wire.inbox[to] = inbox[taken..].to_vec();
            }
            Parcel::End => {
                speaker.closed(now, id, "closed");
                self.shut(w, to);
            }
        }
        if to == 0 { self.pump_node(node) } else { self.pump_router(router) }
    }

    /// One end hears that the other is gone.
    pub(super) fn reset(&mut self, w: usize, end: usize) {
        let now = self.clock.instant();
        let Some(wire) = self.wires.get(&w).filter(|wire| wire.open[end]) else { return };
        let (node, router, id) = (wire.node, wire.router, wire.ids[end]);
        self.shut(w, end);
        if end == 1 {
            self.routers[router].speaker.closed(now, id, "reset");
            return self.pump_router(router);
        }
        if let Some(speaker) = self.hosts[node].daemon.as_mut().and_then(|daemon| daemon.speaker.as_mut()) {
            speaker.closed(now, id, "reset");
            self.pump_node(node);
        }
    }

    /// The connections of a node end with its process, or without a word with its machine.
    pub(super) fn drop_wires(&mut self, n: usize, told: bool) {
        for w in self.wires_of(n, 0) {
            if told {
                self.send(w, 1, Parcel::End);
            }
            self.shut(w, 0);
        }
    }

    /// The way between a node and a router is there again: what was held arrives, in order.
    pub(super) fn mend(&mut self, n: usize, r: usize) {
        if !self.hosts[n].cut.remove(&r) {
            return;
        }
        self.hosts[n].api_since = self.clock.now;
        let wires: Vec<usize> =
            self.wires.iter().filter(|(_, w)| w.node == n && w.router == r).map(|(w, _)| *w).collect();
        for w in wires {
            for to in [0, 1] {
                let held = self.wires.get_mut(&w).map(|wire| std::mem::take(&mut wire.held[to])).unwrap_or_default();
                held.into_iter().for_each(|parcel| self.send(w, to, parcel));
            }
        }
    }
}
