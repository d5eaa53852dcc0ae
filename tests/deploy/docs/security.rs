//! docs/security.md lists capabilities, rights and `unsafe` files; the manifests and the sources have the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::tools::{documents, path, text};

const PAGE: &str = "docs/security.md";

/// Cells of the rows whose first cell has one of these.
fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let page = text(PAGE);
    let cells = |line: &str| line.split('|').skip(1).map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    page.lines().filter(|line| line.starts_with('|')).map(cells).filter(|cells| wanted(&cells[0])).collect()
}

/// What stands between backticks.
fn codes(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn objects() -> Vec<Value> {
    documents(&text("deploy/manifests/ironcast.yaml")).expect("YAML")
}

#[test]
fn capabilities_are_those_of_the_manifests() {
    let all = objects();
    let set = all.iter().find(|object| object["kind"] == "DaemonSet").expect("a DaemonSet");
    let context = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(
        (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
        (&true.into(), &false.into())
    );
    let mut given: BTreeSet<String> = strings(&context["capabilities"]["add"]).into_iter().collect();
    // Only with `daemon.listen`.
    assert!(given.insert("NET_BIND_SERVICE".into()));
    let is_capability =
        |cell: &str| cell.starts_with('`') && cell.chars().all(|c| c == '`' || c == '_' || c.is_ascii_uppercase());
    let named: BTreeSet<String> = rows(is_capability).iter().flat_map(|cells| codes(&cells[0])).collect();
    assert_eq!(named, given);
}

/// By place and resource; `status` of a resource of ours, which is only patched, stands with the resource.
#[test]
fn rights_are_those_of_the_manifests() {
    let mut given: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for object in objects() {
        let place = match object["kind"].as_str() {
            Some("ClusterRole") => "cluster",
            Some("Role") => "own namespace",
            _ => continue,
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            for resource in strings(&rule["resources"]) {
                let verbs = strings(&rule["verbs"]);
                if place == "own namespace" && resource.ends_with("/status") {
                    assert_eq!(verbs, ["patch"], "{resource}");
                    continue;
                }
                given.entry((place, resource)).or_default().extend(verbs);
            }
        }
    }
    let mut named: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    let rows = rows(|cell| ["cluster", "own namespace"].contains(&cell));
    for cells in &rows {
        for resource in codes(&cells[1]) {
            let verbs = cells[2].split(", ").map(str::to_owned).collect();
            named.insert((&cells[0], resource), verbs);
        }
    }
    assert_eq!(named, given);
}

#[test]
fn unsafe_is_in_the_files_that_are_named() {
    let mut found = BTreeSet::new();
    for folder in ["src", "bgp/src"] {
        with_unsafe(folder, &mut found);
    }
    let named = rows(|cell| cell.ends_with(".rs`"));
    assert_eq!(named.iter().flat_map(|cells| codes(&cells[0])).collect::<BTreeSet<String>>(), found);
}

/// Every row of what was tried names a file and a test that stands there.
#[test]
fn what_was_tried_is_a_test() {
    let page = text(PAGE);
    let table = page.split("## Tried and survived").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("there");
    let rows: Vec<Vec<String>> = table.lines().filter(|line| line.starts_with("| ")).skip(1).map(codes).collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for codes in rows {
        let [.., file, name] = &codes[..] else { panic!("{codes:?} names no test") };
        let code = text(file);
        assert!(code.contains(&format!("fn {name}(")) || code.contains(&format!("{name}: \"")), "{file}: {name}");
    }
}

fn with_unsafe(folder: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(path(folder)).expect("a folder") {
        let name = format!("{folder}/{}", entry.expect("readable").file_name().to_string_lossy());
        if path(&name).is_dir() {
            with_unsafe(&name, found);
        } else if Path::new(&name).extension().is_some_and(|ending| ending == "rs") && !name.ends_with("tests.rs") {
            let code = text(&name);
            found.extend(
                (code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl"))
                    .then_some(name),
            );
        }
    }
}
