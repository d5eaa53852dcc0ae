//! The command line. Exit codes: 0 fine, 1 an expectation failed or the daemon could not go on,
//! 2 usage or configuration.

mod asked;
mod check;
mod cluster;
mod columns;
mod drain;
mod explain;
mod import;
mod live;
mod page;
mod router_config;
mod status;
mod sweep;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::{app, config, lab, source};

/// Exit code for "an expectation failed".
const FAILED: u8 = 1;
/// Exit code for "wrong usage or configuration"; clap's own for unknown flags.
const USAGE: u8 = 2;

/// `type: LoadBalancer` on bare metal: addresses, BGP and the packet path in one daemon per node.
#[derive(Debug, Parser)]
#[command(name = "ironcast", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: watches Services, gives them addresses and announces them
    Run(Box<config::Run>),
    /// What this node or the cluster announces, to whom, and what it does not; exit code 1 while a session is down
    Status(status::Args),
    /// Why a Service is, or is not, announced by this node, and what to do next
    Explain(explain::Args),
    /// Withdraw everything that this node announces, and wait until it is done
    Drain(drain::Args),
    /// Show the whole path on this machine: nodes, pods, a router and a client in network namespaces
    Lab(Box<lab::Args>),
    /// A pod of the lab
    #[command(hide = true)]
    LabPod(lab::PodArgs),
    /// The top-of-rack router of the lab
    #[command(hide = true)]
    LabRouter(lab::RouterArgs),
    /// Say what is wrong in a folder of manifests, and what each Service would get; exit code 1 if anything is refused
    Check(check::Args),
    /// Print the router's side of the peering, ready to paste
    RouterConfig(router_config::Args),
    /// Translate another system's configuration to our objects; exit code 1 if something has no counterpart
    Import(import::Args),
    /// Give back what a dead cluster left at a provider; says what it would do unless told to release
    Sweep(sweep::Args),
    /// Print the definitions of our resources, for `kubectl apply -f -`
    Crds,
    /// Write a completion script for a shell to standard output
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the manual: this program's page to standard output, or a page for each verb into a folder
    Man {
        /// Folder for ironcast.1, ironcast-status.1 …
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the version and exit
    Version,
}

impl Cli {
    /// Reads the command line. As `kubectl-ironcast` it is kubectl's plugin, and calls itself so.
    pub fn read() -> Self {
        let called = std::env::args_os().next().map(PathBuf::from);
        let is_plugin =
            called.as_ref().and_then(|path| path.file_name()).is_some_and(|name| name == "kubectl-ironcast");
        let command = if is_plugin { Self::command().bin_name("kubectl ironcast") } else { Self::command() };
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// Where the daemon is that a verb asks.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Unix socket of the daemon's admin port
    #[arg(long, env = "IRONCAST_SOCKET", value_name = "PATH", default_value = config::ADMIN_SOCKET)]
    pub socket: PathBuf,
}

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Does what the command line says.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Run(run) => daemon(*run),
        Command::Status(args) => asynchronous(status::run(args)),
        Command::Explain(args) => asynchronous(explain::run(args)),
        Command::Drain(args) => asynchronous(drain::run(args)),
        Command::Lab(args) => asynchronous(lab::run(*args)),
        Command::LabPod(args) => asynchronous(async { lab::pod(args).await.map(|()| true) }),
        Command::LabRouter(args) => asynchronous(async { lab::router(args).await.map(|()| true) }),
        Command::Sweep(args) => asynchronous(sweep::run(args)),
        Command::Check(args) => verdict(check::run(&args)),
        Command::RouterConfig(args) => asynchronous(router_config::run(args)),
        Command::Import(args) => verdict(import::run(&args)),
        Command::Crds => {
            print(&source::api::crds_yaml());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ironcast", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { dir } => verdict(manual(dir.as_deref())),
        Command::Version => {
            println!("ironcast {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn manual(dir: Option<&Path>) -> anyhow::Result<bool> {
    let Some(dir) = dir else {
        clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).context("write the manual")?;
        return Ok(true);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("write the manual into {}", dir.display()))?;
    print(&format!("the pages of the manual are in {}\n", dir.display()));
    Ok(true)
}

fn daemon(run: config::Run) -> ExitCode {
    let log_format = run.log_format;
    let config = match run.resolve() {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    crate::telemetry::start(log_format);
    match app::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(app::Failure::Start(error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(USAGE)
        }
        Err(app::Failure::Run(error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a verb that waits for others: `false` is 1, an error 2.
fn asynchronous(verb: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(USAGE, &format_args!("start the runtime: {error}")),
    };
    verdict(runtime.block_on(verb))
}

fn verdict(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(USAGE, &format_args!("{error:#}")),
    }
}

/// JSON or YAML of what a table would show.
fn structured(value: &impl serde::Serialize, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Yaml => serde_norway::to_string(value)?,
        Output::Json | Output::Table => serde_json::to_string_pretty(value)? + "\n",
    })
}

/// To standard output; a reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ironcast: {error}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
