//! The BGP identifier of a node that the operator gave none.

use std::net::{IpAddr, Ipv4Addr};

use ironcast_bgp::RouterId;

use crate::types::Node;

/// The node's first IPv4 address, which is unique and which people recognise; on a node without one (IPv6 only,
/// or no Node object) 32 bits of a hash of its name. The same on every start.
pub fn default_router_id(node: Option<&Node>, name: &str) -> RouterId {
    let of_node = node.into_iter().flat_map(|node| &node.addresses).find_map(|address| match address {
        IpAddr::V4(v4) if !v4.is_loopback() => RouterId::new(*v4).ok(),
        _ => None,
    });
    of_node.unwrap_or_else(|| {
        let hash = fnv1a(name).max(1);
        RouterId::new(Ipv4Addr::from_bits(hash)).expect("a hash of at least 1 is not 0.0.0.0")
    })
}

/// FNV-1a, 32 bits: fixed for ever, unlike the standard library's hasher.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_ipv4_address_names_the_node_and_a_hash_of_the_name_where_there_is_none() {
        let addresses = ["::1", "127.0.0.1", "192.0.2.7", "192.0.2.8"].map(|a| a.parse().expect("an address"));
        let node = Node { addresses: addresses.into(), ..Node::default() };
        assert_eq!(default_router_id(Some(&node), "n1").to_string(), "192.0.2.7");
        let hashed = default_router_id(Some(&Node::default()), "n1");
        assert_eq!(hashed, default_router_id(None, "n1"));
        assert_ne!(hashed, default_router_id(None, "n2"));
    }

    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(fnv1a(""), 0x811c_9dc5);
        assert_eq!(fnv1a("foobar"), 0xbf9c_f968);
    }
}
