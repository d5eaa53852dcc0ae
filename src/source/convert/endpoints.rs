//! `EndpointSlice` to [`Endpoint`]s.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::{Endpoint as KubeEndpoint, EndpointPort, EndpointSlice};

use super::{Converted, report::Report, service::protocol};
use crate::types::{Endpoint, Family, Ports, Protocol, ServiceKey, family_of};

/// The label that ties a slice to its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// What a slice adds to its Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The Service.
    pub service: ServiceKey,
    /// The endpoints, sorted.
    pub endpoints: Arc<[Endpoint]>,
}

/// The slice. An endpoint that is wrong is left out alone: the others are real pods.
pub fn slice(object: &EndpointSlice) -> Converted<Slice> {
    let mut report = Report::new(object);
    let name = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE));
    let Some(name) = name else {
        report.warn(
            format!("metadata.labels[{SERVICE}]"),
            "is missing, so the slice belongs to no Service",
            "set it to the name of the Service",
        );
        return report.finish(None);
    };
    let family = match object.address_type.as_str() {
        "IPv4" => Family::Ipv4,
        "IPv6" => Family::Ipv6,
        other => {
            report.warn("addressType", format!("{other:?} is not used"), "use IPv4 or IPv6");
            return report.finish(None);
        }
    };
    let ports = ports(&mut report, object.ports.as_deref().unwrap_or_default()).into();
    let mut nodes = BTreeSet::new();
    let mut endpoints: Vec<Endpoint> = object
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(i, e)| endpoint(&mut report, &format!("endpoints[{i}]"), e, family, &ports, &mut nodes))
        .collect();
    endpoints.sort();
    endpoints.dedup();
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    report.keep(Slice { service: ServiceKey::new(namespace, name.as_str()), endpoints: endpoints.into() })
}

fn ports(report: &mut Report, ports: &[EndpointPort]) -> Vec<(String, Protocol, u16)> {
    let mut list = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let field = format!("ports[{i}]");
        // A slice without a number for a port means every port; nothing can be sent there.
        let Some(number) = port.port else { continue };
        let number = u16::try_from(number).map_err(|_| format!("{number} is no port"));
        let number = report.take(&format!("{field}.port"), number, "use 1 to 65535");
        let protocol = protocol(report, &format!("{field}.protocol"), port.protocol.as_deref());
        if let (Some(number), Some(protocol)) = (number, protocol) {
            list.push((port.name.clone().unwrap_or_default(), protocol, number));
        }
    }
    list.sort();
    list
}

/// The name as one of those that there are already.
fn one_of(names: &mut BTreeSet<Arc<str>>, name: &str) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return known.clone();
    }
    let name: Arc<str> = name.into();
    names.insert(name.clone());
    name
}

/// The first address counts, as Kubernetes says; further ones are the same pod.
fn endpoint(
    report: &mut Report,
    path: &str,
    endpoint: &KubeEndpoint,
    family: Family,
    ports: &Arc<Ports>,
    nodes: &mut BTreeSet<Arc<str>>,
) -> Option<Endpoint> {
    const HINT: &str = "write the pod's address, of the slice's addressType";
    let field = format!("{path}.addresses[0]");
    let Some(text) = endpoint.addresses.first() else {
        report.warn(&field, "is missing", HINT);
        return None;
    };
    let Some(address) = text.parse::<IpAddr>().ok().filter(|a| family_of(*a) == family) else {
        report.warn(&field, format!("{text:?} is no {family} address"), HINT);
        return None;
    };
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    Some(Endpoint {
        address,
        node: endpoint.node_name.as_deref().map(|name| one_of(nodes, name)),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        ports: ports.clone(),
    })
}
