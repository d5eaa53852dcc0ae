//! `ironcast explain service`: which pool and why, who announces it to whom with which attributes, who does not and why,
//! what to do next.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::bail;
use serde::Serialize;

use super::{Common, Found, session::no_session};
use crate::{
    cli::{
        Output,
        columns::{age, list},
        print, structured,
    },
    types::{NodeState, Problem, RouteState, ServiceState, WithheldState},
};

/// Explains. `false` where nobody knows the Service.
pub(super) async fn run(name: String, common: &Common) -> anyhow::Result<bool> {
    let name = if name.contains('/') { name } else { format!("default/{name}") };
    if name.split('/').filter(|part| !part.is_empty()).count() != 2 {
        bail!("{name:?} is not NAMESPACE/NAME");
    }
    let (states, alone) = match common.from.open().await?.look().await? {
        Found::Node(state) => (vec![*state], true),
        Found::Cluster(members) => (members.into_iter().filter_map(|member| member.state).collect(), false),
    };
    let verdicts: Vec<Verdict<'_>> = states.iter().map(|state| Verdict::new(state, &name)).collect();
    let text = match (common.output, alone) {
        (Output::Table, true) => verdicts[0].text(&states[0]),
        (Output::Table, false) => across(&name, &states, &verdicts),
        (output, true) => structured(&verdicts[0], output)?,
        (output, false) => structured(&verdicts, output)?,
    };
    print(&text);
    Ok(verdicts.iter().any(|verdict| verdict.service.is_some()))
}

/// What there is to say about one Service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    node: &'a str,
    name: &'a str,
    service: Option<&'a ServiceState>,
    routes: Vec<&'a RouteState>,
    withheld: Vec<&'a WithheldState>,
    problems: Vec<&'a Problem>,
    next: Vec<String>,
}

impl<'a> Verdict<'a> {
    fn new(state: &'a NodeState, name: &'a str) -> Self {
        let service = state.services.iter().find(|s| s.service == name);
        let routes: Vec<_> = state.routes.iter().filter(|r| r.services.iter().any(|s| s == name)).collect();
        let withheld: Vec<_> = state.withheld.iter().filter(|w| w.service == name).collect();
        let about = |p: &&Problem| format!("{}/{}", p.object.namespace, p.object.name) == name;
        let problems: Vec<_> = state.problems.iter().filter(about).collect();
        let mut verdict = Self { node: &state.node, name, service, routes, withheld, problems, next: vec![] };
        verdict.next = verdict.steps(state);
        verdict
    }

    /// What to do, most important first.
    fn steps(&self, state: &NodeState) -> Vec<String> {
        let mut steps: Vec<String> = self.problems.iter().map(|p| p.to_string()).collect();
        let Some(service) = self.service else {
            steps.extend(unknown(state, self.name));
            return steps;
        };
        steps.extend(service.pending.clone());
        for entry in &self.withheld {
            if !steps.contains(&entry.detail) {
                steps.push(entry.detail.clone());
            }
        }
        if self.routes.is_empty() && self.withheld.is_empty() && service.pending.is_none() {
            steps.extend(no_session(state));
        }
        steps
    }

    fn text(&self, state: &NodeState) -> String {
        let mut text = format!("Service {} on node {}\n", self.name, self.node);
        if let Some(service) = self.service {
            let _ = writeln!(text, "  addresses  {}", addresses(service));
            let _ = writeln!(text, "  endpoints  {} in the cluster take traffic", service.endpoints);
        }
        for route in &self.routes {
            let _ = writeln!(text, "  announced  {}", announced(state, route));
        }
        for entry in &self.withheld {
            let _ = writeln!(text, "  withheld   {}{}", entry.reason, from(entry));
        }
        if !self.next.is_empty() {
            text += "Next:\n";
        }
        for step in &self.next {
            let _ = writeln!(text, "  - {step}");
        }
        text
    }
}

fn addresses(service: &ServiceState) -> String {
    match (service.addresses.as_slice(), &service.pool) {
        ([], _) => "none yet".into(),
        (some, Some(pool)) => {
            let why = service.pool_reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{} of pool {pool}{why}", list(some))
        }
        (some, None) => list(some),
    }
}

fn announced(state: &NodeState, route: &RouteState) -> String {
    let mut text = format!("{} to {}", route.prefix, route.peer);
    let session = state.sessions.iter().find(|s| s.peer == route.peer);
    if let Some(session) = session {
        let since = age(Duration::from_secs(session.since_seconds));
        let _ = write!(text, " ({}, {} for {since})", session.address, session.state);
    }
    text += &attributes(route);
    match session.and_then(|session| session.unacknowledged) {
        Some(0) => text += ", acknowledged by its TCP",
        Some(octets) => drop(write!(text, ", {octets} octets of this session not acknowledged by its TCP yet")),
        None => {}
    }
    text
}

fn attributes(route: &RouteState) -> String {
    let mut text = String::new();
    if !route.communities.is_empty() {
        let _ = write!(text, ", communities {}", list(&route.communities));
    }
    if let Some(med) = route.med {
        let _ = write!(text, ", MED {med}");
    }
    if let Some(preference) = route.local_pref {
        let _ = write!(text, ", local preference {preference}");
    }
    if route.services.len() > 1 {
        let _ = write!(text, ", shared by {}", list(&route.services));
    }
    text
}

fn unknown(state: &NodeState, name: &str) -> Vec<String> {
    if !state.source.complete {
        return vec!["wait: this node has not seen its whole source yet".into()];
    }
    let mut steps = vec![format!(
        "this node knows no Service {name} of its own: check the name, `spec.type: LoadBalancer`, and that \
         spec.loadBalancerClass is the daemon's --load-balancer-class"
    )];
    let bare = name.rsplit('/').next().unwrap_or(name);
    let similar: Vec<&str> =
        state.services.iter().map(|s| s.service.as_str()).filter(|s| s.rsplit('/').next() == Some(bare)).collect();
    if !similar.is_empty() {
        steps.push(format!("did you mean {}?", list(similar)));
    }
    steps
}

/// The Service across the nodes of a cluster: what all say alike is said once.
fn across(name: &str, states: &[NodeState], verdicts: &[Verdict<'_>]) -> String {
    let mut text = format!("Service {name} on {} nodes\n", states.len());
    // Who gives out addresses knows best what the Service has.
    let leader = states.iter().position(|state| state.leader).and_then(|i| verdicts[i].service);
    if let Some(service) = leader.or_else(|| verdicts.iter().find_map(|verdict| verdict.service)) {
        let _ = writeln!(text, "  addresses  {}", addresses(service));
        let _ = writeln!(text, "  endpoints  {} in the cluster take traffic", service.endpoints);
    }
    let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut kept: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut next: Vec<(String, Vec<&str>)> = Vec::new();
    for (state, verdict) in states.iter().zip(verdicts) {
        let routes =
            verdict.routes.iter().map(|route| format!("{} to {}{}", route.prefix, route.peer, attributes(route)));
        routes.for_each(|words| told.entry(words).or_default().push(&state.node));
        for entry in &verdict.withheld {
            kept.entry(format!("{}{}", entry.reason, from(entry))).or_default().push(&state.node);
        }
        for step in &verdict.next {
            match next.iter_mut().find(|(known, _)| known == step) {
                Some((_, nodes)) => nodes.push(&state.node),
                None => next.push((step.clone(), vec![&state.node])),
            }
        }
    }
    for (verb, all) in [("announced", &told), ("withheld ", &kept)] {
        for (words, nodes) in all {
            let _ = writeln!(text, "  {verb}  by {}: {words}", nodes.join(" "));
        }
    }
    if !next.is_empty() {
        text += "Next:\n";
    }
    for (step, nodes) in &next {
        let _ = match nodes.len() == states.len() {
            true => writeln!(text, "  - {step}"),
            false => writeln!(text, "  - {}: {step}", nodes.join(" ")),
        };
    }
    text
}

fn from(entry: &WithheldState) -> String {
    entry.peer.as_ref().map(|peer| format!(" (from {peer})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{cluster::tests::three, status::tests::example};

    #[test]
    fn announced_service_shows_peer_and_communities() {
        insta::assert_snapshot!(Verdict::new(&example(), "default/web").text(&example()), @r"
        Service default/web on node n1
          addresses  203.0.113.1 of pool edge: the pool is for every Service
          endpoints  2 in the cluster take traffic
          announced  203.0.113.1/32 to tor-a (192.0.2.1, Established for 5m12s), communities 64512:100, acknowledged by its TCP
        ");
    }

    #[test]
    fn withheld_service_shows_the_reason_and_the_next_step() {
        insta::assert_snapshot!(Verdict::new(&example(), "default/api").text(&example()), @r"
        Service default/api on node n1
          addresses  203.0.113.2 of pool edge: the pool is for every Service
          endpoints  2 in the cluster take traffic
          withheld   noEndpoints
        Next:
          - no endpoint takes traffic; check the pods
        ");
    }

    #[test]
    fn unknown_service_suggests_the_same_name_elsewhere() {
        let state = example();
        let verdict = Verdict::new(&state, "shop/web");
        assert!(verdict.service.is_none());
        assert_eq!(verdict.next[1], "did you mean default/web?");
    }

    #[test]
    fn cluster_says_once_what_its_nodes_say_alike() {
        let states: Vec<NodeState> = three().into_iter().filter_map(|member| member.state).collect();
        let told = |name: &str| {
            let verdicts: Vec<Verdict<'_>> = states.iter().map(|state| Verdict::new(state, name)).collect();
            across(name, &states, &verdicts)
        };
        insta::assert_snapshot!(told("default/web"), @r"
        Service default/web on 2 nodes
          addresses  203.0.113.1 of pool edge: the pool is for every Service
          endpoints  2 in the cluster take traffic
          announced  by n1: 203.0.113.1/32 to tor-a, communities 64512:100
          announced  by n2: 203.0.113.1/32 to tor-a, communities 64512:100, shared by default/web, default/api
        ");
        insta::assert_snapshot!(told("default/api"), @r"
        Service default/api on 2 nodes
          addresses  203.0.113.2 of pool edge: the pool is for every Service
          endpoints  2 in the cluster take traffic
          announced  by n2: 203.0.113.1/32 to tor-a, communities 64512:100, shared by default/web, default/api
          withheld   by n1: noEndpoints
        Next:
          - n1: no endpoint takes traffic; check the pods
        ");
    }
}
