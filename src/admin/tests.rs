//! The port as a client sees it, over both its ends.

mod queries;

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use hyper::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{client::ask, *};
use crate::{
    datapath::types::{Reason, ServiceCounters},
    types::{DatapathState, ServiceKey, SessionState, SourceState, UplinkState, WithheldState},
};

#[derive(Default)]
struct Fixed {
    complete: AtomicBool,
    draining: AtomicBool,
}

impl Facts for Fixed {
    fn state(&self) -> NodeState {
        let session = SessionState {
            peer: "tor".into(),
            address: [192, 0, 2, 1].into(),
            state: "Established".into(),
            since_seconds: 5,
            local_asn: 64512,
            remote_asn: Some(64500),
            families: vec![],
            capabilities: vec![],
            hold_time_seconds: Some(90),
            advertised: 3,
            last_error: None,
            established_count: 2,
            unacknowledged: None,
            bfd: Some(crate::types::BfdState { state: "up".into(), failures: 4, ..Default::default() }),
        };
        let withheld = |service: &str| WithheldState {
            service: service.into(),
            peer: None,
            reason: "noEndpoints".into(),
            detail: String::new(),
        };
        let uplink = UplinkState { interface: "eth0".into(), mode: "native".into(), failed: vec![] };
        NodeState {
            node: "n1".into(),
            version: "1.2.3".into(),
            source: SourceState { kind: "manifests".into(), complete: self.complete.load(SeqCst) },
            sessions: vec![session],
            withheld: vec![withheld("a/b"), withheld("a/c")],
            datapath: Some(DatapathState { uplinks: vec![uplink], ..DatapathState::default() }),
            ..NodeState::default()
        }
    }

    fn outline(&self) -> NodeState {
        NodeState { withheld: Vec::new(), ..self.state() }
    }

    fn figures(&self) -> Figures {
        let counters = Counters { updates_sent: 7, ..Counters::default() };
        let pool = PoolUse { pool: "edge".into(), family: Family::Ipv6, assigned: 2, available: 1 << 70 };
        let control = BfdPackets { received: 9, ..BfdPackets::default() };
        let report = Report {
            class: ironcast_bgp::net::bfd::Class::Normal,
            memory_locked: true,
            reliefs: 3,
            wakeups: 100,
            late: 1,
            max_lateness: std::time::Duration::from_micros(1500),
            malformed: 0,
            unmatched: 3,
            wrong_ttl: 0,
            receive_errors: 0,
        };
        let station = StationStatus { connected: true, connections: 3, overflows: 2, last_error: None };
        Figures {
            counters: vec![("tor".into(), counters)],
            stations: vec![("192.0.2.9:11019".parse().expect("valid"), station)],
            bfd: Some(BfdFigures { report, packets: vec![("tor".into(), control)] }),
            pools: vec![pool],
            ready_addresses: 1,
            wanted_addresses: 2,
            services: 1,
            withheld: [("noEndpoints", 2)].into(),
            packets: self.counted(),
        }
    }

    fn counted(&self) -> Arc<Counted> {
        let served = ServiceCounters { delivered: 5, bytes: 600, ..ServiceCounters::default() };
        Arc::new(Counted {
            at: None,
            reasons: [(Reason::Chained, 3)].into(),
            services: [(ServiceKey::new("shop", "web"), served)].into(),
        })
    }

    fn ready(&self) -> Result<(), String> {
        if self.complete.load(SeqCst) { Ok(()) } else { Err("waiting for the first complete list".into()) }
    }

    fn packet_path(&self) -> Option<tokio::sync::mpsc::Sender<crate::datapath::query::Query>> {
        None
    }

    fn speaker(&self) -> tokio::sync::mpsc::Sender<Unacknowledged> {
        let (to, mut questions) = tokio::sync::mpsc::channel::<Unacknowledged>(1);
        tokio::spawn(async move {
            let answer = questions.recv().await.expect("it asks");
            answer.send([(PeerId("tor".into()), 17)].into()).expect("it waits");
        });
        to
    }

    fn drain(&self, on: bool) -> Result<(), String> {
        self.draining.store(on, SeqCst);
        Ok(())
    }
}

async fn open(socket: &Path) -> Port {
    let options = Options { tcp: Some("127.0.0.1:0".parse().expect("valid")), socket: socket.into() };
    Port::open(&options).await.expect("the port opens")
}

async fn over_tcp(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(format!("{request} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}

#[tokio::test]
async fn state_readiness_and_metrics_are_served_and_draining_only_on_the_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("run/admin.sock");
    let port = open(&socket).await;
    let tcp = port.tcp_addr().expect("TCP is open");
    let facts = Arc::new(Fixed::default());
    let metrics = Metrics::default();
    metrics.planned(std::time::Duration::from_micros(50));
    let serving = tokio::spawn(port.serve(facts.clone(), metrics));

    let waiting = ask(&socket, Method::GET, "/ready").await.expect_err("not ready yet");
    assert!(waiting.to_string().contains("503") && waiting.to_string().contains("first complete list"), "{waiting}");
    facts.complete.store(true, SeqCst);
    assert!(over_tcp(tcp, "GET /ready").await.starts_with("HTTP/1.0 200"));
    assert!(over_tcp(tcp, "GET /live").await.starts_with("HTTP/1.0 200"));
    let state = client::state(&socket).await.expect("state");
    assert_eq!((state.node.as_str(), state.sessions[0].unacknowledged), ("n1", Some(17)));
    assert_eq!(state.traffic.expect("it has a packet path").services["shop/web"].delivered, 5);

    let page = over_tcp(tcp, "GET /metrics").await;
    for line in [
        "ironcast_bgp_session_up{peer=\"tor\"} 1",
        "ironcast_bgp_messages_total{peer=\"tor\",direction=\"sent\",kind=\"update\"} 7",
        "ironcast_bmp_station_up{station=\"192.0.2.9:11019\"} 1",
        "ironcast_bmp_connections_total{station=\"192.0.2.9:11019\"} 3",
        "ironcast_bmp_overflows_total{station=\"192.0.2.9:11019\"} 2",
        "ironcast_bgp_routes_advertised{peer=\"tor\"} 3",
        "ironcast_bfd_session_up{peer=\"tor\"} 1",
        "ironcast_bfd_failures_total{peer=\"tor\"} 4",
        "ironcast_bfd_packets_total{peer=\"tor\",kind=\"received\"} 9",
        "ironcast_bfd_packets_stray_total{reason=\"no-session\"} 3",
        "ironcast_bfd_reliefs_total{} 3",
        "ironcast_bfd_lateness_seconds_max{} 0.0015",
        "ironcast_plan_withheld{reason=\"noEndpoints\"} 2",
        "ironcast_pool_addresses{pool=\"edge\",family=\"IPv6\",state=\"assigned\"} 2",
        "ironcast_datapath_uplink{interface=\"eth0\",mode=\"native\"} 1",
        "ironcast_datapath_packets_total{reason=\"chained\"} 3",
        "ironcast_datapath_service_packets_total{namespace=\"shop\",service=\"web\",outcome=\"delivered\"} 5",
        "ironcast_datapath_service_bytes_total{namespace=\"shop\",service=\"web\"} 600",
        "ironcast_plan_duration_seconds_count 1",
        "ironcast_build_info{version=\"1.2.3\"} 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|l| l == line || l == format!("{line}.0")), "{line} is missing in\n{page}");
    }

    assert!(over_tcp(tcp, "POST /drain").await.starts_with("HTTP/1.0 404"));
    assert!(!facts.draining.load(SeqCst));
    ask(&socket, Method::POST, "/drain").await.expect("drains");
    assert!(facts.draining.load(SeqCst));
    ask(&socket, Method::DELETE, "/drain").await.expect("ends draining");
    assert!(!facts.draining.load(SeqCst));
    serving.abort();
}

#[tokio::test]
async fn page_is_whole_in_itself_and_may_ask_this_port_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = open(&folder.path().join("admin.sock")).await;
    let tcp = port.tcp_addr().expect("TCP is open");
    let serving = tokio::spawn(port.serve(Arc::new(Fixed::default()), Metrics::default()));
    let page = over_tcp(tcp, "GET /").await;
    assert!(page.starts_with("HTTP/1.0 200") && page.contains("content-type: text/html"), "{page}");
    assert!(page.contains("default-src 'none'") && page.contains("connect-src 'self'"), "{page}");
    let elsewhere = ["src=", "@import", "url(", "https://"].into_iter().find(|word| page.contains(word));
    assert_eq!(elsewhere, None, "something of somebody else's is loaded");
    assert!(!page.contains("innerHTML"), "names are text");
    serving.abort();
}

#[tokio::test]
async fn socket_is_for_its_owner_and_is_not_taken_from_a_living_daemon() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("admin.sock");
    let first = open(&socket).await;
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Port::open(&Options { tcp: None, socket: socket.clone() }).await;
    assert!(matches!(second, Err(AdminError::Taken { .. })), "{second:?}");
    drop(first);
    Port::open(&Options { tcp: None, socket }).await.expect("what a predecessor left is replaced");
}
