//! The ConfigMap of MetalLB before 0.13: one YAML text with peers, pools, communities and BFD profiles.

use serde_json::{Map, Value, json};

use super::{draft::Drafts, list, metallb, reference, text};
use crate::source::index::Kind;

/// Where kebab-case words and ours differ by more than case and hyphens.
const WORDS: [(&str, &str); 9] = [
    ("my-asn", "myASN"),
    ("peer-asn", "peerASN"),
    ("router-id", "routerID"),
    ("ebgp-multihop", "ebgpMultiHop"),
    ("avoid-buggy-ips", "avoidBuggyIPs"),
    ("aggregation-length-v6", "aggregationLengthV6"),
    ("localpref", "localPref"),
    ("cidr", "addresses"),
    ("match-labels", MATCH_LABELS),
];

/// Its keys are labels, not fields.
const MATCH_LABELS: &str = "matchLabels";

/// Translates the text; `document` is the ConfigMap that it stands in.
pub(super) fn import(document: &Value, config: &str, drafts: &mut Drafts) {
    let config: Value = match serde_norway::from_str(config) {
        Ok(config) => config,
        Err(error) => {
            let message = format!("is no YAML: {error}");
            return drafts.lost(reference(document), "data.config", message, "correct the text and import again");
        }
    };
    for profile in list(&config, "bfd-profiles") {
        let (name, spec) = named(profile);
        drafts.add(Kind::BFDProfile, &name, None, spec.into());
    }
    for peer in list(&config, "peers") {
        let mut spec = fields(peer);
        seconds(&mut spec, "holdTime");
        seconds(&mut spec, "keepaliveTime");
        let name = format!("peer-{}", text(peer, "peer-address"));
        drafts.add(Kind::BGPPeer, &name, None, spec.into());
    }
    communities(&config, drafts);
    for pool in list(&config, "address-pools") {
        address_pool(document, pool, drafts);
    }
    if config.get("peer-autodiscovery").is_some() {
        let hint = "write a BGPPeer for each router, with nodeSelectors";
        drafts.lost(reference(document), "data.config.peer-autodiscovery", "has no counterpart", hint);
    }
}

fn address_pool(document: &Value, pool: &Value, drafts: &mut Drafts) {
    let (name, mut spec) = named(pool);
    let protocol = spec.remove("protocol").and_then(|protocol| protocol.as_str().map(str::to_owned));
    let advertisements = spec.remove("bgpAdvertisements").unwrap_or_default();
    let name = drafts.add(Kind::IPAddressPool, &name, None, spec.into());
    if protocol.as_deref() == Some("layer2") {
        return metallb::layer_two_pool(document, "data.config.address-pools", &name, drafts);
    }
    let advertisements = advertisements.as_array().into_iter().flatten();
    metallb::advertise(&name, advertisements.filter_map(Value::as_object).cloned().collect(), drafts);
}

fn communities(config: &Value, drafts: &mut Drafts) {
    let Some(names) = config.get("bgp-communities").and_then(Value::as_object).filter(|names| !names.is_empty()) else {
        return;
    };
    let one = |(name, value): (&String, &Value)| json!({ "name": name, "value": plain(value) });
    let communities: Vec<Value> = names.iter().map(one).collect();
    drafts.add(Kind::Community, "communities", None, json!({ "communities": communities }));
}

/// An item's name, and its other fields.
fn named(item: &Value) -> (String, Map<String, Value>) {
    let mut fields = fields(item);
    let name = fields.remove("name").map(|name| plain(&name)).unwrap_or_default();
    (name, fields)
}

/// The fields in our spelling, below as well.
fn fields(item: &Value) -> Map<String, Value> {
    let spelled = item.as_object().into_iter().flatten().map(|(key, value)| match spell(key) {
        key if key == MATCH_LABELS => (key, value.clone()),
        key => (key, respell(value)),
    });
    spelled.collect()
}

fn respell(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(respell).collect(),
        Value::Object(_) => Value::Object(fields(value)),
        other => other.clone(),
    }
}

fn spell(key: &str) -> String {
    if let Some((_, ours)) = WORDS.iter().find(|(theirs, _)| *theirs == key) {
        return (*ours).to_owned();
    }
    let mut words = key.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name + letters.as_str()
    })
}

/// A time may stand there as a number of seconds.
fn seconds(spec: &mut Map<String, Value>, field: &str) {
    if let Some(number) = spec.get(field).and_then(Value::as_u64) {
        spec.insert(field.into(), format!("{number}s").into());
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
