//! An address for each Service from the provider: claimed with marks, announced, answered, withdrawn, given back, in
//! that order in the provider's own log. Then one Service more than the router's prefix limit allows.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ironcast_emulator::Entry;

use super::{ROUTE_WITHIN, all_names, answered, nodes_with_pods, sessions};
use crate::lab::{
    manifests::ServiceSpec,
    provider::{BUDGET, POOL, is_claim, is_release, mark},
    stage::{Lab, Observation, Stop},
};

/// A claim takes a few writes and requests.
const CLAIM_WITHIN: Duration = Duration::from_secs(20);
/// `releaseDelay`, and a request.
const RELEASE_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn run(lab: &mut Lab) -> Result<(), Stop> {
    sessions(lab).await?;
    life(lab).await?;
    budget(lab).await
}

fn elastic(name: impl Into<String>) -> ServiceSpec {
    ServiceSpec { pool: Some(POOL.into()), ..ServiceSpec::new(name) }
}

/// One Service from its claim to its release.
async fn life(lab: &mut Lab) -> Result<(), Stop> {
    let (web, on) = (elastic("web"), nodes_with_pods(&lab.site));
    lab.report.note("Service default/web is written; the pool has no address of its own");
    let written = Instant::now();
    lab.put(&web)?;
    let to = claimed(lab, &web).await?;
    lab.report.timing("Service written to address claimed", written.elapsed());
    route(lab, "route to web", to, true).await?;
    lab.report.timing("Service written to ECMP route in the router's kernel", written.elapsed());
    lab.cloud()?.note("announced");
    answered(lab, "HTTP at the claimed address", to, 80, on).await?;
    lab.cloud()?.note("answered");
    lab.report.note("Service default/web is deleted");
    let deleted = Instant::now();
    lab.delete(&web)?;
    route(lab, "route to web goes", to, false).await?;
    lab.cloud()?.note("withdrawn");
    released(lab, 1).await?;
    lab.report.timing("Service deleted to address given back", deleted.elapsed());
    let log = lab.cloud()?.log();
    let seen = story(&log);
    let expected = "claimed with marks, announced, answered, withdrawn, released";
    lab.verify("order in the provider's log", expected, &seen, seen == expected)
}

/// The log as a sentence of what matters.
fn story(log: &[Entry]) -> String {
    let word = |entry: &Entry| match entry {
        entry if is_claim(entry) => {
            let tags = entry.body["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
            let marked = tags.iter().any(|tag| tag.as_str() == Some(mark("web").as_str()));
            Some(if marked { "claimed with marks" } else { "claimed without marks" }.to_owned())
        }
        entry if is_release(entry) => Some("released".to_owned()),
        entry if entry.method == "NOTE" => Some(entry.path.clone()),
        _ => None,
    };
    log.iter().filter_map(word).collect::<Vec<_>>().join(", ")
}

/// As many Services as the session may carry prefixes, and one more.
async fn budget(lab: &mut Lab) -> Result<(), Stop> {
    let services: Vec<ServiceSpec> = (0..=BUDGET).map(|n| elastic(format!("svc-{n:02}"))).collect();
    lab.report.note(format!("{} Services are written; the router takes {BUDGET} prefixes", services.len()));
    services.iter().try_for_each(|service| lab.put(service))?;
    let mut addresses = Vec::new();
    for service in &services {
        addresses.push(claimed(lab, service).await?);
    }
    let distinct: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let seen = format!("{} different addresses", distinct.len());
    lab.verify(
        "addresses",
        &format!("{} different addresses", services.len()),
        &seen,
        distinct.len() == services.len(),
    )?;
    let nodes = all_names(&lab.site);
    let expected = format!("{BUDGET} Services routed by every node, the last one withheld with prefixBudget");
    let last = services.last().map(ServiceSpec::key).unwrap_or_default();
    lab.expect_seen("prefix budget", &expected, ROUTE_WITHIN, |seen| {
        let wanted: BTreeSet<String> = nodes.iter().cloned().collect();
        let routed = addresses.iter().filter(|to| seen.next_hops(**to) == wanted).count();
        let explained = seen
            .alive()
            .filter(|state| state.withheld.iter().any(|w| w.service == last && w.reason == "prefixBudget"))
            .count();
        let up: usize = nodes.iter().map(|node| seen.established(node)).sum();
        let text = format!("{routed} routed, {explained} nodes say prefixBudget of {last}, {up} sessions up");
        let ok = routed == addresses.len() - 1 && explained == nodes.len() && up == 2 * nodes.len();
        Observation { seen: text, ok }
    })
    .await?;
    let on = nodes_with_pods(&lab.site);
    for (service, to) in services.iter().zip(&addresses).take(addresses.len() - 1) {
        answered(lab, &format!("HTTP at {}", service.name), *to, 80, on).await?;
    }
    lab.report.note("every Service is deleted");
    services.iter().try_for_each(|service| lab.delete(service))?;
    released(lab, services.len() + 1).await?;
    let (claimed, released) = (lab.cloud()?.claimed(), lab.cloud()?.released());
    let seen = format!("{claimed} claimed, {released} released");
    let expected = format!("{0} claimed, {0} released", services.len() + 1);
    lab.verify("nothing leaked", &expected, &seen, seen == expected)
}

async fn claimed(lab: &mut Lab, service: &ServiceSpec) -> Result<IpAddr, Stop> {
    let key = service.key();
    let name = format!("address of {}", service.name);
    lab.expect_seen(&name, "one IPv4 address of the provider", CLAIM_WITHIN, |seen| {
        let addresses = seen.addresses(&key);
        Observation { seen: super::words(&addresses), ok: matches!(addresses[..], [IpAddr::V4(_)]) }
    })
    .await?;
    Ok(lab.seen().addresses(&key).first().copied().unwrap_or(IpAddr::V4([0; 4].into())))
}

async fn route(lab: &mut Lab, name: &str, to: IpAddr, there: bool) -> Result<(), Stop> {
    let nodes = all_names(&lab.site);
    let wanted: BTreeSet<String> = if there { nodes.into_iter().collect() } else { BTreeSet::new() };
    let expected = if there { "ECMP over every node" } else { "no route" };
    lab.expect_seen(name, expected, ROUTE_WITHIN, |seen| {
        let found = seen.next_hops(to);
        let via = Vec::from_iter(found.iter().map(String::as_str)).join(" ");
        Observation { seen: format!("{to} via {}", if via.is_empty() { "nobody" } else { &via }), ok: found == wanted }
    })
    .await?;
    Ok(())
}

async fn released(lab: &mut Lab, all: usize) -> Result<(), Stop> {
    let expected = format!("{all} addresses given back so far");
    lab.expect("released", &expected, RELEASE_WITHIN, async |lab: &Lab| {
        let released = lab.cloud()?.released();
        Ok(Observation { seen: format!("{released} given back"), ok: released == all })
    })
    .await?;
    Ok(())
}
