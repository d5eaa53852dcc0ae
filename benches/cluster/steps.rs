//! Where the time of a change goes: the daemon's log says when it took each step, the router when it heard.

use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;

/// What the daemon must log (`RUST_LOG`).
pub(crate) const LOGS: &str =
    "info,ironcast::source::kubernetes=trace,ironcast::app::decide=trace,ironcast::announce=debug";

/// What the log says at the end of each step, and the step.
const STEPS: [(&str, &str); 5] = [
    ("change read", "the API server's, and the way here"),
    ("snapshot made", "object read, index and snapshot changed"),
    ("deciding", "the decision begins"),
    ("decided", "planned"),
    ("exports changed", "what each peer is told"),
];

/// A change that was made and heard.
pub(crate) struct Change {
    pub(crate) sent: SystemTime,
    pub(crate) answered: SystemTime,
    pub(crate) heard: SystemTime,
}

/// Medians and slowest of a hundred, of the whole and of each step.
pub(crate) fn table(changes: &[Change], log: &str) -> Vec<(String, String)> {
    let steps: Vec<(SystemTime, usize)> = log.lines().filter_map(step).collect();
    let whole = changes.iter().map(|change| since(change.answered, change.heard).max(0.0)).collect();
    let mut rows = vec![("one change, API server's answer to the wire".to_owned(), figures(whole))];
    let mut took = vec![Vec::new(); STEPS.len() + 1];
    for change in changes {
        let mut from = change.answered;
        for (n, took) in took.iter_mut().enumerate() {
            // The last of its kind before the router heard is that of this change.
            let within = |(at, step): &&(SystemTime, usize)| *step == n && (change.sent..=change.heard).contains(at);
            let to = match n == STEPS.len() {
                true => Some(change.heard),
                false => steps.iter().rfind(within).map(|(at, _)| *at),
            };
            let Some(to) = to else { continue };
            took.push(since(from, to));
            from = to;
        }
    }
    let names = STEPS.iter().map(|(_, name)| *name).chain(["the speaker's, to the wire"]);
    rows.extend(names.zip(took).map(|(name, took)| (format!("  {name}"), figures(took))));
    rows
}

fn step(line: &str) -> Option<(SystemTime, usize)> {
    let step = STEPS.iter().position(|(words, _)| line.contains(words))?;
    Some((time_of(line)?, step))
}

/// The time that a line of a log begins with.
pub(crate) fn time_of(line: &str) -> Option<SystemTime> {
    line.split_whitespace().next()?.parse::<Timestamp>().ok().map(Into::into)
}

/// Milliseconds; negative where `to` came first: the API server may tell others before it answers.
fn since(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => 1000.0 * after.as_secs_f64(),
        Err(before) => -1000.0 * before.duration().as_secs_f64(),
    }
}

fn figures(mut took: Vec<f64>) -> String {
    if took.is_empty() {
        return "was not logged".into();
    }
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
}
