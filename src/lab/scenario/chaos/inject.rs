//! How each fault is made, what it does while it lasts, and how it is mended.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    Under, hostile,
    schedule::{Chance, Fault, Step},
};
use crate::lab::{
    build::{self, Way},
    manifests::ServiceSpec,
    scenario::drain,
    site::Node,
    stage::{Lab, Stop},
};

/// Between two resets of all sessions of a router that flaps.
const FLAP: Duration = Duration::from_millis(400);
/// A slow router sleeps so long between two looks at what it was sent …
const SLEEPS: Duration = Duration::from_millis(300);
/// … and looks for so long.
const WAKES: Duration = Duration::from_millis(30);
/// Its connections hold little more than a message.
const NARROW: [(&str, &str); 1] = [("net/ipv4/tcp_rmem", "2048 4096 4096")];
const WIDE: [(&str, &str); 1] = [("net/ipv4/tcp_rmem", "4096 131072 6291456")];
/// A daemon without memory gets so many MiB, and up to so many more.
const MEMORY: (u64, usize) = (4, 28);
/// One that can live with that is killed after this.
const LIVES: Duration = Duration::from_millis(800);
/// A thousand Services come in so many waves.
const WAVES: u32 = 10;
const WAVE: usize = 100;

pub(super) async fn begin(lab: &mut Lab, under: &Under, fault: Fault, node: &Node) -> Result<(), Stop> {
    match fault {
        Fault::DaemonKilled | Fault::DaemonStarved => lab.kill_daemon(&node.name).await?,
        Fault::DaemonUpgraded => lab.stop_daemon(&node.name).await?,
        Fault::DaemonFrozen => lab.freeze_daemon(&node.name, true)?,
        Fault::StateTorn => {
            lab.kill_daemon(&node.name).await?;
            lab.tear_state(&node.name)?;
        }
        Fault::DiskFull => lab.fill_disks(&node.name, true)?,
        Fault::DiskReadOnly => {
            lab.kill_daemon(&node.name).await?;
            lab.write_protect(&node.name, true).await?;
            lab.start_daemon(node)?;
        }
        Fault::RouterFrozen => lab.router.freeze(true)?,
        Fault::RouterRestarted | Fault::RouterHostile => lab.kill_router().await?,
        Fault::RouterSlow => {
            lab.site.router.set(&NARROW)?;
            build::reset_sessions(&lab.site.router).await?;
        }
        Fault::CableCut => {
            build::cut(node).await?;
            lab.manifests.put_node(node, false, true)?;
            under.watched.iter().try_for_each(|service| lab.put_without(service, Some(&node.name)))?;
        }
        Fault::LossToNode => build::lose(&lab.site.router, &node.name, Way::Out).await?,
        Fault::LossFromNode => build::lose(&lab.site.router, &node.name, Way::In).await?,
        Fault::Garbled => build::garble(&lab.site.router, &node.name).await?,
        Fault::NodeDrained => drain::tell(lab, node, &[]).await?,
        Fault::RouterFlaps | Fault::Garbage | Fault::Wave => {}
    }
    Ok(())
}

/// What goes on for the time of the fault; most are done with their beginning.
pub(super) async fn during(lab: &Lab, under: &mut Under, step: &Step, node: &Node) -> Result<(), Stop> {
    let until = Instant::now() + step.lasts;
    match step.fault {
        Fault::DaemonStarved => starve(lab, step, node, until).await?,
        Fault::RouterFlaps => {
            while Instant::now() < until {
                build::reset_sessions(&lab.site.router).await?;
                sleep(FLAP).await;
            }
        }
        Fault::RouterSlow => {
            while Instant::now() < until {
                lab.router.freeze(true)?;
                sleep(SLEEPS).await;
                lab.router.freeze(false)?;
                sleep(WAKES).await;
            }
        }
        Fault::RouterHostile => {
            let heard = hostile::answer(&lab.site.router, step.seed, step.lasts).await?;
            lab.report.note(format!("garbage in {heard} sessions"));
        }
        Fault::Garbage => {
            let from = [&lab.site.router, &lab.site.client];
            let reached = hostile::besiege(from, node.address, step.seed, step.lasts).await?;
            lab.report.note(format!("{reached} connections were taken"));
        }
        Fault::Wave => waves(lab, under, step.lasts / WAVES).await?,
        _ => sleep(step.lasts).await,
    }
    Ok(())
}

pub(super) async fn end(lab: &mut Lab, under: &Under, fault: Fault, node: &Node) -> Result<(), Stop> {
    match fault {
        Fault::DaemonKilled | Fault::DaemonUpgraded | Fault::StateTorn | Fault::DaemonStarved => {
            lab.start_daemon(node)?
        }
        Fault::DaemonFrozen => lab.freeze_daemon(&node.name, false)?,
        Fault::DiskFull => lab.fill_disks(&node.name, false)?,
        Fault::DiskReadOnly => lab.write_protect(&node.name, false).await?,
        Fault::RouterFrozen => lab.router.freeze(false)?,
        Fault::RouterRestarted | Fault::RouterHostile => lab.start_router().await?,
        Fault::RouterSlow => lab.site.router.set(&WIDE)?,
        Fault::CableCut => {
            build::mend(node).await?;
            lab.manifests.put_node(node, true, true)?;
            under.watched.iter().try_for_each(|service| lab.put(service))?;
        }
        Fault::LossToNode | Fault::LossFromNode => build::lose_nothing(&lab.site.router).await?,
        Fault::Garbled => build::garble_nothing(&lab.site.router, &node.name).await?,
        Fault::NodeDrained => drain::tell(lab, node, &["--undo"]).await?,
        Fault::RouterFlaps | Fault::Garbage | Fault::Wave => {}
    }
    Ok(())
}

/// Daemons that start and come as far as their memory lets them.
async fn starve(lab: &Lab, step: &Step, node: &Node, until: Instant) -> Result<(), Stop> {
    let mut chance = Chance(step.seed);
    while Instant::now() < until {
        let mebibytes = MEMORY.0 + chance.below(MEMORY.1) as u64;
        match lab.start_starved(node, mebibytes << 20, LIVES).await {
            Ok(end) => lab.report.note(format!("{mebibytes} MiB: {end}")),
            Err(error) => {
                lab.report.note(format!("killed only: {error:#}"));
                sleep(until.saturating_duration_since(Instant::now())).await;
            }
        }
    }
    Ok(())
}

/// Services come and go before anybody can have seen all of them.
async fn waves(lab: &Lab, under: &mut Under, pause: Duration) -> Result<(), Stop> {
    for _ in 0..WAVES {
        let name = |n: usize| format!("wave-{}", under.written + n);
        let services: Vec<ServiceSpec> = (1..=WAVE).map(|n| ServiceSpec::new(name(n))).collect();
        under.written += WAVE;
        services.iter().try_for_each(|service| lab.put(service))?;
        sleep(pause).await;
        services.iter().try_for_each(|service| lab.delete(service))?;
    }
    Ok(())
}
