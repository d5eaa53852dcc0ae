//! Objects while they are translated, and what is said of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Imported;
use crate::{
    plan::{Settings, plan},
    source::{
        api::{GROUP, VERSION},
        index::{Index, Kind, Object},
        manifests::{Decoded, decode},
    },
    types::{ObjectRef, Problem, Severity},
};

/// The objects so far and the report.
#[derive(Debug)]
pub(super) struct Drafts {
    namespace: String,
    names: BTreeSet<(Kind, String)>,
    drafts: Vec<Value>,
    report: Vec<Problem>,
}

impl Drafts {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into(), names: BTreeSet::new(), drafts: Vec::new(), report: Vec::new() }
    }

    /// Where the objects go.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An object of ours. The name is made one that Kubernetes takes and that no other object has; the one that it
    /// got is returned.
    pub(super) fn add(&mut self, kind: Kind, name: &str, labels: Option<&Value>, spec: Value) -> String {
        let wanted = valid_name(name);
        let mut name = wanted.clone();
        let mut n = 1;
        while !self.names.insert((kind, name.clone())) {
            n += 1;
            name = format!("{wanted}-{n}");
        }
        let mut metadata = Map::new();
        metadata.insert("name".into(), name.clone().into());
        metadata.insert("namespace".into(), self.namespace.clone().into());
        if let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) {
            metadata.insert("labels".into(), labels.clone());
        }
        self.drafts.push(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind.name(),
            "metadata": metadata,
            "spec": spec,
        }));
        name
    }

    /// It worked there and has no counterpart here.
    pub(super) fn lost(&mut self, object: ObjectRef, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Error, object, field, message.into(), hint.into());
    }

    /// It is different here, or something is left to do.
    pub(super) fn note(&mut self, object: ObjectRef, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.say(Severity::Warning, object, field, message.into(), hint.into());
    }

    fn say(&mut self, severity: Severity, object: ObjectRef, field: &str, message: String, hint: String) {
        self.report.push(Problem { object, field: field.into(), message, hint, severity, file: None });
    }

    /// Reads the drafts as manifests are read: what is not known is lost, what is wrong is reported.
    pub(super) fn finish(mut self, settings: &Settings) -> Imported {
        let mut index = Index::new([]);
        let mut objects = Vec::new();
        for draft in std::mem::take(&mut self.drafts) {
            match decode(draft) {
                Decoded::Object(object, unknown) => {
                    self.report.extend(unknown.into_iter().map(no_counterpart));
                    index.apply(&object);
                    objects.push(plain(&object));
                }
                Decoded::Rejected(_, _, problem) => self.report.push(problem),
                Decoded::Other(problem) => self.report.extend(problem),
            }
        }
        if let Some(snapshot) = index.snapshot() {
            self.report.extend(plan(&snapshot, settings).problems.into_iter().filter(|problem| !names_secret(problem)));
        }
        self.report.sort_by(|a, b| (b.severity, a).cmp(&(a.severity, b)));
        self.report.dedup();
        Imported { objects, report: self.report }
    }
}

fn no_counterpart(unknown: Problem) -> Problem {
    Problem {
        message: "has no counterpart".into(),
        hint: "it was left out".into(),
        severity: Severity::Error,
        ..unknown
    }
}

/// A Secret is not in the documents that are imported; that it must be copied is said where it is named.
fn names_secret(problem: &Problem) -> bool {
    ["spec.passwordSecret", "spec.credentialsSecret"].iter().any(|field| problem.field.starts_with(field))
}

fn plain(object: &Object) -> Value {
    let value = match object {
        Object::IPAddressPool(object) => serde_json::to_value(object),
        Object::BGPPeer(object) => serde_json::to_value(object),
        Object::BGPAdvertisement(object) => serde_json::to_value(object),
        Object::BFDProfile(object) => serde_json::to_value(object),
        Object::Community(object) => serde_json::to_value(object),
        Object::ProviderConfig(object) => serde_json::to_value(object),
        other => unreachable!("no {} is drafted", other.kind()),
    };
    value.expect("an object of the API is plain data")
}

/// RFC 1123 subdomain, as `metadata.name` must be.
fn valid_name(name: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '.' => c,
        _ => '-',
    };
    let name: String = name.chars().map(plain).take(240).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "imported".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_and_stay_apart() {
        let mut drafts = Drafts::new("here");
        let mut add = |name| drafts.add(Kind::IPAddressPool, name, None, json!({}));
        assert_eq!(add("my_Pool"), "my-pool");
        assert_eq!(add("my-pool"), "my-pool-2");
        assert_eq!(add("2001:db8::1"), "2001-db8--1");
        assert_eq!(add("__"), "imported");
    }
}
