//! Peers that nodes find for themselves.

use ironcast_bgp::{Asn, speaker::PeerAs};

use super::super::{Gateway, Settings, fixture::*, plan};
use crate::types::{AddressFrom, Family, Node, Peer};

fn template(from: AddressFrom) -> Peer {
    Peer { address: None, address_from: Some(from), ..peer("tor", "192.0.2.1") }
}

#[test]
fn each_node_peers_with_the_router_that_its_annotations_name() {
    let annotated =
        |name: &str, pairs: &[(&str, &str)]| Node { annotations: labels(pairs), ..node(name, "198.51.100.1") };
    let world = World::usual()
        .peer(template(AddressFrom::NodeAnnotation))
        .node(&annotated("n1", &[("tor.ironcast.dev/address", "10.1.0.1")]))
        .node(&annotated(
            "n2",
            &[
                ("tor.ironcast.dev/address", " fd00::1 "),
                ("tor.ironcast.dev/asn", "64999"),
                ("tor.ironcast.dev/my-asn", "65001"),
            ],
        ))
        .node(&annotated("n3", &[]))
        .node(&annotated("n4", &[("tor.ironcast.dev/address", "10.1.0.4"), ("tor.ironcast.dev/asn", "0")]));
    let on = |node: &str| plan(&world.0, &settings(node));
    assert_eq!(on("n1").peers["tor"].address, Some(ip("10.1.0.1")));
    assert_eq!(on("n1").peers["tor"].my_asn.value(), 64500, "what is not annotated is the object's");
    let second = on("n2").peers["tor"].clone();
    let asn = |n| Asn::new(n).expect("valid");
    assert_eq!(
        (second.address, second.peer_as, second.my_asn),
        (Some(ip("fd00::1")), PeerAs::Exactly(asn(64999)), asn(65001))
    );
    for (node, field) in [("n3", "tor.ironcast.dev/address"), ("n4", "tor.ironcast.dev/asn")] {
        let desired = on(node);
        assert!(desired.peers.is_empty() && desired.exports.is_empty());
        assert!(
            desired.problems.iter().any(|p| p.object.name == node && p.field.contains(field)),
            "{:?}",
            desired.problems
        );
    }
}

#[test]
fn default_gateway_is_the_router_and_one_on_the_link_alone_has_its_interface() {
    let gateway = |address: &str| Gateway { address: ip(address), interface: "eth0".into() };
    let with = |family, gateways: &[&str]| {
        let world = World::usual().peer(template(AddressFrom::DefaultGateway(family)));
        let gateways = gateways.iter().map(|address| gateway(address)).collect();
        plan(&world.0, &Settings { gateways, ..settings("n1") })
    };
    let both = ["198.51.100.254", "fe80::1"];
    let v4 = with(Family::Ipv4, &both).peers["tor"].clone();
    assert_eq!((v4.address, v4.interface), (Some(ip("198.51.100.254")), None));
    let v6 = with(Family::Ipv6, &both).peers["tor"].clone();
    assert_eq!((v6.address, v6.interface.as_deref()), (Some(ip("fe80::1")), Some("eth0")));
    let none = with(Family::Ipv6, &both[..1]);
    assert!(none.peers.is_empty() && none.problems[0].message.contains("default gateway"), "{:?}", none.problems);
}
