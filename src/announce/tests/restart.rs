//! What a router hears of a node that was here before.

use std::time::Duration;

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    speaker::PeerAs,
    wire::{
        Families,
        capability::Capabilities,
        message::{self, Kind},
        open::Open,
        update,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::*;
use crate::announce::SERVED_WITHIN;

const ROUTER: u32 = 64501;

/// A restarted node and the router that it dials.
struct Restarted {
    listener: TcpListener,
    ready: watch::Sender<Ready>,
    task: JoinHandle<Result<(), AnnounceError>>,
    _held: (watch::Sender<Option<Arc<Desired>>>, oneshot::Sender<ironcast_bgp::speaker::Shutdown>),
}

impl Restarted {
    /// Nothing is served yet.
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let at = listener.local_addr().expect("bound");
        let mut desired = desired();
        let tor = Peer { address: Some(at.ip()), port: at.port(), ..peer("tor") };
        assert_eq!(tor.peer_as, PeerAs::Exactly(Asn::new(ROUTER).expect("valid")));
        desired.peers = [("tor".to_owned(), tor)].into();
        let (for_desired, desired) = watch::channel(Some(Arc::new(desired)));
        let (for_ready, ready) = watch::channel(ready(&[]));
        let (end, shutdown) = oneshot::channel();
        let config = Config { node: "n1".into(), restarted: true, ..Config::default() };
        let task = tokio::spawn(run(config, inputs(desired, ready, shutdown), watch::channel(Arc::default()).0));
        Self { listener, ready: for_ready, task, _held: (for_desired, end) }
    }

    /// Whether the node dials within that time.
    async fn dials_within(&self, time: Duration) -> Option<TcpStream> {
        let dialled = timeout(time, self.listener.accept()).await.ok()?;
        Some(dialled.expect("accepts").0)
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the session as a router does, and hears what is announced before the first End-of-RIB.
async fn before_end_of_rib(mut stream: TcpStream) -> Vec<String> {
    let asn = Asn::new(ROUTER).expect("valid");
    let families = Families::from_iter([Family::Ipv4Unicast]);
    let capabilities =
        Capabilities { multiprotocol: Some(families), four_octet_as: Some(asn.value()), ..Capabilities::default() };
    let id = RouterId::new([10, 0, 0, 99].into()).expect("valid");
    let mut out = Vec::new();
    Open { asn, hold_time: HoldTime::DEFAULT, id, capabilities }.encode(&mut out);
    message::encode_keepalive(&mut out);
    stream.write_all(&out).await.expect("writes");
    let context = update::Context { four_octet: true, families, ..update::Context::default() };
    let (mut buffer, mut heard) = (Vec::new(), Vec::new());
    loop {
        while let Some(frame) = message::frame(&buffer, false).expect("valid") {
            let length = frame.octets.len();
            if frame.kind == Kind::Update {
                let update = update::decode(frame.octets, &context).expect("valid");
                heard.extend(update.announced_prefixes().map(|prefix| prefix.to_string()));
                if update.end_of_rib().is_some() {
                    return heard;
                }
            }
            buffer.drain(..length);
        }
        assert_ne!(stream.read_buf(&mut buffer).await.expect("reads"), 0, "closed before the End-of-RIB");
    }
}

/// A router that helps with a restart drops at End-of-RIB what did not come before (RFC 4724 §4.2).
#[tokio::test(start_paused = true)]
async fn restarted_node_says_no_end_of_rib_before_its_addresses_are_served() {
    let node = Restarted::new().await;
    assert!(node.dials_within(SERVED_WITHIN / 2).await.is_none(), "nothing is served yet");
    node.ready.send_replace(ready(&["192.0.2.1"]));
    assert!(node.dials_within(SERVED_WITHIN / 4).await.is_none(), "one address is missing");
    node.ready.send_replace(ready(&["192.0.2.1", "192.0.2.2"]));
    // What follows goes over a real socket, which the clock must not overtake.
    tokio::time::resume();
    let (stream, _) = node.listener.accept().await.expect("accepts");
    let heard = before_end_of_rib(stream).await;
    assert_eq!(heard, ["192.0.2.0/30", "192.0.2.1/32", "192.0.2.2/32"]);
}

#[tokio::test(start_paused = true)]
async fn restarted_node_does_not_wait_for_ever_for_what_is_not_served() {
    let node = Restarted::new().await;
    let start = Instant::now();
    node.ready.send_replace(ready(&["192.0.2.1"]));
    assert!(node.dials_within(2 * SERVED_WITHIN).await.is_some());
    assert!(start.elapsed() >= SERVED_WITHIN);
}
