//! `ironcast check DIR`: everything that a folder of manifests would go wrong with, before anything runs. Reads;
//! touches nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use serde::Serialize;

use super::{convert, manifests::Folder};
use crate::{
    plan::{Allocated, Desired, PendingReason, Settings, Withhold, plan},
    types::{ObjectRef, Problem, ServiceKey, Severity, Snapshot},
};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// How many objects were read.
    pub objects: usize,
    /// The load balancers and what becomes of them.
    pub services: Vec<CheckedService>,
    /// Errors first.
    pub problems: Vec<Problem>,
}

/// One LoadBalancer Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedService {
    /// `namespace/name`.
    pub service: String,
    /// What it has, or would get; empty when there is none for it.
    pub addresses: Vec<IpAddr>,
    /// The pool of the first one.
    pub pool: Option<String>,
    /// Nodes that would announce it.
    pub nodes: Vec<String>,
}

impl CheckReport {
    /// How many problems refuse something.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many problems may surprise.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{severity}: {problem}")?;
        }
        for CheckedService { service, addresses, pool, nodes } in &self.services {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "no address".into() } else { addresses.join(", ") };
            let pool = pool.as_ref().map(|pool| format!(" of pool {pool}")).unwrap_or_default();
            let nodes = if nodes.is_empty() {
                "announced by no node".into()
            } else {
                format!("announced by {}", nodes.join(", "))
            };
            writeln!(f, "Service {service}: {addresses}{pool}, {nodes}")?;
        }
        write!(
            f,
            "{}, {}, {}",
            count(self.objects, "object"),
            count(self.errors(), "error"),
            count(self.warnings(), "warning")
        )
    }
}

fn count(n: usize, thing: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {thing}{s}")
}

/// Checks a folder as a daemon with these settings would read it; `settings.node` means nothing, every node of the
/// folder is tried.
///
/// # Errors
/// The folder cannot be read at all.
pub fn check(dir: &Path, settings: &Settings) -> io::Result<CheckReport> {
    let mut folder = Folder::new(dir.to_owned());
    folder.scan()?;
    if folder.read_record().is_err() {
        folder.forget_record();
    }
    let mut snapshot = folder.snapshot().unwrap_or_default();
    let desired = plan(&snapshot, settings);
    let mut problems = desired.problems.clone();
    problems.extend(pending(&folder, &desired));
    record(&mut snapshot, &desired);
    let (services, withheld) = announced(&snapshot, settings, &desired);
    problems.extend(withheld);
    for problem in problems.iter_mut().filter(|problem| problem.file.is_none()) {
        problem.file = folder.file_of(&problem.object);
    }
    problems.sort_by(|a, b| (b.severity, &a.file, a).cmp(&(a.severity, &b.file, b)));
    problems.dedup();
    Ok(CheckReport { objects: folder.objects(), services, problems })
}

/// Services without an address.
fn pending(folder: &Folder, desired: &Desired) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, allocated) in desired.allocations.iter() {
        let Allocated::Pending { reason, message } = allocated else { continue };
        let asks = matches!(
            reason,
            PendingReason::AddressOutsidePools | PendingReason::AddressTaken | PendingReason::InvalidRequest
        );
        let field = asks.then(|| folder.service(key)).flatten().and_then(|service| convert::request_field(&service));
        problems.push(Problem {
            object: service_ref(key),
            field: field.unwrap_or_default(),
            message: format!("gets no address ({reason}): {message}"),
            hint: String::new(),
            // An address that a provider will be asked for is not refused.
            severity: if *reason == PendingReason::AddressPending { Severity::Warning } else { Severity::Error },
            file: None,
        });
    }
    problems
}

fn service_ref(key: &ServiceKey) -> ObjectRef {
    ObjectRef::new("Service", &key.namespace, &key.name)
}

/// As it will be when the leader has recorded what the plan gives.
fn record(snapshot: &mut Snapshot, desired: &Desired) {
    for (key, allocated) in desired.allocations.iter() {
        if let (Some(service), Allocated::Addresses { addresses, .. }) = (snapshot.services.get_mut(key), allocated) {
            Arc::make_mut(service).assigned = addresses.clone();
        }
    }
}

/// Which nodes announce each Service, and why none does.
fn announced(snapshot: &Snapshot, settings: &Settings, desired: &Desired) -> (Vec<CheckedService>, Vec<Problem>) {
    let mut nodes: BTreeMap<&ServiceKey, Vec<String>> = BTreeMap::new();
    let mut reasons: BTreeMap<ServiceKey, BTreeSet<Withhold>> = BTreeMap::new();
    for node in snapshot.nodes.keys() {
        let here = plan(snapshot, &Settings { node: node.clone(), ..settings.clone() });
        let behind: BTreeSet<&ServiceKey> = here.behind.values().flat_map(|services| services.iter()).collect();
        for key in desired.allocations.keys().filter(|key| behind.contains(key)) {
            nodes.entry(key).or_default().push(node.clone());
        }
        for withheld in here.withheld {
            reasons.entry(withheld.service).or_default().insert(withheld.reason);
        }
    }
    let (mut services, mut problems) = (Vec::new(), Vec::new());
    for (key, allocated) in desired.allocations.iter() {
        let (addresses, pool) = match allocated {
            Allocated::Addresses { addresses, pool } => (addresses.clone(), Some(pool.clone())),
            Allocated::Pending { .. } => (Vec::new(), None),
            Allocated::Released => continue,
        };
        let nodes = nodes.remove(key).unwrap_or_default();
        if nodes.is_empty() && !addresses.is_empty() {
            problems.push(announced_by_nobody(key, snapshot, reasons.get(key)));
        }
        services.push(CheckedService { service: key.to_string(), addresses, pool, nodes });
    }
    (services, problems)
}

fn announced_by_nobody(key: &ServiceKey, snapshot: &Snapshot, reasons: Option<&BTreeSet<Withhold>>) -> Problem {
    let why: Vec<String> = match reasons {
        _ if snapshot.nodes.is_empty() => vec!["there is no Node; write one for each host that announces".into()],
        Some(reasons) => reasons.iter().map(|reason| format!("{}: {}", reason.as_str(), reason.detail())).collect(),
        None => Vec::new(),
    };
    Problem {
        object: service_ref(key),
        field: String::new(),
        message: "is announced by no node".into(),
        hint: why.join("; "),
        severity: Severity::Warning,
        file: None,
    }
}

#[cfg(test)]
mod tests;
