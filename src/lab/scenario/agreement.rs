//! What scenarios with many Services ask again and again: do all agree, and does everything answer?

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{all_names, both, vip};
use crate::lab::{
    manifests::ServiceSpec,
    site::POD_PORT,
    stage::{Lab, Observation, Stop},
};

/// Every Service has addresses of its own, as they are recorded; the router leads to each over every node, and nowhere
/// else; every session is up.
pub(super) async fn agree(
    lab: &mut Lab,
    name: &str,
    wanted: &BTreeMap<String, ServiceSpec>,
    within: Duration,
) -> Result<(), Stop> {
    let balanced: Vec<&ServiceSpec> = wanted.values().filter(|service| service.load_balancer).collect();
    let nodes = all_names(&lab.site).len();
    let expected =
        format!("{0} Services with 2 addresses of their own, recorded and routed over {nodes} nodes", balanced.len());
    lab.expect(name, &expected, within, async |lab: &Lab| {
        let seen = lab.seen();
        let held: Vec<Vec<IpAddr>> = balanced.iter().map(|service| seen.addresses(&service.key())).collect();
        let complete = held.iter().filter(|addresses| both(addresses).is_some()).count();
        let addresses: BTreeSet<IpAddr> = held.iter().flatten().copied().collect();
        let recorded = lab.manifests.recorded()?;
        let routed: BTreeSet<IpAddr> = seen.routes.keys().filter_map(vip).collect();
        let whole = seen.routes.iter().filter(|(prefix, via)| vip(prefix).is_some() && via.len() == nodes).count();
        let up: usize = lab.site.nodes.iter().map(|node| seen.established(&node.name)).sum();
        let [leaked, stray] = [&recorded, &routed].map(|found| found.difference(&addresses).count());
        let text = format!(
            "{complete} Services, {} addresses, {} recorded ({leaked} leaked), {} routed ({stray} stray, {whole} over all \
             nodes), {up} sessions up",
            addresses.len(),
            recorded.len(),
            routed.len()
        );
        let ok = complete == balanced.len()
            && addresses.len() == 2 * balanced.len()
            && recorded == addresses
            && routed == addresses
            && whole == addresses.len()
            && up == 2 * nodes;
        Ok(Observation { seen: text, ok })
    })
    .await?;
    Ok(())
}

/// Each address with web servers behind it answers a few requests over its port.
pub(super) async fn every_one_answers(
    lab: &mut Lab,
    wanted: &BTreeMap<String, ServiceSpec>,
    within: Duration,
) -> Result<(), Stop> {
    let balanced: Vec<ServiceSpec> =
        wanted.values().filter(|s| s.load_balancer && s.target == POD_PORT).cloned().collect();
    let expected = format!("{} addresses answer", 2 * balanced.len());
    lab.expect("every Service answers", &expected, within, async |lab: &Lab| {
        let seen = lab.seen();
        let (mut good, mut silent) = (0, Vec::new());
        for service in &balanced {
            for address in seen.addresses(&service.key()) {
                if lab.has_rules(address) && lab.ask(address, service.port, 2).await?.failed() == 0 {
                    good += 1;
                } else {
                    silent.push(format!("{} at {address}", service.name));
                }
            }
        }
        let seen = if silent.is_empty() { format!("{good} answer") } else { format!("silent: {}", silent.join(", ")) };
        Ok(Observation { seen, ok: good == 2 * balanced.len() })
    })
    .await?;
    Ok(())
}
