//! `Node` to [`Node`].

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node as KubeNode, NodeStatus, Taint};

use super::{Converted, report::Report};
use crate::{source::api::GROUP, types::Node};

/// The node. A field that cannot be read is left out: a node is never refused.
pub fn node(object: &KubeNode) -> Converted<Node> {
    let mut report = Report::new(object);
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let pod_cidrs = spec.pod_cidrs.or_else(|| spec.pod_cidr.map(|cidr| vec![cidr])).unwrap_or_default();
    let node = Node {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        annotations: object.metadata.annotations.iter().flatten().filter(|(key, _)| ours(key)).map(owned).collect(),
        addresses: addresses(&mut report, &status),
        ready: condition(&status, "Ready").is_none_or(|status| status == "True"),
        network_unavailable: condition(&status, "NetworkUnavailable") == Some("True"),
        unschedulable: spec.unschedulable.unwrap_or(false),
        taints: spec.taints.iter().flatten().map(taint).collect(),
        pod_cidrs: pod_cidrs.iter().enumerate().filter_map(|(i, text)| cidr(&mut report, i, text)).collect(),
        provider_id: spec.provider_id,
    };
    report.keep(node)
}

fn ours(annotation: &str) -> bool {
    let prefix = annotation.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == GROUP || prefix.strip_suffix(GROUP).is_some_and(|rest| rest.ends_with('.'))
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn taint(taint: &Taint) -> String {
    format!("{}={}", taint.key, taint.value.as_deref().unwrap_or_default())
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a str> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind).map(|c| c.status.as_str())
}

fn addresses(report: &mut Report, status: &NodeStatus) -> Vec<IpAddr> {
    let mut list = Vec::new();
    for (i, address) in status.addresses.iter().flatten().enumerate() {
        if !matches!(address.type_.as_str(), "InternalIP" | "ExternalIP") {
            continue;
        }
        match address.address.parse() {
            Ok(ip) if !list.contains(&ip) => list.push(ip),
            Ok(_) => {}
            Err(_) => report.warn(
                format!("status.addresses[{i}].address"),
                format!("{:?} is no IP address", address.address),
                "write an IPv4 or IPv6 address, or use type Hostname",
            ),
        }
    }
    list
}

fn cidr(report: &mut Report, i: usize, text: &str) -> Option<ipnet::IpNet> {
    let net = text.parse().ok();
    if net.is_none() {
        report.warn(format!("spec.podCIDRs[{i}]"), format!("{text:?} is no CIDR"), "write it like 10.244.0.0/24");
    }
    net
}
