//! The API server behaves badly. A proxy in front of the real one answers with errors, is slow, lets watches stall or cuts
//! them; etcd comes back as it was before. The ledger: nothing that is announced is withdrawn meanwhile, and afterwards
//! everything is right again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::State, response::Response};
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::{Request, StatusCode, header};
use ironcast::plan::Planned;
use kube::{Client, Config};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::sleep};

use crate::{
    crds::install,
    source::{SPACE, load_balancer, pool, slice},
    status::Daemon,
    support::{cluster::Cluster, until},
};

/// Waits after failures grow to ten seconds.
const LIMIT: Duration = Duration::from_secs(40);
/// A fault lasts so long: several attempts of each watch.
const LASTS: Duration = Duration::from_secs(3);
/// How late a slow server is.
const HOLD: Duration = Duration::from_millis(700);

/// What the proxy does to requests, and to answers that are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Every request is answered so, and answers under way end.
    Status(u16),
    /// Every answer comes so much later.
    Slow(Duration),
    /// Answers under way stay open and say nothing more; new ones do not begin.
    Stalled,
    /// Answers under way break off, requests too.
    Cut,
}

/// In front of an API server, with the rights of the client that it was made with.
struct Proxy {
    fault: watch::Sender<Fault>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(onward: Client) -> Self {
        let (fault, faults) = watch::channel(Fault::None);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().fallback(forward).with_state((onward, faults));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serves") });
        Self { fault, address, task }
    }

    fn client(&self) -> Client {
        let url = format!("http://{}", self.address).parse().expect("a URL");
        Client::try_from(Config::new(url)).expect("valid configuration")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Onward = (Client, watch::Receiver<Fault>);

async fn forward(State((onward, mut fault)): State<Onward>, request: Request<Body>) -> Response {
    let now = *fault.borrow_and_update();
    match now {
        Fault::None => {}
        Fault::Slow(time) => sleep(time).await,
        Fault::Status(code) => return refusal(code),
        Fault::Cut => return broken(),
        Fault::Stalled => {
            let _ = fault.wait_for(|fault| *fault != Fault::Stalled).await;
            return broken();
        }
    }
    let (parts, body) = request.into_parts();
    let mut further = Request::builder().method(parts.method).uri(parts.uri);
    for name in [header::ACCEPT, header::CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            further = further.header(name, value);
        }
    }
    let bytes = body.collect().await.expect("a whole request").to_bytes().to_vec();
    let Ok(answer) = onward.send(further.body(bytes.into()).expect("a request")).await else { return broken() };
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, Body::from_stream(under_way(body.into_data_stream(), fault)))
}

/// What goes on of an answer while faults come: nothing during a stall, and no more after it or any other fault.
fn under_way<E: std::error::Error + Send + Sync + 'static>(
    body: impl futures::Stream<Item = Result<hyper::body::Bytes, E>> + Send + Unpin + 'static,
    fault: watch::Receiver<Fault>,
) -> impl futures::Stream<Item = Result<hyper::body::Bytes, std::io::Error>> + Send {
    let gone = || std::io::Error::other("cut by the test");
    futures::stream::unfold(Some((body, fault)), move |state| async move {
        let (mut body, mut fault) = state?;
        let bad = tokio::select! {
            biased;
            bad = until_bad(&mut fault) => bad?,
            next = body.next() => return Some((next?.map_err(|_| gone()), Some((body, fault)))),
        };
        if bad == Fault::Stalled {
            let _ = fault.wait_for(|fault| *fault != Fault::Stalled).await;
        }
        Some((Err(gone()), None))
    })
}

/// One that ends answers.
async fn until_bad(fault: &mut watch::Receiver<Fault>) -> Option<Fault> {
    let bad = fault.wait_for(|fault| !matches!(fault, Fault::None | Fault::Slow(_))).await;
    bad.ok().map(|fault| *fault)
}

fn refusal(code: u16) -> Response {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"by the test","reason":"{reason}","code":{code}}}"#
    );
    let answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    answer.header(header::RETRY_AFTER, "1").body(Body::from(status)).expect("an answer")
}

/// As a load balancer answers whose servers are gone.
fn broken() -> Response {
    Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()).expect("an answer")
}

/// What the node announces, and what it should never have withdrawn.
#[derive(Debug, Default)]
struct Book {
    announced: BTreeSet<IpAddr>,
    /// What must stay.
    held: BTreeSet<IpAddr>,
    withdrawn: BTreeSet<IpAddr>,
}

struct Ledger {
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

impl Ledger {
    fn keep(mut plans: watch::Receiver<Option<Planned>>) -> Self {
        let book: Arc<Mutex<Book>> = Arc::default();
        let written = book.clone();
        let task = tokio::spawn(async move {
            while plans.changed().await.is_ok() {
                let Some(planned) = plans.borrow_and_update().clone() else { continue };
                let exports = planned.desired.exports.values();
                let routes = exports.flat_map(|routes| routes.iter().map(|(prefix, _)| prefix.addr()));
                let mut book = written.lock().unwrap_or_else(PoisonError::into_inner);
                book.announced = routes.collect();
                let lost: Vec<IpAddr> = book.held.difference(&book.announced).copied().collect();
                book.withdrawn.extend(lost);
            }
        });
        Self { book, task }
    }

    fn book<T>(&self, ask: impl FnOnce(&mut Book) -> T) -> T {
        ask(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until exactly the addresses of these Services are announced, which must stay from now on.
    async fn settle(&self, cluster: &Cluster, services: &[&str], what: &str) {
        let addresses = until(what, LIMIT, || async {
            let addresses: BTreeSet<IpAddr> = services.iter().filter_map(|service| address(cluster, service)).collect();
            (addresses.len() == services.len() && self.book(|book| book.announced == addresses)).then_some(addresses)
        })
        .await;
        self.book(|book| book.held = addresses);
    }

    fn withdrawn(&self) -> BTreeSet<IpAddr> {
        self.book(|book| book.withdrawn.clone())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address(cluster: &Cluster, service: &str) -> Option<IpAddr> {
    let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
    cluster.kubectl(&["get", "service", service, "-o", path]).ok()?.parse().ok()
}

/// A Service with a pod on this node.
fn service(name: &str) -> String {
    format!("{}---\n{}", load_balancer(name), slice(name, "10.1.2.3", "n1"))
}

/// A node with a router, and addresses that are announced to it.
fn site() -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n1}}\n---\n{}---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: top, namespace: {SPACE}}}\n\
         spec: {{myASN: 64512, peerASN: 64513, peerAddress: 10.0.0.1}}\n---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: all, namespace: {SPACE}}}\n\
         spec: {{}}\n",
        pool("main", "192.0.2.0/24")
    )
}

#[tokio::test]
async fn errors_delays_and_silence_of_the_api_server_withdraw_nothing_and_leave_nothing_wrong() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    cluster.apply(&site()).expect("accepted");
    cluster.apply(&service("stays")).expect("accepted");
    let proxy = Proxy::start(cluster.client_as("daemon").await).await;
    let daemon = Daemon::start_with(proxy.client(), true);
    let ledger = Ledger::keep(daemon.plans());
    ledger.settle(&cluster, &["stays"], "announced").await;

    let faults = [
        Fault::Status(410),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Slow(HOLD),
        Fault::Stalled,
        Fault::Cut,
    ];
    let mut former: Option<String> = None;
    for (n, fault) in faults.into_iter().enumerate() {
        proxy.fault.send_replace(fault);
        // The world goes on behind it: one Service comes, the one before goes.
        let name = format!("during-{n}");
        cluster.apply(&service(&name)).expect("accepted");
        if let Some(former) = former.replace(name.clone()) {
            ledger.book(|book| book.held.retain(|held| Some(*held) == address(&cluster, "stays")));
            cluster.kubectl(&["delete", "service", &former]).expect("deleted");
        }
        sleep(LASTS).await;
        assert_eq!(ledger.withdrawn(), BTreeSet::new(), "{fault:?}");
        proxy.fault.send_replace(Fault::None);
        ledger.settle(&cluster, &["stays", &name], &format!("right again after {fault:?}")).await;
    }
    assert_eq!(ledger.withdrawn(), BTreeSet::new());
}

#[tokio::test]
async fn a_backup_of_etcd_that_is_put_back_is_followed_and_withdraws_nothing_that_it_has() {
    let Some(mut cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    cluster.apply(&site()).expect("accepted");
    cluster.apply(&service("before")).expect("accepted");
    let daemon = Daemon::start_with(cluster.client_as("daemon").await, true);
    let ledger = Ledger::keep(daemon.plans());
    ledger.settle(&cluster, &["before"], "announced").await;
    cluster.back_up().await;
    cluster.apply(&service("after")).expect("accepted");
    ledger.settle(&cluster, &["before", "after"], "announced").await;
    let before = address(&cluster, "before").into_iter().collect();

    ledger.book(|book| book.held = before);
    cluster.put_back().await;
    ledger.settle(&cluster, &["before"], "what the backup has not is gone").await;
    // Versions begin again where they were, and the daemon hears of what is new.
    cluster.apply(&service("new")).expect("accepted");
    ledger.settle(&cluster, &["before", "new"], "what is new is announced").await;
    assert_eq!(ledger.withdrawn(), BTreeSet::new());
}
