//! JSON to the object of its kind, one at a time, so that one that cannot be read costs itself alone.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    source::index::{Kind, Object, ObjectKey},
    types::{Problem, Severity},
};

/// Namespace and name; `None` for what is no object.
pub(crate) fn key(value: &Value) -> Option<ObjectKey> {
    let metadata = value.get("metadata")?;
    let text = |field| metadata.get(field).and_then(Value::as_str);
    Some(ObjectKey::new(text("namespace").unwrap_or_default(), text("name")?))
}

/// Takes away half of the object's size, which nobody reads.
pub(super) fn slim(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// The object, or what is wrong with it.
pub(crate) fn decode(kind: Kind, value: Value) -> Result<Object, String> {
    match kind {
        Kind::Service => typed::<k8s_openapi::api::core::v1::Service>(value),
        Kind::EndpointSlice => typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(value),
        Kind::Node => typed::<k8s_openapi::api::core::v1::Node>(value),
        Kind::Namespace => typed::<k8s_openapi::api::core::v1::Namespace>(value),
        Kind::Secret => typed::<k8s_openapi::api::core::v1::Secret>(value),
        Kind::IPAddressPool => typed::<crate::source::api::IPAddressPool>(value),
        Kind::BGPPeer => typed::<crate::source::api::BGPPeer>(value),
        Kind::BGPAdvertisement => typed::<crate::source::api::BGPAdvertisement>(value),
        Kind::BFDProfile => typed::<crate::source::api::BFDProfile>(value),
        Kind::Community => typed::<crate::source::api::Community>(value),
        Kind::ProviderConfig => typed::<crate::source::api::ProviderConfig>(value),
        Kind::AddressClaim => typed::<crate::source::api::AddressClaim>(value),
    }
}

fn typed<K: DeserializeOwned + Into<Object>>(value: Value) -> Result<Object, String> {
    serde_json::from_value::<K>(value).map(Into::into).map_err(|error| error.to_string())
}

/// What a person is told of an object that cannot be decoded.
pub(crate) fn problem(kind: Kind, key: &ObjectKey, reason: &str) -> Problem {
    Problem {
        object: key.reference(kind),
        field: String::new(),
        message: format!("cannot be decoded: {reason}"),
        hint: "correct it and apply it again; the CRDs of this release (ironcast crds) tell what is wrong".into(),
        severity: Severity::Error,
        file: None,
    }
}
