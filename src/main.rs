//! The `ironcast` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ironcast::cli::main(ironcast::cli::Cli::read())
}
