//! The emulator over HTTP.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{
    control,
    emulator::{Emulator, Outcome},
    message::{Answer, Request},
};

/// A running server: its task owns the connections, and dropping this ends them all.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Mutex<Emulator>>,
    task: tokio::task::JoinHandle<Infallible>,
}

impl Server {
    /// Serves on a listener of this runtime; made from one of `std`, it may stand in another network namespace.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn start(listener: TcpListener, emulator: Emulator) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(emulator));
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Serves on a free port of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub async fn on_loopback(emulator: Emulator) -> io::Result<Self> {
        Self::start(TcpListener::bind("127.0.0.1:0").await?, emulator)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The emulator itself, between two requests.
    pub fn emulator(&self) -> MutexGuard<'_, Emulator> {
        lock(&self.shared)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(shared: &Mutex<Emulator>) -> MutexGuard<'_, Emulator> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Emulator>>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    let service = service_fn(|request| serve(&shared, from.ip(), request));
                    // A lost answer ends the connection with an error: that is the fault, not ours.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Answers one request; an error closes the connection without an answer.
async fn serve(
    shared: &Mutex<Emulator>,
    from: IpAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let request = parse(from, request).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if request.path.starts_with(control::PREFIX) {
        return respond(&control::answer(&mut lock(shared), now, &request));
    }
    let outcome = lock(shared).exchange(now, request);
    match outcome {
        Outcome::Answered(answer, late) => {
            tokio::time::sleep(late).await;
            respond(&answer)
        }
        Outcome::Lost => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn parse(from: IpAddr, request: hyper::Request<Incoming>) -> Result<Request, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut parsed =
        Request::new(head.method.as_str(), head.uri.path_and_query().map_or("/", |path| path.as_str()), Value::Null);
    for (name, value) in &head.headers {
        parsed.headers.insert(name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let form = parsed.headers.get("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form"));
    parsed.body = if form {
        let fields = form_urlencoded::parse(&body).into_owned().map(|(name, value)| (name, Value::String(value)));
        Value::Object(fields.collect::<Map<_, _>>())
    } else {
        serde_json::from_slice(&body).unwrap_or(Value::Null)
    };
    parsed.from = from;
    Ok(parsed)
}

fn respond(answer: &Answer) -> Result<Response<Full<Bytes>>, io::Error> {
    let mut response = Response::builder().status(answer.status).header("Content-Type", answer.content_type);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(answer.bytes().into())).map_err(io::Error::other)
}
