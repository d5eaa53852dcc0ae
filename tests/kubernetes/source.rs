//! What the daemon sees of a cluster.

use std::{sync::Arc, time::Duration};

use ironcast::{
    source::{api, kubernetes},
    types::{Secret, ServiceKey, Severity, Snapshot},
};
use kube::Client;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::{
    crds::install,
    support::{cluster::Cluster, until},
};

pub(crate) const SPACE: &str = "ironcast-system";
const LIMIT: Duration = Duration::from_secs(20);

/// The source at work.
pub(crate) struct Source {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    leader: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Source {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster.client().await)
    }

    pub(crate) fn start_with(client: Client) -> Self {
        let (sender, snapshots) = watch::channel(None);
        let (leader, leads) = watch::channel(false);
        let task = tokio::spawn(async move {
            let ended = kubernetes::run(client, SPACE, None, leads, sender).await;
            panic!("the source ended: {ended:?}");
        });
        Self { snapshots, leader, task }
    }

    pub(crate) fn receiver(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.snapshots.clone()
    }

    /// Waits for a snapshot of which `ask` has an answer.
    pub(crate) async fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&Snapshot) -> Option<T>) -> T {
        let answer = async {
            loop {
                if let Some(answer) = self.snapshots.borrow_and_update().as_deref().and_then(&mut ask) {
                    return answer;
                }
                self.snapshots.changed().await.expect("the source lives");
            }
        };
        let answer = timeout(LIMIT, answer).await;
        answer.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}; now {:#?}", self.snapshots.borrow()))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn load_balancer(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: {name}}}, ports: [{{port: 80, name: http}}]}}\n"
    )
}

pub(crate) fn slice(service: &str, address: &str, node: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {service}-1, \
         namespace: default, labels: {{kubernetes.io/service-name: {service}}}}}\nports: [{{name: http, port: 8080, \
         protocol: TCP}}]\nendpoints: [{{addresses: [{address}], nodeName: {node}, conditions: {{ready: true}}}}]\n"
    )
}

pub(crate) fn pool(name: &str, range: &str) -> String {
    format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {name}, namespace: {SPACE}}}\n\
         spec: {{addresses: [{range}]}}\n"
    )
}

#[tokio::test]
async fn services_endpoints_nodes_and_namespaces_are_seen_as_they_change() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let mut source = Source::start(cluster).await;
    source.until("the first complete list", |_| Some(())).await;
    cluster.apply("apiVersion: v1\nkind: Node\nmetadata: {name: seen, labels: {rack: a}}\n").expect("accepted");
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: seen, labels: {team: a}}\n").expect("accepted");
    cluster.apply(&load_balancer("seen")).expect("accepted");
    cluster.apply(&slice("seen", "10.0.0.1", "seen")).expect("accepted");
    let key = ServiceKey::new("default", "seen");
    source
        .until("all of it", |s| {
            let endpoint = s.endpoints.get(&key)?.first()?;
            let rack = s.nodes.get("seen")?.labels.get("rack")?;
            let team = s.namespaces.get("seen")?.get("team")?;
            (s.services.contains_key(&key) && endpoint.address.to_string() == "10.0.0.1").then_some(())?;
            (rack == "a" && team == "a").then_some(())
        })
        .await;
    cluster.kubectl(&["delete", "node", "seen"]).expect("deleted");
    cluster.kubectl(&["delete", "service", "seen"]).expect("deleted");
    source.until("gone", |s| (!s.services.contains_key(&key) && !s.nodes.contains_key("seen")).then_some(())).await;
}

#[tokio::test]
async fn a_service_that_changes_its_type_is_gone_and_the_api_server_clears_its_address() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let mut source = Source::start(cluster).await;
    cluster.apply(&load_balancer("turned")).expect("accepted");
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.77","ipMode":"VIP"}]}}}"#;
    cluster
        .kubectl(&["patch", "service", "turned", "--subresource=status", "--type=merge", "-p", status])
        .expect("patched");
    let key = ServiceKey::new("default", "turned");
    source.until("it has its address", |s| s.services.get(&key).filter(|s| s.assigned.len() == 1).map(|_| ())).await;
    cluster.kubectl(&["patch", "service", "turned", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]).expect("patched");
    source.until("it is no load balancer", |s| (!s.services.contains_key(&key)).then_some(())).await;
    let ingress = cluster.kubectl(&["get", "service", "turned", "-o", "jsonpath={.status.loadBalancer}"]);
    assert_eq!(ingress.expect("exists"), "{}");
    cluster.kubectl(&["patch", "service", "turned", "-p", r#"{"spec":{"type":"LoadBalancer"}}"#]).expect("patched");
    source.until("it is one again", |s| s.services.contains_key(&key).then_some(())).await;
    cluster.kubectl(&["delete", "service", "turned"]).expect("deleted");
}

#[tokio::test]
async fn absent_crds_are_no_obstacle_and_an_object_that_cannot_be_decoded_costs_itself_alone() {
    let Some(cluster) = Cluster::start().await else { return };
    cluster.kubectl(&["create", "namespace", SPACE]).expect("created");
    cluster.apply(&load_balancer("early")).expect("accepted");
    let mut source = Source::start(&cluster).await;
    source.until("complete without CRDs", |s| (s.services.len() == 1 && s.pools.is_empty()).then_some(())).await;

    // CRDs of another release, whose schema lets anything through.
    let lax: Vec<String> = api::crds().into_iter().map(without_schema).collect();
    cluster.apply_server_side(&lax.join("---\n")).expect("the CRDs");
    let good = pool("good", "192.0.2.0/24");
    until("the CRDs are served", LIMIT, || async { cluster.apply(&good).ok() }).await;
    let bad = good.replace("name: good", "name: bad").replace("[192.0.2.0/24]", "everything");
    cluster.apply(&bad).expect("nothing checks it");
    source
        .until("the good pool, and a problem of the bad one", |s| {
            let problem = s.problems.iter().find(|p| p.object.name == "bad" && p.severity == Severity::Error)?;
            assert_eq!((problem.object.kind.as_str(), s.pools.contains_key("bad")), ("IPAddressPool", false));
            s.pools.get("good").map(|_| ())
        })
        .await;
    cluster.apply(&pool("later", "198.51.100.0/24")).expect("accepted");
    source.until("the watch goes on", |s| s.pools.get("later").map(|_| ())).await;

    // Once valid, an edit that cannot be decoded takes nothing away.
    cluster.apply(&pool("bad", "203.0.113.0/24")).expect("accepted");
    source.until("mended", |s| (s.pools.contains_key("bad") && s.problems.is_empty()).then_some(())).await;
    cluster.apply(&bad).expect("nothing checks it");
    source.until("still in use", |s| (!s.problems.is_empty() && s.pools.contains_key("bad")).then_some(())).await;
}

/// The definition with a schema that knows nothing.
fn without_schema(
    mut crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> String {
    for version in &mut crd.spec.versions {
        let anything = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let schema = version.schema.as_mut().expect("a schema");
        schema.open_api_v3_schema = Some(serde_json::from_value(anything).expect("a schema"));
        version.additional_printer_columns = None;
    }
    serde_norway::to_string(&crd).expect("plain data")
}

#[tokio::test]
async fn an_api_server_that_restarts_changes_nothing_and_410_is_survived() {
    let Some(mut cluster) = Cluster::start().await else { return };
    install(&cluster).await;
    cluster.apply(&load_balancer("stays")).expect("accepted");
    let mut source = Source::start(&cluster).await;
    let before = source.until("seen", |s| (!s.services.is_empty()).then(|| s.services.clone())).await;
    let version = cluster.kubectl(&["get", "service", "stays", "-o", "jsonpath={.metadata.resourceVersion}"]);
    // Writes after the versions that the watches stand at, so that the new cache begins later.
    cluster.kubectl(&["create", "configmap", "filler"]).expect("created");
    cluster.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let now = source.receiver().borrow().as_deref().map(|s| s.services.clone());
    assert_eq!(now.as_ref(), Some(&before), "an API server that is away changes nothing");

    cluster.start_apiserver().await;
    let path = format!("/api/v1/services?watch=1&timeoutSeconds=2&resourceVersion={}", version.expect("exists"));
    let gone = cluster.kubectl(&["get", "--raw", &path]).unwrap_or_else(|error| error);
    assert!(gone.contains("410") || gone.contains("too old"), "the old version is still served: {gone}");
    cluster.apply(&pool("after", "192.0.2.0/24")).expect("accepted");
    cluster.apply(&load_balancer("after")).expect("accepted");
    source.until("both kinds go on", |s| (s.services.len() == 2 && s.pools.len() == 1).then_some(())).await;
}

#[tokio::test]
async fn secrets_are_seen_when_a_peer_names_them_and_no_others() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let mut source = Source::start(cluster).await;
    let peer = format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: locked, namespace: {SPACE}}}\n\
         spec: {{myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.200, passwordSecret: {{name: locked}}}}\n"
    );
    let secret = |password: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\nmetadata: {{name: locked, namespace: {SPACE}}}\n\
             stringData: {{username: bgp, password: {password}}}\n"
        )
    };
    cluster.apply(&peer).expect("accepted");
    let missing = |s: &Snapshot| s.peers.get("locked")?.missing_secret.clone();
    assert!(source.until("the peer waits", missing).await.contains("locked"));
    let key = |s: &Snapshot| s.peers.get("locked")?.password.as_ref().map(|key| key.0.to_vec());
    for password in ["first", "second"] {
        cluster.apply(&secret(password)).expect("accepted");
        source.until(password, |s| key(s).filter(|key| key == password.as_bytes())).await;
    }
    cluster.kubectl(&["delete", "secret", "locked", "-n", SPACE]).expect("deleted");
    source.until("the Secret is gone", |s| s.problems.iter().any(|p| p.object.name == "locked").then_some(())).await;
    cluster.kubectl(&["delete", "bgppeer", "locked", "-n", SPACE]).expect("deleted");
    source.until("the peer is gone", |s| (!s.peers.contains_key("locked")).then_some(())).await;
}

#[tokio::test]
async fn the_token_of_a_provider_is_seen_by_who_leads_and_by_nobody_else() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let mut source = Source::start_with(cluster.client_as("daemon").await);
    let objects = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: token-of-metal, namespace: {SPACE}}}\nstringData: {{token: hush}}\n---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: ProviderConfig\nmetadata: {{name: tokens, namespace: {SPACE}}}\n\
         spec: {{type: packet, project: p, credentialsSecret: {{name: token-of-metal}}}}\n"
    );
    cluster.apply(&objects).expect("accepted");
    source.until("the provider", |s| s.providers.get("tokens").map(|_| ())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let token = |s: &Snapshot| s.providers.get("tokens").and_then(|p| p.credentials.clone());
    let blamed = |s: &Snapshot| s.problems.iter().any(|problem| problem.object.name == "tokens");
    source.until("no token, and no word about it", |s| (token(s).is_none() && !blamed(s)).then_some(())).await;
    source.leader.send_replace(true);
    source.until("the token", |s| token(s).filter(|token| *token == Secret::new("hush"))).await;
    source.leader.send_replace(false);
    source.until("it is forgotten", |s| token(s).is_none().then_some(())).await;
    cluster.kubectl(&["delete", "providerconfig/tokens", "secret/token-of-metal", "-n", SPACE]).expect("deleted");
}
