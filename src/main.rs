//! The `ironcast` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    ironcast::cli::main(ironcast::cli::Cli::parse())
}
