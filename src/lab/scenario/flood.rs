//! SYNs from forged sources, as fast as the machine gives, at the addresses that hundreds of connections are open to.
//! They were opened before pods were scaled and the router spread anew, so that most of them live by the nodes' memory
//! alone. None may break, and who comes meanwhile is served, as far as the queues before the nodes let him through.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;

use super::{ROUTE_WITHIN, address, all_names, heard, precise, routes, sessions};
use crate::lab::{
    build, flood,
    manifests::{Condition, ServiceSpec},
    observe::Seen,
    site::{ECHO_PORTS, Node},
    stage::{Lab, Observation, Stop},
};

/// What stays open.
const CONNECTIONS: usize = 600;
/// Forged SYNs.
const SYNS: u32 = 500_000;
/// Between two requests of clients that are there.
const PACE: Duration = Duration::from_millis(25);
/// Nodes say what they counted every second.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    build::swallow(&lab.site.router, flood::SOURCES).await?;
    let nodes = all_names(&lab.site);
    let held = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("held") };
    let web = ServiceSpec::new("web");
    let few = |node: &Node, pod: &str| match node.pods.first().is_some_and(|first| first.name == pod) {
        true => Condition::Ready,
        false => Condition::Gone,
    };
    lab.put_with(&held, few)?;
    let mut to = Vec::new();
    for service in [&held, &web] {
        let addresses = match service.name.as_str() {
            "held" => super::addressed(lab, service).await?,
            _ => address(lab, service).await?,
        };
        routes(lab, &format!("route to {}", service.name), addresses, &nodes, ROUTE_WITHIN).await?;
        to.push(addresses.map(|ip| SocketAddr::new(ip, service.port)).to_vec());
    }
    let connections = lab.client.connect(to[0].clone(), CONNECTIONS).await.context("open the connections")?;
    heard(lab, &connections, "at rest").await?;
    lab.report.note("pods are scaled up, and the router spreads anew");
    lab.put(&held)?;
    lab.respread(1)?;
    heard(lab, &connections, "most owners are others now").await?;

    let before = delivered(&lab.seen());
    lab.report.note(format!("{SYNS} forged SYNs to {} addresses", to.concat().len()));
    let traffic = lab.client.traffic(to[1].clone(), PACE);
    let (client, targets) = (lab.site.client.clone(), to.concat());
    let flooding = tokio::task::spawn_blocking(move || client.inside(move || flood::syns(&targets, SYNS)));
    let sent = flooding.await.context("the flood's thread")???;
    let tally = traffic.stop().await?;
    heard(lab, &connections, "after the flood").await?;

    let rate = f64::from(sent.packets) / sent.took.as_secs_f64();
    lab.report.figure("forged SYNs given", f64::from(sent.packets), "packets");
    lab.report.figure("forged SYNs a second", rate, "packets/s");
    // Beyond what the nodes' queues hold, frames are lost before anybody of ours sees them.
    let expected = format!("more than a fifth of {} reach a pod", sent.packets);
    lab.expect_seen("packets at pods meanwhile", &expected, COUNTED_WITHIN, |seen| {
        let arrived = delivered(seen) - before;
        Observation { seen: format!("{arrived} at {rate:.0} a second"), ok: arrived > u64::from(sent.packets / 5) }
    })
    .await?;
    lab.report.figure("packets at pods meanwhile", precise(delivered(&lab.seen()) - before), "packets");
    // Three SYNs of one request may be among what is lost so.
    let (answered, all) = (tally.answered(), tally.answered() + tally.failed());
    let seen = format!("{answered} of {all} answered, {} cut", tally.cut);
    lab.verify("requests meanwhile", "nine of ten are answered", &seen, answered * 10 >= all * 9 && answered > 0)
}

/// Packets that were delivered to pods, on all nodes.
fn delivered(seen: &Seen) -> u64 {
    let services =
        seen.alive().filter_map(|state| state.traffic.as_ref()).flat_map(|traffic| traffic.services.values());
    services.map(|service| service.delivered).sum()
}
