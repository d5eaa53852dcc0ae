//! The CustomResourceDefinitions, printed by `ironcast crds` and kept in `deploy/crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::{
    AddressClaim, BFDProfile, BGPAdvertisement, BGPNodeStatus, BGPPeer, Community, IPAddressPool, ProviderConfig,
};

/// Formats that the API server knows; it warns of others.
const FORMATS: [&str; 8] = ["int32", "int64", "float", "double", "byte", "date", "date-time", "duration"];

/// Kinds that mean something without any field: their `spec` may be absent. Server-side apply makes it null when the last
/// field goes, which the default mends.
pub(in crate::source) const WITHOUT_FIELDS: [&str; 2] = ["BFDProfile", "BGPAdvertisement"];

/// Every definition, in the order of `deploy/crds/`.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        AddressClaim::crd(),
        BFDProfile::crd(),
        BGPAdvertisement::crd(),
        BGPNodeStatus::crd(),
        BGPPeer::crd(),
        Community::crd(),
        IPAddressPool::crd(),
        ProviderConfig::crd(),
    ]
    .into_iter()
    .map(tidy)
    .collect()
}

/// Every definition as one YAML stream for `kubectl apply --server-side -f -`.
pub fn crds_yaml() -> String {
    crds().iter().map(yaml).collect()
}

pub(super) fn yaml(crd: &CustomResourceDefinition) -> String {
    format!("---\n{}", serde_norway::to_string(crd).expect("a definition is plain data"))
}

/// Replaces Rust's number formats, which the API server does not know, and `nullable`: an optional field is left
/// out, and a rule's `has()` means that it has a value.
fn tidy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition is plain data");
    tidy_schema(&mut value);
    if value["spec"]["names"]["kind"].as_str().is_some_and(|kind| WITHOUT_FIELDS.contains(&kind)) {
        let schema = &mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"]["default"] = serde_json::json!({});
        schema.as_object_mut().expect("a schema").remove("required");
    }
    serde_json::from_value(value).expect("formats and nullable are optional")
}

fn tidy_schema(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy_schema),
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            if let Some(format) = fields.get("format").and_then(Value::as_str)
                && !FORMATS.contains(&format)
            {
                match format.starts_with("uint") || format.starts_with("int") {
                    true => fields.insert("format".into(), "int64".into()),
                    false => fields.remove("format"),
                };
            }
            fields.values_mut().for_each(tidy_schema);
        }
        _ => {}
    }
}
