//! Daemons are killed, started again and upgraded one by one under load. The programs in the kernel go on without
//! them, and a new daemon swaps its own in: not one packet is lost, and no connection notices. With `--previous` they begin as
//! another version, and in the end go back to it.

use std::{net::SocketAddr, time::Duration};

use super::{ROUTE_WITHIN, SESSIONS_WITHIN, address, all_names, heard, routes, sessions};
use crate::lab::{
    connections::Connections,
    manifests::ServiceSpec,
    site::ECHO_PORTS,
    stage::{Lab, Observation, Stop},
};

/// What stays open.
const CONNECTIONS: usize = 300;
/// Streams of datagrams to each address.
const STREAMS: usize = 3;
/// A node is without its daemon for so long.
const AWAY: Duration = Duration::from_secs(1);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let nodes = all_names(&lab.site);
    let tcp = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("tcp") };
    let udp = ServiceSpec { protocol: "UDP", ..ServiceSpec { name: "udp".into(), ..tcp.clone() } };
    let mut to = Vec::new();
    for service in [&tcp, &udp] {
        let addresses = address(lab, service).await?;
        routes(lab, &format!("route to {}", service.name), addresses, &nodes, ROUTE_WITHIN).await?;
        to.push(addresses.map(|ip| SocketAddr::new(ip, 7)).to_vec());
    }
    let connections = lab.client.connect(to[0].clone(), CONNECTIONS).await?;
    let datagrams = lab.client.datagrams(&to[1], STREAMS);
    heard(lab, &connections, "at rest").await?;

    let previous = lab.renew_program();
    renew(lab, &connections, "upgrade").await?;
    if previous != lab.program {
        lab.program = previous;
        renew(lab, &connections, "downgrade").await?;
    }
    let count = datagrams.stop().await?;
    let seen = format!("{} sent, {} back", count.sent, count.back);
    lab.verify("datagrams meanwhile", "every one comes back", &seen, count.sent == count.back && count.sent > 0)
}

/// Ends each daemon and starts the lab's program in its place.
async fn renew(lab: &mut Lab, connections: &Connections, what: &str) -> Result<(), Stop> {
    for (n, node) in lab.site.nodes.clone().iter().enumerate() {
        // The first as by a fault, the others as by an upgrade.
        if n == 0 {
            lab.report.note(format!("{what} of the daemon on {} after kill -9", node.name));
            lab.kill_daemon(&node.name).await?;
        } else {
            lab.report.note(format!("{what} of the daemon on {}", node.name));
            lab.stop_daemon(&node.name).await?;
        }
        tokio::time::sleep(AWAY).await;
        heard(lab, connections, &format!("{} without daemon", node.name)).await?;
        lab.start_daemon(node)?;
        lab.expect_seen(&format!("{} is back", node.name), "2 sessions Established", SESSIONS_WITHIN, |seen| {
            let up = seen.established(&node.name);
            Observation { seen: format!("{up} of 2 Established"), ok: up == 2 }
        })
        .await?;
        heard(lab, connections, &format!("{} with its new daemon", node.name)).await?;
    }
    Ok(())
}
