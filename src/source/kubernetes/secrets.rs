//! Secrets that peers, BFD profiles and providers name: each is watched by its name, so that the daemon needs no right to list the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::Client;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Event, Origin, Watch, target};
use crate::source::index::{Kind, Object, ObjectKey};

/// Watches of Secrets, as many as peers ask for.
pub(super) struct Secrets {
    client: Client,
    namespace: String,
    out: mpsc::Sender<(Origin, Event)>,
    /// Names of the Secrets by the object that names them.
    named: BTreeMap<(Kind, ObjectKey), Vec<Arc<str>>>,
    /// Tokens of providers are the leader's alone.
    leads: bool,
    /// Objects that a list under way has not shown yet.
    unseen: BTreeSet<(Kind, ObjectKey)>,
    watched: BTreeMap<Arc<str>, Watched>,
    tasks: JoinSet<()>,
}

struct Watched {
    task: tokio::task::AbortHandle,
    /// The list under way, or the last one, showed the Secret.
    listed: bool,
}

impl Secrets {
    pub(super) fn new(client: Client, namespace: &str, out: mpsc::Sender<(Origin, Event)>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            out,
            named: BTreeMap::new(),
            leads: false,
            unseen: BTreeSet::new(),
            watched: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), name)
    }

    /// Whether this process leads.
    pub(super) fn lead(&mut self, leads: bool) {
        self.leads = leads;
    }

    /// Whether it holds the token of a provider, which is ours to use.
    pub(super) fn is_token(&self, name: &Arc<str>) -> bool {
        let names = |((of, _), names): (&(Kind, ObjectKey), &Vec<Arc<str>>)| {
            *of == Kind::ProviderConfig && names.contains(name)
        };
        self.leads && self.named.iter().any(names)
    }

    pub(super) fn list_begins(&mut self, kind: Kind) {
        self.unseen.extend(self.named.keys().filter(|(of, _)| *of == kind).cloned());
    }

    pub(super) fn list_ends(&mut self, kind: Kind) {
        for object in self.unseen.extract_if(.., |(of, _)| *of == kind) {
            self.named.remove(&object);
        }
    }

    /// Notes which Secrets an object names.
    pub(super) fn observe(&mut self, object: &Object) {
        let names: Vec<&str> = match object {
            Object::BGPPeer(peer) => {
                let keys = peer.spec.tcp_ao.iter().map(|key| &key.secret);
                peer.spec.password_secret.iter().chain(keys).map(|secret| secret.name.as_str()).collect()
            }
            Object::BFDProfile(profile) => profile.spec.authentication.iter().map(|a| a.secret.name.as_str()).collect(),
            Object::ProviderConfig(provider) => {
                provider.spec.credentials_secret.iter().map(|secret| secret.name.as_str()).collect()
            }
            _ => return,
        };
        let of = (object.kind(), object.key());
        self.unseen.remove(&of);
        self.named.insert(of, names.into_iter().filter(|name| !name.is_empty()).map(Into::into).collect());
    }

    /// An object is there but could not be decoded: what it named stays in use.
    pub(super) fn keep(&mut self, kind: Kind, key: &ObjectKey) {
        self.unseen.remove(&(kind, key.clone()));
    }

    pub(super) fn forget(&mut self, kind: Kind, key: &ObjectKey) {
        self.named.remove(&(kind, key.clone()));
    }

    /// False for what a watch still said when it was ended.
    pub(super) fn watches(&self, name: &str) -> bool {
        self.watched.contains_key(name)
    }

    pub(super) fn listed(&mut self, name: &str, listed: bool) {
        if let Some(watched) = self.watched.get_mut(name) {
            watched.listed = listed;
        }
    }

    pub(super) fn was_listed(&self, name: &str) -> bool {
        self.watched.get(name).is_some_and(|watched| watched.listed)
    }

    /// Starts the watches that are missing and ends those that nobody needs; the names of the latter.
    pub(super) fn settle(&mut self) -> Vec<Arc<str>> {
        let of_us = |(of, _): &(&(Kind, ObjectKey), &Vec<Arc<str>>)| self.leads || of.0 != Kind::ProviderConfig;
        let wanted: BTreeSet<&Arc<str>> = self.named.iter().filter(of_us).flat_map(|(_, names)| names).collect();
        let gone: Vec<_> = self.watched.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in wanted {
            if !self.watched.contains_key(name) {
                let mut target = target(Kind::Secret, &self.namespace);
                target.fields = Some(format!("metadata.name={name}"));
                let watch = Watch::new(self.client.clone(), target, Origin::Secret(name.clone()), self.out.clone());
                let task = self.tasks.spawn(watch.run());
                self.watched.insert(name.clone(), Watched { task, listed: false });
            }
        }
        for name in &gone {
            if let Some(watched) = self.watched.remove(name) {
                watched.task.abort();
            }
        }
        gone
    }

    /// Returns when a watch ended that was not told to.
    pub(super) async fn ended(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_cancelled() => {}
                Some(_) => return,
                None => std::future::pending().await,
            }
        }
    }
}
