//! The API server: objects with versions, a log that watches are served from, writes that name the version that they were
//! decided on. Consistent in itself; what is lost, late or old is lost on the way to it and from it.

use std::{collections::BTreeMap, collections::BTreeSet, rc::Rc};

use ipnet::IpNet;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};

use crate::source::index::{Kind, Object, ObjectKey};

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Conflict,
    NotFound,
}

/// One change: the object as it became, or nothing where it went.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: ObjectKey,
    pub(super) object: Option<Rc<Object>>,
}

#[derive(Debug, Default)]
pub(super) struct Api {
    objects: BTreeMap<Kind, BTreeMap<ObjectKey, Rc<Object>>>,
    /// By kind, in order.
    log: BTreeMap<Kind, Vec<Change>>,
    pub(super) version: u64,
    pub(super) lease: Option<Lease>,
    /// What each node says that it announces: the routes of its BGPNodeStatus.
    pub(super) reports: BTreeMap<String, BTreeSet<IpNet>>,
    /// Kinds that changed since somebody asked.
    pub(super) changed: BTreeSet<Kind>,
}

impl Api {
    pub(super) fn get(&self, kind: Kind, key: &ObjectKey) -> Option<&Rc<Object>> {
        self.objects.get(&kind)?.get(key)
    }

    pub(super) fn list(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Rc<Object>)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    /// Every object.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Object>> {
        self.objects.values().flat_map(BTreeMap::values)
    }

    /// The objects of a kind as they were at a version.
    pub(super) fn list_at(&self, kind: Kind, version: u64) -> BTreeMap<ObjectKey, Rc<Object>> {
        let mut list = BTreeMap::new();
        for change in self.log.get(&kind).into_iter().flatten().take_while(|change| change.version <= version) {
            match &change.object {
                Some(object) => _ = list.insert(change.key.clone(), object.clone()),
                None => _ = list.remove(&change.key),
            }
        }
        list
    }

    /// What happened to a kind after one version and up to another.
    pub(super) fn changes(&self, kind: Kind, after: u64, upto: u64) -> impl Iterator<Item = &Change> {
        let log = self.log.get(&kind).map_or(&[][..], Vec::as_slice);
        let start = log.partition_point(|change| change.version <= after);
        log[start..].iter().take_while(move |change| change.version <= upto)
    }

    /// Creates or replaces, whatever is there: what people do.
    pub(super) fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        self.version += 1;
        let version = self.version;
        let (kind, key) = (object.kind(), object.key());
        let metadata = metadata(&mut object);
        metadata.resource_version = Some(version.to_string());
        let object = Rc::new(object);
        self.objects.entry(kind).or_default().insert(key.clone(), object.clone());
        self.note(kind, Change { version, key, object: Some(object) });
    }

    /// Replaces the object if it is still at this version.
    pub(super) fn replace(&mut self, object: impl Into<Object>, version: Option<&str>) -> Result<String, Refused> {
        let object = object.into();
        let now = self.get(object.kind(), &object.key()).ok_or(Refused::NotFound)?;
        if version.is_some() && now.metadata().resource_version.as_deref() != version {
            return Err(Refused::Conflict);
        }
        self.put(object);
        Ok(self.version.to_string())
    }

    /// Creates, unless it is there.
    pub(super) fn create(&mut self, object: impl Into<Object>) -> Result<String, Refused> {
        let object = object.into();
        if self.get(object.kind(), &object.key()).is_some() {
            return Err(Refused::Conflict);
        }
        self.put(object);
        Ok(self.version.to_string())
    }

    /// Deletes; what has a finalizer is only marked.
    pub(super) fn delete(&mut self, kind: Kind, key: &ObjectKey) {
        let Some(object) = self.get(kind, key) else { return };
        let held = object.metadata().finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        if held {
            let mut marked = (**object).clone();
            let now = Time(Timestamp::UNIX_EPOCH);
            metadata(&mut marked).deletion_timestamp.get_or_insert(now);
            return self.put(marked);
        }
        self.remove(kind, key);
    }

    /// It is gone, finalizer or not.
    pub(super) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        if self.objects.get_mut(&kind).and_then(|objects| objects.remove(key)).is_some() {
            self.version += 1;
            self.note(kind, Change { version: self.version, key: key.clone(), object: None });
        }
    }

    fn note(&mut self, kind: Kind, change: Change) {
        self.log.entry(kind).or_default().push(change);
        self.changed.insert(kind);
    }

    /// Writes the Lease, if it is still at the version that `lease` names; without one it must not be there.
    pub(super) fn write_lease(&mut self, mut lease: Lease) -> Result<Lease, Refused> {
        let now = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.as_deref());
        if now != lease.metadata.resource_version.as_deref() {
            return Err(Refused::Conflict);
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Ok(lease)
    }
}

fn metadata(object: &mut Object) -> &mut ObjectMeta {
    match object {
        Object::Service(object) => &mut object.metadata,
        Object::EndpointSlice(object) => &mut object.metadata,
        Object::Node(object) => &mut object.metadata,
        Object::Namespace(object) => &mut object.metadata,
        Object::Secret(object) => &mut object.metadata,
        Object::IPAddressPool(object) => &mut object.metadata,
        Object::BGPPeer(object) => &mut object.metadata,
        Object::BGPAdvertisement(object) => &mut object.metadata,
        Object::BFDProfile(object) => &mut object.metadata,
        Object::Community(object) => &mut object.metadata,
        Object::ProviderConfig(object) => &mut object.metadata,
        Object::AddressClaim(object) => &mut object.metadata,
    }
}
