//! The Packet client against the emulator, every request and answer checked by Prism with the vendor's specification.

use std::{collections::BTreeSet, net::IpAddr};

use ironcast::{
    provider::{
        Account, AddressSource, BgpMode, Claimed, DeviceState, Enabled, Lease, LeaseState, Marks, NodeId, Order,
        PeerSource, ProjectBgp, Refusal, Secret, SourceError, packet,
    },
    types::Family,
};
use ironcast_emulator::packet::Packet;
use serde_json::json;

use crate::{
    clients::{PROJECT, TOKEN, metal},
    judge::{Prism, figure, reached, specification},
};

/// An account at this URL.
pub(crate) fn account(url: &str) -> Account {
    Account {
        endpoint: Some(url.into()),
        project: Some(PROJECT.into()),
        token: Some(Secret::new(TOKEN)),
        ..Account::default()
    }
}

pub(crate) fn marks(claim: u64) -> Marks {
    Marks {
        cluster: "6c5f5e4d-0000-4000-8000-000000000001".into(),
        claim: format!("ic-{claim:016x}").parse().unwrap(),
        pool: "metal".into(),
        service: Some("web/front".into()),
    }
}

pub(crate) fn order(claim: u64) -> Order {
    Order { family: Family::Ipv4, kind: None, region: Some("da".into()), prefix_len: 32, marks: marks(claim) }
}

pub(crate) fn lease(claimed: Claimed) -> Lease {
    match claimed {
        Claimed::Lease(lease) => lease,
        Claimed::Accepted => panic!("no lease"),
    }
}

/// Claim, find by marks, refuse what must be refused, release.
async fn addresses(source: &dyn AddressSource) {
    let first = lease(source.claim(&order(1)).await.unwrap());
    assert_eq!((&first.state, first.network.unwrap().prefix_len()), (&LeaseState::Ready, 32));
    let listed = source.list().await.unwrap();
    assert_eq!((listed.len(), Marks::read(&listed[0].tags)), (1, Ok(Some(marks(1)))));
    assert_eq!(source.poll(&first.id).await.unwrap(), listed[0]);

    source.mark(&first.id, Some(&marks(2))).await.unwrap();
    assert!(matches!(source.release(&first.id, &marks(1)).await, Err(SourceError::Foreign { .. })));
    source.release(&first.id, &marks(2)).await.unwrap();
    source.release(&first.id, &marks(2)).await.unwrap();
    assert_eq!(source.poll(&first.id).await, Err(SourceError::Gone));

    for (family, kind, region, length) in [
        (Family::Ipv6, None, Some("da"), 128),
        (Family::Ipv4, Some("global_ipv4"), None, 32),
        (Family::Ipv4, None, Some("am"), 28),
    ] {
        let order = Order {
            family,
            kind: kind.map(Into::into),
            region: region.map(Into::into),
            prefix_len: length,
            ..order(3)
        };
        let lease = lease(source.claim(&order).await.unwrap());
        assert!(lease.state == LeaseState::Ready && lease.network.is_some(), "{lease:?}");
        source.release(&lease.id, &marks(3)).await.unwrap();
    }
    let nowhere = Order { region: Some("zz".into()), ..order(4) };
    let refused = source.claim(&nowhere).await;
    assert!(matches!(refused, Err(SourceError::Refused { refusal: Refusal::UnknownRegion, .. })), "{refused:?}");
    assert!(source.list().await.unwrap().is_empty());
}

/// Project, node, neighbours with routes.
async fn peers(source: &dyn PeerSource, node: &NodeId) {
    let local = ProjectBgp { mode: BgpMode::Local, asn: None, password: None };
    assert_eq!(source.enable_project(&local).await.unwrap(), Enabled::Yes);
    assert_eq!(source.enable_project(&local).await.unwrap(), Enabled::Yes);
    for _ in 0..2 {
        assert_eq!(source.enable_node(node).await.unwrap(), Enabled::Yes);
    }
    let device = source.device(node).await.unwrap();
    assert_eq!((device.state, device.addresses.len()), (DeviceState::Active, 2));
    let found = source.peers(node).await.unwrap();
    let gateway: IpAddr = "10.66.0.0".parse().unwrap();
    let routers: Vec<_> = found.peers.iter().map(|peer| peer.address.to_string()).collect();
    assert_eq!(routers, ["169.254.255.1", "169.254.255.2", "fc00::e", "fc00::f"]);
    assert!(found.peers.iter().all(|peer| peer.prefix_budget == Some(10) && peer.multihop.is_some_and(|ttl| ttl > 1)));
    assert_eq!(found.peers[0].source, Some("10.66.0.1".parse().unwrap()));
    assert_eq!((found.routes.len(), found.routes[0].gateway), (4, gateway));
    let gone = NodeId { name: "x".into(), device: "00000000-0000-4000-8000-000000000000".into() };
    assert_eq!(source.device(&gone).await.unwrap().state, DeviceState::Gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_valid_by_the_vendors_specification() {
    let Some(specification) = specification("packet.openapi.yaml") else { return };
    let (server, device) = metal(|_| {}).await;
    let Some(prism) = Prism::start(&specification, &server.url()).await else { return };
    let provider = packet::leader(&account(&prism.url())).unwrap();
    addresses(&*provider.addresses.unwrap()).await;
    peers(&*provider.peers.unwrap(), &NodeId { name: "node-1".into(), device }).await;
    assert_eq!(prism.accepted(), reached(&server));
    figure("packet, packet.openapi.yaml", prism.accepted());
}

#[tokio::test]
async fn a_node_learns_both_generations_from_its_metadata() {
    let (server, device) = metal(|_| {}).await;
    let leader = packet::leader(&account(&server.url())).unwrap().peers.unwrap();
    let node = NodeId { name: "node-1".into(), device: device.clone() };
    leader.enable_project(&ProjectBgp { mode: BgpMode::Local, asn: None, password: None }).await.unwrap();
    leader.enable_node(&node).await.unwrap();
    let metadata = Some(format!("{}/nodes/{device}/metadata", server.url()));
    let own = packet::node(&Account { metadata, ..Account::default() }).unwrap();
    let multihop = own.peers(&node).await.unwrap();
    assert_eq!(multihop, leader.peers(&node).await.unwrap());
    assert_eq!((multihop.peers.len(), multihop.routes.len()), (4, 4));

    let command = json!({ "peering": [device, "single_hop"] });
    server.emulator().steer(std::time::Duration::ZERO, &command).unwrap();
    let single = own.peers(&node).await.unwrap();
    let routers: Vec<_> = single.peers.iter().map(|peer| (peer.address.to_string(), peer.multihop)).collect();
    assert_eq!(routers, [("10.66.0.0".into(), None), ("2001:db8:ffff::2".into(), None)]);
    assert!(single.routes.is_empty());
}

#[tokio::test]
async fn a_thousand_addresses_over_five_pages_are_found_again() {
    // Pages of 200 although 1000 are asked for: what the server says counts.
    let (server, _) = metal(|packet: &mut Packet| packet.page_limit = 200).await;
    let source = packet::leader(&account(&server.url())).unwrap().addresses.unwrap();
    for claim in 0..1000 {
        source.claim(&order(claim)).await.unwrap();
    }
    // Another process, with nothing but the account.
    let again = packet::leader(&account(&server.url())).unwrap().addresses.unwrap();
    let before = server.emulator().log().len();
    let found = again.list().await.unwrap();
    assert_eq!(server.emulator().log().len() - before, 5);
    let claims: BTreeSet<_> = found.iter().map(|lease| Marks::read(&lease.tags).unwrap().unwrap().claim).collect();
    let networks: BTreeSet<_> = found.iter().map(|lease| lease.network.unwrap()).collect();
    assert_eq!((claims.len(), networks.len()), (1000, 1000));
}

#[tokio::test]
async fn answers_with_the_holes_of_recorded_ones_are_read() {
    let (server, device) = metal(|packet| packet.loose = true).await;
    let provider = packet::leader(&account(&server.url())).unwrap();
    addresses(&*provider.addresses.unwrap()).await;
    peers(&*provider.peers.unwrap(), &NodeId { name: "node-1".into(), device }).await;
}
