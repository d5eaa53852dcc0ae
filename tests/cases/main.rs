//! Cases that users of other load balancers know, each a function that is named as the case is: daemons as real
//! processes, a real API server that all cases share, BIRD as the router, in network namespaces. Cases run side by
//! side; those that stop the API server run alone and last.
//!
//! `cargo test --test cases` runs all, `cargo test --test cases -- words` those whose names have one of the words.

/// Functions as cases.
macro_rules! cases {
    ($($name:ident,)*) => {
        pub(crate) const CASES: &[$crate::Case] =
            &[$($crate::Case { name: stringify!($name), run: |lot| Box::pin($name(lot)) },)*];
    };
}

mod advertisements;
mod bird;
mod invalid;
mod leaving;
mod outage;
mod peers;
mod services;
mod site;

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs::File,
    future::Future,
    os::fd::AsFd,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Command, ExitCode},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use site::{Lot, ip};
use support::{
    cluster::{Cluster, Place},
    program::Program,
    skip,
};

/// Cases at once: they wait more than they work.
const AT_ONCE: usize = 8;

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// A case by its name.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    name: &'static str,
    run: fn(Lot) -> Running,
}

/// A case that needs the control plane for itself.
pub(crate) type Alone = (&'static str, fn(Lot, &mut Cluster));

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for network namespaces");
    }
    let absent = |program: &str| Command::new(program).arg("--version").output().is_err();
    absent("bird").then_some("needs BIRD 2 (Debian: bird2)")
}

fn main() -> ExitCode {
    // What libtest's flags would be is nothing to us, but for words and a list.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let all = [services::CASES, peers::CASES, advertisements::CASES, invalid::CASES, leaving::CASES].concat();
    let cases: Vec<Case> = all.into_iter().filter(|case| chosen(case.name)).collect();
    let alone: Vec<Alone> = outage::CASES.iter().copied().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cases
            .iter()
            .map(|case| case.name)
            .chain(alone.iter().map(|case| case.0))
            .for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if cases.is_empty() && alone.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = missing() {
        skip(missing);
        return ExitCode::SUCCESS;
    }
    let Some(stage) = Stage::new() else { return ExitCode::SUCCESS };
    let failed = stage.run(cases, alone);
    failed.iter().for_each(|name| eprintln!("FAILED {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Control plane and bridge.
struct Stage {
    // Order is the order of dropping.
    cluster: Cluster,
    bridge: String,
    control: String,
    folder: PathBuf,
    _sweep: Program,
    _namespaces: Program,
}

impl Stage {
    fn new() -> Option<Self> {
        let bridge = format!("icca{}", std::process::id());
        let control = format!("{bridge}-cp");
        let namespaces = Program::remove_namespaces(&[control.clone(), bridge.clone()]).expect("sh runs");
        for name in [&bridge, &control] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &bridge, "link", "set", "br0", "up"]);
        ip(&["-n", &bridge, "link", "add", "cp", "type", "veth", "peer", "name", "eth0", "netns", &control]);
        ip(&["-n", &bridge, "link", "set", "cp", "master", "br0", "up"]);
        ip(&["-n", &control, "address", "add", "10.78.0.10/16", "dev", "eth0"]);
        ip(&["-n", &control, "link", "set", "eth0", "up"]);
        let folder = tempfile::TempDir::with_prefix("ironcast-cases-").expect("a folder").keep();
        let sweep = Program::sweep(&folder).expect("sh runs");
        let place = Place { netns: Some(control.clone()), address: [10, 78, 0, 10].into() };
        let cluster = runtime().block_on(Cluster::start_at(place))?;
        let stage = Self { cluster, bridge, control, folder, _sweep: sweep, _namespaces: namespaces };
        stage.install();
        Some(stage)
    }

    fn install(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let file = |name: &str| root.join(name).to_str().expect("UTF-8").to_owned();
        let apply = ["apply", "--server-side", "-f", &file("crds")];
        self.cluster.kubectl(&apply).expect("applied");
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"];
        self.cluster.kubectl(&wait).expect("served");
    }

    fn lot(&self, number: u8, name: &str) -> Lot {
        Lot {
            number,
            name: name.replace('_', "-").chars().take(50).collect::<String>().trim_end_matches('-').to_owned(),
            bridge: self.bridge.clone(),
            kubeconfig: self.cluster.kubeconfig("admin"),
            folder: self.folder.join(number.to_string()),
        }
    }

    /// Runs everything; the names of what failed.
    fn run(mut self, cases: Vec<Case>, alone: Vec<Alone>) -> Vec<&'static str> {
        let begun = Instant::now();
        let count = cases.len() + alone.len();
        let lots: Vec<(Case, Lot)> =
            (1u8..).zip(cases).map(|(number, case)| (case, self.lot(number, case.name))).collect();
        let queue = Arc::new(Mutex::new(lots.into_iter()));
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (queue, control) = (Arc::clone(&queue), self.control.clone());
                thread::spawn(move || {
                    let mut failed = Vec::new();
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((case, lot)) = next else { return failed };
                        let run = case.run;
                        let work = move || runtime().block_on(run(lot));
                        failed.extend((!passes(case.name, &control, work)).then_some(case.name));
                    }
                })
            })
            .collect();
        let mut failed: Vec<&str> = workers.into_iter().flat_map(|worker| worker.join().expect("it catches")).collect();
        for (number, (name, run)) in (200u8..).zip(alone) {
            let (lot, control) = (self.lot(number, name), self.control.clone());
            let cluster = &mut self.cluster;
            let passed = thread::scope(|scope| {
                let work = move || passed(name, &control, move || run(lot, cluster));
                thread::Builder::new().name(name.into()).spawn_scoped(scope, work).expect("a thread").join().is_ok()
            });
            failed.extend((!passed).then_some(name));
        }
        println!("{} of {count} cases passed in {:.0?}", count - failed.len(), begun.elapsed());
        failed
    }
}

/// Runs a case in a thread of its own, which has the case's name and stands where the API server is.
fn passes(name: &'static str, control: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let control = control.to_owned();
    let thread = thread::Builder::new().name(name.into()).spawn(move || passed(name, &control, work));
    thread.expect("a thread").join().is_ok()
}

/// Panics where the case does.
fn passed(name: &str, control: &str, work: impl FnOnce()) {
    let netns = File::open(format!("/run/netns/{control}")).expect("the namespace");
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
    let begun = Instant::now();
    work();
    println!("ok {name} ({:.1} s)", begun.elapsed().as_secs_f64());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Sleeps as a case does while it waits for nothing to happen.
pub(crate) async fn calm() {
    tokio::time::sleep(site::CALM).await;
}

/// The same outside a runtime.
pub(crate) fn calm_now() {
    thread::sleep(site::CALM);
}

/// For what has a time of its own.
pub(crate) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
