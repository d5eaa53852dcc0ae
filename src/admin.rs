//! The admin port: a page for people at `/`, and `/live`, `/ready`, `/metrics`, `/state.json` on loopback TCP and on a Unix socket; `POST /drain`,
//! `DELETE /drain`, `/packet` and `/flows` (which name clients) on the Unix socket only, whose file only its owner may
//! open.
//!
//! What is shown comes from [`Facts`], asked at the moment of the request: nothing is kept here.

pub mod client;
mod metrics;
mod packets;
pub mod page;
mod socket;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ironcast_bgp::{
    net::{Unacknowledged, bfd::Report, bmp::StationStatus},
    speaker::{Counters, PeerId},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::{
    datapath::{query::Query, report::Counted, types::Reason},
    types::{Family, NodeState, TrafficState},
};

pub use metrics::Metrics;

/// A speaker answers between two messages; what it cannot say at once is left out.
const SPEAKER_PATIENCE: Duration = Duration::from_millis(100);

/// What the port answers with; `app` knows.
pub trait Facts: Send + Sync + 'static {
    /// The node as it is now.
    fn state(&self) -> NodeState;
    /// The same without the lists of which there is one entry for every Service: Services, routes, what is withheld.
    fn outline(&self) -> NodeState;
    /// Numbers that are not in the outline.
    fn figures(&self) -> Figures;
    /// Whether the daemon does its work, or what it waits for.
    fn ready(&self) -> Result<(), String>;
    /// Packets by what became of them; empty without a packet path.
    fn counted(&self) -> Arc<Counted>;
    /// Whom to ask about packets; `None` without a packet path.
    fn packet_path(&self) -> Option<mpsc::Sender<Query>>;
    /// Whom to ask what routers have not acknowledged.
    fn speaker(&self) -> mpsc::Sender<Unacknowledged>;
    /// Starts or ends draining; the error says why it cannot.
    fn drain(&self, on: bool) -> Result<(), String>;
}

/// Numbers for `/metrics` beside the state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Messages by peer name.
    pub counters: Vec<(String, Counters)>,
    /// BMP stations.
    pub stations: Vec<(SocketAddr, StationStatus)>,
    /// What BFD counted, once it runs.
    pub bfd: Option<BfdFigures>,
    /// Use of each pool.
    pub pools: Vec<PoolUse>,
    /// Wanted addresses that this host answers for.
    pub ready_addresses: usize,
    /// Wanted addresses.
    pub wanted_addresses: usize,
    /// Services that have an address or wait for one.
    pub services: usize,
    /// Services that are not announced, by reason.
    pub withheld: BTreeMap<&'static str, usize>,
    /// Packets by what became of them; empty without a packet path.
    pub packets: Arc<Counted>,
}

/// What the BFD driver and its sessions counted.
#[derive(Debug, Clone, PartialEq)]
pub struct BfdFigures {
    /// The driver: lateness and packets that belong to no session.
    pub report: Report,
    /// Control packets by peer name.
    pub packets: Vec<(String, BfdPackets)>,
}

/// Control packets of one BFD session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the names say it
pub struct BfdPackets {
    pub sent: u64,
    pub received: u64,
    pub discarded: u64,
    pub send_errors: u64,
}

/// How full a pool is in one family.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolUse {
    /// Name of the pool.
    pub pool: String,
    /// The family.
    pub family: Family,
    /// Addresses given out.
    pub assigned: u128,
    /// Addresses left.
    pub available: u128,
}

/// Where the port is.
#[derive(Debug, Clone)]
pub struct Options {
    /// TCP; read-only.
    pub tcp: Option<SocketAddr>,
    /// Unix socket.
    pub socket: PathBuf,
}

/// The port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// TCP.
    #[error("open the admin port {address}; choose another with --admin, or `--admin none`")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The Unix socket.
    #[error("open the admin socket {path}; choose another with --admin-socket")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon answers there.
    #[error("another daemon answers at {path}: stop it, or give this one its own --admin-socket")]
    Taken {
        /// The path.
        path: PathBuf,
    },
}

/// The opened port, before anything is served: errors of the configuration show at the start.
#[derive(Debug)]
pub struct Port {
    tcp: Option<TcpListener>,
    socket: socket::Socket,
}

impl Port {
    /// Opens both ends.
    ///
    /// # Errors
    /// An address is taken or may not be used.
    pub async fn open(options: &Options) -> Result<Self, AdminError> {
        let tcp = match options.tcp {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| AdminError::Tcp { address, source })?)
            }
        };
        Ok(Self { tcp, socket: socket::Socket::open(&options.socket)? })
    }

    /// The TCP address, for port 0.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// None in practice: accepting is tried for ever.
    pub async fn serve(self, facts: Arc<dyn Facts>, metrics: Metrics) -> std::io::Result<()> {
        let context = Context { facts, metrics };
        let readable = Router::new()
            .route("/", get(page::page))
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(scrape))
            .route("/state.json", get(state));
        let commands = readable
            .clone()
            .route("/drain", post(drain).delete(undo_drain))
            .route("/packet", get(packets::packet))
            .route("/flows", get(packets::flows));
        let on_socket = axum::serve(self.socket.listener, commands.with_state(context.clone()));
        let Some(tcp) = self.tcp else { return on_socket.await };
        let on_tcp = axum::serve(tcp, readable.with_state(context));
        tokio::try_join!(on_socket.into_future(), on_tcp.into_future()).map(|_| ())
    }
}

#[derive(Clone)]
struct Context {
    facts: Arc<dyn Facts>,
    metrics: Metrics,
}

async fn ready(State(context): State<Context>) -> Response {
    match context.facts.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn state(State(context): State<Context>) -> Json<NodeState> {
    let unacknowledged = unacknowledged(context.facts.speaker()).await.unwrap_or_default();
    let mut state = context.facts.state();
    for session in &mut state.sessions {
        session.unacknowledged = unacknowledged.get(&PeerId(session.peer.as_str().into())).copied();
    }
    state.traffic = state.datapath.is_some().then(|| traffic(&context.facts.counted()));
    Json(state)
}

/// `None` while the speaker does not run, or has no time.
async fn unacknowledged(speaker: mpsc::Sender<Unacknowledged>) -> Option<BTreeMap<PeerId, u64>> {
    let (to, answer) = oneshot::channel();
    let asked = async {
        speaker.try_send(to).ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(SPEAKER_PATIENCE, asked).await.ok()?
}

fn traffic(counted: &Counted) -> TrafficState {
    let age = counted.at.map(|at| at.elapsed()).unwrap_or_default();
    TrafficState {
        age_milliseconds: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        connections: counted.reasons.get(&Reason::Established).copied().unwrap_or_default(),
        services: counted.services.iter().map(|(key, counters)| (key.to_string(), (*counters).into())).collect(),
    }
}

async fn scrape(State(context): State<Context>) -> Response {
    let text = context.metrics.encode(&context.facts.outline(), context.facts.figures());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn drain(State(context): State<Context>) -> Response {
    set_draining(&context, true)
}

async fn undo_drain(State(context): State<Context>) -> Response {
    set_draining(&context, false)
}

fn set_draining(context: &Context, on: bool) -> Response {
    match context.facts.drain(on) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, problem).into_response(),
    }
}
