//! A plain cache of what was seen; knows no client, does no I/O. Both sources feed it, one task owns it.
//!
//! ```text
//!  list begins ─▶ apply … ─▶ list ends      per kind; what the list did not hold is deleted
//!  apply, delete, reject                    changes
//!  snapshot                                 None until the first list of every expected kind has ended
//! ```
//!
//! Objects are converted when they come, so that nothing of their size is kept. Nothing that works is lost by
//! a bad edit: an object that turns invalid stays in use as it last was, and a [`Problem`] says so.

mod aggregates;
mod configuration;
mod keys;
mod object;
mod services;
mod settle;
mod store;
mod words;

#[cfg(test)]
mod tests;

pub use object::{Kind, Object, ObjectKey};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use self::{
    configuration::{Configuration, Objects},
    services::Services,
    store::Store,
};
use super::convert::{self, Converted};
use crate::types::{Claim, ClaimId, Labels, Node, Problem, ServiceKey, Snapshot};

/// The cache.
#[derive(Debug, Default)]
pub struct Index {
    pending: BTreeSet<Kind>,
    services: Services,
    nodes: Store<Arc<Node>>,
    objects: Objects,
    claims: Store<Claim>,
    /// Manifest mode's journal, in place of objects.
    journal: Option<BTreeMap<ClaimId, Claim>>,
    configuration: Configuration,
    /// The configuration, or a node's labels or addresses, changed since the last snapshot.
    unsettled: bool,
}

/// Runs an expression on the store of a kind.
macro_rules! each_store {
    ($index:ident, $kind:expr, $store:ident => $run:expr) => {
        match $kind {
            Kind::Service => {
                let $store = &mut $index.services.services;
                $run
            }
            Kind::EndpointSlice => {
                let $store = &mut $index.services.slices;
                $run
            }
            Kind::Node => {
                let $store = &mut $index.nodes;
                $run
            }
            Kind::Namespace => {
                let $store = &mut $index.objects.namespaces;
                $run
            }
            Kind::Secret => {
                let $store = &mut $index.objects.secrets;
                $run
            }
            Kind::IPAddressPool => {
                let $store = &mut $index.objects.pools;
                $run
            }
            Kind::BGPPeer => {
                let $store = &mut $index.objects.peers;
                $run
            }
            Kind::BGPAdvertisement => {
                let $store = &mut $index.objects.advertisements;
                $run
            }
            Kind::BFDProfile => {
                let $store = &mut $index.objects.bfd_profiles;
                $run
            }
            Kind::Community => {
                let $store = &mut $index.objects.communities;
                $run
            }
            Kind::ProviderConfig => {
                let $store = &mut $index.objects.providers;
                $run
            }
            Kind::AddressClaim => {
                let $store = &mut $index.claims;
                $run
            }
        }
    };
}

impl Index {
    /// An empty cache that is complete when a list of each of these kinds has ended.
    pub fn new(expected: impl IntoIterator<Item = Kind>) -> Self {
        Self { pending: expected.into_iter().collect(), ..Self::default() }
    }

    /// A complete list of this kind begins: the objects follow by [`Self::apply`] and [`Self::reject`], then
    /// [`Self::list_ends`]. What was known stays in use until then.
    pub fn list_begins(&mut self, kind: Kind) {
        each_store!(self, kind, store => store.begin());
    }

    /// The list is complete: objects of the kind that were not seen since [`Self::list_begins`] are gone. Returns
    /// whether the next snapshot differs.
    pub fn list_ends(&mut self, kind: Kind) -> bool {
        let gone = each_store!(self, kind, store => store.unseen());
        let first = self.pending.remove(&kind);
        gone.iter().fold(first, |changed, key| changed | self.delete(kind, key))
    }

    /// A complete list at once. Returns whether the next snapshot differs.
    pub fn reset(&mut self, kind: Kind, objects: impl IntoIterator<Item = Object>) -> bool {
        self.list_begins(kind);
        let changed = objects.into_iter().fold(false, |changed, object| changed | self.apply(&object));
        self.list_ends(kind) | changed
    }

    /// An object is new or changed. Returns whether the next snapshot differs: much of what a watch tells (a
    /// node's heart-beat) is nothing to us.
    pub fn apply(&mut self, object: &Object) -> bool {
        let key = object.key();
        let created = object.metadata().creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let objects = &mut self.objects;
        let changed = match object {
            Object::Service(object) => return self.services.put(key, created, convert::service(object)),
            Object::EndpointSlice(object) => return self.services.put_slice(key, created, convert::slice(object)),
            Object::Node(object) => return self.put_node(key, created, convert::node(object)),
            Object::Namespace(_) => {
                let labels = object.metadata().labels.clone().unwrap_or_default();
                return objects.namespaces.put(key, created, Converted { value: Some(labels), problems: Vec::new() });
            }
            Object::Secret(object) => {
                let token = objects.set_token(&key, convert::token(object));
                objects.secrets.put(key, created, convert::secret_password(object)) | token
            }
            Object::IPAddressPool(object) => objects.pools.put(key, created, convert::pool(object)),
            Object::BGPPeer(object) => objects.peers.put(key, created, convert::peer(object)),
            Object::BGPAdvertisement(object) => {
                objects.advertisements.put(key, created, convert::advertisement(object))
            }
            Object::BFDProfile(object) => objects.bfd_profiles.put(key, created, convert::bfd_profile(object)),
            Object::Community(object) => objects.communities.put(key, created, convert::communities(object)),
            Object::ProviderConfig(object) => objects.providers.put(key, created, convert::provider(object)),
            Object::AddressClaim(object) => return self.claims.put(key, created, convert::claim(object)),
        };
        self.unsettled |= changed;
        changed
    }

    /// An object is there but could not be decoded: its last valid version stays in use. Returns whether the next
    /// snapshot differs.
    pub fn reject(&mut self, kind: Kind, key: ObjectKey, problem: Problem) -> bool {
        let changed = each_store!(self, kind, store => store.reject(key, problem));
        self.unsettled |= changed;
        changed
    }

    /// An object is gone. Returns whether the next snapshot differs.
    pub fn delete(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        let changed = match kind {
            Kind::EndpointSlice => return self.services.remove_slice(key),
            Kind::Service => return self.services.remove(key),
            Kind::AddressClaim => return self.claims.remove(key),
            Kind::Secret => self.objects.set_token(key, None) | self.objects.secrets.remove(key),
            _ => each_store!(self, kind, store => store.remove(key)),
        };
        self.unsettled |= changed;
        changed
    }

    /// From now on addresses of Services come from this record and not from their status (manifest mode).
    /// Returns whether the next snapshot differs.
    pub fn assign(&mut self, record: BTreeMap<ServiceKey, Vec<IpAddr>>) -> bool {
        self.services.assign(record)
    }

    /// From now on claims are those of this journal and not objects (manifest mode). Returns whether the next snapshot
    /// differs.
    pub fn set_journal(&mut self, claims: BTreeMap<ClaimId, Claim>) -> bool {
        let changed = self.journal.as_ref() != Some(&claims);
        self.journal = Some(claims);
        changed
    }

    /// Whether this process leads: others do without the tokens of providers. Returns whether the next snapshot differs.
    pub fn lead(&mut self, leads: bool) -> bool {
        let changed = std::mem::replace(&mut self.configuration.needs_no_tokens, !leads) == leads;
        self.unsettled |= changed;
        changed
    }

    /// Kinds whose first complete list is still awaited.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.pending.iter().copied()
    }

    /// Everything that is known, once it is complete. What is valid by itself but not beside the others
    /// (overlapping pools …) is settled here, in favour of what was in use before. Costs a reference per node.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.pending.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.unsettled) {
            let nodes: Vec<&Node> = self.nodes.values().map(|(_, _, node)| &**node).collect();
            self.configuration.update(&self.objects, &nodes);
        }
        let claims = match &self.journal {
            Some(journal) => journal.clone(),
            None => self.claims.values().map(|(_, _, claim)| (claim.id, claim.clone())).collect(),
        };
        Some(Snapshot {
            services: self.services.in_use().clone(),
            endpoints: self.services.endpoints().clone(),
            pools: self.pools(&claims),
            providers: self.configuration.providers(),
            claims,
            peers: self.configuration.peers(),
            advertisements: self.configuration.advertisements(),
            bfd_profiles: self.configuration.bfd_profiles(),
            nodes: self.nodes.values().map(|(key, _, node)| (key.name.clone(), node.clone())).collect(),
            namespaces: self.namespaces(),
            problems: self.problems(),
            saved: false,
        })
    }

    fn pools(&self, claims: &BTreeMap<ClaimId, Claim>) -> BTreeMap<String, crate::types::Pool> {
        let assigned: BTreeSet<IpAddr> = match self.configuration.has_node_addresses() {
            true => self.services.in_use().values().flat_map(|service| service.assigned.iter().copied()).collect(),
            false => BTreeSet::new(),
        };
        self.configuration.pools(|address| assigned.contains(&address), claims)
    }

    fn namespaces(&self) -> BTreeMap<String, Labels> {
        self.objects.namespaces.values().map(|(key, _, labels)| (key.name.clone(), labels.clone())).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let objects = &self.objects;
        let mut problems: Vec<Problem> = (self.services.problems())
            .chain(self.nodes.problems())
            .chain(objects.pools.problems())
            .chain(objects.peers.problems())
            .chain(objects.advertisements.problems())
            .chain(objects.bfd_profiles.problems())
            .chain(objects.communities.problems())
            .chain(objects.secret_problems())
            .chain(objects.namespaces.problems())
            .chain(objects.providers.problems())
            .chain(self.claims.problems())
            .chain(&self.configuration.problems)
            .cloned()
            .collect();
        problems.sort();
        problems.dedup();
        problems
    }

    /// Only labels and addresses of a node matter to the configuration.
    fn put_node(&mut self, key: ObjectKey, created: i64, converted: Converted<Node>) -> bool {
        let Converted { value, problems } = converted;
        let before = self.nodes.value(&key);
        let unsettled = value.as_ref().is_some_and(|node| {
            before.is_none_or(|before| {
                (&before.labels, &before.addresses, &before.pod_cidrs)
                    != (&node.labels, &node.addresses, &node.pod_cidrs)
            })
        });
        self.unsettled |= unsettled;
        self.nodes.put(key, created, Converted { value: value.map(Arc::new), problems })
    }
}
