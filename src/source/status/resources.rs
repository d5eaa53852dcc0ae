//! Our own resources: the condition `Valid`, the use of pools, and an Event where an object is refused.
//!
//! What should be said is compared with what the API server has, so nothing is written twice and what somebody removed
//! comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tracing::info;

use super::{
    WriteError,
    events::{Note, Sender},
    within,
};
use crate::{
    plan::{Allocated, Allocations, Planned},
    source::api::{CONDITION_VALID, GROUP, VERSION},
    types::{Family, ObjectRef, Pool, Problem, ServiceKey, Severity, Snapshot, family_of},
};

/// Kinds with a condition, and their plurals.
const KINDS: [(&str, &str); 6] = [
    ("IPAddressPool", "ipaddresspools"),
    ("BGPPeer", "bgppeers"),
    ("BGPAdvertisement", "bgpadvertisements"),
    ("BFDProfile", "bfdprofiles"),
    ("Community", "communities"),
    ("ProviderConfig", "providerconfigs"),
];

/// What the leader says of our resources.
pub(super) struct Resources {
    client: Client,
    namespace: String,
    events: Sender,
    /// What was last said, where all of it was written.
    shown: Option<Shown>,
    /// What the use of pools was last counted of.
    counted: Option<Allocations>,
    /// Problems of objects that are not ours, told by an Event only.
    told: BTreeSet<Problem>,
}

/// What is said, and of which objects.
#[derive(PartialEq)]
struct Shown {
    snapshot: Resourceful,
    problems: Vec<Problem>,
    pools: BTreeMap<String, Value>,
}

/// The part of a snapshot that conditions are about.
struct Resourceful(Arc<Snapshot>);

impl PartialEq for Resourceful {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&*self.0, &*other.0);
        (&a.pools, &a.peers, &a.advertisements, &a.bfd_profiles, &a.providers)
            == (&b.pools, &b.peers, &b.advertisements, &b.bfd_profiles, &b.providers)
    }
}

impl Resources {
    pub(super) fn new(client: Client, namespace: &str, events: Sender) -> Self {
        Self { client, namespace: namespace.into(), events, shown: None, counted: None, told: BTreeSet::new() }
    }

    /// Somebody else leads.
    pub(super) fn forget(self) -> Self {
        Self::new(self.client, &self.namespace, self.events)
    }

    /// Writes what differs from what was last said, and all that differs from the server with `repair`.
    pub(super) async fn show(&mut self, planned: &Planned, repair: bool) -> Result<(), WriteError> {
        let snapshot = Resourceful(planned.snapshot.clone());
        let pools = self.pool_use(planned, &snapshot);
        let shown = Shown { snapshot, problems: planned.desired.problems.clone(), pools };
        if !repair && self.shown.as_ref() == Some(&shown) {
            return Ok(());
        }
        self.tell_others(&shown, planned);
        self.shown = None;
        for (kind, plural) in KINDS {
            self.show_kind(kind, plural, &shown).await?;
        }
        self.shown = Some(shown);
        Ok(())
    }

    /// Counted only where it may be another.
    fn pool_use(&mut self, planned: &Planned, snapshot: &Resourceful) -> BTreeMap<String, Value> {
        let allocations = &planned.desired.allocations;
        let counted = self.counted.as_ref().is_some_and(|counted| Arc::ptr_eq(counted, allocations));
        if let Some(shown) = self.shown.as_ref().filter(|shown| counted && shown.snapshot == *snapshot) {
            return shown.pools.clone();
        }
        self.counted = Some(allocations.clone());
        pool_use(planned)
    }

    async fn show_kind(&self, kind: &str, plural: &str, shown: &Shown) -> Result<(), WriteError> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let list = match within(api.list(&ListParams::default())).await {
            Err(WriteError::Gone) => return Ok(()), // the CRD is absent
            list => list?,
        };
        for object in list {
            let name = object.name_any();
            let problem = worst(&shown.problems, kind, &name);
            let figures = if kind == "IPAddressPool" { shown.pools.get(&name) } else { None };
            let Some(Change { patch, news }) = change(&object, problem, figures) else { continue };
            match within(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))).await {
                Ok(_) if news => self.tell(kind, &object, problem),
                Ok(_) | Err(WriteError::Gone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn tell(&self, kind: &str, object: &DynamicObject, problem: Option<&Problem>) {
        let Some(problem) = problem else { return };
        info!(object = %problem.object, severity = ?problem.severity, "told the object what is wrong");
        let regarding = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some(kind.into()),
            namespace: object.namespace(),
            name: object.metadata.name.clone(),
            uid: object.uid(),
            ..Default::default()
        };
        self.events.tell(note(problem, regarding));
    }

    /// Problems of Services and Nodes: an Event each time that they appear, but for what a Service is told to wait for.
    fn tell_others(&mut self, shown: &Shown, planned: &Planned) {
        let ours = |problem: &Problem| KINDS.iter().any(|(kind, _)| *kind == problem.object.kind);
        let others = shown.problems.iter().filter(|problem| !ours(problem) && !is_waited_for(problem, planned));
        let now: BTreeSet<Problem> = others.cloned().collect();
        for problem in now.difference(&self.told) {
            if let Some(uid) = uid(&problem.object, &shown.snapshot.0) {
                self.events.tell(note(problem, reference(&problem.object, uid)));
            }
        }
        self.told = now;
    }
}

/// What holds up the claim of a Service that waits for it: `AddressClaim NAME: REASON: MESSAGE`.
fn is_waited_for(problem: &Problem, planned: &Planned) -> bool {
    let key = ServiceKey::new(problem.object.namespace.as_str(), problem.object.name.as_str());
    let words = problem.message.strip_prefix("AddressClaim ").and_then(|claim| claim.splitn(3, ": ").nth(2));
    match (planned.desired.allocations.get(&key), words) {
        (Some(Allocated::Pending { message, .. }), Some(words)) => message.contains(words),
        _ => false,
    }
}

fn uid(object: &ObjectRef, snapshot: &Snapshot) -> Option<String> {
    match object.kind.as_str() {
        // What the kubelet gives for a node's Events.
        "Node" => Some(object.name.clone()),
        "Service" => {
            let key = ServiceKey::new(object.namespace.as_str(), object.name.as_str());
            snapshot.services.get(&key).map(|service| service.uid.clone())
        }
        _ => None,
    }
}

fn reference(object: &ObjectRef, uid: String) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some(object.kind.clone()),
        namespace: Some(object.namespace.clone()).filter(|n| !n.is_empty()),
        name: Some(object.name.clone()),
        uid: Some(uid),
        ..Default::default()
    }
}

fn note(problem: &Problem, regarding: ObjectReference) -> Note {
    let (warning, reason) = (true, reason(Some(problem)));
    Note { regarding, warning, reason, action: "Validate", text: sentence(problem) }
}

fn worst<'a>(problems: &'a [Problem], kind: &str, name: &str) -> Option<&'a Problem> {
    let about = |problem: &&Problem| problem.object.kind == kind && problem.object.name == name;
    problems.iter().filter(about).max_by_key(|problem| problem.severity)
}

fn reason(problem: Option<&Problem>) -> &'static str {
    match problem.map(|problem| problem.severity) {
        Some(Severity::Error) => "Invalid",
        Some(Severity::Warning) => "Warning",
        None => "Valid",
    }
}

fn sentence(problem: &Problem) -> String {
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let hint = if problem.hint.is_empty() { String::new() } else { format!("; {}", problem.hint) };
    format!("{field}{}{hint}", problem.message)
}

/// What must change in an object's status.
struct Change {
    patch: Value,
    /// The condition says something else than before.
    news: bool,
}

fn change(object: &DynamicObject, problem: Option<&Problem>, figures: Option<&Value>) -> Option<Change> {
    let status = &object.data["status"];
    let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let (wanted, before) = valid(&conditions, problem, object.metadata.generation);
    let mut change = figures.cloned().unwrap_or_else(|| json!({}));
    let figures_stand = change.as_object()?.iter().all(|(name, figure)| status[name] == *figure);
    if before.as_ref() == Some(&wanted) && figures_stand {
        return None;
    }
    let news =
        before.is_none_or(|before| (before.status, before.message) != (wanted.status.clone(), wanted.message.clone()));
    let mut conditions: Vec<Condition> = conditions.into_iter().filter(|c| c.type_ != CONDITION_VALID).collect();
    conditions.push(wanted);
    change["conditions"] = json!(conditions);
    let patch = json!({ "metadata": { "resourceVersion": object.metadata.resource_version }, "status": change });
    Some(Change { patch, news })
}

/// The condition as it should be, and as it is.
fn valid(
    conditions: &[Condition],
    problem: Option<&Problem>,
    generation: Option<i64>,
) -> (Condition, Option<Condition>) {
    let before = conditions.iter().find(|condition| condition.type_ == CONDITION_VALID).cloned();
    let refused = problem.is_some_and(|problem| problem.severity == Severity::Error);
    let status = if refused { "False" } else { "True" };
    let since = before.as_ref().filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION_VALID.into(),
        status: status.into(),
        reason: reason(problem).into(),
        message: problem.map_or_else(|| "the object is in use".into(), sentence),
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(Timestamp::now()))),
    };
    (condition, before)
}

/// Conditions have whole seconds; anything finer would differ from what the server gives back.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `assignedIPv4`, `availableIPv4` and the same for IPv6 by pool.
fn pool_use(planned: &Planned) -> BTreeMap<String, Value> {
    let given: BTreeSet<IpAddr> = planned.desired.allocations.values().flat_map(given).copied().collect();
    let figures = |pool: &Pool| {
        let [v4, v6] = [Family::Ipv4, Family::Ipv6].map(|family| use_of(pool, family, &given));
        json!({ "assignedIPv4": v4.0, "availableIPv4": v4.1, "assignedIPv6": v6.0, "availableIPv6": v6.1 })
    };
    planned.snapshot.pools.iter().map(|(name, pool)| (name.clone(), figures(pool))).collect()
}

fn given(allocated: &Allocated) -> &[IpAddr] {
    match allocated {
        Allocated::Addresses { addresses, .. } => addresses,
        Allocated::Pending { .. } | Allocated::Released => &[],
    }
}

/// Addresses given out and left.
fn use_of(pool: &Pool, family: Family, given: &BTreeSet<IpAddr>) -> (i64, i64) {
    let ranges = || pool.ranges.iter().filter(|range| range.family() == family);
    let size = ranges().map(|range| range.len()).fold(0u128, u128::saturating_add);
    let buggy = |ip: &IpAddr| matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255));
    // Only IPv4 ranges are walked, and only where some of their addresses are left out.
    let left_out = match pool.avoid_buggy_ips && family == Family::Ipv4 {
        true => ranges().map(|range| range.iter().filter(buggy).count()).sum::<usize>() as u128,
        false => 0,
    };
    let within = |ip: &&IpAddr| family_of(**ip) == family && ranges().any(|range| range.contains(**ip));
    let assigned = given.iter().filter(within).count();
    let available = size.saturating_sub(left_out).saturating_sub(assigned as u128);
    let number = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    (number(assigned as u128), number(available))
}
