use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    plan::{Allocated, Desired, PendingReason, Planned},
    types::{Family, Service, ServiceKey, Snapshot},
};

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("n", name)
}

fn service(name: &str, assigned: &[&str]) -> (ServiceKey, Arc<Service>) {
    let service = Service {
        key: key(name),
        uid: name.into(),
        labels: BTreeMap::new(),
        load_balancer: true,
        deleting: false,
        class: Some("c".into()),
        families: vec![Family::Ipv4],
        family_policy: Default::default(),
        traffic_policy: Default::default(),
        ports: Vec::new(),
        selector: BTreeMap::new(),
        affinity: None,
        source_ranges: false,
        requested_addresses: Vec::new(),
        requested_pool: None,
        sharing_key: None,
        assigned: assigned.iter().map(|ip| ip.parse().expect("valid")).collect(),
        created: 0,
    };
    (key(name), Arc::new(service))
}

fn given(name: &str, address: &str) -> (ServiceKey, Allocated) {
    (key(name), Allocated::Addresses { addresses: vec![address.parse().expect("valid")], pool: "p".into() })
}

fn planned(services: Vec<(ServiceKey, Arc<Service>)>, allocations: Vec<(ServiceKey, Allocated)>) -> Planned {
    let snapshot = Snapshot { services: services.into_iter().collect(), ..Snapshot::default() };
    let desired = Desired { allocations: Arc::new(allocations.into_iter().collect()), ..Desired::default() };
    Planned { snapshot: Arc::new(snapshot), desired: Arc::new(desired) }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("valid")
}

fn recorded(name: &str, address: &str) -> Record {
    let plan = planned(vec![service(name, &[])], vec![given(name, address)]);
    Record::default().update(&plan, now()).expect("it knows the empty record")
}

#[test]
fn a_record_reads_back_what_was_stored() {
    let dir = TempDir::new().expect("folder");
    assert_eq!(load(dir.path()).expect("readable"), None);
    let pending = Allocated::Pending { reason: PendingReason::NoPool, message: "no pool".into() };
    let plan = planned(vec![service("a", &[]), service("b", &[])], vec![given("a", "192.0.2.1"), (key("b"), pending)]);
    let record = Record::default().update(&plan, now()).expect("known");
    store(dir.path(), &record).expect("stored");
    let read = load(dir.path()).expect("readable").expect("there");
    assert_eq!(read, record);
    assert_eq!(read.services()[&key("b")].pending.as_ref().map(|p| &p.reason[..]), Some("NoPool"));
    assert_eq!(read.services()[&key("a")].class.as_deref(), Some("c"));
    assert_eq!(read.addresses().len(), 1, "b has none");
}

#[test]
fn a_torn_or_foreign_file_is_an_error_that_names_it() {
    let dir = TempDir::new().expect("folder");
    let path = folder(dir.path()).join(FILE);
    store(dir.path(), &recorded("a", "192.0.2.1")).expect("stored");
    let whole = fs::read(&path).expect("there");
    for end in 0..whole.len() - 1 {
        // Without its last bracket it is torn anywhere.
        fs::write(&path, &whole[..end]).expect("written");
        let error = load(dir.path()).expect_err("torn");
        assert!(matches!(error, StateError::Corrupt { .. }), "{end}: {error}");
        assert!(error.to_string().contains("state.json is damaged; put state.json.bak"), "{error}");
    }
    fs::write(&path, "{\"version\": 2, \"new\": true}").expect("written");
    let error = load(dir.path()).expect_err("of the future").to_string();
    assert!(error.ends_with("state.json is of version 2, this program reads 1; run the newer release"), "{error}");
    fs::write(&path, "{\"version\": 1, \"services\": {\"web\": {}}}").expect("written");
    assert!(load(dir.path()).is_err(), "no namespace");
}

#[test]
fn the_version_before_stays_beside_the_record() {
    let dir = TempDir::new().expect("folder");
    let (first, second) = (recorded("a", "192.0.2.1"), recorded("a", "192.0.2.2"));
    store(dir.path(), &first).expect("stored");
    store(dir.path(), &second).expect("stored");
    let backup = fs::read(folder(dir.path()).join("state.json.bak")).expect("there");
    assert_eq!(backup, first.encode());
    assert!(!folder(dir.path()).join("state.json.tmp").exists());
}

#[test]
fn a_failed_write_leaves_the_old_record() {
    let dir = TempDir::new().expect("folder");
    let record = recorded("a", "192.0.2.1");
    store(dir.path(), &record).expect("stored");
    // A folder stands where the new version would be written.
    fs::create_dir(folder(dir.path()).join("state.json.tmp")).expect("made");
    let error = store(dir.path(), &recorded("a", "192.0.2.2")).expect_err("in the way");
    assert!(error.to_string().contains("state.json.tmp"), "{error}");
    assert_eq!(load(dir.path()).expect("readable"), Some(record));
}

#[test]
fn a_plan_that_has_not_seen_the_record_is_not_recorded() {
    let record = recorded("a", "192.0.2.1");
    let stale = planned(vec![service("a", &[]), service("b", &[])], vec![given("b", "192.0.2.1")]);
    assert_eq!(record.update(&stale, now()), None);
    let seen = planned(vec![service("a", &["192.0.2.1"])], vec![given("a", "192.0.2.1")]);
    assert_eq!(record.update(&seen, Timestamp::now()), Some(record.clone()), "nothing changed, not even the time");
}

#[test]
fn addresses_of_services_that_are_gone_or_released_go_back() {
    let record = recorded("a", "192.0.2.1");
    let gone = planned(vec![service("b", &[])], vec![given("b", "192.0.2.1")]);
    let after = record.update(&gone, now()).expect("known");
    assert_eq!(after.addresses().into_keys().collect::<Vec<_>>(), [key("b")]);
    let released = planned(vec![service("a", &["192.0.2.1"])], vec![(key("a"), Allocated::Released)]);
    assert_eq!(record.update(&released, now()), Some(Record::default()));
}

struct Daemon {
    planned: watch::Sender<Option<Planned>>,
    leader: watch::Receiver<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), LeadError>>,
}

fn daemon(dir: &TempDir) -> Daemon {
    let (planned, for_lead) = watch::channel(None);
    let (for_leader, leader) = watch::channel(false);
    let stop = CancellationToken::new();
    let task = tokio::spawn(lead(dir.path().into(), "n1".into(), for_lead, for_leader, stop.clone()));
    Daemon { planned, leader, stop, task }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("in time")
}

async fn recorded_in(dir: &TempDir, record: &BTreeMap<ServiceKey, Vec<std::net::IpAddr>>) {
    within(async {
        while load(dir.path()).expect("readable").map(|r| r.addresses()).as_ref() != Some(record) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_daemon_records_and_another_takes_over() {
    let dir = TempDir::new().expect("folder");
    let mut first = daemon(&dir);
    within(first.leader.wait_for(|leads| *leads)).await.expect("leads");
    let mut second = daemon(&dir);
    first.planned.send_replace(Some(planned(vec![service("a", &[])], vec![given("a", "192.0.2.1")])));
    let one = recorded("a", "192.0.2.1").addresses();
    recorded_in(&dir, &one).await;
    assert!(!*second.leader.borrow(), "there is one lock");
    first.stop.cancel();
    within(first.task).await.expect("no panic").expect("told to end");
    assert!(!*first.leader.borrow());
    within(second.leader.wait_for(|leads| *leads)).await.expect("leads");
    // It knows what the first recorded: a plan without it is stale.
    second.planned.send_replace(Some(planned(vec![service("a", &[])], vec![given("a", "192.0.2.9")])));
    tokio::time::sleep(Duration::from_millis(100)).await;
    recorded_in(&dir, &one).await;
    let plan = vec![service("a", &["192.0.2.1"]), service("b", &[])];
    second.planned.send_replace(Some(planned(plan, vec![given("a", "192.0.2.1"), given("b", "192.0.2.2")])));
    within(async {
        while load(dir.path()).expect("readable").expect("there").addresses().len() != 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    second.stop.cancel();
    within(second.task).await.expect("no panic").expect("told to end");
}

#[tokio::test]
async fn a_removed_record_is_written_again_and_a_removed_lock_is_taken_anew() {
    let dir = TempDir::new().expect("folder");
    let mut only = daemon(&dir);
    within(only.leader.wait_for(|leads| *leads)).await.expect("leads");
    only.planned.send_replace(Some(planned(vec![service("a", &[])], vec![given("a", "192.0.2.1")])));
    let one = recorded("a", "192.0.2.1").addresses();
    recorded_in(&dir, &one).await;
    only.planned.send_replace(Some(planned(vec![service("a", &["192.0.2.1"])], vec![given("a", "192.0.2.1")])));
    fs::remove_file(folder(dir.path()).join(FILE)).expect("removed");
    recorded_in(&dir, &one).await;
    fs::remove_dir_all(folder(dir.path())).expect("removed");
    within(only.leader.wait_for(|leads| !*leads)).await.expect("lost");
    within(only.leader.wait_for(|leads| *leads)).await.expect("taken anew");
    recorded_in(&dir, &one).await;
    only.stop.cancel();
    within(only.task).await.expect("no panic").expect("told to end");
}
