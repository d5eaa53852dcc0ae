//! Requests to the API server: on their way, carried out or not, answered or not; and who waits for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use super::{
    api::{Api, Refused},
    objects::key,
    world::{Event, World},
};
use crate::{
    provider::{
        claims::Action,
        driver::{change as told_of, desk::Brought},
    },
    source::{
        api::{AddressClaim, CLAIM_FINALIZER},
        convert,
        index::{Kind, Object},
        status::record::{Change, addresses},
    },
    types::{Claim, ClaimId},
};

/// The longest that a request is waited for.
const DEADLINE: Duration = Duration::from_secs(4);
/// The longest that one about the Lease is.
pub(super) const LEASE_DEADLINE: Duration = Duration::from_secs(2);

type Batch = Vec<(String, Action)>;

#[derive(Debug)]
pub(super) enum Call {
    ReadLease { sent: Duration, renews: bool },
    WriteLease { sent: Duration, renews: bool, lease: Box<Lease> },
    ListServices,
    ReadService(Change),
    PatchService(Change, Value),
    Report(BTreeSet<IpNet>),
    Ask,
    LoadClaims,
    Journal(u64, Batch),
}

/// What came of a [`Call`]; nothing where nobody knows.
#[derive(Debug)]
pub(super) enum Answer {
    Lease { sent: Duration, renews: bool, found: Option<Option<Lease>> },
    LeaseWritten { sent: Duration, renews: bool, result: Option<Result<Lease, Refused>> },
    Services(Option<Vec<Rc<Object>>>),
    Service(Change, Option<Option<Rc<Object>>>),
    Patched(Change, Option<Result<Vec<IpAddr>, Refused>>),
    Reported(Option<BTreeSet<IpNet>>),
    Asked(Option<BTreeSet<IpNet>>),
    Claims(Option<Vec<(Claim, String)>>),
    Journal(u64, Batch, Option<BTreeMap<ClaimId, Option<String>>>),
}

impl Call {
    fn deadline(&self) -> Duration {
        match self {
            Call::ReadLease { .. } | Call::WriteLease { .. } => LEASE_DEADLINE,
            _ => DEADLINE,
        }
    }

    /// The answer that never came.
    fn unanswered(self) -> Answer {
        match self {
            Call::ReadLease { sent, renews } => Answer::Lease { sent, renews, found: None },
            Call::WriteLease { sent, renews, .. } => Answer::LeaseWritten { sent, renews, result: None },
            Call::ListServices => Answer::Services(None),
            Call::ReadService(change) => Answer::Service(change, None),
            Call::PatchService(change, _) => Answer::Patched(change, None),
            Call::Report(_) => Answer::Reported(None),
            Call::Ask => Answer::Asked(None),
            Call::LoadClaims => Answer::Claims(None),
            Call::Journal(round, batch) => Answer::Journal(round, batch, None),
        }
    }
}

impl World {
    /// Sends a request.
    pub(super) fn call(&mut self, node: usize, call: Call) {
        let daemon = self.daemon(node);
        let (process, terms, sent) = (daemon.process, daemon.terms, self.clock.now);
        if self.hosts[node].api_cut.is_some() {
            return self.fail(node, process, terms, sent, call);
        }
        // Never so late that its sender has given it up: what is written after that is not written at all.
        let late = if !self.calm && self.dice.once_in(25) { call.deadline().as_millis() as u64 } else { 30 };
        let wait = self.dice.millis(1, late);
        self.clock.after(wait, Event::Call { node, process, terms, sent, call: Box::new(call) });
    }

    fn fail(&mut self, node: usize, process: u64, terms: u64, sent: Duration, call: Call) {
        let wait = (sent + call.deadline()).saturating_sub(self.clock.now);
        let answer = Box::new(call.unanswered());
        self.clock.after(wait, Event::Answer { node, process, terms, answer });
    }

    pub(super) fn arrived(&mut self, node: usize, process: u64, terms: u64, sent: Duration, call: Call) {
        if self.hosts[node].api_cut.is_some() {
            return self.fail(node, process, terms, sent, call);
        }
        let deadline = call.deadline();
        let answer = self.carry_out(node, call);
        let (lost, limit) = (!self.calm && self.dice.once_in(25), sent + deadline);
        let wait = self.dice.millis(1, 30);
        let (answer, wait) = match lost || self.clock.now + wait > limit {
            true => (answer.lost(), limit.saturating_sub(self.clock.now)),
            false => (answer, wait),
        };
        self.clock.after(wait, Event::Answer { node, process, terms, answer: Box::new(answer) });
    }

    fn carry_out(&mut self, node: usize, call: Call) -> Answer {
        match call {
            Call::ReadLease { sent, renews } => Answer::Lease { sent, renews, found: Some(self.api.lease.clone()) },
            Call::WriteLease { sent, renews, lease } => {
                let result = self.api.write_lease(*lease);
                if result.is_ok() {
                    self.lease_changed();
                }
                Answer::LeaseWritten { sent, renews, result: Some(result) }
            }
            Call::ListServices => {
                Answer::Services(Some(self.api.list(Kind::Service).map(|(_, object)| object.clone()).collect()))
            }
            Call::ReadService(change) => {
                let found = self.api.get(Kind::Service, &key(&change.key.name)).cloned();
                Answer::Service(change, Some(found))
            }
            Call::PatchService(change, patch) => {
                self.check_gift(node, &change);
                let result = patch_service(&mut self.api, &change, &patch);
                self.trace(|| format!("n{node}: records {:?} for {}: {result:?}", change.after, change.key));
                Answer::Patched(change, Some(result))
            }
            Call::Report(routes) => {
                let name = self.hosts[node].name.clone();
                self.api.reports.insert(name, routes.clone());
                Answer::Reported(Some(routes))
            }
            Call::Ask => Answer::Asked(Some(self.api.reports.values().flatten().copied().collect())),
            Call::LoadClaims => Answer::Claims(Some(load_claims(&self.api))),
            Call::Journal(round, batch) => {
                let known = self.hosts[node].daemon.as_ref().map(|daemon| daemon.claims.versions.clone());
                let torn = !self.calm && self.dice.once_in(60);
                let take = if torn { self.dice.below(batch.len() + 1) } else { batch.len() };
                let mut done = write_claims(&mut self.api, &batch[..take], &known.unwrap_or_default());
                if torn {
                    done = None;
                }
                self.trace(|| format!("n{node}: journal {batch:?}: {}", done.is_some()));
                Answer::Journal(round, batch, done)
            }
        }
    }

    pub(super) fn answered(&mut self, node: usize, terms: u64, answer: Answer) {
        let ours = self.daemon(node).terms == terms;
        match answer {
            Answer::Lease { sent, renews, found } => self.lease_read(node, sent, renews, found),
            Answer::LeaseWritten { sent, renews, result } => self.lease_written(node, sent, renews, result),
            Answer::Reported(written) => self.reported(node, written),
            Answer::Asked(others) if ours => self.asked(node, terms, others),
            Answer::Services(services) if ours => self.caught_up(node, services),
            Answer::Service(change, found) if ours => self.service_read(node, change, found),
            Answer::Patched(change, result) if ours => self.service_written(node, change, result),
            Answer::Claims(claims) => self.claims_loaded(node, claims),
            Answer::Journal(round, batch, done) => {
                let result = match done {
                    Some(done) => {
                        let versions = &mut self.daemon(node).claims.versions;
                        for (id, version) in done {
                            match version {
                                Some(version) => _ = versions.insert(id, version),
                                None => _ = versions.remove(&id),
                            }
                        }
                        Ok(())
                    }
                    None => Err("the journal is unknown".to_owned()),
                };
                self.brought(node, round, Brought::Written(batch, result));
            }
            Answer::Asked(_) | Answer::Services(_) | Answer::Service(..) | Answer::Patched(..) => {}
        }
    }
}

impl Answer {
    /// It was carried out, and nobody hears of it.
    fn lost(self) -> Self {
        match self {
            Answer::Lease { sent, renews, .. } => Answer::Lease { sent, renews, found: None },
            Answer::LeaseWritten { sent, renews, .. } => Answer::LeaseWritten { sent, renews, result: None },
            Answer::Services(_) => Answer::Services(None),
            Answer::Service(change, _) => Answer::Service(change, None),
            Answer::Patched(change, _) => Answer::Patched(change, None),
            Answer::Reported(_) => Answer::Reported(None),
            Answer::Asked(_) => Answer::Asked(None),
            Answer::Claims(_) => Answer::Claims(None),
            Answer::Journal(round, batch, _) => Answer::Journal(round, batch, None),
        }
    }
}

/// Merges the patch of a record into the Service.
fn patch_service(api: &mut Api, change: &Change, patch: &Value) -> Result<Vec<IpAddr>, Refused> {
    let found = api.get(Kind::Service, &key(&change.key.name)).ok_or(Refused::NotFound)?;
    let Object::Service(service) = &**found else { return Err(Refused::NotFound) };
    let mut service = (**service).clone();
    service.status = serde_json::from_value(patch["status"].clone()).ok();
    let given = addresses(&service);
    let balances = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    if !balances && !given.is_empty() {
        return Err(Refused::Conflict);
    }
    api.replace(service, patch["metadata"]["resourceVersion"].as_str())?;
    Ok(given)
}

fn load_claims(api: &Api) -> Vec<(Claim, String)> {
    let claim = |object: &Rc<Object>| {
        let Object::AddressClaim(object) = &**object else { return None };
        Some((convert::claim(object).value?, object.metadata.resource_version.clone()?))
    };
    api.list(Kind::AddressClaim).filter_map(|(_, object)| claim(object)).collect()
}

/// The versions after a batch of writes; nothing where one failed.
fn write_claims(
    api: &mut Api,
    batch: &[(String, Action)],
    known: &BTreeMap<ClaimId, String>,
) -> Option<BTreeMap<ClaimId, Option<String>>> {
    let mut done = BTreeMap::new();
    let mut whole = true;
    for (_, action) in batch {
        let change = told_of(action);
        let result = match change.claim {
            Some(claim) => put_claim(api, &claim, known.get(&change.id)).map(Some),
            None => forget_claim(api, change.id, known.get(&change.id)).map(|()| None),
        };
        match result {
            Ok(version) => _ = done.insert(change.id, version),
            Err(_) => whole = false,
        }
    }
    whole.then_some(done)
}

fn put_claim(api: &mut Api, claim: &Claim, known: Option<&String>) -> Result<String, Refused> {
    let name = claim.id.to_string();
    let mut object = match api.get(Kind::AddressClaim, &key(&name)).map(|object| &**object) {
        Some(Object::AddressClaim(object)) if known.is_some() => (**object).clone(),
        Some(_) => return Err(Refused::Conflict),
        None if known.is_some() => return Err(Refused::NotFound),
        None => {
            let mut object = AddressClaim::new(&name, convert::claim_spec(claim));
            object.metadata.namespace = Some(super::objects::NAMESPACE.into());
            object.metadata.finalizers = Some(vec![CLAIM_FINALIZER.into()]);
            let version = api.create(object.clone())?;
            object.metadata.resource_version = Some(version);
            object
        }
    };
    let version = known.cloned().or_else(|| object.metadata.resource_version.clone());
    object.status = Some(convert::claim_status(claim, object.status.as_ref()));
    api.replace(object, version.as_deref())
}

fn forget_claim(api: &mut Api, id: ClaimId, known: Option<&String>) -> Result<(), Refused> {
    let key = key(&id.to_string());
    let Some(object) = api.get(Kind::AddressClaim, &key) else { return Ok(()) };
    if object.metadata().resource_version.as_ref() != known && known.is_some() {
        return Err(Refused::Conflict);
    }
    api.remove(Kind::AddressClaim, &key);
    Ok(())
}
