//! Who leads: one `coordination.k8s.io` Lease, taken and kept by compare-and-swap on its resourceVersion.
//!
//! ```text
//!  candidate ──free, expired or released──▶ leader ──renewal every 5 s──▶ leader
//!      ▲                                     │ 10 s without a renewal, or somebody else holds it
//!      └─────────────────────────────────────┘
//! ```
//!
//! The order of the times is the safety property. Others wait [`Timing::lease`] from the moment at which *they* saw
//! the last renewal, which is later than the moment at which the leader sent it; the leader stops
//! [`Timing::give_up`] after sending it. `lease - give_up` is what a write that was under way may still take.
//! Clocks of different machines are never compared.

pub(crate) mod rules;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{PostParams, WatchParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::rules::{Attempt, Rules, Term};
use super::kubernetes::{backoff::jitter, rights::Rights};

/// What is competed for, and by whom.
#[derive(Debug, Clone)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Unique to this process: two processes with one identity would both lead.
    pub identity: String,
    /// Times.
    pub timing: Timing,
}

/// Times of an election.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Others take the Lease so long after they saw the last renewal.
    pub lease: Duration,
    /// The leader stops so long after it sent the last renewal that was accepted; shorter than `lease`.
    pub give_up: Duration,
    /// Time between renewals.
    pub renew: Duration,
    /// Time between attempts that failed, and the limit of each.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), give_up: seconds(10), renew: seconds(5), retry: seconds(2) }
    }
}

/// Competes until `stop`, then releases the Lease if it is held. `leader` says whether this process leads.
pub async fn elect(client: Client, election: Election, leader: watch::Sender<bool>, stop: CancellationToken) {
    let api = Api::namespaced(client, &election.namespace);
    let mut candidate = Candidate { api, rules: Rules::new(election), rights: Rights::default() };
    while let Some(held) = stop.run_until_cancelled(candidate.acquire()).await {
        info!(lease = candidate.rules.election.name, identity = candidate.rules.election.identity, "leading");
        leader.send_replace(true);
        let last = candidate.hold(held, &stop).await;
        leader.send_replace(false);
        match last {
            Some(lease) => candidate.release(lease).await,
            None => warn!(
                lease = candidate.rules.election.name,
                "no longer leading; another node takes over or this one tries again"
            ),
        }
    }
}

/// The Lease with the moment at which the write that made it ours was sent.
struct Held {
    lease: Lease,
    sent: Instant,
}

struct Candidate {
    api: Api<Lease>,
    rules: Rules,
    rights: Rights,
}

impl Candidate {
    async fn acquire(&mut self) -> Held {
        loop {
            let sent = Instant::now();
            match timeout(self.rules.election.timing.retry, self.attempt()).await {
                Ok(Ok(Ok(lease))) => return Held { lease, sent },
                Ok(Ok(Err((other, expires)))) => self.wait_for_change(&other, expires).await,
                Ok(Err(error)) if is_conflict(&error) => debug!("another candidate was faster"),
                Ok(Err(error)) => {
                    self.rights.complain(&error);
                    debug!(%error, "the Lease cannot be read or taken");
                    sleep(jitter(self.rules.election.timing.retry)).await;
                }
                Err(_) => debug!("the API server does not answer"),
            }
        }
    }

    /// The Lease, ours now; or somebody else's and until when.
    async fn attempt(&mut self) -> kube::Result<Result<Lease, (Lease, Instant)>> {
        let params = PostParams::default();
        let found = self.api.get_opt(&self.rules.election.name).await?;
        match self.rules.attempt(found, Instant::now()) {
            Attempt::Create(lease) => self.api.create(&params, &lease).await.map(Ok),
            Attempt::Replace(lease) => self.api.replace(&self.rules.election.name, &params, &lease).await.map(Ok),
            Attempt::Wait(lease, expires) => Ok(Err((lease, expires))),
        }
    }

    /// Returns on the first change after this version, or when it has expired.
    async fn wait_for_change(&mut self, lease: &Lease, expires: Instant) {
        let version = lease.metadata.resource_version.as_deref().unwrap_or("0");
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.rules.election.name));
        let change = async {
            let events = self.api.watch(&params, version).await?.boxed();
            events
                .try_filter(|event| futures::future::ready(!matches!(event, kube::api::WatchEvent::Bookmark(_))))
                .next()
                .await
                .transpose()
        };
        if let Ok(Err(error)) = timeout_at(expires, change).await {
            self.rights.complain(&error);
            debug!(%error, "the Lease cannot be watched");
            sleep(jitter(self.rules.election.timing.retry)).await;
        }
    }

    /// Renews until `stop` (the Lease to release) or until it is lost (`None`).
    async fn hold(&mut self, held: Held, stop: &CancellationToken) -> Option<Lease> {
        let timing = self.rules.election.timing;
        let Held { mut lease, sent } = held;
        let mut term = Term::since(sent, timing);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Some(lease),
                () = sleep_until(term.wake()) => {}
            }
            let sent = Instant::now();
            if term.is_over(sent) {
                return None;
            }
            match timeout_at(term.limit(sent), self.renew(lease.clone())).await {
                Ok(Ok(Some(renewed))) => (lease, term) = (renewed, Term::since(sent, timing)),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => {
                    warn!(%error, "the Lease was not renewed; trying again");
                    term.again(Instant::now() + timing.retry / 2);
                }
                Err(_) => term.again(Instant::now()),
            }
        }
    }

    /// The Lease renewed, or `None` where somebody else holds it.
    async fn renew(&self, lease: Lease) -> kube::Result<Option<Lease>> {
        let (name, params) = (&self.rules.election.name, PostParams::default());
        match self.api.replace(name, &params, &self.rules.claim(lease)).await {
            Err(error) if is_conflict(&error) => {}
            answer => return answer.map(Some),
        }
        // Somebody wrote it: another holder, or a person who added a label.
        match self.api.get_opt(name).await? {
            Some(lease) if self.rules.is_ours(&lease) => {
                self.api.replace(name, &params, &self.rules.claim(lease)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn release(&self, lease: Lease) {
        let (election, params, lease) = (&self.rules.election, PostParams::default(), Rules::released(lease));
        let answer = timeout(election.timing.retry, self.api.replace(&election.name, &params, &lease)).await;
        debug!(released = matches!(answer, Ok(Ok(_))), "stopped leading");
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
