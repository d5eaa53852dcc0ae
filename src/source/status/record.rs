//! What the leader knows of its own records, and what it writes next: pure.
//!
//! ```text
//!  read (a new leader) ─▶ unseen ◀── wrote ── decide (the object as it is) ◀── due (plan and snapshot)
//!                           └─ see: the watch has shown it, or it is waited for no longer
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::disputes::Disputes;
use crate::{
    plan::{Allocated, Allocations, Desired},
    types::{Map, Service as Kept, ServiceKey, Snapshot},
};

/// A write that the watch has not shown after so long is no longer waited for.
const UNSEEN: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Recorded, not yet seen in a snapshot.
    unseen: BTreeMap<ServiceKey, Unseen>,
    /// What was recorded before this process led has been read.
    caught_up: bool,
    /// What other controllers changed.
    disputes: Disputes,
    /// Services and allocations that do not differ: while they are the same nothing is due.
    settled: Option<(Map<ServiceKey, Arc<Kept>>, Allocations)>,
}

#[derive(Debug)]
struct Unseen {
    addresses: BTreeSet<IpAddr>,
    until: Instant,
    /// The watch has shown the Service: where it is absent now it was deleted.
    known: bool,
}

/// One Service whose record differs from the plan.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) key: ServiceKey,
    pub(crate) uid: String,
    pub(crate) before: Vec<IpAddr>,
    pub(crate) after: Vec<IpAddr>,
}

/// What to do about a change, given the object as it is now.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is another Service of the name.
    Gone,
    /// The record is not what the plan was made of: nothing is written, and it has these.
    Outdated(Vec<IpAddr>),
    /// Merge this into the object's status.
    Write(Value),
}

impl Record {
    /// What was recorded before this process led must be read first.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up
    }

    /// What the last leader recorded.
    pub(crate) fn catch_up<'a>(&mut self, services: impl IntoIterator<Item = &'a Service>, now: Instant) {
        for service in services {
            let addresses: BTreeSet<IpAddr> = addresses(service).into_iter().collect();
            let metadata = &service.metadata;
            let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
            let key = ServiceKey::new(namespace.unwrap_or_default(), name.unwrap_or_default());
            if !addresses.is_empty() {
                self.unseen.insert(key, Unseen { addresses, until: now + UNSEEN, known: false });
            }
        }
        self.caught_up = true;
    }

    /// Takes what the watch has shown off what is waited for. Whether everything was seen: only then may be written.
    pub(crate) fn see(&mut self, snapshot: &Snapshot, now: Instant) -> bool {
        self.unseen.retain(|key, unseen| {
            let shown = snapshot.services.get(key);
            let seen = shown.map_or(unseen.known, |service| set(&service.assigned) == unseen.addresses);
            !seen && now < unseen.until
        });
        self.unseen.is_empty()
    }

    /// What differs between the plan and what it was made of, in two batches: addresses go back before others get them.
    pub(crate) fn due(&mut self, snapshot: &Snapshot, desired: &Desired, now: Instant) -> [Vec<Change>; 2] {
        let (services, allocations) = (&snapshot.services, &desired.allocations);
        let settled = self.settled.as_ref();
        if settled.is_some_and(|(before, given)| before.is(services) && Arc::ptr_eq(given, allocations)) {
            return [Vec::new(), Vec::new()];
        }
        self.disputes.retain(|key| services.contains_key(key));
        let mut changes = changes(snapshot, desired);
        self.settled = changes.is_empty().then(|| (services.clone(), allocations.clone()));
        changes.retain(|change| !self.disputes.must_wait(&change.key, &set(&change.after), now));
        let (clears, gives) = changes.into_iter().partition(|change| change.after.is_empty());
        [clears, gives]
    }

    /// The Service has these after the attempt. Whether they are those of the change, and how often somebody else's were
    /// written over.
    pub(crate) fn wrote(&mut self, change: &Change, addresses: &[IpAddr], now: Instant) -> (bool, Option<u32>) {
        let (written, until) = (set(addresses) == set(&change.after), now + UNSEEN);
        self.unseen.insert(change.key.clone(), Unseen { addresses: set(addresses), until, known: true });
        let times = self.disputes.overwritten(&change.key, now);
        if written {
            self.disputes.record(&change.key, set(&change.after));
        }
        (written, times)
    }

    /// Nobody knows whether a change was written: what is recorded is read again before anything else is.
    pub(crate) fn unknown(&mut self) {
        self.caught_up = false;
    }

    /// When to go on although a record was never seen, or although another controller changed it; `None` where neither
    /// is so.
    pub(crate) fn waits_until(&self, now: Instant) -> Option<Instant> {
        let disputed = self.disputes.next(now);
        self.unseen.values().map(|unseen| unseen.until).chain(disputed).min()
    }
}

impl Change {
    /// What to do, given the Service as the API server has it.
    pub(crate) fn decide(&self, service: &Service) -> Decision {
        if service.metadata.uid.as_deref() != Some(&self.uid) {
            return Decision::Gone;
        }
        let now = addresses(service);
        if now != self.before {
            return Decision::Outdated(now);
        }
        let ingress: Vec<_> = self.after.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
        Decision::Write(json!({
            "metadata": { "resourceVersion": service.metadata.resource_version },
            "status": { "loadBalancer": { "ingress": ingress } },
        }))
    }
}

fn changes(snapshot: &Snapshot, desired: &Desired) -> Vec<Change> {
    let change = |(key, allocated): (&ServiceKey, &Allocated)| {
        let service = snapshot.services.get(key)?;
        let after = match allocated {
            Allocated::Addresses { addresses, .. } => addresses.clone(),
            Allocated::Pending { .. } | Allocated::Released => Vec::new(),
        };
        let before = service.assigned.clone();
        let (key, uid) = (key.clone(), service.uid.clone());
        (before != after && !service.deleting).then_some(Change { key, uid, before, after })
    };
    desired.allocations.iter().filter_map(change).collect()
}

fn set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
}

/// `status.loadBalancer.ingress[].ip`, as `Service.assigned` has it.
pub(crate) fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|lb| lb.ingress.iter().flatten());
    ingress.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FamilyPolicy, TrafficPolicy};

    fn desired(address: &str) -> Desired {
        let addresses = vec![address.parse().expect("an address")];
        let allocated = Allocated::Addresses { addresses, pool: "main".into() };
        Desired { allocations: Arc::new([(ServiceKey::new("a", "web"), allocated)].into()), ..Desired::default() }
    }

    #[test]
    fn what_was_settled_is_due_again_when_a_service_or_its_allocation_changes() {
        let (mut record, now) = (Record::default(), Instant::now());
        let (had, given) = (snapshot(&["192.0.2.1"]), desired("192.0.2.1"));
        let mut due = |had: &Snapshot, given: &Desired| record.due(had, given, now).concat().len();
        assert_eq!((due(&had, &given), due(&had, &given)), (0, 0));
        assert_eq!(due(&snapshot(&["192.0.2.2"]), &given), 1, "somebody else wrote it");
        assert_eq!((due(&had, &given), due(&had, &desired("192.0.2.3"))), (0, 1), "the plan changed");
    }

    fn snapshot(assigned: &[&str]) -> Snapshot {
        let key = ServiceKey::new("a", "web");
        let service = Kept {
            key: key.clone(),
            uid: "1".into(),
            labels: BTreeMap::new(),
            load_balancer: true,
            deleting: false,
            class: None,
            families: Vec::new(),
            family_policy: FamilyPolicy::SingleStack,
            traffic_policy: TrafficPolicy::Cluster,
            ports: Vec::new(),
            selector: BTreeMap::new(),
            affinity: None,
            source_ranges: false,
            requested_addresses: Vec::new(),
            requested_pool: None,
            sharing_key: None,
            assigned: assigned.iter().map(|address| address.parse().expect("an address")).collect(),
            created: 0,
        };
        Snapshot { services: [(key, Arc::new(service))].into(), ..Snapshot::default() }
    }

    /// As the API server has it.
    fn recorded(address: &str) -> Service {
        let json = json!({
            "metadata": { "namespace": "a", "name": "web", "uid": "1" },
            "status": { "loadBalancer": { "ingress": [{ "ip": address }] } },
        });
        serde_json::from_value(json).expect("a Service")
    }

    #[test]
    fn record_whose_answer_was_lost_is_read_and_waited_for_before_others_get_addresses() {
        let (mut record, now) = (Record::default(), Instant::now());
        record.catch_up([], now);
        assert!(record.see(&snapshot(&[]), now), "nothing was written");
        record.unknown();
        assert!(!record.is_caught_up());
        record.catch_up([&recorded("192.0.2.1")], now);
        assert!(!record.see(&snapshot(&[]), now), "the watch is behind what was written");
        assert!(record.see(&snapshot(&["192.0.2.1"]), now));
    }
}
