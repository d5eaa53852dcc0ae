//! A node dies: its daemon by kill -9, then its cable is pulled. The node that dies is the one that allocates,
//! if one does, so that the work has to move too. The lab plays the controller that finds the node's pods gone.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{ROUTE_WITHIN, address, all_names, answered, nodes_with_pods, routes, sessions};
use crate::lab::{
    build,
    manifests::ServiceSpec,
    stage::{Lab, Observation, Stop},
};

/// The hold time, 9 s, and what a router needs beyond it.
const SHRINKS_WITHIN: Duration = Duration::from_secs(15);
/// A request every so often while it happens.
const PAUSE: Duration = Duration::from_millis(10);
/// Routers of other makes wait before they take a peer back.
const RETURNS_WITHIN: Duration = Duration::from_secs(30);
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
    routes(lab, "route leaves the lost node", to, &left, SHRINKS_WITHIN).await?;
    lab.report.timing("node lost to route shrunk", died.elapsed().as_secs_f64());
    let on_left = if lost.pods.is_empty() { on } else { on - 1 };
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family} without {}", lost.name), to, 80, on_left).await?;
    }
    // Those that were sent into the gap are counted; those that begin now must all be answered.
    lab.report.timing("requests failed between loss and recovery", precise(traffic.stop().await?.failed()));
    let traffic = lab.client.traffic(sockets.clone(), PAUSE);
    tokio::time::sleep(CALM).await;
    let after = traffic.stop().await?;
    let seen = format!("{} answered, {} failed", after.answered(), after.failed());
    lab.verify(
        "requests after the loss",
        "every request answered",
        &seen,
        after.failed() == 0 && after.answered() > 0,
    )?;

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
    lab.expect_seen("sessions return", "2 sessions Established", RETURNS_WITHIN, |seen| {
        let up = seen.established(&lost.name);
        Observation { seen: format!("{up} of 2 Established"), ok: up == 2 }
    })
    .await?;
    routes(lab, "route returns to the node", to, &nodes, ROUTE_WITHIN).await?;
    lab.report.timing("node returned to route complete", back.elapsed().as_secs_f64());
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family} with all nodes"), to, 80, on).await?;
    }
    let back = traffic.stop().await?;
    let seen = format!("{} answered, {} not connected", back.answered(), back.not_connected);
    lab.verify("new requests while it returns", "no new connection fails", &seen, back.not_connected == 0)?;
    let kept = lab.seen().addresses(&web.key());
    lab.verify("addresses kept", &super::words(&to), &super::words(&kept), kept == to)
}

/// Counts are far below 2^52.
fn precise(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
