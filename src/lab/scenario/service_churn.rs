//! Dozens of Services come, change and go, one after the other and at once. At the end everybody agrees: what
//! was asked for, the state file, the daemons, the router's kernel; no address twice; each answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{ROUTE_WITHIN, agreement::every_one_answers, all_names, both, nodes_with_pods, sessions, vip};
use crate::lab::{
    manifests::ServiceSpec,
    observe::Seen,
    stage::{Lab, Observation, Stop},
};

/// Services at the peak.
const MANY: usize = 48;
/// Between two files in the sequential part.
const PAUSE: Duration = Duration::from_millis(10);
/// Everything settles within this.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
/// An address that one Service asks for, out of the pool's middle.
const REQUESTED: &str = "192.0.2.200,2001:db8:10::200";

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    let started = Instant::now();
    let mut wanted: BTreeMap<String, ServiceSpec> = BTreeMap::new();
    create(lab, &mut wanted).await?;
    agree(lab, "everybody agrees after creation", &wanted).await?;
    lab.report.timing(&format!("{MANY} Services created to all routes"), started.elapsed());
    let before = holdings(&lab.seen(), &wanted);

    change(lab, &mut wanted).await?;
    agree(lab, "everybody agrees after changes", &wanted).await?;
    let after = holdings(&lab.seen(), &wanted);
    let moved: Vec<&str> = before
        .iter()
        .filter(|(name, addresses)| {
            // The one that asked for another address, and those that went or came back, may have others.
            wanted.get(*name).is_some_and(|s| s.requested.is_none() && !is_reborn(name))
                && after.get(*name).is_some_and(|now| now != *addresses)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    lab.verify(
        "addresses stay",
        "no Service that lived on got another address",
        &format!("{} moved {}", moved.len(), moved.join(" ")),
        moved.is_empty(),
    )?;
    every_one_answers(lab, &wanted, ROUTE_WITHIN).await?;

    lab.report.note("every Service is deleted");
    for service in std::mem::take(&mut wanted).values() {
        lab.delete(service)?;
    }
    agree(lab, "everybody agrees that nothing is left", &wanted).await
}

/// Half one after the other, half at once.
async fn create(lab: &Lab, wanted: &mut BTreeMap<String, ServiceSpec>) -> anyhow::Result<()> {
    lab.report.note(format!("{MANY} Services are written, half of them at once"));
    for i in 0..MANY {
        let local = i % 4 == 2 && may_be_local(lab);
        let service = ServiceSpec { local, ..ServiceSpec::new(format!("churn-{i}")) };
        lab.put(&service)?;
        wanted.insert(service.name.clone(), service);
        if i < MANY / 2 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Where a node has no pod, `Local` would leave it out of the route.
fn may_be_local(lab: &Lab) -> bool {
    nodes_with_pods(&lab.site) == lab.site.nodes.len()
}

/// Those that are deleted and written again.
fn is_reborn(name: &str) -> bool {
    index(name) % 6 == 1
}

fn index(name: &str) -> usize {
    name.rsplit('-').next().and_then(|i| i.parse().ok()).unwrap_or_default()
}

/// By its number, a Service goes, goes and returns, loses its type, gets another port, another policy, or asks
/// for an address.
async fn change(lab: &Lab, wanted: &mut BTreeMap<String, ServiceSpec>) -> anyhow::Result<()> {
    lab.report.note("a third goes or loses its type, some return, some change port, policy or address");
    for mut service in wanted.values().cloned().collect::<Vec<_>>() {
        match index(&service.name) % 6 {
            0 => {
                lab.delete(&service)?;
                wanted.remove(&service.name);
                continue;
            }
            1 => {
                lab.delete(&service)?;
                tokio::time::sleep(PAUSE).await;
            }
            2 => service.load_balancer = false,
            3 => service.port = 8000,
            4 => service.local = !service.local && may_be_local(lab),
            _ if service.name == "churn-5" => service.requested = Some(REQUESTED.into()),
            _ => continue,
        }
        lab.put(&service)?;
        wanted.insert(service.name.clone(), service);
    }
    Ok(())
}

/// Addresses of those that are load balancers, as the daemons have them.
fn holdings(seen: &Seen, wanted: &BTreeMap<String, ServiceSpec>) -> BTreeMap<String, Vec<IpAddr>> {
    let balanced = wanted.values().filter(|s| s.load_balancer);
    balanced.map(|s| (s.name.clone(), seen.addresses(&s.key()))).collect()
}

/// Daemons, state file and kernel say the same, and it is what was asked for.
async fn agree(lab: &mut Lab, name: &str, wanted: &BTreeMap<String, ServiceSpec>) -> Result<(), Stop> {
    let balanced = wanted.values().filter(|s| s.load_balancer).count();
    let expected = format!("{balanced} Services with unique addresses, the same in state file and kernel");
    let nodes = all_names(&lab.site).len();
    lab.expect(name, &expected, SETTLES_WITHIN, async |lab: &Lab| {
        let seen = lab.seen();
        let held = holdings(&seen, wanted);
        let complete = held.values().filter(|addresses| both(addresses).is_some()).count();
        let addresses: BTreeSet<IpAddr> = held.values().flatten().copied().collect();
        let recorded = lab.manifests.recorded()?;
        let routed: BTreeSet<IpAddr> =
            seen.routes.iter().filter(|(_, via)| via.len() == nodes).filter_map(|(prefix, _)| vip(prefix)).collect();
        let any_route = seen.routes.keys().filter_map(vip).count();
        let requested = wanted.values().filter_map(|s| Some((s, s.requested.as_ref()?))).all(|(s, ips)| {
            held.get(&s.name)
                .is_some_and(|held| held.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",") == *ips)
        });
        let text = format!(
            "{complete} Services, {} addresses, {} in the state file, {} of {any_route} routes complete",
            addresses.len(),
            recorded.len(),
            routed.len()
        );
        let ok = complete == balanced
            && addresses.len() == 2 * balanced
            && recorded == addresses
            && routed == addresses
            && any_route == addresses.len()
            && requested;
        Ok(Observation { seen: text, ok })
    })
    .await?;
    Ok(())
}
