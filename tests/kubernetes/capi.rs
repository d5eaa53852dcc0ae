//! Cluster API's contract for addresses on a real API server: its resources as CRDs, a manager of addresses as small as can
//! be, and our client with the rights of the manifests.

use std::time::Duration;

use ironcast::{
    provider::{AddressSource, Claimed, Lease, LeaseState, Marks, Order, Refusal, SourceError, capi},
    types::{ClaimId, ClaimTiming, Family, LeaseId, ManageRoutes, PeersFrom, ProviderConfig, ProviderKind},
};

use crate::{
    crds::install,
    source::SPACE,
    support::{
        cluster::Cluster,
        ipam::{crd, give},
        until,
    },
};

const LIMIT: Duration = Duration::from_secs(20);

fn config(pool: &str) -> ProviderConfig {
    ProviderConfig {
        name: "ipam".into(),
        kind: ProviderKind::Capi,
        endpoint: None,
        metadata: None,
        project: Some(pool.into()),
        credentials: None,
        missing_secret: None,
        peers: PeersFrom::Objects,
        asn: None,
        manage_routes: ManageRoutes::Auto,
        timing: ClaimTiming::default(),
    }
}

fn order(id: u64, family: Family) -> Order {
    let service = Some("web/front".to_owned());
    let marks = Marks { cluster: "6c5f".into(), claim: ClaimId::new(id), pool: "edge".into(), service };
    let prefix_len = if family == Family::Ipv4 { 32 } else { 128 };
    Order { family, kind: None, region: None, prefix_len, marks }
}

async fn source(cluster: &Cluster) -> std::sync::Arc<dyn AddressSource> {
    let pool = "InClusterIPPool.ipam.cluster.x-k8s.io/edge";
    let provider = capi::leader(cluster.client_as("daemon").await, SPACE, &config(pool)).expect("a pool");
    provider.addresses.expect("addresses")
}

#[tokio::test]
async fn an_address_claim_is_made_once_answered_and_given_back() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    assert!(capi::leader(cluster.client().await, SPACE, &config("edge")).is_err(), "no reference");
    let source_before = source(&cluster).await;
    let refused = source_before.list().await.expect_err("nothing is served yet");
    assert!(matches!(refused, SourceError::Refused { refusal: Refusal::Unsupported, .. }), "{refused:?}");
    let crds = [crd("IPAddressClaim", "ipaddressclaims"), crd("IPAddress", "ipaddresses")].join("---\n");
    cluster.apply_server_side(&crds).expect("the CRDs");
    let source = source(&cluster).await;
    until("they are served", LIMIT, || async { source.list().await.ok() }).await;

    let order = order(1, Family::Ipv4);
    let Ok(Claimed::Lease(Lease { id, state: LeaseState::Pending(_), network: None, .. })) = source.claim(&order).await
    else {
        panic!("nobody has answered it")
    };
    assert_eq!(id, LeaseId(order.marks.claim.to_string()));
    assert_eq!(source.claim(&order).await, Ok(Claimed::Accepted), "asking twice makes one");
    give(&cluster, &id.0, "192.0.2.77");
    let listed = source.list().await.expect("a list");
    let [lease] = &listed[..] else { panic!("one: {listed:?}") };
    assert_eq!((lease.network, &lease.state), ("192.0.2.77/32".parse().ok(), &LeaseState::Ready));
    assert_eq!(Marks::read(&lease.tags), Ok(Some(order.marks.clone())));
    assert_eq!(source.poll(&id).await.as_ref(), Ok(lease));

    let other = Marks { cluster: "other".into(), ..order.marks.clone() };
    source.mark(&id, Some(&other)).await.expect("marked");
    assert!(matches!(source.release(&id, &order.marks).await, Err(SourceError::Foreign { .. })));
    source.mark(&id, None).await.expect("taken off");
    assert_eq!(Marks::read(&source.poll(&id).await.expect("there").tags), Ok(None));
    source.mark(&id, Some(&order.marks)).await.expect("marked");
    for _ in 0..2 {
        source.release(&id, &order.marks).await.expect("released, and a second time");
    }
    assert_eq!(source.poll(&id).await, Err(SourceError::Gone));
    assert!(source.list().await.expect("a list").is_empty());
}
