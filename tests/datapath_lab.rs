//! Real TCP and UDP over two nodes in network namespaces. Needs root.
#![cfg(feature = "xdp")]

mod datapath_support;

use std::{net::SocketAddr, time::Duration};

use datapath_support::{
    ip,
    lab::{Bpffs, Lab, VIPS},
};
use ironcast::datapath::kernel::{Datapath, Hook, Options, Side, Step};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{mpsc, oneshot},
    time::timeout,
};

const CONNECTIONS: usize = 200;
const LONG: Duration = Duration::from_secs(5);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A pod: answers each line with its name and the line, over TCP and UDP, both families.
fn serve(lab: &Lab, pod: &'static str) {
    let (ready, wait) = std::sync::mpsc::channel();
    drop(lab.at(pod, move || {
        runtime().block_on(async move {
            let tcp = TcpListener::bind("[::]:8080").await.expect("bound");
            let udp = UdpSocket::bind("[::]:8080").await.expect("bound");
            ready.send(()).expect("somebody waits");
            tokio::spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok((n, from)) = udp.recv_from(&mut buffer).await {
                    let answer = [pod.as_bytes(), &buffer[..n]].concat();
                    let _ = udp.send_to(&answer, from).await;
                }
            });
            while let Ok((mut stream, _)) = tcp.accept().await {
                tokio::spawn(async move {
                    let mut line = [0; 64];
                    while stream.read_exact(&mut line).await.is_ok() {
                        let mut answer = line;
                        answer[..2].copy_from_slice(pod.as_bytes());
                        if stream.write_all(&answer).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }));
    wait.recv_timeout(LONG).expect("the pod serves");
}

/// What the client is told to do; each answers with what it saw.
enum Order {
    /// Opens connections to both VIPs.
    Open(usize, oneshot::Sender<Vec<&'static str>>),
    /// Says something on every open connection: how many are broken.
    Speak(oneshot::Sender<Vec<String>>),
    /// A datagram to each VIP from new ports.
    Datagrams(usize, oneshot::Sender<usize>),
    /// Sends so many bytes on one connection per family and gets the echo.
    Upload(usize, oneshot::Sender<bool>),
}

async fn say(stream: &mut TcpStream, n: u64) -> Result<&'static str, String> {
    let mut line = [0_u8; 64];
    line[8..16].copy_from_slice(&n.to_be_bytes());
    let exchange = async {
        stream.write_all(&line).await?;
        let mut answer = [0; 64];
        stream.read_exact(&mut answer).await.map(|_| answer)
    };
    match timeout(LONG, exchange).await {
        Ok(Ok(answer)) if answer[8..16] == line[8..16] => Ok(if answer[..2] == *b"pa" { "pa" } else { "pb" }),
        Ok(Ok(_)) => Err("other bytes came back".into()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("stalled".into()),
    }
}

/// Opens to the two VIPs in turn.
async fn open(count: usize) -> Vec<(TcpStream, &'static str)> {
    let mut streams = Vec::new();
    for n in 0..count {
        let to = SocketAddr::new(ip(VIPS[n % 2]), 80);
        let mut stream = timeout(LONG, TcpStream::connect(to)).await.expect("not stalled").expect("connected");
        let pod = say(&mut stream, 0).await.expect("answered");
        streams.push((stream, pod));
    }
    streams
}

/// On all of them at once: a broken one may take its time.
async fn speak(streams: &mut [(TcpStream, &'static str)], round: u64) -> Vec<String> {
    let said = streams.iter_mut().enumerate().map(async |(n, (stream, pod))| match say(stream, round).await {
        Ok(answered) if answered == *pod => None,
        Ok(answered) => Some(format!("{n}: {pod} became {answered}")),
        Err(e) => Some(format!("{n} ({pod}): {e}")),
    });
    futures::future::join_all(said).await.into_iter().flatten().collect()
}

async fn datagrams(count: usize) -> usize {
    let mut answered = 0;
    for n in 0..count {
        let to = SocketAddr::new(ip(VIPS[n % 2]), 80);
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await.expect("bound");
        socket.connect(to).await.expect("a route");
        socket.send(b"hello").await.expect("sent");
        let mut buffer = [0; 64];
        // Connected: only what comes from the VIP and its port is taken.
        answered += usize::from(timeout(LONG, socket.recv(&mut buffer)).await.is_ok_and(|r| r.is_ok_and(|n| n == 7)));
    }
    answered
}

async fn upload(bytes: usize) -> bool {
    let mut whole = true;
    for (mut stream, _) in open(8).await {
        let (mut read, mut write) = stream.split();
        let send = async { write.write_all(&vec![0; bytes]).await.is_ok() };
        let mut back = vec![0; bytes];
        let receive = async { read.read_exact(&mut back).await.is_ok() };
        let both = async { tokio::join!(send, receive) };
        whole &= timeout(2 * LONG, both).await.is_ok_and(|(a, b)| a && b);
    }
    whole
}

/// The client, on a thread of its own namespace.
struct Client(mpsc::UnboundedSender<Order>);

impl Client {
    fn new(lab: &Lab) -> Self {
        let (orders, mut queue) = mpsc::unbounded_channel();
        drop(lab.at("client", move || {
            runtime().block_on(async move {
                let (mut streams, mut round) = (Vec::new(), 0);
                while let Some(order) = queue.recv().await {
                    round += 1;
                    match order {
                        Order::Open(count, done) => {
                            let new = open(count).await;
                            let _ = done.send(new.iter().map(|s| s.1).collect());
                            streams.extend(new);
                        }
                        Order::Speak(done) => drop(done.send(speak(&mut streams, round).await)),
                        Order::Datagrams(count, done) => drop(done.send(datagrams(count).await)),
                        Order::Upload(bytes, done) => drop(done.send(upload(bytes).await)),
                    }
                }
            });
        }));
        Self(orders)
    }

    fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
        let (done, wait) = oneshot::channel();
        assert!(self.0.send(order(done)).is_ok(), "the client lives");
        wait.blocking_recv().expect("the client answers")
    }

    fn all_intact(&self, when: &str) {
        let broken = self.ask(Order::Speak);
        assert!(broken.is_empty(), "{when}: {} of {CONNECTIONS} broken: {broken:?}", broken.len());
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: network namespaces need root");
    }
    root
}

fn update(lab: &Lab, nodes: &mut [(&str, Datapath)], generation: u32, history: &[[bool; 2]]) {
    for (node, datapath) in nodes {
        datapath.apply(&lab.spec(node, generation, history)).expect("the tables fit");
    }
}

/// The whole story, for a step of the ladder: 200 connections live through rehashes, draining and scaling.
fn connections_survive(lab: &Lab, step: Step) {
    for pod in ["pa", "pb"] {
        serve(lab, pod);
    }
    lab.route_vips(1);
    let both = [[true, true]];
    let start = |node| (node, lab.start(node, lab.spec(node, 1, &both), step, None));
    let mut nodes = [start("a"), start("b")];
    let client = Client::new(lab);
    let pods = client.ask(|done| Order::Open(CONNECTIONS, done));
    let at_a = pods.iter().filter(|p| **p == "pa").count();
    assert!((CONNECTIONS / 4..CONNECTIONS * 3 / 4).contains(&at_a), "{at_a} of {CONNECTIONS} at pod a");
    assert_eq!(client.ask(|done| Order::Datagrams(40, done)), 40);

    lab.route_vips(2);
    client.all_intact("the router chose the other node");

    update(lab, &mut nodes, 2, &[[false, true], [true, true]]);
    client.all_intact("pod a drains");
    let new = client.ask(|done| Order::Open(20, done));
    assert!(new.iter().all(|p| *p == "pb"), "a draining pod gets nothing new");
    lab.route_vips(1);
    client.all_intact("pod a drains, and the router changed its mind");

    update(lab, &mut nodes, 3, &[[true, true], [false, true], [true, true]]);
    client.all_intact("pod a is back");
    update(lab, &mut nodes, 4, &[[true, false], [true, true], [false, true], [true, true]]);
    client.all_intact("pod b drains");
    lab.route_vips(2);
    client.all_intact("and the router changed its mind again");
    assert_eq!(client.ask(|done| Order::Datagrams(40, done)), 40);
}

#[test]
fn two_hundred_connections_survive_rehashes_and_drains_in_generic_mode() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("g");
    connections_survive(&lab, Step::Generic);
}

#[test]
fn two_hundred_connections_survive_rehashes_and_drains_behind_xdp() {
    if !is_root() {
        return;
    }
    // Nobody helps the veths here: segments come in bundles, and their checksums are left to the card.
    let lab = Lab::new("t");
    connections_survive(&lab, Step::Tcx);
}

#[test]
fn uploads_in_bundles_go_through_to_another_node_behind_xdp() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("u");
    serve(&lab, "pa");
    serve(&lab, "pb");
    lab.route_vips(1);
    let _a = lab.start("a", lab.spec("a", 1, &[[false, true]]), Step::Tcx, None);
    let _b = lab.start("b", lab.spec("b", 1, &[[false, true]]), Step::Tcx, None);
    let client = Client::new(&lab);
    assert!(client.ask(|done| Order::Upload(1 << 20, done)));
}

#[test]
fn packets_to_nobody_in_an_aggregate_do_not_go_round() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("l");
    lab.ip("router", "route add 10.98.0.0/24 via 10.77.1.2");
    lab.ip("router", "route add fd98::/64 via fd77:1::2");
    let packets = || {
        let out = std::process::Command::new("ip")
            .args(["-n", &lab.ns("router"), "-s", "-j", "link", "show", "ra"])
            .output()
            .expect("ip runs");
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        json[0]["stats64"]["tx"]["packets"].as_u64().expect("a number")
    };
    let send = || {
        let before = packets();
        lab.at("client", || {
            for to in ["10.98.0.7:9", "[fd98::7]:9"] {
                let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = std::net::UdpSocket::bind(any).expect("bound");
                socket.send_to(b"lost", to).expect("sent");
            }
        })
        .join()
        .expect("it ends");
        std::thread::sleep(Duration::from_millis(200));
        packets() - before
    };
    let told = |prefixes: Vec<&'static str>| {
        let told = lab.at("a", move || {
            runtime().block_on(async move {
                let (connection, handle, _) = rtnetlink::new_connection().expect("a socket");
                let connection = tokio::spawn(connection);
                let wanted = prefixes.iter().map(|p| (p.parse().expect("a prefix"), "up0".to_string())).collect();
                ironcast::datapath::aggregates::keep(&handle, &wanted).await.expect("the kernel takes rules");
                connection.abort();
            });
        });
        told.join().expect("it ends");
    };
    let round = send();
    assert!(round > 20, "the control: they go round between router and node: {round}");
    told(vec!["10.98.0.0/24", "fd98::/64"]);
    let once = send();
    assert!(once < 8, "each comes once; the rest is for neighbours: {once}");
    told(vec!["10.98.0.0/24", "fd98::/64"]);
    told(vec![]);
    assert!(send() > 20, "and the rules are gone again");
}

#[test]
fn an_uplink_whose_xdp_hook_is_taken_is_told_so_and_served_behind_it() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("o");
    let spec = lab.spec("a", 1, &[[true, true]]);
    let _other = lab.start("a", spec.clone(), Step::Native, None);
    let steps = lab
        .at("a", move || {
            let load = |hook| {
                let options = Options {
                    hook,
                    slots: 1 << 10,
                    backends: 8,
                    flows: 128,
                    syns: 128,
                    services: 4,
                    ..Options::default()
                };
                let mut datapath = Datapath::load(options).expect("the programs load");
                (datapath.attach("up0", Step::Native), datapath.attach("none", Step::Native))
            };
            [load(Hook::Xdp), load(Hook::Tcx)]
        })
        .join()
        .expect("it ends");
    let [(taken, _), (behind, missing)] = steps;
    assert_eq!(taken.step, Step::AnnounceOnly);
    let failed: Vec<Step> = taken.failed.iter().map(|(step, _)| *step).collect();
    assert_eq!(failed, [Step::Native, Step::Generic]);
    assert!(taken.failed.iter().all(|(_, why)| why.contains("up0") && why.len() > 30), "{taken:?}");
    assert_eq!((behind.step, behind.failed), (Step::Tcx, vec![]));
    assert_eq!(missing.step, Step::AnnounceOnly, "there is no such interface: {missing:?}");
}

#[test]
fn two_hundred_connections_survive_rehashes_and_drains_in_native_mode() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("n");
    // Checksums left to the card are lost where XDP sends a frame back on veth; real cards receive whole ones.
    lab.inside("client", "ethtool -K up0 tx off");
    let _router = lab.receive_frames_of_xdp();
    connections_survive(&lab, Step::Native);
}

/// Nodes that forward nothing of their own.
fn forbid_forwarding(lab: &Lab) {
    for node in ["a", "b"] {
        lab.inside(node, "nft add table inet wall");
        lab.inside(node, "nft add chain inet wall forward { type filter hook forward priority 0 ; policy drop ; }");
    }
}

#[test]
fn bypass_takes_packets_past_the_stack_both_ways() {
    if !is_root() {
        return;
    }
    let mut lab = Lab::new("b");
    lab.bypass = true;
    lab.inside("client", "ethtool -K up0 tx off");
    let _router = lab.receive_frames_of_xdp();
    forbid_forwarding(&lab);
    connections_survive(&lab, Step::Native);
}

#[test]
fn stack_delivery_obeys_what_bypass_goes_past() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("w");
    serve(&lab, "pa");
    lab.route_vips(1);
    forbid_forwarding(&lab);
    let _a = lab.start("a", lab.spec("a", 1, &[[true, false]]), Step::Generic, None);
    assert_eq!(Client::new(&lab).ask(|done| Order::Datagrams(1, done)), 0);
}

#[test]
fn uploads_fit_although_the_way_between_nodes_takes_no_more_than_the_others() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("m");
    lab.inside("client", "ethtool -K up0 tx off");
    let _router = lab.receive_frames_of_xdp();
    serve(&lab, "pa");
    serve(&lab, "pb");
    lab.route_vips(1);
    let _a = lab.start("a", lab.spec("a", 1, &[[true, true]]), Step::Native, None);
    let _b = lab.start("b", lab.spec("b", 1, &[[true, true]]), Step::Native, None);
    let client = Client::new(&lab);
    assert!(client.ask(|done| Order::Upload(1 << 20, done)));
}

#[test]
fn without_history_a_moved_slot_breaks_its_connections() {
    if !is_root() {
        return;
    }
    // The control: what the tests above would show if it were not for the former owners.
    let lab = Lab::new("c");
    serve(&lab, "pa");
    serve(&lab, "pb");
    lab.route_vips(1);
    let start = |node| (node, lab.start(node, lab.spec(node, 1, &[[true, true]]), Step::Generic, None));
    let mut nodes = [start("a"), start("b")];
    let client = Client::new(&lab);
    let pods = client.ask(|done| Order::Open(30, done));
    update(&lab, &mut nodes, 2, &[[false, true]]);
    let broken = client.ask(Order::Speak);
    assert_eq!(broken.len(), pods.iter().filter(|p| **p == "pa").count(), "{broken:?}");
    assert!(!broken.is_empty(), "thirty connections, and none to pod a");
}

#[test]
fn a_restart_swaps_the_programs_and_carries_the_flows_over() {
    if !is_root() {
        return;
    }
    let lab = Lab::new("r");
    let bpffs = Bpffs::new();
    let pins = bpffs.path().join("ironcast");
    serve(&lab, "pa");
    serve(&lab, "pb");
    lab.route_vips(1);
    let both = [[true, true]];
    let start = |node, pins| lab.start(node, lab.spec(node, 1, &both), Step::Generic, pins);
    let first = start("a", Some(pins.clone()));
    let _b = start("b", None);
    let client = Client::new(&lab);
    client.ask(|done| Order::Open(40, done));
    let known = first.flows(Side::Vip).expect("readable").len();
    drop(first);
    client.all_intact("nobody holds the programs");
    let new = client.ask(|done| Order::Open(10, done));
    assert_eq!(new.len(), 10, "and new connections are served");
    let second = start("a", Some(pins.clone()));
    assert!(second.flows(Side::Vip).expect("readable").len() >= known, "the flows were carried over");
    client.all_intact("a new daemon took over");
    drop(second);
    ironcast::datapath::kernel::remove(&pins).expect("removed");
    assert!(!pins.exists());
}

/// An upgrade from a release, or a downgrade to one, whose maps look different or are missing.
#[test]
fn pinned_map_of_another_layout_is_begun_anew_and_the_others_are_carried_over() {
    if !is_root() {
        return;
    }
    let bpffs = Bpffs::new();
    let pins = bpffs.path().join("ironcast");
    let load = || {
        let options = Options { pins: Some(pins.clone()), slots: 1 << 16, backends: 1 << 10, ..Options::default() };
        Datapath::load(options).expect("the programs load")
    };
    let id = |name: &str| aya::maps::MapInfo::from_pin(pins.join(name)).expect("pinned").id();
    drop(load());
    let (flows, replies, handshakes) = (id("flows"), id("replies"), id("handshakes"));
    // What stands there is of another kind, of a later layout, or gone.
    std::fs::rename(pins.join("handshakes"), pins.join("flows")).expect("in a bpffs");
    std::fs::rename(pins.join("counters"), pins.join("counters-7")).expect("in a bpffs");
    drop(load());
    assert!(![flows, replies, handshakes].contains(&id("flows")), "a map of its own");
    assert_eq!(id("replies"), replies, "carried over");
    assert!(!pins.join("counters-7").exists() && pins.join("counters").exists());
    ironcast::datapath::kernel::remove(&pins).expect("removed");
}
