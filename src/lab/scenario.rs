//! What happens in the lab. A scenario acts, and says what must come of it within which time.

mod agreement;
mod chaos;
mod coexistence;
mod drain;
mod ecmp_rehash;
#[cfg(feature = "emulator")]
mod elastic_ip;
mod first_light;
mod flood;
pub(crate) mod interop;
mod node_loss;
mod restart;
mod service_churn;
mod soak;
#[cfg(feature = "xdp")]
pub(crate) mod throughput;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{
    args::{Args, DatapathKind, ProviderKind, RouterKind, ScenarioKind, word},
    client::Tally,
    connections::Connections,
    manifests::ServiceSpec,
    observe,
    site::Site,
    stage::{Lab, Observation, Stop},
};
use crate::{
    config::Delivery,
    types::{NodeState, UplinkState},
};

/// Sessions come up; routers of other makes wait a few seconds after a collision or a refusal.
const SESSIONS_WITHIN: Duration = Duration::from_secs(20);
/// A file is read, an address given and recorded.
const ADDRESS_WITHIN: Duration = Duration::from_secs(5);
/// A route is announced, and the router has it in its kernel.
const ROUTE_WITHIN: Duration = Duration::from_secs(10);
/// Rules and neighbour entries are there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// A round of every connection, and what a loaded machine takes.
const HEARD_WITHIN: Duration = Duration::from_secs(12);
/// Enough that random choice leaves out no node but once in a million runs.
pub(super) const REQUESTS: usize = 60;

/// Runs a scenario to its end.
///
/// # Errors
/// An expectation was not met, or the lab failed.
pub(crate) async fn run(args: &Args, lab: &mut Lab) -> Result<(), Stop> {
    match args.scenario {
        ScenarioKind::Chaos => chaos::run(lab, args.seed, args.length()).await,
        ScenarioKind::FirstLight => first_light::run(lab).await,
        ScenarioKind::Flood => flood::run(lab).await,
        ScenarioKind::NodeLoss => node_loss::run(lab).await,
        ScenarioKind::Coexistence => coexistence::run(lab).await,
        ScenarioKind::Drain => drain::run(lab).await,
        ScenarioKind::EcmpRehash => ecmp_rehash::run(lab).await,
        ScenarioKind::Restart => restart::run(lab).await,
        ScenarioKind::ServiceChurn => service_churn::run(lab).await,
        ScenarioKind::Soak => soak::run(lab, args.length()).await,
        #[cfg(feature = "emulator")]
        ScenarioKind::ElasticIp => elastic_ip::run(lab).await,
        #[cfg(not(feature = "emulator"))]
        ScenarioKind::ElasticIp => {
            Err(anyhow::anyhow!("built without the feature `emulator`; `make lab` builds with it").into())
        }
        kind @ (ScenarioKind::Interop | ScenarioKind::Throughput) => {
            Err(anyhow::anyhow!("the scenario {} has a rack of its own", word(kind)).into())
        }
    }
}

/// Whether a scenario makes sense at this site.
///
/// # Errors
/// It does not; the text says what to change.
pub(crate) fn check(kind: ScenarioKind, datapath: DatapathKind, site: &Site) -> anyhow::Result<()> {
    anyhow::ensure!(
        !matches!(kind, ScenarioKind::Restart | ScenarioKind::Chaos | ScenarioKind::Flood) || datapath.is_ours(),
        "{} shows what the packet path keeps: give --datapath xdp",
        word(kind)
    );
    if kind == ScenarioKind::EcmpRehash {
        return ecmp_rehash::check(site);
    }
    if kind == ScenarioKind::Coexistence {
        anyhow::ensure!(
            datapath.is_ours(),
            "coexistence is about the packet path: give --datapath xdp, generic or tcx"
        );
        return coexistence::check(site);
    }
    let pods = nodes_with_pods(site);
    anyhow::ensure!(
        kind != ScenarioKind::NodeLoss || pods > 1,
        "node-loss needs pods on two nodes: give --pods 2 or more"
    );
    Ok(())
}

/// Whether a router can play its part in a scenario.
///
/// # Errors
/// It cannot; the text says what to give instead.
pub(crate) fn suits(kind: ScenarioKind, router: RouterKind) -> anyhow::Result<()> {
    match (kind, router) {
        (ScenarioKind::Interop, RouterKind::Builtin) => {
            anyhow::bail!("--scenario interop tries routers of other makes: give --router bird, frr, gobgp or exabgp")
        }
        (ScenarioKind::Interop, _) => Ok(()),
        (_, RouterKind::Exabgp) => anyhow::bail!(
            "--router exabgp keeps no routes and forwards nothing: it is for --scenario interop; \
             give --router builtin, bird, frr or gobgp for {}",
            word(kind)
        ),
        _ => Ok(()),
    }
}

/// Prefixes that an IPv4 session may carry in a scenario.
pub(crate) fn budget(kind: ScenarioKind) -> Option<u32> {
    (kind == ScenarioKind::ElasticIp).then_some(10)
}

/// Whether the scenario and the provider go together, and this program has it.
///
/// # Errors
/// They do not; the text says what to give.
pub(crate) fn provided(kind: ScenarioKind, provider: ProviderKind) -> anyhow::Result<()> {
    anyhow::ensure!(
        provider == ProviderKind::None || cfg!(feature = "emulator"),
        "--provider {}: this program was built without the feature `emulator`; `make lab` builds with it",
        word(provider)
    );
    anyhow::ensure!(
        kind != ScenarioKind::ElasticIp || provider != ProviderKind::None,
        "--scenario elastic-ip claims addresses from a provider: give --provider packet"
    );
    Ok(())
}

/// Whether the sessions of a scenario have graceful restart: with it, a router keeps the routes of a node that
/// died, which is not what the loss of a node is to show.
pub(crate) fn graceful_restart(kind: ScenarioKind) -> bool {
    kind != ScenarioKind::NodeLoss
}

/// Whether the files of daemons are on small disks, and daemons listen.
pub(crate) fn rough(kind: ScenarioKind) -> bool {
    kind == ScenarioKind::Chaos
}

/// How many nodes join only while a scenario runs.
pub(crate) fn later(kind: ScenarioKind) -> usize {
    usize::from(kind == ScenarioKind::EcmpRehash)
}

/// Between two looks at everything: where nothing is timed, and much is there for long, seldom.
pub(crate) fn looks(kind: ScenarioKind) -> Duration {
    if kind == ScenarioKind::Soak { 10 * observe::EVERY } else { observe::EVERY }
}

/// Every scenario with a line on it.
pub(crate) fn list() -> String {
    use clap::ValueEnum;
    ScenarioKind::value_variants()
        .iter()
        .filter_map(|kind| Some(format!("{:14} {}\n", word(*kind), kind.to_possible_value()?.get_help()?)))
        .collect()
}

/// Both sessions of every node are up.
async fn sessions(lab: &mut Lab) -> Result<(), Stop> {
    let names: Vec<String> = lab.site.nodes.iter().map(|n| n.name.clone()).collect();
    let expected = format!("{0} of {0} sessions Established, IPv4 and IPv6 on each node", 2 * names.len());
    let took = lab
        .expect_seen("sessions", &expected, SESSIONS_WITHIN, |seen| {
            let up: usize = names.iter().map(|name| seen.established(name)).sum();
            Observation { seen: format!("{up} of {} Established", 2 * names.len()), ok: up == 2 * names.len() }
        })
        .await?;
    lab.report.timing("sessions up", took);
    packet_path(lab)
}

/// With XDP: the uplink of every node has the program in its driver. Programs stand before sessions come up.
fn packet_path(lab: &Lab) -> Result<(), Stop> {
    if !lab.datapath.is_ours() {
        return Ok(());
    }
    let modes: BTreeSet<String> = lab.seen().alive().flat_map(modes).collect();
    let seen = modes.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mode = lab.datapath.mode();
    let expected = format!("{mode} on the uplink of every node");
    lab.verify("packet path", &expected, &seen, modes == [format!("eth0 {mode}")].into())?;
    if lab.delivery == Delivery::Stack {
        return Ok(());
    }
    let problems: BTreeSet<String> = lab.seen().alive().filter_map(|s| s.datapath.as_ref()?.problem.clone()).collect();
    let seen = if problems.is_empty() { "past the stack".into() } else { Vec::from_iter(problems.clone()).join(", ") };
    lab.verify("delivery", "past the stack on every node", &seen, problems.is_empty())
}

fn modes(state: &NodeState) -> Vec<String> {
    let Some(path) = &state.datapath else { return vec![format!("{} without", state.node)] };
    let uplink = |u: &UplinkState| [vec![format!("{} {}", u.interface, u.mode)], u.failed.clone()].concat().join(": ");
    match path.uplinks.is_empty() {
        true => vec![format!("{} without uplink", state.node)],
        false => path.uplinks.iter().map(uplink).collect(),
    }
}

/// Writes a Service and waits until it has one address of each family.
async fn address(lab: &mut Lab, service: &ServiceSpec) -> Result<[IpAddr; 2], Stop> {
    lab.report.note(format!("Service {} is written", service.key()));
    lab.put(service)?;
    addressed(lab, service).await
}

/// Waits until a Service has one address of each family.
async fn addressed(lab: &mut Lab, service: &ServiceSpec) -> Result<[IpAddr; 2], Stop> {
    let key = service.key();
    let expected = "one IPv4 and one IPv6 address of the pool";
    let took = lab
        .expect_seen(&format!("address of {}", service.name), expected, ADDRESS_WITHIN, |seen| {
            let addresses = seen.addresses(&key);
            Observation { seen: words(&addresses), ok: both(&addresses).is_some() }
        })
        .await?;
    lab.report.timing(&format!("address of {}", service.name), took);
    Ok(both(&lab.seen().addresses(&key)).unwrap_or([IpAddr::V4([0; 4].into()); 2]))
}

/// Waits until the router's kernel leads to exactly these nodes for both addresses.
async fn routes(
    lab: &mut Lab,
    name: &str,
    to: [IpAddr; 2],
    nodes: &[String],
    within: Duration,
) -> Result<Duration, Stop> {
    let expected = if nodes.is_empty() { "no route".to_owned() } else { format!("ECMP over {}", nodes.join(" ")) };
    let wanted: BTreeSet<String> = nodes.iter().cloned().collect();
    lab.expect_seen(name, &expected, within, |seen| {
        let found = to.map(|to| seen.next_hops(to));
        let say = |(to, nodes): (&IpAddr, &BTreeSet<String>)| {
            let via = nodes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            if via.is_empty() { format!("no route to {to}") } else { format!("{to} via {via}") }
        };
        let ok = found.iter().all(|nodes| *nodes == wanted);
        Observation { seen: to.iter().zip(&found).map(say).collect::<Vec<_>>().join(", "), ok }
    })
    .await
}

/// Waits until a batch of requests is answered without a failure, by pods on at least so many nodes.
async fn answered(lab: &mut Lab, name: &str, to: IpAddr, port: u16, on: usize) -> Result<Tally, Stop> {
    let expected = format!("{REQUESTS} of {REQUESTS} requests answered by pods on {on} nodes");
    let mut last = Tally::default();
    lab.expect(name, &expected, ANSWERS_WITHIN, async |lab: &Lab| {
        if !lab.has_rules(to) {
            return Ok(Observation { seen: format!("the nodes have no rules for {to} yet"), ok: false });
        }
        last = lab.ask(to, port, REQUESTS).await?;
        let nodes: BTreeSet<_> = last.pods.keys().filter_map(|pod| lab.site.node_of(pod)).map(|n| &n.name).collect();
        let seen = format!("{} answered by {} pods on {} nodes", last.answered(), last.pods.len(), nodes.len());
        Ok(Observation { seen, ok: last.failed() == 0 && nodes.len() == on })
    })
    .await?;
    Ok(last)
}

/// Every connection has gone a round since now, and lives.
async fn heard(lab: &mut Lab, connections: &Connections, when: &str) -> Result<(), Stop> {
    let mark = connections.mark();
    lab.expect(when, "every connection gets its bytes back", HEARD_WITHIN, async |_: &Lab| {
        let (alive, seen) = connections.census();
        Ok(Observation { seen, ok: alive == mark.len() && connections.behind(&mark, 1) == 0 })
    })
    .await?;
    Ok(())
}

/// Nodes with a pod.
fn nodes_with_pods(site: &Site) -> usize {
    site.nodes.iter().filter(|n| !n.pods.is_empty()).count()
}

fn all_names(site: &Site) -> Vec<String> {
    site.nodes.iter().map(|n| n.name.clone()).collect()
}

/// An IPv4 and an IPv6 address and nothing else.
fn both(addresses: &[IpAddr]) -> Option<[IpAddr; 2]> {
    match *addresses {
        [v4, v6] if v4.is_ipv4() && v6.is_ipv6() => Some([v4, v6]),
        _ => None,
    }
}

/// The address of a host route out of the pools.
fn vip(prefix: &ipnet::IpNet) -> Option<IpAddr> {
    (prefix.prefix_len() == prefix.max_prefix_len()).then_some(prefix.addr())
}

/// Counts are far below 2^52.
fn precise(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn words(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if words.is_empty() { "no address".into() } else { words.join(" and ") }
}
