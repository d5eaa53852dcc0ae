//! `ironcast router-config`: the router's side of the peering, from a cluster or a folder of manifests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::{sync::watch, time::timeout};

use super::asked::Way;
use crate::{
    router_config::{Language, Site, render},
    source::{kubernetes, manifests::Folder},
    types::Snapshot,
};

/// A cluster shows everything within this, or there is something wrong with the way to it.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// Flags of `ironcast router-config`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The router's language
    #[arg(long = "for", value_enum, value_name = "ROUTER")]
    language: Language,

    /// The BGPPeers that are this router; may be given more than once [default: all]
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,

    /// Read the folder that `ironcast run --manifests` reads, instead of a cluster
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    manifests: Option<PathBuf>,

    #[command(flatten)]
    way: Way,
}

/// Prints the configuration.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let snapshot = match &args.manifests {
        Some(dir) => folder(dir.clone())?,
        None => cluster(&args).await?,
    };
    super::print(&render(&Site::new(&snapshot, &args.peer)?, args.language));
    Ok(true)
}

fn folder(dir: PathBuf) -> anyhow::Result<Arc<Snapshot>> {
    let mut folder = Folder::new(dir.clone());
    folder.scan().with_context(|| format!("read the folder {}", dir.display()))?;
    // What is recorded does not matter to a router.
    folder.forget_record();
    folder.snapshot().map(Arc::new).context("read the folder")
}

/// What the daemon would see, once.
async fn cluster(args: &Args) -> anyhow::Result<Arc<Snapshot>> {
    let client = args.way.open("find a cluster: give --kubeconfig FILE or --manifests DIR").await?;
    let (seen, mut snapshots) = watch::channel(None);
    let (_follower, no_tokens) = watch::channel(false);
    let first = async {
        tokio::select! {
            ended = kubernetes::run(client, &args.way.namespace, None, no_tokens, seen) => ended.map(|never| match never {}).map_err(Into::into),
            snapshot = snapshots.wait_for(Option::is_some) => {
                Ok(snapshot.ok().and_then(|snapshot| snapshot.clone()).context("the cluster was not seen")?)
            }
        }
    };
    match timeout(SEEN_WITHIN, first).await {
        Ok(snapshot) => snapshot,
        Err(_) => bail!(
            "the cluster did not show Services, Nodes and our resources within {} s: see that you may list them",
            SEEN_WITHIN.as_secs()
        ),
    }
}
