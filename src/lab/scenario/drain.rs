//! A node is drained by its operator while requests go on: its routes leave, nothing new fails, and it comes
//! back when told so.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{ROUTE_WITHIN, address, all_names, answered, nodes_with_pods, routes, sessions};
use crate::lab::{
    build::ourselves,
    manifests::ServiceSpec,
    site::Node,
    stage::{Lab, Stop},
};

/// A request every so often while it happens.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests go on so long before and after.
const AROUND: Duration = Duration::from_secs(2);
/// `ironcast drain` ends within this.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let (nodes, on) = (all_names(&lab.site), nodes_with_pods(&lab.site));
    let web = ServiceSpec::new("web");
    let to = address(lab, &web).await?;
    routes(lab, "route to web", to, &nodes, ROUTE_WITHIN).await?;
    for (family, to) in ["IPv4", "IPv6"].into_iter().zip(to) {
        answered(lab, &format!("HTTP over {family}"), to, 80, on).await?;
    }
    let drained = lab.site.nodes[0].clone();
    let left: Vec<String> = nodes.iter().filter(|n| **n != drained.name).cloned().collect();
    let traffic = lab.client.traffic(to.map(|ip| SocketAddr::new(ip, 80)).to_vec(), PAUSE);
    tokio::time::sleep(AROUND).await;

    lab.report.note(format!("ironcast drain on {}", drained.name));
    let told = Instant::now();
    tell(lab, &drained, &[]).await?;
    routes(lab, "route leaves the drained node", to, &left, ROUTE_WITHIN).await?;
    lab.report.timing("drain to route moved", told.elapsed());
    tokio::time::sleep(AROUND).await;

    lab.report.note(format!("ironcast drain --undo on {}", drained.name));
    let told = Instant::now();
    tell(lab, &drained, &["--undo"]).await?;
    routes(lab, "route returns", to, &nodes, ROUTE_WITHIN).await?;
    lab.report.timing("drain undone to route complete", told.elapsed());
    tokio::time::sleep(AROUND).await;

    let tally = traffic.stop().await?;
    let seen = format!("{} answered, {} not connected", tally.answered(), tally.not_connected);
    lab.verify(
        "new requests meanwhile",
        "no new connection fails",
        &seen,
        tally.not_connected == 0 && tally.answered() > 0,
    )?;
    // A rehash hands established connections to nodes that do not know them. Only the XDP path mends that;
    // requests are short here, so it is rare, and it is said.
    if lab.datapath.is_ours() {
        lab.verify("established meanwhile", "no connection is cut", &format!("{} cut", tally.cut), tally.cut == 0)?;
    }
    let cut = u32::try_from(tally.cut).map_or(f64::NAN, f64::from);
    lab.report.figure("cut by the rehash", cut, "established connections");
    Ok(())
}

/// Runs `ironcast drain` as an operator on the node would.
pub(super) async fn tell(lab: &Lab, node: &Node, flags: &[&str]) -> anyhow::Result<()> {
    let mut command = node.namespace.command(&ourselves());
    command.arg("drain").arg("--socket").arg(lab.socket(&node.name)).args(flags);
    let output = tokio::time::timeout(TOLD_WITHIN, command.output()).await??;
    if !output.status.success() {
        bail!("ironcast drain on {}: {}: {}", node.name, output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
