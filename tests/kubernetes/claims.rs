//! The journal of claims as objects of a real API server, with the daemon's own rights.

use std::time::{Duration, SystemTime};

use ironcast::{
    source::claims::{ClaimObjects, announced},
    types::{Claim, ClaimId, ClaimProblem, ClaimSpec, ClaimState, Family, LeaseId, Reclaim, ServiceKey},
};

use crate::{
    crds::install,
    source::SPACE,
    support::{cluster::Cluster, until},
};

const LIMIT: Duration = Duration::from_secs(20);

fn wanted(id: u64) -> Claim {
    let spec = ClaimSpec {
        provider: "metal".into(),
        pool: "elastic".into(),
        service: Some(ServiceKey::new("web", "front")),
        family: Family::Ipv4,
        kind: Some("public_ipv4".into()),
        region: Some("am".into()),
        prefix_len: 32,
        reclaim: Reclaim::Delete,
    };
    Claim { id: ClaimId::new(id), spec, state: ClaimState::Wanted, problem: None, deleting: false }
}

/// In whole microseconds, as objects have it.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_micros(since.as_micros().try_into().expect("before 500000"))
}

/// A leader, who has only what the manifests give the daemon.
async fn leader(cluster: &Cluster) -> ClaimObjects {
    ClaimObjects::new(cluster.client_as("daemon").await, SPACE)
}

async fn put(leader: &ClaimObjects, claim: &Claim) -> Result<(), String> {
    leader.change(vec![(claim.id, Some(claim.clone()))]).await.map_err(|error| format!("{error}: {error:?}"))
}

async fn only(leader: &ClaimObjects, id: ClaimId) -> Option<Claim> {
    leader.load().await.expect("a list").into_iter().find(|claim| claim.id == id)
}

fn field(cluster: &Cluster, id: ClaimId, path: &str) -> Result<String, String> {
    let path = format!("jsonpath={{{path}}}");
    cluster.kubectl(&["get", "addressclaim", &id.to_string(), "-n", SPACE, "-o", &path])
}

#[tokio::test]
async fn every_state_is_an_object_that_a_successor_reads_the_same() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let (first, mut claim) = (leader(cluster).await, wanted(0xa1));
    put(&first, &claim).await.expect("written");
    assert_eq!(field(cluster, claim.id, ".metadata.finalizers").as_deref(), Ok(r#"["ironcast.dev/release"]"#));
    let (lease, network) = (LeaseId("l1".into()), "198.51.100.7/32".parse().expect("a network"));
    let told = ClaimProblem { reason: "ApprovalPending".into(), message: "ask the provider".into() };
    let states = [
        (ClaimState::Sent { at: now() }, None),
        (ClaimState::Pending { lease: lease.clone(), network: None }, Some(told)),
        (ClaimState::Bound { lease: lease.clone(), network }, None),
        (ClaimState::Releasing { lease: lease.clone(), network: Some(network), since: now() }, None),
        (ClaimState::Lost { lease, network: Some(network) }, None),
    ];
    for (state, problem) in states {
        claim = Claim { state, problem, ..claim };
        put(&first, &claim).await.expect("written");
        assert_eq!(only(&leader(cluster).await, claim.id).await.as_ref(), Some(&claim));
    }
    let ready = field(cluster, claim.id, r#".status.conditions[?(@.type=="Ready")].status"#);
    assert_eq!(ready.as_deref(), Ok("False"), "a lost address is not ready");
    assert_eq!(field(cluster, claim.id, ".status.since").as_deref(), Ok(""), "no field stays from an older state");
    first.change(vec![(claim.id, None)]).await.expect("removed");
    assert!(field(cluster, claim.id, ".kind").is_err_and(|error| error.contains("NotFound")));
}

#[tokio::test]
async fn a_leader_that_was_held_up_changes_nothing_of_its_successors() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let (old, claim) = (leader(cluster).await, wanted(0xa2));
    put(&old, &claim).await.expect("written");
    let new = leader(cluster).await;
    assert_eq!(only(&new, claim.id).await.as_ref(), Some(&claim));
    let sent = Claim { state: ClaimState::Sent { at: now() }, ..claim.clone() };
    put(&new, &sent).await.expect("the successor's");

    let stale = Claim { state: ClaimState::Sent { at: now() }, ..claim.clone() };
    let refused = put(&old, &stale).await.expect_err("it was decided on what is no longer so");
    assert!(refused.contains("409"), "{refused}");
    let refused = old.change(vec![(claim.id, None)]).await.map_err(|error| format!("{error:?}"));
    assert!(refused.as_ref().is_err_and(|error| error.contains("409")), "{refused:?}");
    let refused = put(&leader(cluster).await, &stale).await.expect_err("who did not read creates, and it is there");
    assert!(refused.contains("409"), "{refused}");
    assert_eq!(only(&new, claim.id).await.as_ref(), Some(&sent), "nothing of it arrived");

    assert_eq!(only(&old, claim.id).await.as_ref(), Some(&sent), "who reads again goes on from there");
    old.change(vec![(claim.id, None)]).await.expect("removed");
    new.change(vec![(claim.id, None)]).await.expect("removing what is gone is done");
}

#[tokio::test]
async fn a_claim_that_people_delete_stays_until_its_address_is_given_back() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let (leader, claim) = (leader(cluster).await, wanted(0xa3));
    put(&leader, &claim).await.expect("written");
    let name = claim.id.to_string();
    cluster.kubectl(&["delete", "addressclaim", &name, "-n", SPACE, "--wait=false"]).expect("asked for");
    until("the deletion is seen", LIMIT, || async { only(&leader, claim.id).await.filter(|claim| claim.deleting) })
        .await;
    let since = now();
    let (lease, network) = (LeaseId("l3".into()), None);
    let state = ClaimState::Releasing { lease, network, since };
    let releasing = Claim { state, deleting: true, ..claim.clone() };
    put(&leader, &releasing).await.expect("an object on its way out has a status still");
    assert_eq!(only(&leader, claim.id).await, Some(releasing));
    leader.change(vec![(claim.id, None)]).await.expect("removed");
    assert!(field(cluster, claim.id, ".kind").is_err_and(|error| error.contains("NotFound")));
}

#[tokio::test]
async fn claims_that_people_wrote_are_passed_over_and_what_nodes_announce_is_read() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let hand = format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: AddressClaim\nmetadata: {{name: mine, namespace: {SPACE}}}\n\
         spec: {{provider: metal, pool: elastic, family: IPv4, prefixLength: 32}}\n"
    );
    cluster.apply(&hand).expect("the schema takes it");
    let leader = leader(cluster).await;
    leader.load().await.expect("it is no obstacle");
    cluster.kubectl(&["delete", "addressclaim", "mine", "-n", SPACE]).expect("it has no finalizer");

    let node = format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: BGPNodeStatus\nmetadata: {{name: teller, namespace: {SPACE}}}\n\
         spec: {{nodeName: teller}}\n"
    );
    cluster.apply(&node).expect("accepted");
    let status = r#"{"status":{"node":"teller","leader":false,"version":"1","source":{"kind":"cluster","complete":true},
        "problems":[],"services":[],"sessions":[],"withheld":[],
        "routes":[{"prefix":"198.51.100.7/32","peer":"tor","services":[],"communities":[]}]}}"#;
    let patch = ["patch", "bgpnodestatus", "teller", "-n", SPACE, "--subresource=status", "--type=merge", "-p", status];
    cluster.kubectl(&patch).expect("patched");
    let said = announced(&cluster.client_as("daemon").await, SPACE).await.expect("a list");
    assert!(said.contains(&"198.51.100.7/32".parse().expect("a network")), "{said:?}");
    cluster.kubectl(&["delete", "bgpnodestatus", "teller", "-n", SPACE]).expect("deleted");
}
