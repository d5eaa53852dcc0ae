//! `status.loadBalancer` of Services: the record of who has which address.
//!
//! A plan that was made before this task's last writes were seen knows nothing of them and may give an address twice.
//! So nothing is written while a write has not come back through the watch; and a new leader first waits until its
//! watch has shown what the last one recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use tokio::{sync::watch::Receiver, time::Instant};
use tracing::{debug, info};

use super::{
    WriteError,
    disputes::{self, MANAGER},
    events::{Note, Sender},
    record::{Change, Decision, Record, addresses},
    within,
};
use crate::{
    plan::{Allocated, Allocations, Desired, Planned, Withheld, Withhold},
    types::{ServiceKey, Snapshot},
};

/// Services in one page of a list.
const PAGE: u32 = 250;
/// Writes at once.
const AT_ONCE: usize = 8;
/// What the leader knows of its own records.
pub(super) struct Services {
    client: Client,
    leader: Receiver<bool>,
    events: Sender,
    record: Record,
    /// Why a Service waits, as it was last told.
    pending: BTreeMap<ServiceKey, String>,
    /// The allocations that it was told of.
    told: Option<Allocations>,
    /// Which Service does not fit into the budget of which peer, as it was last told.
    over_budget: BTreeSet<Withheld>,
}

impl Services {
    pub(super) fn new(client: Client, leader: Receiver<bool>, events: Sender) -> Self {
        Self {
            client,
            leader,
            events,
            record: Record::default(),
            pending: BTreeMap::new(),
            told: None,
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
        if !self.record.is_caught_up() {
            self.catch_up().await?;
        }
        if !self.record.see(snapshot, Instant::now()) {
            return Ok(());
        }
        self.tell_pending(snapshot, desired);
        self.tell_over_budget(snapshot, desired);
        let [clears, gives] = self.record.due(snapshot, desired, Instant::now());
        self.write(clears, desired).await.and(self.write(gives, desired).await)
    }

    /// When to go on although nothing new was seen; `None` where nothing is waited for.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.record.waits_until(Instant::now())
    }

    /// Reads what the last leader recorded.
    async fn catch_up(&mut self) -> Result<(), WriteError> {
        let api: Api<Service> = Api::all(self.client.clone());
        let mut page = ListParams::default().fields("spec.type=LoadBalancer").limit(PAGE);
        let (begun, mut recorded) = (Instant::now(), Vec::new());
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
            recorded.extend(list.items.into_iter().filter(|service| !addresses(service).is_empty()));
            page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                self.record.catch_up(&recorded, begun);
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
                Ok(Outcome { addresses, writer }) => match self.record.wrote(&change, &addresses, Instant::now()) {
                    (true, Some(times)) => self.tell_dispute(&change, writer.as_deref(), times),
                    (true, None) => self.tell_change(&change, desired),
                    (false, _) => {}
                },
                Err(WriteError::Gone) => {}
                Err(error) => {
                    info!(service = %change.key, %error, "the addresses were not recorded");
                    if matches!(error, WriteError::Unknown(_)) {
                        self.record.unknown();
                    }
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
        if self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &desired.allocations)) {
            return;
        }
        self.told = Some(desired.allocations.clone());
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

/// What a Service has after a write: `after`, or what it had where the plan was outdated; and who else wrote it before.
struct Outcome {
    addresses: Vec<IpAddr>,
    writer: Option<String>,
}

/// Writes one record.
async fn write(client: Client, leader: Receiver<bool>, change: &Change) -> Result<Outcome, WriteError> {
    let api: Api<Service> = Api::namespaced(client, &change.key.namespace);
    let service = within(api.get(&change.key.name)).await?;
    let writer = disputes::writer(&service).map(Into::into);
    let patch = match change.decide(&service) {
        Decision::Gone => return Err(WriteError::Gone),
        Decision::Outdated(now) => {
            debug!(service = %change.key, ?now, "the record changed since the plan was made");
            return Ok(Outcome { addresses: now, writer });
        }
        Decision::Write(patch) => patch,
    };
    if !*leader.borrow() {
        return Err(WriteError::Conflict);
    }
    let manager = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let written = within(api.patch_status(&change.key.name, &manager, &Patch::Merge(&patch))).await;
    let written = written.map_err(WriteError::of_change)?;
    Ok(Outcome { addresses: addresses(&written), writer })
}
