//! Signals: SIGTERM and SIGINT end the daemon as configured.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("install a signal handler");
        Ok(Self { terminate: handler(SignalKind::terminate())?, interrupt: handler(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
