//! Another controller that writes the record of a Service of ours. Writing back at once would be a race of two
//! controllers for ever; each time that our record was changed, the next attempt waits longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use tokio::time::Instant;

use crate::types::ServiceKey;

/// Our name among the writers of an object.
pub(super) const MANAGER: &str = "ironcast";
/// The first wait and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What we recorded, and who changed it since.
#[derive(Debug, Default)]
pub(super) struct Disputes {
    recorded: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    open: BTreeMap<ServiceKey, Dispute>,
}

#[derive(Debug)]
struct Dispute {
    times: u32,
    until: Instant,
}

impl Disputes {
    /// We wrote this.
    pub(super) fn record(&mut self, key: &ServiceKey, addresses: BTreeSet<IpAddr>) {
        self.recorded.insert(key.clone(), addresses);
    }

    /// Services that are gone are nobody's.
    pub(super) fn retain(&mut self, is_there: impl Fn(&ServiceKey) -> bool) {
        self.recorded.retain(|key, _| is_there(key));
        self.open.retain(|key, _| is_there(key));
    }

    /// Whether the record must wait. `now_there` differs from `wanted`; where we wrote just that before, somebody else
    /// changed it.
    pub(super) fn must_wait(&mut self, key: &ServiceKey, wanted: &BTreeSet<IpAddr>, now: Instant) -> bool {
        if self.recorded.get(key) != Some(wanted) {
            self.open.remove(key);
            return false;
        }
        let dispute = self.open.entry(key.clone()).or_insert(Dispute { times: 0, until: now });
        now < dispute.until
    }

    /// We wrote over what somebody else had written: how often that was, and whether there is a dispute at all.
    pub(super) fn overwritten(&mut self, key: &ServiceKey, now: Instant) -> Option<u32> {
        let dispute = self.open.get_mut(key)?;
        dispute.times += 1;
        let wait = WAITS.0.saturating_mul(1 << dispute.times.min(16)).min(WAITS.1);
        dispute.until = now + wait;
        Some(dispute.times)
    }

    /// When the next Service need not wait any longer.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.open.values().map(|dispute| dispute.until).filter(|until| *until > now).min()
    }
}

/// Who wrote the status last, if not we.
pub(super) fn writer(service: &Service) -> Option<&str> {
    let entries = service.metadata.managed_fields.iter().flatten();
    let status = entries.filter(|entry| entry.subresource.as_deref() == Some("status"));
    let last = status.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    last.manager.as_deref().filter(|manager| *manager != MANAGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_that_another_controller_changes_is_written_back_ever_more_slowly() {
        let (key, mut disputes, mut now) = (ServiceKey::new("a", "b"), Disputes::default(), Instant::now());
        let ours: BTreeSet<IpAddr> = ["192.0.2.1".parse().expect("an address")].into();
        assert!(!disputes.must_wait(&key, &ours, now), "nothing was recorded");
        assert_eq!(disputes.overwritten(&key, now), None);
        disputes.record(&key, ours.clone());
        for times in 1..=12 {
            assert!(!disputes.must_wait(&key, &ours, now));
            assert_eq!(disputes.overwritten(&key, now), Some(times));
            assert!(disputes.must_wait(&key, &ours, now));
            let next = disputes.next(now).expect("it waits");
            assert_eq!(next - now, Duration::from_secs(1 << times.min(16)).min(WAITS.1));
            now = next;
        }
        let other: BTreeSet<IpAddr> = ["192.0.2.2".parse().expect("an address")].into();
        assert!(!disputes.must_wait(&key, &other, now), "what we want is news");
    }
}
