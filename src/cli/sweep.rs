//! `ironcast sweep`: give back what a dead cluster left at a provider.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};

use crate::{
    provider::{
        sweep::{Left, clusters, left, release},
        vendors,
    },
    source::{manifests::Folder, state_file},
};

/// Flags of `ironcast sweep`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Folder with the ProviderConfig and its Secret
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// The ProviderConfig by name; may be left out where there is one only
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,

    /// Mark of the dead cluster: the UID of its namespace kube-system, or the content of .ironcast/cluster-id
    #[arg(long, value_name = "UID")]
    cluster: String,

    /// Release; without it, only say what would be released
    #[arg(long)]
    release: bool,
}

/// Shows what is left, and with `--release` gives it back. `true` where nothing failed.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let mut folder = Folder::new(args.folder.clone());
    folder.scan().with_context(|| format!("read the folder {}", args.folder.display()))?;
    folder.forget_record();
    let snapshot = folder.snapshot().unwrap_or_default();
    let config = match &args.provider {
        Some(name) => snapshot.providers.get(name).with_context(|| format!("there is no ProviderConfig {name}"))?,
        None if snapshot.providers.len() == 1 => snapshot.providers.values().next().context("counted")?,
        None => bail!("the folder has {} ProviderConfigs; name one with --provider", snapshot.providers.len()),
    };
    if state_file::known_cluster_id(&args.folder)?.as_deref() == Some(args.cluster.as_str()) {
        bail!("{} is the mark of this folder itself, which is no dead cluster's", args.cluster);
    }
    let provider = vendors::connect(config).map_err(|problem| anyhow!("{}: {}", problem.reason, problem.message))?;
    let source = provider.addresses.context("this provider gives no addresses")?;
    let leases = source.list().await.context("list the provider's addresses")?;
    let found = left(&leases, &args.cluster);
    if found.is_empty() {
        let others = Vec::from_iter(clusters(&leases)).join(", ");
        let others =
            if others.is_empty() { "there are none of any cluster".into() } else { format!("clusters: {others}") };
        super::print(&format!("no address of cluster {}; {others}\n", args.cluster));
        return Ok(true);
    }
    if !args.release {
        found.iter().for_each(|left| super::print(&format!("would release {}\n", words(left))));
        super::print(&format!("{} addresses; give --release to do it\n", found.len()));
        return Ok(true);
    }
    let (mut done, all) = (0, found.len());
    let released = release(&*source, &found, |left, result| {
        done += 1;
        match result {
            Ok(()) => super::print(&format!("{done}/{all} released {}\n", words(left))),
            Err(error) => super::print(&format!("{done}/{all} kept {}: {error}\n", words(left))),
        }
    })
    .await;
    super::print(&format!("{released} of {all} addresses released\n"));
    Ok(released == all)
}

fn words(left: &Left) -> String {
    let service = left.marks.service.as_ref().map(|service| format!(" of Service {service}")).unwrap_or_default();
    let assigned = left.assigned.as_ref().map(|to| format!(", assigned to {to}")).unwrap_or_default();
    format!("{} (lease {}, claim {}){service}{assigned}", left.network, left.lease, left.marks.claim)
}
