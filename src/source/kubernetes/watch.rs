//! One guarded watch: the objects of one resource, from first to last, whatever the API server does.
//!
//! ```text
//!  start ──streaming list──▶ complete ──▶ live ──connection ends──▶ live again from the last resourceVersion
//!    │ refused                  ▲          │ 410 Gone
//!    └──list in pages───────────┘ ◀────────┘
//! ```
//!
//! Objects travel as the text that they came in: what they mean is the index's business, so one object that cannot be
//! decoded costs itself alone, and nobody makes a tree of values of it. While the server is away nothing is sent, and
//! what is known stands.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use kube::{
    Client,
    api::{ListParams, WatchParams},
    core::{Request, Status},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, trace, warn};

use super::backoff::{Backoff, jitter};

/// Objects in one page of a list.
const PAGE: u32 = 250;
/// The server is asked to end a watch after so long.
const WATCH: Duration = Duration::from_secs(290);
/// A watch without a word for so long is taken for dead: bookmarks come about every minute.
const SILENCE: Duration = Duration::from_secs(130);
/// The first byte of an answer, and each page, must come within this.
const ANSWER: Duration = Duration::from_secs(30);
/// Waits after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Wait after an answer that says to list anew: the server is well, only many must not come at once.
const RELIST: Duration = Duration::from_millis(200);
/// A connection that lasted so long was a good one: the next failure waits shortly again.
const LASTED: Duration = Duration::from_secs(5);
/// Waits while the resource is not served.
const ABSENT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What a list that begins a watch asks for: the newest version. Any version (`0`) might be of a server that is behind
/// the others; a Service that it does not know yet would be withdrawn.
const NEWEST: &str = "";
/// So many answers of 404 in a row make a resource that was there absent: an API server that starts may say 404
/// for custom resources.
const ABSENCES: u32 = 3;

/// What is watched.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `/api/v1/services`
    pub(super) path: String,
    /// Field selector.
    pub(super) fields: Option<String>,
    /// Label selector.
    pub(super) labels: Option<String>,
}

/// What happened. Between `Restart` and `Complete` come the objects of a list; what is not among them is gone.
#[derive(Debug)]
pub(super) enum Event {
    /// A complete list begins.
    Restart,
    /// An object of the list.
    Listed(Sent),
    /// The list is complete.
    Complete,
    /// Added or changed.
    Applied(Sent),
    /// Deleted; the last state.
    Deleted(Sent),
    /// The API server does not serve the resource (its CRD is absent): a complete list of nothing.
    Absent,
}

/// An object as the API server sent it.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Within the line of a watch.
    Line(String),
    /// In a page.
    Item(Value),
}

impl Sent {
    /// The object, or as much of it as is asked for.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        #[derive(Deserialize)]
        struct Of<T> {
            object: T,
        }
        match self {
            Self::Line(line) => serde_json::from_str(line).map(|Of { object }| object),
            Self::Item(item) => T::deserialize(item),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("the resourceVersion is too old")]
    Gone,
    #[error("the API server does not serve it")]
    NotServed,
    #[error("refused: {0}; check the ClusterRole")]
    Forbidden(String),
    #[error("the API server asks to wait {0:?}")]
    Busy(Duration),
    #[error("streaming lists are not available: {0}")]
    NoStreaming(String),
    #[error("no word within {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Server(String),
    #[error("unreadable answer")]
    Unreadable(#[source] serde_json::Error),
    #[error("connection lost")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("nobody listens")]
    Closed,
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(*status),
            kube::Error::SerdeError(error) => Self::Unreadable(error),
            other => Self::Connection(other.into()),
        }
    }
}

impl From<Status> for WatchError {
    fn from(status: Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        match status.code {
            410 => Self::Gone,
            404 => Self::NotServed,
            401 | 403 => Self::Forbidden(status.message),
            429 => Self::Busy(Duration::from_secs(seconds.clamp(1, 60).into())),
            code => Self::Server(format!("{code} {}", status.message)),
        }
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Head,
}

/// As much of an object as a watch reads.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: HeadMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// What a watch remembers of its failures.
struct Waits {
    retry: Backoff,
    absent: Backoff,
    /// It was said that the watch is not allowed.
    forbidden: bool,
}

impl Waits {
    fn new() -> Self {
        Self { retry: Backoff::new(RETRY.0, RETRY.1), absent: Backoff::new(ABSENT.0, ABSENT.1), forbidden: false }
    }
}

/// One watch and where it stands.
pub(super) struct Watch<T> {
    client: Client,
    target: Target,
    tag: T,
    out: mpsc::Sender<(T, Event)>,
    /// Version to go on from; `None` asks for a complete list.
    version: Option<String>,
    streaming: bool,
    /// The last connection broke: the server may know less than before.
    doubted: bool,
    /// Answers of 404 in a row.
    absences: u32,
    /// A complete list, or the absence, has been told.
    told: bool,
}

impl<T: Clone + Send> Watch<T> {
    /// A watch that tells `out` what happens, each time with the `tag`.
    pub(super) fn new(client: Client, target: Target, tag: T, out: mpsc::Sender<(T, Event)>) -> Self {
        Self { client, target, tag, out, version: None, streaming: true, doubted: false, absences: 0, told: false }
    }

    /// Watches until nobody listens.
    pub(super) async fn run(mut self) {
        let mut waits = Waits::new();
        loop {
            let started = Instant::now();
            let list = self.version.is_none() && !self.streaming;
            let ended = self.connection().await;
            if started.elapsed() > LASTED {
                waits.retry.reset();
            }
            let wait = match ended {
                Ok(()) if list || started.elapsed() > LASTED => continue,
                Ok(()) => waits.retry.wait(),
                Err(error) => match self.failed(error, &mut waits).await {
                    Some(wait) => wait,
                    None => return,
                },
            };
            sleep(wait).await;
        }
    }

    /// How long to wait after a failure; `None` where nobody listens any more.
    async fn failed(&mut self, error: WatchError, waits: &mut Waits) -> Option<Duration> {
        let path = self.target.path.as_str();
        match error {
            WatchError::Closed => return None,
            WatchError::NotServed => {
                self.absent().await.ok()?;
                return Some(waits.absent.wait());
            }
            WatchError::NoStreaming(reason) => {
                debug!(path, reason, "listing in pages instead of streaming");
                self.streaming = false;
                return Some(Duration::ZERO);
            }
            // Services could not be selected by type before Kubernetes 1.31; the index keeps those that matter.
            WatchError::Server(reason) if reason.starts_with("400 ") && self.target.fields.take().is_some() => {
                info!(path, reason, "selecting in the daemon instead of on the server");
                self.streaming = true;
                return Some(Duration::ZERO);
            }
            WatchError::Busy(wait) => return Some(wait.max(waits.retry.wait())),
            WatchError::Gone => {
                debug!(path, "the watch is too far behind; listing again");
                self.version = None;
                return Some(jitter(RELIST));
            }
            WatchError::Forbidden(_) if std::mem::replace(&mut waits.forbidden, true) => {}
            WatchError::Forbidden(_) => warn!(path, %error, "not allowed to watch"),
            error => {
                info!(path, %error, cause = root(&error), "the watch broke; what is known stands");
                self.doubted = true;
                if matches!(error, WatchError::Unreadable(_)) {
                    self.version = None;
                }
            }
        }
        Some(waits.retry.wait())
    }

    async fn absent(&mut self) -> Result<(), WatchError> {
        self.absences += 1;
        self.version = None;
        let certain = !self.told || self.absences >= ABSENCES;
        if certain && (!self.told || self.absences == ABSENCES) {
            debug!(path = self.target.path, "not served; asking again until it is");
            self.told = true;
            self.send(Event::Absent).await?;
        }
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), WatchError> {
        self.out.send((self.tag.clone(), event)).await.map_err(|_| WatchError::Closed)
    }

    /// One connection from its request to its end; `Ok` where the server ended it in order.
    async fn connection(&mut self) -> Result<(), WatchError> {
        if self.doubted {
            self.look_back().await?;
        }
        match self.version.clone() {
            Some(version) => self.live(&version, false).await,
            None if self.streaming => self.live(NEWEST, true).await,
            None => self.list().await,
        }
    }

    /// A server whose etcd was restored from a backup has versions below ours. It would leave a watch from a version that
    /// is yet to come without a word, and go on from there as if nothing had been. Versions are numbers that grow
    /// (KEP-5504).
    async fn look_back(&mut self) -> Result<(), WatchError> {
        if let Some(version) = &self.version {
            let page = self.page(&ListParams { limit: Some(1), ..self.list_params() }).await?;
            let now = page.metadata.resource_version;
            if is_below(&now, version) {
                info!(path = self.target.path, %version, %now, "versions went back, as after a restore of etcd; listing again");
                self.version = None;
            }
        }
        self.doubted = false;
        Ok(())
    }

    fn watch_params(&self, initial: bool) -> WatchParams {
        WatchParams {
            label_selector: self.target.labels.clone(),
            field_selector: self.target.fields.clone(),
            timeout: u32::try_from(WATCH.as_secs()).ok(),
            bookmarks: true,
            send_initial_events: initial,
        }
    }

    /// Reads a watch; with `initial` it begins with every object that there is.
    async fn live(&mut self, version: &str, mut initial: bool) -> Result<(), WatchError> {
        let request = Request::new(&self.target.path).watch(&self.watch_params(initial), version);
        let request = request.map_err(|e| WatchError::Server(e.to_string()))?;
        let answer =
            timeout(ANSWER, self.client.request_stream(request)).await.map_err(|_| WatchError::Silent(ANSWER))?;
        let body = answer.map_err(|error| refused_streaming(error, initial))?;
        let mut lines = body.lines().boxed();
        if initial {
            self.send(Event::Restart).await?;
        }
        self.absences = 0;
        loop {
            let line = match timeout(if initial { ANSWER } else { SILENCE }, lines.try_next()).await {
                Ok(line) => line,
                Err(_) if initial => return Err(WatchError::NoStreaming("the list never became complete".into())),
                Err(_) => return Err(WatchError::Silent(SILENCE)),
            };
            let Some(line) = line.map_err(|e| WatchError::Connection(e.into()))? else { break };
            if !initial {
                trace!(path = self.target.path, "change read");
            }
            self.line(line, &mut initial).await?;
        }
        // A list that ended before it was complete starts again.
        if initial { Err(WatchError::Server("the list ended before it was complete".into())) } else { Ok(()) }
    }

    async fn line(&mut self, line: String, initial: &mut bool) -> Result<(), WatchError> {
        let Line { kind, object } = serde_json::from_str(&line).map_err(WatchError::Unreadable)?;
        let (version, sent) = (object.metadata.resource_version, Sent::Line(line));
        match (kind.as_str(), *initial) {
            ("ADDED" | "MODIFIED", true) => return self.send(Event::Listed(sent)).await,
            ("ADDED" | "MODIFIED", false) => self.send(Event::Applied(sent)).await?,
            ("DELETED", false) => self.send(Event::Deleted(sent)).await?,
            ("BOOKMARK", true) if ends_list(&sent) => {
                *initial = false;
                self.told = true;
                self.send(Event::Complete).await?;
            }
            ("ERROR", initial) => {
                let status: Status = sent.read().map_err(WatchError::Unreadable)?;
                return Err(refused_streaming(kube::Error::Api(status.boxed()), initial));
            }
            _ => {}
        }
        if !*initial && version.is_some() {
            self.version = version;
        }
        Ok(())
    }

    fn list_params(&self) -> ListParams {
        let (label_selector, field_selector) = (self.target.labels.clone(), self.target.fields.clone());
        ListParams { limit: Some(PAGE), label_selector, field_selector, ..Default::default() }
    }

    async fn page(&self, params: &ListParams) -> Result<Page, WatchError> {
        let request = Request::new(&self.target.path).list(params).map_err(|e| WatchError::Server(e.to_string()))?;
        let page = timeout(ANSWER, self.client.request::<Page>(request)).await;
        Ok(page.map_err(|_| WatchError::Silent(ANSWER))??)
    }

    /// A complete list in pages; the watch goes on from its version.
    async fn list(&mut self) -> Result<(), WatchError> {
        let mut params = self.list_params();
        self.send(Event::Restart).await?;
        loop {
            let page = self.page(&params).await?;
            for object in page.items {
                self.send(Event::Listed(Sent::Item(object))).await?;
            }
            if page.metadata.next.is_empty() {
                self.absences = 0;
                self.told = true;
                self.version = Some(page.metadata.resource_version).filter(|v| !v.is_empty());
                return self.send(Event::Complete).await;
            }
            params.continue_token = Some(page.metadata.next);
        }
    }
}

/// Whether a version is older than another; what is no number is not compared.
fn is_below(version: &str, other: &str) -> bool {
    matches!((version.parse::<u64>(), other.parse::<u64>()), (Ok(version), Ok(other)) if version < other)
}

fn ends_list(bookmark: &Sent) -> bool {
    let bookmark: Value = bookmark.read().unwrap_or_default();
    bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
}

/// The innermost cause: "connection refused", where the layers above say "client error".
fn root(error: &WatchError) -> Option<String> {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source()).last().map(ToString::to_string)
}

/// A server that does not know streaming lists answers 400 or 422, or 200 and then an ERROR event.
fn refused_streaming(error: kube::Error, initial: bool) -> WatchError {
    match WatchError::from(error) {
        WatchError::Server(reason) if initial => WatchError::NoStreaming(reason),
        other => other,
    }
}

#[cfg(test)]
mod tests;
