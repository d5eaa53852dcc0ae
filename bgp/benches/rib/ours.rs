//! The speaker's state machine with peers that only listen.

use std::time::{Duration, Instant};

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    rib::{Route, Routes},
    speaker::{ConnectionId, Endpoint, Output, PeerAs, PeerConfig, PeerId, Speaker, SpeakerConfig},
    wire::{
        Families,
        capability::Capabilities,
        message::{self, Kind, frame},
        open::Open,
    },
};

use super::{ALLOCATOR, Way, attributes, prefix};

/// A speaker whose peers have said their OPEN.
struct Running {
    speaker: Speaker,
    now: Instant,
    connections: Vec<ConnectionId>,
}

/// What one peer was sent.
#[derive(Default)]
pub(crate) struct Sent {
    pub updates: usize,
    /// Where the octets are.
    pub pieces: Vec<*const u8>,
    octets: usize,
}

fn id(n: usize) -> PeerId {
    PeerId(format!("peer{n}").into())
}

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn opening() -> Vec<u8> {
    let capabilities = Capabilities {
        multiprotocol: Some(Families::from_iter([Family::Ipv4Unicast, Family::Ipv6Unicast])),
        four_octet_as: Some(64999),
        ..Capabilities::default()
    };
    let id = RouterId::new([10, 0, 0, 99].into()).unwrap();
    let mut out = Vec::new();
    Open { asn: asn(64999), hold_time: HoldTime::new(0).unwrap(), id, capabilities }.encode(&mut out);
    out
}

impl Running {
    fn new(peers: usize) -> Self {
        let config = SpeakerConfig {
            router_id: RouterId::new([10, 0, 0, 1].into()).unwrap(),
            listen: Vec::new(),
            restarted: false,
            dynamic: Vec::new(),
        };
        let now = Instant::now();
        let mut running = Self { speaker: Speaker::new(&config, false, 1), now, connections: Vec::new() };
        let peer = |n: usize| {
            let mut peer = PeerConfig::new(address(n), asn(64500), PeerAs::Exactly(asn(64999)));
            peer.families = [Family::Ipv4Unicast, Family::Ipv6Unicast].into();
            (id(n), peer)
        };
        running.speaker.set_peers(now, (0..peers).map(peer).collect());
        while let Some(output) = running.speaker.poll() {
            let Output::Connect { id, config, .. } = output else { continue };
            let endpoint = Endpoint::new(([10, 0, 0, 1], 50_000).into(), (config.address, 179).into());
            running.speaker.connected(now, id, endpoint);
            running.take(id);
            running.speaker.receive(now, id, &opening());
            running.take(id);
            running.connections.push(id);
        }
        assert_eq!(running.connections.len(), peers);
        running
    }

    /// Everything that is to be written to a peer.
    fn take(&mut self, id: ConnectionId) -> Sent {
        let mut sent = Sent::default();
        while let Some(octets) = self.speaker.transmit(self.now, id) {
            let mut rest = &octets[..];
            while let Some(message) = frame(rest, false).unwrap() {
                sent.updates += usize::from(message.kind == Kind::Update);
                rest = &rest[message.octets.len()..];
            }
            sent.pieces.push(octets.as_ptr());
            sent.octets += octets.len();
        }
        sent
    }

    fn establish(&mut self) -> Vec<Sent> {
        let mut keepalive = Vec::new();
        message::encode_keepalive(&mut keepalive);
        let connections = self.connections.clone();
        let establish = |id| {
            self.speaker.receive(self.now, id, &keepalive);
            self.take(id)
        };
        connections.into_iter().map(establish).collect()
    }

    fn set(&mut self, routes: &Routes) {
        let exports = (0..self.connections.len()).map(|n| (id(n), routes.clone())).collect();
        self.speaker.set_exports(self.now, exports);
    }
}

fn address(n: usize) -> std::net::IpAddr {
    [10, 0, 1, u8::try_from(n).unwrap()].into()
}

/// Sessions come up and are told a set: how long until the last octet is there, and what each was sent.
pub(crate) fn whole(list: &[Route], peers: usize) -> (Duration, Vec<Sent>) {
    let mut running = Running::new(peers);
    running.set(&list.iter().cloned().collect());
    let start = Instant::now();
    let sent = running.establish();
    (start.elapsed(), sent)
}

fn way(name: &'static str, list: &[Route], mut next: impl FnMut(&Routes, Route) -> Routes + 'static) -> Way {
    let mut running = Running::new(1);
    let mut set: Routes = list.iter().cloned().collect();
    running.set(&set);
    running.establish();
    let count = u32::try_from(list.len()).unwrap();
    let change = move |n: u32| {
        set = next(&set, Route { prefix: prefix(n.wrapping_mul(7919) % count).into(), attributes: attributes(n) });
        running.set(&set);
        running.take(running.connections[0]).octets
    };
    Way { name, change: Box::new(change) }
}

/// The set is changed in one place.
pub(crate) fn in_place(list: &[Route]) -> Way {
    way("ironcast, in place", list, |set, route| {
        let mut next = set.clone();
        next.insert(route);
        next
    })
}

/// The set is made anew of a list, as a planner does.
pub(crate) fn anew(list: &[Route]) -> Way {
    let mut all = list.to_vec();
    way("ironcast, made anew", list, move |set, changed| {
        let at = all.binary_search_by_key(&changed.prefix, |route| route.prefix).unwrap();
        all[at] = changed;
        Routes::after(set, all.iter().map(|route| (route.prefix, &route.attributes)))
    })
}

/// Heap octets for each route of a set, and those that a changed copy needs beside it.
pub(crate) fn memory(list: &[Route]) -> (f64, usize) {
    let before = ALLOCATOR.octets();
    let set: Routes = list.iter().cloned().collect();
    let with_set = ALLOCATOR.octets();
    let mut next = set.clone();
    next.insert(list[list.len() / 2].clone());
    ((with_set - before) as f64 / list.len() as f64, ALLOCATOR.octets() - with_set)
}
