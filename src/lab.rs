//! The one-machine demonstration: network namespaces, a router, nodes, clients, traffic, scenarios.
//!
//! ```text
//!  args ─▶ claim (number, folder, lock) ─▶ build (namespaces, cables) ─▶ stage ─▶ scenario ─▶ verdict
//!                                                                        │
//!            daemons, pods, router (process) · observe · proxy (nftables) · client ─▶ report ─▶ view
//! ```
//!
//! Everything that is started dies with this process, and everything that is made is removed with the claim:
//! at the end, on Ctrl-C and SIGTERM, on a panic, and by the next lab after a kill -9.

mod args;
mod build;
mod claim;
mod client;
mod connections;
mod datagrams;
mod disk;
mod fib;
mod flood;
mod manifests;
mod netns;
mod observe;
mod picture;
mod pod;
mod process;
#[cfg(feature = "emulator")]
mod provider;
mod proxy;
mod report;
mod routers;
mod scenario;
mod site;
mod stage;
mod tools;
mod tor;
mod uploads;
mod view;
mod xdp;

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use args::word;
pub use args::{Args, DatapathKind, PodArgs, ProviderKind, RouterArgs, RouterKind, ScenarioKind};
use claim::Claim;
use picture::Picture;
use report::{Line, Lines, Report, Verdict};
use site::Site;
use stage::{Lab, Setup, Stop};
use view::View;

use crate::{
    admin::page::{Nodes, PagePort},
    config::Delivery,
    term::Paint,
};

/// Between two requests of `--keep`.
const KEEP_PAUSE: Duration = Duration::from_millis(100);

/// Runs a scenario. `true` where every expectation held.
///
/// # Errors
/// The lab could not be built or was interrupted; the exit code for it is 2.
pub async fn run(args: Args) -> anyhow::Result<bool> {
    if args.list {
        let _ = std::io::stdout().write_all(scenario::list().as_bytes());
        return Ok(true);
    }
    if args.datapath().is_ours() && !cfg!(feature = "xdp") {
        bail!("--datapath xdp: this program was built without the feature `xdp`; use --datapath none");
    }
    scenario::suits(args.scenario, args.router)?;
    scenario::provided(args.scenario, args.provider)?;
    if args.previous.is_some() && args.scenario != args::ScenarioKind::Restart {
        bail!("--previous needs --scenario restart, which upgrades and downgrades daemons");
    }
    tools::check(args.datapath())?;
    routers::check(args.router)?;
    let interrupted = CancellationToken::new();
    let signals = tokio::spawn(wait_for_signal(interrupted.clone()));
    let (claim, swept) = Claim::take()?;
    for number in swept {
        eprintln!("ironcast: removed what a killed lab {number} had left");
    }
    let mut view = None;
    let outcome = tokio::select! {
        // First, so that a Ctrl-C that ends `--keep` leaves its verdict.
        biased;
        outcome = in_lab(&args, &claim, &interrupted, &mut view) => outcome,
        () = interrupted.cancelled() => Err(anyhow::anyhow!("interrupted; the lab is removed")),
    };
    let had_view = view.is_some();
    if let Some(view) = view {
        view.end().await;
    }
    signals.abort();
    let copied = args.logs.as_deref().map(|to| copy_logs(&claim.folder().join("logs"), to));
    let failed = outcome.as_ref().map_or_else(|_| !interrupted.is_cancelled(), |verdict| !verdict.ok);
    if failed {
        show_logs(&claim.folder().join("logs"));
    }
    copied.transpose()?;
    let verdict = outcome?;
    tell(&args, &verdict, had_view)?;
    Ok(verdict.ok)
}

/// Serves HTTP as a pod of the lab until it is ended.
///
/// # Errors
/// The port could not be opened.
pub async fn pod(args: PodArgs) -> anyhow::Result<()> {
    pod::serve(args).await
}

/// Is the top-of-rack router of the lab until it is ended.
///
/// # Errors
/// The speaker or the kernel's routing table could not be opened.
pub async fn router(args: RouterArgs) -> anyhow::Result<()> {
    crate::telemetry::start(crate::config::LogFormat::Text);
    tor::run(args).await
}

async fn in_lab(
    args: &Args,
    claim: &Claim,
    interrupted: &CancellationToken,
    view: &mut Option<View>,
) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    if args.scenario == ScenarioKind::Interop {
        let report = Report::new(if args.json { Lines::Stderr } else { Lines::Stdout });
        return scenario::interop::run(args, claim, report, interrupted).await;
    }
    if args.scenario == ScenarioKind::Throughput {
        let report = Report::new(if args.json { Lines::Stderr } else { Lines::Stdout });
        return throughput(args, claim, report).await;
    }
    let has_view = !args.json && std::io::stdout().is_terminal() && std::env::var("TERM").is_ok_and(|t| t != "dumb");
    let lines = match (args.json, has_view) {
        (true, _) => Lines::Stderr,
        (false, true) => Lines::None,
        (false, false) => Lines::Stdout,
    };
    let pods = args.pods.unwrap_or(2 * u16::from(args.nodes));
    let site = Site::plan(claim, args.nodes, pods);
    anyhow::ensure!(
        args.delivery == Delivery::Stack || args.datapath() == DatapathKind::Xdp,
        "bypass delivery needs the program in the driver: give --datapath xdp"
    );
    scenario::check(args.scenario, args.datapath(), &site)?;
    let report = Report::new(lines);
    report.note(format!("{} nodes, {pods} pods, folder {}", args.nodes, claim.folder().display()));
    let mut lab = Lab::start(claim, site, &setup(args), report).await.context("build the lab")?;
    if has_view {
        *view = Some(View::start(watched(args, &lab), interrupted.clone()));
    }
    let page = match args.page {
        Some(address) => Some(page(address, &lab).await?),
        None => None,
    };
    let picture = args
        .picture
        .as_ref()
        .map(|_| Picture::start(view::Watched { paint: Paint { color: true }, ..watched(args, &lab) }));
    let bound = args.bound();
    match tokio::time::timeout(bound, scenario::run(args, &mut lab)).await {
        Ok(Ok(()) | Err(Stop::Unmet)) => {}
        Ok(Err(Stop::Broken(error))) => return Err(error.context("the lab failed")),
        Err(_) => {
            lab.report.settle(false);
            lab.report.open("in time", &format!("the scenario ends within {} s", bound.as_secs()), bound);
            lab.report.see("it did not");
            lab.report.settle(false);
        }
    }
    let verdict = verdict(args, &lab, started);
    if let (Some(picture), Some(file)) = (picture, &args.picture) {
        let svg = picture.end().await?;
        std::fs::write(file, svg).with_context(|| format!("write the picture {}", file.display()))?;
    }
    if args.keep {
        keep(&lab, interrupted).await?;
    }
    drop(page);
    Ok(verdict)
}

/// What the lab is built with for this scenario.
fn setup(args: &Args) -> Setup {
    Setup {
        router: args.router,
        datapath: args.datapath(),
        delivery: args.delivery,
        graceful_restart: scenario::graceful_restart(args.scenario),
        rough: scenario::rough(args.scenario),
        later: scenario::later(args.scenario),
        looks: scenario::looks(args.scenario),
        budget: scenario::budget(args.scenario),
        daemon: args.daemon.clone(),
        previous: args.previous.clone(),
        #[cfg(feature = "emulator")]
        provider: args.provider,
    }
}

/// Serves the status page of all nodes until dropped.
async fn page(address: SocketAddr, lab: &Lab) -> anyhow::Result<JoinSet<()>> {
    let port = PagePort::open(address).await;
    let port = port.with_context(|| format!("open {address} for the page; give --page another ADDRESS:PORT"))?;
    lab.report.note(format!("page of all nodes: http://{}/", port.address()?));
    let mut seen = lab.watch();
    let (sender, nodes) = watch::channel(Arc::new(Ok(Vec::new())));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(port.serve(nodes).await) });
    tasks.spawn(async move {
        while seen.changed().await.is_ok() {
            let states: Nodes = Ok(seen.borrow_and_update().alive().cloned().collect());
            sender.send_replace(Arc::new(states));
        }
    });
    Ok(tasks)
}

#[cfg(feature = "xdp")]
async fn throughput(args: &Args, claim: &Claim, report: Report) -> anyhow::Result<Verdict> {
    tools::check(DatapathKind::Xdp)?;
    scenario::throughput::run(args, claim, report).await
}

#[cfg(not(feature = "xdp"))]
async fn throughput(_: &Args, _: &Claim, _: Report) -> anyhow::Result<Verdict> {
    bail!("this program was built without the feature `xdp`")
}

fn watched(args: &Args, lab: &Lab) -> view::Watched {
    view::Watched {
        title: format!("ironcast lab · {} · {}", word(args.scenario), lab.router.description),
        site: lab.site.clone(),
        seen: lab.watch(),
        progress: lab.report.watch(),
        requests: lab.client.total(),
        paint: Paint::from_environment(),
    }
}

fn verdict(args: &Args, lab: &Lab, started: Instant) -> Verdict {
    lab.report.figure("largest daemon, resident", lab.largest_daemon(), "MiB");
    let progress = lab.report.progress();
    Verdict {
        ok: lab.report.ok(),
        scenario: word(args.scenario),
        router: word(args.router),
        datapath: word(args.datapath()),
        nodes: lab.site.nodes.len(),
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        expectations: progress.expectations,
        timings: progress.timings,
        samples: progress.samples,
    }
}

/// The verdict, and after a view all lines that it had shown.
fn tell(args: &Args, verdict: &Verdict, had_view: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        return writeln!(out, "{}", serde_json::to_string(verdict)?).context("print the verdict");
    }
    if had_view {
        for expectation in &verdict.expectations {
            writeln!(out, "{}", Line { expectation, color: Paint::from_environment().color })?;
        }
    }
    if had_view {
        verdict.samples.iter().try_for_each(|sample| writeln!(out, "     {sample}"))?;
    }
    for (name, value) in &verdict.timings {
        writeln!(out, "     {name}: {value}")?;
    }
    let met = verdict.expectations.iter().filter(|e| e.ok).count();
    let (word, all) = (if verdict.ok { "ok" } else { "FAILED" }, verdict.expectations.len());
    let Verdict { scenario, router, datapath, nodes, seconds, .. } = verdict;
    let path = if args.datapath().is_ours() { format!(" and {datapath}") } else { String::new() };
    writeln!(
        out,
        "{word}: {scenario} with {router}{path}, {nodes} nodes: {met} of {all} expectations met in {seconds:.1} s"
    )?;
    Ok(())
}

/// Leaves a Service with traffic to look at, until Ctrl-C.
async fn keep(lab: &Lab, interrupted: &CancellationToken) -> anyhow::Result<()> {
    let service = manifests::ServiceSpec::new("kept");
    lab.put(&service)?;
    lab.report.note(format!(
        "kept until Ctrl-C: YAML in {}, n1's daemon at {}",
        lab.manifests.folder().display(),
        lab.socket("n1").display(),
    ));
    let mut seen = lab.watch();
    let key = service.key();
    let addresses = tokio::select! {
        () = interrupted.cancelled() => return Ok(()),
        found = seen.wait_for(|seen| !seen.addresses(&key).is_empty()) => found?.addresses(&key),
    };
    let to = addresses.into_iter().map(|ip| SocketAddr::new(ip, service.port)).collect();
    let traffic = lab.client.traffic(to, KEEP_PAUSE);
    interrupted.cancelled().await;
    drop(traffic);
    Ok(())
}

async fn wait_for_signal(interrupted: CancellationToken) -> anyhow::Result<()> {
    let [mut int, mut term, mut hup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    loop {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
        interrupted.cancel();
    }
}

fn copy_logs(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("copy the logs to {}", to.display()))?;
    }
    Ok(())
}

/// The end of every log that has something, for whoever looks for the reason.
fn show_logs(logs: &Path) {
    let mut files: Vec<_> = std::fs::read_dir(logs).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        let tail = process::tail(&file);
        if !tail.is_empty() {
            eprintln!("--- {} (its end)\n{}", file.file_name().unwrap_or_default().display(), tail.trim_end());
        }
    }
}
