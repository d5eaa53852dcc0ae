//! `ironcast check`: what is wrong in a folder of manifests, before anything runs.

use std::path::PathBuf;

use anyhow::Context;

use super::Output;
use crate::{config::Ours, source::check::check};

/// Flags of `ironcast check`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The folder that `ironcast run --manifests` would read
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    #[command(flatten)]
    ours: Ours,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Prints what was found. `true` where nothing is refused.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    let settings = args.ours.settings("")?;
    let report =
        check(&args.folder, &settings).with_context(|| format!("read the folder {}", args.folder.display()))?;
    let text = match args.output {
        Output::Table => format!("{report}\n"),
        output => super::structured(&report, output)?,
    };
    super::print(&text);
    Ok(report.errors() == 0)
}
