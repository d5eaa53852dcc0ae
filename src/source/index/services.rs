//! Services and their endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    ObjectKey,
    store::{Store, still_in_use},
    words::Words,
};
use crate::{
    source::convert::{Converted, Slice},
    types::{Endpoint, Map, Ports, Problem, Service, ServiceKey, Severity},
};

/// Services by key, slices by Service.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub(super) services: Store<Kept>,
    pub(super) slices: Store<Slice>,
    /// Which slices a Service has, in order.
    slices_of: BTreeMap<ServiceKey, Vec<ObjectKey>>,
    /// Services that are load balancers, or have addresses.
    in_use: Map<ServiceKey, Arc<Service>>,
    /// The slices of each of these united.
    endpoints: Map<ServiceKey, Arc<[Endpoint]>>,
    /// Addresses of Services in manifest mode; `None` takes them from their status.
    record: Option<BTreeMap<ServiceKey, Vec<IpAddr>>>,
    /// Names of namespaces and nodes.
    names: Words<str>,
    ports: Words<Ports>,
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
        service.key = self.one_of(service.key);
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
        let (name, kept) = (service.key.clone(), Kept { service: Arc::new(service), refused });
        let changed = self.services.put(key.clone(), created, Converted { value: Some(kept), problems });
        if changed {
            self.show(&key, &name);
        }
        changed
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        let name = self.services.value(key).map(|kept| kept.service.key.clone());
        let removed = self.services.remove(key);
        if let Some(name) = name {
            self.show(key, &name);
        }
        removed
    }

    /// Shows the Service and its endpoints, or no longer.
    fn show(&mut self, key: &ObjectKey, name: &ServiceKey) {
        match self.services.value(key).filter(|kept| kept.in_use()) {
            Some(kept) => {
                self.in_use.insert(kept.service.key.clone(), kept.service.clone());
            }
            None => {
                self.in_use.remove(name);
            }
        }
        self.unite(name);
    }

    pub(super) fn put_slice(&mut self, key: ObjectKey, created: i64, mut converted: Converted<Slice>) -> bool {
        if let Some(slice) = &mut converted.value {
            self.share(slice);
        }
        let before = self.slices.value(&key).map(|slice| slice.service.clone());
        let after = converted.value.as_ref().map(|slice| slice.service.clone());
        if !self.slices.put(key.clone(), created, converted) {
            return false;
        }
        if let Some(after) = after {
            if let Some(before) = before.filter(|before| *before != after) {
                self.unlink(&before, &key);
            }
            let slices = self.slices_of.entry(after.clone()).or_default();
            if let Err(place) = slices.binary_search(&key) {
                slices.reserve_exact(1); // nearly always the only one
                slices.insert(place, key);
            }
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

    /// The key with the text that is there already.
    fn one_of(&mut self, key: ServiceKey) -> ServiceKey {
        let known = self.in_use.get(&key).map(|service| &service.key);
        match known.or_else(|| Some(self.slices_of.get_key_value(&key)?.0)) {
            Some(known) => known.clone(),
            None => ServiceKey { namespace: self.names.one_of(&key.namespace), name: key.name },
        }
    }

    /// What slices have in common is once in memory.
    fn share(&mut self, slice: &mut Slice) {
        slice.service = self.one_of(slice.service.clone());
        for endpoint in Arc::make_mut(&mut slice.endpoints) {
            endpoint.node = endpoint.node.as_ref().map(|node| self.names.one_of(node));
            endpoint.ports = self.ports.one_of(&endpoint.ports);
        }
    }

    fn unlink(&mut self, service: &ServiceKey, slice: &ObjectKey) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.retain(|other| other != slice);
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
        let mut changed = Vec::new();
        for key in before.keys().chain(record.keys()) {
            let object = ObjectKey::new(&*key.namespace, &*key.name);
            let Some(kept) = self.services.value_mut(&object) else { continue };
            let assigned = record.get(key).map(Vec::as_slice).unwrap_or_default();
            if kept.service.assigned != assigned {
                Arc::make_mut(&mut kept.service).assigned = assigned.to_vec();
                changed.push((object, kept.service.key.clone()));
            }
        }
        changed.iter().for_each(|(object, key)| self.show(object, key));
        !changed.is_empty()
    }

    /// Services that are load balancers, or have addresses.
    pub(super) fn in_use(&self) -> &Map<ServiceKey, Arc<Service>> {
        &self.in_use
    }

    /// Their endpoints.
    pub(super) fn endpoints(&self) -> &Map<ServiceKey, Arc<[Endpoint]>> {
        &self.endpoints
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.services.problems().chain(self.slices.problems())
    }

    /// Unites the slices of a Service in use; nobody asks for those of others.
    fn unite(&mut self, service: &ServiceKey) {
        let (in_use, slices) = (self.in_use.get(service), self.slices_of.get(service));
        let (Some(in_use), Some(keys)) = (in_use, slices) else {
            self.endpoints.remove(service);
            return;
        };
        let slices: Vec<&Slice> = keys.iter().filter_map(|key| self.slices.value(key)).collect();
        let united = match slices[..] {
            [slice] => slice.endpoints.clone(),
            _ => unite(slices.iter().flat_map(|slice| slice.endpoints.iter())).into(),
        };
        if self.endpoints.get(service) != Some(&united) {
            self.endpoints.insert(in_use.key.clone(), united);
        }
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
