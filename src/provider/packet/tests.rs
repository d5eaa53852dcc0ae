//! Recorded answers of the real API, read with the holes that they have.

use std::{fs, net::IpAddr, path::Path};

use serde_json::{Value, json};

use super::{addresses::lease, peers::node_peers};
use crate::provider::{LeaseState, account::items};

/// A recorded answer; `None`, with one line, where the recordings are not beside the checkout.
fn recorded(name: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/providers/recorded/packet").join(name);
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("JSON"))
}

#[test]
fn recorded_reservations_are_leases_with_their_nulls_and_gaps() {
    let Some(list) = recorded("project_ips.json") else { return };
    let leases: Vec<_> = items(&list, "ip_addresses").iter().map(|entry| lease(entry).expect("a lease")).collect();
    let networks: Vec<_> = leases.iter().map(|lease| lease.network.expect("a network").to_string()).collect();
    let expected =
        ["147.75.33.32/28", "147.75.194.212/30", "147.75.205.224/28", "2604:1380:2000:c100::/56", "10.80.144.128/25"];
    assert_eq!(networks, expected);
    assert!(leases.iter().all(|lease| lease.state == LeaseState::Ready && lease.tags.is_empty()));
    assert!(leases.iter().all(|lease| lease.created.is_some() && lease.kind.is_none()));
    assert_eq!(leases[0].region.as_deref(), Some("ams1"));
    assert_eq!((&leases[0].assigned, leases[3].assigned.is_some()), (&None, true));
}

#[test]
fn recorded_single_answers_are_leases() {
    for (name, network) in [("ip_address.json", "147.75.33.32/28"), ("reserve_ip.json", "147.75.40.2/32")] {
        let Some(entry) = recorded(name) else { return };
        let lease = lease(&entry).expect("a lease");
        assert_eq!(lease.network.expect("a network").to_string(), network);
        assert_eq!(Some(lease.id.0.as_str()), entry["id"].as_str());
    }
}

#[test]
fn an_entry_without_an_id_is_an_error_and_one_with_an_href_is_not() {
    assert!(lease(&json!({ "address": "192.0.2.1", "cidr": 32 })).is_err());
    let known = lease(&json!({ "href": "/ips/abc", "state": "surprising", "cidr": null })).expect("a lease");
    assert_eq!((known.id.0.as_str(), known.state), ("abc", LeaseState::Pending("surprising".into())));
}

/// The block of a device's metadata, with the private /31 that the recorded device has.
fn neighbour(multihop: bool, peers: &Value) -> Value {
    json!({
        "address_family": 4, "customer_as": 65000, "customer_ip": "10.80.144.131", "md5_enabled": false,
        "md5_password": null, "multihop": multihop, "peer_as": 65530, "peer_ips": peers, "routes_in": [], "routes_out": [],
    })
}

#[test]
fn both_generations_of_peering_come_from_the_same_block() {
    let Some(list) = recorded("devices_for_project.json") else { return };
    let own = items(&list["devices"][0], "ip_addresses");
    let old = node_peers(&[neighbour(true, &json!(["169.254.255.1", "169.254.255.2"]))], own, 10);
    let gateway: IpAddr = "10.80.144.130".parse().expect("an address");
    let routes: Vec<_> = old.routes.iter().map(|route| (route.destination.to_string(), route.gateway)).collect();
    assert_eq!(routes, [("169.254.255.1/32".into(), gateway), ("169.254.255.2/32".into(), gateway)]);
    assert!(old.peers.iter().all(|peer| peer.multihop.is_some_and(|ttl| ttl > 1)));
    assert_eq!(old.peers[0].source, "10.80.144.131".parse().ok());

    let new = node_peers(&[neighbour(false, &json!(["10.80.144.130"]))], own, 10);
    assert_eq!((new.peers.len(), new.peers[0].multihop, new.routes.len()), (1, None, 0));
}

#[test]
fn neighbours_with_gaps_are_left_out_and_passwords_come_only_where_they_are_on() {
    let mut odd = neighbour(true, &json!(["169.254.255.1", null, "no address"]));
    odd["md5_enabled"] = json!(true);
    odd["md5_password"] = json!("Secret1234");
    let found = node_peers(&[odd, json!({ "peer_ips": ["192.0.2.1"], "peer_as": null })], &[], 3);
    assert_eq!(found.peers.len(), 1);
    assert_eq!(
        (found.peers[0].password.is_some(), found.peers[0].prefix_budget, found.routes.len()),
        (true, Some(3), 0)
    );
    assert!(node_peers(&[neighbour(true, &json!(["169.254.255.1"]))], &[], 3).peers[0].password.is_none());
}
