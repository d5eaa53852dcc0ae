//! Alerts and dashboard as Prometheus reads them. Whether the daemon has the metrics that they ask for is asked of its own
//! page, in `src/admin/tests`.

use serde_json::Value;

use crate::tools::{path, program, run, text};

#[test]
fn promtool_takes_the_alerts_and_they_fire_when_they_should() {
    let Some(mut check) = program("promtool", "prometheus") else { return };
    run(check.args(["check", "rules"]).arg(path("deploy/monitoring/alerts.yaml"))).expect("the rules are right");
    let Some(mut test) = program("promtool", "prometheus") else { return };
    test.args(["test", "rules"]).arg(path("deploy/monitoring/alerts_test.yaml"));
    let output = test.output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_alert_is_tested() {
    let (alerts, tests) = (text("deploy/monitoring/alerts.yaml"), text("deploy/monitoring/alerts_test.yaml"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    let forgotten: Vec<&&str> = names.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(forgotten.is_empty(), "no test fires {forgotten:?}");
}

/// Every query of the dashboard as a rule, so that Prometheus's own parser reads it.
#[test]
fn promtool_takes_every_query_of_the_dashboard() {
    let Some(mut check) = program("promtool", "prometheus") else { return };
    let dashboard: Value = serde_json::from_str(&text("deploy/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let rules: Vec<Value> = queries
        .map(|target| {
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "5m");
            serde_json::json!({"record": "tried", "expr": query.replace("$instance", ".*").replace("$peer", ".*")})
        })
        .collect();
    assert!(rules.len() > 20, "{} queries", rules.len());
    // The same name again and again is no mistake here.
    let groups: Vec<Value> = rules
        .iter()
        .enumerate()
        .map(|(n, rule)| serde_json::json!({"name": format!("query {n}"), "rules": [rule]}))
        .collect();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), serde_json::json!({"groups": groups}).to_string()).expect("written");
    run(check.args(["check", "rules", "--lint=none"]).arg(file.path())).expect("the queries are right");
}

#[test]
fn panels_of_the_dashboard_do_not_overlap_and_have_numbers_of_their_own() {
    let dashboard: Value = serde_json::from_str(&text("deploy/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = std::collections::BTreeSet::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "{} has the number of another", panel["title"]);
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} covers another", panel["title"]);
        }
    }
}
