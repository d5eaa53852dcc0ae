use std::{sync::Arc, time::SystemTime};

use super::*;
use crate::{
    datapath::spec::Membership,
    types::{Family, FamilyPolicy, Node, ServiceKey, TrafficPolicy},
};

const VIP4: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(ports: Vec<ServicePort>) -> Service {
    Service {
        key: ServiceKey::new("shop", "web"),
        uid: "1".into(),
        labels: BTreeMap::new(),
        load_balancer: true,
        deleting: false,
        class: None,
        families: vec![Family::Ipv4, Family::Ipv6],
        family_policy: FamilyPolicy::RequireDualStack,
        traffic_policy: TrafficPolicy::Cluster,
        ports,
        selector: BTreeMap::new(),
        affinity: None,
        source_ranges: false,
        requested_addresses: vec![],
        requested_pool: None,
        sharing_key: None,
        assigned: vec![ip(VIP4), ip(VIP6)],
        created: 0,
    }
}

fn port(protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: "http".into(), protocol, port, node_port: None }
}

fn endpoint(address: &str, node: Option<&str>) -> Endpoint {
    Endpoint {
        address: ip(address),
        node: node.map(Into::into),
        ready: true,
        serving: true,
        terminating: false,
        ports: [("http".into(), Protocol::Tcp, 8080), ("http".into(), Protocol::Sctp, 8080)].into(),
    }
}

fn unready(address: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, serving: false, ..endpoint(address, Some(node)) }
}

fn terminating(address: &str, node: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..endpoint(address, Some(node)) }
}

/// A cluster of n1 (ourselves), n2 and n3 with one Service.
struct Cluster {
    snapshot: Snapshot,
    desired: Desired,
    routes: BTreeMap<String, Route>,
}

impl Cluster {
    fn new(endpoints: &[Endpoint]) -> Self {
        let service = service(vec![port(Protocol::Tcp, 80)]);
        let node = |n: u8| {
            let addresses = vec![IpAddr::from([10, 0, 0, n])];
            let node = Node { name: format!("n{n}"), addresses, ready: true, ..Node::default() };
            (node.name.clone(), Arc::new(node))
        };
        let allocated = Allocated::Addresses { addresses: vec![ip(VIP4), ip(VIP6)], pool: "edge".into() };
        let mut cluster = Self {
            desired: Desired { allocations: Arc::new([(service.key.clone(), allocated)].into()), ..Desired::default() },
            snapshot: Snapshot {
                services: [(service.key.clone(), Arc::new(service))].into(),
                nodes: (1..=3).map(node).collect(),
                ..Snapshot::default()
            },
            routes: BTreeMap::new(),
        };
        cluster.put(endpoints);
        cluster
    }

    fn put(&mut self, endpoints: &[Endpoint]) {
        self.snapshot.endpoints.insert(ServiceKey::new("shop", "web"), endpoints.into());
    }

    fn change(&mut self, change: impl FnOnce(&mut Service)) {
        let service = self.snapshot.services.get_mut(&ServiceKey::new("shop", "web")).expect("there");
        change(Arc::make_mut(service));
    }

    fn spec(&self, tables: &mut Tables, now: Instant) -> Spec {
        let (snapshot, desired, routes) = (&self.snapshot, &self.desired, &self.routes);
        tables.spec(&Inputs { snapshot, desired, secret: [1; 32], routes }, now)
    }
}

fn backend(address: &str, node: &str) -> Backend {
    Backend { address: ip(address), port: 8080, node: node.into() }
}

fn table<'a>(spec: &'a Spec, vip: &str) -> &'a Table {
    let front = Frontend { address: ip(vip), protocol: Protocol::Tcp, port: 80 };
    &spec.tables[&spec.ports[&front].table]
}

fn newest(spec: &Spec, vip: &str) -> Vec<Backend> {
    table(spec, vip).history.first().map(|m| m.members.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn every_node_owns_every_recorded_address_and_each_family_has_its_own_pods() {
    let cluster = Cluster::new(&[endpoint("10.1.2.5", Some("n2")), endpoint("fd00::5", Some("n3"))]);
    let spec = cluster.spec(&mut Tables::new("n1"), Instant::now());
    assert_eq!(spec.addresses, [ip(VIP4), ip(VIP6)].into());
    assert_eq!(newest(&spec, VIP4), [backend("10.1.2.5", "n2")]);
    assert_eq!(newest(&spec, VIP6), [backend("fd00::5", "n3")]);
    assert_eq!(spec.nodes["n2"].addresses, [IpAddr::from([10, 0, 0, 2])].into());
}

#[test]
fn address_that_is_chosen_but_not_recorded_is_not_owned() {
    let mut cluster = Cluster::new(&[endpoint("10.1.2.5", Some("n2"))]);
    cluster.change(|service| service.assigned = vec![ip(VIP6)]);
    assert_eq!(cluster.spec(&mut Tables::new("n1"), Instant::now()).addresses, [ip(VIP6)].into());
}

#[test]
fn pods_that_terminate_take_nothing_new_unless_there_is_nobody_else() {
    let (a, b) = (endpoint("10.1.1.5", Some("n1")), endpoint("10.1.2.5", Some("n2")));
    let mut cluster = Cluster::new(&[a.clone(), b]);
    let (mut tables, now) = (Tables::new("n1"), Instant::now());
    cluster.spec(&mut tables, now);
    cluster.put(&[a, terminating("10.1.2.5", "n2")]);
    let spec = cluster.spec(&mut tables, now);
    assert_eq!(newest(&spec, VIP4), [backend("10.1.1.5", "n1")]);
    assert!(table(&spec, VIP4).living.contains(&backend("10.1.2.5", "n2")), "it keeps what it has");
    cluster.put(&[terminating("10.1.2.5", "n2"), unready("10.1.1.5", "n1")]);
    assert_eq!(newest(&cluster.spec(&mut tables, now), VIP4), [backend("10.1.2.5", "n2")]);
}

#[test]
fn pod_that_fails_its_probe_lives_on_a_node_that_is_ready_and_not_on_one_that_is_gone() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1")), unready("10.1.2.5", "n2")]);
    let lives = |cluster: &Cluster| {
        let spec = cluster.spec(&mut Tables::new("n1"), Instant::now());
        table(&spec, VIP4).living.contains(&backend("10.1.2.5", "n2"))
    };
    assert!(lives(&cluster));
    Arc::make_mut(cluster.snapshot.nodes.get_mut("n2").expect("there")).ready = false;
    assert!(!lives(&cluster));
    cluster.put(&[endpoint("10.1.1.5", Some("n1")), endpoint("10.1.2.5", Some("n2"))]);
    assert!(lives(&cluster), "whoever still answers the probe is there");
}

#[test]
fn endpoint_on_no_node_of_the_cluster_leaves_the_port_to_kube_proxy() {
    let front = Frontend { address: ip(VIP4), protocol: Protocol::Tcp, port: 80 };
    for (node, pass) in [(Some("n2"), false), (Some("elsewhere"), true), (None, true)] {
        let cluster = Cluster::new(&[endpoint("10.1.2.5", node)]);
        let spec = cluster.spec(&mut Tables::new("n1"), Instant::now());
        assert_eq!(spec.ports[&front].pass, pass, "{node:?}");
    }
    let mut cluster = Cluster::new(&[endpoint("10.1.2.5", Some("n2"))]);
    cluster.change(|service| service.ports = vec![port(Protocol::Sctp, 80)]);
    let spec = cluster.spec(&mut Tables::new("n1"), Instant::now());
    assert!(spec.ports.values().all(|target| target.pass), "and SCTP always");
}

#[test]
fn service_that_says_who_may_come_is_left_to_kube_proxy_which_looks_who_comes() {
    let mut cluster = Cluster::new(&[endpoint("10.1.2.5", Some("n2"))]);
    cluster.change(|service| service.source_ranges = true);
    let spec = cluster.spec(&mut Tables::new("n1"), Instant::now());
    assert!(!spec.ports.is_empty() && spec.ports.values().all(|target| target.pass));
}

#[test]
fn address_that_is_given_up_stays_until_routers_have_withdrawn() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let (mut tables, start) = (Tables::new("n1"), Instant::now());
    let before = cluster.spec(&mut tables, start);
    cluster.desired.allocations = Arc::default();
    cluster.snapshot.services = Default::default();
    let after = cluster.spec(&mut tables, start);
    assert_eq!((&after.addresses, &after.ports), (&before.addresses, &before.ports));
    assert_eq!(tables.deadline(), Some(start + LINGER));
    let gone = cluster.spec(&mut tables, start + LINGER);
    assert!(gone.addresses.is_empty() && gone.ports.is_empty() && gone.tables.is_empty());
    assert_eq!(tables.deadline(), None);
}

#[test]
fn generation_changes_with_the_tables_and_only_then() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let (mut tables, now) = (Tables::new("n1"), Instant::now());
    let first = cluster.spec(&mut tables, now);
    assert_eq!(cluster.spec(&mut tables, now), first);
    cluster.put(&[endpoint("10.1.2.5", Some("n2"))]);
    assert_eq!(cluster.spec(&mut tables, now).generation, first.generation + 1);
}

#[test]
fn first_tables_without_a_record_are_forgetful_and_later_ones_are_not() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let (mut tables, now) = (Tables::new("n1"), Instant::now());
    assert!(table(&cluster.spec(&mut tables, now), VIP4).forgetful);
    cluster.change(|service| service.ports = vec![port(Protocol::Tcp, 81)]);
    let spec = cluster.spec(&mut tables, now);
    assert!(spec.tables.values().all(|t| !t.forgetful), "a port that appears while we look has no old connections");
}

/// Two memberships one after the other, then the record read again.
fn restarted(cluster: &mut Cluster, start: Instant, later: Instant) -> (Spec, Tables) {
    let mut tables = Tables::new("n1");
    cluster.spec(&mut tables, start);
    cluster.put(&[endpoint("10.1.2.5", Some("n2"))]);
    let before = cluster.spec(&mut tables, start);
    let wall = SystemTime::now();
    let record = tables.encode(start, wall);
    let after = Tables::restore("n1", &record, later, wall + (later - start)).expect("ours");
    (before, after)
}

#[test]
fn restart_remembers_who_had_connections_before() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let start = Instant::now();
    let (before, mut tables) = restarted(&mut cluster, start, start + Duration::from_secs(60));
    let after = cluster.spec(&mut tables, start + Duration::from_secs(60));
    assert_eq!(after.tables, before.tables);
    assert_eq!(table(&after, VIP4).history.len(), 2);
    assert!(after.generation > before.generation, "it goes on counting");
}

#[test]
fn membership_of_yesterday_is_forgotten() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let start = Instant::now();
    let (_, mut tables) = restarted(&mut cluster, start, start + REMEMBERED / 2);
    assert_eq!(table(&cluster.spec(&mut tables, start + REMEMBERED / 2), VIP4).history.len(), 2);
    let due = tables.deadline().expect("one is remembered");
    assert!(due <= start + REMEMBERED && due + Duration::from_secs(2) > start + REMEMBERED);
    let spec = cluster.spec(&mut tables, start + REMEMBERED);
    let expected = Membership { slots_log2: 10, members: [(backend("10.1.2.5", "n2"), 1)].into() };
    assert_eq!(table(&spec, VIP4).history, [expected]);
    assert!(!table(&spec, VIP4).forgetful, "and with it what was before it");
}

#[test]
fn damaged_record_is_refused() {
    let restore = |bytes: &[u8]| Tables::restore("n1", bytes, Instant::now(), SystemTime::now());
    assert!(restore(b"{").is_err());
    let later = restore(br#"{"version":2,"generation":1,"names":{}}"#).expect_err("of the future");
    assert_eq!(later.to_string(), "of version 2, this program reads 1");
}

/// As the first release wrote it, with a field that it did not know.
const FIRST_RECORD: &str = r#"{"version":1,"generation":7,"more":1,"tables":{"default/web/TCP/80/192.0.2.1":{
    "forgetful":false,"strange":1700000000,"history":[
        {"slots_log2":10,"members":[["10.1.1.5",8080,"n1",1],["10.1.2.5",8080,"n2",1]]},
        {"slots_log2":12,"replaced":1700000001,"members":[["10.1.1.5",8080,"n1",1]]}]}}}"#;

#[test]
fn record_of_the_first_release_is_read() {
    let tables = Tables::restore("n1", FIRST_RECORD.as_bytes(), Instant::now(), SystemTime::now()).expect("ours");
    let (generation, known) = (tables.generation, tables.remembered.values().next().expect("one"));
    assert_eq!((generation, known.table.history.len(), known.replaced.len()), (7, 2, 1));
}

#[test]
fn no_damage_to_the_record_is_too_much() {
    let mut cluster = Cluster::new(&[endpoint("10.1.1.5", Some("n1"))]);
    let (now, wall) = (Instant::now(), SystemTime::now());
    let mut tables = Tables::new("n1");
    cluster.spec(&mut tables, now);
    cluster.put(&[endpoint("10.1.2.5", Some("n2"))]);
    cluster.spec(&mut tables, now);
    let whole = tables.encode(now, wall);
    let value: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
    let mut read = 0;
    let mut look = |text: &[u8]| {
        let Ok(mut tables) = Tables::restore("n1", text, now, wall) else { return };
        let spec = cluster.spec(&mut tables, now);
        read += 1;
        let _ = tables.deadline();
        assert!(spec.tables.values().all(|table| table.history.len() <= crate::datapath::spec::HISTORY));
        if read % 50 == 0 {
            spec.tables.values().for_each(|table| _ = crate::datapath::slots::lay_out(table));
        }
    };
    crate::mutated::damaged(&whole).for_each(|text| look(&text));
    crate::mutated::each(1, |damage| look(damage.value(&value).to_string().as_bytes()));
    assert!(read > 100);
}

#[test]
fn who_was_away_does_not_call_a_table_settled_though_it_looks_as_before() {
    let pods = [endpoint("10.1.1.5", Some("n1")), endpoint("10.1.2.5", Some("n2"))];
    let cluster = Cluster::new(&pods);
    let (start, wall) = (Instant::now(), SystemTime::now());
    let mut tables = Tables::new("n1");
    cluster.spec(&mut tables, start);
    let later = start + REMEMBERED;
    assert!(!table(&cluster.spec(&mut tables, later), VIP4).forgetful, "a day has passed");
    let record = tables.encode(later, wall + REMEMBERED);
    let restored = || Tables::restore("n1", &record, later, wall + REMEMBERED).expect("ours");
    assert!(!table(&cluster.spec(&mut restored(), later), VIP4).forgetful, "only restarted");
    let mut away = restored();
    away.was_away();
    assert!(table(&cluster.spec(&mut away, later), VIP4).forgetful);
    assert!(table(&cluster.spec(&mut away, later + REMEMBERED / 2), VIP4).forgetful);
    let deadline = away.deadline().expect("it is taken back");
    assert!(!table(&cluster.spec(&mut away, deadline), VIP4).forgetful, "those connections are over");
}
