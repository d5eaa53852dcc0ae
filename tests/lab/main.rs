//! The lab as its users run it: the program, its verdict, and that nothing is left behind. As root.

#[path = "../support/mod.rs"]
mod support;

mod interop;
mod leftovers;
mod page;
mod scenarios;
mod usage;

use std::{
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Labs could run side by side; on a small machine their time limits could not.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
    command.arg("lab").stdin(Stdio::null());
    command
}

/// Runs a lab to its end.
fn lab(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program starts")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Whether labs can run here; says in a line why not.
fn is_possible() -> bool {
    if !is_root() {
        support::skip("the lab makes network namespaces: run the tests as root");
    }
    is_root()
}

/// Namespaces of labs on this machine.
fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with("ironcast-")).collect()
}
