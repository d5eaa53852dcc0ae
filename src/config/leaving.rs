//! What sends a node away beside `ironcast drain`.

use clap::ValueEnum;

/// Taints of nodes that are about to be removed or are known to be down.
const TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/out-of-service"];

/// Flags about nodes that leave; the same for `run` and `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct LeavingFlags {
    /// What a cordon (`kubectl cordon`, `kubectl drain`) means: `drain` withdraws what other nodes announce too
    #[arg(long, value_enum, default_value_t = OnCordon::Drain, value_name = "HOW")]
    pub on_cordon: OnCordon,

    /// A node with this taint leaves like a cordoned one; KEY or KEY=VALUE; may be given more than once
    #[arg(long, value_name = "TAINT", default_values = TAINTS)]
    pub maintenance_taint: Vec<String>,
}

/// `--on-cordon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnCordon {
    /// The node leaves.
    Drain,
    /// It means nothing.
    Ignore,
}
