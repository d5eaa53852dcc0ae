//! Churn for as long as is asked for: Services by the hundred, endpoints, connections and sessions come and go in rounds,
//! each of which ends with what the first began with. There, once a minute, what every daemon takes of the machine is
//! written down: at the end it must be what it was.

mod flat;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    address,
    agreement::{agree, every_one_answers},
    precise, sessions,
};
use crate::lab::{
    build,
    client::Traffic,
    connections::Connections,
    manifests::ServiceSpec,
    report::Sample,
    site::{ECHO_PORTS, Node},
    stage::{Lab, Observation, Stop},
};

/// Services at the peak of a round.
const MANY: usize = 120;
/// Connections that stay open all the while.
const HELD: usize = 100;
/// Connections that live for a round.
const PASSING: usize = 100;
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two files in the part that is not done at once.
const FILE_PAUSE: Duration = Duration::from_millis(10);
/// Nothing here is about time: the machine may be busy with something else for so long.
const AGREES_WITHIN: Duration = Duration::from_secs(60);
/// A round takes at least this, so that the machine is left something.
const ROUND: Duration = Duration::from_secs(15);

/// What goes on while Services come and go.
struct Under {
    held: Connections,
    passing: Option<Connections>,
    echo: Vec<SocketAddr>,
    traffic: Traffic,
    /// Services there now, by name.
    wanted: BTreeMap<String, ServiceSpec>,
    /// Services that there ever were.
    written: usize,
    resets: usize,
    /// Rounds in which one of the passing connections did not open.
    unopened: usize,
}

pub(super) async fn run(lab: &mut Lab, length: Duration) -> Result<(), Stop> {
    let started = Instant::now();
    sessions(lab).await?;
    let mut under = load(lab).await?;
    let mut samples = Vec::new();
    let mut rounds = 0;
    while started.elapsed() < length {
        let began = Instant::now();
        round(lab, &mut under, rounds).await?;
        rounds += 1;
        tokio::time::sleep(ROUND.saturating_sub(began.elapsed())).await;
        let minute = started.elapsed().as_secs() / 60;
        if samples.last().is_none_or(|last: &Sample| last.minute < minute) || started.elapsed() >= length {
            sample(lab, &mut samples, minute)?;
        }
    }
    let opened = finish(lab, under, rounds).await;
    judge(lab, &samples).and(opened)
}

async fn load(lab: &mut Lab) -> Result<Under, Stop> {
    let echo = ServiceSpec { port: 7, target: ECHO_PORTS[0], ..ServiceSpec::new("echo") };
    let web = ServiceSpec::new("web");
    let to = address(lab, &echo).await?.map(|ip| SocketAddr::new(ip, echo.port)).to_vec();
    let asked = address(lab, &web).await?.map(|ip| SocketAddr::new(ip, web.port)).to_vec();
    let wanted = [echo, web].map(|service| (service.name.clone(), service)).into();
    agree(lab, "everybody agrees at first", &wanted, AGREES_WITHIN).await?;
    let held = lab.client.connect(to.clone(), HELD).await?;
    let traffic = lab.client.traffic(asked, PAUSE);
    Ok(Under { held, passing: None, echo: to, traffic, wanted, written: 0, resets: 0, unopened: 0 })
}

/// Services come, change and go; the sessions of one node are reset.
async fn round(lab: &mut Lab, under: &mut Under, n: usize) -> Result<(), Stop> {
    create(lab, under).await?;
    agree(lab, &format!("round {n}: created"), &under.wanted, AGREES_WITHIN).await?;
    every_one_answers(lab, &under.wanted, AGREES_WITHIN).await?;
    change(lab, under)?;
    let node = lab.site.nodes[n % lab.site.nodes.len()].clone();
    reset(lab, &node).await?;
    under.resets += 1;
    // The former ones end here. What does not open is for the end: an hour is too long to be ended by it.
    match lab.client.connect(under.echo.clone(), PASSING).await {
        Ok(connections) => under.passing = Some(connections),
        Err(error) => {
            lab.report.note(format!("round {n}: {error:#}"));
            under.unopened += 1;
        }
    }
    agree(lab, &format!("round {n}: changed"), &under.wanted, AGREES_WITHIN).await?;
    delete(lab, under).await?;
    agree(lab, &format!("round {n}: deleted"), &under.wanted, AGREES_WITHIN).await
}

/// Half one after the other, half at once, with names that no Service had before.
async fn create(lab: &Lab, under: &mut Under) -> anyhow::Result<()> {
    for i in 0..MANY {
        let service = ServiceSpec { local: i % 4 == 2, ..ServiceSpec::new(format!("soak-{}", under.written)) };
        under.written += 1;
        lab.put(&service)?;
        under.wanted.insert(service.name.clone(), service);
        if i < MANY / 2 {
            tokio::time::sleep(FILE_PAUSE).await;
        }
    }
    Ok(())
}

/// By its turn, a Service loses the pods of a node, loses its type, gets another port, or stays.
fn change(lab: &Lab, under: &mut Under) -> anyhow::Result<()> {
    let lost = lab.site.nodes[under.written % lab.site.nodes.len()].name.clone();
    for (i, service) in passing(&mut under.wanted).enumerate() {
        match i % 4 {
            0 if !service.local => lab.put_without(service, Some(&lost))?,
            1 => {
                service.load_balancer = false;
                lab.put(service)?;
            }
            2 => {
                service.port = 8000;
                lab.put(service)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// All but the two that are watched.
fn passing(wanted: &mut BTreeMap<String, ServiceSpec>) -> impl Iterator<Item = &mut ServiceSpec> {
    wanted.values_mut().filter(|service| service.name.starts_with("soak-"))
}

async fn delete(lab: &Lab, under: &mut Under) -> anyhow::Result<()> {
    for (i, service) in passing(&mut under.wanted).enumerate() {
        lab.delete(service)?;
        if i < MANY / 2 {
            tokio::time::sleep(FILE_PAUSE).await;
        }
    }
    under.wanted.retain(|name, _| !name.starts_with("soak-"));
    Ok(())
}

/// The node's kernel resets every BGP connection that it has.
async fn reset(lab: &mut Lab, node: &Node) -> Result<(), Stop> {
    let count = |lab: &Lab| -> u64 {
        let seen = lab.seen();
        let sessions = seen.nodes.get(&node.name).into_iter().flatten().flat_map(|state| &state.sessions);
        sessions.map(|session| session.established_count).sum()
    };
    let before = count(lab);
    build::reset_sessions(&node.namespace).await?;
    let name = format!("sessions of {} are reset and return", node.name);
    let expected = format!("Established {} times", before + 2);
    lab.expect(&name, &expected, AGREES_WITHIN, async |lab: &Lab| {
        let now = count(lab);
        Ok(Observation { seen: format!("Established {now} times"), ok: now >= before + 2 })
    })
    .await?;
    Ok(())
}

fn sample(lab: &Lab, samples: &mut Vec<Sample>, minute: u64) -> anyhow::Result<()> {
    for (daemon, usage) in lab.usage() {
        let flows = lab.remembered(&daemon)?;
        let sample = Sample { minute, daemon, usage, flows };
        lab.report.sample(sample.clone());
        samples.push(sample);
    }
    Ok(())
}

async fn finish(lab: &Lab, under: Under, rounds: usize) -> Result<(), Stop> {
    let requests = under.traffic.stop().await?;
    lab.report
        .note(format!("{rounds} rounds, {} Services, {} resets of a node's sessions", under.written, under.resets));
    lab.report.figure("Services that came and went", precise(under.written as u64), "in all");
    lab.report.figure("requests", precise(requests.answered() + requests.failed()), "in all");
    lab.report.figure("requests that failed", precise(requests.failed()), "in all");
    let (alive, held) = under.held.census();
    let unopened = format!("{} of {rounds} rounds", under.unopened);
    let opened = lab.verify("connections that do not open", "in no round", &unopened, under.unopened == 0);
    lab.verify("connections held", &format!("{HELD} alive"), &held, alive == HELD).and(opened)
}

/// One expectation for each daemon, all of them in the report before the first that fails ends it.
fn judge(lab: &Lab, samples: &[Sample]) -> Result<(), Stop> {
    let Some(judged) = flat::judge(samples) else {
        lab.report.note("too short to judge memory by: give --minutes 12 or more");
        return Ok(());
    };
    let mut verdict = Ok(());
    for expectation in judged {
        if !expectation.ok {
            verdict = Err(Stop::Unmet);
        }
        lab.report.record(expectation);
    }
    verdict
}
