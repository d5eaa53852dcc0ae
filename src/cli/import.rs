//! `ironcast import`: another system's configuration to our objects on standard output, the report on standard error.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Output;
use crate::{
    config::Ours,
    source::import::{Imported, Predecessor, import, read},
    types::Severity,
};

/// Flags of `ironcast import`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// What is replaced
    #[arg(value_enum)]
    from: From,

    /// Its objects: files, folders, or - for standard input
    #[arg(value_name = "PATH", default_value = "-")]
    paths: Vec<PathBuf>,

    /// Namespace of the daemon, where the objects go
    #[arg(long, default_value = "ironcast-system", value_name = "NAME")]
    namespace: String,

    #[command(flatten)]
    ours: Ours,

    /// Form of the output: a table is the objects as YAML, and the report apart from them
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// The system that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// Its resources (`kubectl get -o yaml`), or the ConfigMap of versions before 0.13.
    Metallb,
    /// Its DaemonSet or static pods, and the ConfigMap `kubevip`.
    KubeVip,
    /// The cloud provider of Equinix Metal: its Secret, its Deployment, Services and Nodes.
    Cpem,
}

/// Prints what comes of it. `false` where something has no counterpart.
pub(super) fn run(args: &Args) -> anyhow::Result<bool> {
    let settings = args.ours.settings("")?;
    let from = match args.from {
        From::Metallb => Predecessor::MetalLb,
        From::KubeVip => Predecessor::KubeVip,
        From::Cpem => Predecessor::Cpem,
    };
    let imported = import(from, &read(&args.paths)?, &args.namespace, &settings);
    match args.output {
        Output::Table => {
            super::print(&imported.yaml());
            report(&imported);
        }
        output => super::print(&super::structured(&imported, output)?),
    }
    Ok(imported.complete())
}

fn report(imported: &Imported) {
    for problem in &imported.report {
        let word = match problem.severity {
            Severity::Error => "no counterpart",
            Severity::Warning => "note",
        };
        eprintln!("{word}: {problem}");
    }
    let lost = imported.report.iter().filter(|problem| problem.severity == Severity::Error).count();
    let notes = imported.report.len() - lost;
    eprintln!("{} objects, {lost} without a counterpart, {notes} notes", imported.objects.len());
}
