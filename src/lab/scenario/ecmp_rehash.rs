//! Two thousand connections stay open, over both families and both traffic policies, while everything happens
//! that makes a router rehash or a table change: a node joins, pods come and go, the router spreads anew, a node
//! is drained and returns. With XDP none breaks; without, the report says how many do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{ROUTE_WITHIN, SESSIONS_WITHIN, addressed, drain, nodes_with_pods, packet_path, routes};
use crate::lab::{
    args::DatapathKind,
    connections::Connections,
    manifests::{Condition, ServiceSpec},
    site::{ECHO_PORTS, Node, Site},
    stage::{Lab, Observation, Stop},
};

/// What the clients have open.
const CONNECTIONS: usize = 2000;
/// Rounds that every living connection goes after each change.
const ROUNDS: u64 = 2;
/// For that: two rounds, or the time after which one that hangs is given up.
const TOLD_WITHIN: Duration = Duration::from_secs(12);
/// Longer than everybody takes to see a change of endpoints.
const SETTLED: Duration = Duration::from_millis(300);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    let (old, new) = (nodes_at_first(&lab.site), last(&lab.site));
    sessions_of(lab, &old).await?;
    packet_path(lab)?;
    let few = |node: &Node, pod: &str| is_first(node, pod) && node.name != new.name;
    let services = [service("web", ECHO_PORTS[0], false), service("local", ECHO_PORTS[1], true)];
    let mut to = Vec::new();
    for service in &services {
        let addresses = address_behind(lab, service, &few).await?;
        routes(lab, &format!("route to {}", service.name), addresses, &old, ROUTE_WITHIN).await?;
        to.push(addresses);
    }
    let sockets = to.iter().flatten().map(|ip| SocketAddr::new(*ip, 7)).collect();
    let connections = open(lab, sockets).await?;
    told(lab, &connections, "at rest").await?;

    let all: Vec<String> = old.iter().chain([&new.name]).cloned().collect();
    lab.report.note(format!("{} joins", new.name));
    lab.manifests.put_node(&new, true, true)?;
    lab.start_daemon(&new)?;
    sessions_of(lab, &all).await?;
    routes(lab, "route over the new node", to[0], &all, ROUTE_WITHIN).await?;
    told(lab, &connections, &format!("{} joined", new.name)).await?;

    lab.report.note("pods are scaled up");
    for service in &services {
        lab.put_with(service, |_, _| Condition::Ready)?;
    }
    routes(lab, "route to local, over all nodes", to[1], &all, ROUTE_WITHIN).await?;
    told(lab, &connections, "pods scaled up").await?;

    lab.report.note("the router spreads anew");
    lab.respread(1)?;
    told(lab, &connections, "the router spread anew").await?;

    let drained = lab.site.nodes[0].clone();
    let left: Vec<String> = all.iter().filter(|n| **n != drained.name).cloned().collect();
    lab.report.note(format!("ironcast drain on {}", drained.name));
    drain::tell(lab, &drained, &[]).await?;
    routes(lab, "route leaves the drained node", to[0], &left, ROUTE_WITHIN).await?;
    told(lab, &connections, &format!("{} drained", drained.name)).await?;

    lab.report.note("pods are scaled down to those of the beginning");
    for condition in [Condition::Terminating, Condition::Gone] {
        for service in &services {
            lab.put_with(service, |node, pod| if few(node, pod) { Condition::Ready } else { condition })?;
        }
        tokio::time::sleep(SETTLED).await;
    }
    told(lab, &connections, "pods scaled down").await?;

    lab.report.note(format!("{} returns, and the router spreads anew", drained.name));
    drain::tell(lab, &drained, &["--undo"]).await?;
    routes(lab, "route returns", to[0], &all, ROUTE_WITHIN).await?;
    lab.respread(2)?;
    told(lab, &connections, &format!("{} returned", drained.name)).await?;
    verdict(lab, &connections)
}

/// The last node joins later.
pub(super) fn nodes_at_first(site: &Site) -> Vec<String> {
    site.nodes[..site.nodes.len() - 1].iter().map(|n| n.name.clone()).collect()
}

fn last(site: &Site) -> Node {
    site.nodes[site.nodes.len() - 1].clone()
}

fn is_first(node: &Node, pod: &str) -> bool {
    node.pods.first().is_some_and(|p| p.name == pod)
}

pub(super) fn check(site: &Site) -> anyhow::Result<()> {
    anyhow::ensure!(
        site.nodes.len() >= 3 && nodes_with_pods(site) == site.nodes.len(),
        "ecmp-rehash needs three nodes with a pod on each: give --nodes 3 or more and at least as many --pods"
    );
    Ok(())
}

fn service(name: &str, target: u16, local: bool) -> ServiceSpec {
    ServiceSpec { port: 7, target, local, ..ServiceSpec::new(name) }
}

async fn sessions_of(lab: &mut Lab, names: &[String]) -> Result<(), Stop> {
    let expected = format!("{0} of {0} sessions Established on {1}", 2 * names.len(), names.join(" "));
    lab.expect_seen("sessions", &expected, SESSIONS_WITHIN, |seen| {
        let up: usize = names.iter().map(|name| seen.established(name)).sum();
        Observation { seen: format!("{up} of {} Established", 2 * names.len()), ok: up == 2 * names.len() }
    })
    .await?;
    Ok(())
}

/// Writes a Service with some of the pods behind it.
async fn address_behind(
    lab: &mut Lab,
    service: &ServiceSpec,
    ready: &impl Fn(&Node, &str) -> bool,
) -> Result<[std::net::IpAddr; 2], Stop> {
    let condition = |node: &Node, pod: &str| if ready(node, pod) { Condition::Ready } else { Condition::Gone };
    lab.put_with(service, condition)?;
    lab.report.note(format!("Service {} is written", service.key()));
    addressed(lab, service).await
}

async fn open(lab: &mut Lab, to: Vec<SocketAddr>) -> Result<Connections, Stop> {
    let started = Instant::now();
    // Rules or tables may be a moment behind the route.
    tokio::time::sleep(SETTLED).await;
    let connections = lab.client.connect(to, CONNECTIONS).await.context("open the connections")?;
    lab.report.timing(&format!("{CONNECTIONS} connections opened"), started.elapsed());
    Ok(connections)
}

/// Every connection has gone its rounds since now, or is dead; with XDP none may be.
async fn told(lab: &mut Lab, connections: &Connections, when: &str) -> Result<(), Stop> {
    let xdp = lab.datapath.is_ours();
    let mark = connections.mark();
    let expected = if xdp { "every connection gets its bytes back" } else { "every connection is heard of" };
    lab.expect(when, expected, TOLD_WITHIN, async |_: &Lab| {
        let behind = connections.behind(&mark, ROUNDS);
        let (alive, words) = connections.census();
        Ok(Observation { seen: words, ok: behind == 0 && (!xdp || alive == CONNECTIONS) })
    })
    .await?;
    Ok(())
}

/// Without XDP some must have died: else nothing was shown.
fn verdict(lab: &Lab, connections: &Connections) -> Result<(), Stop> {
    let (alive, words) = connections.census();
    let died = u32::try_from(CONNECTIONS - alive).map_or(f64::NAN, f64::from);
    lab.report.figure(&format!("broken, of {CONNECTIONS}"), died, "connections");
    let kinds = ["Cluster, IPv4", "Cluster, IPv6", "Local, IPv4", "Local, IPv6"];
    for (n, kind) in kinds.into_iter().enumerate() {
        let broken = u32::try_from(connections.broken(n, kinds.len())).map_or(f64::NAN, f64::from);
        let name = format!("broken, of {}: {kind}", CONNECTIONS / kinds.len());
        lab.report.figure(&name, broken, "connections");
    }
    match lab.datapath {
        DatapathKind::None => lab.verify("connections", "some break without XDP", &words, alive < CONNECTIONS),
        _ => lab.verify("connections", "none is reset or stalled", &words, alive == CONNECTIONS),
    }
}
