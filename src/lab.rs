//! The one-machine demonstration: network namespaces, a router, nodes, clients, traffic, scenarios.

mod args;

pub use args::{Args, DatapathKind, PodArgs, ProviderKind, RouterArgs, RouterKind, ScenarioKind};

/// Runs a scenario. `true` where every expectation held.
///
/// # Errors
/// The lab could not be built or was interrupted; the exit code for it is 2.
pub async fn run(args: Args) -> anyhow::Result<bool> {
    anyhow::bail!("scenario {} cannot be run yet", args::word(args.scenario))
}

/// Serves HTTP as a pod of the lab until it is ended.
///
/// # Errors
/// The port could not be opened.
pub async fn pod(args: PodArgs) -> anyhow::Result<()> {
    anyhow::bail!("pod {} cannot be run yet", args.name)
}

/// Is the top-of-rack router of the lab until it is ended.
///
/// # Errors
/// The speaker or the kernel's routing table could not be opened.
pub async fn router(args: RouterArgs) -> anyhow::Result<()> {
    anyhow::bail!("router of AS {} cannot be run yet", args.asn)
}
