//! Owns the speaker: advertises exactly Desired ∩ Held ∩ Ready, and says what is so.
//!
//! ```text
//!  Desired (plan) ──┐                                             ┌─▶ PeerStatus, Adj-RIB-Out
//!  Ready (kernel) ──┴▶ policy: peers, exports ──changes──▶ speaker ┴─▶ AnnounceState (watch)
//! ```
//!
//! *Held* is in `Desired` already: plan makes routes of recorded addresses only. One task ([`run`]) owns the
//! speaker; dropping it closes every connection without a word, which routers with graceful restart take for a
//! restart. Nothing is dialled before the first plan: a session without its routes would have the router
//! withdraw what it kept for us.

pub mod bfd;
pub mod neighbours;
pub mod policy;
mod state;

#[cfg(test)]
mod tests;

use std::{
    cell::LazyCell,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ironcast_bgp::{
    RouterId,
    bmp::Identity,
    net::{self, Ended, Speaker, Unacknowledged, unnumbered::Discovery},
    speaker::{Shutdown, SpeakerConfig},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    plan::{Desired, default_router_id},
    types::Set,
};
pub use state::AnnounceState;
use state::Orders;

/// Longer than the speaker takes to end: then something is wrong and the process leaves without it.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// After a restart sessions wait so long for what is not served: shorter than any time that routers are patient.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

/// Addresses whose packets this node serves already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// Whatever is announced; beside kube-proxy, whose rules take every packet.
    All,
    /// These.
    Only(Set<IpAddr>),
}

impl Ready {
    /// Whether packets to this address are served.
    pub fn has(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Only(addresses) => addresses.contains(&address),
        }
    }
}

/// What [`run`] is told at its start.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Name of this node.
    pub node: String,
    /// Our BGP identifier; derived where `None` ([`default_router_id`]), and then kept while the process runs: an
    /// address that the node gains or loses must not reset sessions.
    pub router_id: Option<RouterId>,
    /// Where routers may connect to (passive peers); empty: dial only.
    pub listen: Vec<SocketAddr>,
    /// BMP stations that are told what routers are told.
    pub bmp: Vec<SocketAddr>,
    /// Where BFD sessions are left for the next process before a restart; `None` ends them.
    pub bfd_sessions: Option<PathBuf>,
    /// The process was here before and its packet path still forwards: the first OPEN says so (RFC 4724 §4.1).
    pub restarted: bool,
}

/// What [`run`] follows.
#[derive(Debug)]
pub struct Inputs {
    /// `None` until the first plan is made.
    pub desired: watch::Receiver<Option<Arc<Desired>>>,
    /// What the kernel or the packet path serves.
    pub ready: watch::Receiver<Ready>,
    /// Who wants to know what routers have not acknowledged.
    pub questions: mpsc::Receiver<Unacknowledged>,
    /// How to end, once.
    pub shutdown: oneshot::Receiver<Shutdown>,
}

/// Announcing ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The sockets of the speaker could not be made.
    #[error("start the BGP speaker")]
    Start(#[source] std::io::Error),
    /// The speaker's task failed.
    #[error("run the BGP speaker")]
    Run(#[source] std::io::Error),
    /// The speaker's task panicked or was ended from outside.
    #[error("the BGP speaker's task ended")]
    Task(#[source] tokio::task::JoinError),
    /// The speaker ended though nobody asked it to.
    #[error("the BGP speaker ended by itself")]
    Ended,
    /// The thread of BFD ended: routers would take this node for dead.
    #[error("the BFD driver ended by itself")]
    Bfd,
    /// The search for unnumbered peers ended.
    #[error("the search for routers on links ended by itself")]
    Discovery,
    /// The planner is gone.
    #[error("the planner ended, so nothing tells what to announce")]
    NoPlanner,
}

impl From<Ended> for AnnounceError {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// Announces until told to end. Ends with `Ok` after `shutdown` alone (also when its sender is dropped).
pub async fn run(
    config: Config,
    mut inputs: Inputs,
    state: watch::Sender<Arc<AnnounceState>>,
) -> Result<(), AnnounceError> {
    let desired = tokio::select! {
        _ = &mut inputs.shutdown => return Ok(()),
        desired = inputs.desired.wait_for(Option::is_some) => desired.map_err(|_| AnnounceError::NoPlanner)?.clone(),
    };
    let desired = desired.expect("waited for a plan");
    if config.restarted {
        tokio::select! {
            _ = &mut inputs.shutdown => return Ok(()),
            () = served(&desired, &mut inputs.ready) => {}
        }
    }
    let router_id = config.router_id.or(desired.router_id).unwrap_or_else(|| default_router_id(None, &config.node));
    let speaker_config =
        SpeakerConfig { router_id, listen: config.listen, restarted: config.restarted, dynamic: Vec::new() };
    if let Err(error) = net::probe_tcp_ao() {
        tracing::info!(%error, "peers with tcpAO get no session on this node");
    }
    let (speaker, driver) = Speaker::start(speaker_config, None).map_err(AnnounceError::Start)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let description = concat!("ironcast ", env!("CARGO_PKG_VERSION")).into();
    speaker.set_stations(Identity { name: config.node, description }, config.bmp.into_iter().collect()).await?;
    let mut paths = bfd::Paths::new(config.bfd_sessions, config.restarted);
    let (discovery, search) = Discovery::start();
    let mut searching = JoinSet::new();
    searching.spawn(search);
    let how = tokio::select! {
        ended = tasks.join_next() => return Err(unasked(ended)),
        _ = searching.join_next() => return Err(AnnounceError::Discovery),
        end = follow(&speaker, &mut paths, &discovery, &mut inputs, &state) => end?,
    };
    // Before a restart BFD goes first, or routers would take the silence for a failure and drop what they keep. An end
    // for good is told by BGP first, which withdraws.
    if how == Shutdown::Restart {
        let last = state.borrow().clone();
        let kept = last.peers.iter().filter(|(_, peer)| peer.graceful_restart.is_some());
        paths.hand_over(kept.map(|(id, _)| id.clone()).collect()).await;
        paths.end().await;
    }
    speaker.shutdown(how).await?;
    let ended = ended(&mut tasks).await;
    paths.end().await;
    ended
}

/// Waits until the plan's addresses are served. Sessions begin after that: what a router kept over the restart it drops
/// if End-of-RIB comes before the route does (RFC 4724 §4.2).
async fn served(desired: &Desired, ready: &mut watch::Receiver<Ready>) {
    let all = ready.wait_for(|ready| desired.addresses.iter().all(|address| ready.has(*address)));
    if tokio::time::timeout(SERVED_WITHIN, all).await.is_err() {
        tracing::warn!("some addresses are not served yet; routers drop their routes until they are");
    }
}

async fn ended(tasks: &mut JoinSet<std::io::Result<()>>) -> Result<(), AnnounceError> {
    match tokio::time::timeout(SHUTDOWN_PATIENCE, tasks.join_next()).await {
        Ok(Some(Ok(result))) => result.map_err(AnnounceError::Run),
        Ok(Some(Err(error))) => Err(AnnounceError::Task(error)),
        Ok(None) => Ok(()),
        Err(_) => {
            tracing::warn!("the BGP speaker did not end in time; connections are closed without a word");
            Ok(())
        }
    }
}

fn unasked(ended: Option<Result<std::io::Result<()>, tokio::task::JoinError>>) -> AnnounceError {
    match ended {
        Some(Ok(Err(error))) => AnnounceError::Run(error),
        Some(Err(error)) => AnnounceError::Task(error),
        Some(Ok(Ok(()))) | None => AnnounceError::Ended,
    }
}

/// Hands the speaker whatever changed, and publishes what is so. Returns how to end.
async fn follow(
    speaker: &Speaker,
    paths: &mut bfd::Paths,
    discovery: &Discovery,
    inputs: &mut Inputs,
    state: &watch::Sender<Arc<AnnounceState>>,
) -> Result<Shutdown, AnnounceError> {
    let (mut status, mut stations, mut links) = (speaker.status(), speaker.stations(), discovery.links());
    let mut now = AnnounceState::default();
    let mut places = None;
    loop {
        let desired = inputs.desired.borrow_and_update().clone();
        let ready = inputs.ready.borrow_and_update().clone();
        if let Some(desired) = desired {
            now.status = status.borrow_and_update().clone();
            discovery.set_links(desired.peers.values().filter_map(neighbours::interface).map(Into::into).collect());
            let links = links.borrow_and_update().clone();
            tell(speaker, now.turn(desired, &ready, &links)).await?;
            places = None;
        }
        loop {
            // A path that was lost is told before anything else is looked at.
            for (peer, up) in paths.news() {
                speaker.path(peer, up).await?;
            }
            now.status = status.borrow_and_update().clone();
            now.stations = stations.borrow_and_update().clone();
            // Where a peer is shows when it answers: an address of ours may have come after the plan, and a router
            // that was replaced answers no more.
            let answering = now.answering();
            if places.as_ref() != Some(&answering) {
                if places.replace(answering).is_some() && now.is_unnumbered() {
                    break;
                }
                let local = LazyCell::new(net::links);
                paths.want(now.paths(|address| local.to(address)))?;
            }
            now.bfd = paths.view();
            state.send_replace(Arc::new(now.clone()));
            tokio::select! {
                biased;
                changed = paths.changed() => changed?,
                how = &mut inputs.shutdown => return Ok(how.unwrap_or(Shutdown::Restart)),
                changed = inputs.desired.changed() => {
                    changed.map_err(|_| AnnounceError::NoPlanner)?;
                    break;
                }
                Ok(()) = inputs.ready.changed() => break,
                ended = pass_on(speaker, &mut inputs.questions) => return Err(ended.into()),
                changed = stations.changed() => changed.map_err(|_| AnnounceError::Ended)?,
                Ok(()) = links.changed() => break,
                changed = status.changed() => changed.map_err(|_| AnnounceError::Ended)?,
            }
        }
    }
}

/// Passes questions on to the speaker. Nothing changes by them, so nothing is published. Ends with the speaker; cancelled, it
/// leaves at most one question without an answer.
async fn pass_on(speaker: &Speaker, questions: &mut mpsc::Receiver<Unacknowledged>) -> Ended {
    while let Some(answer) = questions.recv().await {
        if let Err(ended) = speaker.unacknowledged(answer).await {
            return ended;
        }
    }
    std::future::pending().await
}

/// Peers before exports: what a peer is told arrives long before its session is up.
async fn tell(speaker: &Speaker, orders: Orders) -> Result<(), AnnounceError> {
    if let Some(peers) = orders.peers {
        tracing::info!(peers = peers.len(), "peers changed");
        speaker.set_peers(peers).await?;
    }
    if let Some(exports) = orders.exports {
        tracing::debug!(peers = exports.len(), "exports changed");
        speaker.set_exports(exports).await?;
    }
    Ok(())
}
