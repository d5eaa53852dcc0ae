//! kube-proxy's part, as nftables rules that the lab writes for each node: a map from (address, protocol,
//! port) to a chain per Service, a random choice among endpoints, masquerading for `Cluster`, only the
//! node's own pods for `Local`. One transaction replaces all of it.

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use super::site::Node;

const TABLE: &str = "lab-proxy";
/// kube-proxy's mark for "masquerade this".
const MASQUERADE: &str = "0x4000";

/// What the rules need to know of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxiedService {
    /// Part of chain names.
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// TCP.
    pub(crate) port: u16,
    /// The pods' port.
    pub(crate) target: u16,
    /// `externalTrafficPolicy: Local`.
    pub(crate) local: bool,
    /// Ready pods of both families with their node.
    pub(crate) endpoints: Vec<(IpAddr, String)>,
}

/// Applies the rules of every node that has others than wanted.
#[derive(Debug, Default)]
pub(crate) struct Proxy {
    applied: BTreeMap<String, String>,
}

impl Proxy {
    /// Makes each node's rules what they should be.
    ///
    /// # Errors
    /// nft refused.
    pub(crate) async fn sync(&mut self, nodes: &[Node], services: &[ProxiedService]) -> anyhow::Result<()> {
        for node in nodes {
            let wanted = rules(&node.name, services);
            if self.applied.get(&node.name) != Some(&wanted) {
                node.namespace.feed("nft", &["-f", "-"], &wanted).await?;
                self.applied.insert(node.name.clone(), wanted);
            }
        }
        Ok(())
    }
}

/// Both families for one node.
fn rules(node: &str, services: &[ProxiedService]) -> String {
    ["ip", "ip6"].iter().map(|family| table(family, node, services)).collect()
}

fn table(family: &str, node: &str, services: &[ProxiedService]) -> String {
    let of_family = |ip: &IpAddr| ip.is_ipv4() == (family == "ip");
    let (mut chains, mut entries, mut refused) = (String::new(), Vec::new(), Vec::new());
    for service in services {
        let endpoints: Vec<IpAddr> = service
            .endpoints
            .iter()
            .filter(|(ip, on)| of_family(ip) && (!service.local || on == node))
            .map(|(ip, _)| *ip)
            .collect();
        for address in service.addresses.iter().filter(|ip| of_family(ip)) {
            let key = format!("{address} . tcp . {}", service.port);
            if endpoints.is_empty() {
                // `Local` without a pod here drops, so that a health check of the router's kind is not answered.
                refused.push(format!("{key} : {}", if service.local { "drop" } else { "goto refuse" }));
            } else {
                entries.push(format!("{key} : goto external-{}", service.name));
            }
        }
        if !endpoints.is_empty() {
            chains.push_str(&service_chains(family, service, &endpoints));
        }
    }
    let key_type = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" };
    let look_up = |map| format!("{family} daddr . meta l4proto . th dport vmap @{map}");
    format!(
        "add table {family} {TABLE}
delete table {family} {TABLE}
table {family} {TABLE} {{
{chains}  chain refuse {{
    reject
  }}
  map services {{
    type {key_type} . inet_proto . inet_service : verdict
    {}
  }}
  map no-endpoints {{
    type {key_type} . inet_proto . inet_service : verdict
    {}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    {}
  }}
  chain output {{
    type nat hook output priority -100
    {}
  }}
  chain forward {{
    type filter hook forward priority filter
    ct state new {}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    meta mark & {MASQUERADE} == {MASQUERADE} meta mark set meta mark xor {MASQUERADE} masquerade fully-random
  }}
}}
",
        elements(&entries),
        elements(&refused),
        look_up("services"),
        look_up("services"),
        look_up("no-endpoints"),
    )
}

fn elements(of: &[String]) -> String {
    if of.is_empty() { String::new() } else { format!("elements = {{ {} }}", of.join(", ")) }
}

fn service_chains(family: &str, service: &ProxiedService, endpoints: &[IpAddr]) -> String {
    let (name, target) = (&service.name, service.target);
    let mark = if service.local { String::new() } else { format!("meta mark set meta mark or {MASQUERADE} ") };
    let choices: Vec<String> = (0..endpoints.len()).map(|i| format!("{i} : goto endpoint-{name}-{i}")).collect();
    let mut chains = String::new();
    for (i, endpoint) in endpoints.iter().enumerate() {
        let to = if family == "ip" { format!("{endpoint}:{target}") } else { format!("[{endpoint}]:{target}") };
        let _ = writeln!(chains, "  chain endpoint-{name}-{i} {{\n    meta l4proto tcp dnat to {to}\n  }}");
    }
    let (n, choices) = (endpoints.len(), choices.join(", "));
    let _ = writeln!(chains, "  chain service-{name} {{\n    numgen random mod {n} vmap {{ {choices} }}\n  }}");
    let _ = writeln!(chains, "  chain external-{name} {{\n    {mark}goto service-{name}\n  }}");
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(local: bool) -> ProxiedService {
        ProxiedService {
            name: "web".into(),
            addresses: vec!["192.0.2.1".parse().expect("address")],
            port: 80,
            target: 8080,
            local,
            endpoints: vec![
                ("10.78.1.11".parse().expect("address"), "n1".into()),
                ("10.78.2.11".parse().expect("address"), "n2".into()),
            ],
        }
    }

    #[test]
    fn cluster_policy_masquerades_and_takes_any_pod() {
        let rules = rules("n1", &[service(false)]);
        assert!(rules.contains("numgen random mod 2"), "{rules}");
        assert!(rules.contains("meta mark set meta mark or 0x4000 goto service-web"), "{rules}");
    }

    #[test]
    fn local_policy_keeps_the_client_and_its_own_pods() {
        let there = rules("n1", &[service(true)]);
        assert!(there.contains("dnat to 10.78.1.11:8080") && !there.contains("10.78.2.11"), "{there}");
        assert!(!there.contains("mark or 0x4000"), "{there}");
        let without_pod = rules("n3", &[service(true)]);
        assert!(without_pod.contains("192.0.2.1 . tcp . 80 : drop"), "{without_pod}");
    }
}
