use std::path::PathBuf;

use super::*;
use crate::source::check::check;

fn settings() -> Settings {
    Settings::new("")
}

fn sample(from: Predecessor, name: &str) -> Imported {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/source/import/samples").join(name);
    import(from, &read(&[path]).expect("a sample"), "ironcast-system", &settings())
}

/// Objects and report as a person sees them.
fn shown(imported: &Imported) -> String {
    let line = |problem: &Problem| format!("# {:?}: {problem}\n", problem.severity);
    imported.yaml() + &imported.report.iter().map(line).collect::<String>()
}

/// What was imported is a folder that `ironcast check` passes.
fn passes(imported: &Imported) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("imported.yaml"), imported.yaml()).expect("written");
    let report = check(folder.path(), &settings()).expect("a folder that can be read");
    let missing_secret = |problem: &&Problem| !problem.field.starts_with("spec.passwordSecret");
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(errors.filter(missing_secret).count(), 0, "{report}");
}

#[test]
fn metallb_resources() {
    let imported = sample(Predecessor::MetalLb, "metallb.yaml");
    passes(&imported);
    insta::assert_snapshot!(shown(&imported));
}

#[test]
fn metallb_config_map() {
    let imported = sample(Predecessor::MetalLb, "metallb-configmap.yaml");
    passes(&imported);
    insta::assert_snapshot!(shown(&imported));
}

#[test]
fn kube_vip() {
    let imported = sample(Predecessor::KubeVip, "kube-vip.yaml");
    passes(&imported);
    insta::assert_snapshot!(shown(&imported));
}

#[test]
fn cpem() {
    let imported = sample(Predecessor::Cpem, "cpem.yaml");
    passes(&imported);
    assert!(!shown(&imported).contains("hush"), "a password or token is shown");
    insta::assert_snapshot!(shown(&imported));
}

/// `10.0.0.1:AS65001:hush`: the number has letters before it.
#[test]
fn a_peer_of_kube_vip_that_cannot_be_read_shows_no_password() {
    let env = serde_json::json!([
        {"name": "bgp_enable", "value": "true"},
        {"name": "bgp_peers", "value": "10.0.0.1:AS65001:hush:false"},
    ]);
    let pods = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-vip-ds"},
        "spec": {"template": {"spec": {"containers": [{"image": "kube-vip", "env": env}]}}},
    });
    let imported = import(Predecessor::KubeVip, &[pods], "here", &settings());
    let shown = shown(&imported);
    assert!(shown.contains("10.0.0.1") && !shown.contains("hush"), "{shown}");
}

#[test]
fn a_field_that_nobody_reads_is_reported_and_left_out() {
    let pool = serde_json::json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "a"},
        "spec": {"addresses": ["192.0.2.0/24"], "colour": "blue"},
    });
    let imported = import(Predecessor::MetalLb, &[pool], "here", &settings());
    assert!(!imported.complete());
    assert_eq!(imported.report[0].field, "spec.colour");
    assert_eq!(imported.objects[0].pointer("/spec/colour"), None);
}

#[test]
fn half_an_import_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, "kind: A\n---\nbad: [\n").expect("written");
    let error = read(std::slice::from_ref(&file)).expect_err("broken");
    assert!(error.to_string().contains("a.yaml, line"), "{error}");
    assert!(matches!(read(&[folder.path().join("none")]), Err(ImportError::Read { .. })));
}
