//! A node dies: its daemon by kill -9, then its cable is pulled. The node that dies is the one that allocates,
//! if one does, so that the work has to move too. The lab plays the controller that finds the node's pods gone.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{ROUTE_WITHIN, address, all_names, answered, nodes_with_pods, precise, routes, sessions};
use crate::lab::{
    build,
    connections::Connections,
    manifests::ServiceSpec,
    site::{ECHO_PORTS, Node},
    stage::{Lab, Observation, Stop},
};

/// The hold time, 9 s, and what a router needs beyond it.
const SHRINKS_WITHIN: Duration = Duration::from_secs(15);
/// A request every so often while it happens.
const PAUSE: Duration = Duration::from_millis(10);
/// Routers of other makes wait before they take a peer back.
const RETURNS_WITHIN: Duration = Duration::from_secs(30);
/// Connections that stay open, with XDP.
const HELD: usize = 600;
/// A connection to nobody is given up within this.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
/// Requests go on so long after the loss.
const CALM: Duration = Duration::from_secs(2);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let (nodes, on) = (all_names(&lab.site), nodes_with_pods(&lab.site));
    let web = ServiceSpec::new("web");
    let to = address(lab, &web).await?;
    routes(lab, "route to web", to, &nodes, ROUTE_WITHIN).await?;
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family}"), to, 80, on).await?;
    }

    let echo = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("echo") };
    let held = held(lab, &echo, &nodes).await?;
    let seen = lab.seen();
    let lost =
        lab.site.nodes.iter().find(|n| Some(n.name.as_str()) == seen.leader()).unwrap_or(&lab.site.nodes[0]).clone();
    let left: Vec<String> = nodes.iter().filter(|n| **n != lost.name).cloned().collect();
    let sockets = to.map(|ip| SocketAddr::new(ip, 80)).to_vec();
    let traffic = lab.client.traffic(sockets.clone(), PAUSE);

    lab.report
        .note(format!("{} dies: its daemon is killed, its cable pulled, it and its pods are not ready", lost.name));
    let died = Instant::now();
    build::cut(&lost).await?;
    lab.kill_daemon(&lost.name).await?;
    lab.manifests.put_node(&lost, false, false)?;
    lab.put_without(&web, Some(&lost.name))?;
    lab.put_without(&echo, Some(&lost.name))?;
    routes(lab, "route leaves the lost node", to, &left, SHRINKS_WITHIN).await?;
    lab.report.timing("node lost to route shrunk", died.elapsed());
    let on_left = if lost.pods.is_empty() { on } else { on - 1 };
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family} without {}", lost.name), to, 80, on_left).await?;
    }
    // Those that were sent into the gap are counted; those that begin now must all be answered.
    lab.report.figure("failed between loss and recovery", precise(traffic.stop().await?.failed()), "requests");
    calm(lab, sockets.clone()).await?;
    if let Some(held) = &held {
        only_its_own_died(lab, held, &lost).await?;
    }
    let later = ServiceSpec::new("later");
    let to_later = address(lab, &later).await?;
    routes(lab, "route to later, without the lost node", to_later, &left, ROUTE_WITHIN).await?;

    lab.report.note(format!("{} returns", lost.name));
    let traffic = lab.client.traffic(sockets, PAUSE);
    let back = Instant::now();
    build::mend(&lost).await?;
    lab.start_daemon(&lost)?;
    lab.manifests.put_node(&lost, true, false)?;
    lab.put(&web)?;
    lab.put(&echo)?;
    lab.expect_seen("sessions return", "2 sessions Established", RETURNS_WITHIN, |seen| {
        let up = seen.established(&lost.name);
        Observation { seen: format!("{up} of 2 Established"), ok: up == 2 }
    })
    .await?;
    routes(lab, "route returns to the node", to, &nodes, ROUTE_WITHIN).await?;
    lab.report.timing("node returned to route complete", back.elapsed());
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family} with all nodes"), to, 80, on).await?;
    }
    let back = traffic.stop().await?;
    let seen = format!("{} answered, {} not connected", back.answered(), back.not_connected);
    lab.verify("new requests while it returns", "no new connection fails", &seen, back.not_connected == 0)?;
    if let Some(held) = &held {
        only_its_own_died(lab, held, &lost).await?;
    }
    let kept = lab.seen().addresses(&web.key());
    lab.verify("addresses kept", &super::words(&to), &super::words(&kept), kept == to)
}

/// After the loss everything is as it was.
async fn calm(lab: &Lab, to: Vec<SocketAddr>) -> Result<(), Stop> {
    let traffic = lab.client.traffic(to, PAUSE);
    tokio::time::sleep(CALM).await;
    let after = traffic.stop().await?;
    let seen = format!("{} answered, {} failed", after.answered(), after.failed());
    let ok = after.failed() == 0 && after.answered() > 0;
    lab.verify("requests after the loss", "every request answered", &seen, ok)
}

/// With XDP: connections that stay open all the while.
async fn held(lab: &mut Lab, echo: &ServiceSpec, nodes: &[String]) -> Result<Option<Connections>, Stop> {
    if !lab.datapath.is_ours() {
        return Ok(None);
    }
    let to = address(lab, echo).await?;
    routes(lab, "route to echo", to, nodes, ROUTE_WITHIN).await?;
    let sockets = to.map(|ip| SocketAddr::new(ip, echo.port)).to_vec();
    Ok(Some(lab.client.connect(sockets, HELD).await?))
}

/// Connections to pods of the lost node hang or end; all others go on, wherever they enter now.
async fn only_its_own_died(lab: &mut Lab, held: &Connections, lost: &Node) -> Result<(), Stop> {
    let mark = held.mark();
    let pods = |lab: &Lab| {
        let own = |pod: &String| lab.site.node_of(pod).is_some_and(|n| n.name == lost.name);
        let (mut its_own, mut others) = ([0, 0], [0, 0]);
        for (pod, [alive, dead]) in held.by_pod() {
            let sum = if own(&pod) { &mut its_own } else { &mut others };
            *sum = [sum[0] + alive, sum[1] + dead];
        }
        (its_own, others)
    };
    let name = format!("{HELD} connections, with {} lost", lost.name);
    lab.expect(&name, "only those to its pods are dead", DEAD_WITHIN, async |lab: &Lab| {
        let ([its_alive, its_dead], [alive, dead]) = pods(lab);
        let seen = format!("of its pods {its_dead} dead, {its_alive} not yet; of others {dead} dead, {alive} alive");
        Ok(Observation { seen, ok: its_alive == 0 && its_dead > 0 && dead == 0 && held.behind(&mark, 2) == 0 })
    })
    .await?;
    Ok(())
}
