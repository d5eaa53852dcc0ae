use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

fn settings() -> Settings {
    Settings::new("")
}

/// The folder of the first example, to break something in.
fn example() -> TempDir {
    let dir = TempDir::new().expect("folder");
    for entry in fs::read_dir(examples().join("first-light")).expect("there") {
        let path = entry.expect("entry").path();
        fs::copy(&path, dir.path().join(path.file_name().expect("a file"))).expect("copied");
    }
    dir
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/examples")
}

#[track_caller]
fn tells(dir: &TempDir, line: &str) -> CheckReport {
    let report = check(dir.path(), &settings()).expect("readable");
    assert!(report.to_string().lines().any(|l| l.starts_with(line)), "{line:?} is not in\n{report}");
    report
}

/// The example with one more file.
#[track_caller]
fn with(text: &str, line: &str) -> CheckReport {
    let dir = example();
    fs::write(dir.path().join("more.yaml"), text).expect("written");
    let report = tells(&dir, line);
    let web = report.services.iter().find(|service| service.service == "default/web").expect("it is read");
    assert_eq!(web.nodes, ["node-1"], "everything else keeps working\n{report}");
    report
}

fn ours(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: ironcast.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn service(name: &str, annotation: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotation}}}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
    )
}

#[test]
fn every_example_is_without_a_problem_and_announced() {
    let mut seen = 0;
    for entry in fs::read_dir(examples()).expect("there") {
        let dir = entry.expect("entry").path();
        let report = check(&dir, &settings()).expect("readable");
        assert!(report.problems.is_empty(), "{}:\n{report}", dir.display());
        assert!(report.services.iter().all(|s| !s.addresses.is_empty() && !s.nodes.is_empty()), "{report}");
        assert!(!report.services.is_empty());
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn a_report_says_what_every_service_gets() {
    let report = check(&examples().join("dual-stack"), &settings()).expect("readable").to_string();
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(
        lines,
        [
            "Service default/dns: 192.0.2.200, 2001:db8:20::100 of pool reserved, announced by node-2",
            "Service default/web: 192.0.2.0, 2001:db8:10:: of pool public, announced by node-1, node-2",
            "17 objects, 0 errors, 0 warnings"
        ]
    );
}

#[test]
fn malformed_manifest_names_file_and_line() {
    with("apiVersion: v1\nkind: Service\nmetadata: {name: x\nspec: {}\n", "error: File more.yaml: line 4: ");
    let wrong =
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: LoadBalancer, ports: [{port: many}]}\n";
    with(wrong, "error: more.yaml: Service default/x: spec.ports[0].port: invalid type: string \"many\", expected i32");
    with("apiVersion: v1\nmetadata: {name: x}\n", "error: more.yaml: Object x: kind: apiVersion or kind is missing");
    with(
        "apiVersion: ironcast.dev/v1\nkind: BGPPeer\nmetadata: {name: x}\n",
        "error: more.yaml: BGPPeer x: apiVersion: \"ironcast.dev/v1\" is unknown",
    );
    with(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: x}\n",
        "warning: more.yaml: IPAddressPool x: apiVersion: metallb.io/v1beta1 is MetalLB's",
    );
}

#[test]
fn unknown_field_is_named() {
    let pool = ours("IPAddressPool", "x", "{addresses: [198.51.100.0/24], autoasign: true}");
    with(&pool, "warning: more.yaml: IPAddressPool default/x: spec.autoasign: is no field of IPAddressPool");
    let nested =
        ours("BGPPeer", "x", "{myASN: 1, peerASN: 2, peerAddress: 10.0.0.9, nodeSelectors: [{matchLabel: {a: b}}]}");
    with(&nested, "warning: more.yaml: BGPPeer default/x: spec.nodeSelectors[0].matchLabel: is no field of BGPPeer");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: LoadBalancer, ports: [{port: 80, prot: TCP}]}\n";
    with(service, "warning: more.yaml: Service default/x: spec.ports[0].prot: is no field of Service");
}

#[test]
fn overlapping_pools_are_named() {
    let pool = ours("IPAddressPool", "x", "{addresses: [192.0.2.128/25]}");
    with(
        &pool,
        "error: more.yaml: IPAddressPool default/x: spec.addresses[0]: 192.0.2.128-192.0.2.255 overlaps 192.0.2.0-192.0.2.255 of IPAddressPool default/public",
    );
}

#[test]
fn pool_that_holds_a_nodes_address_is_named() {
    let pool = ours("IPAddressPool", "x", "{addresses: [10.0.0.0/24]}");
    with(
        &pool,
        "warning: more.yaml: IPAddressPool default/x: spec.addresses[0]: 10.0.0.0-10.0.0.255 holds a node's own address: 10.0.0.10 of node node-1",
    );
}

#[test]
fn peer_with_asn_0_is_named() {
    let peer = ours("BGPPeer", "x", "{myASN: 0, peerASN: 64513, peerAddress: 10.0.0.2}");
    with(&peer, "error: more.yaml: BGPPeer default/x: spec.myASN: AS number 0 is reserved");
    let peer = ours("BGPPeer", "x", "{myASN: -1, peerASN: 64513, peerAddress: 10.0.0.2}");
    with(&peer, "error: more.yaml: BGPPeer default/x: spec.myASN: invalid value: integer `-1`");
}

#[test]
fn service_that_asks_for_an_address_outside_every_pool_is_named() {
    with(
        &service("x", "metallb.io/loadBalancerIPs: 203.0.113.9"),
        "error: more.yaml: Service default/x: metadata.annotations[metallb.io/loadBalancerIPs]: gets no address (AddressOutsidePools)",
    );
}

#[test]
fn service_that_nobody_announces_is_told_with_the_reason() {
    with(&service("x", ""), "warning: more.yaml: Service default/x: is announced by no node; noEndpoints: ");
    let dir = example();
    fs::remove_file(dir.path().join("node.yaml")).expect("removed");
    tells(&dir, "warning: web.yaml: Service default/web: is announced by no node; there is no Node");
}

#[test]
fn torn_state_file_is_told() {
    let dir = example();
    fs::create_dir(dir.path().join(".ironcast")).expect("made");
    fs::write(dir.path().join(".ironcast/state.json"), "{\"version\": 1, \"serv").expect("written");
    let report = tells(&dir, "error: File .ironcast/state.json: ");
    assert_eq!(report.errors(), 1);
}

#[test]
fn report_is_read_by_machines_too() {
    let dir = example();
    fs::write(dir.path().join("more.yaml"), ours("IPAddressPool", "x", "{addresses: [bad]}")).expect("written");
    let report = serde_json::to_value(check(dir.path(), &settings()).expect("readable")).expect("plain data");
    assert_eq!(report["problems"][0]["severity"], "error");
    assert_eq!(report["problems"][0]["field"], "spec.addresses[0]");
    assert_eq!(report["problems"][0]["file"], "more.yaml");
    assert_eq!(report["services"][0]["addresses"][0], "192.0.2.1");
}
