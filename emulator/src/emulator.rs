//! A vendor with a log, tokens, a rate limit and faults around it.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    faults::{self, Fault, Rule},
    limit::RateLimit,
    message::{Answer, Request},
};

/// The API of one vendor: state, and what it answers. No I/O.
pub trait Vendor: Send {
    /// Answers a request that passed token and rate limit; `now` is since 1970.
    fn answer(&mut self, now: Duration, request: &Request) -> Answer;

    /// An error in the vendor's form.
    fn error(&self, status: u16, message: &str) -> Answer;

    /// The token that the request brought; `None` on paths that need none (metadata, login).
    fn token<'r>(&self, request: &'r Request) -> Option<&'r str>;

    /// What only the vendor's people or a person at the console can do: `{"approve": "<id>"}` … The module of the
    /// vendor lists its commands.
    ///
    /// # Errors
    /// The command is not known or names nothing.
    fn steer(&mut self, now: Duration, command: &Value) -> Result<(), String>;

    /// Everything that it knows, for assertions.
    fn state(&self) -> Value;
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// An answer, after so much time.
    Answered(Answer, Duration),
    /// The connection ends without one.
    Lost,
}

/// One line of the log, in the order of effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1 on; a note takes a number like a request.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Method; `NOTE` for what an observer wrote down.
    pub method: String,
    /// Path with query; the text of a note.
    pub path: String,
    /// Body as sent; never headers, so no token.
    pub body: Value,
    /// What the client got; 0 when nothing.
    pub status: u16,
    /// What the vendor did; 0 when the request did not reach it. Differs from `status` under a fault.
    pub effect: u16,
    /// The fault that hit, by name.
    pub fault: Option<String>,
}

/// A vendor behind everything that stands between it and its clients.
pub struct Emulator {
    vendor: Box<dyn Vendor>,
    tokens: BTreeSet<String>,
    limit: Option<RateLimit>,
    rules: Vec<Rule>,
    log: Vec<Entry>,
}

impl Emulator {
    /// A vendor that takes these tokens, without rate limit or faults.
    pub fn new(vendor: impl Vendor + 'static, tokens: &[&str]) -> Self {
        Self {
            vendor: Box::new(vendor),
            tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
            limit: None,
            rules: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Sets or lifts the rate limit.
    pub fn set_limit(&mut self, limit: Option<RateLimit>) {
        self.limit = limit;
    }

    /// The tokens that are good from now on; the others have expired.
    pub fn set_tokens(&mut self, tokens: impl IntoIterator<Item = String>) {
        self.tokens = tokens.into_iter().collect();
    }

    /// Adds a fault.
    pub fn inject(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Takes every fault away that has not hit yet; how many there were.
    pub fn clear_faults(&mut self) -> usize {
        std::mem::take(&mut self.rules).len()
    }

    /// The log so far.
    pub fn log(&self) -> &[Entry] {
        &self.log
    }

    /// Writes an observation into the log, so that one order covers requests and what was seen elsewhere.
    pub fn note(&mut self, now: Duration, text: &str) {
        self.record(now, "NOTE", text.into(), Value::Null);
    }

    /// Does what only the vendor's people can ([`Vendor::steer`]).
    ///
    /// # Errors
    /// The command is not known or names nothing.
    pub fn steer(&mut self, now: Duration, command: &Value) -> Result<(), String> {
        self.vendor.steer(now, command)
    }

    /// Everything the vendor knows.
    pub fn state(&self) -> Value {
        self.vendor.state()
    }

    /// One request at a time since 1970, through log, faults, token and rate limit.
    pub fn exchange(&mut self, now: Duration, mut request: Request) -> Outcome {
        let fault = faults::take(&mut self.rules, &request);
        let index = self.record(now, &request.method, with_query(&request), request.body.clone());
        if fault == Some(Fault::DuplicatePage) {
            previous_page(&mut request);
        }
        let answer = match &fault {
            Some(fault) if fault.prevents() => None,
            _ => Some(self.admitted(now, &request)),
        };
        let effect = answer.as_ref().map_or(0, |answer| answer.status);
        let outcome = self.after(fault.as_ref(), answer);
        let entry = &mut self.log[index];
        entry.effect = effect;
        entry.fault = fault.map(|fault| fault.name().to_owned());
        entry.status = match &outcome {
            Outcome::Answered(answer, _) => answer.status,
            Outcome::Lost => 0,
        };
        outcome
    }

    fn record(&mut self, now: Duration, method: &str, path: String, body: Value) -> usize {
        self.log.push(Entry {
            number: self.log.len() as u64 + 1,
            at: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            method: method.into(),
            path,
            body,
            status: 0,
            effect: 0,
            fault: None,
        });
        self.log.len() - 1
    }

    /// Rate limit, then token, then the vendor.
    fn admitted(&mut self, now: Duration, request: &Request) -> Answer {
        let wait = self.limit.as_mut().and_then(|limit| limit.take(now));
        let answer = if let Some(wait) = wait {
            self.vendor.error(429, "Too many requests").with("Retry-After", wait.as_millis().div_ceil(1000).max(1))
        } else if self.vendor.token(request).is_some_and(|token| !self.tokens.contains(token)) {
            self.vendor.error(401, "Invalid authentication token")
        } else {
            self.vendor.answer(now, request)
        };
        match &self.limit {
            Some(limit) => limit.headers(answer),
            None => answer,
        }
    }

    fn after(&self, fault: Option<&Fault>, answer: Option<Answer>) -> Outcome {
        let answered = |answer| Outcome::Answered(answer, Duration::ZERO);
        match (fault, answer) {
            (Some(Fault::Refuse { status, retry_after }), _) => {
                let refused = self.vendor.error(*status, "Injected fault");
                answered(match retry_after {
                    Some(seconds) => refused.with("Retry-After", seconds),
                    None => refused,
                })
            }
            (Some(Fault::FailAfter { status }), _) => answered(self.vendor.error(*status, "Injected fault")),
            (Some(Fault::Garbage), _) => answered(Answer::html(200)),
            (Some(Fault::Late { millis }), Some(answer)) => Outcome::Answered(answer, Duration::from_millis(*millis)),
            (Some(Fault::LoseRequest | Fault::LoseAnswer), _) | (_, None) => Outcome::Lost,
            (_, Some(answer)) => answered(answer),
        }
    }
}

fn with_query(request: &Request) -> String {
    if request.query.is_empty() {
        return request.path.clone();
    }
    let pairs: Vec<_> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}?{}", request.path, pairs.join("&"))
}

/// Turns a request for page n > 1 into one for page n − 1, whatever the vendor calls it.
fn previous_page(request: &mut Request) {
    let size: u64 = request.number("limit").unwrap_or(1);
    for (name, value) in &mut request.query {
        let step = match name.as_str() {
            "page" | "page[number]" => 1,
            "offset" => size,
            _ => continue,
        };
        if let Ok(number) = value.parse::<u64>()
            && number > step
        {
            *value = (number - step).to_string();
        }
    }
}
