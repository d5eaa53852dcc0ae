//! Strangers who see nothing of a session and send in its name: resets, also with the right number, and floods of SYNs at
//! the listening port. Everything happens in a network namespace of its own. Needs root.
#![cfg(feature = "tokio")]

mod support;

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ironcast_bgp::speaker::{Md5Key, PeerAs, PeerConfig, State, Ttl};
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    Ours, config, peer,
    space::{Space, skipped},
    start,
};

const ROUTER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PORT: u16 = 179;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Runs it in a network namespace of its own.
fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if skipped(&[]) {
        return;
    }
    let space = Space::new();
    // Answers to forged sources go somewhere, and nobody hears them.
    space.ip("link add nowhere type veth peer name end");
    ["nowhere", "end"].into_iter().for_each(|name| space.ip(&format!("link set {name} up")));
    space.ip("addr add 10.9.0.1/24 dev nowhere");
    space.ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev nowhere nud permanent");
    space.ip("route add 198.18.0.0/15 via 10.9.0.2");
    space.enter(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test());
    });
}

/// A router that listens, and a node with a session to it.
async fn session(ttl: Ttl, password: Option<&[u8]>) -> (Ours, Ours) {
    let password = password.map(|key| Md5Key(key.into()));
    let mut listening = config([10, 255, 0, 1]);
    listening.listen.push((ROUTER, PORT).into());
    let (router, node) = (start(listening, None), start(config([10, 0, 0, 1]), None));
    let of = |address: Ipv4Addr| {
        let expected = peer(address.into(), 64500, PeerAs::External);
        PeerConfig { passive: true, ttl, password: password.clone(), ..expected }
    };
    router.peers([("node", of(NODE)), ("other", of(OTHER))]).await;
    dial(&node, NODE, ttl, password.clone()).await;
    router.until("node", |p| p.state == State::Established).await;
    (router, node)
}

async fn dial(node: &Ours, source: Ipv4Addr, ttl: Ttl, password: Option<Md5Key>) {
    let mut towards = peer(ROUTER.into(), 64601, PeerAs::External);
    (towards.port, towards.source, towards.ttl, towards.password) = (PORT, Some(source.into()), ttl, password);
    node.peers([("tor", towards)]).await;
    node.until("tor", |p| p.state == State::Established).await;
}

/// Sees every segment of this namespace.
struct Tap(Socket);

impl Tap {
    fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("root may");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        Self(socket)
    }

    /// The node's port, and the number of the octet that it waits for.
    fn node_waits_for(&self) -> (u16, u32) {
        let (mut buffer, mut last) = ([0; 2048], None);
        while let Ok(length) = (&self.0).read(&mut buffer) {
            let (ip, tcp) = buffer[..length].split_at(20);
            let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
            if ip[12..16] == NODE.octets() && port(2) == PORT && tcp[13] & (ACK | RST) == ACK {
                last = Some((port(0), u32::from_be_bytes(tcp[8..12].try_into().expect("four"))));
            }
        }
        last.expect("the node has said something")
    }
}

/// Sends whole packets.
struct Forger(Socket);

impl Forger {
    fn new() -> Self {
        Self(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).expect("root may"))
    }

    fn send(&self, from: SocketAddrV4, to: SocketAddrV4, flags: u8, sequence: u32, ttl: u8) {
        let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &[0, 6, 0, 20], &tcp].concat();
        let sum: u32 = pseudo.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        tcp[16..18].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, 6, 0, 0];
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        packet.extend(tcp);
        let to: SocketAddr = (*to.ip(), 0).into();
        self.0.send_to(&packet, &to.into()).expect("the kernel takes it");
    }

    /// In the router's name to the node.
    fn reset(&self, (port, sequence): (u16, u32), ttl: u8) {
        self.send(SocketAddrV4::new(ROUTER, PORT), SocketAddrV4::new(NODE, port), RST, sequence, ttl);
    }
}

async fn stands(node: &Ours, what: &str) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = node.status("tor").expect("known");
    assert_eq!((status.state, status.established_count), (State::Established, 1), "{what}: {:?}", status.last_error);
}

async fn falls(node: &Ours, what: &str) {
    let status = node.until("tor", |p| p.state != State::Established || p.established_count > 1).await;
    assert!(status.last_error.is_some(), "{what}");
}

#[test]
fn a_reset_with_the_right_number_ends_a_session_that_nothing_protects() {
    alone(|| async {
        let tap = Tap::open();
        let (_router, node) = session(Ttl::Direct, None).await;
        Forger::new().reset(tap.node_waits_for(), 64);
        falls(&node, "what the others are compared with").await;
    });
}

/// RFC 5082.
#[test]
fn a_reset_from_further_away_ends_no_session_with_ttl_security() {
    alone(|| async {
        let tap = Tap::open();
        let (_router, node) = session(Ttl::Security { hops: 1 }, None).await;
        let (numbers, forger) = (tap.node_waits_for(), Forger::new());
        [1, 64, 253, 254].into_iter().for_each(|ttl| forger.reset(numbers, ttl));
        stands(&node, "a TTL that only crosses routers").await;
        forger.reset(numbers, 255);
        falls(&node, "one from the same link").await;
    });
}

/// RFC 2385: RST too.
#[test]
fn an_unsigned_reset_ends_no_session_with_a_password() {
    alone(|| async {
        let tap = Tap::open();
        let (_router, node) = session(Ttl::Direct, Some(b"secret")).await;
        let (numbers, forger) = (tap.node_waits_for(), Forger::new());
        (0..100).for_each(|_| forger.reset(numbers, 255));
        stands(&node, "a segment without a signature").await;
    });
}

/// RFC 5961: a reset must have the one right number; another, or a SYN, is asked back.
#[test]
fn guessed_resets_and_syns_end_no_session() {
    alone(|| async {
        let tap = Tap::open();
        let (_router, node) = session(Ttl::Direct, None).await;
        let (port, next) = tap.node_waits_for();
        let forger = Forger::new();
        let (from, to) = (SocketAddrV4::new(ROUTER, PORT), SocketAddrV4::new(NODE, port));
        for n in 1..20_000_u32 {
            // All over the numbers, and within the window.
            for guess in [next.wrapping_add(n.wrapping_mul(214_013)), next.wrapping_add(n)] {
                forger.send(from, to, if n % 4 == 0 { SYN } else { RST }, guess, 255);
            }
        }
        stands(&node, "40,000 guesses").await;
    });
}

#[test]
fn a_flood_of_syns_at_the_listening_port_keeps_no_peer_out() {
    alone(|| async {
        let (router, node) = session(Ttl::Direct, None).await;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), sent.clone());
        // The thread is in the namespace of the one that starts it. Bounded, whatever becomes of the test.
        let flood = tokio::task::spawn_blocking(move || {
            let forger = Forger::new();
            for n in 0..2_000_000_u32 {
                if stopped.load(Relaxed) {
                    break;
                }
                let from = SocketAddrV4::new(Ipv4Addr::from(0xc612_0000 | n & 0x1_ffff), 1024 + (n % 60_000) as u16);
                forger.send(from, SocketAddrV4::new(ROUTER, PORT), SYN, n, 64);
                counted.fetch_add(1, Relaxed);
            }
        });
        while sent.load(Relaxed) < 50_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let other = start(config([10, 0, 0, 3]), None);
        dial(&other, OTHER, Ttl::Direct, None).await;
        router.until("other", |p| p.state == State::Established).await;
        stop.store(true, Relaxed);
        flood.await.expect("it ends");
        println!("{} forged SYNs meanwhile", sent.load(Relaxed));
        stands(&node, "the session that was there").await;
        stands(&other, "the one that came meanwhile").await;
    });
}
