//! Starts the source that was configured, and what writes back to it.

use std::{convert::Infallible, path::Path, sync::Arc};

use anyhow::Context;
use futures::FutureExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{claims, secret, tasks::Tasks, view::View};
use crate::{
    config::{Config, SourceConfig},
    plan::Planned,
    provider::vendors,
    source::{kubernetes, lease, manifests, state_file, status},
    types::Snapshot,
};

/// Name of the task that wants to be told to end, so that a successor leads at once.
pub(super) const LEADER: &str = "leader";

/// How a source is joined to the rest.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    pub(super) planned: watch::Receiver<Option<Planned>>,
    pub(super) leader: watch::Sender<bool>,
    pub(super) view: Arc<View>,
    pub(super) stop: CancellationToken,
    /// Where the packet path waits for the secret of the cluster, if it does.
    pub(super) secret: Option<watch::Sender<Option<[u8; 32]>>>,
    pub(super) claims: claims::Channels,
}

/// Starts its tasks. The client of the cluster, where there is one.
pub(super) async fn start(
    config: &Config,
    channels: Channels,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<kube::Client>> {
    match &config.source {
        SourceConfig::Manifests(dir) => {
            folder(dir, config, channels, tasks);
            Ok(None)
        }
        SourceConfig::Kubernetes { kubeconfig } => {
            let client = connect(kubeconfig.as_deref()).await?;
            cluster(client.clone(), config, channels, tasks);
            Ok(Some(client))
        }
    }
}

fn folder(dir: &Path, config: &Config, channels: Channels, tasks: &mut Tasks) {
    let Channels { snapshots, planned, leader, stop, secret, claims, .. } = channels;
    claims::from_folder(dir.into(), vendors::shared(None), claims, tasks);
    if let Some(secret) = secret.filter(|secret| secret.borrow().is_none()) {
        tasks.spawn("secret", secret::from_folder(dir.into(), leader.subscribe(), secret));
    }
    tasks.spawn(LEADER, state_file::lead(dir.into(), config.node.clone(), planned, leader, stop));
    tasks.spawn("source", manifests::run(dir.into(), snapshots).map(|result| result.map(|never| match never {})));
}

/// A client of the API server: with this kubeconfig, or as the pod's service account.
///
/// # Errors
/// Neither is there, or the file cannot be used.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("read --kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use --kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster().context(
            "find an API server: outside a cluster give --kubeconfig FILE, or --manifests DIR to work without one",
        )?,
    };
    kube::Client::try_from(config).context("make a client of the API server")
}

fn cluster(client: kube::Client, config: &Config, channels: Channels, tasks: &mut Tasks) {
    let election = lease::Election {
        namespace: config.namespace.clone(),
        name: "ironcast".into(),
        identity: format!("{}_{}_{:08x}", config.node, std::process::id(), start_time()),
        timing: lease::Timing::default(),
    };
    if let Some(secret) = channels.secret.filter(|secret| secret.borrow().is_none()) {
        tasks.spawn("secret", secret::from_cluster(client.clone(), config.state_dir.clone(), secret));
    }
    let connect = vendors::shared(Some((client.clone(), config.namespace.clone())));
    claims::from_cluster(client.clone(), &config.namespace, connect, channels.claims, tasks);
    let (leads, for_source) = (channels.leader.subscribe(), channels.leader.subscribe());
    let (confirmed, stop) = (confirmed(channels.snapshots.subscribe()), channels.stop);
    let (elector, leader) = (client.clone(), channels.leader);
    let elect = async move {
        tokio::select! {
            () = confirmed => lease::elect(elector, election, leader, stop.clone()).await,
            () = stop.cancelled() => {}
        }
    };
    tasks.spawn(LEADER, elect.map(Ok::<(), Infallible>));
    let (api, at) = (client.clone(), Arc::<str>::from(config.namespace.clone()));
    let (snapshots, namespace) = (channels.snapshots, at.clone());
    let saved = config.state_dir.clone();
    tasks.spawn("source", async move {
        kubernetes::run(api, &namespace, Some(&saved), for_source, snapshots).await.map(|never| match never {})
    });
    let (api, namespace, node) = (client.clone(), at.clone(), config.node.clone());
    let planned = channels.planned;
    tasks.spawn("record", async move { endless(status::record(api, &namespace, &node, planned, leads).await) });
    let (states, for_report) = watch::channel(None);
    tasks.spawn("view", channels.view.publish(states).map(endless));
    let node = config.node.clone();
    tasks.spawn("report", async move { endless(status::report(client, &at, &node, for_report).await) });
}

/// Until the API server itself has told everything: who leads by what was saved could give an address twice.
async fn confirmed(mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>) {
    if snapshots.wait_for(|snapshot| snapshot.as_ref().is_some_and(|snapshot| !snapshot.saved)).await.is_err() {
        std::future::pending().await
    }
}

fn endless(never: Infallible) -> Result<(), Infallible> {
    match never {}
}

/// Tells two processes of one id apart: two containers of a node have the same.
fn start_time() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}
