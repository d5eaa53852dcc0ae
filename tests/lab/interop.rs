//! The interop matrix: every router fills its row, asserted on the router's side.

use std::{
    collections::BTreeMap,
    fmt::Write,
    process::{Output, Stdio},
    thread,
};

use serde_json::Value;

use super::{alone, is_possible, program, scenarios::is_installed};

const ROUTERS: [&str; 4] = ["bird", "frr", "gobgp", "exabgp"];
/// No row may leave one out.
const CELLS: [&str; 31] = [
    "v4",
    "v6",
    "both-over-v4",
    "both-over-v6",
    "extended-next-hop",
    "unnumbered",
    "md5",
    "md5-wrong-key",
    "tcp-ao",
    "gtsm",
    "gtsm-missing",
    "gr-restart",
    "gr-stop",
    "long-lived-gr",
    "bfd",
    "bfd-multihop",
    "bfd-sha1",
    "add-path",
    "add-path-two",
    "link-bandwidth",
    "role",
    "role-wrong",
    "extended-messages",
    "communities",
    "extended-communities",
    "dynamic-as",
    "dynamic-as-wrong",
    "wrong-as",
    "wrong-family",
    "local-as",
    "local-as-prepend",
];

/// Rows side by side: they share nothing, and most of their time they wait.
fn rows(routers: &[&'static str]) -> Vec<(&'static str, Output)> {
    let start = |router: &&'static str| {
        let mut command = program();
        command.args(["--router", router, "--scenario", "interop", "--json", "--timeout", "150"]);
        (*router, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts"))
    };
    // A child with a full pipe would wait for its reader.
    let readers: Vec<_> = routers
        .iter()
        .map(start)
        .map(|(router, child)| (router, thread::spawn(|| child.wait_with_output().expect("our child"))))
        .collect();
    readers.into_iter().map(|(router, reader)| (router, reader.join().expect("a verdict"))).collect()
}

/// By cell: `ok`, `n/a` with the reason, or what failed.
fn row(verdict: &Value) -> BTreeMap<String, String> {
    let mut row = BTreeMap::new();
    for expectation in verdict["expectations"].as_array().into_iter().flatten() {
        let word = |key: &str| expectation[key].as_str().unwrap_or_default();
        let cell = word("name").split(':').next().unwrap_or_default().to_owned();
        let result = match (expectation["ok"] == true, word("expected")) {
            (true, "n/a") => word("seen").to_owned(),
            (true, _) => "ok".to_owned(),
            (false, expected) => format!("FAILED {}: expected {expected}, seen {}", word("name"), word("seen")),
        };
        // The first failure of a cell is the one to know.
        let known = row.entry(cell).or_insert_with(|| result.clone());
        if known == "ok" {
            *known = result;
        }
    }
    row
}

/// As a table, reasons below.
fn table(rows: &BTreeMap<&str, BTreeMap<String, String>>) -> String {
    let mut text = format!("{:22}", "");
    rows.keys().for_each(|router| _ = write!(text, "{router:8}"));
    let mut notes = String::new();
    for cell in CELLS {
        let _ = write!(text, "\n{cell:22}");
        for (router, row) in rows {
            let result = row.get(cell).map_or("ABSENT", String::as_str);
            let _ = write!(text, "{:8}", result.split([' ', ':']).next().unwrap_or_default());
            if result.contains(' ') {
                let _ = write!(notes, "\n{router}: {cell}: {result}");
            }
        }
    }
    text + &notes
}

#[test]
fn every_router_fills_its_row_of_the_matrix() {
    if !is_possible() {
        return;
    }
    let routers: Vec<&str> = ROUTERS.into_iter().filter(|router| is_installed(router)).collect();
    let _alone = alone();
    let outputs = rows(&routers);
    let mut rows = BTreeMap::new();
    for (router, output) in &outputs {
        let log = String::from_utf8_lossy(&output.stderr);
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{router}: {e}\n{log}"));
        rows.insert(*router, row(&verdict));
        assert_eq!(verdict["router"], *router);
    }
    let matrix = table(&rows);
    println!("{matrix}");
    for (router, output) in &outputs {
        let row = &rows[router];
        assert!(CELLS.iter().all(|cell| row.contains_key(*cell)), "{router} leaves out a cell\n{matrix}");
        assert_eq!(row.len(), CELLS.len(), "{router} has a cell that this test does not know\n{matrix}");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{router}\n{matrix}\n{log}");
    }
}
