//! A document to the object of its kind, strictly: a field that nobody reads is a mistake that nobody would notice.

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Secret, Service},
    discovery::v1::EndpointSlice,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    source::{
        api::{
            AddressClaim, BFDProfile, BGPAdvertisement, BGPPeer, Community, GROUP, IPAddressPool, ProviderConfig,
            WITHOUT_FIELDS,
        },
        index::{Kind, Object, ObjectKey},
    },
    types::{ObjectRef, Problem, Severity},
};

/// What became of a document.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// An object, and its fields that nobody reads.
    Object(Object, Vec<Problem>),
    /// An object that is of a kind of ours but cannot be read.
    Rejected(Kind, ObjectKey, Problem),
    /// Nothing of ours, perhaps with a word why.
    Other(Option<Problem>),
}

/// Reads a document.
pub(crate) fn decode(mut value: Value) -> Decoded {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, name) = (text(&value, "apiVersion"), text(&value, "kind"));
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let mut key = ObjectKey::new(text(&metadata, "namespace"), text(&metadata, "name"));
    let kind = match kind(&version, &name) {
        Ok(kind) => kind,
        Err(foreign) => return Decoded::Other(foreign.problem(&version, &name, &key)),
    };
    settle_namespace(kind, &mut key, &mut value);
    if WITHOUT_FIELDS.contains(&kind.name()) && value.get("spec").is_none_or(Value::is_null) {
        value["spec"] = Value::Object(Default::default());
    }
    if key.name.is_empty() {
        return Decoded::Other(Some(error(
            key.reference(kind),
            "metadata.name",
            "is missing",
            "give the object a name",
        )));
    }
    match typed(kind, value) {
        Ok((object, unknown)) => {
            let problems = unknown.iter().map(|path| unknown_field(kind, &key, path)).collect();
            Decoded::Object(object, problems)
        }
        Err(Unreadable { field, message }) => {
            let hint = format!("correct the field; see kubectl explain {name}");
            let problem = error(key.reference(kind), &field, &message, &hint);
            Decoded::Rejected(kind, key, problem)
        }
    }
}

/// A kind that is not read.
enum Foreign {
    /// Of no concern here.
    Other,
    /// A MetalLB resource.
    MetalLb,
    /// A kind of ours or of Kubernetes in another version than this.
    Version(&'static str),
    /// v1 Endpoints.
    Endpoints,
    /// No `apiVersion` or `kind`.
    Nothing,
}

impl Foreign {
    fn problem(&self, version: &str, kind: &str, key: &ObjectKey) -> Option<Problem> {
        let object = ObjectRef::new(if kind.is_empty() { "Object" } else { kind }, &key.namespace, &key.name);
        let (severity, field, message, hint) = match self {
            Self::Other => {
                tracing::debug!(%object, apiVersion = version, "of no concern here");
                return None;
            }
            Self::MetalLb => (
                Severity::Warning,
                "apiVersion",
                format!("{version} is MetalLB's and is not read"),
                "write ironcast.dev/v1alpha1: kinds and fields have the same names".into(),
            ),
            Self::Version(right) => {
                (Severity::Error, "apiVersion", format!("{version:?} is unknown for {kind}"), format!("write {right}"))
            }
            Self::Endpoints => {
                (Severity::Warning, "kind", "Endpoints are not read".into(), "write an EndpointSlice".into())
            }
            Self::Nothing => (Severity::Error, "kind", "apiVersion or kind is missing".into(), "name both".into()),
        };
        Some(Problem { severity, ..error(object, field, &message, &hint) })
    }
}

fn kind(version: &str, name: &str) -> Result<Kind, Foreign> {
    if version.is_empty() || name.is_empty() {
        return Err(Foreign::Nothing);
    }
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    let known = Kind::from_name(name);
    let (right_group, right) = match known {
        Some(Kind::EndpointSlice) => ("discovery.k8s.io", "discovery.k8s.io/v1"),
        Some(Kind::Service | Kind::Node | Kind::Namespace | Kind::Secret) => ("", "v1"),
        _ => (GROUP, "ironcast.dev/v1alpha1"),
    };
    match known {
        Some(kind) if version == right => Ok(kind),
        Some(_) if group == right_group => Err(Foreign::Version(right)),
        Some(_) if group == "metallb.io" => Err(Foreign::MetalLb),
        None if version == "v1" && name == "Endpoints" => Err(Foreign::Endpoints),
        _ => Err(Foreign::Other),
    }
}

/// The namespace as kubectl would have it.
fn settle_namespace(kind: Kind, key: &mut ObjectKey, value: &mut Value) {
    if kind.cluster_scoped() {
        key.namespace.clear();
    } else if key.namespace.is_empty() {
        key.namespace = "default".into();
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        match key.namespace.is_empty() {
            true => metadata.remove("namespace"),
            false => metadata.insert("namespace".into(), key.namespace.clone().into()),
        };
    }
}

/// A value that does not fit its field.
struct Unreadable {
    field: String,
    message: String,
}

type Typed = Result<(Object, Vec<String>), Unreadable>;

fn typed(kind: Kind, value: Value) -> Typed {
    match kind {
        Kind::Service => strict::<Service>(value),
        Kind::EndpointSlice => strict::<EndpointSlice>(value),
        Kind::Node => strict::<Node>(value),
        Kind::Namespace => strict::<Namespace>(value),
        Kind::Secret => strict::<Secret>(value),
        Kind::IPAddressPool => strict::<IPAddressPool>(value),
        Kind::BGPPeer => strict::<BGPPeer>(value),
        Kind::BGPAdvertisement => strict::<BGPAdvertisement>(value),
        Kind::BFDProfile => strict::<BFDProfile>(value),
        Kind::Community => strict::<Community>(value),
        Kind::ProviderConfig => strict::<ProviderConfig>(value),
        Kind::AddressClaim => strict::<AddressClaim>(value),
    }
}

/// The object, and every field that the type did not take: those that are gone when it is written again.
fn strict<K: DeserializeOwned + Serialize + Into<Object>>(value: Value) -> Typed {
    let object: K = serde_path_to_error::deserialize(&value).map_err(|error| {
        let path = error.path().to_string();
        let message = if is_secret(&path) { "is no text; quote it".into() } else { error.inner().to_string() };
        Unreadable { field: if path == "." { String::new() } else { path }, message }
    })?;
    let again = serde_json::to_value(&object).expect("an object of the API is plain data");
    let mut unknown = Vec::new();
    compare(&value, &again, "", &mut unknown);
    Ok((object.into(), unknown))
}

/// Whether the value at a path is a password or a token, which no message shows.
fn is_secret(path: &str) -> bool {
    path.split('.').any(|field| ["password", "data", "stringData"].contains(&field))
}

fn compare(given: &Value, taken: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, taken) {
        (Value::Object(given), Value::Object(taken)) => {
            for (field, value) in given {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                match taken.get(field) {
                    Some(taken) => compare(value, taken, &path, unknown),
                    None if is_nothing(value) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(taken)) => {
            for (i, (value, taken)) in given.iter().zip(taken).enumerate() {
                compare(value, taken, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Values that are not written again even though their field is known.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn unknown_field(kind: Kind, key: &ObjectKey, path: &str) -> Problem {
    let message = format!("is no field of {kind}, so it means nothing");
    let hint = "correct its name or its place, or remove it";
    Problem { severity: Severity::Warning, ..error(key.reference(kind), path, &message, hint) }
}

fn error(object: ObjectRef, field: &str, message: &str, hint: &str) -> Problem {
    Problem {
        object,
        field: field.into(),
        message: message.into(),
        hint: hint.into(),
        severity: Severity::Error,
        file: None,
    }
}
