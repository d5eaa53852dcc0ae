//! The world as an API server shows it: one guarded watch per kind feeds the index, and every change that
//! matters gives a new snapshot.
//!
//! | kind | what is watched |
//! |---|---|
//! | Service | those of type LoadBalancer, chosen by the server |
//! | EndpointSlice | those of Services that are not headless |
//! | Node, Namespace | all |
//! | our resources | those of the daemon's namespace; an absent CRD counts as none and is asked for again |
//! | Secret | those that peers name, and where this process leads those of providers; each by its name |
//!
//! The task that runs [`run`] owns the index. While the API server is away the last snapshot stands. Cancelling
//! ends every watch.

pub(crate) mod backoff;
pub(crate) mod decode;
pub(crate) mod rights;
pub(crate) mod saved;
mod secrets;
pub(crate) mod watch;

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::{
        mpsc,
        watch::{Receiver, Sender},
    },
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, info, trace};

use self::{
    decode::decode,
    saved::Saving,
    secrets::Secrets,
    watch::{Event, Sent, Target, Watch},
};
use super::{
    api,
    index::{Index, Kind, ObjectKey},
};
use crate::types::Snapshot;

/// The first change after a quiet time becomes a snapshot at once; those that follow within this time become one …
const SETTLE: Duration = Duration::from_millis(5);
/// … and where a snapshot takes its time, no more than one part in so many of it goes into them.
const PART: u32 = 5;
/// No change waits longer than this for others that keep coming.
const LATEST: Duration = Duration::from_millis(50);
/// Events between the watches and the index; a full queue slows the watches down, which costs nothing but time.
const QUEUE: usize = 256;

/// A watch ended, which only a fault of this program does.
#[derive(Debug, thiserror::Error)]
#[error("a watch of the API server ended")]
pub struct WatchEnded(#[source] Option<JoinError>);

/// Which watch an event is of.
#[derive(Debug, Clone)]
enum Origin {
    Kind(Kind),
    Secret(Arc<str>),
}

/// An API server that has not told everything after so long at the start is away: what was saved is used.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches until cancelled. Our resources and Secrets are read from `namespace`; tokens of providers only while this
/// process `leads`. `snapshots` is `None` until the first complete list of every kind has arrived, or what a predecessor
/// saved below `state_dir` is used instead, and is told of differences only.
///
/// # Errors
/// A watch ended, though none should.
pub async fn run(
    client: Client,
    namespace: &str,
    state_dir: Option<&Path>,
    mut leads: Receiver<bool>,
    snapshots: Sender<Option<Arc<Snapshot>>>,
) -> Result<Infallible, WatchEnded> {
    let (out, mut events) = mpsc::channel(QUEUE);
    let mut watches = JoinSet::new();
    let kinds = || Kind::ALL.into_iter().filter(|kind| *kind != Kind::Secret);
    for kind in kinds() {
        let watch = Watch::new(client.clone(), target(kind, namespace), Origin::Kind(kind), out.clone());
        watches.spawn(watch.run());
    }
    let mut feed = Feed {
        index: Index::new(kinds()),
        secrets: Secrets::new(client, namespace, out),
        saving: Saving::new(state_dir),
        changed: false,
        complete: false,
    };
    let mut saved = state_dir;
    let patience = Instant::now() + PATIENCE;
    feed.lead(*leads.borrow_and_update());
    let mut again = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(patience), if saved.is_some() && !feed.complete => {
                if let Some(snapshot) = saved.take().and_then(saved::load) {
                    snapshots.send_replace(Some(Arc::new(snapshot)));
                }
                continue;
            }
            Some((origin, event)) = events.recv() => feed.take(origin, event),
            Ok(()) = leads.changed() => feed.lead(*leads.borrow_and_update()),
            ended = watches.join_next() => return Err(WatchEnded(ended.and_then(Result::err))),
            () = feed.secrets.ended() => return Err(WatchEnded(None)),
        }
        let latest = Instant::now() + LATEST;
        while let Ok(Some((origin, event))) = timeout_at(again.min(latest), events.recv()).await {
            feed.take(origin, event);
            if Instant::now() >= latest {
                break;
            }
        }
        let begun = Instant::now();
        feed.publish(&snapshots);
        // A disk that is slow holds up no route.
        feed.saving.flush();
        again = Instant::now() + SETTLE.max(begun.elapsed() * (PART - 1));
    }
}

fn target(kind: Kind, namespace: &str) -> Target {
    let core = |plural: &str| format!("/api/v1/{plural}");
    let ours = |plural: &str| format!("/apis/{}/{}/namespaces/{namespace}/{plural}", api::GROUP, api::VERSION);
    let (path, fields, labels) = match kind {
        Kind::Service => (core("services"), Some("spec.type=LoadBalancer"), None),
        Kind::EndpointSlice => (
            "/apis/discovery.k8s.io/v1/endpointslices".to_owned(),
            None,
            Some("kubernetes.io/service-name,!service.kubernetes.io/headless"),
        ),
        Kind::Node => (core("nodes"), None, None),
        Kind::Namespace => (core("namespaces"), None, None),
        Kind::Secret => (core(&format!("namespaces/{namespace}/secrets")), None, None),
        Kind::IPAddressPool => (ours("ipaddresspools"), None, None),
        Kind::BGPPeer => (ours("bgppeers"), None, None),
        Kind::BGPAdvertisement => (ours("bgpadvertisements"), None, None),
        Kind::BFDProfile => (ours("bfdprofiles"), None, None),
        Kind::Community => (ours("communities"), None, None),
        Kind::ProviderConfig => (ours("providerconfigs"), None, None),
        Kind::AddressClaim => (ours("addressclaims"), None, None),
    };
    Target { path, fields: fields.map(Into::into), labels: labels.map(Into::into) }
}

/// The index and what feeds it.
struct Feed {
    index: Index,
    secrets: Secrets,
    saving: Saving,
    /// The next snapshot differs.
    changed: bool,
    /// The first complete snapshot has been published.
    complete: bool,
}

impl Feed {
    fn lead(&mut self, leads: bool) {
        self.secrets.lead(leads);
        // That a token is missing is known only when its list is complete.
        if !leads {
            self.changed |= self.index.lead(false);
        }
    }

    fn take(&mut self, origin: Origin, event: Event) {
        match origin {
            Origin::Kind(kind) => self.take_kind(kind, event),
            Origin::Secret(name) => self.take_secret(&name, event),
        }
    }

    fn take_kind(&mut self, kind: Kind, event: Event) {
        match event {
            Event::Restart => {
                self.secrets.list_begins(kind);
                self.index.list_begins(kind);
                self.saving.begin(kind);
            }
            Event::Listed(object) | Event::Applied(object) => self.apply(kind, &object),
            Event::Deleted(object) => {
                if let Some(key) = decode::key(&object) {
                    self.saving.remove(kind, &key);
                    self.secrets.forget(kind, &key);
                    self.changed |= self.index.delete(kind, &key);
                }
            }
            Event::Complete => self.list_ends(kind),
            Event::Absent => {
                info!(%kind, "not served by the API server; install the CRDs (ironcast crds) to use it");
                self.secrets.list_begins(kind);
                self.index.list_begins(kind);
                self.saving.begin(kind);
                self.list_ends(kind);
            }
        }
    }

    fn list_ends(&mut self, kind: Kind) {
        self.changed |= self.index.list_ends(kind);
        self.secrets.list_ends(kind);
        self.saving.complete(kind);
        debug!(%kind, awaited = ?self.index.awaited().collect::<Vec<_>>(), "list complete");
    }

    fn apply(&mut self, kind: Kind, sent: &Sent) {
        match decode(kind, sent) {
            Ok(object) => {
                if saved::is_saved(&object) {
                    self.saving.put(&object);
                }
                self.secrets.observe(&object);
                self.changed |= self.index.apply(&object);
            }
            Err(reason) => {
                let Some(key) = decode::key(sent) else { return };
                self.secrets.keep(kind, &key);
                let problem = decode::problem(kind, &key, &reason);
                self.changed |= self.index.reject(kind, key, problem);
            }
        }
    }

    /// A Secret is watched by itself: its list holds one object or none.
    fn take_secret(&mut self, name: &Arc<str>, event: Event) {
        let key = self.secrets.key(name);
        if matches!(event, Event::Complete | Event::Absent) && self.secrets.is_token(name) {
            self.changed |= self.index.lead(true);
        }
        match event {
            _ if !self.secrets.watches(name) => {}
            Event::Restart => self.secrets.listed(name, false),
            Event::Listed(object) => {
                self.secrets.listed(name, true);
                self.apply(Kind::Secret, &object);
            }
            Event::Applied(object) => self.apply(Kind::Secret, &object),
            Event::Complete if self.secrets.was_listed(name) => {}
            Event::Complete | Event::Deleted(_) | Event::Absent => {
                self.saving.remove(Kind::Secret, &key);
                self.index.delete(Kind::Secret, &key);
            }
        }
    }

    fn publish(&mut self, snapshots: &Sender<Option<Arc<Snapshot>>>) {
        for gone in self.secrets.settle() {
            let key = ObjectKey::new(self.secrets.namespace(), &*gone);
            self.saving.remove(Kind::Secret, &key);
            self.changed |= self.index.delete(Kind::Secret, &key);
        }
        if !self.changed {
            return;
        }
        let Some(snapshot) = self.index.snapshot() else { return };
        self.changed = false;
        if !std::mem::replace(&mut self.complete, true) {
            info!(
                services = snapshot.services.len(),
                nodes = snapshot.nodes.len(),
                "the first complete list has arrived"
            );
        }
        trace!("snapshot made");
        snapshots.send_replace(Some(Arc::new(snapshot)));
    }
}
