//! What else changes packets on a node, one after the other beside the packet path: rules of kube-proxy's kind, in
//! nftables and in iptables, that drop what connection tracking calls INVALID; a strict reverse path filter; a CNI's
//! masquerading of everything that pods send away; an overlay between the nodes. With each of them requests are
//! answered by pods of every node, pods see the client itself, and uploads arrive whole over links of 1,500 bytes.

use std::{fmt::Write, net::IpAddr, time::Duration};

use anyhow::Context;

use super::{ROUTE_WITHIN, address, all_names, answered, nodes_with_pods, routes, sessions};
use crate::lab::{
    client::Client,
    manifests::ServiceSpec,
    proxy::{ProxiedService, Proxy},
    site::{CLIENT, ECHO_PORTS, Node, POD_PORT, Pod, Site},
    stage::{Lab, Observation, Stop},
};

/// Connections that upload, to each address.
const UPLOADS: usize = 8;
/// What each sends and gets back: many times what is under way at once.
const UPLOAD: usize = 256 << 10;
const UPLOADS_WITHIN: Duration = Duration::from_secs(20);

const STRICT: [(&str, &str); 3] = [
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/default/rp_filter", "1"),
    ("net/ipv4/conf/eth0/rp_filter", "1"),
];
const LOOSE: [(&str, &str); 3] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/eth0/rp_filter", "0"),
];

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let nodes = all_names(&lab.site);
    let web = ServiceSpec::new("web");
    let echo = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("echo") };
    let mut to = Vec::new();
    for service in [&web, &echo] {
        let addresses = address(lab, service).await?;
        routes(lab, &format!("route to {}", service.name), addresses, &nodes, ROUTE_WITHIN).await?;
        to.push(addresses);
    }
    let (web, echo) = (to[0], to[1]);
    works(lab, "nothing else", web, echo).await?;

    let services = [proxied(&lab.site, "web", web, 80, POD_PORT), proxied(&lab.site, "echo", echo, 7, ECHO_PORTS[0])];
    Proxy::default().sync(&lab.site.nodes, &services).await?;
    each(lab, |node| ("nft", vec!["-f", "-"], drop_invalid(node))).await?;
    works(lab, "kube-proxy's nftables rules, INVALID dropped", web, echo).await?;
    each(lab, |_| ("nft", vec!["flush", "ruleset"], String::new())).await?;

    for (restore, v6) in [("iptables-restore", false), ("ip6tables-restore", true)] {
        each(lab, |_| (restore, vec![], iptables(&services, v6))).await?;
    }
    works(lab, "kube-proxy's iptables rules, INVALID dropped", web, echo).await?;
    for restore in ["iptables-restore", "ip6tables-restore"] {
        each(lab, |_| (restore, vec![], "*nat\nCOMMIT\n*filter\nCOMMIT\n".into())).await?;
    }

    lab.site.nodes.iter().try_for_each(|node| node.namespace.set(&STRICT))?;
    works(lab, "a strict reverse path filter", web, echo).await?;
    lab.site.nodes.iter().try_for_each(|node| node.namespace.set(&LOOSE))?;

    each(lab, |node| ("nft", vec!["-f", "-"], masquerade(node) + &drop_invalid(node))).await?;
    works(lab, "masquerading of the pods' network", web, echo).await?;
    each(lab, |_| ("nft", vec!["flush", "ruleset"], String::new())).await?;

    let site = lab.site.clone();
    each(lab, |node| ("ip", vec!["-batch", "-"], overlay(node, &site))).await?;
    each(lab, |node| ("bridge", vec!["-batch", "-"], flood(node, &site))).await?;
    works(lab, "a VXLAN overlay between the nodes", web, echo).await?;
    overlay_works(lab).await
}

pub(super) fn check(site: &Site) -> anyhow::Result<()> {
    anyhow::ensure!(
        nodes_with_pods(site) == site.nodes.len(),
        "coexistence needs a pod on every node: give at least as many --pods as --nodes"
    );
    Ok(())
}

/// A cell: requests and uploads over both families.
async fn works(lab: &mut Lab, beside: &str, web: [IpAddr; 2], echo: [IpAddr; 2]) -> Result<(), Stop> {
    let on = nodes_with_pods(&lab.site);
    for (((family, web), echo), client) in ["IPv4", "IPv6"].into_iter().zip(web).zip(echo).zip(CLIENT) {
        let tally = answered(lab, &format!("beside {beside}, {family}"), web, 80, on).await?;
        let seen: Vec<String> = tally.seen_as.iter().map(ToString::to_string).collect();
        let name = format!("beside {beside}, client's address over {family}");
        lab.verify(&name, &client.to_string(), &seen.join(" "), tally.seen_as == [client].into())?;
        let expected = format!("{UPLOADS} uploads of {} KiB come back whole", UPLOAD >> 10);
        lab.expect(&format!("beside {beside}, uploads over {family}"), &expected, UPLOADS_WITHIN, async |lab: &Lab| {
            let whole = lab.client.uploads((echo, 7).into(), UPLOADS, UPLOAD).await?;
            Ok(Observation { seen: format!("{whole} of {UPLOADS} whole"), ok: whole == UPLOADS })
        })
        .await?;
    }
    Ok(())
}

/// Runs a program with a text on its standard input on every node.
async fn each<'a>(lab: &Lab, what: impl Fn(&Node) -> (&'a str, Vec<&'a str>, String)) -> anyhow::Result<()> {
    for node in &lab.site.nodes {
        let (program, arguments, text) = what(node);
        node.namespace.feed(program, &arguments, &text).await.with_context(|| format!("on {}", node.name))?;
    }
    Ok(())
}

fn proxied(site: &Site, name: &str, addresses: [IpAddr; 2], port: u16, target: u16) -> ProxiedService {
    let behind = |(node, pod): (&Node, &Pod)| pod.address.map(|ip| (ip, node.name.clone()));
    let endpoints = site.pods().flat_map(behind).collect();
    ProxiedService { name: name.into(), addresses: addresses.to_vec(), port, target, local: false, endpoints }
}

/// As kube-proxy and CNIs do for packets that tracking cannot place.
fn drop_invalid(_: &Node) -> String {
    "table inet lab-invalid {\n  chain forward {\n    type filter hook forward priority 0\n    ct state invalid drop\n  }\n}\n"
        .into()
}

/// As flannel and Calico do: what pods send beyond the pods' network leaves with the node's address.
fn masquerade(node: &Node) -> String {
    let [v4, v6] = &node.pod_cidr;
    format!(
        "table inet lab-cni {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat\n    \
         ip saddr {v4} ip daddr != 10.78.0.0/16 masquerade\n    \
         ip6 saddr {v6} ip6 daddr != fd00:78::/32 masquerade\n  }}\n}}\n"
    )
}

/// kube-proxy's chains in iptables.
fn iptables(services: &[ProxiedService], v6: bool) -> String {
    let mut nat = ":KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n".to_owned();
    let mut rules = "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
                     -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
                     -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MASQUERADE\n"
        .to_owned();
    for service in services {
        let (name, port, target) = (&service.name, service.port, service.target);
        let _ = writeln!(nat, ":KUBE-EXT-{name} - [0:0]\n:KUBE-SVC-{name} - [0:0]");
        for address in service.addresses.iter().filter(|ip| ip.is_ipv6() == v6) {
            let _ = writeln!(rules, "-A KUBE-SERVICES -d {address} -p tcp --dport {port} -j KUBE-EXT-{name}");
        }
        let _ = writeln!(rules, "-A KUBE-EXT-{name} -j KUBE-MARK-MASQ\n-A KUBE-EXT-{name} -j KUBE-SVC-{name}");
        let pods: Vec<&IpAddr> = service.endpoints.iter().map(|(ip, _)| ip).filter(|ip| ip.is_ipv6() == v6).collect();
        for (n, pod) in pods.iter().enumerate() {
            let share = 1.0 / (pods.len() - n) as f64;
            let to = if v6 { format!("[{pod}]:{target}") } else { format!("{pod}:{target}") };
            let _ = writeln!(
                rules,
                "-A KUBE-SVC-{name} -p tcp -m statistic --mode random --probability {share:.10} -j DNAT --to-destination {to}"
            );
        }
    }
    let filter = ":KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
                  -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n";
    format!("*nat\n{nat}{rules}COMMIT\n*filter\n{filter}COMMIT\n")
}

fn others<'a>(node: &'a Node, site: &'a Site) -> impl Iterator<Item = (usize, &'a Node)> {
    site.nodes.iter().zip(1..).filter(|(other, _)| other.name != node.name).map(|(other, k)| (k, other))
}

/// Pods of other nodes are reached through it from now on.
fn overlay(node: &Node, site: &Site) -> String {
    let own = site.nodes.iter().zip(1..).find(|(other, _)| other.name == node.name).map_or(0, |(_, k)| k);
    let mut lines = format!(
        "link add vx0 type vxlan id 7 dstport 4789 local {} dev eth0\n\
         address add 10.79.0.{own}/24 dev vx0\naddress add fd00:79::{own:x}/64 dev vx0 nodad\nlink set vx0 mtu 1450 up\n",
        node.address[0]
    );
    for (k, other) in others(node, site) {
        let [v4, v6] = &other.pod_cidr;
        let _ = writeln!(
            lines,
            "route replace {v4} via 10.79.0.{k} dev vx0\nroute replace {v6} via fd00:79::{k:x} dev vx0"
        );
    }
    lines
}

/// What the overlay does not know is sent to all.
fn flood(node: &Node, site: &Site) -> String {
    let line = |other: &Node| format!("fdb append 00:00:00:00:00:00 dev vx0 dst {}\n", other.address[0]);
    others(node, site).map(|(_, other)| line(other)).collect()
}

/// Pods reach pods of other nodes over it.
async fn overlay_works(lab: &mut Lab) -> Result<(), Stop> {
    let pods: Vec<(Node, Pod)> = lab.site.pods().map(|(node, pod)| (node.clone(), pod.clone())).collect();
    let Some(((_, from), (_, to))) =
        pods.first().and_then(|first| Some((first, pods.iter().find(|(node, _)| node.name != first.0.name)?)))
    else {
        return Ok(());
    };
    let client = Client::new(&from.namespace)?;
    for address in to.address {
        let name = format!("{} to {address} over the overlay", from.name);
        lab.expect(&name, "8 of 8 requests answered", ROUTE_WITHIN, async |_: &Lab| {
            let tally = client.batch((address, POD_PORT).into(), 8).await?;
            Ok(Observation { seen: format!("{} of 8 answered", tally.answered()), ok: tally.answered() == 8 })
        })
        .await?;
    }
    Ok(())
}
