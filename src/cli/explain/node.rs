//! `ironcast explain node`: how a node stands.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Common, Found, session::no_session};
use crate::{
    cli::{
        Output, print,
        status::{headline, is_up},
        structured,
    },
    types::NodeState,
};

/// Explains one node, or every node of the cluster in turn.
pub(super) async fn run(common: &Common) -> anyhow::Result<bool> {
    let states: Vec<NodeState> = match common.from.open().await?.look().await? {
        Found::Node(state) => vec![*state],
        Found::Cluster(members) => members.into_iter().filter_map(|member| member.state).collect(),
    };
    let verdicts: Vec<NodeVerdict<'_>> = states.iter().map(NodeVerdict::new).collect();
    let text = match (common.output, verdicts.as_slice()) {
        (Output::Table, _) => states.iter().map(text).collect::<Vec<_>>().join("\n"),
        (output, [one]) => structured(one, output)?,
        (output, all) => structured(&all, output)?,
    };
    print(&text);
    Ok(true)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeVerdict<'a> {
    node: &'a str,
    draining: bool,
    source_complete: bool,
    sessions_up: usize,
    sessions: usize,
    prefixes: usize,
    withheld: Vec<(String, usize)>,
    next: Vec<String>,
}

impl<'a> NodeVerdict<'a> {
    fn new(state: &'a NodeState) -> Self {
        let mut withheld: Vec<(String, usize)> = Vec::new();
        for entry in &state.withheld {
            match withheld.iter_mut().find(|(reason, _)| *reason == entry.reason) {
                Some((_, n)) => *n += 1,
                None => withheld.push((entry.reason.clone(), 1)),
            }
        }
        let prefixes: std::collections::BTreeSet<&str> = state.routes.iter().map(|r| r.prefix.as_str()).collect();
        Self {
            node: &state.node,
            draining: state.draining,
            source_complete: state.source.complete,
            sessions_up: state.sessions.iter().filter(|s| is_up(s)).count(),
            sessions: state.sessions.len(),
            prefixes: prefixes.len(),
            withheld,
            next: node_steps(state),
        }
    }
}

fn node_steps(state: &NodeState) -> Vec<String> {
    let mut steps: Vec<String> = state.problems.iter().map(ToString::to_string).collect();
    if !state.source.complete {
        steps.push(format!(
            "the source ({}) is not complete: the daemon's log says which list it waits for",
            state.source.kind
        ));
        return steps;
    }
    match state.leaving {
        _ if state.draining => {
            steps.push("the node drains and announces nothing; `ironcast drain --undo` ends it".into());
        }
        Some(_) => steps.push(
            "the node is cordoned or has a maintenance taint, and leaves to others what they announce; uncordon it, or \
             start with --on-cordon ignore"
                .into(),
        ),
        None => {}
    }
    steps.extend(no_session(state));
    steps
}

fn text(state: &NodeState) -> String {
    let verdict = NodeVerdict::new(state);
    let mut text = headline(state);
    let _ = writeln!(text, "  sessions   {} of {} up", verdict.sessions_up, verdict.sessions);
    let _ = writeln!(text, "  announced  {} prefixes", verdict.prefixes);
    for (reason, n) in &verdict.withheld {
        let detail = state.withheld.iter().find(|w| w.reason == *reason).map_or("", |w| w.detail.as_str());
        let _ = writeln!(text, "  withheld   {n} × {reason}: {detail}");
    }
    if !verdict.next.is_empty() {
        text += "Next:\n";
    }
    for step in &verdict.next {
        let _ = writeln!(text, "  - {step}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::example;

    #[test]
    fn node_lists_sessions_that_are_down_with_their_cause() {
        insta::assert_snapshot!(text(&example()), @r#"
        Node n1 · ironcast 0.1.0 · manifests · gives out addresses
          sessions   1 of 2 up
          announced  1 prefixes
          withheld   1 × noEndpoints: no endpoint takes traffic; check the pods
        Next:
          - pools.yaml: IPAddressPool old: spec.addresses[0]: "x" is no range; write a CIDR
          - session tor-b is Active: connection refused
        "#);
    }

    #[test]
    fn bfd_that_does_not_watch_a_session_says_what_to_check() {
        let mut state = example();
        assert!(!node_steps(&state).iter().any(|step| step.contains("BFD")));
        let bfd = state.sessions[0].bfd.as_mut().expect("tor-a has BFD");
        bfd.state = "down".into();
        let step = node_steps(&state).into_iter().find(|step| step.contains("BFD")).expect("it is said");
        assert!(step.contains("tor-a") && step.contains("hold time") && step.contains("3784"), "{step}");
    }
}
