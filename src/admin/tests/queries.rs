//! The queries of `deploy/monitoring` against the page: a metric, a label or a word that the daemon does not have would
//! give an alert that never fires and a panel that stays empty.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::plan::Withhold;

/// Labels by name of the sample, and the values seen of each.
type Page = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// What Prometheus adds, and the chart's PodMonitor.
const SCRAPED: [&str; 3] = ["instance", "job", "node"];

fn labels(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        // `=~`, `!=`, `!~` of a query.
        let regular = after.trim_start_matches('~').trim_start_matches('"');
        let (value, after) = regular.split_once('"').expect("a value ends");
        all.push((name.trim_matches([' ', ',', '\n', '!']).to_owned(), value.to_owned()));
        rest = after;
    }
    all
}

fn page() -> Page {
    let facts = Fixed::default();
    let metrics = Metrics::default();
    metrics.planned(std::time::Duration::from_micros(50));
    let text = metrics.encode(&facts.state(), facts.figures());
    let mut page = Page::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let of_name = page.entry(name.to_owned()).or_default();
        let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
        for (label, value) in labels(inside) {
            of_name.entry(label).or_default().insert(value);
        }
    }
    page
}

/// Values that a label may have beyond those of the page's one example.
fn words(metric: &str, label: &str) -> Option<BTreeSet<String>> {
    let all = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    match (metric, label) {
        ("ironcast_plan_withheld", "reason") => Some(Withhold::ALL.iter().map(|w| w.as_str().to_owned()).collect()),
        ("ironcast_datapath_packets_total", "reason") => {
            Some(Reason::ALL.iter().map(|r| r.word().to_owned()).collect())
        }
        ("ironcast_datapath_uplink", "mode") => all(&["native", "generic", "tcx", "announce-only"]),
        _ => None,
    }
}

/// The queries of alerts and dashboard, each with the texts that name labels of its answer.
fn queries() -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("readable");
    let alerts: Value = serde_norway::from_str(&read("alerts.yaml")).expect("YAML");
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules = list(&alerts, "groups").into_iter().flat_map(|group| list(&group, "rules"));
    let rules = rules.map(|rule| (text(&rule["expr"]), rule["annotations"].to_string().replace("$labels.", "")));
    let targets = list(&dashboard, "panels").into_iter().flat_map(|panel| list(&panel, "targets"));
    let targets = targets.map(|target| (text(&target["expr"]), text(&target["legendFormat"])));
    let variables = list(&dashboard["templating"], "list").into_iter().filter(|variable| variable["type"] == "query");
    let variables = variables.map(|variable| {
        // label_values(metric, label)
        let query = text(&variable["query"]);
        let (metric, label) = query.trim_start_matches("label_values(").split_once(", ").expect("two arguments");
        (metric.to_owned(), format!("{{{{{}}}}}", label.trim_end_matches(')')))
    });
    rules.chain(targets).chain(variables).collect()
}

/// `{{ label }}` of a text.
fn named(text: &str) -> Vec<&str> {
    let inside = text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next());
    inside.filter_map(|word| word.split_whitespace().next()).filter(|word| !word.starts_with('$')).collect()
}

/// Names of our metrics in a query, each with its matchers.
fn selectors(query: &str) -> Vec<(&str, Vec<(String, String)>)> {
    let mut all = Vec::new();
    for (at, _) in query.match_indices("ironcast_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let inside = after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(inside, _)| inside);
        all.push((name, labels(inside)));
    }
    all
}

#[test]
fn alerts_and_dashboard_ask_for_what_the_page_has() {
    let page = page();
    let mut asked = BTreeSet::new();
    for (query, texts) in queries() {
        let mut known: BTreeSet<&str> = SCRAPED.into();
        for (name, matchers) in selectors(&query) {
            let labels = page.get(name).unwrap_or_else(|| panic!("no metric {name}: {query}"));
            known.extend(labels.keys().map(String::as_str));
            for (label, value) in matchers.iter().filter(|(label, _)| !SCRAPED.contains(&label.as_str())) {
                let seen = labels.get(label).unwrap_or_else(|| panic!("{name} has no label {label}: {query}"));
                let words = words(name, label).unwrap_or_else(|| seen.clone());
                let unknown = value.split('|').find(|word| !word.starts_with('$') && !words.contains(*word));
                assert_eq!(unknown, None, "{name} has no such {label}, but {words:?}: {query}");
            }
            asked.insert(name.trim_end_matches("_bucket").to_owned());
        }
        for keyword in ["by (", "on (", "ignoring ("] {
            for list in query.split(keyword).skip(1).filter_map(|rest| rest.split(')').next()) {
                let unknown = list.split(',').map(str::trim).find(|label| !known.contains(label));
                assert_eq!(unknown, None, "{query}");
            }
        }
        let unknown = named(&texts).into_iter().find(|label| !known.contains(label));
        assert_eq!(unknown, None, "{texts}: {query}");
    }
    assert!(asked.len() > 20, "{asked:?}");
}

#[test]
fn what_the_page_has_not_is_noticed() {
    let page = page();
    let found = selectors(r#"rate(ironcast_bgp_messages_total{peer=~"a|b",kind!="open"}[5m]) / ironcast_leader"#);
    let matchers = vec![("peer".to_owned(), "a|b".to_owned()), ("kind".to_owned(), "open".to_owned())];
    assert_eq!(found, [("ironcast_bgp_messages_total", matchers), ("ironcast_leader", vec![])]);
    assert!(page.contains_key("ironcast_leader") && !page.contains_key("ironcast_leaders"));
    assert!(page["ironcast_bgp_messages_total"]["kind"].contains("route-refresh"));
    assert_eq!(named("{{instance}} x {{ peer }} {{ $value | humanize }}"), ["instance", "peer"]);
}
