//! The chart, the manifests and the overlay at a real API server: dry runs, and a whole life from install to uninstall.

use std::{path::Path, process::Command};

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    chart::render_full,
    support::cluster::Cluster,
    tools::{documents, helm, path, run, text},
};

const NAMESPACE: &str = "ironcast-system";

/// What is made under the names of the installation is one test's at a time.
static INSTALLATION: Mutex<()> = Mutex::const_new(());

/// The shared API server with the definitions and the namespace, for dry runs.
pub(crate) async fn prepared() -> Option<(&'static Cluster, MutexGuard<'static, ()>)> {
    let cluster = Cluster::shared().await?;
    let guard = INSTALLATION.lock().await;
    cluster.kubectl(&["apply", "--server-side", "-f", &folder("deploy/crds")]).expect("definitions");
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"]).expect("established");
    let namespace = documents(&text("deploy/manifests/ironcast.yaml")).expect("YAML");
    let namespace = namespace.iter().find(|object| object["kind"] == "Namespace").expect("a Namespace");
    cluster.apply(&namespace.to_string()).expect("a namespace");
    Some((cluster, guard))
}

fn folder(relative: &str) -> String {
    path(relative).to_str().expect("UTF-8").to_owned()
}

#[tokio::test]
async fn api_server_takes_manifests_every_value_of_the_chart_and_the_overlay() {
    let (Some(helm), Some((cluster, _guard))) = (helm(), prepared().await) else { return };
    cluster.kubectl(&["apply", "--dry-run=server", "-f", &folder("deploy/manifests")]).expect("the manifests");
    cluster.dry_run(&render_full(&helm)).expect("every value");
    let overlay = cluster.kubectl(&["kustomize", &folder("deploy/kustomize/example")]).expect("it builds");
    let answer = cluster.dry_run(&overlay).expect("the overlay");
    assert!(answer.contains("ipaddresspool.ironcast.dev/public created"), "{answer}");
}

/// From manifests to helm, as docs/install.md says.
#[tokio::test]
async fn helm_takes_over_what_the_manifests_made() {
    let Some(helm) = helm() else { return };
    let Some(cluster) = Cluster::start().await else { return };
    let folders = ["deploy/crds", "deploy/manifests"].map(folder);
    cluster.kubectl(&["apply", "--server-side", "-f", &folders[0], "-f", &folders[1]]).expect("applied");
    let chart = folder("deploy/chart");
    let install = ["upgrade", "--install", "ironcast", &chart];
    helm_at(&helm, &cluster, &install).expect_err("it is somebody else's");
    helm_at(&helm, &cluster, &[&install[..], &["--take-ownership", "--force-conflicts"]].concat()).expect("taken over");
    let namespace = cluster.kubectl(&["get", "namespace", NAMESPACE, "-o", "yaml"]).expect("there");
    assert!(!namespace.contains("meta.helm.sh/release-name"), "the namespace outlives an uninstall: {namespace}");
}

/// PodSecurity admits the pod where the namespace says `privileged`, and nowhere else.
#[tokio::test]
async fn pod_needs_the_label_that_the_namespace_has() {
    let (Some(_), Some((cluster, _guard))) = (helm(), prepared().await) else { return };
    let all = documents(&text("deploy/manifests/ironcast.yaml")).expect("YAML");
    let mut pod = all.iter().find(|o| o["kind"] == "DaemonSet").expect("a DaemonSet")["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "tried".into();
    pod["metadata"]["namespace"] = NAMESPACE.into();
    // What needs controllers that do not run here.
    pod["spec"].as_object_mut().expect("a spec").remove("serviceAccountName");
    pod["spec"]["automountServiceAccountToken"] = false.into();
    let service_account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: SPACE}\n";
    cluster.apply(&service_account.replace("SPACE", NAMESPACE)).expect("an account");
    cluster.dry_run(&pod.to_string()).expect("privileged admits it");
    let baseline = "apiVersion: v1\nkind: Namespace\nmetadata: {name: baseline, labels: {pod-security.kubernetes.io/enforce: baseline}}\n";
    cluster.apply(baseline).expect("a namespace");
    cluster.apply(&service_account.replace("SPACE", "baseline")).expect("an account");
    pod["metadata"]["namespace"] = "baseline".into();
    let refused = cluster.dry_run(&pod.to_string()).expect_err("baseline does not");
    for word in ["host namespaces (hostNetwork=true)", "hostPath volumes", "NET_ADMIN"] {
        assert!(refused.contains(word), "{refused}");
    }
}

fn helm_at(helm: &Path, cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.env("KUBECONFIG", cluster.kubeconfig("admin")).env("HELM_CACHE_HOME", cluster.folder());
    run(command.args(arguments).args(["--namespace", NAMESPACE]))
}

/// Objects of every kind that the chart can make, by kind and name.
fn left(cluster: &Cluster) -> Vec<String> {
    let kinds = "clusterroles,clusterrolebindings,flowschemas,prioritylevelconfigurations,daemonsets,roles,rolebindings,\
                 serviceaccounts,configmaps,networkpolicies,secrets";
    let all = cluster.kubectl(&["get", kinds, "-A", "-o", "name"]).expect("listed");
    all.lines().filter(|name| name.contains("ironcast")).map(str::to_owned).collect()
}

#[tokio::test]
async fn helm_installs_upgrades_and_leaves_nothing_but_the_definitions() {
    let Some(helm) = helm() else { return };
    // One of its own: what is left is counted.
    let Some(cluster) = Cluster::start().await else { return };
    let chart = folder("deploy/chart");
    let labels: Vec<String> =
        ["enforce", "audit", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=privileged")).to_vec();
    cluster.kubectl(&["create", "namespace", NAMESPACE]).expect("a namespace");
    let label = [vec!["label", "namespace", NAMESPACE], labels.iter().map(String::as_str).collect()].concat();
    cluster.kubectl(&label).expect("labelled");
    assert_eq!(left(&cluster), Vec::<String>::new());

    helm_at(&helm, &cluster, &["upgrade", "--install", "ironcast", &chart]).expect("installed");
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"]).expect("established");
    let pool = "apiVersion: ironcast.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {name: public, namespace: ironcast-system}\n\
                spec: {addresses: [192.0.2.0/24]}\n";
    cluster.apply(pool).expect("the definitions are there");

    let set = ["--set", "daemon.onShutdown=stop,networkPolicy.enabled=true,monitoring.dashboard.enabled=true"];
    helm_at(&helm, &cluster, &[&["upgrade", "ironcast", &chart][..], &set].concat()).expect("upgraded");
    let daemon = cluster.kubectl(&["get", "daemonset", "ironcast", "-n", NAMESPACE, "-o", "json"]).expect("there");
    let daemon: Value = serde_json::from_str(&daemon).expect("JSON");
    let arguments = &daemon["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(arguments, &serde_json::json!(["run", "--log-format=json", "--on-shutdown=stop"]));
    assert!(left(&cluster).contains(&"networkpolicy.networking.k8s.io/ironcast".to_owned()));

    helm_at(&helm, &cluster, &["uninstall", "ironcast"]).expect("uninstalled");
    assert_eq!(left(&cluster), Vec::<String>::new());
    cluster.kubectl(&["get", "ipaddresspool", "public", "-n", NAMESPACE]).expect("pools outlive the chart");
    // Not waited for: the API server finishes a definition at once or, now and then, after five minutes.
    cluster.kubectl(&["delete", "--wait=false", "-f", &folder("deploy/crds")]).expect("deleted");
    let ending = "jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{\"\\n\"}{end}";
    let definitions = cluster.kubectl(&["get", "crd", "-o", ending]).expect("listed");
    let kept = definitions.lines().find(|line| line.contains("ironcast.dev") && line.split_whitespace().count() < 2);
    assert_eq!(kept, None);
}
