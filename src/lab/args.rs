//! What the command line of `ironcast lab` and of its hidden halves says.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;

use crate::config::Delivery;

/// Flags of `ironcast lab`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Who is the top-of-rack router: our own crate, or a routing daemon installed on this machine
    #[arg(long, value_enum, default_value_t = RouterKind::Builtin, value_name = "NAME")]
    pub router: RouterKind,

    /// What carries packets from the node to the pod; `none` leaves it to rules like kube-proxy's [default: xdp for the
    /// scenarios that are about it (node-loss, ecmp-rehash, restart, coexistence, flood, chaos, soak), none for the others]
    #[arg(long, value_enum, value_name = "NAME")]
    pub datapath: Option<DatapathKind>,

    /// How packets reach the pods of a node: by its stack, or past it (needs --datapath xdp)
    #[arg(long, value_enum, default_value_t = Delivery::Stack, value_name = "NAME")]
    pub delivery: Delivery,

    /// Where addresses come from besides the pools
    #[arg(long, value_enum, default_value_t = ProviderKind::None, value_name = "NAME")]
    pub provider: ProviderKind,

    /// What happens in the lab
    #[arg(long, value_enum, default_value_t = ScenarioKind::FirstLight, value_name = "NAME")]
    pub scenario: ScenarioKind,

    /// Of the schedule of chaos: the same seed, nodes and minutes give the same
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// How long chaos or soak lasts
    #[arg(long, default_value_t = 1.0, value_name = "M", value_parser = minutes)]
    pub minutes: f64,

    /// Program of another version: daemons begin with it, become this one, and go back (needs --scenario restart)
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,

    /// Print the scenarios, one a line, and exit
    #[arg(long)]
    pub list: bool,

    /// How many nodes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=32))]
    pub nodes: u8,

    /// How many pods, spread over the nodes [default: two per node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub pods: Option<u16>,

    /// Print the verdict as one JSON object on standard output; everything else goes to standard error
    #[arg(long)]
    pub json: bool,

    /// Give up, and fail, after so many seconds; chaos and soak have three times their length on top
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,

    /// What the nodes run instead of this program: another version of it, or a sandbox around it, which must become the
    /// daemon (exec)
    #[arg(long, value_name = "PROGRAM")]
    pub daemon: Option<PathBuf>,

    /// Leave the lab running after the scenario until Ctrl-C
    #[arg(long)]
    pub keep: bool,

    /// Show all nodes on one status page at this address of this machine, while the lab runs
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:7473")]
    pub page: Option<SocketAddr>,

    /// Write the live view into this file as SVG, as it was when it had the most to show
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,

    /// Copy the logs of every process of the lab into this folder before they are removed
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
}

impl Args {
    /// How long chaos or soak lasts.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// When the lab gives up.
    pub(crate) fn bound(&self) -> Duration {
        let is_long = matches!(self.scenario, ScenarioKind::Chaos | ScenarioKind::Soak);
        let long = if is_long { self.length() * 3 } else { Duration::ZERO };
        Duration::from_secs(self.timeout) + long
    }

    /// What was asked for, or what the scenario is about.
    pub(crate) fn datapath(&self) -> DatapathKind {
        use ScenarioKind::{Chaos, Coexistence, EcmpRehash, Flood, NodeLoss, Restart, Soak};
        let about_it = matches!(self.scenario, NodeLoss | EcmpRehash | Restart | Coexistence | Flood | Chaos | Soak);
        let usual = if about_it && cfg!(feature = "xdp") { DatapathKind::Xdp } else { DatapathKind::None };
        self.datapath.unwrap_or(usual)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text:?} is no number of minutes"))?;
    if (0.1..=1440.0).contains(&minutes) { Ok(minutes) } else { Err("give 0.1 to 1440".into()) }
}

/// `--router`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RouterKind {
    /// Our own speaker in a router's role; nothing to install.
    Builtin,
    /// BIRD 2.
    Bird,
    /// FRRouting.
    Frr,
    /// GoBGP.
    Gobgp,
    /// ExaBGP, which keeps no routes: for the interop scenario only.
    Exabgp,
}

/// `--datapath`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatapathKind {
    /// Rules like kube-proxy's, written by the lab.
    None,
    /// Our XDP program, in the driver.
    Xdp,
    /// The same on the kernel's packet buffers.
    Generic,
    /// The same behind XDP, at tcx ingress.
    Tcx,
}

impl DatapathKind {
    /// Our programs carry the packets.
    pub(crate) fn is_ours(self) -> bool {
        self != Self::None
    }

    /// The step of the ladder that its uplinks must reach.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Self::None => "announce-only",
            Self::Xdp => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
        }
    }
}

/// `--provider`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderKind {
    /// Pools only.
    None,
    /// An emulated Packet API beside the router.
    Packet,
}

/// `--scenario`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScenarioKind {
    /// A Service appears: address, route in the router's kernel, answers from pods on several nodes; it goes, the
    /// route goes.
    FirstLight,
    /// A node dies with its link; the route shrinks, requests are answered; the node returns.
    NodeLoss,
    /// A node is drained; its route leaves and no new request fails.
    Drain,
    /// Thousands of connections stay open while nodes join and drain, pods scale and the router spreads anew.
    EcmpRehash,
    /// Daemons are killed and upgraded under load; no packet is lost.
    Restart,
    /// Beside kube-proxy's rules, a strict reverse path filter, masquerading and an overlay, requests are answered and
    /// uploads arrive whole.
    Coexistence,
    /// SYNs from forged sources as fast as the machine gives, at addresses with open connections; none breaks.
    Flood,
    /// Faults by a schedule from --seed for --minutes, under traffic, with a ledger of what each cost and may cost.
    Chaos,
    /// An hour of Services, endpoints, connections and sessions that come and go, for --minutes; what the daemons take of
    /// the machine stays what it was.
    Soak,
    /// Dozens of Services come, change and go; at the end everybody agrees.
    ServiceChurn,
    /// An address is claimed from the provider, announced, answered, withdrawn, given back; the eleventh Service is
    /// explained. Needs --provider packet.
    ElasticIp,
    /// What a packet costs a node, beside rules of kube-proxy's kind for 1,000 Services; leave the machine alone meanwhile.
    Throughput,
    /// Every feature of a session, tried with a router of another make and asserted on its side: a row of the matrix.
    Interop,
}

/// The word for a value on the command line.
pub(crate) fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// The hidden `ironcast lab-pod`: an HTTP server that answers with its name.
#[derive(Debug, Clone, clap::Args)]
pub struct PodArgs {
    /// What it answers.
    #[arg(long)]
    pub name: String,
    /// TCP port, on every address.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

/// The hidden `ironcast lab-router`: the built-in top-of-rack router, or GoBGP's hand into the kernel.
#[derive(Debug, Clone, clap::Args)]
pub struct RouterArgs {
    /// Our AS.
    #[arg(long)]
    pub asn: u32,
    /// The AS of the nodes.
    #[arg(long)]
    pub peer_asn: u32,
    /// Peers may connect from these addresses.
    #[arg(long = "peer", value_name = "ADDRESS")]
    pub peers: Vec<std::net::IpAddr>,
    /// Speak no BGP; install what GoBGP's API at this address has.
    #[arg(long, value_name = "ADDR:PORT")]
    pub follow_gobgp: Option<SocketAddr>,
}
