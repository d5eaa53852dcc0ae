//! What scenarios with many Services ask again and again: do all agree, and does everything answer?

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use super::{both, vip};
use crate::lab::{
    manifests::ServiceSpec,
    site::POD_PORT,
    stage::{Lab, Observation, Stop},
};

/// How far everybody agrees on which addresses there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Agreement {
    /// Services with an address of each family.
    complete: usize,
    /// Addresses that Services have.
    held: usize,
    recorded: usize,
    /// Recorded, though no Service has them.
    pub(super) leaked: usize,
    routed: usize,
    /// Routed, though no Service has them.
    pub(super) stray: usize,
    /// Routed over every node.
    whole: usize,
    /// Sessions.
    up: usize,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { complete, held, recorded, leaked, routed, stray, whole, up } = self;
        write!(
            f,
            "{complete} Services, {held} addresses, {recorded} recorded ({leaked} leaked), {routed} routed ({stray} stray, \
             {whole} over all nodes), {up} sessions up"
        )
    }
}

impl Agreement {
    /// Nothing lacks and nothing is too much, for so many Services and nodes.
    fn is_complete(&self, services: usize, nodes: usize) -> bool {
        let addresses = [self.held, self.recorded, self.routed, self.whole];
        self.complete == services
            && addresses == [2 * services; 4]
            && (self.leaked, self.stray, self.up) == (0, 0, 2 * nodes)
    }
}

/// What daemons, the record and the router's kernel say of these Services now.
///
/// # Errors
/// The record cannot be read.
pub(super) fn look(lab: &Lab, wanted: &BTreeMap<String, ServiceSpec>) -> anyhow::Result<Agreement> {
    let (seen, nodes) = (lab.seen(), lab.site.nodes.len());
    let balanced = wanted.values().filter(|service| service.load_balancer);
    let held: Vec<Vec<IpAddr>> = balanced.map(|service| seen.addresses(&service.key())).collect();
    let addresses: BTreeSet<IpAddr> = held.iter().flatten().copied().collect();
    let recorded = lab.manifests.recorded()?;
    let routed: BTreeSet<IpAddr> = seen.routes.keys().filter_map(vip).collect();
    Ok(Agreement {
        complete: held.iter().filter(|addresses| both(addresses).is_some()).count(),
        held: addresses.len(),
        recorded: recorded.len(),
        leaked: recorded.difference(&addresses).count(),
        routed: routed.len(),
        stray: routed.difference(&addresses).count(),
        whole: seen.routes.iter().filter(|(prefix, via)| vip(prefix).is_some() && via.len() == nodes).count(),
        up: lab.site.nodes.iter().map(|node| seen.established(&node.name)).sum(),
    })
}

/// Every Service has addresses of its own, as they are recorded; the router leads to each over every node, and nowhere
/// else; every session is up.
pub(super) async fn agree(
    lab: &mut Lab,
    name: &str,
    wanted: &BTreeMap<String, ServiceSpec>,
    within: Duration,
) -> Result<(), Stop> {
    let services = wanted.values().filter(|service| service.load_balancer).count();
    let nodes = lab.site.nodes.len();
    let expected = format!("{services} Services with 2 addresses of their own, recorded and routed over {nodes} nodes");
    lab.expect(name, &expected, within, async |lab: &Lab| {
        let found = look(lab, wanted)?;
        Ok(Observation { seen: found.to_string(), ok: found.is_complete(services, nodes) })
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
