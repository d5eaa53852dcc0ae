//! The whole path once: a Service appears, gets addresses, is announced, is answered; with both traffic
//! policies and both families; it goes, and its routes go.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use super::{ANSWERS_WITHIN, ROUTE_WITHIN, address, all_names, answered, nodes_with_pods, routes, sessions};
use crate::lab::{
    client::Tally,
    manifests::ServiceSpec,
    site::CLIENT,
    stage::{Lab, Stop},
};

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let (nodes, on) = (all_names(&lab.site), nodes_with_pods(&lab.site));

    let web = ServiceSpec::new("web");
    let written = Instant::now();
    let to = address(lab, &web).await?;
    routes(lab, "route to web", to, &nodes, ROUTE_WITHIN).await?;
    lab.report.timing("Service written to ECMP route in the router's kernel", written.elapsed());
    for ((family, to), client) in ["IPv4", "IPv6"].into_iter().zip(to).zip(CLIENT) {
        let tally = answered(lab, &format!("HTTP over {family}"), to, 80, on).await?;
        if lab.datapath.is_ours() {
            kept(lab, family, &tally, client)?;
            continue;
        }
        let through: BTreeSet<&str> =
            tally.seen_as.iter().filter_map(|ip| lab.site.node_at(*ip)).map(|n| n.name.as_str()).collect();
        let expected = "requests entered through several nodes";
        lab.verify(
            &format!("spread over {family}"),
            expected,
            &format!("through {}", Vec::from_iter(through.iter().copied()).join(" ")),
            through.len() > 1,
        )?;
    }
    lab.report.timing("Service written to everything answered", written.elapsed());

    local(lab, &nodes).await?;

    lab.report.note("Service default/web is deleted");
    let deleted = Instant::now();
    lab.delete(&web)?;
    routes(lab, "route to web goes", to, &[], ROUTE_WITHIN).await?;
    lab.report.timing("Service deleted to route gone", deleted.elapsed());
    let key = web.key();
    lab.expect_seen("addresses of web return", "no address", ROUTE_WITHIN, |seen| {
        let addresses = seen.addresses(&key);
        super::Observation { seen: super::words(&addresses), ok: addresses.is_empty() }
    })
    .await?;
    Ok(())
}

/// Pods saw the client itself.
fn kept(lab: &Lab, what: &str, tally: &Tally, client: IpAddr) -> Result<(), Stop> {
    let seen: Vec<String> = tally.seen_as.iter().map(ToString::to_string).collect();
    let name = format!("client's address over {what}");
    lab.verify(&name, &client.to_string(), &seen.join(" "), tally.seen_as == [client].into())
}

/// `Local`: only nodes with a pod take packets, and pods see the client itself.
async fn local(lab: &mut Lab, nodes: &[String]) -> Result<(), Stop> {
    let with_pods: Vec<String> = lab.site.nodes.iter().filter(|n| !n.pods.is_empty()).map(|n| n.name.clone()).collect();
    // One node stays without a pod, where there are enough.
    let chosen = with_pods[..with_pods.len().min(nodes.len() - 1)].to_vec();
    let service = ServiceSpec { local: true, nodes: chosen.clone(), ..ServiceSpec::new("local") };
    let to = address(lab, &service).await?;
    routes(lab, "route to local, nodes with its pods only", to, &chosen, ROUTE_WITHIN).await?;
    for ((family, to), client) in ["IPv4", "IPv6"].into_iter().zip(to).zip(CLIENT) {
        let tally = answered(lab, &format!("HTTP with policy Local over {family}"), to, 80, chosen.len()).await?;
        kept(lab, &format!("{family} with policy Local"), &tally, client)?;
    }
    lab.delete(&service)?;
    routes(lab, "route to local goes", to, &[], ANSWERS_WITHIN).await?;
    Ok(())
}
