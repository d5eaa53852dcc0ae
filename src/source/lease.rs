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

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams, WatchParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::kubernetes::backoff::jitter;

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
    let mut candidate = Candidate { api, election, seen: None };
    while let Some(held) = stop.run_until_cancelled(candidate.acquire()).await {
        info!(lease = candidate.election.name, identity = candidate.election.identity, "leading");
        leader.send_replace(true);
        let last = candidate.hold(held, &stop).await;
        leader.send_replace(false);
        match last {
            Some(lease) => candidate.release(lease).await,
            None => warn!(
                lease = candidate.election.name,
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
    election: Election,
    /// resourceVersion of the Lease when it last changed, and when this process saw that.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    async fn acquire(&mut self) -> Held {
        loop {
            let sent = Instant::now();
            match timeout(self.election.timing.retry, self.attempt()).await {
                Ok(Ok(Ok(lease))) => return Held { lease, sent },
                Ok(Ok(Err((other, expires)))) => self.wait_for_change(&other, expires).await,
                Ok(Err(error)) if is_conflict(&error) => debug!("another candidate was faster"),
                Ok(Err(error)) => {
                    debug!(%error, "the Lease cannot be read or taken");
                    sleep(jitter(self.election.timing.retry)).await;
                }
                Err(_) => debug!("the API server does not answer"),
            }
        }
    }

    /// The Lease, ours now; or somebody else's and until when.
    async fn attempt(&mut self) -> kube::Result<Result<Lease, (Lease, Instant)>> {
        let Some(lease) = self.api.get_opt(&self.election.name).await? else {
            let lease = self.claim(Lease {
                metadata: ObjectMeta { name: Some(self.election.name.clone()), ..Default::default() },
                spec: None,
            });
            return self.api.create(&PostParams::default(), &lease).await.map(Ok);
        };
        let expires = self.expires(&lease);
        let holder = holder(&lease);
        // "Ours" is a claim whose answer was lost.
        if holder.is_empty() || holder == self.election.identity || expires <= Instant::now() {
            let lease = self.claim(lease);
            return self.api.replace(&self.election.name, &PostParams::default(), &lease).await.map(Ok);
        }
        Ok(Err((lease, expires)))
    }

    /// When the Lease may be taken: its duration after this process first saw it in this version.
    fn expires(&mut self, lease: &Lease) -> Instant {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or_default();
        since + Duration::from_secs(seconds.max(0).unsigned_abs().into()).max(self.election.timing.lease)
    }

    /// Returns on the first change after this version, or when it has expired.
    async fn wait_for_change(&self, lease: &Lease, expires: Instant) {
        let version = lease.metadata.resource_version.as_deref().unwrap_or("0");
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.election.name));
        let change = async {
            let events = self.api.watch(&params, version).await?.boxed();
            events
                .try_filter(|event| futures::future::ready(!matches!(event, kube::api::WatchEvent::Bookmark(_))))
                .next()
                .await
                .transpose()
        };
        if let Ok(Err(error)) = timeout_at(expires, change).await {
            debug!(%error, "the Lease cannot be watched");
            sleep(jitter(self.election.timing.retry)).await;
        }
    }

    /// Renews until `stop` (the Lease to release) or until it is lost (`None`).
    async fn hold(&mut self, held: Held, stop: &CancellationToken) -> Option<Lease> {
        let Timing { give_up, renew, retry, .. } = self.election.timing;
        let Held { mut lease, sent } = held;
        let (mut lost, mut next) = (sent + give_up, sent + renew);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Some(lease),
                () = sleep_until(next.min(lost)) => {}
            }
            let sent = Instant::now();
            if sent >= lost {
                return None;
            }
            match timeout_at(lost.min(sent + retry), self.renew(lease.clone())).await {
                Ok(Ok(Some(renewed))) => (lease, lost, next) = (renewed, sent + give_up, sent + renew),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => {
                    warn!(%error, "the Lease was not renewed; trying again");
                    next = Instant::now() + retry / 2;
                }
                Err(_) => next = Instant::now(),
            }
        }
    }

    /// The Lease renewed, or `None` where somebody else holds it.
    async fn renew(&self, lease: Lease) -> kube::Result<Option<Lease>> {
        let (name, params) = (&self.election.name, PostParams::default());
        match self.api.replace(name, &params, &self.claim(lease)).await {
            Err(error) if is_conflict(&error) => {}
            answer => return answer.map(Some),
        }
        // Somebody wrote it: another holder, or a person who added a label.
        match self.api.get_opt(name).await? {
            Some(lease) if holder(&lease) == self.election.identity => {
                self.api.replace(name, &params, &self.claim(lease)).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn release(&self, mut lease: Lease) {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        let params = PostParams::default();
        let answer = timeout(self.election.timing.retry, self.api.replace(&self.election.name, &params, &lease)).await;
        debug!(released = matches!(answer, Ok(Ok(_))), "stopped leading");
    }

    /// The Lease as it is when we hold it.
    fn claim(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.election.identity) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(-1) + 1);
        }
        spec.holder_identity = Some(self.election.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.election.timing.lease.as_secs().max(1)).ok();
        spec.renew_time = Some(now);
        lease
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
