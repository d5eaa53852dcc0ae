//! A peer that says anything at all: nothing panics, nothing grows without bound, and what is handed on adds up.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    speaker::{AddPath, MaximumPrefixes},
    wire::{
        message::{Kind, Refresh},
        update,
    },
};

const LIMIT: u32 = 5;

/// One thing that a peer does.
#[derive(Debug, Clone)]
enum Say {
    /// Prefixes of path 0 or 1, announced or withdrawn.
    Update {
        announce: bool,
        last: Vec<u8>,
        path: u8,
    },
    EndOfRib(bool),
    Mark(bool),
    Request,
    Keepalive,
    /// A message of any type and body.
    Message(u8, Vec<u8>),
    /// No message at all.
    Octets(Vec<u8>),
    Close,
    Wait(u16),
}

impl Say {
    fn any() -> impl Strategy<Value = Say> {
        let update = (any::<bool>(), prop::collection::vec(0u8..9, 1..4), 0u8..2);
        prop_oneof![
            8 => update.prop_map(|(announce, last, path)| Self::Update { announce, last, path }),
            2 => any::<bool>().prop_map(Self::EndOfRib),
            2 => any::<bool>().prop_map(Self::Mark),
            1 => Just(Self::Request),
            1 => Just(Self::Keepalive),
            1 => (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(k, b)| Self::Message(k, b)),
            1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Self::Octets),
            1 => Just(Self::Close),
            1 => (0u16..200).prop_map(Self::Wait),
        ]
    }

    fn octets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let family = Family::Ipv4Unicast;
        match self {
            Self::Update { announce, last, path } => {
                let start = message::start(&mut out, Kind::Update);
                let prefixes: Vec<u8> = last.iter().flat_map(|last| [0, 0, 0, *path, 32, 192, 0, 2, *last]).collect();
                let list = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFC, 0x59, 0x40, 3, 4, 10, 0, 0, 1];
                let length = u8::try_from(prefixes.len()).expect("few");
                match announce {
                    true => out.extend([0, 0, 0, 20].into_iter().chain(list).chain(prefixes)),
                    false => out.extend([0, length].into_iter().chain(prefixes).chain([0, 0])),
                }
                message::finish(&mut out, start);
            }
            Self::EndOfRib(first) => update::encode_end_of_rib(Families::EVERY[usize::from(*first)], &mut out),
            Self::Mark(true) => message::encode_refresh(Refresh::Begin(family), &mut out),
            Self::Mark(false) => message::encode_refresh(Refresh::End(family), &mut out),
            Self::Request => message::encode_refresh(Refresh::Request(family), &mut out),
            Self::Keepalive => message::encode_keepalive(&mut out),
            Self::Message(kind, body) => {
                let start = message::start(&mut out, Kind::Keepalive);
                out[18] = *kind;
                out.extend(body);
                message::finish(&mut out, start);
            }
            Self::Octets(octets) => out.extend(octets),
            Self::Close | Self::Wait(_) => {}
        }
        out
    }
}

/// The routes that a reader of what is handed on has.
#[derive(Debug, Default)]
struct Reader(BTreeSet<(ipnet::IpNet, u32)>);

impl Reader {
    fn read(&mut self, received: Vec<Received>) {
        for received in received {
            match received {
                Received::Announce { route, path, .. } => _ = self.0.insert((route.prefix, path)),
                Received::Withdraw { prefix, path, .. } => _ = self.0.remove(&(prefix, path)),
                Received::Down { graceful: None, .. } => self.0.clear(),
                Received::Down { .. } | Received::EndOfRib { .. } => {}
            }
        }
    }
}

fn pair(warning_only: bool) -> Pair {
    Pair::between([false, true], |n, peer| {
        peer.passive = n == 1;
        peer.families = Families::EVERY.into();
        peer.add_path = AddPath { send: n == 0, receive: n == 1 };
        peer.graceful_restart = Some(30 * SECOND);
        peer.long_lived = Some(60 * SECOND);
        peer.maximum_prefixes = Some(MaximumPrefixes { limit: LIMIT, warning_only });
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_peer_says_its_routes_add_up(
        said in prop::collection::vec(Say::any(), 0..40),
        warning_only in any::<bool>(),
    ) {
        let (mut pair, mut reader) = (pair(warning_only), Reader::default());
        pair.pass(Duration::ZERO);
        for say in said {
            let now = pair.now;
            let connection = pair.ends[1].wires.keys().next().copied();
            match (&say, connection) {
                (Say::Wait(seconds), _) => pair.pass(u32::from(*seconds) * SECOND),
                (Say::Close, Some(id)) => pair.ends[1].speaker.closed(now, id, "reset"),
                (_, Some(id)) => _ = pair.ends[1].speaker.receive(now, id, &say.octets()),
                (_, None) => pair.pass(SECOND),
            }
            pair.outputs(1);
            reader.read(std::mem::take(&mut pair.ends[1].received));
            let known = pair.ends[1].speaker.peers_for_test().adj_in.paths();
            prop_assert_eq!(&known, &reader.0, "after {:?}", say);
            prop_assert!(warning_only || known.len() <= LIMIT as usize);
        }
    }
}
