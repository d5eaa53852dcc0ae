//! The retired cloud provider of Equinix Metal (Packet): the Secret `metal-cloud-config` and the environment of its Deployment,
//! annotations of Services and Nodes. Its addresses themselves are taken over by their tags when the leader first lists
//! them; here its configuration becomes a ProviderConfig, and a pool for each metro.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{draft::Drafts, list, reference, text};
use crate::source::index::Kind;

/// Name of our ProviderConfig, and the beginning of the pools' names.
const NAME: &str = "metal";
/// The key of its Secret.
const FILE: &str = "cloud-sa.json";
/// Its settings: field of the file, variable of the environment.
const SETTINGS: [(&str, &str); 11] = [
    ("projectID", "METAL_PROJECT_ID"),
    ("apiKey", "METAL_API_KEY"),
    ("metro", "METAL_METRO_NAME"),
    ("facility", "METAL_FACILITY_NAME"),
    ("loadbalancer", "METAL_LOAD_BALANCER"),
    ("localASN", "METAL_LOCAL_ASN"),
    ("bgpPass", "METAL_BGP_PASS"),
    ("bgpNodeSelector", "METAL_BGP_NODE_SELECTOR"),
    ("eipTag", "METAL_EIP_TAG"),
    ("base-url", "METAL_BASE_URL"),
    ("apiServerPort", "METAL_API_SERVER_PORT"),
];
const METRO: &str = "metal.equinix.com/eip-metro";
const FACILITY: &str = "metal.equinix.com/eip-facility";

pub(super) fn import(documents: &[Value], drafts: &mut Drafts) {
    let mut found: Option<(&Value, BTreeMap<&str, String>)> = None;
    let mut metros = Vec::new();
    for document in documents {
        let settings = match (text(document, "apiVersion"), text(document, "kind")) {
            ("v1", "Secret") => file(document),
            ("apps/v1", "Deployment" | "DaemonSet") => environment(document),
            ("v1", "Service") => {
                metros.extend(service(document, drafts));
                None
            }
            ("v1", "Node") => {
                node(document, drafts);
                None
            }
            _ => None,
        };
        if let Some(settings) = settings {
            let (_, all) = found.get_or_insert_with(|| (document, BTreeMap::new()));
            // As there: the environment counts before the file.
            let is_file = text(document, "kind") == "Secret";
            for (name, value) in settings {
                match is_file {
                    true => drop(all.entry(name).or_insert(value)),
                    false => drop(all.insert(name, value)),
                }
            }
        }
    }
    let Some((document, settings)) = found else { return };
    provider(document, &settings, drafts);
    metros.extend(settings.get("metro").cloned());
    metros.sort();
    metros.dedup();
    for metro in &metros {
        let usual = settings.get("metro").is_none_or(|usual| usual == metro);
        let spec = json!({
            "provider": { "name": NAME, "type": "public_ipv4", "region": metro }, "autoAssign": usual,
        });
        drafts.add(Kind::IPAddressPool, &format!("{NAME}-{metro}"), None, spec);
    }
    drafts.add(Kind::BGPAdvertisement, NAME, None, json!({}));
}

fn known(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(field, variable)| *field == name || *variable == name).map(|(field, _)| *field)
}

fn file(document: &Value) -> Option<BTreeMap<&'static str, String>> {
    let plain = document.pointer("/stringData").and_then(|data| data.get(FILE)).and_then(Value::as_str);
    let coded = document.pointer("/data").and_then(|data| data.get(FILE)).and_then(Value::as_str);
    let json: Value = match (plain, coded) {
        (Some(text), _) => serde_json::from_str(text).ok()?,
        (None, coded) => serde_json::from_slice(&STANDARD.decode(coded?).ok()?).ok()?,
    };
    let one = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((known(name)?, text)).filter(|(_, text)| !text.is_empty())
    };
    Some(json.as_object()?.iter().filter_map(one).collect())
}

fn environment(document: &Value) -> Option<BTreeMap<&'static str, String>> {
    let pod = document.pointer("/spec/template/spec")?;
    let ours = |container: &&Value| text(container, "image").contains("cloud-provider-equinix-metal");
    let container = list(pod, "containers").iter().find(ours)?;
    let one = |variable: &Value| Some((known(text(variable, "name"))?, text(variable, "value").to_owned()));
    Some(list(container, "env").iter().filter_map(one).filter(|(_, value)| !value.is_empty()).collect())
}

fn provider(document: &Value, settings: &BTreeMap<&str, String>, drafts: &mut Drafts) {
    let of = || reference(document);
    let mut spec = json!({ "type": "packet", "credentialsSecret": { "name": "metal-token" }, "peers": "Metadata" });
    match settings.get("projectID") {
        Some(project) => spec["project"] = json!(project),
        None => drafts.lost(of(), "projectID", "is missing", "put the id of the project into spec.project"),
    }
    match settings.get("base-url") {
        Some(url) => spec["endpoint"] = json!(url.trim_end_matches('/')),
        None => {
            let hint = "set spec.endpoint and spec.metadataEndpoint of the ProviderConfig to those of your stack";
            drafts.note(of(), "base-url", "Equinix Metal itself was switched off on 2026-06-30", hint);
        }
    }
    if let Some(asn) = settings.get("localASN").and_then(|asn| asn.parse::<u32>().ok()) {
        spec["asn"] = json!(asn);
    }
    let namespace = drafts.namespace().to_owned();
    drafts.add(Kind::ProviderConfig, NAME, None, spec);
    let hint = format!("kubectl create secret generic metal-token -n {namespace} --from-literal=token=…");
    drafts.note(of(), "apiKey", "the token was left out", hint);
    if settings.contains_key("facility") && !settings.contains_key("metro") {
        drafts.lost(
            of(),
            "facility",
            "facilities have no counterpart",
            "name the metro in spec.provider.region of a pool",
        );
    }
    if settings.contains_key("bgpPass") {
        let hint = "the provider tells it to each node; peers: Account takes it from the API";
        drafts.note(of(), "bgpPass", "the password was left out", hint);
    }
    if settings.contains_key("bgpNodeSelector") {
        let hint = "select the nodes in nodeSelectors of the BGPAdvertisement";
        drafts.note(of(), "bgpNodeSelector", "every node of the provider peers here", hint);
    }
    if settings.contains_key("eipTag") {
        let hint = "leave a control plane manager (kube-vip) in charge of it";
        drafts.lost(of(), "eipTag", "the address of the API server is no Service", hint);
    }
    if let Some(implementation) = settings.get("loadbalancer") {
        let hint = "stop it before Ironcast starts: two speakers of one node have one session with a router";
        drafts.note(of(), "loadbalancer", format!("{implementation} announced the addresses"), hint);
    }
}

/// The metro that a Service asks for.
fn service(document: &Value, drafts: &mut Drafts) -> Option<String> {
    let annotations = document.pointer("/metadata/annotations")?;
    if annotations.get(FACILITY).is_some() {
        let hint = "name the metro's pool in the annotation ironcast.dev/address-pool";
        drafts.lost(reference(document), "metadata.annotations", format!("{FACILITY} has no counterpart"), hint);
    }
    let metro = annotations.get(METRO)?.as_str()?;
    let hint = format!("annotate the Service with ironcast.dev/address-pool: {NAME}-{metro}");
    drafts.note(reference(document), "metadata.annotations", format!("{METRO} is a pool here"), hint);
    Some(metro.to_owned())
}

fn node(document: &Value, drafts: &mut Drafts) {
    let annotations = document.pointer("/metadata/annotations").and_then(Value::as_object);
    let theirs = |key: &String| key.starts_with("metal.equinix.com/bgp-peers-");
    if annotations.is_some_and(|all| all.keys().any(theirs)) {
        let hint = "nothing: each node asks the metadata service; the annotations may go";
        drafts.note(reference(document), "metadata.annotations", "routers are not read from annotations", hint);
    }
}
