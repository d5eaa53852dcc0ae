//! The packet path within the daemon: its task, and what announcing waits for.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::tasks::Tasks;
use crate::{
    announce::Ready,
    config::Config,
    datapath::{
        query::Query,
        report::{Counted, Finish, Report, Served},
    },
    plan::Planned,
    types::Set,
};

/// The ends of the packet path's channels.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) report: watch::Receiver<Arc<Report>>,
    pub(super) counted: watch::Receiver<Arc<Counted>>,
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) finish: oneshot::Sender<Finish>,
    /// Who finds the secret tells it here.
    pub(super) secret: watch::Sender<Option<[u8; 32]>>,
}

/// Starts its task; `None` where something else carries the packets, and then programs of a predecessor go.
#[cfg(feature = "xdp")]
pub(super) fn start(
    config: &Config,
    planned: watch::Receiver<Option<Planned>>,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<Path>> {
    use crate::{
        config::{Datapath, Delivery},
        datapath::{driver, kernel::Step},
    };

    let Some(wanted) = &config.datapath else {
        remove_leftovers(config);
        return Ok(None);
    };
    let given = wanted.secret.as_deref().map(super::secret::from_file).transpose()?;
    let secret = watch::Sender::new(given);
    let (to_report, report) = watch::channel(Arc::default());
    let (to_counted, counted) = watch::channel(Arc::default());
    let (finish, finished) = oneshot::channel();
    let (queries, for_driver) = mpsc::channel(QUERIES);
    let options = driver::Options {
        node: config.node.clone(),
        uplinks: wanted.uplinks.clone(),
        pins: config.pins.clone(),
        state_dir: config.state_dir.clone(),
        flows: wanted.max_flows,
        best: match wanted.best {
            Datapath::Generic => Step::Generic,
            Datapath::Tcx => Step::Tcx,
            Datapath::Auto | Datapath::Xdp | Datapath::None => Step::Native,
        },
        bypass: wanted.delivery == Delivery::Bypass,
    };
    let channels = driver::Channels {
        planned,
        secret: secret.subscribe(),
        report: to_report,
        counted: to_counted,
        queries: for_driver,
        finish: finished,
    };
    tasks.spawn(TASK, driver::run(options, channels));
    Ok(Some(Path { report, counted, queries, finish, secret }))
}

/// A build without it: the configuration refuses what would need it.
#[cfg(not(feature = "xdp"))]
pub(super) fn start(_: &Config, _: watch::Receiver<Option<Planned>>, _: &mut Tasks) -> anyhow::Result<Option<Path>> {
    Ok(None)
}

#[cfg(feature = "xdp")]
fn remove_leftovers(config: &Config) {
    use crate::datapath::kernel;
    if kernel::is_bpffs(&config.pins)
        && let Err(error) = kernel::remove(&config.pins)
    {
        tracing::warn!(error = %anyhow::Error::new(error), "programs of an earlier packet path may be left");
    }
}

/// Questions that wait at most; who asks one more waits himself.
#[cfg(feature = "xdp")]
const QUERIES: usize = 16;

/// Name of the task.
pub(super) const TASK: &str = "datapath";

/// Waits until programs stand where they will stand: attaching one may blink the link under a session.
pub(super) async fn settled(report: Option<watch::Receiver<Arc<Report>>>) {
    if let Some(mut report) = report {
        // Whoever ended has ended the process as well.
        let _ = report.wait_for(|report| report.settled).await;
    }
}

/// Says in the words of `announce` what `netlink` and the packet path have ready.
pub(super) fn ready(
    on_lo: Option<watch::Receiver<Set<IpAddr>>>,
    report: Option<watch::Receiver<Arc<Report>>>,
    tasks: &mut Tasks,
) -> watch::Receiver<Ready> {
    let (to, from) = watch::channel(Ready::All);
    match (on_lo, report) {
        (Some(ready), _) => follow(ready, to, |addresses| Ready::Only(addresses.clone()), tasks),
        (None, Some(report)) => follow(report, to, |report| of_path(report), tasks),
        (None, None) => {}
    }
    from
}

fn of_path(report: &Report) -> Ready {
    match &report.served {
        Served::Everything => Ready::All,
        Served::Only(addresses) => Ready::Only(addresses.clone()),
    }
}

fn follow<T: Send + Sync + 'static>(
    mut from: watch::Receiver<T>,
    to: watch::Sender<Ready>,
    say: impl Fn(&T) -> Ready + Send + 'static,
    tasks: &mut Tasks,
) {
    to.send_replace(say(&from.borrow_and_update()));
    tasks.spawn("ready", async move {
        while from.changed().await.is_ok() {
            let now = say(&from.borrow_and_update());
            to.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
        Err::<(), _>(anyhow::anyhow!("nothing tells any more which addresses are ready"))
    });
}
