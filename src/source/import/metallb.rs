//! MetalLB: its resources (`metallb.io`), as `kubectl get -o yaml` or a repository has them.

use serde_json::{Map, Value, json};

use super::{draft::Drafts, legacy, list, reference, text};
use crate::source::index::Kind;

/// Kinds that say what is, not what shall be.
const STATUS_KINDS: [&str; 4] = ["ServiceL2Status", "ServiceBGPStatus", "BGPSessionState", "ConfigurationState"];

pub(super) fn import(documents: &[Value], drafts: &mut Drafts) {
    for document in documents {
        let group = text(document, "apiVersion").split('/').next().unwrap_or_default();
        match (group, text(document, "kind")) {
            ("metallb.io", "IPAddressPool") => same(Kind::IPAddressPool, document, drafts),
            ("metallb.io", "BGPAdvertisement") => same(Kind::BGPAdvertisement, document, drafts),
            ("metallb.io", "BFDProfile") => same(Kind::BFDProfile, document, drafts),
            ("metallb.io", "Community") => same(Kind::Community, document, drafts),
            ("metallb.io", "BGPPeer") => peer(document, drafts),
            ("metallb.io", "AddressPool") => address_pool(document, drafts),
            ("metallb.io", "L2Advertisement") => layer_two(document, drafts),
            ("metallb.io", "MetalLB") => operator(document, drafts),
            ("metallb.io", kind) if STATUS_KINDS.contains(&kind) => {}
            ("metallb.io", _) => drafts.lost(reference(document), "kind", "has no counterpart", "it was left out"),
            ("frrk8s.metallb.io", "FRRConfiguration") => raw_frr(document, drafts),
            ("v1", "ConfigMap") => config_map(document, drafts),
            ("v1", "Service") => service(document, drafts),
            _ => {}
        }
    }
}

/// Kind and fields mean the same: only the group and the namespace change.
fn same(kind: Kind, document: &Value, drafts: &mut Drafts) {
    add(kind, document, document.get("spec").cloned().unwrap_or_else(|| json!({})), drafts);
}

fn add(kind: Kind, document: &Value, spec: Value, drafts: &mut Drafts) {
    let metadata = document.get("metadata").unwrap_or(&Value::Null);
    drafts.add(kind, text(metadata, "name"), metadata.get("labels"), spec);
}

fn peer(document: &Value, drafts: &mut Drafts) {
    let mut spec = document.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    if spec.remove("disableMP").is_some_and(|value| value == true) {
        let hint = "a session carries the family of its addresses; both with dualStackAddressFamily";
        drafts.note(reference(document), "spec.disableMP", "is not needed", hint);
    }
    if let Some(secret) = spec.get_mut("passwordSecret").and_then(Value::as_object_mut) {
        let name = secret.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            spec.remove("passwordSecret");
        } else {
            secret.remove("namespace");
            let message = format!("the Secret {name} must stand beside the peer");
            let hint = format!(
                "copy it into the namespace {}, its type kubernetes.io/basic-auth as it is",
                drafts.namespace()
            );
            drafts.note(reference(document), "spec.passwordSecret", message, hint);
        }
    }
    add(Kind::BGPPeer, document, spec.into(), drafts);
}

/// The resource of 0.12 and 0.13: a pool and how it is announced, in one.
fn address_pool(document: &Value, drafts: &mut Drafts) {
    let mut spec = document.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let protocol = spec.remove("protocol").and_then(|protocol| protocol.as_str().map(str::to_owned));
    let advertisements = spec.remove("bgpAdvertisements").and_then(|all| all.as_array().cloned()).unwrap_or_default();
    add(Kind::IPAddressPool, document, spec.into(), drafts);
    let pool = reference(document).name;
    if protocol.as_deref() == Some("layer2") {
        return layer_two_pool(document, "spec.protocol", &pool, drafts);
    }
    advertise(&pool, advertisements.into_iter().filter_map(|one| one.as_object().cloned()).collect(), drafts);
}

/// An advertisement for each that the pool lists; one with defaults where it lists none.
pub(super) fn advertise(pool: &str, mut advertisements: Vec<Map<String, Value>>, drafts: &mut Drafts) {
    if advertisements.is_empty() {
        advertisements.push(Map::new());
    }
    for mut spec in advertisements {
        spec.insert("ipAddressPools".into(), json!([pool]));
        drafts.add(Kind::BGPAdvertisement, pool, None, spec.into());
    }
}

/// A pool that only layer 2 announced.
pub(super) fn layer_two_pool(document: &Value, field: &str, pool: &str, drafts: &mut Drafts) {
    let message = format!("the pool {pool} was announced by layer 2 (ARP, NDP), which has no counterpart");
    let hint = "peer with the router and write a BGPAdvertisement for the pool";
    drafts.lost(reference(document), field, message, hint);
}

fn layer_two(document: &Value, drafts: &mut Drafts) {
    let spec = document.get("spec").unwrap_or(&Value::Null);
    let pools: Vec<&str> = list(spec, "ipAddressPools").iter().filter_map(Value::as_str).collect();
    let pools = if pools.is_empty() { "its pools".to_owned() } else { format!("the pools {}", pools.join(", ")) };
    let hint = format!("peer with the router; {pools} are announced where a BGPAdvertisement names them");
    drafts.lost(reference(document), "kind", "layer 2 (ARP, NDP) has no counterpart", hint);
}

/// What is given to the operator.
fn operator(document: &Value, drafts: &mut Drafts) {
    let spec = document.get("spec").unwrap_or(&Value::Null);
    let class = text(spec, "loadBalancerClass");
    if !class.is_empty() {
        let hint = format!("start the daemon with --load-balancer-class={class}");
        drafts.note(reference(document), "spec.loadBalancerClass", "is a flag of the daemon here", hint);
    }
    for field in ["nodeSelector", "speakerTolerations", "speakerConfig", "controllerConfig"] {
        if spec.get(field).is_some_and(|value| !value.is_null()) {
            let hint = "write it into the DaemonSet where it still means something";
            drafts.note(reference(document), &format!("spec.{field}"), "belongs to the DaemonSet here", hint);
        }
    }
}

fn raw_frr(document: &Value, drafts: &mut Drafts) {
    let message = "configuration of FRR itself has no counterpart: there is no FRR";
    drafts.lost(reference(document), "kind", message, "see the fields of BGPPeer and BGPAdvertisement");
}

fn config_map(document: &Value, drafts: &mut Drafts) {
    let data = document.get("data").unwrap_or(&Value::Null);
    if data.get("extras").is_some() && reference(document).name == "bgpextras" {
        return raw_frr(document, drafts);
    }
    if let Some(config) = data.get("config").and_then(Value::as_str) {
        legacy::import(document, config, drafts);
    }
}

/// Annotations of Services are understood as they are; a class is not taken by itself.
fn service(document: &Value, drafts: &mut Drafts) {
    let class = document.get("spec").map_or("", |spec| text(spec, "loadBalancerClass"));
    if class.contains("metallb") {
        let hint = format!("start the daemon with --load-balancer-class={class}");
        drafts.note(reference(document), "spec.loadBalancerClass", "names MetalLB's class", hint);
    }
}
