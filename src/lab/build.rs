//! Makes the site in the kernel: namespaces, cables, addresses, routes.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

use anyhow::Context;
use tokio::process::Command;

use super::{
    netns::{Namespace, feed},
    site::{CLIENT, CLIENT_GATEWAY, Node, Pod, Site},
};

/// For everybody. Set before the first interface exists, so that it holds for all of them.
const SETTINGS: [(&str, &str); 8] = [
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/ip_local_port_range", "10000 65000"),
];
/// For the router and the nodes.
const FORWARDING: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
/// The router spreads flows by address and port, as top-of-rack routers do.
const SPREAD: [(&str, &str); 2] =
    [("net/ipv4/fib_multipath_hash_policy", "1"), ("net/ipv6/fib_multipath_hash_policy", "1")];
/// The same from the packet alone. Policy 1 takes the hash that the client's own kernel left with the packet,
/// which no seed changes.
pub(crate) const SPREAD_BY_FIELDS: [(&str, &str); 4] = [
    ("net/ipv4/fib_multipath_hash_fields", "0x37"),
    ("net/ipv6/fib_multipath_hash_fields", "0x37"),
    ("net/ipv4/fib_multipath_hash_policy", "3"),
    ("net/ipv6/fib_multipath_hash_policy", "3"),
];

/// Makes everything of the site; what is half made is removed with the lab's claim.
///
/// # Errors
/// The kernel refused a step; the text says which.
pub(crate) async fn build(site: &Site) -> anyhow::Result<()> {
    let namespaces: String = site.namespaces().map(|ns| format!("netns add {}\n", ns.name())).collect();
    batch(&namespaces).await.context("make the network namespaces")?;
    for namespace in site.namespaces() {
        namespace.set(&SETTINGS)?;
    }
    for namespace in site.nodes.iter().map(|n| &n.namespace).chain([&site.router]) {
        namespace.set(&FORWARDING)?;
    }
    site.router.set(&SPREAD)?;
    batch(&cables(site)).await.context("lay the cables")?;
    configure(&site.router, &router(site)).await?;
    configure(&site.client, &host(CLIENT, [24, 64], CLIENT_GATEWAY)).await?;
    for node in &site.nodes {
        configure(&node.namespace, &(uplink(node) + &to_pods(node))).await?;
        for pod in &node.pods {
            configure(&pod.namespace, &in_pod(node, pod)).await?;
        }
    }
    Ok(())
}

/// Pulls the node's cable: the router sees its port lose the carrier, the node loses its routes.
///
/// # Errors
/// The kernel refused.
pub(crate) async fn cut(node: &Node) -> anyhow::Result<()> {
    configure(&node.namespace, "link set eth0 down\n").await
}

/// Plugs the cable in again and configures the interface as at boot.
///
/// # Errors
/// The kernel refused.
pub(crate) async fn mend(node: &Node) -> anyhow::Result<()> {
    configure(&node.namespace, &uplink(node)).await
}

/// What goes to these networks ends at the router, and nobody is told.
///
/// # Errors
/// The kernel refused.
pub(crate) async fn swallow(router: &Namespace, networks: [&str; 2]) -> anyhow::Result<()> {
    let lines: String = networks.iter().map(|network| format!("route add blackhole {network}\n")).collect();
    configure(router, &lines).await
}

/// A direction at a port of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To whom the port leads.
    Out,
    /// From there.
    In,
}

/// Loses whatever goes this way at a port of the router.
///
/// # Errors
/// nft refused.
pub(crate) async fn lose(router: &Namespace, port: &str, way: Way) -> anyhow::Result<()> {
    let hook = match way {
        Way::Out => "egress",
        Way::In => "ingress",
    };
    let table = format!(
        "table netdev lab-loss {{ chain lost {{ type filter hook {hook} device \"{port}\" priority 0; policy drop; }}; }}\n"
    );
    router.feed("nft", &["-f", "-"], &table).await
}

/// Ends [`lose`].
///
/// # Errors
/// nft refused.
pub(crate) async fn lose_nothing(router: &Namespace) -> anyhow::Result<()> {
    router.feed("nft", &["-f", "-"], "delete table netdev lab-loss\n").await
}

/// Of what leaves a port of the router, one packet in eight is sent twice and one in four comes late, behind others.
///
/// The kernel's emulator of networks (netem) is a module that many have not: nftables makes the copies, and the late ones
/// wait in a class of their own for a rate that is too low.
///
/// # Errors
/// tc or nft refused.
pub(crate) async fn garble(router: &Namespace, port: &str) -> anyhow::Result<()> {
    let queues = format!(
        "qdisc add dev {port} root handle 1: htb default 10\n\
         class add dev {port} parent 1: classid 1:10 htb rate 10gbit quantum 60000\n\
         class add dev {port} parent 1: classid 1:20 htb rate 500kbit ceil 500kbit burst 100b cburst 100b\n"
    );
    router.feed("tc", &["-batch", "-"], &queues).await?;
    let table = format!(
        "table netdev lab-garble {{ chain out {{ type filter hook egress device \"{port}\" priority 0; \
         numgen random mod 8 == 0 dup to \"{port}\"; numgen random mod 4 == 0 meta priority set 0x10020; }}; }}\n"
    );
    router.feed("nft", &["-f", "-"], &table).await
}

/// Ends [`garble`].
///
/// # Errors
/// tc or nft refused.
pub(crate) async fn garble_nothing(router: &Namespace, port: &str) -> anyhow::Result<()> {
    router.feed("nft", &["-f", "-"], "delete table netdev lab-garble\n").await?;
    router.feed("tc", &["qdisc", "del", "dev", port, "root"], "").await
}

/// The kernel of a namespace resets every BGP connection that it has.
///
/// # Errors
/// ss refused.
pub(crate) async fn reset_sessions(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.feed("ss", &["-K", "( sport = :179 or dport = :179 )"], "").await
}

async fn batch(lines: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]).kill_on_drop(true), lines).await
}

async fn configure(namespace: &Namespace, lines: &str) -> anyhow::Result<()> {
    namespace.feed("ip", &["-batch", "-"], lines).await
}

fn cables(site: &Site) -> String {
    let mut lines = String::new();
    let mut cable = |end: &Namespace, port: &str, far: &Namespace| {
        let (end, far) = (end.name(), far.name());
        let _ = writeln!(lines, "link add eth0 netns {end} type veth peer name {port} netns {far}");
    };
    cable(&site.client, "client", &site.router);
    for node in &site.nodes {
        cable(&node.namespace, &node.name, &site.router);
        for pod in &node.pods {
            cable(&pod.namespace, &pod.name, &node.namespace);
        }
    }
    lines
}

fn router(site: &Site) -> String {
    let mut lines = "link set lo up\nlink set client up\n".to_owned();
    for (address, length) in CLIENT_GATEWAY.iter().zip([24, 64]) {
        let _ = writeln!(lines, "address replace {address}/{length} dev client");
    }
    for node in &site.nodes {
        let port = &node.name;
        let _ = writeln!(lines, "link set {port} up");
        for ((gateway, address), (length, pods)) in
            node.gateway.iter().zip(&node.address).zip([24, 64].iter().zip(&node.pod_cidr))
        {
            let _ = writeln!(lines, "address replace {gateway}/{length} dev {port}");
            let _ = writeln!(lines, "route replace {pods} via {address}");
        }
    }
    lines
}

fn uplink(node: &Node) -> String {
    host(node.address, [24, 64], node.gateway)
}

fn host(address: [IpAddr; 2], length: [u8; 2], gateway: [IpAddr; 2]) -> String {
    let mut lines = "link set lo up\nlink set eth0 up\n".to_owned();
    for ((address, length), (gateway, all)) in address.iter().zip(length).zip(gateway.iter().zip(["0.0.0.0/0", "::/0"]))
    {
        let _ = writeln!(lines, "address replace {address}/{length} dev eth0");
        let _ = writeln!(lines, "route replace {all} via {gateway}");
    }
    lines
}

/// A cable of its own for each pod, a host route to it, and the same gateway address on all of them.
fn to_pods(node: &Node) -> String {
    let mut lines = String::new();
    for pod in &node.pods {
        let port = &pod.name;
        let _ = writeln!(lines, "link set {port} up");
        for ((gateway, address), length) in node.pod_gateway.iter().zip(&pod.address).zip([32, 128]) {
            let _ = writeln!(lines, "address replace {gateway}/{length} dev {port}");
            let _ = writeln!(lines, "route replace {address}/{length} dev {port}");
        }
    }
    lines
}

fn in_pod(node: &Node, pod: &Pod) -> String {
    let mut lines = "link set lo up\nlink set eth0 up\n".to_owned();
    for ((address, gateway), (length, all)) in
        pod.address.iter().zip(&node.pod_gateway).zip([(32, "0.0.0.0/0"), (128, "::/0")])
    {
        let _ = writeln!(lines, "address replace {address}/{length} dev eth0");
        let _ = writeln!(lines, "route replace {gateway}/{length} dev eth0");
        let _ = writeln!(lines, "route replace {all} via {gateway}");
    }
    lines
}

/// The program that nodes, pods and the built-in router are: ourselves, even if the file was replaced since.
pub(crate) fn ourselves() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}
