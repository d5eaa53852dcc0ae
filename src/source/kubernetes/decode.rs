//! JSON to the object of its kind, one at a time, so that one that cannot be read costs itself alone.

use serde::{Deserialize, de::DeserializeOwned};

use super::watch::Sent;
use crate::{
    source::index::{Kind, Object, ObjectKey},
    types::{Problem, Severity},
};

/// As much of an object as says which it is.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
struct HeadMeta {
    #[serde(default)]
    namespace: Option<String>,
    name: String,
}

/// Namespace and name; `None` for what is no object.
pub(crate) fn key(object: &Sent) -> Option<ObjectKey> {
    let Head { metadata } = object.read().ok()?;
    Some(ObjectKey::new(metadata.namespace.unwrap_or_default(), metadata.name))
}

/// The object without its managed fields, half of its size, which nobody reads; or what is wrong with it.
pub(crate) fn decode(kind: Kind, sent: &Sent) -> Result<Object, String> {
    let mut object = match kind {
        Kind::Service => typed::<k8s_openapi::api::core::v1::Service>(sent),
        Kind::EndpointSlice => typed::<k8s_openapi::api::discovery::v1::EndpointSlice>(sent),
        Kind::Node => typed::<k8s_openapi::api::core::v1::Node>(sent),
        Kind::Namespace => typed::<k8s_openapi::api::core::v1::Namespace>(sent),
        Kind::Secret => typed::<k8s_openapi::api::core::v1::Secret>(sent),
        Kind::IPAddressPool => typed::<crate::source::api::IPAddressPool>(sent),
        Kind::BGPPeer => typed::<crate::source::api::BGPPeer>(sent),
        Kind::BGPAdvertisement => typed::<crate::source::api::BGPAdvertisement>(sent),
        Kind::BFDProfile => typed::<crate::source::api::BFDProfile>(sent),
        Kind::Community => typed::<crate::source::api::Community>(sent),
        Kind::ProviderConfig => typed::<crate::source::api::ProviderConfig>(sent),
        Kind::AddressClaim => typed::<crate::source::api::AddressClaim>(sent),
    }?;
    object.metadata_mut().managed_fields = None;
    Ok(object)
}

fn typed<K: DeserializeOwned + Into<Object>>(sent: &Sent) -> Result<Object, String> {
    // By way of a value the reason is the same wherever the fault stands in the text.
    let reason = |error| match sent.read().map(serde_json::from_value::<K>) {
        Ok(Err(error)) => error,
        _ => error,
    };
    sent.read::<K>().map(Into::into).map_err(|error| reason(error).to_string())
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
