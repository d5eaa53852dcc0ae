//! How fast one API may be asked: a rate of our own, and what the provider says.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{HeaderMap, header::RETRY_AFTER};
use tokio::time::Instant;

/// A provider that asks for more is asked again after this.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// When the next request may leave.
#[derive(Debug, Default)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many a second, evenly.
    pub(super) fn per_second(requests: u32) -> Self {
        Self { interval: Duration::from_secs(1) / requests.max(1), next: Mutex::default() }
    }

    /// Waits for the next slot. `Some` is how long that would take, where it is past `until`: nothing was waited for.
    pub(super) async fn slot(&self, until: Instant) -> Option<Duration> {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
            if at >= until {
                return Some(at - Instant::now());
            }
            *next = Some(at + self.interval);
            at
        };
        tokio::time::sleep_until(at).await;
        None
    }

    /// Heeds `Retry-After`, and `X-RateLimit-Remaining: 0` with `X-RateLimit-Reset` (unix seconds).
    pub(super) fn learn(&self, headers: &HeaderMap, now: SystemTime) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let exhausted = (number("x-ratelimit-remaining") == Some(0)).then(|| number("x-ratelimit-reset")).flatten();
        let reset = exhausted.map(|reset| until(reset, now));
        // A clock that is wrong by hours must not stop us for hours.
        let Some(wait) = retry_after(headers, now).max(reset).filter(|wait| *wait < Duration::from_secs(3600)) else {
            return;
        };
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now() + wait;
        *next = Some(next.map_or(at, |next| next.max(at)));
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds).min(WAIT_LIMIT));
    }
    let date = k8s_openapi::jiff::fmt::rfc2822::parse(text).ok()?;
    Some(until(u64::try_from(date.timestamp().as_second()).ok()?, now))
}

/// How long it is until then, in seconds since 1970.
pub(super) fn until(then: u64, now: SystemTime) -> Duration {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(then));
    then.map_or(WAIT_LIMIT, |then| then.duration_since(now).unwrap_or_default()).min(WAIT_LIMIT)
}
