//! `ironcast explain`: why a Service is, or is not, announced by this node, and what to do next.

use std::{fmt::Write as _, time::Duration};

use anyhow::bail;
use serde::Serialize;

use super::{
    Output, Target,
    columns::{age, list},
    status::{headline, is_up},
};
use crate::{
    admin::client,
    types::{NodeState, Problem, RouteState, ServiceState, SessionState, WithheldState},
};

mod packet;

/// Flags of `ironcast explain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Why a Service is, or is not, announced by this node
    Service {
        /// NAMESPACE/NAME; a name alone is in `default`
        #[arg(value_name = "NAMESPACE/NAME")]
        service: String,
        #[command(flatten)]
        common: Common,
    },
    /// Where this node sends a packet: asks the program in the kernel, and compares it with the reference
    Packet(packet::Args),
    /// How this node stands: its source, its sessions, what it withholds
    Node {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    target: Target,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Explains. `false` where the node does not know the Service.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let (common, service) = match args.what {
        What::Packet(args) => return packet::run(args).await,
        What::Service { service, common } => (common, Some(service)),
        What::Node { common } => (common, None),
    };
    let state = client::state(&common.target.socket).await?;
    let Some(name) = service else {
        let text = match common.output {
            Output::Table => node(&state),
            output => super::structured(&NodeVerdict::new(&state), output)?,
        };
        super::print(&text);
        return Ok(true);
    };
    let name = if name.contains('/') { name } else { format!("default/{name}") };
    if name.split('/').filter(|part| !part.is_empty()).count() != 2 {
        bail!("{name:?} is not NAMESPACE/NAME");
    }
    let verdict = Verdict::new(&state, &name);
    let text = match common.output {
        Output::Table => verdict.text(&state),
        output => super::structured(&verdict, output)?,
    };
    super::print(&text);
    Ok(verdict.service.is_some())
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
            let from = entry.peer.as_ref().map(|p| format!(" (from {p})")).unwrap_or_default();
            let _ = writeln!(text, "  withheld   {}{from}", entry.reason);
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
        (some, Some(pool)) => format!("{} of pool {pool}", list(some)),
        (some, None) => list(some),
    }
}

fn announced(state: &NodeState, route: &RouteState) -> String {
    let mut text = format!("{} to {}", route.prefix, route.peer);
    if let Some(session) = state.sessions.iter().find(|s| s.peer == route.peer) {
        let since = age(Duration::from_secs(session.since_seconds));
        let _ = write!(text, " ({}, {} for {since})", session.address, session.state);
    }
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

fn no_session(state: &NodeState) -> Vec<String> {
    if state.sessions.is_empty() {
        return vec!["no BGPPeer selects this node: create one, or widen its nodeSelectors".into()];
    }
    state.sessions.iter().filter_map(session_step).collect()
}

/// What to do about a session that is not up.
fn session_step(session: &SessionState) -> Option<String> {
    if is_up(session) {
        return path_step(session);
    }
    let SessionState { peer, address, state, local_asn, .. } = session;
    let cause = match &session.last_error {
        Some(error) => error.clone(),
        None => match state.as_str() {
            "OpenSent" | "OpenConfirm" => format!(
                "{address} took the connection but has not agreed: check that it has this node as neighbour, \
                 with AS {local_asn}"
            ),
            _ => format!(
                "no TCP connection with {address} yet: check the route there, a firewall on port 179, and that the \
                 router has this node as neighbour"
            ),
        },
    };
    Some(format!("session {peer} is {state}: {cause}"))
}

/// What to do about BFD that does not watch a session that is up.
fn path_step(session: &SessionState) -> Option<String> {
    let SessionState { peer, address, bfd, .. } = session;
    let bfd = bfd.as_ref().filter(|bfd| bfd.state != "up")?;
    let cause = match (&bfd.problem, bfd.remote_state.as_deref()) {
        (Some(problem), _) => problem.clone(),
        (None, Some("admin-down")) => format!("{address} has switched it off"),
        (None, _) => format!(
            "check that {address} runs BFD for this node, on one hop or several as BGPPeer {peer} says, and a \
             firewall on UDP port 3784 (one hop) or 4784 (several)"
        ),
    };
    Some(format!("BFD of session {peer} is {}, so a dead path is noticed by the hold time only: {cause}", bfd.state))
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

fn node(state: &NodeState) -> String {
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
    use super::{super::status::tests::example, *};

    #[test]
    fn announced_service_shows_peer_and_communities() {
        insta::assert_snapshot!(Verdict::new(&example(), "default/web").text(&example()), @r"
        Service default/web on node n1
          addresses  203.0.113.1 of pool edge
          endpoints  2 in the cluster take traffic
          announced  203.0.113.1/32 to tor-a (192.0.2.1, Established for 5m12s), communities 64512:100
        ");
    }

    #[test]
    fn withheld_service_shows_the_reason_and_the_next_step() {
        insta::assert_snapshot!(Verdict::new(&example(), "default/api").text(&example()), @r"
        Service default/api on node n1
          addresses  203.0.113.2 of pool edge
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
    fn node_lists_sessions_that_are_down_with_their_cause() {
        insta::assert_snapshot!(node(&example()), @r#"
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
