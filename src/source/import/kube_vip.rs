//! kube-vip: the environment of its DaemonSet or static pods, and the ConfigMap `kubevip` of its cloud provider.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{draft::Drafts, list, reference, text};
use crate::source::index::Kind;

/// Switches that do something which has no counterpart, and what to do instead.
const NO_COUNTERPART: [(&str, &str); 6] = [
    ("vip_arp", "peer with the router over BGP"),
    ("vip_wireguard", "peer with the router over BGP"),
    ("enable_routing_table", "peer with the router over BGP"),
    ("enable_node_labeling", "ask `ironcast status`, or the BGPNodeStatus objects, who announces what"),
    ("egress_withnftables", "use the egress gateway of the CNI"),
    ("mirror_dest_interface", "mirror at the router"),
];

pub(super) fn import(documents: &[Value], drafts: &mut Drafts) {
    for document in documents {
        match (text(document, "apiVersion"), text(document, "kind")) {
            ("v1", "ConfigMap") => config_map(document, drafts),
            ("apps/v1", "DaemonSet") => workload(document, document.pointer("/spec/template/spec"), drafts),
            ("v1", "Pod") => workload(document, document.get("spec"), drafts),
            ("v1", "Service") => service(document, drafts),
            _ => {}
        }
    }
}

fn workload(document: &Value, pod: Option<&Value>, drafts: &mut Drafts) {
    let Some(pod) = pod else { return };
    let Some(container) =
        list(pod, "containers").iter().find(|container| text(container, "image").contains("kube-vip"))
    else {
        return;
    };
    let environment = environment(container);
    let on = |name: &str| environment.get(name).is_some_and(|value| value == "true");
    for (name, hint) in NO_COUNTERPART.iter().filter(|(name, _)| on(name)) {
        drafts.lost(reference(document), &format!("env {name}"), "has no counterpart", *hint);
    }
    if on("cp_enable") {
        let hint = "leave kube-vip where it is with svc_enable=false, for the address of the API server alone";
        drafts.lost(reference(document), "env cp_enable", "the control plane's address is no Service", hint);
    }
    if on("lb_class_only") {
        let class = environment.get("lb_class_name").map_or("kube-vip.io/kube-vip-class", String::as_str);
        let hint = format!("start the daemon with --load-balancer-class={class}");
        drafts.note(reference(document), "env lb_class_only", "is a flag of the daemon here", hint);
    }
    if on("bgp_enable") {
        peers(document, &environment, drafts);
    }
    if ["nodeSelector", "affinity"].iter().any(|field| pod.get(field).is_some_and(|value| !value.is_null())) {
        let hint = "label the nodes that announce, and select them in nodeSelectors of the BGPAdvertisement";
        drafts.note(reference(document), "spec", "ran on some nodes only; here the DaemonSet runs on all", hint);
    }
}

/// The variables with a value of their own.
fn environment(container: &Value) -> BTreeMap<String, String> {
    let one = |variable: &Value| Some((text(variable, "name").to_owned(), variable.get("value")?.as_str()?.to_owned()));
    list(container, "env").iter().filter_map(one).collect()
}

fn peers(document: &Value, environment: &BTreeMap<String, String>, drafts: &mut Drafts) {
    let value = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mut common = Map::new();
    let ours = value("bgp_as").and_then(|number| number.parse::<u32>().ok()).unwrap_or(65000);
    common.insert("myASN".into(), ours.into());
    for (name, field) in [("bgp_hold_time", "holdTime"), ("bgp_keepalive_interval", "keepaliveTime")] {
        if let Some(seconds) = value(name) {
            common.insert(field.into(), format!("{seconds}s").into());
        }
    }
    for name in ["bgp_routerid", "bgp_routerinterface", "bgp_sourceif", "bgp_sourceip"] {
        if value(name).is_some() {
            let hint = "where a router wants another, set routerID or sourceAddress in a BGPPeer with nodeSelectors";
            drafts.note(reference(document), &format!("env {name}"), "each node finds its own here", hint);
        }
    }
    let mut found = Vec::new();
    if let Some(address) = value("bgp_peeraddress") {
        let (asn, password) = (value("bgp_peeras").unwrap_or("65000"), value("bgp_peerpass").unwrap_or_default());
        found.push(Ok(Router { address, asn, password, multihop: value("bgp_multihop") == Some("true") }));
    }
    found.extend(value("bgp_peers").into_iter().flat_map(|all| all.split(',')).map(str::trim).map(router));
    for one in found {
        match one {
            Ok(router) => router.draft(&common, document, drafts),
            Err(item) => {
                // A password may stand behind the first colon.
                let begin = item.split(':').next().unwrap_or_default();
                let message = format!("{begin:?} begins what is not ADDRESS:AS:PASSWORD:MULTIHOP");
                drafts.lost(reference(document), "env bgp_peers", message, "write a BGPPeer for it");
            }
        }
    }
    drafts.add(Kind::BGPAdvertisement, "kube-vip", None, json!({}));
}

/// A peer as kube-vip writes it.
struct Router<'a> {
    address: &'a str,
    asn: &'a str,
    password: &'a str,
    multihop: bool,
}

/// `ADDRESS:AS:PASSWORD:MULTIHOP`, an IPv6 address in brackets; the last two may be missing.
fn router(item: &str) -> Result<Router<'_>, &str> {
    let (address, rest) = match item.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or(item)?,
        None => item.split_once(':').ok_or(item)?,
    };
    let mut parts = rest.split(':');
    let asn = parts.next().filter(|asn| asn.parse::<u32>().is_ok()).ok_or(item)?;
    address.parse::<IpAddr>().map_err(|_| item)?;
    Ok(Router {
        address,
        asn,
        password: parts.next().unwrap_or_default(),
        multihop: parts.next().is_some_and(|multihop| multihop == "true"),
    })
}

impl Router<'_> {
    fn draft(self, common: &Map<String, Value>, document: &Value, drafts: &mut Drafts) {
        let mut spec = common.clone();
        spec.insert("peerAddress".into(), self.address.into());
        spec.insert("peerASN".into(), self.asn.parse::<u32>().map_or(Value::from(self.asn), Value::from));
        if self.multihop {
            spec.insert("ebgpMultiHop".into(), true.into());
        }
        let name = drafts.add(Kind::BGPPeer, &format!("peer-{}", self.address), None, spec.into());
        if !self.password.is_empty() {
            let hint = format!(
                "put it into a Secret of type kubernetes.io/basic-auth in {} and name it in spec.passwordSecret of the \
                 BGPPeer {name}",
                drafts.namespace()
            );
            drafts.note(reference(document), "env", format!("the password of {} was left out", self.address), hint);
        }
    }
}

/// `cidr-NAMESPACE` and `range-NAMESPACE`, `global` for all: lists with commas.
fn config_map(document: &Value, drafts: &mut Drafts) {
    let Some(data) = document.get("data").and_then(Value::as_object).filter(|_| reference(document).name == "kubevip")
    else {
        return;
    };
    let skip_ends = data.get("skip-end-ips-in-cidr").and_then(Value::as_str) == Some("true");
    let mut pools: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, value) in data {
        let value = value.as_str().unwrap_or_default();
        let (word, rest) = key.split_once('-').unwrap_or((key, ""));
        match word {
            "cidr" | "range" => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
                pools.entry(rest).or_default().extend(items.map(|item| addresses(item, skip_ends)));
            }
            "allow" => {
                let hint = "Services that share an address name the same key in ironcast.dev/allow-shared-ip";
                drafts.note(reference(document), &format!("data.{key}"), "addresses are shared only if asked", hint);
            }
            "search" if value == "desc" => {
                let hint = "an address can be asked for with ironcast.dev/load-balancer-ips";
                drafts.note(reference(document), &format!("data.{key}"), "addresses are tried upwards here", hint);
            }
            "search" | "skip" => {}
            _ => drafts.lost(reference(document), &format!("data.{key}"), "has no counterpart", "it was left out"),
        }
    }
    for (namespace, mut addresses) in pools {
        let dhcp = addresses.len();
        addresses.retain(|item| !item.starts_with("0.0.0.0"));
        if addresses.len() < dhcp {
            drafts.lost(reference(document), "data", "addresses from DHCP have no counterpart", "write them as a pool");
        }
        if addresses.is_empty() {
            continue;
        }
        let mut spec = json!({ "addresses": addresses });
        if namespace != "global" {
            // A namespace's own pool comes before the global one.
            spec["serviceAllocation"] = json!({ "priority": 1, "namespaces": [namespace] });
        }
        drafts.add(Kind::IPAddressPool, namespace, None, spec);
    }
}

/// A CIDR or range, without the ends of an IPv4 CIDR where they are not given out.
fn addresses(item: &str, skip_ends: bool) -> String {
    match item.parse() {
        Ok(IpNet::V4(net)) if skip_ends && net.prefix_len() < 31 => {
            let (first, last) = (u32::from(net.network()) + 1, u32::from(net.broadcast()) - 1);
            format!("{}-{}", std::net::Ipv4Addr::from(first), std::net::Ipv4Addr::from(last))
        }
        _ => item.to_owned(),
    }
}

fn service(document: &Value, drafts: &mut Drafts) {
    let annotations = document.pointer("/metadata/annotations").and_then(Value::as_object);
    let on = |name: &str| annotations.and_then(|all| all.get(name)).and_then(Value::as_str) == Some("true");
    if on("kube-vip.io/egress") {
        let hint = "use the egress gateway of the CNI";
        drafts.lost(reference(document), "metadata.annotations", "kube-vip.io/egress has no counterpart", hint);
    }
    if document.pointer("/spec/loadBalancerIP").and_then(Value::as_str) == Some("0.0.0.0") {
        let hint = "remove the field, or write an address of a pool";
        drafts.lost(reference(document), "spec.loadBalancerIP", "0.0.0.0 asks DHCP, which has no counterpart", hint);
    }
}
