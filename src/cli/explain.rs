//! `ironcast explain`: why a Service is, or is not, announced, where packets go, how a node stands, and what to do next.

mod node;
mod packet;
mod service;
mod session;

use super::{
    Output, Target,
    asked::{Found, From},
};

/// Flags of `ironcast explain`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Why a Service is, or is not, announced: by this node, or by each node of the cluster
    Service {
        /// NAMESPACE/NAME; a name alone is in `default`
        #[arg(value_name = "NAMESPACE/NAME")]
        service: String,
        #[command(flatten)]
        common: Common,
    },
    /// Where this node sends a packet: asks the program in the kernel, and compares it with the reference
    Packet(packet::Args),
    /// How this node, or the one named with --node, stands: its source, its sessions, what it withholds
    Node {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct Common {
    #[command(flatten)]
    from: From,

    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Explains. `false` where nobody knows the Service.
pub(super) async fn run(args: Args) -> anyhow::Result<bool> {
    match args.what {
        What::Packet(args) => packet::run(args).await,
        What::Service { service, common } => service::run(service, &common).await,
        What::Node { common } => node::run(&common).await,
    }
}
