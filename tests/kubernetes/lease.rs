//! Who leads.

use std::time::{Duration, Instant};

use ironcast::source::lease::{Election, Timing, elect};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{cluster::Cluster, until};

const TIMING: Timing = Timing {
    lease: Duration::from_secs(3),
    give_up: Duration::from_secs(2),
    renew: Duration::from_millis(500),
    retry: Duration::from_millis(500),
};
const LIMIT: Duration = Duration::from_secs(20);

struct Candidate {
    leads: watch::Receiver<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Candidate {
    async fn start(cluster: &Cluster, lease: &str, identity: &str) -> Self {
        let election =
            Election { namespace: "default".into(), name: lease.into(), identity: identity.into(), timing: TIMING };
        let (leader, leads) = watch::channel(false);
        let stop = CancellationToken::new();
        let task = tokio::spawn(elect(cluster.client().await, election, leader, stop.clone()));
        Self { leads, stop, task }
    }

    fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    async fn until_leading(&self, what: &str) {
        until(what, LIMIT, || async { self.leads().then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_released_lease_is_taken_over_at_once() {
    let Some(cluster) = Cluster::shared().await else { return };
    let first = Candidate::start(cluster, "released", "first").await;
    first.until_leading("the first candidate leads").await;
    let second = Candidate::start(cluster, "released", "second").await;
    tokio::time::sleep(TIMING.lease + TIMING.renew).await;
    assert!(first.leads() && !second.leads(), "a lease that is renewed stays where it is");

    let start = Instant::now();
    first.stop.cancel();
    first.task.await.expect("ends in order");
    second.until_leading("the second candidate takes over").await;
    assert!(start.elapsed() < TIMING.give_up, "took {:?}", start.elapsed());
    let holder = cluster.kubectl(&[
        "get",
        "lease",
        "released",
        "-o",
        "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}",
    ]);
    assert_eq!(holder.expect("exists"), "second 1");
}

#[tokio::test]
async fn a_lease_whose_holder_died_is_taken_over_after_its_time() {
    let Some(cluster) = Cluster::shared().await else { return };
    let first = Candidate::start(cluster, "died", "first").await;
    first.until_leading("the first candidate leads").await;
    let second = Candidate::start(cluster, "died", "second").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    first.task.abort();
    let start = Instant::now();
    second.until_leading("the second candidate takes over").await;
    let took = start.elapsed();
    assert!(took > TIMING.lease - TIMING.renew * 2 && took < TIMING.lease + TIMING.retry * 4, "took {took:?}");
}

#[tokio::test]
async fn a_leader_without_api_server_steps_down_before_the_lease_ends_and_leads_again_after() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let only = Candidate::start(&cluster, "away", "only").await;
    only.until_leading("the candidate leads").await;
    cluster.stop_apiserver();
    let start = Instant::now();
    until("the leader steps down", LIMIT, || async { (!only.leads()).then_some(()) }).await;
    assert!(start.elapsed() < TIMING.give_up + TIMING.retry, "took {:?}", start.elapsed());
    cluster.start_apiserver().await;
    only.until_leading("it leads again").await;
}

#[tokio::test]
async fn a_leader_that_was_robbed_steps_down_and_an_edited_lease_stays_its_own() {
    let Some(cluster) = Cluster::shared().await else { return };
    let only = Candidate::start(cluster, "robbed", "only").await;
    only.until_leading("the candidate leads").await;
    cluster.kubectl(&["label", "lease", "robbed", "a=b"]).expect("labelled");
    tokio::time::sleep(TIMING.renew * 2).await;
    assert!(only.leads(), "a label is no reason to step down");
    cluster.kubectl(&["patch", "lease", "robbed", "-p", r#"{"spec":{"holderIdentity":"thief"}}"#]).expect("patched");
    until("the leader steps down", LIMIT, || async { (!only.leads()).then_some(()) }).await;
}
