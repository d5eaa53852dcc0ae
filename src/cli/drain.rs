//! `ironcast drain`: the local daemon withholds everything, and stays so over restarts until `--undo`.

use std::time::{Duration, Instant};

use hyper::Method;

use super::Target;
use crate::{
    admin::client::{ask, state},
    types::{LeavingState, NodeState},
};

/// How often the daemon is asked whether it is done.
const PACE: Duration = Duration::from_millis(200);

/// Flags of `ironcast drain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,

    /// Announce again
    #[arg(long)]
    undo: bool,

    /// Give up, with exit code 1, after so many seconds; the node keeps draining
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

/// Drains and waits until nothing is announced. `false` if something still is when the time is up.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let socket = &args.target.socket;
    if args.undo {
        ask(socket, Method::DELETE, "/drain").await?;
        println!("{} announces again", state(socket).await?.node);
        return Ok(true);
    }
    ask(socket, Method::POST, "/drain").await?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut told = None;
    loop {
        let state = state(socket).await?;
        let left = announced(&state);
        let now = progress(&state, left);
        if told.as_ref() != Some(&now) {
            eprintln!("{now}");
            told = Some(now);
        }
        if state.draining && left == 0 {
            println!("{} announces nothing; `ironcast drain --undo` ends it", state.node);
            return Ok(true);
        }
        if Instant::now() >= deadline {
            println!("{} still announces {left} prefixes; it keeps draining", state.node);
            return Ok(false);
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A line for whoever waits.
fn progress(state: &NodeState, left: usize) -> String {
    let does = match state.leaving {
        Some(LeavingState::GracefulShutdown) => "asks routers to turn to others (graceful-shutdown)",
        Some(LeavingState::Withdrawing) => "withdraws",
        Some(LeavingState::Drained) => "has withdrawn",
        None => "begins to drain",
    };
    format!("{} {does}, {left} prefixes announced", state.node)
}

fn announced(state: &NodeState) -> usize {
    state.sessions.iter().map(|s| s.advertised).sum()
}
