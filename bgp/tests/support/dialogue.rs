//! A router that talks to one speaker without I/O: what it says, and what comes of that.
#![allow(unreachable_pub, missing_docs, dead_code)] // each user takes its part

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::rfc7606;
use ironcast_bgp::{
    Asn, Family, RouterId,
    speaker::{
        AddPath, ConnectionId, Counters, Endpoint, Output, PeerAs, PeerConfig, PeerId, Received, Speaker,
        SpeakerConfig, State,
    },
    wire::{
        message::{self, Frame, Kind, frame},
        notification::Notification,
    },
};

pub const OUR_AS: u32 = 64500;
pub const THEIR_AS: u32 = 64601;

/// How the router's end is.
#[derive(Debug, Clone, Copy)]
pub struct Router {
    pub asn: u32,
    /// Capabilities of its OPEN, each a code, a length and a value.
    pub capabilities: &'static [u8],
}

/// External, both families, four octets, route refresh, 4096 octets a message.
pub const PLAIN: Router =
    Router { asn: THEIR_AS, capabilities: &[1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0, 0, 0xFC, 0x59] };
/// The same with extended messages.
pub const EXTENDED: Router =
    Router { asn: THEIR_AS, capabilities: &[1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 6, 0, 65, 4, 0, 0, 0xFC, 0x59] };
/// External, IPv4 alone, AS numbers of two octets.
pub const OLD: Router = Router { asn: THEIR_AS, capabilities: &[] };
/// Internal, both families.
pub const INTERNAL: Router =
    Router { asn: OUR_AS, capabilities: &[1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0, 0, 0xFB, 0xF4] };

/// External, both families, with IPv6 next hops for IPv4 (RFC 8950) and path identifiers both ways (RFC 7911).
pub const WIDE: Router = Router {
    asn: THEIR_AS,
    capabilities: &[
        1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 5, 6, 0, 1, 0, 1, 0, 2, 65, 4, 0, 0, 0xFC, 0x59, 69, 8, 0, 1, 1, 3,
        0, 2, 1, 3,
    ],
};

impl Router {
    /// The session that comes of it, for the second statement of the rules.
    pub fn session(&self) -> rfc7606::Session {
        let new = !self.capabilities.is_empty();
        let wide = self.capabilities == WIDE.capabilities;
        rfc7606::Session {
            four_octet: new,
            internal: self.asn == OUR_AS,
            ipv4: true,
            ipv6: new,
            extended_next_hop: wide,
            add_path4: wide,
            add_path6: wide,
            own: [10, 0, 1, 1].into(),
        }
    }
}

/// What a message did to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in this state.
    In(State),
    /// It ended with this NOTIFICATION.
    Notified { code: u8, subcode: u8, data: Vec<u8> },
    /// It ended without a word.
    Silent,
}

pub fn notified(code: u8, subcode: u8, data: &[u8]) -> Outcome {
    Outcome::Notified { code, subcode, data: data.to_vec() }
}

pub const STAYS: Outcome = Outcome::In(State::Established);

/// One connection between the router and a speaker.
pub struct Dialogue {
    pub speaker: Speaker,
    pub id: ConnectionId,
    pub now: Instant,
    /// Routes that the speaker was sent and handed on, in order.
    pub received: Vec<Received>,
    over: Option<Outcome>,
    /// What has arrived and is no whole message yet.
    unread: Vec<u8>,
}

impl Dialogue {
    /// A connection on which our OPEN was sent.
    pub fn connected(router: &Router) -> Self {
        let now = Instant::now();
        let router_id = RouterId::new([10, 0, 1, 1].into()).expect("valid");
        let config = SpeakerConfig { router_id, listen: vec![], restarted: false, dynamic: vec![] };
        let mut speaker = Speaker::new(&config, true, 1);
        let remote: SocketAddr = ([10, 0, 1, 2], 179).into();
        let asn = |number| Asn::new(number).expect("valid");
        let mut peer = PeerConfig::new(remote.ip(), asn(OUR_AS), PeerAs::Exactly(asn(router.asn)));
        peer.families = [Family::Ipv4Unicast, Family::Ipv6Unicast].into();
        peer.extended_next_hop = true;
        peer.add_path = AddPath { send: true, receive: true };
        speaker.set_peers(now, BTreeMap::from([(PeerId("router".into()), peer)]));
        let Some(Output::Connect { id, .. }) = speaker.poll() else { panic!("dials") };
        speaker.connected(now, id, Endpoint::new(([10, 0, 1, 1], 50_000).into(), remote));
        let mut dialogue = Self { speaker, id, now, received: vec![], over: None, unread: vec![] };
        assert_eq!(dialogue.sent().first(), Some(&Kind::Open));
        dialogue
    }

    /// A session that is up.
    pub fn established(router: &Router) -> Self {
        let mut dialogue = Self::connected(router);
        assert_eq!(dialogue.say(&open(router)), Outcome::In(State::OpenConfirm));
        assert_eq!(dialogue.say(&keepalive()), STAYS);
        dialogue
    }

    /// Octets arrive, in pieces of any size.
    pub fn say(&mut self, octets: &[u8]) -> Outcome {
        self.unread.extend_from_slice(octets);
        let taken = self.speaker.receive(self.now, self.id, &self.unread);
        self.unread.drain(..taken);
        self.settle();
        self.outcome()
    }

    /// Octets that arrived and are no whole message yet.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Time passes.
    pub fn wait(&mut self, time: Duration) -> Outcome {
        self.now += time;
        self.speaker.handle_timeout(self.now);
        self.settle();
        self.outcome()
    }

    /// The kinds of the messages that the speaker sends.
    pub fn sent(&mut self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        while let Some(octets) = self.speaker.transmit(self.now, self.id) {
            let mut rest = &octets[..];
            while let Ok(Some(Frame { kind, octets })) = frame(rest, true) {
                kinds.push(kind);
                rest = &rest[octets.len()..];
            }
            assert!(rest.is_empty(), "whole messages are sent");
        }
        kinds
    }

    pub fn counters(&self) -> Counters {
        self.speaker.status().values().next().expect("one peer").counters
    }

    fn settle(&mut self) {
        let _ = self.sent();
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Close { id, farewell } if id == self.id => {
                    self.over = Some(farewell.map_or(Outcome::Silent, |octets| last_message(&octets)));
                }
                Output::Received(received) => self.received.push(received),
                Output::Close { .. } | Output::Connect { .. } | Output::Ttl { .. } => {}
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.over {
            Some(over) => over.clone(),
            None => Outcome::In(self.speaker.status().values().next().expect("one peer").state),
        }
    }
}

/// The last words are exactly one NOTIFICATION.
fn last_message(octets: &[u8]) -> Outcome {
    let found = frame(octets, false).expect("our own").expect("complete");
    assert_eq!((found.kind, found.octets.len()), (Kind::Notification, octets.len()));
    let Notification { code, subcode, data } = Notification::decode(found.body());
    Outcome::Notified { code, subcode, data }
}

/// A message of any type around a body, its length honest.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    out.extend_from_slice(&u16::try_from(19 + body.len()).expect("short").to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

/// The router's OPEN.
pub fn open(router: &Router) -> Vec<u8> {
    let length = u8::try_from(router.capabilities.len()).expect("short");
    let parameters = if length == 0 { vec![] } else { [&[2, length], router.capabilities].concat() };
    open_with(router.asn, &[&[parameters.len() as u8], &parameters[..]].concat())
}

/// An OPEN with anything for its optional parameters, their length included.
pub fn open_with(asn: u32, parameters: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(asn).expect("two octets").to_be_bytes();
    message(1, &[&[4, high, low, 0, 90, 10, 0, 1, 2], parameters].concat())
}

pub fn keepalive() -> Vec<u8> {
    let mut out = Vec::new();
    message::encode_keepalive(&mut out);
    out
}
