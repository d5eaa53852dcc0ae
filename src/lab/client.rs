//! The client: requests through a Service's address, each over a connection of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    connections::Connections,
    datagrams::Datagrams,
    netns::{Inside, Namespace},
    pod::CLIENT_HEADER,
    uploads,
};

/// Longer than two retransmissions of a SYN.
const CONNECT_WITHIN: Duration = Duration::from_millis(3500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Requests of one batch in flight.
const ABREAST: usize = 8;

/// What a pod answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The pod.
    pub(crate) pod: String,
    /// Whom the pod saw: the client itself, or the node that masqueraded.
    pub(crate) seen_as: Option<IpAddr>,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection came about: a new flow was lost.
    Connect,
    /// The connection was there and died before the answer: an established flow was cut.
    Cut,
}

/// What became of requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Answers per pod.
    pub(crate) pods: BTreeMap<String, u64>,
    /// Whom the pods saw.
    pub(crate) seen_as: BTreeSet<IpAddr>,
    /// Connections that did not come about.
    pub(crate) not_connected: u64,
    /// Connections that died.
    pub(crate) cut: u64,
}

impl Tally {
    pub(crate) fn answered(&self) -> u64 {
        self.pods.values().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.not_connected + self.cut
    }

    fn count(&mut self, outcome: Result<Answer, Failure>) {
        match outcome {
            Ok(answer) => {
                *self.pods.entry(answer.pod).or_default() += 1;
                self.seen_as.extend(answer.seen_as);
            }
            Err(Failure::Connect) => self.not_connected += 1,
            Err(Failure::Cut) => self.cut += 1,
        }
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (pod, n) in &other.pods {
            *self.pods.entry(pod.clone()).or_default() += n;
        }
        self.seen_as.extend(&other.seen_as);
        self.not_connected += other.not_connected;
        self.cut += other.cut;
    }
}

/// Asks from the client's namespace.
#[derive(Debug)]
pub(crate) struct Client {
    inside: Inside,
    /// Everything ever asked, for the view.
    total: Arc<Mutex<Tally>>,
}

impl Client {
    pub(crate) fn new(namespace: &Namespace) -> anyhow::Result<Self> {
        Ok(Self { inside: namespace.runtime()?, total: Arc::default() })
    }

    /// Everything that was asked since the start.
    pub(crate) fn total(&self) -> Arc<Mutex<Tally>> {
        self.total.clone()
    }

    /// So many requests, a few abreast.
    ///
    /// # Errors
    /// The client's thread has ended.
    pub(crate) async fn batch(&self, to: SocketAddr, requests: usize) -> anyhow::Result<Tally> {
        let tally = self
            .inside
            .spawn(async move {
                let mut tally = Tally::default();
                let mut flying = JoinSet::new();
                for _ in 0..requests {
                    if flying.len() >= ABREAST
                        && let Some(Ok(outcome)) = flying.join_next().await
                    {
                        tally.count(outcome);
                    }
                    flying.spawn(request(to));
                }
                while let Some(Ok(outcome)) = flying.join_next().await {
                    tally.count(outcome);
                }
                tally
            })
            .await?;
        lock(&self.total).add(&tally);
        Ok(tally)
    }

    /// Opens so many connections to these addresses in turn, and keeps them open.
    ///
    /// # Errors
    /// One could not be opened.
    pub(crate) async fn connect(&self, to: Vec<SocketAddr>, count: usize) -> anyhow::Result<Connections> {
        Connections::open(&self.inside, to, count).await
    }

    /// So many streams of datagrams to each address.
    pub(crate) fn datagrams(&self, to: &[SocketAddr], streams: usize) -> Datagrams {
        Datagrams::start(&self.inside, to, streams)
    }

    /// So many connections that send so much each; how many get it back whole.
    ///
    /// # Errors
    /// The client's thread has ended.
    pub(crate) async fn uploads(&self, to: SocketAddr, count: usize, length: usize) -> anyhow::Result<usize> {
        uploads::whole(&self.inside, to, count, length).await
    }

    /// A request every `pause` to these addresses in turn, until [`Traffic::stop`].
    pub(crate) fn traffic(&self, to: Vec<SocketAddr>, pause: Duration) -> Traffic {
        let tally: Arc<Mutex<Tally>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped, total) = (tally.clone(), stop.clone(), self.total.clone());
        let task = self.inside.spawn(async move {
            let mut flying = JoinSet::new();
            let mut tick = tokio::time::interval(pause);
            for to in to.into_iter().cycle() {
                tick.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (counted, total) = (counted.clone(), total.clone());
                flying.spawn(async move {
                    let outcome = request(to).await;
                    lock(&counted).count(outcome.clone());
                    lock(&total).count(outcome);
                });
                while flying.try_join_next().is_some() {}
            }
            while flying.join_next().await.is_some() {}
        });
        Traffic { tally, stop, task }
    }
}

/// Requests that go on in the background.
#[derive(Debug)]
pub(crate) struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    /// What has come of it so far.
    pub(crate) fn so_far(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Sends nothing more, waits for those in flight.
    ///
    /// # Errors
    /// The client's thread has ended.
    pub(crate) async fn stop(self) -> anyhow::Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(lock(&self.tally).clone())
    }
}

/// The counts stay right whoever panicked while holding them: each change is one step.
pub(crate) fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn request(to: SocketAddr) -> Result<Answer, Failure> {
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(to)).await;
    let stream = stream.map_err(|_| Failure::Connect)?.map_err(|error| unmade(&error))?;
    let started = Instant::now();
    let answer = tokio::time::timeout(ANSWER_WITHIN, exchange(stream)).await;
    answer.ok().flatten().ok_or_else(|| {
        tracing::debug!(%to, after = ?started.elapsed(), "connection died");
        Failure::Cut
    })
}

/// A reset in the answer to a SYN is a refusal; any other comes after the handshake, though the client may hear of both
/// at once. That connection was there, and was cut.
fn unmade(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Failure::Cut,
        _ => Failure::Connect,
    }
}

async fn exchange(stream: TcpStream) -> Option<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let driver = tokio::spawn(connection);
    let request =
        Request::get("/").header("host", "lab").header("connection", "close").body(Empty::<Bytes>::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    let seen_as = response.headers().get(CLIENT_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = Limited::new(response.into_body(), 4096).collect().await.ok()?.to_bytes();
    drop(sender);
    let _ = driver.await;
    Some(Answer { pod: String::from_utf8_lossy(&body).trim().to_owned(), seen_as })
}
