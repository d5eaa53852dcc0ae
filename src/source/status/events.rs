//! Events (`events.k8s.io/v1`): what happened to an object, for `kubectl describe`. Told by a task of its own behind
//! a bounded queue, since nothing waits for an Event; what does not fit is dropped.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, spawn},
};
use tracing::{debug, warn};

use super::{Rights, WriteError, within};

/// Events that wait to be told.
const QUEUE: usize = 1024;
/// The same Event within this time becomes a series.
const SERIES: SignedDuration = SignedDuration::from_mins(6);
/// Events remembered for series.
const REMEMBERED: usize = 4096;
/// The API server's limit.
const NOTE: usize = 1024;

/// What is told.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) regarding: ObjectReference,
    pub(super) warning: bool,
    /// CamelCase, what people grep for.
    pub(super) reason: &'static str,
    /// CamelCase, what was tried.
    pub(super) action: &'static str,
    pub(super) text: String,
}

/// The task that tells; ends when dropped.
pub(super) struct Events {
    sender: Sender,
    task: AbortHandle,
}

/// The way to the task.
#[derive(Clone)]
pub(super) struct Sender {
    notes: mpsc::Sender<Note>,
    /// What came last was dropped.
    full: Arc<AtomicBool>,
}

impl Sender {
    pub(super) fn tell(&self, note: Note) {
        let dropped = self.notes.try_send(note).is_err();
        if dropped && !self.full.load(Relaxed) {
            warn!("Events are dropped: there are more than the API server takes");
        }
        self.full.store(dropped, Relaxed);
    }
}

impl Events {
    pub(super) fn start(client: Client, node: &str) -> Self {
        let (sender, notes) = mpsc::channel(QUEUE);
        let teller = Teller { client, node: node.into(), told: BTreeMap::new() };
        Self { sender: Sender { notes: sender, full: Arc::default() }, task: spawn(teller.run(notes)).abort_handle() }
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Object (kind, namespace, name, uid), reason, text.
type Key = ([String; 4], &'static str, String);

struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Teller {
    client: Client,
    node: String,
    told: BTreeMap<Key, Told>,
}

impl Teller {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        let mut rights = Rights::default();
        while let Some(note) = notes.recv().await {
            if let Err(error) = self.tell(note).await {
                error.answer().into_iter().for_each(|answer| rights.complain(answer));
                debug!(%error, "an Event was not written");
            }
        }
    }

    async fn tell(&mut self, mut note: Note) -> Result<(), WriteError> {
        note.text.truncate(note.text.floor_char_boundary(NOTE));
        let now = Timestamp::now();
        self.told.retain(|_, told| now.duration_since(told.last) < SERIES);
        let object = &note.regarding;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let parts = [text(&object.kind), text(&object.namespace), text(&object.name), text(&object.uid)];
        let namespace = Some(parts[1].as_str()).filter(|n| !n.is_empty()).unwrap_or("default").to_owned();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = (parts, note.reason, note.text.clone());
        if let Some(told) = self.told.get_mut(&key) {
            (told.count, told.last) = (told.count + 1, now);
            let series = EventSeries { count: told.count, last_observed_time: MicroTime(now) };
            let patch = Patch::Merge(json!({ "series": series }));
            within(api.patch(&told.name, &PatchParams::default(), &patch)).await?;
            return Ok(());
        }
        let event = self.event(note, namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        within(api.create(&PostParams::default(), &event)).await?;
        if self.told.len() < REMEMBERED {
            self.told.insert(key, Told { name, count: 1, last: now });
        }
        Ok(())
    }

    fn event(&self, note: Note, namespace: String, now: Timestamp) -> Event {
        let object = note.regarding.name.as_deref().unwrap_or("ironcast");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace),
                ..Default::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(note.reason.into()),
            action: Some(note.action.into()),
            note: Some(note.text),
            regarding: Some(note.regarding),
            reporting_controller: Some("ironcast.dev/ironcast".into()),
            reporting_instance: Some(self.node.clone()),
            ..Default::default()
        }
    }
}
