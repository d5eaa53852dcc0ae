//! What nodes and the leader write to the API server, but for claims (`claims`) and what providers say of machines (`fleet`).
//!
//! | who | what | task |
//! |---|---|---|
//! | the leader | `status.loadBalancer` of Services, Events about them | [`record`] |
//! | the leader | use of pools, condition `Valid` of our resources, Events about refused objects | [`record`] |
//! | every node | its own `BGPNodeStatus` | [`report`] |
//!
//! Both tasks work from the newest state and not from a queue of changes, so that a slow API server costs time and
//! no memory; what did not succeed is tried again, and compared with the server from time to time. Every write has a
//! deadline shorter than the time between a leader's stopping and another's starting, and names the version that it was
//! decided on.
//!
//! Addresses of pools need no finalizer: they are recorded in the Service alone, so a Service that is gone has
//! given them back. A Service that is no longer of type LoadBalancer has its status cleared by the API server.

mod disputes;
mod events;
pub(crate) mod node;
pub(crate) mod record;
mod resources;
mod services;

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use self::{events::Events, node::NodeReport, resources::Resources, services::Services};
pub use super::api::Totals;
use super::kubernetes::{
    backoff::{Backoff, jitter},
    rights::Rights,
};
pub use node::{ENTRIES, Excerpt};

use crate::plan::Planned;

/// A write that takes longer has failed. Shorter than `lease - give_up` of an election.
const DEADLINE: Duration = Duration::from_secs(4);
/// Waits after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What was written is compared with the server so often, give or take a quarter.
const REPAIR: Duration = Duration::from_secs(600);
/// Between two writes of a node's status: one whose lists are cut is hundreds of kilobytes, and an API server's work.
const NODE_INTERVALS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the object changed meanwhile")]
    Conflict,
    #[error("the object is gone")]
    Gone,
    #[error(transparent)]
    Refused(kube::Error),
    #[error("nobody knows whether it was written")]
    Unknown(#[source] Box<WriteError>),
}

impl WriteError {
    /// The failure of a request that changes something: without an answer it may have been carried out.
    fn of_change(self) -> Self {
        match self {
            Self::Refused(kube::Error::Api(_)) | Self::Conflict | Self::Gone | Self::Unknown(_) => self,
            Self::Late(_) | Self::Refused(_) => Self::Unknown(Box::new(self)),
        }
    }
}

impl WriteError {
    /// What the API server said, where it answered.
    fn answer(&self) -> Option<&kube::Error> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Unknown(error) => error.answer(),
            Self::Late(_) | Self::Conflict | Self::Gone => None,
        }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::Gone,
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            _ => Self::Refused(error),
        }
    }
}

/// A request with a deadline.
async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    Ok(timeout(DEADLINE, request).await.map_err(|_| WriteError::Late(DEADLINE))??)
}

/// Records what the plan gives, while `leader` says so. Our resources are those of `namespace`, `node` is shown
/// as the reporter of Events. Runs until cancelled.
pub async fn record(
    client: Client,
    namespace: &str,
    node: &str,
    mut plans: Receiver<Option<Planned>>,
    mut leader: Receiver<bool>,
) -> Infallible {
    let events = Events::start(client.clone(), node);
    let mut services = Services::new(client.clone(), leader.clone(), events.sender());
    let mut resources = Resources::new(client, namespace, events.sender());
    let (mut retry, mut rights) = (Backoff::new(RETRY.0, RETRY.1), Rights::default());
    let mut wake = Instant::now() + jitter(REPAIR);
    loop {
        let due = tokio::select! {
            Ok(()) = plans.changed() => false,
            Ok(()) = leader.changed() => false,
            () = sleep_until(wake) => true,
        };
        wake = Instant::now() + jitter(REPAIR);
        if !*leader.borrow_and_update() {
            (services, resources) = (services.forget(), resources.forget());
            continue;
        }
        let Some(planned) = plans.borrow_and_update().clone() else { continue };
        let (recorded, shown) = (services.record(&planned).await, resources.show(&planned, due).await);
        match recorded.and(shown) {
            Ok(()) => {
                retry.reset();
                rights.forget();
                wake = services.waits_until().map_or(wake, |until| until.min(wake));
            }
            Err(error) => {
                error.answer().into_iter().for_each(|answer| rights.complain(answer));
                debug!(%error, "not everything was written; trying again");
                wake = Instant::now() + retry.wait();
            }
        }
    }
}

/// Writes this node's `BGPNodeStatus` when the state differs from what was written. Runs until cancelled.
pub async fn report(
    client: Client,
    namespace: &str,
    node: &str,
    mut states: Receiver<Option<Arc<Excerpt>>>,
) -> Infallible {
    let mut report = NodeReport::new(client, namespace, node);
    let (mut retry, mut rights) = (Backoff::new(RETRY.0, RETRY.1), Rights::default());
    let mut wake = Instant::now() + jitter(REPAIR);
    loop {
        tokio::select! {
            Ok(()) = states.changed() => {}
            () = sleep_until(wake) => report.forget(),
        }
        wake = Instant::now() + jitter(REPAIR);
        let Some(state) = states.borrow_and_update().clone() else { continue };
        match report.write(&state).await {
            Ok(false) => continue,
            Ok(true) => {
                retry.reset();
                rights.forget();
            }
            Err(error) => {
                error.answer().into_iter().for_each(|answer| rights.complain(answer));
                debug!(%error, "the node's status was not written; trying again");
                wake = Instant::now() + retry.wait();
            }
        }
        // Sessions that come and go are one write, not ten.
        tokio::time::sleep(if state.is_cut() { NODE_INTERVALS.1 } else { NODE_INTERVALS.0 }).await;
    }
}
