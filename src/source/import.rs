//! `ironcast import`: another system's configuration to our objects, and a report of what has no counterpart.
//!
//! ```text
//!  documents ─▶ metallb | kube_vip | cpem ─▶ drafts ─▶ read as manifests are ─▶ objects
//!                                                     └─▶ planned once ─▶ problems beside the report
//! ```
//!
//! Kinds and fields that mean the same have the same names here, so most objects only change their group; what the
//! strict reader does not know is exactly what has no counterpart. Reads documents, asks no cluster, writes nothing.

mod cpem;
mod draft;
mod kube_vip;
mod legacy;
mod metallb;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use self::draft::Drafts;
use super::manifests::{documents, is_manifest};
use crate::{
    plan::Settings,
    types::{Problem, Severity},
};

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// MetalLB's resources, or the ConfigMap of its versions before 0.13.
    MetalLb,
    /// kube-vip's DaemonSet or static pods, and its cloud provider's ConfigMap.
    KubeVip,
    /// The cloud provider of Equinix Metal (Packet), with annotations of Services and Nodes.
    Cpem,
}

/// Our objects and what a person must know of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Imported {
    /// Ready for `kubectl apply`.
    pub objects: Vec<Value>,
    /// An error is something that worked there and has no counterpart here; a warning is something to do or to know.
    pub report: Vec<Problem>,
}

impl Imported {
    /// Whether everything has a counterpart.
    pub fn complete(&self) -> bool {
        self.report.iter().all(|problem| problem.severity == Severity::Warning)
    }

    /// The objects as a YAML stream.
    pub fn yaml(&self) -> String {
        self.objects.iter().map(|object| format!("---\n{}", yaml::text(object))).collect()
    }
}

/// Input that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file or folder.
    #[error("read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document is no YAML, or no object.
    #[error("{}, line {line}: {message}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Every document of files, of the manifests in folders, and of standard input for `-`.
///
/// # Errors
/// Anything of it cannot be read: half an import would look like a whole one.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Value>, ImportError> {
    let mut values = Vec::new();
    for path in paths {
        let unreadable = |source| ImportError::Read { path: path.clone(), source };
        if path.as_os_str() == "-" {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(unreadable)?;
            add(Path::new("standard input"), &text, &mut values)?;
        } else if path.is_dir() {
            let entries = fs::read_dir(path).map_err(unreadable)?;
            let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| is_manifest(file) && !file.is_dir());
            files.sort();
            values.extend(read(&files)?);
        } else {
            add(path, &fs::read_to_string(path).map_err(unreadable)?, &mut values)?;
        }
    }
    Ok(values)
}

fn add(path: &Path, text: &str, values: &mut Vec<Value>) -> Result<(), ImportError> {
    let json = path.extension().is_some_and(|extension| extension == "json");
    for document in documents(text, json) {
        let malformed = |error: super::manifests::Malformed| ImportError::Document {
            path: path.to_owned(),
            line: error.line,
            message: error.message,
        };
        values.push(document.map_err(malformed)?);
    }
    Ok(())
}

/// Translates a predecessor's documents. The objects are put into `namespace`, the daemon's own; `settings.node` means
/// nothing.
pub fn import(from: Predecessor, documents: &[Value], namespace: &str, settings: &Settings) -> Imported {
    let mut drafts = Drafts::new(namespace);
    match from {
        Predecessor::MetalLb => metallb::import(documents, &mut drafts),
        Predecessor::KubeVip => kube_vip::import(documents, &mut drafts),
        Predecessor::Cpem => cpem::import(documents, &mut drafts),
    }
    drafts.finish(settings)
}

/// A text field, empty where it is absent.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list field; none where it is absent.
fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What a document is called in the report.
fn reference(document: &Value) -> crate::types::ObjectRef {
    let metadata = document.get("metadata").unwrap_or(&Value::Null);
    crate::types::ObjectRef::new(text(document, "kind"), text(metadata, "namespace"), text(metadata, "name"))
}
