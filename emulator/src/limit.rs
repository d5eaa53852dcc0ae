//! A rate limit with the headers that vendors tell it by.

use std::time::Duration;

use crate::message::Answer;

/// So many requests per window. Windows are counted from 1970, as `X-RateLimit-Reset` tells them.
#[derive(Debug, Clone)]
pub struct RateLimit {
    requests: u32,
    window: Duration,
    used: u32,
    current: u128,
}

impl RateLimit {
    /// At most `requests` in each `window` (at least a millisecond).
    pub fn new(requests: u32, window: Duration) -> Self {
        Self { requests, window: window.max(Duration::from_millis(1)), used: 0, current: 0 }
    }

    /// Counts one request at a time since 1970; `Some` is how long to wait.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Duration> {
        let window = now.as_millis() / self.window.as_millis();
        if window != self.current {
            (self.current, self.used) = (window, 0);
        }
        self.used = self.used.saturating_add(1);
        (self.used > self.requests).then(|| self.reset().saturating_sub(now))
    }

    fn reset(&self) -> Duration {
        let millis = (self.current + 1) * self.window.as_millis();
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset` (unix seconds).
    pub(crate) fn headers(&self, answer: Answer) -> Answer {
        answer
            .with("X-RateLimit-Limit", self.requests)
            .with("X-RateLimit-Remaining", self.requests.saturating_sub(self.used))
            .with("X-RateLimit-Reset", self.reset().as_millis().div_ceil(1000))
    }
}
