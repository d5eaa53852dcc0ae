//! `Service` to [`Service`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Service as KubeService, ServicePort as KubePort, ServiceSpec};

use super::{
    Converted,
    annotations::{ACROSS, ADDRESSES, POOL, SHARING},
    report::Report,
};
use crate::types::{Family, FamilyPolicy, Protocol, Service, ServiceKey, ServicePort, TrafficPolicy, family_of};

/// What `sessionAffinity: ClientIP` lasts where nothing is said, as in the API server.
const AFFINITY: Duration = Duration::from_secs(10800);

/// The Service, of whatever type.
///
/// `ipFamilies` absent (manifests only; an API server always fills it) means: the families of `clusterIPs`, else of
/// the addresses asked for, else both for a dual-stack `ipFamilyPolicy`, else IPv4. A Service for an IPv6-only network says `ipFamilies: [IPv6]`.
///
/// There is always a value, what is wrong is left out of it: whether a Service with an error is refused depends
/// on whether it has addresses, which in manifest mode this function does not see.
pub fn service(object: &KubeService) -> Converted<Service> {
    let mut report = Report::new(object);
    let spec = object.spec.clone().unwrap_or_default();
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    let key = ServiceKey::new(
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    );
    let requested_addresses = requested_addresses(&mut report, &annotations, &spec);
    let (families, family_policy) = families(&mut report, &spec, &requested_addresses);
    let sharing_key = sharing_key(&annotations, &key.namespace);
    let service = Service {
        uid: object.metadata.uid.clone().unwrap_or_else(|| key.to_string()),
        key,
        labels: object.metadata.labels.clone().unwrap_or_default(),
        load_balancer: spec.type_.as_deref() == Some("LoadBalancer"),
        deleting: object.metadata.deletion_timestamp.is_some(),
        class: spec.load_balancer_class.clone(),
        families,
        family_policy,
        traffic_policy: traffic_policy(&mut report, &spec),
        ports: ports(&mut report, spec.ports.as_deref().unwrap_or_default()),
        selector: spec.selector.clone().unwrap_or_default(),
        affinity: affinity(&mut report, &spec),
        source_ranges: spec.load_balancer_source_ranges.is_some_and(|ranges| !ranges.is_empty()),
        requested_addresses,
        requested_pool: first(&annotations, POOL.names).map(|(_, value)| value.trim().into()),
        sharing_key,
        assigned: assigned(object),
        created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
    };
    report.keep(service)
}

fn first<'a>(annotations: &'a BTreeMap<String, String>, keys: &[&'static str]) -> Option<(&'static str, &'a str)> {
    keys.iter().find_map(|key| annotations.get(*key).map(|value| (*key, value.as_str())))
}

/// The key together with the namespaces that it holds for. Services share where both are the same, so that nobody gets
/// onto an address whose owner does not name his namespace. MetalLB's key holds for all, as it does there.
fn sharing_key(annotations: &BTreeMap<String, String>, namespace: &str) -> Option<String> {
    let (annotation, key) = first(annotations, SHARING.names).filter(|(_, key)| !key.is_empty())?;
    let usual = if annotation == SHARING.names[0] { "" } else { "*" };
    let across = annotations.get(ACROSS.names[0]).map_or(usual, String::as_str);
    let mut namespaces: BTreeSet<&str> = across.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    namespaces.insert(namespace);
    let namespaces = match namespaces.contains("*") {
        true => "*".to_owned(),
        false => namespaces.into_iter().collect::<Vec<_>>().join(","),
    };
    // No namespace has a line break in its name.
    Some(format!("{namespaces}\n{key}"))
}

/// Path of the field that asks for an address, or else for a pool or a shared address.
pub fn request_field(object: &KubeService) -> Option<String> {
    let annotations = object.metadata.annotations.clone().unwrap_or_default();
    let named =
        |keys: &[&'static str]| first(&annotations, keys).map(|(key, _)| format!("metadata.annotations[{key}]"));
    let by_field = object.spec.as_ref().is_some_and(|spec| spec.load_balancer_ip.is_some());
    let by_field = by_field.then(|| "spec.loadBalancerIP".to_owned());
    named(ADDRESSES.names).or(by_field).or_else(|| named(POOL.names)).or_else(|| named(SHARING.names))
}

fn requested_addresses(report: &mut Report, annotations: &BTreeMap<String, String>, spec: &ServiceSpec) -> Vec<IpAddr> {
    let field = spec.load_balancer_ip.as_deref().filter(|text| !text.is_empty());
    let by_field = field.map(|text| addresses(report, "spec.loadBalancerIP", text));
    let Some((annotation, text)) = first(annotations, ADDRESSES.names) else { return by_field.unwrap_or_default() };
    let path = format!("metadata.annotations[{annotation}]");
    let by_annotation = addresses(report, &path, text);
    if by_field.is_some_and(|by_field| by_field != by_annotation) {
        report.error(
            "spec.loadBalancerIP",
            format!("{} asks for other addresses than the annotation {annotation}: {text}", field.unwrap_or_default()),
            "keep one of the two",
        );
    }
    by_annotation
}

fn addresses(report: &mut Report, field: &str, text: &str) -> Vec<IpAddr> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.parse::<IpAddr>() {
            // kube-vip's word for DHCP.
            Ok(ip) if ip.is_unspecified() => {
                report.warn(field, format!("{ip} asks for no address in particular"), "leave it out: a pool gives one");
            }
            Ok(ip) if list.contains(&ip) => report.warn(field, format!("{ip} stands twice"), "name it once"),
            Ok(ip) => list.push(ip),
            Err(_) => report.error(
                field,
                format!("{part:?} is no IP address"),
                "write one address per family, separated by a comma",
            ),
        }
    }
    list
}

fn families(report: &mut Report, spec: &ServiceSpec, requested: &[IpAddr]) -> (Vec<Family>, FamilyPolicy) {
    let policy = match spec.ip_family_policy.as_deref() {
        None => None,
        Some("SingleStack") => Some(FamilyPolicy::SingleStack),
        Some("PreferDualStack") => Some(FamilyPolicy::PreferDualStack),
        Some("RequireDualStack") => Some(FamilyPolicy::RequireDualStack),
        Some(other) => {
            let hint = "use SingleStack, PreferDualStack or RequireDualStack";
            report.error("spec.ipFamilyPolicy", format!("{other:?} is no policy"), hint);
            None
        }
    };
    let mut families = named_families(report, spec.ip_families.as_deref().unwrap_or_default());
    if families.is_empty() {
        families = implied_families(spec, requested, policy);
    }
    let policy = policy.unwrap_or(match families.len() {
        2 => FamilyPolicy::PreferDualStack,
        _ => FamilyPolicy::SingleStack,
    });
    if policy != FamilyPolicy::SingleStack && families.len() == 1 && spec.ip_families.is_none() {
        families.push(other(families[0]));
    }
    (families, policy)
}

fn named_families(report: &mut Report, names: &[String]) -> Vec<Family> {
    let mut families = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let family = match name.as_str() {
            "IPv4" => Family::Ipv4,
            "IPv6" => Family::Ipv6,
            _ => {
                report.error(format!("spec.ipFamilies[{i}]"), format!("{name:?} is no family"), "use IPv4 or IPv6");
                continue;
            }
        };
        match families.contains(&family) {
            true => {
                report.error(format!("spec.ipFamilies[{i}]"), format!("{name} stands twice"), "name each family once")
            }
            false => families.push(family),
        }
    }
    families
}

fn implied_families(spec: &ServiceSpec, requested: &[IpAddr], policy: Option<FamilyPolicy>) -> Vec<Family> {
    let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|ip| ip.parse().ok());
    let mut families = distinct(cluster_ips);
    if families.is_empty() {
        families = distinct(requested.iter().copied());
    }
    if families.is_empty() {
        families = vec![Family::Ipv4];
    }
    if policy == Some(FamilyPolicy::SingleStack) {
        families.truncate(1);
    }
    families
}

fn distinct(addresses: impl Iterator<Item = IpAddr>) -> Vec<Family> {
    let mut families = Vec::new();
    for family in addresses.map(family_of) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

fn other(family: Family) -> Family {
    match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    }
}

fn traffic_policy(report: &mut Report, spec: &ServiceSpec) -> TrafficPolicy {
    match spec.external_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            report.error("spec.externalTrafficPolicy", format!("{other:?} is no policy"), "use Cluster or Local");
            TrafficPolicy::Cluster
        }
    }
}

fn ports(report: &mut Report, ports: &[KubePort]) -> Vec<ServicePort> {
    let mut list = Vec::with_capacity(ports.len());
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let number =
            u16::try_from(port.port).ok().filter(|n| *n != 0).ok_or_else(|| format!("{} is no port", port.port));
        let number = report.take(&format!("{path}.port"), number, "use 1 to 65535");
        let protocol = protocol(report, &format!("{path}.protocol"), port.protocol.as_deref());
        if let (Some(number), Some(protocol)) = (number, protocol) {
            list.push(ServicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol,
                port: number,
                node_port: port.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0),
            });
        }
    }
    list
}

/// A protocol by its name; absent is TCP, as in the API server.
pub(super) fn protocol(report: &mut Report, field: &str, name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            report.error(field, format!("{other:?} is no protocol"), "use TCP, UDP or SCTP");
            None
        }
    }
}

fn affinity(report: &mut Report, spec: &ServiceSpec) -> Option<Duration> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u64::try_from(s).ok());
            Some(seconds.map_or(AFFINITY, Duration::from_secs))
        }
        Some(other) => {
            report.error("spec.sessionAffinity", format!("{other:?} is no affinity"), "use None or ClientIP");
            None
        }
    }
}

fn assigned(object: &KubeService) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|lb| lb.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect()
}
