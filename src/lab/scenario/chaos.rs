//! One fault after another, by a schedule that a seed gives, under live traffic, with a ledger of every connection, every
//! request, every address and every route. What a fault may cost stands in [`schedule::Fault::costs`]; all else is a failure.

mod hostile;
mod inject;
mod ledger;
mod schedule;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    address,
    agreement::{agree, look},
    all_names, precise, sessions,
};
use crate::lab::{
    client::Traffic,
    connections::{Connections, Fate},
    manifests::ServiceSpec,
    report::Expectation,
    site::ECHO_PORTS,
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
    let steps = schedule(seed, lab.site.nodes.len(), lab.is_builtin(), length);
    lab.report.note(format!("seed {seed}: {} faults in about {:.0} s", steps.len(), length.as_secs_f64()));
    let mut under = load(lab).await?;
    agree(lab, "everybody agrees at first", &under.wanted, AGREES_WITHIN).await?;
    let mut ledger = Ledger::default();
    let mut agreed = Ok(());
    for (n, step) in steps.iter().enumerate() {
        let entry;
        (entry, agreed) = one(lab, &mut under, n + 1, step).await?;
        ledger.book(step, entry);
        // What comes after would be judged by what is wrong already.
        if agreed.is_err() {
            break;
        }
    }
    let last = under.traffic.stop().await?;
    lab.report.figure("requests", precise(last.answered() + last.failed()), "in all");
    close(lab, &ledger).and(agreed)
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

/// One step: the fault, what happens meanwhile, its end, agreement, and the entry in the books. Whether all agreed comes
/// apart, for the totals are wanted in any case.
async fn one(lab: &mut Lab, under: &mut Under, n: usize, step: &Step) -> Result<(Entry, Result<(), Stop>), Stop> {
    let node = lab.site.nodes[step.node].clone();
    let of = if step.fault.is_of_node() { format!(" at {}", node.name) } else { String::new() };
    let what = format!("{n}: {}{of} for {:.1} s", step.fault, step.lasts.as_secs_f64());
    lab.report.note(what.clone());
    let (pods, fates, tally) = (under.connections.by_pod(), under.connections.fates(), under.traffic.so_far());
    inject::begin(lab, under, step.fault, &node).await?;
    churn(lab, under, step)?;
    inject::during(lab, under, step, &node).await?;
    inject::end(lab, under, step.fault, &node).await?;
    let agreed = match agree(lab, &format!("{n}: everybody agrees"), &under.wanted, AGREES_WITHIN).await {
        Err(Stop::Broken(error)) => return Err(Stop::Broken(error)),
        agreed => agreed,
    };
    let found = look(lab, &under.wanted)?;
    tokio::time::sleep(ENDED).await;
    let (pods_now, now) = (under.connections.by_pod(), under.traffic.so_far());
    let cut = |pod: &str| step.fault == Fault::CableCut && lab.site.node_of(pod).is_some_and(|on| on.name == node.name);
    let counts = [now.failed() - tally.failed(), now.answered() - tally.answered()];
    let entry = Entry::new([&pods, &pods_now], cut, counts, PAUSE).with(found.leaked, found.stray);
    let died = how(&fates, &under.connections.fates());
    // A step that cost too much does not end the run: the ledger says all of it.
    lab.report.record(Expectation {
        name: what,
        expected: format!("lost: {}", step.fault.costs()),
        seen: if died.is_empty() { entry.to_string() } else { format!("{entry}; {died}") },
        ok: entry.is_bearable(step),
        waiting: None,
    });
    if agreed.is_ok() && entry.died() > 0 {
        // The next fault finds as many as the first.
        under.connections = lab.client.connect(under.to.clone(), CONNECTIONS).await?;
    }
    Ok((entry, agreed))
}

/// How connections died: `2 reset, 1 stalled`.
fn how(before: &BTreeMap<Fate, usize>, after: &BTreeMap<Fate, usize>) -> String {
    let dead = after.iter().filter(|(fate, _)| **fate != Fate::Alive);
    let new = dead.map(|(fate, count)| (fate, count - before.get(fate).unwrap_or(&0))).filter(|(_, count)| *count > 0);
    let words: Vec<String> = new.map(|(fate, count)| format!("{count} {fate:?}").to_lowercase()).collect();
    words.join(", ")
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

/// The totals. What did not agree after a step has ended the run.
fn close(lab: &Lab, ledger: &Ledger) -> Result<(), Stop> {
    for (fault, [times, lost, failed]) in ledger.by_fault() {
        lab.report.note(format!("{fault}: {times} times, {lost} connections died, {failed} requests failed"));
    }
    lab.report.figure("connections lost that had to be", precise(ledger.unavoidable() as u64), "in all");
    lab.report.figure("black holes that had to be", (ledger.dark() - ledger.overdue()).as_secs_f64(), "s");
    let steps = ledger.steps();
    lab.verify("steps", "one at least; give more --minutes", &steps.to_string(), steps > 0)?;
    let overdue = ledger.overdue();
    let totals = [
        ("connections lost that need not have been", "0", ledger.lost().to_string(), ledger.lost() == 0),
        ("addresses leaked", "0", ledger.leaked().to_string(), ledger.leaked() == 0),
        ("prefixes announced that should not be", "0", ledger.stray().to_string(), ledger.stray() == 0),
        ("requests failed where nothing may", "0", ledger.failed().to_string(), ledger.failed() == 0),
        (
            "black holes beyond what a fault may cost",
            "0.00 s",
            format!("{:.2} s", overdue.as_secs_f64()),
            overdue.is_zero(),
        ),
    ];
    // All of them are told, whichever is not what it should be.
    let verdicts = totals.map(|(name, expected, seen, ok)| lab.verify(name, expected, &seen, ok));
    verdicts.into_iter().collect()
}
