//! The plan of the site: who is there and which addresses each has. All of them live in the lab's own
//! namespaces, so labs side by side use the same ones.
//!
//! ```text
//!  client 10.76.0.2 ── tor ──┬── n1 10.77.1.2 ── web-1 10.78.1.11, web-4 10.78.1.12 …
//!                            ├── n2 10.77.2.2 ── web-2 10.78.2.11 …
//!                            └── n3 …            the same in fd00:76::, fd00:77:K::, fd00:78:K::
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{claim::Claim, netns::Namespace};

/// The AS of the top-of-rack router.
pub(crate) const ROUTER_ASN: u32 = 64_500;
/// The AS of every node.
pub(crate) const NODE_ASN: u32 = 64_601;
/// The nodes' uplinks are all in here.
pub(crate) const UPLINKS: [&str; 2] = ["10.77.0.0/16", "fd00:77::/32"];
/// The port that pods serve.
pub(crate) const POD_PORT: u16 = 8080;
/// The ports on which pods say their name and then everything that they hear. Two, for two Services: a client may
/// use one port of its own towards two Services, and a pod cannot tell such connections apart on one port.
pub(crate) const ECHO_PORTS: [u16; 2] = [8081, 8082];
/// The client.
pub(crate) const CLIENT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 76, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x76, 0, 0, 0, 0, 0, 2))];
/// The client's router.
pub(crate) const CLIENT_GATEWAY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 76, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x76, 0, 0, 0, 0, 0, 1))];

/// Everybody in the lab.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) client: Namespace,
    pub(crate) router: Namespace,
    pub(crate) nodes: Vec<Node>,
}

/// A node; pairs are IPv4 and IPv6.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// `n1` …
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    /// The end of the uplink at the node.
    pub(crate) address: [IpAddr; 2],
    /// The end of the uplink at the router.
    pub(crate) gateway: [IpAddr; 2],
    /// The pods' addresses.
    pub(crate) pod_cidr: [String; 2],
    /// The node as its pods see it.
    pub(crate) pod_gateway: [IpAddr; 2],
    pub(crate) pods: Vec<Pod>,
}

/// A pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    /// `web-1` …
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) address: [IpAddr; 2],
}

impl Site {
    /// `pods` are dealt out to the nodes one by one.
    pub(crate) fn plan(claim: &Claim, nodes: u8, pods: u16) -> Self {
        let node = |k: u8| {
            let mine = (0..pods).filter(|i| i % u16::from(nodes) == u16::from(k - 1));
            Node {
                name: format!("n{k}"),
                namespace: claim.namespace(&format!("n{k}")),
                address: pair(77, k, 2),
                gateway: pair(77, k, 1),
                pod_cidr: [format!("10.78.{k}.0/24"), format!("fd00:78:{k:x}::/64")],
                pod_gateway: pair(78, k, 1),
                pods: mine.zip(11..).map(|(i, host)| pod(claim, k, i + 1, host)).collect(),
            }
        };
        Self {
            client: claim.namespace("client"),
            router: claim.namespace("tor"),
            nodes: (1..=nodes).map(node).collect(),
        }
    }

    /// Every namespace.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let nodes =
            self.nodes.iter().flat_map(|n| std::iter::once(&n.namespace).chain(n.pods.iter().map(|p| &p.namespace)));
        [&self.client, &self.router].into_iter().chain(nodes)
    }

    /// The node with this address, towards the router or towards its pods.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|n| n.address.contains(&address) || n.pod_gateway.contains(&address))
    }

    /// Every pod with its node.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&Node, &Pod)> {
        self.nodes.iter().flat_map(|n| n.pods.iter().map(move |p| (n, p)))
    }

    /// The node that a pod runs on, by the pod's name.
    pub(crate) fn node_of(&self, pod: &str) -> Option<&Node> {
        self.pods().find(|(_, p)| p.name == pod).map(|(n, _)| n)
    }
}

fn pod(claim: &Claim, node: u8, number: u16, host: u8) -> Pod {
    Pod {
        name: format!("web-{number}"),
        namespace: claim.namespace(&format!("web-{number}")),
        address: pair(78, node, host),
    }
}

/// `10.NET.K.HOST` and `fd00:NET:K::HOST`, where the digits of NET are the same in both.
fn pair(net: u8, k: u8, host: u8) -> [IpAddr; 2] {
    let hex = u16::from(net / 10) * 16 + u16::from(net % 10);
    [Ipv4Addr::new(10, net, k, host).into(), Ipv6Addr::new(0xfd00, hex, k.into(), 0, 0, 0, 0, host.into()).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_an_address_show_the_same_numbers() {
        let [v4, v6] = pair(77, 3, 2);
        assert_eq!(v4.to_string(), "10.77.3.2");
        assert_eq!(v6.to_string(), "fd00:77:3::2");
    }
}
