//! `ironcast status`: what this node, or every node of a cluster, announces, to whom, and what it does not.

use std::{collections::BTreeSet, fmt::Write as _, io::IsTerminal, net::SocketAddr, time::Duration};

use super::{
    Output,
    asked::{Asked, Found, From},
    cluster::ClusterState,
    columns::{Columns, age, list},
    live, page,
};
use crate::{
    admin::client,
    datapath::query::FlowList,
    types::{BfdState, DatapathState, NodeState, ServiceState, SessionState},
};

/// Flags of `ironcast status`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    from: From,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,

    /// Print what was counted, and the connections that this node's memory has, at most so many
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100",
          conflicts_with_all = ["cluster", "kubeconfig", "node", "page"])]
    flows: Option<usize>,

    /// Look again every so many seconds until q or Ctrl-C: a live view on a terminal, else printed again
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,

    /// Show it as a page at this address of this machine, until Ctrl-C
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:7473",
          conflicts_with = "watch")]
    page: Option<SocketAddr>,
}

/// Prints the state, once or again and again. `true` if every daemon has seen its whole source and every session is up.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    let asked = match args.flows {
        Some(_) => Asked::Daemon(args.from.socket()),
        None => args.from.open().await?,
    };
    if let Some(address) = args.page {
        return page::serve(address, &asked).await;
    }
    let look = async || text(&args, &asked).await;
    let Some(seconds) = args.watch else {
        let (text, healthy) = look().await?;
        super::print(&text);
        return Ok(healthy);
    };
    let pause = Duration::from_secs(seconds);
    if std::io::stdout().is_terminal() && matches!(args.output, Output::Table) {
        return live::show(pause, look).await;
    }
    loop {
        super::print(&look().await?.0);
        tokio::time::sleep(pause).await;
    }
}

/// What is printed, and whether all is well.
async fn text(args: &Args, asked: &Asked<'_>) -> anyhow::Result<(String, bool)> {
    if let Some(limit) = args.flows {
        let flows = client::question(args.from.socket(), &format!("/flows?limit={limit}")).await?;
        let text = match args.output {
            Output::Table => flow_table(&flows),
            output => super::structured(&flows, output)?,
        };
        return Ok((text, true));
    }
    Ok(match (asked.look().await?, args.output) {
        (Found::Node(state), Output::Table) => (table(&state), healthy(&state)),
        (Found::Node(state), output) => (super::structured(&*state, output)?, healthy(&state)),
        (Found::Cluster(members), output) => {
            let state = ClusterState::of(&members);
            let text = match output {
                Output::Table => state.table(),
                output => super::structured(&state, output)?,
            };
            (text, state.is_healthy())
        }
    })
}

fn healthy(state: &NodeState) -> bool {
    state.source.complete && state.sessions.iter().all(is_up)
}

pub(super) fn is_up(session: &SessionState) -> bool {
    session.state == "Established"
}

fn table(state: &NodeState) -> String {
    let mut text = headline(state);
    if state.sessions.is_empty() {
        text += "\nNo BGP session: no BGPPeer selects this node.\n";
    } else {
        let _ = write!(text, "\n{}", sessions(state));
    }
    if let Some(path) = &state.datapath {
        let _ = write!(text, "\n{}", datapath(path));
    }
    if state.services.is_empty() {
        text += "\nNo Service of type LoadBalancer.\n";
    } else {
        let _ = write!(text, "\n{}", services(state));
    }
    if !state.problems.is_empty() {
        text += "\nPROBLEMS\n";
        for problem in &state.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    text
}

pub(super) fn headline(state: &NodeState) -> String {
    let mut words = vec![format!("Node {}", state.node), format!("ironcast {}", state.version)];
    words.push(match state.source.complete {
        true => state.source.kind.clone(),
        false => format!("{} (waiting for the first complete list)", state.source.kind),
    });
    if state.leader {
        words.push("gives out addresses".into());
    }
    match state.leaving {
        _ if state.draining => words.push("DRAINING (`ironcast drain --undo` ends it)".into()),
        Some(_) => words.push("LEAVING (cordoned, or a maintenance taint)".into()),
        None => {}
    }
    words.join(" · ") + "\n"
}

fn sessions(state: &NodeState) -> String {
    let mut table =
        Columns::new(["PEER", "ADDRESS", "STATE", "SINCE", "BFD", "LOCAL AS", "PEER AS", "ROUTES", "LAST ERROR"]);
    for s in &state.sessions {
        table.push([
            s.peer.clone(),
            s.address.to_string(),
            s.state.clone(),
            age(Duration::from_secs(s.since_seconds)),
            s.bfd.as_ref().map(path).unwrap_or_default(),
            s.local_asn.to_string(),
            s.remote_asn.map(|a| a.to_string()).unwrap_or_default(),
            s.advertised.to_string(),
            s.last_error.clone().or_else(|| s.bfd.as_ref()?.problem.clone()).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn datapath(path: &DatapathState) -> String {
    let mut text = String::new();
    if !path.uplinks.is_empty() {
        let mut table = Columns::new(["UPLINK", "PACKET PATH", "WHY NOT BETTER"]);
        for uplink in &path.uplinks {
            table.push([uplink.interface.clone(), uplink.mode.clone(), uplink.failed.join("; ")]);
        }
        text += &table.render();
    }
    if !path.unreachable.is_empty() {
        let _ = writeln!(text, "No way is known to {}.", list(&path.unreachable));
    }
    if let Some(problem) = &path.problem {
        let _ = writeln!(text, "Packet path: {problem}");
    }
    text
}

fn flow_table(list: &FlowList) -> String {
    let mut text = String::new();
    if !list.services.is_empty() {
        let mut table = Columns::new(["SERVICE", "DELIVERED", "ENCAPSULATED", "CHAINED", "REFUSED", "BYTES"]);
        for (name, n) in &list.services {
            let [delivered, encapsulated, chained, refused, bytes] =
                [n.delivered, n.encapsulated, n.chained, n.refused, n.bytes].map(|n| n.to_string());
            table.push([name.clone(), delivered, encapsulated, chained, refused, bytes]);
        }
        text += &(table.render() + "\n");
    }
    if !list.packets.is_empty() {
        let mut table = Columns::new(["PACKETS", "COUNT"]);
        list.packets.iter().for_each(|(word, n)| table.push([word.clone(), n.to_string()]));
        text += &(table.render() + "\n");
    }
    if list.flows.is_empty() {
        return text + "No connection to a pod of this node.\n";
    }
    let mut table = Columns::new(["SERVICE ADDRESS", "PROTOCOL", "CLIENT", "POD", "STATE"]);
    for f in &list.flows {
        table.push([f.vip.to_string(), f.protocol.clone(), f.client.to_string(), f.pod.to_string(), f.state.clone()]);
    }
    let more = if list.more { "There are more; see --flows N.\n" } else { "" };
    text + &table.render() + more
}

/// `up 30ms`: the state, and the silence that it bears.
fn path(bfd: &BfdState) -> String {
    match bfd.state.as_str() {
        "up" => format!("up {}ms", bfd.detection_milliseconds),
        state => state.into(),
    }
}

fn services(state: &NodeState) -> String {
    let mut table = Columns::new(["SERVICE", "ADDRESSES", "POOL", "ENDPOINTS", "ON THIS NODE"]);
    for s in &state.services {
        table.push([
            s.service.clone(),
            list(&s.addresses),
            s.pool.clone().unwrap_or_default(),
            s.endpoints.to_string(),
            verdict(state, s),
        ]);
    }
    table.render()
}

/// One line about a Service on this node: to whom it is announced, and why not to others.
pub(super) fn verdict(state: &NodeState, service: &ServiceState) -> String {
    if let Some(pending) = &service.pending {
        return format!("pending: {pending}");
    }
    let told: BTreeSet<&str> =
        state.routes.iter().filter(|r| r.services.contains(&service.service)).map(|r| r.peer.as_str()).collect();
    let mut words = Vec::new();
    if !told.is_empty() {
        words.push(format!("announced to {}", list(told)));
    }
    for entry in state.withheld.iter().filter(|w| w.service == service.service) {
        words.push(match &entry.peer {
            Some(peer) => format!("withheld from {peer}: {}", entry.reason),
            None => format!("withheld: {}", entry.reason),
        });
    }
    if words.is_empty() {
        words.push("not announced yet: no session is up".into());
    }
    words.join("; ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::{Family, ObjectRef, Problem, RouteState, Severity, SourceState, UplinkState, WithheldState};

    pub(in crate::cli) fn example() -> NodeState {
        let session = |peer: &str, state: &str, error: Option<&str>| SessionState {
            peer: peer.into(),
            address: [192, 0, 2, 1].into(),
            state: state.into(),
            since_seconds: 312,
            local_asn: 64512,
            remote_asn: (state == "Established").then_some(64500),
            families: vec!["ipv4-unicast".into()],
            capabilities: vec!["four-octet-as".into()],
            hold_time_seconds: Some(90),
            advertised: usize::from(state == "Established"),
            last_error: error.map(Into::into),
            established_count: 1,
            unacknowledged: (state == "Established").then_some(0),
            bfd: (peer == "tor-a").then(|| BfdState {
                profile: "fast".into(),
                state: "up".into(),
                detection_milliseconds: 30,
                ..BfdState::default()
            }),
        };
        let service = |name: &str, address: Option<[u8; 4]>, pending: Option<&str>| ServiceState {
            service: name.into(),
            addresses: address.into_iter().map(Into::into).collect(),
            pool: address.map(|_| "edge".into()),
            pool_reason: address.map(|_| "the pool is for every Service".into()),
            families: vec![Family::Ipv4],
            pending: pending.map(Into::into),
            endpoints: 2,
        };
        NodeState {
            node: "n1".into(),
            version: "0.1.0".into(),
            source: SourceState { kind: "manifests".into(), complete: true },
            leader: true,
            sessions: vec![
                session("tor-a", "Established", None),
                session("tor-b", "Active", Some("connection refused")),
            ],
            services: vec![
                service("default/web", Some([203, 0, 113, 1]), None),
                service("default/api", Some([203, 0, 113, 2]), None),
                service("default/new", None, Some("pool edge is full")),
            ],
            routes: vec![RouteState {
                prefix: "203.0.113.1/32".into(),
                peer: "tor-a".into(),
                services: vec!["default/web".into()],
                communities: vec!["64512:100".into()],
                med: None,
                local_pref: None,
            }],
            withheld: vec![WithheldState {
                service: "default/api".into(),
                peer: None,
                reason: "noEndpoints".into(),
                detail: "no endpoint takes traffic; check the pods".into(),
            }],
            problems: vec![Problem {
                object: ObjectRef::new("IPAddressPool", "", "old"),
                field: "spec.addresses[0]".into(),
                message: "\"x\" is no range".into(),
                hint: "write a CIDR".into(),
                severity: Severity::Error,
                file: Some("pools.yaml".into()),
            }],
            ..NodeState::default()
        }
    }

    #[test]
    fn table_shows_sessions_services_and_problems() {
        insta::assert_snapshot!(table(&example()), @r#"
        Node n1 · ironcast 0.1.0 · manifests · gives out addresses

        PEER   ADDRESS    STATE        SINCE  BFD      LOCAL AS  PEER AS  ROUTES  LAST ERROR
        tor-a  192.0.2.1  Established  5m12s  up 30ms  64512     64500    1       -
        tor-b  192.0.2.1  Active       5m12s  -        64512     -        0       connection refused

        SERVICE      ADDRESSES    POOL  ENDPOINTS  ON THIS NODE
        default/web  203.0.113.1  edge  2          announced to tor-a
        default/api  203.0.113.2  edge  2          withheld: noEndpoints
        default/new  -            -     2          pending: pool edge is full

        PROBLEMS
          pools.yaml: IPAddressPool old: spec.addresses[0]: "x" is no range; write a CIDR
        "#);
    }

    #[test]
    fn session_that_is_down_is_not_healthy() {
        let mut state = example();
        assert!(!healthy(&state));
        state.sessions.pop();
        assert!(healthy(&state));
        state.source.complete = false;
        assert!(!healthy(&state));
    }

    #[test]
    fn packet_path_says_how_it_serves_and_why_not_better() {
        let uplink = UplinkState {
            interface: "eth0".into(),
            mode: "generic".into(),
            failed: vec!["native: attach native XDP to eth0: Operation not supported".into()],
        };
        let path = DatapathState {
            uplinks: vec![uplink],
            generation: Some(7),
            addresses: 2,
            unreachable: vec!["n2".into(), "n3".into()],
            problem: Some("slots: 3 are more than the 2 that the packet path has room for".into()),
        };
        insta::assert_snapshot!(datapath(&path), @r"
        UPLINK  PACKET PATH  WHY NOT BETTER
        eth0    generic      native: attach native XDP to eth0: Operation not supported
        No way is known to n2, n3.
        Packet path: slots: 3 are more than the 2 that the packet path has room for
        ");
    }

    #[test]
    fn flows_are_listed_by_the_address_that_clients_use() {
        let flow = |client: &str, state: &str| crate::datapath::query::FlowAnswer {
            vip: "192.0.2.10:80".parse().expect("valid"),
            protocol: "tcp".into(),
            client: client.parse().expect("valid"),
            pod: "10.1.1.5:8080".parse().expect("valid"),
            state: state.into(),
        };
        let flows = vec![flow("198.51.100.7:40000", "established"), flow("198.51.100.8:1", "handshake")];
        let counted = crate::types::ServiceTraffic { delivered: 5, bytes: 600, ..Default::default() };
        let list = FlowList {
            flows,
            more: true,
            packets: [("chained".into(), 3)].into(),
            services: [("shop/web".into(), counted)].into(),
        };
        insta::assert_snapshot!(flow_table(&list), @r"
        SERVICE   DELIVERED  ENCAPSULATED  CHAINED  REFUSED  BYTES
        shop/web  5          0             0        0        600

        PACKETS  COUNT
        chained  3

        SERVICE ADDRESS  PROTOCOL  CLIENT              POD            STATE
        192.0.2.10:80    tcp       198.51.100.7:40000  10.1.1.5:8080  established
        192.0.2.10:80    tcp       198.51.100.8:1      10.1.1.5:8080  handshake
        There are more; see --flows N.
        ");
    }

    #[test]
    fn draining_node_says_so_first() {
        let state = NodeState { draining: true, ..example() };
        assert!(table(&state).lines().next().expect("a line").contains("DRAINING"));
    }
}
