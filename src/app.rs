//! Joins the modules with channels; start-up and shutdown order.

use crate::config::Config;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// A task ended that must not, or the runtime could not be started.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _ = config;
    anyhow::bail!("the daemon is not wired yet")
}
