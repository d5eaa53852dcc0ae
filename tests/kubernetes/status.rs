//! What the daemon writes, with the rights that the manifests give it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ironcast::{
    plan::{Planned, Settings, plan},
    source::{
        lease::{Election, Timing, elect},
        status::{self, Excerpt, Totals},
    },
    types::{NodeState, SessionState, SourceState},
};
use kube::Client;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    crds::install,
    source::{SPACE, Source, load_balancer, pool},
    support::{cluster::Cluster, until},
};

const LIMIT: Duration = Duration::from_secs(20);

/// A daemon's Kubernetes side: source, plan, record.
pub(crate) struct Daemon {
    leader: watch::Sender<bool>,
    plans: watch::Receiver<Option<Planned>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _source: Source,
}

impl Daemon {
    async fn start(cluster: &Cluster, leads: bool) -> Self {
        Self::start_with(cluster.client_as("daemon").await, leads)
    }

    pub(crate) fn start_with(client: Client, leads: bool) -> Self {
        let source = Source::start_with(client.clone());
        let (leader, leads) = watch::channel(leads);
        let (planned, plans) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(decide(source.receiver(), planned));
        let to_record = plans.clone();
        tasks.spawn(async move {
            status::record(client, SPACE, "n1", to_record, leads).await;
        });
        Self { leader, plans, stop: CancellationToken::new(), tasks, _source: source }
    }

    pub(crate) fn plans(&self) -> watch::Receiver<Option<Planned>> {
        self.plans.clone()
    }

    /// One that leads when the Lease says so.
    async fn elected(cluster: &Cluster, identity: &str) -> Self {
        let mut daemon = Self::start(cluster, false).await;
        let timing = Timing {
            lease: Duration::from_secs(8),
            give_up: Duration::from_secs(3),
            renew: Duration::from_secs(1),
            retry: Duration::from_millis(500),
        };
        let election = Election { namespace: SPACE.into(), name: "ironcast".into(), identity: identity.into(), timing };
        let client = cluster.client_as("daemon").await;
        daemon.tasks.spawn(elect(client, election, daemon.leader.clone(), daemon.stop.clone()));
        daemon
    }
}

async fn decide(
    mut snapshots: watch::Receiver<Option<Arc<ironcast::types::Snapshot>>>,
    planned: watch::Sender<Option<Planned>>,
) {
    let settings = Settings::new("n1");
    while snapshots.changed().await.is_ok() {
        let Some(snapshot) = snapshots.borrow_and_update().clone() else { continue };
        let desired = Arc::new(plan(&snapshot, &settings));
        planned.send_replace(Some(Planned { snapshot, desired }));
    }
}

async fn until_output(cluster: &Cluster, what: &str, arguments: &[&str], right: impl Fn(&str) -> bool) -> String {
    until(what, LIMIT, || async { cluster.kubectl(arguments).ok().filter(|output| right(output)) }).await
}

const ADDRESS: &str = "jsonpath={.status.loadBalancer.ingress[*].ip} {.status.loadBalancer.ingress[*].ipMode}";

async fn until_address(cluster: &Cluster, service: &str, address: &str) {
    let wanted = if address.is_empty() { String::new() } else { format!("{address} VIP") };
    until_output(cluster, address, &["get", "service", service, "-o", ADDRESS], |output| output.trim() == wanted).await;
}

/// Waits for an Event of the object: reason, then a part of its text.
async fn until_event(cluster: &Cluster, object: &str, reason: &str, part: &str) {
    let selector = format!("involvedObject.name={object},reason={reason}");
    let arguments = ["get", "events", "-A", "--field-selector", &selector, "-o", "jsonpath={.items[*].message}"];
    until_output(cluster, &format!("{reason} with {part:?}"), &arguments, |output| output.contains(part)).await;
}

#[tokio::test]
async fn a_service_gets_its_address_keeps_it_over_a_restart_and_gives_it_back() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    let daemon = Daemon::start(&cluster, true).await;
    cluster.apply(&load_balancer("first")).expect("accepted");
    until_event(&cluster, "first", "AllocationFailed", "IPAddressPool").await;

    cluster.apply(&pool("main", "192.0.2.0/30")).expect("accepted");
    until_address(&cluster, "first", "192.0.2.0").await;
    until_event(&cluster, "first", "IPAllocated", "192.0.2.0").await;
    cluster.kubectl(&["wait", "--for=condition=Valid", "icpool/main", "-n", SPACE, "--timeout=10s"]).expect("valid");
    let figures =
        ["get", "icpool", "main", "-n", SPACE, "-o", "jsonpath={.status.assignedIPv4} {.status.availableIPv4}"];
    until_output(&cluster, "the pool's use", &figures, |output| output == "1 3").await;
    let described = cluster.kubectl(&["describe", "service", "first"]).expect("exists");
    assert!(described.contains("IPAllocated") && described.contains("AllocationFailed"), "{described}");

    drop(daemon);
    cluster.apply(&load_balancer("second")).expect("accepted");
    let _daemon = Daemon::start(&cluster, true).await;
    until_address(&cluster, "second", "192.0.2.1").await;
    until_address(&cluster, "first", "192.0.2.0").await;

    // Deleted, its address is free at once and goes to the next.
    cluster.kubectl(&["delete", "service", "first"]).expect("deleted");
    until_output(&cluster, "given back", &figures, |output| output == "1 3").await;
    cluster.kubectl(&["patch", "service", "second", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]).expect("patched");
    until_address(&cluster, "second", "").await;
    until_output(&cluster, "given back", &figures, |output| output == "0 4").await;

    cluster.apply(&load_balancer("third")).expect("accepted");
    until_address(&cluster, "third", "192.0.2.0").await;
    cluster.kubectl(&["delete", "icpool", "main", "-n", SPACE]).expect("deleted");
    until_address(&cluster, "third", "").await;
    until_event(&cluster, "third", "ClearAssignment", "192.0.2.0").await;
}

#[tokio::test]
async fn only_the_leader_writes_and_addresses_survive_a_change_of_leader() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    cluster.apply(&pool("main", "198.51.100.0/24")).expect("accepted");
    let first = Daemon::elected(&cluster, "first").await;
    until("the first leads", LIMIT, || async { first.leader.borrow().then_some(()) }).await;
    let second = Daemon::elected(&cluster, "second").await;

    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut first = Some(first);
    for round in 0..4 {
        let services: String = (0..10).map(|n| format!("{}---\n", load_balancer(&format!("s{round}-{n}")))).collect();
        if round == 2 {
            // Released in the middle of the work.
            first.as_ref().expect("still there").stop.cancel();
        }
        cluster.apply(&services).expect("accepted");
        let count = (round + 1) * 10;
        let now = until(&format!("{count} addresses"), LIMIT, || async {
            let now = addresses(&cluster);
            (now.len() == count).then_some(now)
        })
        .await;
        for (service, address) in &seen {
            assert_eq!(now.get(service), Some(address), "{service} keeps its address");
        }
        seen = now;
        if round == 2 {
            until("the second leads", LIMIT, || async { second.leader.borrow().then_some(()) }).await;
            first = None;
        }
    }
    let distinct: std::collections::BTreeSet<_> = seen.values().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    assert!(first.is_none() && *second.leader.borrow());
}

fn addresses(cluster: &Cluster) -> BTreeMap<String, String> {
    let each = r#"jsonpath={range .items[*]}{.metadata.name}={.status.loadBalancer.ingress[*].ip}{"\n"}{end}"#;
    let output = cluster.kubectl(&["get", "services", "-o", each]).expect("listed");
    let pairs = output.lines().filter_map(|line| line.split_once('=')).filter(|(_, address)| !address.is_empty());
    pairs.map(|(name, address)| (name.into(), address.into())).collect()
}

#[tokio::test]
async fn refused_objects_say_so_in_their_condition_and_in_an_event_and_recover() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    let _daemon = Daemon::start(&cluster, true).await;
    cluster.apply(&pool("older", "192.0.2.0/24")).expect("accepted");
    let valid = |name: &'static str| {
        ["get", "icpool", name, "-n", SPACE, "-o", "jsonpath={.status.conditions[?(@.type=='Valid')].status}"]
    };
    until_output(&cluster, "the first pool is valid", &valid("older"), |output| output == "True").await;

    cluster.apply(&pool("overlapping", "192.0.2.128/25")).expect("CEL sees one object only");
    until_output(&cluster, "the second is refused", &valid("overlapping"), |output| output == "False").await;
    until_event(&cluster, "overlapping", "Invalid", "older").await;
    until_output(&cluster, "the first is as before", &valid("older"), |output| output == "True").await;

    cluster.apply(&pool("overlapping", "198.51.100.0/25")).expect("accepted");
    until_output(&cluster, "the second is valid", &valid("overlapping"), |output| output == "True").await;
}

#[tokio::test]
async fn label_that_excludes_every_node_is_told_by_an_event() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    let label = "node.kubernetes.io/exclude-from-external-load-balancers: ''";
    for name in ["n1", "n2"] {
        let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{label}}}}}\n");
        cluster.apply(&node).expect("accepted");
    }
    let _daemon = Daemon::start(&cluster, true).await;
    until_event(&cluster, "n1", "Warning", "every node has the label").await;
}

#[tokio::test]
async fn a_node_says_what_it_does_when_that_changes_and_only_then() {
    let Some(cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    cluster.apply("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n").expect("accepted");
    let (states, receiver) = watch::channel(None);
    let client = cluster.client_as("daemon").await;
    let task = tokio::spawn(async move { status::report(client, SPACE, "n1", receiver).await });

    states.send_replace(Some(Arc::new(state("Active", 1))));
    let get = |path: &str| {
        let path = format!("jsonpath={path}");
        cluster.kubectl(&["get", "bgpnodestatus", "n1", "-n", SPACE, "-o", &path]).ok()
    };
    until("it is there", LIMIT, || async { get("{.status.conditions[0].status}").filter(|s| s == "False") }).await;
    assert_eq!(
        get("{.metadata.ownerReferences[0].kind} {.metadata.ownerReferences[0].name}").as_deref(),
        Some("Node n1")
    );
    let row = cluster.kubectl(&["get", "icnode", "n1", "-n", SPACE]).expect("short name");
    assert!(row.contains("Active"), "{row}");

    states.send_replace(Some(Arc::new(state("Established", 0))));
    until("it is Ready", LIMIT, || async { get("{.status.conditions[0].status}").filter(|s| s == "True") }).await;
    let version = get("{.metadata.resourceVersion}");
    states.send_replace(Some(Arc::new(state("Established", 9))));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(get("{.metadata.resourceVersion}"), version, "time alone is no news");

    // Deleted by somebody, it comes back with the next change.
    cluster.kubectl(&["delete", "bgpnodestatus", "n1", "-n", SPACE]).expect("deleted");
    states.send_replace(Some(Arc::new(state("Idle", 0))));
    until("it is back", LIMIT, || async { get("{.status.sessions[0].state}").filter(|s| s == "Idle") }).await;
    task.abort();
}

fn state(session: &str, since_seconds: u64) -> Excerpt {
    let session = SessionState {
        peer: "tor".into(),
        address: "192.0.2.1".parse().expect("valid"),
        state: session.into(),
        since_seconds,
        local_asn: 64512,
        remote_asn: None,
        families: vec!["ipv4-unicast".into()],
        capabilities: Vec::new(),
        hold_time_seconds: Some(90),
        advertised: 1,
        last_error: None,
        bfd: None,
        unacknowledged: None,
        established_count: 1,
    };
    let state = NodeState {
        node: "n1".into(),
        version: "test".into(),
        source: SourceState { kind: "kubernetes".into(), complete: true },
        sessions: vec![session],
        ..NodeState::default()
    };
    Excerpt { state, totals: Totals::default() }
}
