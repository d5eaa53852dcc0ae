//! The hidden `ironcast lab-router`: the built-in top-of-rack router. It listens, takes what nodes announce,
//! and keeps one ECMP route per prefix in its kernel. Also GoBGP's hand into the kernel, which has none.
//!
//! A peer behind a port without carrier is given up at once, as routers with fast external fall-over do;
//! everything else is the hold timer's business.
//!
//! One that died and is started again finds its routes in the kernel and leaves them there until the nodes have said
//! everything again (RFC 4724 §4.1).

mod ports;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::{FutureExt, StreamExt};
use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    net::Speaker,
    speaker::{Exports, PeerAs, PeerConfig, PeerId, SpeakerConfig},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

use self::{ports::Ports, table::Table};
use super::{
    args::RouterArgs,
    fib::{self, Routes},
    routers::gobgp,
};

/// Never the smaller one: what the nodes offer counts.
const HOLD: u16 = 90;
/// How long routes of before a restart wait for the nodes.
const RESTART: Duration = Duration::from_secs(30);
/// How often GoBGP is asked.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// Received routes that wait for the kernel; the speaker waits when it is full.
const QUEUE: usize = 1024;

/// Runs until it is ended.
///
/// # Errors
/// The speaker or the kernel's routing table could not be opened, or failed.
pub(crate) async fn run(args: RouterArgs) -> anyhow::Result<()> {
    let (connection, handle, mut links) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).context("open netlink")?;
    tokio::spawn(connection);
    if let Some(api) = args.follow_gobgp {
        return follow(handle, api).await;
    }
    let left = fib::left(&handle).await?;
    let (received, mut routes) = mpsc::channel(QUEUE);
    let (speaker, running) =
        Speaker::start(identity(!left.is_empty())?, Some(received)).context("start the speaker")?;
    let mut running = tokio::spawn(running);
    let mut ports = Ports::default();
    ports.read(&handle).await?;
    let mut kernel = Kernel { handle, installed: left.clone() };
    let peers = peers(&args)?;
    speaker.set_peers(reachable(&peers, &ports)).await?;
    // Nothing, but said: the end of it is what a node with graceful restart waits for.
    speaker.set_exports(Exports::new()).await?;
    let mut table = Table::after_restart(left, Instant::now() + RESTART);
    loop {
        let deadline = table.deadline();
        tokio::select! {
            ended = &mut running => { ended?.context("the speaker failed")?; bail!("the speaker ended") }
            Some(event) = routes.recv() => {
                let mut next = Some(event);
                while let Some(event) = next {
                    table.handle(Instant::now(), event);
                    next = routes.try_recv().ok();
                }
            }
            () = at(deadline) => table.expire(Instant::now()),
            Some(_) = links.next() => {
                while links.next().now_or_never().is_some() {}
                ports.read(&kernel.handle).await?;
                speaker.set_peers(reachable(&peers, &ports)).await?;
            }
        }
        kernel.make(table.routes()).await?;
    }
}

/// Peers behind ports with a carrier.
fn reachable(peers: &BTreeMap<PeerId, PeerConfig>, ports: &Ports) -> BTreeMap<PeerId, PeerConfig> {
    let alive = peers.iter().filter(|(_, peer)| ports.alive(peer.address));
    alive.map(|(id, peer)| (id.clone(), peer.clone())).collect()
}

/// Sleeps until then; for ever without a deadline.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Kernel {
    handle: Handle,
    installed: Routes,
}

impl Kernel {
    /// Makes the kernel's table what is wanted.
    async fn make(&mut self, mut wanted: Routes) -> anyhow::Result<()> {
        let gone: Vec<_> = self.installed.keys().filter(|p| !wanted.contains_key(p)).copied().collect();
        wanted.extend(gone.into_iter().map(|prefix| (prefix, BTreeSet::new())));
        for (prefix, next_hops) in wanted {
            if self.installed.get(&prefix).is_some_and(|is| *is == next_hops) {
                continue;
            }
            // A port may lose its carrier between our look and the kernel's; the link's event brings us back.
            match fib::set(&self.handle, prefix, &next_hops).await {
                Ok(()) => tracing::info!(%prefix, ?next_hops, "route set"),
                Err(error) => {
                    tracing::warn!("{error:#}");
                    continue;
                }
            }
            if next_hops.is_empty() {
                self.installed.remove(&prefix);
            } else {
                self.installed.insert(prefix, next_hops);
            }
        }
        Ok(())
    }
}

/// Installs what GoBGP has, for as long as it runs.
async fn follow(handle: Handle, api: SocketAddr) -> anyhow::Result<()> {
    let mut kernel = Kernel { handle, installed: Routes::new() };
    let mut tick = tokio::time::interval(FOLLOW_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match gobgp::table(api).await {
            Ok(routes) => kernel.make(routes).await?,
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
}

fn identity(restarted: bool) -> anyhow::Result<SpeakerConfig> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    Ok(SpeakerConfig {
        router_id: RouterId::new(Ipv4Addr::new(10, 255, 0, 1))?,
        listen: any.map(|ip| SocketAddr::new(ip, 179)).to_vec(),
        restarted,
        dynamic: Vec::new(),
    })
}

fn peers(args: &RouterArgs) -> anyhow::Result<BTreeMap<PeerId, PeerConfig>> {
    let (local_as, peer_as) = (Asn::new(args.asn)?, Asn::new(args.peer_asn)?);
    let peer = |address: &IpAddr| PeerConfig {
        hold_time: HoldTime::new(HOLD).expect("90 s is a legal hold time"),
        connect_retry: Duration::from_secs(1),
        passive: true,
        families: [Family::Ipv4Unicast, Family::Ipv6Unicast].into(),
        graceful_restart: Some(Duration::from_secs(30)),
        ..PeerConfig::new(*address, local_as, PeerAs::Exactly(peer_as))
    };
    Ok(args.peers.iter().map(|address| (PeerId(address.to_string().into()), peer(address))).collect())
}
