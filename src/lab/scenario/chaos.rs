//! One fault after another, by a schedule that a seed gives, under live traffic, with a ledger of every connection, every
//! request, every address and every route. What a fault may cost stands in [`schedule::Fault::costs`]; all else is a failure.

mod ledger;
mod schedule;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{address, agreement::agree, all_names, drain, precise, sessions};
use crate::lab::{
    build,
    client::Traffic,
    connections::Connections,
    manifests::ServiceSpec,
    report::Expectation,
    site::{ECHO_PORTS, Node},
    stage::{Lab, Stop},
};
use ledger::{Entry, Ledger};
use schedule::{Fault, Step, schedule};

/// Connections that stay open all the while.
const CONNECTIONS: usize = 300;
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// A request that was under way has ended by then.
const ENDED: Duration = Duration::from_secs(4);
/// After a fault everybody agrees within this: a session that hung is noticed by its hold time, 9 s.
const AGREES_WITHIN: Duration = Duration::from_secs(25);
/// Services that come and go beside the two that are watched, at most.
const MANY: usize = 20;

/// What goes on while faults come.
struct Under {
    connections: Connections,
    /// Where they lead.
    to: Vec<SocketAddr>,
    traffic: Traffic,
    /// The Services with connections and requests.
    watched: [ServiceSpec; 2],
    /// Services there now, by name.
    wanted: BTreeMap<String, ServiceSpec>,
    /// For names that no Service had before.
    written: usize,
}

pub(super) async fn run(lab: &mut Lab, seed: u64, length: Duration) -> Result<(), Stop> {
    sessions(lab).await?;
    let steps = schedule(seed, lab.site.nodes.len(), length);
    lab.report.note(format!("seed {seed}: {} faults in about {:.0} s", steps.len(), length.as_secs_f64()));
    let mut under = load(lab).await?;
    agree(lab, "everybody agrees at first", &under.wanted, AGREES_WITHIN).await?;
    let mut ledger = Ledger::default();
    for (n, step) in steps.iter().enumerate() {
        let entry = one(lab, &mut under, n + 1, step).await?;
        ledger.book(step, entry);
    }
    let last = under.traffic.stop().await?;
    lab.report.figure("requests", precise(last.answered() + last.failed()), "in all");
    close(lab, &ledger)
}

/// Two Services with connections to one and requests to the other.
async fn load(lab: &mut Lab) -> Result<Under, Stop> {
    let echo = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("echo") };
    let web = ServiceSpec::new("web");
    let mut to = Vec::new();
    for service in [&echo, &web] {
        to.push(address(lab, service).await?.map(|ip| SocketAddr::new(ip, service.port)).to_vec());
    }
    let wanted = [&echo, &web].map(|service| (service.name.clone(), service.clone())).into();
    super::routes(lab, "route to echo", [to[0][0].ip(), to[0][1].ip()], &all_names(&lab.site), AGREES_WITHIN).await?;
    super::routes(lab, "route to web", [to[1][0].ip(), to[1][1].ip()], &all_names(&lab.site), AGREES_WITHIN).await?;
    let connections = lab.client.connect(to[0].clone(), CONNECTIONS).await?;
    let traffic = lab.client.traffic(to[1].clone(), PAUSE);
    Ok(Under { connections, to: to[0].clone(), traffic, watched: [echo, web], wanted, written: 0 })
}

/// One step: the fault, what happens meanwhile, its end, agreement, and the entry in the books.
async fn one(lab: &mut Lab, under: &mut Under, n: usize, step: &Step) -> Result<Entry, Stop> {
    let node = lab.site.nodes[step.node].clone();
    let what = match step.fault {
        Fault::RouterFrozen => format!("{n}: {} for {:.1} s", step.fault, step.lasts.as_secs_f64()),
        _ => format!("{n}: {} of {} for {:.1} s", step.fault, node.name, step.lasts.as_secs_f64()),
    };
    lab.report.note(what.clone());
    let (pods, tally) = (under.connections.by_pod(), under.traffic.so_far());
    begin(lab, under, step.fault, &node).await?;
    churn(lab, under, step)?;
    tokio::time::sleep(step.lasts).await;
    end(lab, under, step.fault, &node).await?;
    agree(lab, &format!("{n}: everybody agrees"), &under.wanted, AGREES_WITHIN).await?;
    tokio::time::sleep(ENDED).await;
    let (pods_now, now) = (under.connections.by_pod(), under.traffic.so_far());
    let cut = |pod: &str| step.fault == Fault::CableCut && lab.site.node_of(pod).is_some_and(|on| on.name == node.name);
    let counts = [now.failed() - tally.failed(), now.answered() - tally.answered()];
    let entry = Entry::new([&pods, &pods_now], cut, counts, PAUSE);
    // A step that cost too much does not end the run: the ledger says all of it.
    lab.report.record(Expectation {
        name: what,
        expected: format!("lost: {}", step.fault.costs()),
        seen: entry.to_string(),
        ok: entry.is_bearable(step),
        waiting: None,
    });
    if entry.died() > 0 {
        // The next fault finds as many as the first.
        under.connections = lab.client.connect(under.to.clone(), CONNECTIONS).await?;
    }
    Ok(entry)
}

async fn begin(lab: &mut Lab, under: &Under, fault: Fault, node: &Node) -> Result<(), Stop> {
    match fault {
        Fault::DaemonKilled => lab.kill_daemon(&node.name).await?,
        Fault::DaemonUpgraded => lab.stop_daemon(&node.name).await?,
        Fault::DaemonFrozen => lab.freeze_daemon(&node.name, true)?,
        Fault::RouterFrozen => lab.router.freeze(true)?,
        Fault::NodeDrained => drain::tell(lab, node, &[]).await?,
        Fault::LossOneWay => build::lose(&lab.site.router, &node.name).await?,
        Fault::StateTorn => {
            lab.kill_daemon(&node.name).await?;
            lab.tear_state(&node.name)?;
        }
        Fault::CableCut => {
            build::cut(node).await?;
            lab.manifests.put_node(node, false, true)?;
            under.watched.iter().try_for_each(|service| lab.put_without(service, Some(&node.name)))?;
        }
    }
    Ok(())
}

async fn end(lab: &mut Lab, under: &Under, fault: Fault, node: &Node) -> Result<(), Stop> {
    match fault {
        Fault::DaemonKilled | Fault::DaemonUpgraded | Fault::StateTorn => lab.start_daemon(node)?,
        Fault::DaemonFrozen => lab.freeze_daemon(&node.name, false)?,
        Fault::RouterFrozen => lab.router.freeze(false)?,
        Fault::NodeDrained => drain::tell(lab, node, &["--undo"]).await?,
        Fault::LossOneWay => build::lose_nothing(&lab.site.router).await?,
        Fault::CableCut => {
            build::mend(node).await?;
            lab.manifests.put_node(node, true, true)?;
            under.watched.iter().try_for_each(|service| lab.put(service))?;
        }
    }
    Ok(())
}

/// Services come and go while the fault lasts.
fn churn(lab: &Lab, under: &mut Under, step: &Step) -> Result<(), Stop> {
    let watched = under.watched.each_ref().map(|service| service.name.as_str());
    let others: Vec<String> =
        under.wanted.keys().filter(|name| !watched.contains(&name.as_str())).take(step.deleted).cloned().collect();
    for name in others {
        if let Some(service) = under.wanted.remove(&name) {
            lab.delete(&service)?;
        }
    }
    for _ in 0..step.written.min((MANY + 2).saturating_sub(under.wanted.len())) {
        under.written += 1;
        let service = ServiceSpec::new(format!("chaos-{}", under.written));
        lab.put(&service)?;
        under.wanted.insert(service.name.clone(), service);
    }
    Ok(())
}

/// The totals. Addresses and routes were judged after every step, or the run would have ended there.
fn close(lab: &Lab, ledger: &Ledger) -> Result<(), Stop> {
    for (fault, [times, lost, failed]) in ledger.by_fault() {
        lab.report.note(format!("{fault}: {times} times, {lost} connections died, {failed} requests failed"));
    }
    let (lost, failed, overdue) = (ledger.lost(), ledger.failed(), ledger.overdue());
    let steps = ledger.steps();
    lab.verify("steps", "one at least; give more --minutes", &steps.to_string(), steps > 0)?;
    lab.verify("connections lost that need not have been", "0", &lost.to_string(), lost == 0)?;
    lab.verify("requests failed where nothing may", "0", &failed.to_string(), failed == 0)?;
    let seen = format!("{:.2} s", overdue.as_secs_f64());
    lab.verify("black holes beyond what a fault may cost", "0.00 s", &seen, overdue.is_zero())
}
