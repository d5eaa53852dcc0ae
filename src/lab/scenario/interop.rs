//! The interop matrix: one router of another make, one row.
//!
//! Every cell is tried the whole way. The router is one process with a neighbour for each cell; each cell has a node
//! of its own behind a cable of its own ([`link`]), where the real daemon runs on manifests ([`node`]). All cells
//! run at once ([`checks`]). What is asserted is what the router says and what its kernel has ([`seen`]); the node's
//! own words count only where the cell is about what an operator is told.
//!
//! ```text
//!  cells ─▶ links ─┬─▶ router: bird | frr | gobgp | exabgp ─look─▶ Seen ─watch─▶ play, one for each cell ─▶ report
//!                  └─▶ node: manifests, daemon ◀───────────── start, end, freeze ─┘
//! ```
//!
//! A cell that the router cannot fill is listed with the reason. What the daemon never does is tried with the crate's
//! speaker in its place ([`speaker`]).

mod bird;
mod cells;
mod checks;
mod exabgp;
mod frr;
mod gobgp;
mod link;
mod node;
mod play;
mod router;
mod seen;
mod speaker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    cells::Cell,
    link::Link,
    node::Node,
    play::Play,
    router::{Make, Place, Router},
    seen::Seen,
};
use crate::lab::{
    args::{Args, word},
    build::ourselves,
    claim::Claim,
    report::{Expectation, Report, Verdict},
    stage::Stop,
};

/// Between two looks at the router.
const EVERY: Duration = Duration::from_millis(100);
/// A router that cannot be looked at for so long has failed.
const BLIND: Duration = Duration::from_secs(30);

/// Tries every cell of the router's row.
///
/// # Errors
/// The rack could not be built, or the lab itself failed.
pub(crate) async fn run(
    args: &Args,
    claim: &Claim,
    report: Report,
    interrupted: &CancellationToken,
) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    let make = Make::new(args.router)?;
    let (folder, logs) = (claim.folder(), claim.folder().join("logs"));
    std::fs::create_dir(&logs)?;
    let cells: Vec<Cell> = Cell::ALL.into_iter().filter(|cell| make.lacks(*cell).is_none()).collect();
    report.note(format!("{} cells, folder {}", cells.len(), folder.display()));
    let links = Link::plan(claim, &cells);
    let program = args.daemon.clone().unwrap_or_else(ourselves);
    let place = Place { namespace: claim.namespace("tor"), folder: folder.join("router"), logs: logs.clone() };
    link::build(&place.namespace, &links).await.context("build the rack")?;
    let mut router = Router::start(make, place.clone(), &links).await?;
    let (sender, seen) = watch::channel(Arc::new(router.look().await?));
    let mut plays = Vec::new();
    for cell in cells {
        let nodes = links.iter().filter(|link| link.cell == cell);
        let nodes =
            nodes.map(|link| Node::new(link.clone(), &folder, &logs, &program)).collect::<anyhow::Result<_>>()?;
        plays.push(Play { cell, nodes, make, place: &place, seen: seen.clone(), report: &report, ok: true });
    }
    let all = join_all(plays.iter_mut().map(async |play| match checks::run(play).await {
        Ok(()) | Err(Stop::Unmet) => Ok(()),
        Err(Stop::Broken(error)) => Err(error.context(format!("cell {}", play.cell.name()))),
    }));
    let bound = Duration::from_secs(args.timeout);
    tokio::select! {
        error = look(&mut router, sender) => return Err(error.context("the router failed")),
        ended = tokio::time::timeout(bound, all) => {
            let results = ended.with_context(|| format!("the row takes longer than {} s", args.timeout))?;
            results.into_iter().collect::<anyhow::Result<()>>()?;
        }
    }
    if args.keep {
        report.note("kept until Ctrl-C");
        interrupted.cancelled().await;
    }
    Ok(verdict(args, make, &plays, &report, started))
}

/// Looks at the router for as long as the row goes on; returns what ended it.
async fn look(router: &mut Router, sender: watch::Sender<Arc<Seen>>) -> anyhow::Error {
    let mut blind = Instant::now();
    loop {
        if let Err(error) = router.must_run() {
            return error;
        }
        match router.look().await {
            Ok(seen) => {
                blind = Instant::now();
                sender.send_replace(Arc::new(seen));
            }
            Err(error) if blind.elapsed() > BLIND => return error,
            Err(error) => tracing::debug!("{error:#}"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The verdict with the whole row: also the cells that the router cannot fill.
fn verdict(args: &Args, make: Make, plays: &[Play<'_>], report: &Report, started: Instant) -> Verdict {
    let mut row = Vec::new();
    for cell in Cell::ALL {
        let result = match make.lacks(cell) {
            Some(reason) => {
                let seen = format!("n/a: {reason}");
                let expected = "n/a".to_owned();
                report.record(Expectation {
                    name: cell.name().into(),
                    expected,
                    seen: seen.clone(),
                    ok: true,
                    waiting: None,
                });
                seen
            }
            None if plays.iter().any(|play| play.cell == cell && play.ok) => "ok".to_owned(),
            None => "FAILED".to_owned(),
        };
        row.push((cell.name().to_owned(), result));
    }
    for (cell, result) in &row {
        report.print(format_args!("     {cell:20} {result}"));
    }
    let progress = report.progress();
    Verdict {
        ok: report.ok(),
        scenario: word(args.scenario),
        datapath: word(args.datapath()),
        router: word(args.router),
        nodes: plays.iter().map(|play| play.nodes.len()).sum(),
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        expectations: progress.expectations,
        timings: progress.timings,
        samples: Vec::new(),
    }
}
