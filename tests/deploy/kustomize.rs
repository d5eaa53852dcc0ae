//! What `kubectl apply -k` would send.

use serde_json::Value;

use crate::{
    install::prepared,
    tools::{documents, kind_and_name, path, text},
};

fn built(cluster: &crate::support::cluster::Cluster, folder: &str) -> Vec<Value> {
    let yaml = cluster.kubectl(&["kustomize", path(folder).to_str().expect("UTF-8")]).expect("it builds");
    let mut all = documents(&yaml).expect("YAML");
    all.sort_by_key(kind_and_name);
    all
}

#[tokio::test]
async fn base_is_the_definitions_and_the_manifests_and_nothing_is_forgotten() {
    let Some((cluster, _guard)) = prepared().await else { return };
    let mut all = documents(&text("deploy/manifests/ironcast.yaml")).expect("YAML");
    all.extend(documents(&ironcast::source::api::crds_yaml()).expect("YAML"));
    all.sort_by_key(kind_and_name);
    assert_eq!(built(cluster, "deploy/kustomize/base"), all);
}

#[tokio::test]
async fn overlay_changes_what_it_says_and_nothing_else() {
    let Some((cluster, _guard)) = prepared().await else { return };
    let base = built(cluster, "deploy/kustomize/base");
    let mut overlay = built(cluster, "deploy/kustomize/example");
    overlay.retain(|object| object["apiVersion"] != "ironcast.dev/v1alpha1");
    let daemon = |all: &[Value]| all.iter().position(|o| o["kind"] == "DaemonSet").expect("a DaemonSet");
    let (ours, theirs) = (daemon(&overlay), daemon(&base));
    let spec = overlay[ours]["spec"].clone();
    assert_eq!(spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 2);
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.example/ironcast:0.1.0");
    assert_eq!(
        container["args"].as_array().and_then(|a| a.last()),
        Some(&"--load-balancer-class=ironcast.dev/bgp".into())
    );
    overlay[ours] = base[theirs].clone();
    assert_eq!(overlay, base);
}
