//! The rules of an election, without I/O: what an attempt comes to, and how long a term lasts.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use tokio::time::Instant;

use super::{Election, Timing};

/// What a candidate does about the Lease that it found.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// There is none: create this one.
    Create(Lease),
    /// It is free, expired or ours already: replace it by this one, at its version.
    Replace(Lease),
    /// Somebody else holds it, until this moment at least.
    Wait(Lease, Instant),
}

/// One process that competes, and what it has seen.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(super) election: Election,
    /// resourceVersion of the Lease when it last changed, and when this process saw that.
    seen: Option<(String, Instant)>,
}

impl Rules {
    /// Nothing seen yet.
    pub(crate) fn new(election: Election) -> Self {
        Self { election, seen: None }
    }

    /// What to do about the Lease as it was found.
    pub(crate) fn attempt(&mut self, found: Option<Lease>, now: Instant) -> Attempt {
        let Some(lease) = found else {
            return Attempt::Create(self.claim(Lease {
                metadata: ObjectMeta { name: Some(self.election.name.clone()), ..Default::default() },
                spec: None,
            }));
        };
        let expires = self.expires(&lease, now);
        // "Ours" is a claim whose answer was lost.
        match holder(&lease).is_empty() || self.is_ours(&lease) || expires <= now {
            true => Attempt::Replace(self.claim(lease)),
            false => Attempt::Wait(lease, expires),
        }
    }

    /// When the Lease may be taken: its duration after this process first saw it in this version.
    fn expires(&mut self, lease: &Lease, now: Instant) -> Instant {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or_default();
        since + Duration::from_secs(seconds.max(0).unsigned_abs().into()).max(self.election.timing.lease)
    }

    /// Whether this process holds it.
    pub(crate) fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == self.election.identity
    }

    /// The Lease as it is when we hold it.
    pub(crate) fn claim(&self, mut lease: Lease) -> Lease {
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

    /// The Lease as it is when we have let it go.
    pub(crate) fn released(mut lease: Lease) -> Lease {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        lease
    }
}

/// A term of leading: how long it lasts without another renewal, and when the next one is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    timing: Timing,
    lost: Instant,
    next: Instant,
}

impl Term {
    /// The write that made the Lease ours, or kept it, was sent at this moment.
    pub(crate) fn since(sent: Instant, timing: Timing) -> Self {
        Self { timing, lost: sent + timing.give_up, next: sent + timing.renew }
    }

    /// When to renew, or to stop.
    pub(crate) fn wake(&self) -> Instant {
        self.next.min(self.lost)
    }

    /// It is over: others may be about to take the Lease.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.lost
    }

    /// Until when an answer to a renewal that is sent now is waited for.
    pub(crate) fn limit(&self, sent: Instant) -> Instant {
        self.lost.min(sent + self.timing.retry)
    }

    /// A renewal failed.
    pub(crate) fn again(&mut self, at: Instant) {
        self.next = at;
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}
