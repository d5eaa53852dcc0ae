//! Unnumbered peers: found by router advertisements, over IPv6 link-local, IPv4 routes with IPv6 next hops.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{
    routers::{Bird, Frr, Router, skipped},
    site::{NODE_ASN, ROUTER_ASN, Site, until},
    support::program::Program,
};

fn peer(site: &Site, more: Value) {
    let mut spec = json!({"myASN": NODE_ASN, "dynamicASN": "external", "interface": "eth0", "connectTime": "1s"});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    site.write("tor", "BGPPeer", spec);
}

/// A site whose link has link-local addresses only.
fn bare() -> Site {
    let site = Site::new();
    for (place, device) in [("node", "eth0"), ("tor", "p1")] {
        site.ip(place, &format!("address flush dev {device} scope global"));
    }
    site
}

fn link_local(site: &Site, place: &str, device: &str) -> String {
    until("a link-local address without DAD", || {
        let text = site.ip(place, &format!("-6 address show dev {device} scope link -tentative"));
        let word = text.split_whitespace().find(|word| word.starts_with("fe80:"))?.to_owned();
        Some(word.split('/').next()?.to_owned())
    })
}

fn established(site: &Site, router: &impl Router, daemon: &Program) -> Value {
    let limit = std::time::Instant::now() + super::site::LIMIT;
    while std::time::Instant::now() < limit {
        if let Some(session) = site.session("tor").filter(|session| session["state"] == "Established") {
            return session;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{:?}\n{}\n{}", site.session("tor"), router.bgp(), daemon.tail());
}

/// The router's kernel sends the Service's packets to the node's link-local address.
fn routed(site: &Site, router: &impl Router, daemon: &Program) {
    let session = established(site, router, daemon);
    assert_eq!(session["address"], link_local(site, "tor", "p1"), "{session}");
    let expected = format!("via inet6 {}", link_local(site, "node", "eth0"));
    site.wait_route(true);
    assert_eq!(site.next_hop(), Some(expected), "{}", router.bgp());
}

fn frr(site: &Site, bfd: bool) -> Frr {
    let bfd = if bfd { " neighbor p1 bfd\n neighbor p1 bfd profile fast\n" } else { "" };
    let bgpd = format!(
        "frr defaults datacenter\nrouter bgp {ROUTER_ASN}\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n \
         bgp graceful-restart\n neighbor p1 interface remote-as external\n neighbor p1 capability extended-nexthop\n\
         {bfd} address-family ipv6 unicast\n  neighbor p1 activate\n exit-address-family\nexit\n"
    );
    Frr::start(site, 10, "interface p1\n no ipv6 nd suppress-ra\nexit\n", &bgpd)
}

#[test]
fn frr_and_the_node_find_each_other_by_interface_alone() {
    if skipped::<Frr>() {
        return;
    }
    let site = bare();
    peer(&site, json!({}));
    let daemon = site.daemon();
    // Without a router the node says what it waits for.
    until("the node waits", || {
        let session = site.session("tor")?;
        session["lastError"].as_str()?.contains("advertisement").then_some(())
    });
    let router = frr(&site, false);
    routed(&site, &router, &daemon);
}

#[test]
fn bfd_runs_over_the_link_local_addresses_of_frr() {
    if skipped::<Frr>() {
        return;
    }
    let site = bare();
    site.write("fast", "BFDProfile", json!({"receiveInterval": 10, "transmitInterval": 10}));
    peer(&site, json!({"bfdProfile": "fast"}));
    let router = frr(&site, true);
    let daemon = site.daemon();
    routed(&site, &router, &daemon);
    until("BFD is up", || site.session("tor").filter(|s| s["bfd"]["state"] == "up"));
    site.freeze(true);
    let gone = site.wait_route(false);
    eprintln!("unnumbered, path dead: route gone after {gone:?}");
    assert!(gone < Duration::from_secs(2), "long before the hold time: {gone:?}");
    site.freeze(false);
    site.wait_route(true);
}

#[test]
fn bird_that_advertises_itself_is_found_and_takes_ipv4_routes_over_ipv6() {
    if skipped::<Bird>() {
        return;
    }
    let site = bare();
    peer(&site, json!({}));
    let node = link_local(&site, "node", "eth0");
    let router = Bird::start(
        &site,
        &format!(
            "protocol radv {{ interface \"p1\" {{ min ra interval 3; max ra interval 4; default lifetime 0; }}; }}\n\
             protocol bgp node {{ local as {ROUTER_ASN}; neighbor {node}%p1 as {NODE_ASN}; direct; passive on;\n\
             ipv4 {{ import all; export none; extended next hop on; }}; ipv6 {{ import all; export none; }}; }}\n"
        ),
    );
    let daemon = site.daemon();
    routed(&site, &router, &daemon);
}

/// The router is exchanged for another: another link-local address, the old one is never heard again.
#[test]
fn router_that_was_replaced_is_found_under_its_new_address() {
    if skipped::<Frr>() {
        return;
    }
    let site = bare();
    peer(&site, json!({"holdTime": "3s"}));
    let router = frr(&site, false);
    let daemon = site.daemon();
    routed(&site, &router, &daemon);
    let before = link_local(&site, "tor", "p1");
    site.ip("tor", "link set dev p1 down");
    site.ip("tor", "link set dev p1 address 02:00:00:00:00:99");
    site.ip("tor", "link set dev p1 up");
    until("the new address is dialled", || {
        let session = site.session("tor")?;
        (session["state"] == "Established" && session["address"] != before.as_str()).then_some(())
    });
    routed(&site, &router, &daemon);
}
