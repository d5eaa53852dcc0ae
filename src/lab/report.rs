//! What the scenario expected and what it saw, as it goes, and the verdict at the end.

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;

use super::process::Usage;

/// One thing that must come true within its time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Expectation {
    pub(crate) name: String,
    pub(crate) expected: String,
    /// The last that was seen of it.
    pub(crate) seen: String,
    pub(crate) ok: bool,
    /// Not settled yet.
    #[serde(skip)]
    pub(crate) waiting: Option<Waiting>,
}

/// Since when, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) since: Instant,
    pub(crate) bound: Duration,
}

/// Everything so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) expectations: Vec<Expectation>,
    /// What was measured, by name.
    pub(crate) timings: BTreeMap<String, Figure>,
    /// What the daemons took of the machine, in the order of time.
    pub(crate) samples: Vec<Sample>,
    /// What was done and what is worth knowing, newest last.
    pub(crate) notes: Vec<String>,
}

/// Where lines for people go while the scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    Stdout,
    /// Standard output is for the verdict.
    Stderr,
    /// The terminal view shows everything.
    None,
}

/// A measured number with its unit: `s`, `MiB`, `connections` …
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    fn new(value: f64, unit: &'static str) -> Self {
        Self { value: (value * 1000.0).round() / 1000.0, unit }
    }
}

/// What a daemon takes of the machine at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sample {
    /// Since the scenario began.
    pub(crate) minute: u64,
    pub(crate) daemon: String,
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// Connections that the maps of its packet path remember.
    pub(crate) flows: usize,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minute, daemon, usage: Usage { resident, anonymous, files, threads }, flows } = self;
        write!(
            f,
            "minute {minute:>3}  {daemon:<4} {resident:>7} KiB resident {anonymous:>7} anonymous {files:>4} files \
             {threads:>3} threads {flows:>6} flows"
        )
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.unit)
    }
}

/// The one who writes [`Progress`].
#[derive(Debug)]
pub(crate) struct Report {
    progress: watch::Sender<Progress>,
    lines: Lines,
}

/// The last words, and what `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    pub(crate) scenario: String,
    pub(crate) router: String,
    pub(crate) datapath: String,
    pub(crate) nodes: usize,
    pub(crate) seconds: f64,
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) timings: BTreeMap<String, Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(lines: Lines) -> Self {
        Self { progress: watch::Sender::default(), lines }
    }

    /// To watch it from the view.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A line on what is done now.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.print(format_args!("     {text}"));
        self.progress.send_modify(|p| p.notes.push(text));
    }

    /// A measured time.
    pub(crate) fn timing(&self, name: &str, took: Duration) {
        self.figure(name, took.as_secs_f64(), "s");
    }

    /// A measured number.
    pub(crate) fn figure(&self, name: &str, value: f64, unit: &'static str) {
        self.progress.send_modify(|p| {
            p.timings.insert(name.to_owned(), Figure::new(value, unit));
        });
    }

    /// A row of the table of samples.
    pub(crate) fn sample(&self, sample: Sample) {
        self.print(format_args!("     {sample}"));
        self.progress.send_modify(|p| p.samples.push(sample));
    }

    /// Adds something that is settled already; for scenarios that wait for several things at once.
    pub(crate) fn record(&self, expectation: Expectation) {
        self.print(format_args!("{}", Line { expectation: &expectation, color: false }));
        self.progress.send_modify(|p| p.expectations.push(expectation));
    }

    /// Starts waiting for something.
    pub(crate) fn open(&self, name: &str, expected: &str, bound: Duration) {
        let waiting = Some(Waiting { since: Instant::now(), bound });
        let (name, expected) = (name.to_owned(), expected.to_owned());
        let expectation = Expectation { name, expected, seen: String::new(), ok: false, waiting };
        self.progress.send_modify(|p| p.expectations.push(expectation));
    }

    /// What is seen of the open expectation now.
    pub(crate) fn see(&self, seen: &str) {
        self.progress.send_if_modified(|p| match p.expectations.last_mut() {
            Some(open) if open.seen != seen => {
                seen.clone_into(&mut open.seen);
                true
            }
            _ => false,
        });
    }

    /// Settles the open expectation; nothing where there is none.
    pub(crate) fn settle(&self, ok: bool) {
        let mut line = None;
        self.progress.send_modify(|p| {
            let Some(open) = p.expectations.last_mut() else { return };
            if let Some(waiting) = open.waiting.take() {
                open.ok = ok;
                let took = waiting.since.elapsed().as_secs_f64();
                line = Some(format!("{} ({took:.2} s)", Line { expectation: open, color: false }));
            }
        });
        if let Some(line) = line {
            self.print(format_args!("{line}"));
        }
    }

    /// Whether every expectation was met, and there was one.
    pub(crate) fn ok(&self) -> bool {
        let progress = self.progress.borrow();
        !progress.expectations.is_empty() && progress.expectations.iter().all(|e| e.ok && e.waiting.is_none())
    }

    /// Everything so far.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// A line for people, where lines go. A closed pipe is no reason to leave a lab behind.
    pub(crate) fn print(&self, line: fmt::Arguments<'_>) {
        let _ = match self.lines {
            Lines::Stdout => writeln!(std::io::stdout(), "{line}"),
            Lines::Stderr => writeln!(std::io::stderr(), "{line}"),
            Lines::None => Ok(()),
        };
    }
}

/// An expectation as a line: `ok   name: seen`, or `FAIL name: expected …, seen …`.
pub(crate) struct Line<'a> {
    pub(crate) expectation: &'a Expectation,
    pub(crate) color: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Expectation { name, expected, seen, ok, .. } = self.expectation;
        let (on, off) = match (self.color, ok) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[32m", "\x1b[0m"),
            (true, false) => ("\x1b[31m", "\x1b[0m"),
        };
        if *ok {
            return write!(f, "{on}ok{off}   {name}: {seen}");
        }
        let seen = if seen.is_empty() { "nothing" } else { seen };
        write!(f, "{on}FAIL{off} {name}: expected {expected}; seen {seen}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unmet_expectation_spoils_the_verdict() {
        let report = Report::new(Lines::None);
        assert!(!report.ok(), "nothing expected is nothing shown");
        report.open("sessions", "6 of 6", Duration::ZERO);
        report.see("5 of 6");
        assert!(!report.ok(), "an open expectation is not met");
        report.see("6 of 6");
        report.settle(true);
        assert!(report.ok());
        report.open("route", "ECMP over n1 n2", Duration::ZERO);
        report.settle(false);
        assert!(!report.ok());
        let unmet = &report.progress().expectations[1];
        let line = Line { expectation: unmet, color: false }.to_string();
        assert_eq!(line, "FAIL route: expected ECMP over n1 n2; seen nothing");
    }

    #[test]
    fn figures_have_units() {
        let report = Report::new(Lines::None);
        report.timing("sessions up", Duration::from_micros(1_234_567));
        report.figure("connections broken", 0.0, "of 2000");
        let figures: Vec<String> = report.progress().timings.iter().map(|(n, f)| format!("{n}: {f}")).collect();
        assert_eq!(figures, ["connections broken: 0 of 2000", "sessions up: 1.235 s"]);
    }

    #[test]
    fn settled_expectation_stays_as_it_is() {
        let report = Report::new(Lines::None);
        report.open("sessions", "6 of 6", Duration::ZERO);
        report.settle(true);
        report.settle(false);
        assert!(report.ok());
    }
}
