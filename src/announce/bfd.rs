//! BFD beside the sessions: which path of which peer is watched and how, and what BGP must hear of it.
//!
//! The driver is started with the first session and runs on a thread of its own. A path that fails ends its BGP
//! session; a path that was never up, or that the router took down on purpose, ends nothing (RFC 5882 §3.2, §4.1).
//!
//! Before a restart the sessions are left to the next process (`Paths::hand_over`): routers such as BIRD drop the
//! routes of a peer whose BFD ends, whatever it says and although they negotiated graceful restart.

mod legacy;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::{Instant, SystemTime},
};

use ironcast_bgp::{
    InvalidValue,
    bfd::{Config, DetectMult, Discriminator, Endpoint, Interval, Params, Path, State},
    net::bfd::{Bfd, BfdConfig, Legacy, Report, Session, Sessions},
    speaker::{PeerConfig, PeerId, Ttl},
};
use tokio::sync::watch;

use super::{AnnounceError, policy};
use crate::{
    plan::Desired,
    types::{BfdProfile, BfdState, Peer},
};

/// Least TTL of a multi-hop peer's packets where the profile gives none; MetalLB's.
const MINIMUM_TTL: u8 = 254;

/// The link to a peer on a network of this host: its name, and our address there.
pub type Link = (String, IpAddr);

/// The BFD sessions of the peers that the speaker has. `link_to` finds the link to an address, if it is on one.
pub fn sessions(
    desired: &Desired,
    peers: &BTreeMap<PeerId, PeerConfig>,
    link_to: impl Fn(IpAddr) -> Option<Link>,
) -> BTreeMap<PeerId, Config> {
    let of_peer = |peer: &Peer| {
        let id = policy::peer_id(&peer.name);
        let profile = peer.bfd.as_ref()?;
        let config = session(profile, peer, peers.get(&id)?, &link_to);
        match config {
            Ok(config) => Some((id, config)),
            Err(error) => {
                // Profiles were checked when they were read.
                tracing::error!(peer = peer.name, %error, "BFD session not started");
                None
            }
        }
    };
    desired.peers.values().filter_map(of_peer).collect()
}

fn session(
    profile: &BfdProfile,
    peer: &Peer,
    config: &PeerConfig,
    link_to: &impl Fn(IpAddr) -> Option<Link>,
) -> Result<Config, InvalidValue> {
    let far = Path::MultiHop { minimum_ttl: profile.minimum_ttl.unwrap_or(MINIMUM_TTL) };
    let path = match config.ttl {
        Ttl::Direct | Ttl::Security { hops: 1 } => Path::SingleHop,
        // An iBGP peer may be anywhere, and most often is on the link.
        Ttl::MultiHop(_) if peer.multihop.is_none() && link_to(config.address).is_some() => Path::SingleHop,
        Ttl::MultiHop(_) | Ttl::Security { .. } => far,
    };
    let mut endpoint = Endpoint { peer: config.address, local: config.source, interface: peer.interface.clone(), path };
    if profile.echo.is_some()
        && path == Path::SingleHop
        && let Some((interface, local)) = link_to(config.address)
    {
        // Echo packets go past the kernel's routing, so they must be told their link and their source.
        endpoint.local.get_or_insert(local);
        endpoint.interface.get_or_insert(interface);
    }
    Ok(Config { endpoint, params: params(profile)? })
}

fn params(profile: &BfdProfile) -> Result<Params, InvalidValue> {
    Ok(Params {
        desired_min_tx: Interval::new(profile.transmit)?,
        required_min_rx: Interval::new(profile.receive)?,
        echo: profile.echo.map(Interval::new).transpose()?,
        echo_receive: profile.echo_receive.map(Interval::new).transpose()?,
        passive: profile.passive,
        auth: profile.auth.clone(),
        ..Params::new(Interval::SLOW, DetectMult::new(profile.detect_mult)?)
    })
}

/// The driver and what was heard of it.
#[derive(Debug, Default)]
pub(super) struct Paths {
    driver: Option<(Bfd, watch::Receiver<Sessions>)>,
    /// Why there is no driver.
    problem: Option<String>,
    wanted: BTreeMap<PeerId, Config>,
    known: Known,
    /// Where sessions are left for the next process.
    file: Option<PathBuf>,
    /// A predecessor may have left some there.
    restarted: bool,
}

impl Paths {
    /// None yet. `file`: where a restart leaves them; `restarted`: where one may have left them.
    pub(super) fn new(file: Option<PathBuf>, restarted: bool) -> Self {
        Self { file, restarted, ..Self::default() }
    }

    /// Makes the sessions those of `wanted`.
    pub(super) fn want(&mut self, wanted: BTreeMap<PeerId, Config>) -> Result<(), AnnounceError> {
        if wanted == self.wanted && (self.driver.is_some() || wanted.is_empty()) {
            return Ok(());
        }
        if self.driver.is_none() {
            match Bfd::start_after(BfdConfig::default(), self.left()) {
                Ok(started) => (self.driver, self.problem) = (Some(started), None),
                Err(error) => {
                    tracing::warn!(%error, "BFD cannot be started; sessions run without it");
                    self.problem = Some(format!("BFD cannot be started: {error}"));
                }
            }
        }
        if let Some((driver, _)) = &self.driver {
            tracing::info!(sessions = wanted.len(), "BFD sessions changed");
            driver.set_sessions(wanted.clone()).map_err(|_| AnnounceError::Bfd)?;
        }
        self.wanted = wanted;
        Ok(())
    }

    /// What a predecessor left. Taken even where it is of no use: it is true once.
    fn left(&self) -> Vec<Legacy> {
        let left = self.file.as_deref().map(|file| legacy::take(file, SystemTime::now())).unwrap_or_default();
        if self.restarted { left } else { Vec::new() }
    }

    /// Waits until a session changes; for ever without a driver. Cancel safe.
    pub(super) async fn changed(&mut self) -> Result<(), AnnounceError> {
        match &mut self.driver {
            Some((_, sessions)) => sessions.changed().await.map_err(|_| AnnounceError::Bfd),
            None => std::future::pending().await,
        }
    }

    /// What BGP must hear, in this order: whose path was lost (`false`) or is there (`true`).
    pub(super) fn news(&mut self) -> Vec<(PeerId, bool)> {
        match &mut self.driver {
            Some((_, sessions)) => self.known.news(&sessions.borrow_and_update()),
            None => Vec::new(),
        }
    }

    /// What there is to show.
    pub(super) fn view(&self) -> View {
        let sessions = self.driver.as_ref().map(|(_, sessions)| sessions.borrow().clone()).unwrap_or_default();
        View { driver: self.driver.as_ref().map(|(driver, _)| driver.clone()), sessions, problem: self.problem.clone() }
    }

    /// Leaves the sessions of `keep` to the next process and says AdminDown to all others.
    pub(super) async fn hand_over(&mut self, keep: BTreeSet<PeerId>) {
        let Some(file) = &self.file else { return };
        let Some((driver, _)) = self.driver.take() else { return };
        // One that has ended says nothing any more.
        let left = driver.hand_over(keep, legacy::WINDOW).await.unwrap_or_default();
        tracing::info!(sessions = left.len(), "BFD sessions left to the next process");
        if let Err(error) = legacy::write(file, &left, SystemTime::now()) {
            tracing::warn!(%error, file = %file.display(), "BFD sessions are not left to the next process");
        }
    }

    /// Says AdminDown to every peer, which no peer takes for a failure (RFC 5882 §4.2), and ends the driver.
    pub(super) async fn end(&mut self) {
        if let Some((driver, _)) = self.driver.take() {
            // One that has ended says nothing any more.
            let _ = driver.shutdown(false).await;
        }
    }
}

/// The sessions as BGP heard of them last.
#[derive(Debug, Default)]
struct Known(BTreeMap<PeerId, (Discriminator, u64, bool)>);

impl Known {
    fn news(&mut self, sessions: &Sessions) -> Vec<(PeerId, bool)> {
        let mut news = Vec::new();
        self.0.retain(|id, (discr, ..)| sessions.get(id).is_some_and(|s| s.status.local_discr == *discr));
        for (id, Session { status, .. }) in sessions.iter() {
            let (_, failures, up) = self.0.entry(id.clone()).or_insert((status.local_discr, 0, false));
            // Counted: who failed and came back between two looks has failed all the same.
            if status.failures > *failures {
                tracing::warn!(peer = %id, reason = %status.diag, "path lost");
                news.push((id.clone(), false));
                (*failures, *up) = (status.failures, false);
            }
            let is_up = status.state == State::Up;
            if is_up && !*up {
                tracing::info!(peer = %id, detection = ?status.detection_time, "path up");
                news.push((id.clone(), true));
            }
            *up = is_up;
        }
        news
    }
}

/// BFD at a moment, for people.
#[derive(Debug, Clone, Default)]
pub struct View {
    driver: Option<Bfd>,
    sessions: Sessions,
    problem: Option<String>,
}

impl View {
    /// Lateness and discarded packets of the driver, if one runs.
    pub fn report(&self) -> Option<Report> {
        self.driver.as_ref().map(Bfd::report)
    }

    /// Every session.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The session of a peer; `None` where it has no profile.
    pub(super) fn state(&self, peer: &Peer, now: Instant) -> Option<BfdState> {
        let profile = peer.bfd.as_ref()?;
        let session = self.sessions.get(&policy::peer_id(&peer.name));
        let problem = session.and_then(|session| session.problem.as_deref().map(Into::into));
        let status = session.map(|session| session.status);
        let millis = |time: fn(&ironcast_bgp::bfd::Status) -> std::time::Duration| {
            status.as_ref().map_or(0, |status| u64::try_from(time(status).as_millis()).unwrap_or(u64::MAX))
        };
        Some(BfdState {
            profile: profile.name.clone(),
            state: status.map_or(State::Down, |status| status.state).to_string(),
            since_seconds: status.map_or(0, |status| now.saturating_duration_since(status.since).as_secs()),
            diagnostic: status.map(|status| status.diag).filter(|diag| diag.0 != 0).map(|diag| diag.to_string()),
            failures: status.map_or(0, |status| status.failures),
            remote_state: status.map(|status| status.remote_state.to_string()),
            transmit_milliseconds: millis(|status| status.transmit_interval),
            detection_milliseconds: millis(|status| status.detection_time),
            echo: status.is_some_and(|status| status.echo),
            problem: problem.or_else(|| self.problem.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
