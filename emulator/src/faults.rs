//! Faults: what goes wrong between a client and an API, and when.

use serde::{Deserialize, Serialize};

use crate::message::Request;

/// One way to fail. Times are milliseconds, since they come over JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refused with this status; nothing happened. `retry_after` (seconds) goes into the header.
    Refuse {
        /// HTTP status, 500 or 429 for example.
        status: u16,
        /// Seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Done, then answered with this status: the client cannot know.
    FailAfter {
        /// HTTP status.
        status: u16,
    },
    /// The connection is closed before anything happened.
    LoseRequest,
    /// Done, and the connection is closed without an answer.
    LoseAnswer,
    /// Done, and the answer comes this late: past the client's deadline it is a time-out after the effect.
    Late {
        /// Milliseconds.
        millis: u64,
    },
    /// Done, and HTML of a proxy instead of the answer.
    Garbage,
    /// A list's page comes once more instead of the page asked for: page n − 1 of n.
    DuplicatePage,
}

impl Fault {
    /// Whether the request never reaches the vendor.
    pub(crate) fn prevents(&self) -> bool {
        matches!(self, Self::Refuse { .. } | Self::LoseRequest)
    }

    /// Its name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Refuse { .. } => "refuse",
            Self::FailAfter { .. } => "fail_after",
            Self::LoseRequest => "lose_request",
            Self::LoseAnswer => "lose_answer",
            Self::Late { .. } => "late",
            Self::Garbage => "garbage",
            Self::DuplicatePage => "duplicate_page",
        }
    }
}

/// A fault and the requests that it hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Only this method; empty is every one.
    #[serde(default)]
    pub method: String,
    /// Only paths that contain this; empty is every one.
    #[serde(default)]
    pub path: String,
    /// So many matching requests pass first.
    #[serde(default)]
    pub skip: u32,
    /// So many are hit after that.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens to them.
    pub fault: Fault,
}

fn once() -> u32 {
    1
}

impl Rule {
    /// The next request of this kind fails so.
    pub fn next(method: &str, path: &str, fault: Fault) -> Self {
        Self { method: method.into(), path: path.into(), skip: 0, times: 1, fault }
    }

    fn matches(&self, request: &Request) -> bool {
        (self.method.is_empty() || self.method == request.method) && request.path.contains(&self.path)
    }
}

/// Takes the fault of a request: the first rule that matches, has nothing left to skip and is not used up.
pub(crate) fn take(rules: &mut Vec<Rule>, request: &Request) -> Option<Fault> {
    for rule in rules.iter_mut().filter(|rule| rule.matches(request)) {
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        rule.times = rule.times.saturating_sub(1);
        let fault = rule.fault.clone();
        rules.retain(|rule| rule.times > 0);
        return Some(fault);
    }
    None
}
