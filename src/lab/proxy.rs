//! kube-proxy's part, as nftables rules that the lab writes for each node: a map from (address, protocol,
//! port) to a chain per Service, a random choice among endpoints, masquerading for `Cluster`, only the
//! node's own pods for `Local`. One transaction replaces all of it.
//!
//! A forwarded packet meets the hooks, chains and look-ups that it meets where kube-proxy 1.36 (nftables) has written
//! them, so that it costs what it costs there. Left out is what only the node's own packets meet, and what is in the
//! sets: the lab has no ClusterIPs, node ports, source ranges and pods that are their own clients.

use std::{collections::BTreeMap, net::IpAddr};

use super::site::Node;

const TABLE: &str = "lab-proxy";
/// kube-proxy's mark for "masquerade this".
const MASQUERADE: &str = "0x4000";
const MARK: &str = "meta mark set meta mark or 0x4000";

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
            let wanted = rules(node, services);
            if self.applied.get(&node.name) != Some(&wanted) {
                node.namespace.feed("nft", &["-f", "-"], &wanted).await?;
                self.applied.insert(node.name.clone(), wanted);
            }
        }
        Ok(())
    }
}

/// Both families for one node.
fn rules(node: &Node, services: &[ProxiedService]) -> String {
    [true, false].iter().map(|v4| table(*v4, node, services)).collect()
}

/// What the Services of one family need: chains, and elements of the maps that lead there.
#[derive(Default)]
struct Parts {
    chains: String,
    services: Vec<String>,
    refused: Vec<String>,
}

fn parts(v4: bool, node: &Node, services: &[ProxiedService]) -> Parts {
    let mut parts = Parts::default();
    let of_family = |ip: &IpAddr| ip.is_ipv4() == v4;
    for service in services {
        let all: Vec<IpAddr> = service.endpoints.iter().map(|(ip, _)| *ip).filter(of_family).collect();
        let here = service.endpoints.iter().filter(|(ip, on)| of_family(ip) && *on == node.name).map(|(ip, _)| *ip);
        let chosen = if service.local { here.collect() } else { all.clone() };
        for address in service.addresses.iter().filter(|ip| of_family(ip)) {
            let key = format!("{address} . tcp . {}", service.port);
            if chosen.is_empty() {
                // `Local` without a pod here drops, so that a health check of the router's kind is not answered.
                parts.refused.push(format!("{key} : {}", if service.local { "drop" } else { "goto refuse" }));
            } else {
                parts.services.push(format!("{key} : goto external-{}", service.name));
            }
        }
        if !chosen.is_empty() {
            parts.chains.push_str(&service_chains(if v4 { "ip" } else { "ip6" }, service, &all, &chosen));
        }
    }
    parts
}

fn table(v4: bool, node: &Node, services: &[ProxiedService]) -> String {
    let (family, of) = if v4 { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    let Parts { chains, services, refused } = parts(v4, node, services);
    let nodes: Vec<String> = node.address.iter().filter(|ip| ip.is_ipv4() == v4).map(ToString::to_string).collect();
    let key = format!("{family} daddr . meta l4proto . th dport");
    let hairpins = format!("{family} saddr . {family} daddr . meta l4proto . th dport @hairpins");
    let verdicts = format!("type {of} . inet_proto . inet_service : verdict");
    let [services, refused, nodes] = [services, refused, nodes].map(|all| elements(&all));
    format!(
        "add table {family} {TABLE}
delete table {family} {TABLE}
table {family} {TABLE} {{
  chain refuse {{ reject; }}
  set cluster-addresses {{ type {of}; }}
  set node-addresses {{ type {of}; {nodes} }}
  set hairpins {{ type {of} . {of} . inet_proto . inet_service; }}
{chains}  map source-ranges {{ {verdicts}; }}
  map services {{ {verdicts}; {services} }}
  map no-endpoints {{ {verdicts}; {refused} }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  chain source-ranges-check {{ {key} vmap @source-ranges; }}
  chain no-endpoints-check {{ {key} vmap @no-endpoints; }}
  chain cluster-addresses-check {{ {family} daddr @cluster-addresses reject; }}
  chain dispatch {{
    {family} daddr @cluster-addresses {MARK}
    {key} vmap @services
    {family} daddr @node-addresses meta l4proto . th dport vmap @node-ports
  }}
  chain masquerading {{
    meta mark & {MASQUERADE} != 0 meta mark set meta mark ^ {MASQUERADE} masquerade fully-random
    ct status dnat {hairpins} masquerade fully-random
  }}
  chain before-prerouting {{
    type filter hook prerouting priority -110
    ct state new jump source-ranges-check
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    jump dispatch
  }}
  chain output {{
    type nat hook output priority -100
    jump dispatch
  }}
  chain forward {{
    type filter hook forward priority filter
    ct state new jump no-endpoints-check
    ct state new jump cluster-addresses-check
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    jump masquerading
  }}
}}
",
    )
}

fn elements(of: &[String]) -> String {
    if of.is_empty() { String::new() } else { format!("elements = {{ {} }}", of.join(", ")) }
}

/// A Service's own chains: for what its node sends itself all endpoints, for everybody else those chosen.
fn service_chains(family: &str, service: &ProxiedService, all: &[IpAddr], chosen: &[IpAddr]) -> String {
    let name = &service.name;
    let dnat = |endpoints: &[IpAddr]| {
        let each = |(n, ip): (usize, &IpAddr)| format!("{n} : {ip} . {}", service.target);
        let choices: Vec<String> = endpoints.iter().enumerate().map(each).collect();
        let (n, choices) = (endpoints.len(), choices.join(", "));
        format!("meta l4proto tcp dnat {family} addr . port to numgen random mod {n} map {{ {choices} }}")
    };
    let external = if service.local {
        format!("fib saddr type local {MARK}\n    fib saddr type local goto service-{name}\n    {}", dnat(chosen))
    } else {
        format!("{MARK}\n    goto service-{name}")
    };
    format!("  chain service-{name} {{\n    {}\n  }}\n  chain external-{name} {{\n    {external}\n  }}\n", dnat(all))
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

    fn node(name: &str) -> Node {
        let address = ["10.76.0.1".parse().expect("IPv4"), "fd76::1".parse().expect("IPv6")];
        Node {
            name: name.into(),
            namespace: crate::lab::netns::Namespace::new(name),
            address,
            gateway: address,
            pod_cidr: [String::new(), String::new()],
            pod_gateway: address,
            pods: vec![],
        }
    }

    #[test]
    fn cluster_policy_masquerades_and_takes_any_pod() {
        let rules = rules(&node("n1"), &[service(false)]);
        assert!(rules.contains("mod 2 map { 0 : 10.78.1.11 . 8080, 1 : 10.78.2.11 . 8080 }"), "{rules}");
        assert!(rules.contains("meta mark set meta mark or 0x4000\n    goto service-web"), "{rules}");
        assert!(rules.contains("elements = { 10.76.0.1 }") && rules.contains("elements = { fd76::1 }"), "{rules}");
    }

    #[test]
    fn local_policy_keeps_the_client_and_its_own_pods() {
        let there = rules(&node("n1"), &[service(true)]);
        assert!(there.contains("goto service-web\n    meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.78.1.11 . 8080 }"), "{there}");
        assert!(!there.contains("0x4000\n    goto"), "{there}");
        let without_pod = rules(&node("n3"), &[service(true)]);
        assert!(without_pod.contains("192.0.2.1 . tcp . 80 : drop"), "{without_pod}");
    }
}
