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

/// What the first release wrote: what it says must be understood by every later one.
const FIRST: [(&str, &str); 3] = [
    (
        "state.json",
        r#"{"version": 1, "services": {
            "default/web": {"addresses": ["192.0.2.1", "2001:db8::1"], "pool": "p", "class": "c",
                "since": "2026-01-01T00:00:00Z"},
            "default/dns": {"pending": {"reason": "NoPool", "message": "no pool"}}}}"#,
    ),
    (
        "claims.json",
        r#"{"version": 1, "claims": [{"apiVersion": "ironcast.dev/v1alpha1", "kind": "AddressClaim",
            "metadata": {"name": "ic-0123456789abcdef"},
            "spec": {"provider": "metal", "pool": "metal", "family": "IPv4", "prefixLength": 32, "reclaimPolicy": "Delete",
                "service": "default/web"},
            "status": {"phase": "Bound", "leaseID": "l1", "network": "203.0.113.7/32", "conditions": []}}]}"#,
    ),
    ("cluster-id", "folder-0123456789abcdef0123456789abcdef\n"),
];

fn of_first_release() -> TempDir {
    let dir = TempDir::new().expect("folder");
    fs::create_dir(folder(dir.path())).expect("made");
    FIRST.iter().for_each(|(name, text)| fs::write(folder(dir.path()).join(name), text).expect("written"));
    dir
}

#[test]
fn files_of_the_first_release_are_read() {
    let dir = of_first_release();
    let record = load(dir.path()).expect("readable").expect("there");
    assert_eq!(record.addresses()[&ServiceKey::new("default", "web")].len(), 2);
    assert_eq!(record.services().len(), 2);
    let claims = load_claims(dir.path()).expect("readable");
    assert!(claims.values().all(|claim| claim.state.lease().is_some()) && claims.len() == 1, "{claims:?}");
    assert_eq!(cluster_id(dir.path()).expect("readable"), FIRST[2].1.trim());
}

#[test]
fn fields_of_a_later_release_are_passed_over_and_a_later_form_is_refused_by_its_version() {
    let dir = of_first_release();
    for name in ["state.json", "claims.json"] {
        let path = folder(dir.path()).join(name);
        let whole = fs::read_to_string(&path).expect("there");
        let error = || load(dir.path()).map(drop).and(load_claims(dir.path()).map(drop)).map_err(|e| e.to_string());
        fs::write(&path, whole.replacen('{', r#"{"later": {"a": [1]}, "#, 1)).expect("written");
        assert_eq!(error(), Ok(()), "{name}");
        fs::write(&path, r#"{"version": 2, "all": []}"#).expect("written");
        let error = error().expect_err("of the future");
        assert!(
            error.ends_with(&format!("{name} is of version 2, this program reads 1; run the newer release")),
            "{error}"
        );
        fs::write(&path, whole).expect("written");
    }
}

#[test]
fn no_damage_to_a_file_is_taken_for_an_empty_one() {
    let dir = of_first_release();
    for (name, whole) in FIRST {
        let path = folder(dir.path()).join(name);
        let value = serde_json::from_str(whole).unwrap_or(serde_json::Value::Null);
        let look = |text: &[u8], cut: bool| {
            fs::write(&path, text).expect("written");
            let read = match name {
                "state.json" => load(dir.path()).map(|record| drop(record.expect("it is there"))),
                "claims.json" => load_claims(dir.path()).map(drop),
                _ => cluster_id(dir.path()).map(|id| assert!(!id.is_empty())),
            };
            if let Err(error) = &read {
                assert!(error.to_string().contains(name) && error.file() == name, "{error}");
            }
            assert!(read.is_err() || !cut, "{name}: {}", String::from_utf8_lossy(text));
        };
        for text in crate::mutated::damaged(whole.as_bytes()) {
            look(&text, text.len() < whole.trim_end().len());
        }
        if value.is_object() {
            crate::mutated::each(4, |damage| look(damage.value(&value).to_string().as_bytes(), false));
        }
        fs::write(&path, whole).expect("written");
    }
}

#[test]
fn mark_of_the_folder_that_is_damaged_comes_from_its_copy() {
    let dir = TempDir::new().expect("folder");
    let made = cluster_id(dir.path()).expect("made");
    let path = folder(dir.path()).join("cluster-id");
    fs::write(&path, &made[..20]).expect("torn");
    assert_eq!(cluster_id(dir.path()).expect("copied"), made);
    fs::remove_file(folder(dir.path()).join("cluster-id.bak")).expect("there");
    let error = cluster_id(dir.path()).expect_err("torn").to_string();
    assert!(error.contains("cluster-id is damaged"), "{error}");
    fs::write(&path, "a-mark-of-our-own\n").expect("written");
    assert_eq!(cluster_id(dir.path()).expect("read"), "a-mark-of-our-own");
}
