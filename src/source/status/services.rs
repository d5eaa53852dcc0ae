//! `status.loadBalancer` of Services: the record of who has which address.
//!
//! A plan that was made before this task's last writes were seen knows nothing of them and may give an address twice.
//! So nothing is written while a write has not come back through the watch; and a new leader first waits until its
//! watch has shown what the last one recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch::Receiver, time::Instant};
use tracing::{debug, info};

use super::{
    WriteError,
    disputes::{self, Disputes, MANAGER},
    events::{Note, Sender},
    within,
};
use crate::{
    plan::{Allocated, Desired, Planned, Withheld, Withhold},
    types::{ServiceKey, Snapshot},
};

/// Services in one page of a list.
const PAGE: u32 = 250;
/// Writes at once.
const AT_ONCE: usize = 8;
/// A write that the watch has not shown after so long is no longer waited for.
const UNSEEN: Duration = Duration::from_secs(15);

/// What the leader knows of its own records.
pub(super) struct Services {
    client: Client,
    leader: Receiver<bool>,
    events: Sender,
    /// Recorded, not yet seen in a snapshot.
    unseen: BTreeMap<ServiceKey, Unseen>,
    /// What was recorded before this process led has been read.
    caught_up: bool,
    /// Why a Service waits, as it was last told.
    pending: BTreeMap<ServiceKey, String>,
    /// What other controllers changed.
    disputes: Disputes,
    /// Which Service does not fit into the budget of which peer, as it was last told.
    over_budget: BTreeSet<Withheld>,
}

struct Unseen {
    addresses: BTreeSet<IpAddr>,
    until: Instant,
    /// The watch has shown the Service: where it is absent now it was deleted.
    known: bool,
}

/// One Service whose record differs from the plan.
struct Change {
    key: ServiceKey,
    uid: String,
    before: Vec<IpAddr>,
    after: Vec<IpAddr>,
}

impl Services {
    pub(super) fn new(client: Client, leader: Receiver<bool>, events: Sender) -> Self {
        Self {
            client,
            leader,
            events,
            unseen: BTreeMap::new(),
            caught_up: false,
            pending: BTreeMap::new(),
            disputes: Disputes::default(),
            over_budget: BTreeSet::new(),
        }
    }

    /// Somebody else leads.
    pub(super) fn forget(self) -> Self {
        Self::new(self.client, self.leader, self.events)
    }

    /// Writes what differs between the plan and what it was made of.
    pub(super) async fn record(&mut self, planned: &Planned) -> Result<(), WriteError> {
        let Planned { snapshot, desired } = planned;
        if !self.caught_up {
            self.catch_up().await?;
        }
        self.see(snapshot);
        if !self.unseen.is_empty() {
            return Ok(());
        }
        self.tell_pending(snapshot, desired);
        self.tell_over_budget(snapshot, desired);
        self.disputes.retain(|key| snapshot.services.contains_key(key));
        let now = Instant::now();
        let mut changes = changes(snapshot, desired);
        changes.retain(|change| !self.disputes.must_wait(&change.key, &set(&change.after), now));
        let (clears, gives): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.after.is_empty());
        // Addresses go back before others get them.
        self.write(clears, desired).await.and(self.write(gives, desired).await)
    }

    fn see(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.unseen.retain(|key, unseen| {
            let shown = snapshot.services.get(key);
            let seen = shown.map_or(unseen.known, |service| set(&service.assigned) == unseen.addresses);
            !seen && now < unseen.until
        });
    }

    /// When to go on although a record was never seen, or although another controller changed it; `None` where neither
    /// is so.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let disputed = self.disputes.next(Instant::now());
        self.unseen.values().map(|unseen| unseen.until).chain(disputed).min()
    }

    /// Reads what the last leader recorded.
    async fn catch_up(&mut self) -> Result<(), WriteError> {
        let api: Api<Service> = Api::all(self.client.clone());
        let mut page = ListParams::default().fields("spec.type=LoadBalancer").limit(PAGE);
        let until = Instant::now() + UNSEEN;
        loop {
            let list = match within(api.list(&page)).await {
                // Before Kubernetes 1.31 Services cannot be selected by type.
                Err(WriteError::Refused(kube::Error::Api(status)))
                    if status.code == 400 && page.field_selector.is_some() =>
                {
                    page.field_selector = None;
                    continue;
                }
                list => list?,
            };
            for service in list.items {
                let (addresses, metadata) = (addresses(&service), service.metadata);
                let key = ServiceKey::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
                if !addresses.is_empty() {
                    let addresses = addresses.into_iter().collect();
                    self.unseen.insert(key, Unseen { addresses, until, known: false });
                }
            }
            page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                self.caught_up = true;
                return Ok(());
            }
        }
    }

    async fn write(&mut self, changes: Vec<Change>, desired: &Desired) -> Result<(), WriteError> {
        let mut result = Ok(());
        let writes = changes.into_iter().map(|change| {
            let (client, leader) = (self.client.clone(), self.leader.clone());
            async move { (write(client, leader, &change).await, change) }
        });
        let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
        let mut done = Vec::new();
        while let Some(outcome) = writes.next().await {
            done.push(outcome);
        }
        drop(writes);
        for (outcome, change) in done {
            match outcome {
                Ok(Outcome { addresses, writer }) => {
                    let written = set(&addresses) == set(&change.after);
                    let until = Instant::now() + UNSEEN;
                    let unseen = Unseen { addresses: set(&addresses), until, known: true };
                    self.unseen.insert(change.key.clone(), unseen);
                    match self.disputes.overwritten(&change.key, Instant::now()) {
                        Some(times) if written => self.tell_dispute(&change, writer.as_deref(), times),
                        _ if written => self.tell_change(&change, desired),
                        _ => {}
                    }
                    if written {
                        self.disputes.record(&change.key, set(&change.after));
                    }
                }
                Err(WriteError::Gone) => {}
                Err(error) => {
                    info!(service = %change.key, %error, "the addresses were not recorded");
                    result = Err(error);
                }
            }
        }
        result
    }

    fn tell_change(&self, change: &Change, desired: &Desired) {
        let Change { key, uid, after, .. } = change;
        for (address, why) in desired.given_up.get(key).into_iter().flatten() {
            info!(service = %key, %address, reason = %why, "address given back");
            let text = format!("{address} was taken back: {}", why.detail());
            self.tell(key, uid, true, "ClearAssignment", "Clear", text);
        }
        if let Some(Allocated::Addresses { pool, .. }) = desired.allocations.get(key) {
            let addresses = after.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            info!(service = %key, addresses, pool, "address given");
            self.tell(key, uid, false, "IPAllocated", "Allocate", format!("has {addresses} from pool {pool}"));
        }
    }

    /// Says who else writes the record of a Service.
    fn tell_dispute(&self, change: &Change, writer: Option<&str>, times: u32) {
        let Change { key, uid, before, .. } = change;
        let writer = writer.unwrap_or("another controller");
        info!(service = %key, writer, times, "another controller changed the record");
        let theirs = match before.is_empty() {
            true => "was cleared".to_owned(),
            false => format!("became {}", before.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let text = format!(
            "status.loadBalancer {theirs} by {writer} and was written back: two controllers serve this Service; stop one of \
             them, or give them different classes (spec.loadBalancerClass, --load-balancer-class)"
        );
        self.tell(key, uid, true, "AnotherController", "Record", text);
    }

    /// Says why a Service waits, once per reason.
    fn tell_pending(&mut self, snapshot: &Snapshot, desired: &Desired) {
        self.pending.retain(|key, _| matches!(desired.allocations.get(key), Some(Allocated::Pending { .. })));
        for (key, allocated) in desired.allocations.iter() {
            let Allocated::Pending { reason, message } = allocated else { continue };
            if self.pending.get(key).is_some_and(|told| told == message) {
                continue;
            }
            let Some(service) = snapshot.services.get(key) else { continue };
            self.tell(key, &service.uid, true, "AllocationFailed", reason.as_str(), message.clone());
            self.pending.insert(key.clone(), message.clone());
        }
    }

    /// Says once of which peers the budget is used up. Peers are told the same by every node, so that the leader's
    /// view is everybody's but for peers that it has no session with; those stand in their nodes' `BGPNodeStatus`.
    fn tell_over_budget(&mut self, snapshot: &Snapshot, desired: &Desired) {
        let now: BTreeSet<Withheld> =
            desired.withheld.iter().filter(|withheld| withheld.reason == Withhold::PrefixBudget).cloned().collect();
        for withheld in now.difference(&self.over_budget) {
            let Some(service) = snapshot.services.get(&withheld.service) else { continue };
            let peer = withheld.peer.as_deref().unwrap_or("every peer");
            let text = format!("not announced to BGPPeer {peer}: {}", withheld.reason.detail());
            self.tell(&withheld.service, &service.uid, true, "PrefixBudget", "Announce", text);
        }
        self.over_budget = now;
    }

    fn tell(
        &self,
        key: &ServiceKey,
        uid: &str,
        warning: bool,
        reason: &'static str,
        action: &'static str,
        text: String,
    ) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid: Some(uid.into()),
            ..Default::default()
        };
        self.events.tell(Note { regarding, warning, reason, action, text });
    }
}

fn set(addresses: &[IpAddr]) -> BTreeSet<IpAddr> {
    addresses.iter().copied().collect()
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

/// What a Service has after a write: `after`, or what it had where the plan was outdated; and who else wrote it before.
struct Outcome {
    addresses: Vec<IpAddr>,
    writer: Option<String>,
}

/// Writes one record.
async fn write(client: Client, leader: Receiver<bool>, change: &Change) -> Result<Outcome, WriteError> {
    let api: Api<Service> = Api::namespaced(client, &change.key.namespace);
    let service = within(api.get(&change.key.name)).await?;
    if service.metadata.uid.as_deref() != Some(&change.uid) {
        return Err(WriteError::Gone);
    }
    let (now, writer) = (addresses(&service), disputes::writer(&service).map(Into::into));
    if now != change.before {
        debug!(service = %change.key, ?now, "the record changed since the plan was made");
        return Ok(Outcome { addresses: now, writer });
    }
    if !*leader.borrow() {
        return Err(WriteError::Conflict);
    }
    let ingress: Vec<_> = change.after.iter().map(|ip| json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
    let patch = json!({
        "metadata": { "resourceVersion": service.metadata.resource_version },
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    let manager = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let written = within(api.patch_status(&change.key.name, &manager, &Patch::Merge(&patch))).await?;
    Ok(Outcome { addresses: addresses(&written), writer })
}

/// `status.loadBalancer.ingress[].ip`, as `Service.assigned` has it.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|lb| lb.ingress.iter().flatten());
    ingress.filter_map(|i| i.ip.as_ref()?.parse().ok()).collect()
}
