//! One provider's API over HTTP: what every vendor's file sends its requests through.
//!
//! ```text
//!  vendor file ─ Call ─▶ Http::send ─▶ pace (rate limit, Retry-After) ─▶ attempt with a deadline ─▶ Reply | Failed
//!                                  ▲                                       │
//!                                  └── back-off with jitter ◀── harmless to repeat, time left
//! ```
//!
//! A call is repeated only where that is harmless: one that changes nothing or is idempotent after any transport
//! failure, 429 or 5xx; one that must happen once only where nothing was sent, or the provider said 429. What remains is
//! classified by what the caller may do next: a POST that may have arrived is [`SourceError::Ambiguous`].
//!
//! hyper and rustls, which the Kubernetes client brings anyway, with hyper-util's pool and proxies: no further HTTP client.
//!
//! From the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` (a tunnel by CONNECT, for both schemes);
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name the CAs to trust instead of the system's.
//!
//! The token is a [`Secret`]: no `Debug`, message or log line shows it, not even where a provider echoes it.

mod connect;
mod pace;

use std::{
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::{
    client::{legacy, proxy::matcher::Matcher},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

pub use crate::types::Secret;

use self::{
    connect::Connector,
    pace::{Pace, retry_after},
};
use super::{Refusal, SourceError};

/// One attempt, from the connection to the last octet.
const ATTEMPT: Duration = Duration::from_secs(10);
/// All attempts of one call with their pauses.
const CALL: Duration = Duration::from_secs(30);
/// The first pause; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// Attempts of one call.
const ATTEMPTS: u32 = 4;
/// A list of a thousand addresses is about one megabyte.
const BODY_LIMIT: usize = 16 << 20;
/// What of a provider's words goes into an error.
const MESSAGE_LIMIT: usize = 300;

/// A base URL that cannot be used, or TLS that cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No URL of `http` or `https` with a host.
    #[error("{0:?} is no base URL (https://host/path)")]
    Url(String),
    /// Field missing in the `ProviderConfig` or its Secret.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that cannot be used; the second says what is expected.
    #[error("{0}: {1}")]
    Invalid(&'static str, String),
    /// No certificate of a CA.
    #[error("no certificate of a CA: {0}; set SSL_CERT_FILE")]
    NoRoots(String),
    /// rustls refuses its settings.
    #[error("TLS: {0}")]
    Tls(String),
}

/// How a token is sent.
#[derive(Debug, Clone)]
pub(super) enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer …`.
    Bearer(Secret),
    /// `Authorization: Token …`, as NetBox wants it.
    Token(Secret),
    /// A header of its own.
    Header(&'static str, Secret),
}

/// How long things may take; [`Deadlines::default`] outside tests.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// One attempt.
    pub attempt: Duration,
    /// A call with all its attempts.
    pub call: Duration,
    /// First pause between attempts.
    pub pause: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { attempt: ATTEMPT, call: CALL, pause: PAUSE }
    }
}

/// One API.
pub(super) struct Http {
    client: legacy::Client<Connector, Full<Bytes>>,
    base: String,
    auth: Auth,
    content_type: &'static str,
    pace: Pace,
    deadlines: Deadlines,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
    form: bool,
    auth: Option<Auth>,
}

impl Call {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), body: None, form: false, auth: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }

    pub(super) fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PATCH, path) }
    }

    pub(super) fn put(path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::PUT, path) }
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// The same with the body as a form.
    pub(super) fn form(self) -> Self {
        Self { form: true, ..self }
    }

    /// The same with another authorization than the client's.
    pub(super) fn auth(self, auth: Auth) -> Self {
        Self { auth: Some(auth), ..self }
    }

    /// Whether a second one could do something twice.
    fn once(&self) -> bool {
        self.method == Method::POST
    }
}

/// A 2xx answer. The body is `Null` where there is none.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

/// Any other outcome.
#[derive(Debug)]
pub(super) struct Failed {
    /// What the provider answered, if it did.
    pub(super) status: Option<StatusCode>,
    /// Its words, shortened.
    pub(super) message: String,
    /// What the caller may do.
    pub(super) error: SourceError,
}

impl From<Failed> for SourceError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Failed {
    /// A refusal by the vendor's rules instead of [`Refusal::Invalid`].
    pub(super) fn refused(self, refusal: Refusal) -> SourceError {
        SourceError::Refused { refusal, message: self.message }
    }

    /// Whether the provider said this status.
    pub(super) fn is(&self, status: u16) -> bool {
        self.status.is_some_and(|own| own.as_u16() == status)
    }

    /// Whether the message has one of these words, in small letters.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        words.iter().any(|word| message.contains(word))
    }
}

impl Http {
    /// A client of the API below `base`.
    ///
    /// # Errors
    /// The URL is none, or TLS cannot be set up.
    pub(super) fn new(base: &str, auth: Auth) -> Result<Self, SetupError> {
        Self::through(&Matcher::from_env(), base, auth)
    }

    fn through(proxies: &Matcher, base: &str, auth: Auth) -> Result<Self, SetupError> {
        let uri: Uri = base.parse().map_err(|_| SetupError::Url(base.into()))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(SetupError::Url(base.into()));
        }
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            // Repeating is decided here, by what a request does.
            .retry_canceled_requests(false)
            .build(connect::connector(&uri, proxies)?);
        let base = base.trim_end_matches('/').to_owned();
        let (pace, deadlines) = (Pace::default(), Deadlines::default());
        Ok(Self { client, base, auth, content_type: "application/json", pace, deadlines })
    }

    /// The same with at most so many requests a second.
    pub(super) fn per_second(self, requests: u32) -> Self {
        Self { pace: Pace::per_second(requests), ..self }
    }

    /// The same with another type of JSON.
    pub(super) fn content_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    /// The same with other deadlines.
    pub(super) fn deadlines(self, deadlines: Deadlines) -> Self {
        Self { deadlines, ..self }
    }

    /// Sends a call; 2xx is a reply.
    ///
    /// # Errors
    /// Everything else, classified.
    pub(super) async fn send(&self, call: &Call) -> Result<Reply, Failed> {
        let until = Instant::now() + self.deadlines.call;
        let mut pause = self.deadlines.pause;
        for attempt in 1.. {
            let (failed, repeatable) = match self.attempt(call, until).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            let asked = match &failed.error {
                SourceError::RateLimited { retry_after } | SourceError::Unavailable { retry_after, .. } => *retry_after,
                _ => None,
            };
            let wait = asked.unwrap_or(pause).mul_f64(jitter());
            if !repeatable || attempt >= ATTEMPTS || Instant::now() + wait >= until {
                return Err(failed);
            }
            tracing::debug!(method = %call.method, path = call.path, error = %failed.error, ?wait, "asking the provider again");
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the loop ends by its attempts")
    }

    /// One attempt; with a failure, whether repeating is harmless.
    async fn attempt(&self, call: &Call, until: Instant) -> Result<Reply, (Failed, bool)> {
        if let Some(wait) = self.pace.slot(until).await {
            return Err((Failed::transport("", SourceError::RateLimited { retry_after: Some(wait) }), false));
        }
        let request = self.request(call).map_err(|failed| (failed, false))?;
        let deadline = until.min(Instant::now() + self.deadlines.attempt);
        let Ok(outcome) = timeout_at(deadline, self.exchange(request)).await else {
            return Err((self.lost(call, "no answer in time"), !call.once()));
        };
        let (status, headers, body) = outcome.map_err(|error| match error {
            // Nothing was sent.
            Broken::Connect(message) => (Failed::unavailable(&message, None), true),
            Broken::Later(message) => (self.lost(call, &message), !call.once()),
        })?;
        self.pace.learn(&headers, SystemTime::now());
        if status.is_success() {
            return self.read(call, headers, &body).map_err(|failed| (failed, false));
        }
        let failed = self.judge(call, status, &headers, &body);
        let repeatable = match status.as_u16() {
            429 => true,
            500.. => !call.once(),
            _ => false,
        };
        Err((failed, repeatable))
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Failed> {
        let invalid = |error: hyper::http::Error| {
            let message = error.to_string();
            let error = SourceError::Refused { refusal: Refusal::Invalid, message: message.clone() };
            Failed { status: None, message, error }
        };
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.base, call.path))
            .header(USER_AGENT, concat!("ironcast/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, self.content_type);
        let (name, value) = match call.auth.as_ref().unwrap_or(&self.auth) {
            Auth::None => (None, String::new()),
            Auth::Bearer(token) => (Some(AUTHORIZATION), format!("Bearer {}", token.expose())),
            Auth::Token(token) => (Some(AUTHORIZATION), format!("Token {}", token.expose())),
            Auth::Header(name, token) => (HeaderName::from_bytes(name.as_bytes()).ok(), token.expose().to_owned()),
        };
        if let Some(name) = name {
            let mut value = HeaderValue::from_str(&value).map_err(|error| invalid(error.into()))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let body = match &call.body {
            None => Bytes::new(),
            Some(body) if call.form => {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                form(body).into()
            }
            Some(body) => {
                request = request.header(CONTENT_TYPE, self.content_type);
                body.to_string().into()
            }
        };
        request.body(Full::new(body)).map_err(invalid)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap, Bytes), Broken> {
        let response = self.client.request(request).await.map_err(|error| {
            let message = chain(&error);
            if error.is_connect() { Broken::Connect(message) } else { Broken::Later(message) }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| Broken::Later(error.to_string()))?;
        Ok((head.status, head.headers, body.to_bytes()))
    }

    /// A request that may have arrived, without a readable answer.
    fn lost(&self, call: &Call, message: &str) -> Failed {
        let message = self.words(call, message);
        if call.once() {
            return Failed::transport(&message, SourceError::Ambiguous(message.clone()));
        }
        Failed::unavailable(&message, None)
    }

    fn read(&self, call: &Call, headers: HeaderMap, body: &[u8]) -> Result<Reply, Failed> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Reply { headers, body: Value::Null });
        }
        serde_json::from_slice(body).map(|body| Reply { headers, body }).map_err(|error| {
            let message = format!("no JSON: {error}");
            let error = match call.once() {
                true => SourceError::Ambiguous(message.clone()),
                false => SourceError::Unreadable(message.clone()),
            };
            Failed::transport(&message, error)
        })
    }

    fn judge(&self, call: &Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failed {
        let said = self.words(call, &spoken(body));
        let message = if said.is_empty() { status.to_string() } else { said };
        let retry_after = retry_after(headers, SystemTime::now());
        let error = match status.as_u16() {
            401 | 403 => SourceError::Unauthorized(message.clone()),
            404 | 410 => SourceError::Gone,
            429 => SourceError::RateLimited { retry_after },
            500.. if call.once() => SourceError::Ambiguous(message.clone()),
            500.. => SourceError::Unavailable { message: message.clone(), retry_after },
            _ => SourceError::Refused { refusal: Refusal::Invalid, message: message.clone() },
        };
        Failed { status: Some(status), message, error }
    }

    /// A provider's words without the token that the call bore, shortened.
    fn words(&self, call: &Call, text: &str) -> String {
        let text = match call.auth.as_ref().unwrap_or(&self.auth) {
            Auth::None => text.to_owned(),
            Auth::Bearer(secret) | Auth::Token(secret) | Auth::Header(_, secret) => secret.hide_in(text),
        };
        text.chars().take(MESSAGE_LIMIT).collect()
    }
}

impl Failed {
    fn transport(message: &str, error: SourceError) -> Self {
        Self { status: None, message: message.into(), error }
    }

    fn unavailable(message: &str, retry_after: Option<Duration>) -> Self {
        Self::transport(message, SourceError::Unavailable { message: message.into(), retry_after })
    }
}

/// How an exchange broke.
enum Broken {
    /// Before anything was sent.
    Connect(String),
    /// After.
    Later(String),
}

/// An error with its causes, which hyper keeps to itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// What an error body says: `error`, `errors[]`, `message`, `detail`, JSON:API's `errors[].detail`, or its text.
fn spoken(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        return if text.trim_start().starts_with('<') { String::new() } else { text.trim().to_owned() };
    };
    let one = |value: &Value| -> Option<String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let named = text("detail").or_else(|| text("title")).or_else(|| text("message"));
        value.as_str().or(named).map(str::to_owned)
    };
    for key in ["error", "errors", "message", "error_description", "detail"] {
        match value.get(key) {
            Some(Value::Array(all)) => {
                let said: Vec<_> = all.iter().filter_map(one).collect();
                return said.join("; ");
            }
            Some(found) => return one(found).unwrap_or_else(|| found.to_string()),
            None => {}
        }
    }
    value.to_string()
}

/// 0.75 to 1.25, so that leaders of many clusters do not knock together.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish() >> 11;
    #[allow(clippy::cast_precision_loss)] // 53 bits
    let unit = random as f64 / (1_u64 << 53) as f64;
    0.75 + unit / 2.0
}

fn form(body: &Value) -> String {
    let fields = body.as_object().into_iter().flatten();
    let field = |(name, value): (&String, &Value)| format!("{name}={}", encode(value.as_str().unwrap_or_default()));
    fields.map(field).collect::<Vec<_>>().join("&")
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3): for a path segment, a query value or a form.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// A time as APIs write it (RFC 3339).
pub(super) fn time(text: &str) -> Option<SystemTime> {
    text.parse::<k8s_openapi::jiff::Timestamp>().ok().map(Into::into)
}

#[cfg(test)]
mod tests;
