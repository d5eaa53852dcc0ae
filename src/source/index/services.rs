//! Services and their endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    ObjectKey,
    store::{Store, still_in_use},
};
use crate::{
    source::convert::{Converted, Slice},
    types::{Endpoint, Problem, Service, ServiceKey, Severity},
};

/// Services by key, slices by Service.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) services: Store<Kept>,
    pub(super) slices: Store<Slice>,
    /// Which slices a Service has.
    slices_of: BTreeMap<ServiceKey, BTreeSet<ObjectKey>>,
    /// The slices of each Service united.
    endpoints: BTreeMap<ServiceKey, Arc<[Endpoint]>>,
    /// Addresses of Services in manifest mode; `None` takes them from their status.
    record: Option<BTreeMap<ServiceKey, Vec<IpAddr>>>,
}

/// A Service, and whether its newest version is in error without a valid one before.
#[derive(Debug, PartialEq)]
pub(super) struct Kept {
    service: Arc<Service>,
    refused: bool,
}

impl Kept {
    /// A refused Service counts only for the addresses that it has: they are not free.
    fn in_use(&self) -> bool {
        let has_addresses = !self.service.assigned.is_empty();
        has_addresses || (self.service.load_balancer && !self.refused)
    }
}

impl Services {
    pub(super) fn put(&mut self, key: ObjectKey, created: i64, converted: Converted<Service>) -> bool {
        let Converted { value, mut problems } = converted;
        let Some(mut service) = value else { return false };
        let mut refused = problems.iter().any(|p| p.severity == Severity::Error);
        if let Some(record) = &self.record {
            service.assigned = record.get(&service.key).cloned().unwrap_or_default();
        }
        if let Some(before) = self.services.value(&key).filter(|before| refused && !before.refused) {
            let Service { assigned, deleting, load_balancer, .. } = service;
            service = Service { assigned, deleting, load_balancer, ..(*before.service).clone() };
            refused = false;
            problems.iter_mut().for_each(still_in_use);
        }
        // Of other types of Services nothing is said.
        if !service.load_balancer {
            problems.clear();
        }
        let kept = Kept { service: Arc::new(service), refused };
        self.services.put(key, created, Converted { value: Some(kept), problems })
    }

    pub(super) fn put_slice(&mut self, key: ObjectKey, created: i64, converted: Converted<Slice>) -> bool {
        let before = self.slices.value(&key).map(|slice| slice.service.clone());
        let after = converted.value.as_ref().map(|slice| slice.service.clone());
        if !self.slices.put(key.clone(), created, converted) {
            return false;
        }
        if let Some(after) = after {
            if let Some(before) = before.filter(|before| *before != after) {
                self.unlink(&before, &key);
            }
            self.slices_of.entry(after.clone()).or_default().insert(key);
            self.unite(&after);
        }
        true
    }

    pub(super) fn remove_slice(&mut self, key: &ObjectKey) -> bool {
        let service = self.slices.value(key).map(|slice| slice.service.clone());
        let removed = self.slices.remove(key);
        if let Some(service) = service {
            self.unlink(&service, key);
        }
        removed
    }

    fn unlink(&mut self, service: &ServiceKey, slice: &ObjectKey) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        self.unite(service);
    }

    /// From now on addresses come from this record. Returns whether any changed.
    pub(super) fn assign(&mut self, record: BTreeMap<ServiceKey, Vec<IpAddr>>) -> bool {
        let before = self.record.replace(record).unwrap_or_default();
        let record = self.record.as_ref().expect("just set");
        let mut changed = false;
        for key in before.keys().chain(record.keys()) {
            let object = ObjectKey::new(&*key.namespace, &*key.name);
            let Some(kept) = self.services.value_mut(&object) else { continue };
            let assigned = record.get(key).map(Vec::as_slice).unwrap_or_default();
            if kept.service.assigned != assigned {
                Arc::make_mut(&mut kept.service).assigned = assigned.to_vec();
                changed = true;
            }
        }
        changed
    }

    /// Services that are load balancers, or have addresses.
    pub(super) fn in_use(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter(|(_, _, kept)| kept.in_use()).map(|(_, _, kept)| &kept.service)
    }

    /// The endpoints of these Services, which come in the order of their keys.
    pub(super) fn endpoints_of<'s>(
        &self,
        services: impl Iterator<Item = &'s ServiceKey>,
    ) -> BTreeMap<ServiceKey, Arc<[Endpoint]>> {
        let mut all = self.endpoints.iter().peekable();
        let of_service = |service: &'s ServiceKey| {
            while all.next_if(|(other, _)| *other < service).is_some() {}
            all.next_if(|(other, _)| *other == service).map(|(_, endpoints)| (service.clone(), endpoints.clone()))
        };
        services.filter_map(of_service).collect()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.services.problems().chain(self.slices.problems())
    }

    fn unite(&mut self, service: &ServiceKey) {
        let Some(keys) = self.slices_of.get(service) else {
            self.endpoints.remove(service);
            return;
        };
        let slices: Vec<&Slice> = keys.iter().filter_map(|key| self.slices.value(key)).collect();
        let united = match slices[..] {
            [slice] => slice.endpoints.clone(),
            _ => unite(slices.iter().flat_map(|slice| slice.endpoints.iter())).into(),
        };
        self.endpoints.insert(service.clone(), united);
    }
}

/// While a pod moves from one slice to another it stands in both; it is one endpoint, with the better state.
fn unite<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = endpoints.cloned().collect();
    all.sort();
    all.dedup_by(|again, first| {
        let same = again.address == first.address && again.node == first.node;
        if same {
            first.ready |= again.ready;
            first.serving |= again.serving;
            first.terminating &= again.terminating;
            if first.ports != again.ports {
                let both: BTreeSet<_> = first.ports.iter().chain(&*again.ports).cloned().collect();
                first.ports = both.into_iter().collect();
            }
        }
        same
    });
    all
}
