//! Joins the modules with channels; start-up and shutdown order.
//!
//! ```text
//!  source ──snapshots──▶ decide ──desired──▶ netlink, datapath ──ready──▶ announce ──▶ speaker
//!    ▲                     │ planned                               │ state
//!    └──── record ◀────────┴──────────────▶ view ◀─────────────────┘
//! ```
//!
//! Start: the admin port (a taken address is an error of the configuration), the source, then everything that
//! follows the plan; nothing is touched or dialled before the first one, and nothing is dialled before the packet
//! path's programs are attached. Every task is in one set, and the end of
//! one ends the process with a message and exit code 1.
//!
//! End by SIGTERM or SIGINT: sessions first, then the leadership, then addresses and programs. A second signal ends at once.

pub(crate) mod claims;
mod conflicts;
mod datapath;
mod decide;
pub(crate) mod drain;
mod fleet;
mod gateways;
mod memory;
mod restart;
mod secret;
mod signals;
mod source;
pub mod state;
mod tasks;
mod view;

pub(crate) use source::connect;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::Context;
use ironcast_bgp::speaker::Shutdown;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    decide::Decide,
    drain::{Drain, Exits},
    restart::Mark,
    signals::Signals,
    tasks::Tasks,
    view::View,
};
use crate::{
    admin::{self, Metrics},
    announce,
    config::{Config, OnShutdown},
    netlink::{self, Finish, route},
    provider::node::{self, Provided},
    types::Set,
};

/// A shutdown that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon ended though nobody asked it to.
#[derive(Debug)]
pub enum Failure {
    /// It could not start: something is wrong with the configuration or the host.
    Start(anyhow::Error),
    /// A task ended that must not.
    Run(anyhow::Error),
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// A task ended that must not, or the runtime, a signal handler, the admin port or the source could not be had.
pub fn run(config: Config) -> Result<(), Failure> {
    memory::keep_private();
    memory::share_heaps();
    // Two workers: a long decision holds up no timer of a session. Few threads keep the process small.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("start the runtime")
        .map_err(Failure::Start)?;
    let result = runtime.block_on(daemon(config));
    // A look-up or a read that hangs in a thread of its own must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn daemon(config: Config) -> Result<(), Failure> {
    let mark = Mark::new(&config.state_dir);
    let mut tasks = Tasks::default();
    let (mut signals, ends) = open(&config, mark.found(), &mut tasks).await.map_err(Failure::Start)?;
    mark.set();
    tokio::select! {
        error = tasks.ended() => return Err(Failure::Run(error)),
        () = signals.next() => {}
    }
    let how = config.on_shutdown;
    info!(?how, "shutting down");
    tokio::select! {
        () = shut_down(how, ends, &mut tasks) => {}
        () = tokio::time::sleep(PATIENCE) => tracing::warn!("not everything ended in time"),
        () = signals.next() => tracing::warn!("a second signal: ending at once"),
    }
    if how == OnShutdown::Stop {
        mark.remove();
    }
    Ok(())
}

async fn open(config: &Config, restarted: bool, tasks: &mut Tasks) -> anyhow::Result<(Signals, Ends)> {
    let signals = Signals::new()?;
    let port = admin::Port::open(&admin::Options { tcp: config.admin, socket: config.admin_socket.clone() }).await?;
    info!(
        node = config.node,
        version = env!("CARGO_PKG_VERSION"),
        source = config.source.kind(),
        restarted,
        "starting"
    );
    Ok((signals, start(config, port, restarted, tasks).await?))
}

/// What ends the tasks that want to be told.
struct Ends {
    announce: oneshot::Sender<Shutdown>,
    netlink: oneshot::Sender<Finish>,
    source: CancellationToken,
    datapath: Option<oneshot::Sender<crate::datapath::report::Finish>>,
    view: Arc<View>,
}

async fn start(config: &Config, port: admin::Port, restarted: bool, tasks: &mut Tasks) -> anyhow::Result<Ends> {
    let metrics = Metrics::default();
    let drain = Arc::new(Drain::load(&config.state_dir));
    let (snapshots, for_decide) = watch::channel(None);
    let (for_desired, desired) = watch::channel(None);
    let (for_planned, planned) = watch::channel(None);
    let (for_announce, announce_state) = watch::channel(Arc::default());
    let (for_ready, ready) = watch::channel(Set::default());
    let (for_leader, leader) = watch::channel(false);
    let (for_problems, problems) = watch::channel(Arc::default());
    let (for_provided, provided) = watch::channel(Arc::default());
    let (unacknowledged, questions) = mpsc::channel(1);
    let path = datapath::start(config, planned.clone(), tasks)?;
    let view = Arc::new(View {
        node: config.node.clone(),
        source: config.source.kind(),
        planned: planned.clone(),
        announce: announce_state.clone(),
        ready: ready.clone(),
        leader: leader.clone(),
        drain: drain.clone(),
        datapath: path.as_ref().map(|path| path.report.clone()),
        counted: path.as_ref().map(|path| path.counted.clone()),
        unacknowledged,
        queries: path.as_ref().map(|path| path.queries.clone()),
        stopping: false.into(),
    });
    tasks.spawn("admin", port.serve(view.clone(), metrics.clone()));
    let stop = CancellationToken::new();
    let secret = path.as_ref().map(|path| path.secret.clone());
    let (announce, seen) = (announce_state, for_decide.clone());
    let claims =
        claims::Channels { planned: planned.clone(), announce, leader, snapshots: seen, problems: for_problems };
    let (shown, end) = (view.clone(), stop.clone());
    let channels = source::Channels { snapshots, planned, leader: for_leader, view: shown, stop: end, secret, claims };
    let client = source::start(config, channels, tasks).await?;
    let decide = Decide {
        snapshots: for_decide.clone(),
        draining: drain.subscribe(),
        exits: Exits::new(config.drain_wait),
        found: conflicts::start(config, desired.clone(), tasks),
        gateways: gateways::start(for_decide.clone(), tasks),
        settings: config.settings.clone(),
        planner: crate::plan::Planner::default(),
        provided: provided.clone(),
        problems,
        desired: for_desired,
        planned: for_planned,
        metrics,
    };
    tasks.spawn("decide", decide.run());
    let connect = fleet::routers(client.map(|client| (client, config.namespace.clone())));
    tasks.spawn("routers", node::run(config.node.clone(), connect, for_decide, for_provided));
    let routes = routes_to_peers(provided, tasks);
    let netlink = start_netlink(config, desired.clone(), routes, for_ready, tasks);
    let report = path.as_ref().map(|path| path.report.clone());
    let serves = if config.vips_on_lo { Some(ready) } else { None };
    let (announce, shutdown) = oneshot::channel();
    let ready = datapath::ready(serves, report.clone(), tasks);
    let inputs = announce::Inputs { desired, ready, questions, shutdown };
    start_announce(identity(config, restarted), inputs, report, for_announce, tasks);
    Ok(Ends { announce, netlink, source: stop, datapath: path.map(|path| path.finish), view })
}

fn identity(config: &Config, restarted: bool) -> announce::Config {
    announce::Config {
        node: config.node.clone(),
        router_id: config.router_id,
        listen: config.listen.clone(),
        bmp: config.bmp.clone(),
        bfd_sessions: Some(config.state_dir.join("bfd.json")),
        restarted,
    }
}

/// Nothing is dialled before the packet path's programs are attached.
fn start_announce(
    identity: announce::Config,
    inputs: announce::Inputs,
    report: Option<watch::Receiver<Arc<crate::datapath::report::Report>>>,
    state: watch::Sender<Arc<announce::AnnounceState>>,
    tasks: &mut Tasks,
) {
    tasks.spawn("announce", async move {
        datapath::settled(report).await;
        announce::run(identity, inputs, state).await
    });
}

fn start_netlink(
    config: &Config,
    desired: watch::Receiver<Option<Arc<crate::plan::Desired>>>,
    routes: watch::Receiver<BTreeSet<route::Spec>>,
    ready: watch::Sender<Set<IpAddr>>,
    tasks: &mut Tasks,
) -> oneshot::Sender<Finish> {
    let (end, finish) = oneshot::channel();
    let host = watch::Sender::new(Arc::default());
    let options = netlink::Options { vips_on_lo: config.vips_on_lo, state_dir: config.state_dir.clone() };
    tasks.spawn("netlink", netlink::run(options, netlink::Channels { desired, routes, ready, host, finish }));
    end
}

/// The routes that a provider's routers need, in the words of `netlink`.
fn routes_to_peers(
    mut provided: watch::Receiver<Arc<Provided>>,
    tasks: &mut Tasks,
) -> watch::Receiver<BTreeSet<route::Spec>> {
    let (to, routes) = watch::channel(BTreeSet::new());
    tasks.spawn("routes", async move {
        loop {
            let needed = provided.borrow_and_update().routes.clone();
            let specs = needed.into_iter().map(|r| route::Spec { destination: r.destination, gateway: r.gateway });
            to.send_replace(specs.collect());
            if provided.changed().await.is_err() {
                return Err::<(), _>(anyhow::anyhow!("nothing tells any more which routers there are"));
            }
        }
    });
    routes
}

async fn shut_down(how: OnShutdown, ends: Ends, tasks: &mut Tasks) {
    ends.view.stopping.store(true, Relaxed);
    let (sessions, kernel) = match how {
        OnShutdown::Restart => (Shutdown::Restart, Finish::Keep),
        OnShutdown::Stop => (Shutdown::Stop { reason: "ironcast stopped on this node".into() }, Finish::Remove),
    };
    // A receiver that is gone has ended already.
    let _ = ends.announce.send(sessions);
    tasks.finish("announce").await;
    ends.source.cancel();
    tasks.finish(source::LEADER).await;
    if kernel == Finish::Remove {
        tokio::time::sleep(netlink::LINGER).await;
    }
    let _ = ends.netlink.send(kernel);
    tasks.finish("netlink").await;
    if let Some(datapath) = ends.datapath {
        let how = match kernel {
            Finish::Keep => crate::datapath::report::Finish::Keep,
            Finish::Remove => crate::datapath::report::Finish::Remove,
        };
        let _ = datapath.send(how);
        tasks.finish(datapath::TASK).await;
    }
}
