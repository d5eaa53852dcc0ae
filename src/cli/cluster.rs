//! The cluster as its nodes describe it: one row per node, one per Service. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    columns::{Columns, list},
    status::is_up,
};
use crate::{
    source::members::Member,
    types::{NodeState, Problem, ServiceState},
};

/// What `ironcast status` knows of a cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterState {
    nodes: Vec<NodeRow>,
    services: Vec<ServiceRow>,
    problems: Vec<Problem>,
    /// Services of which no row is shown: a `BGPNodeStatus` has the first 500.
    services_cut: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    node: String,
    /// As Kubernetes says; absent where that is not known.
    ready: Option<bool>,
    /// Absent where no daemon wrote anything.
    version: Option<String>,
    leader: bool,
    /// It has seen its whole source, and Kubernetes does not call it not ready.
    works: bool,
    sessions_up: usize,
    sessions: usize,
    routes: usize,
    packet_path: BTreeSet<String>,
    /// What keeps it from its work, in words.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    service: String,
    addresses: Vec<std::net::IpAddr>,
    pool: Option<String>,
    endpoints: usize,
    pending: Option<String>,
    announced_by: Vec<String>,
    /// Nodes by the reason why they do not.
    withheld: BTreeMap<String, Vec<String>>,
}

impl ClusterState {
    pub(super) fn of(members: &[Member]) -> Self {
        let states: Vec<&NodeState> = members.iter().filter_map(|member| member.state.as_ref()).collect();
        let problems: BTreeSet<&Problem> = states.iter().flat_map(|state| &state.problems).collect();
        let total = members.iter().filter_map(|member| member.totals).map(|totals| totals.services).max();
        let services = services(&states);
        let shown = i64::try_from(services.len()).unwrap_or(i64::MAX);
        Self {
            nodes: members.iter().map(node).collect(),
            services,
            problems: problems.into_iter().cloned().collect(),
            services_cut: (total.unwrap_or_default() - shown).max(0),
        }
    }

    /// Every daemon has seen its whole source, and every session is up.
    pub(super) fn is_healthy(&self) -> bool {
        self.nodes.iter().all(|node| node.works && node.sessions_up == node.sessions)
    }

    pub(super) fn table(&self) -> String {
        let daemons = self.nodes.iter().filter(|node| node.version.is_some()).count();
        let leader = self.nodes.iter().find(|node| node.leader).map(|node| node.node.as_str());
        let leader =
            leader.map_or("nobody gives out addresses".to_owned(), |name| format!("{name} gives out addresses"));
        let mut text = format!("Cluster · {} nodes · {daemons} daemons · {leader}\n\n", self.nodes.len());
        text += &self.node_table();
        match self.services.is_empty() {
            true => text += "\nNo Service of type LoadBalancer.\n",
            false => text += &format!("\n{}", self.service_table()),
        }
        if self.services_cut > 0 {
            text += &format!("{} more; `ironcast status` on a node shows all.\n", self.services_cut);
        }
        if !self.problems.is_empty() {
            text += "\nPROBLEMS\n";
            self.problems.iter().for_each(|problem| text += &format!("  {problem}\n"));
        }
        text
    }

    fn node_table(&self) -> String {
        let mut table = Columns::new(["NODE", "READY", "SESSIONS", "ROUTES", "PACKET PATH", "VERSION", "NOTES"]);
        for node in &self.nodes {
            let ready = node.ready.map_or("", |ready| if ready { "yes" } else { "no" });
            table.push([
                node.node.clone(),
                ready.into(),
                node.version
                    .as_ref()
                    .map(|_| format!("{} of {} up", node.sessions_up, node.sessions))
                    .unwrap_or_default(),
                node.version.as_ref().map(|_| node.routes.to_string()).unwrap_or_default(),
                list(&node.packet_path),
                node.version.clone().unwrap_or_default(),
                node.notes.join("; "),
            ]);
        }
        table.render()
    }

    fn service_table(&self) -> String {
        let mut table = Columns::new(["SERVICE", "ADDRESSES", "POOL", "ENDPOINTS", "ANNOUNCED BY"]);
        for row in &self.services {
            table.push([
                row.service.clone(),
                list(&row.addresses),
                row.pool.clone().unwrap_or_default(),
                row.endpoints.to_string(),
                row.verdict(),
            ]);
        }
        table.render()
    }
}

impl ServiceRow {
    fn verdict(&self) -> String {
        if let Some(pending) = &self.pending {
            return format!("pending: {pending}");
        }
        let not = self.withheld.iter().map(|(reason, nodes)| format!("not by {}: {reason}", nodes.join(" ")));
        let by = if self.announced_by.is_empty() { "nobody".into() } else { self.announced_by.join(" ") };
        std::iter::once(by).chain(not).collect::<Vec<_>>().join("; ")
    }
}

fn node(member: &Member) -> NodeRow {
    let Some(state) = &member.state else {
        return NodeRow {
            node: member.name.clone(),
            ready: member.ready,
            version: None,
            leader: false,
            works: true,
            sessions_up: 0,
            sessions: 0,
            routes: 0,
            packet_path: BTreeSet::new(),
            notes: vec![],
        };
    };
    let uplinks = state.datapath.iter().flat_map(|path| &path.uplinks);
    NodeRow {
        node: member.name.clone(),
        ready: member.ready,
        version: Some(state.version.clone()),
        leader: state.leader,
        works: state.source.complete && member.ready != Some(false),
        sessions_up: state.sessions.iter().filter(|session| is_up(session)).count(),
        sessions: state.sessions.len(),
        routes: state.sessions.iter().map(|session| session.advertised).sum(),
        packet_path: uplinks.map(|uplink| uplink.mode.clone()).collect(),
        notes: notes(member, state),
    }
}

fn notes(member: &Member, state: &NodeState) -> Vec<String> {
    let mut notes = Vec::new();
    if member.ready == Some(false) {
        notes.push("the node is not ready; the rest is what it wrote last".into());
    }
    if !state.source.complete {
        notes.push("waits for the first complete list".into());
    }
    match state.leaving {
        _ if state.draining => notes.push("drains".into()),
        Some(_) => notes.push("leaves (cordoned, or a maintenance taint)".into()),
        None => {}
    }
    for session in state.sessions.iter().filter(|session| !is_up(session)) {
        let why = session.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        notes.push(format!("{} is {}{why}", session.peer, session.state));
    }
    notes
}

/// The leader knows best what a Service has; who announces it, each node says of itself.
fn services(states: &[&NodeState]) -> Vec<ServiceRow> {
    let mut rows: BTreeMap<&str, ServiceRow> = BTreeMap::new();
    let leader_first = states.iter().filter(|s| s.leader).chain(states.iter().filter(|s| !s.leader));
    for service in leader_first.flat_map(|state| &state.services) {
        rows.entry(&service.service).or_insert_with(|| row(service));
    }
    for state in states {
        let told: BTreeSet<&str> = state.routes.iter().flat_map(|route| &route.services).map(String::as_str).collect();
        for name in told {
            rows.get_mut(name).into_iter().for_each(|row| row.announced_by.push(state.node.clone()));
        }
        let withheld: BTreeSet<(&str, String)> =
            state.withheld.iter().map(|entry| (entry.service.as_str(), reason(entry))).collect();
        for (name, reason) in withheld {
            let Some(row) = rows.get_mut(name) else { continue };
            row.withheld.entry(reason).or_default().push(state.node.clone());
        }
    }
    rows.into_values().collect()
}

fn reason(entry: &crate::types::WithheldState) -> String {
    match &entry.peer {
        Some(peer) => format!("{} (to {peer})", entry.reason),
        None => entry.reason.clone(),
    }
}

fn row(service: &ServiceState) -> ServiceRow {
    ServiceRow {
        service: service.service.clone(),
        addresses: service.addresses.clone(),
        pool: service.pool.clone(),
        endpoints: service.endpoints,
        pending: service.pending.clone(),
        announced_by: vec![],
        withheld: BTreeMap::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::status::tests::example, *};

    /// `n1` as in the example, `n2` with everything up and announced, `n3` without a daemon.
    pub(in crate::cli) fn three() -> Vec<Member> {
        let first = example();
        let mut second = NodeState { node: "n2".into(), leader: false, ..example() };
        second.sessions.truncate(1);
        second.withheld.clear();
        second.routes[0].services.push("default/api".into());
        let member = |name: &str, state: Option<NodeState>| Member {
            name: name.into(),
            ready: Some(name != "n1"),
            state,
            totals: None,
        };
        vec![member("n1", Some(first)), member("n2", Some(second)), member("n3", None)]
    }

    #[test]
    fn table_has_a_row_per_node_and_says_who_announces_a_service() {
        let state = ClusterState::of(&three());
        insta::assert_snapshot!(state.table(), @r#"
        Cluster · 3 nodes · 2 daemons · n1 gives out addresses

        NODE  READY  SESSIONS   ROUTES  PACKET PATH  VERSION  NOTES
        n1    no     1 of 2 up  1       -            0.1.0    the node is not ready; the rest is what it wrote last; tor-b is Active: connection refused
        n2    yes    1 of 1 up  1       -            0.1.0    -
        n3    yes    -          -       -            -        -

        SERVICE      ADDRESSES    POOL  ENDPOINTS  ANNOUNCED BY
        default/api  203.0.113.2  edge  2          n2; not by n1: noEndpoints
        default/new  -            -     2          pending: pool edge is full
        default/web  203.0.113.1  edge  2          n1 n2

        PROBLEMS
          pools.yaml: IPAddressPool old: spec.addresses[0]: "x" is no range; write a CIDR
        "#);
        assert!(!state.is_healthy());
        assert!(ClusterState::of(&three()[1..]).is_healthy(), "a node without a daemon is no fault");
    }
}
