//! How the operator started us: flags and environment of `ironcast run`.
//!
//! [`Run`] is what clap reads; [`Run::resolve`] checks what belongs together and gives [`Config`], which
//! the rest of the program trusts.

mod leaving;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use ironcast_bgp::RouterId;

use crate::plan::Settings;
pub use leaving::{LeavingFlags, OnCordon};

/// Where `status`, `explain` and `drain` find the daemon when not told otherwise.
pub const ADMIN_SOCKET: &str = "/run/ironcast/admin.sock";
/// TCP address of the admin port when not told otherwise; MetalLB's port, since dashboards know it.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:7472";
/// Where a daemon keeps what must outlive it.
pub const STATE_DIR: &str = "/var/lib/ironcast";

/// Where programs of the packet path outlive the daemon when not told otherwise.
pub const PINS: &str = "/sys/fs/bpf/ironcast";

/// Flags of `ironcast run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// Read Services, EndpointSlices, Nodes and our resources from the YAML files of this folder instead of
    /// an API server
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,

    /// Reach the API server with this kubeconfig; without it and without --manifests, the service account
    /// of the pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of this node, as in the Node object [default: the host name]
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: Option<String>,

    /// Namespace of the Lease, of Secrets and of our resources
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "ironcast-system")]
    pub namespace: String,

    /// Interface that holds the addresses of Services: `lo` where servers on this host take the packets,
    /// `none` where kube-proxy's rules do. `auto` is `lo` with --manifests and `none` on a cluster
    #[arg(long, value_enum, default_value_t = VipInterface::Auto, value_name = "WHICH")]
    pub vip_interface: VipInterface,

    /// What carries packets of Services to their pods: `xdp` is our programs, in the driver, else on the kernel's
    /// buffers (`generic`), else behind XDP (`tcx`), whatever the kernel allows; `none` leaves them to kube-proxy. `auto` is `xdp` on a cluster and `none` with --manifests,
    /// or where addresses stand on `lo`
    #[arg(long, value_enum, default_value_t = Datapath::Auto, value_name = "WHICH")]
    pub datapath: Datapath,

    /// How a packet gets from the packet path to a pod of this node: `stack` is the way of every other packet;
    /// `bypass` goes from the uplink straight to the pod's veth and back, several times as fast, but past netfilter:
    /// no NetworkPolicy that is made of it holds. Pods without a veth of their own, and nodes with Cilium or Calico,
    /// keep the stack
    #[arg(long, value_enum, default_value_t = Delivery::Stack, value_name = "HOW")]
    pub delivery: Delivery,

    /// Interface that packets of Services come in on; may be given more than once [default: those of the default
    /// routes and towards BGP peers]
    #[arg(long, value_name = "INTERFACE")]
    pub uplink: Vec<String>,

    /// Folder in a bpffs where programs and connections outlive a restart of the daemon
    #[arg(long, value_name = "DIR", default_value = PINS)]
    pub pins: PathBuf,

    /// Connections of this node's pods that are remembered at most, 1024 to 67108864; of datagrams half as many flows
    #[arg(long, value_name = "N", default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(1024..=1 << 26))]
    pub max_flows: u32,

    /// File with a secret of the cluster, the same on every node: who knows it can aim at a pod [default: made by
    /// the leader with --manifests, derived from the UID of the namespace kube-system on a cluster]
    #[arg(long, value_name = "FILE")]
    pub cluster_secret: Option<PathBuf>,

    /// Address of the admin port (/live, /ready, /metrics, /state.json), or `none`
    #[arg(long, value_name = "ADDR", default_value = ADMIN_ADDRESS, value_parser = parse_admin)]
    pub admin: Admin,

    /// Let --admin be an address that other hosts reach; the port has no authentication
    #[arg(long)]
    pub admin_public: bool,

    /// Unix socket of the admin port, for `ironcast status`, `explain` and `drain`
    #[arg(long, env = "IRONCAST_SOCKET", value_name = "PATH", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,

    /// Folder for what must outlive a restart
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    // No doc comment: clap would show it as a heading's text.
    #[command(flatten)]
    #[allow(missing_docs)]
    pub ours: Ours,

    /// BGP identifier of this node [default: the Node object's first IPv4 address, else made from its name]
    #[arg(long, value_name = "A.B.C.D", value_parser = parse_router_id)]
    pub router_id: Option<RouterId>,

    /// Listen here for BGP peers with `passive: true`; may be given more than once [default: dial only]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    pub listen: Vec<SocketAddr>,

    /// Tell this BMP station of every session and every route announced (RFC 7854, RFC 8671); may be given more
    /// than once
    #[arg(long, value_name = "ADDR:PORT")]
    pub bmp: Vec<SocketAddr>,

    /// How long a node that leaves still announces, with the community graceful-shutdown, before it withdraws
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    pub drain_wait: u64,

    /// What SIGTERM means: `restart` leaves routes to graceful restart, `stop` withdraws everything at once
    #[arg(long, value_enum, default_value_t = OnShutdown::Restart, value_name = "HOW")]
    pub on_shutdown: OnShutdown,

    /// Form of the log; RUST_LOG filters it
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORM")]
    pub log_format: LogFormat,
}

/// Which Services and nodes are ours; the same for `run` and `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct Ours {
    /// Take Services with this `spec.loadBalancerClass`; those without a class are then left alone
    #[arg(long, value_name = "CLASS")]
    pub load_balancer_class: Option<String>,

    /// Take Services without a class [default: true, but false with --load-balancer-class]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub unclassed: Option<bool>,

    /// Announce from nodes labelled node.kubernetes.io/exclude-from-external-load-balancers too
    #[arg(long)]
    pub ignore_exclude_label: bool,

    // No doc comment: clap would show it as a heading's text.
    #[command(flatten)]
    #[allow(missing_docs)]
    pub leaving: LeavingFlags,
}

impl Ours {
    /// What `plan` decides with, on the node of this name.
    ///
    /// # Errors
    /// The flags leave nothing to take.
    pub fn settings(&self, node: &str) -> Result<Settings, ConfigError> {
        let unclassed = self.unclassed.unwrap_or(self.load_balancer_class.is_none());
        if !unclassed && self.load_balancer_class.is_none() {
            return Err(ConfigError::NothingToTake);
        }
        Ok(Settings {
            class: self.load_balancer_class.clone(),
            unclassed,
            ignore_exclude_label: self.ignore_exclude_label,
            cordon_drains: self.leaving.on_cordon == OnCordon::Drain,
            maintenance_taints: self.leaving.maintenance_taint.iter().cloned().collect(),
            ..Settings::new(node)
        })
    }
}

/// `--vip-interface`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VipInterface {
    /// `lo` with manifests, `none` on a cluster.
    Auto,
    /// The loopback device.
    Lo,
    /// No interface.
    None,
}

/// `--datapath`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Datapath {
    /// `xdp` on a cluster, `none` with manifests or addresses on `lo`.
    Auto,
    /// Our programs, in the best way that the kernel allows.
    Xdp,
    /// The same, but not in the driver.
    Generic,
    /// The same, but behind XDP, at tcx ingress.
    Tcx,
    /// kube-proxy, or servers on this host.
    None,
}

impl Datapath {
    /// Our programs by their name.
    fn is_asked_for(self) -> bool {
        matches!(self, Self::Xdp | Self::Generic | Self::Tcx)
    }
}

/// `--delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Delivery {
    /// By the host's own stack.
    Stack,
    /// Past it.
    Bypass,
}

/// The packet path, where it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatapathConfig {
    /// Interfaces; empty is found out.
    pub uplinks: Vec<String>,
    /// The step of the ladder to begin with.
    pub best: Datapath,
    /// Connections remembered at most.
    pub max_flows: u32,
    /// `--delivery`.
    pub delivery: Delivery,
    /// `--cluster-secret`.
    pub secret: Option<PathBuf>,
}

/// `--on-shutdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnShutdown {
    /// Sessions end without a word, addresses stay.
    Restart,
    /// A Cease to every peer, addresses removed.
    Stop,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `--admin`: an address, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin(pub Option<SocketAddr>);

/// Where the world is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// An API server; in-cluster configuration where the path is `None`.
    Kubernetes {
        /// `--kubeconfig`.
        kubeconfig: Option<PathBuf>,
    },
}

impl SourceConfig {
    /// The word in `/state.json`: `manifests` or `kubernetes`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Manifests(_) => "manifests",
            Self::Kubernetes { .. } => "kubernetes",
        }
    }
}

/// A checked configuration of the daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the world is seen.
    pub source: SourceConfig,
    /// Name of this node.
    pub node: String,
    /// Namespace of the Lease, of Secrets and of our resources.
    pub namespace: String,
    /// Addresses of Services are put on `lo`.
    pub vips_on_lo: bool,
    /// The packet path; `None` where something else carries packets.
    pub datapath: Option<DatapathConfig>,
    /// Folder in a bpffs where programs stand, of ours or of a predecessor.
    pub pins: PathBuf,
    /// TCP address of the admin port.
    pub admin: Option<SocketAddr>,
    /// Unix socket of the admin port.
    pub admin_socket: PathBuf,
    /// Folder for what must outlive a restart.
    pub state_dir: PathBuf,
    /// What `plan` decides with.
    pub settings: Settings,
    /// `--router-id`; chosen from the node's addresses where `None`.
    pub router_id: Option<RouterId>,
    /// Sockets for passive peers.
    pub listen: Vec<SocketAddr>,
    /// BMP stations.
    pub bmp: Vec<SocketAddr>,
    /// `--drain-wait`.
    pub drain_wait: Duration,
    /// What SIGTERM means.
    pub on_shutdown: OnShutdown,
}

/// Flags that do not go together, or a host that does not tell its name.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--admin` on an address that others reach.
    #[error(
        "--admin {0} can be reached from other hosts and has no authentication: use a loopback address, or add --admin-public"
    )]
    PublicAdmin(SocketAddr),
    /// `--unclassed false` alone.
    #[error("--unclassed false without --load-balancer-class leaves no Service to take: add the class")]
    NothingToTake,
    /// `--datapath xdp` beside addresses on `lo`.
    #[error("--datapath xdp hands packets to pods and --vip-interface lo to servers on this host: choose one")]
    TwoPaths,
    /// `--datapath xdp` in a build without it.
    #[error("--datapath xdp: this program was built without the feature `xdp`; use another build or --datapath none")]
    WithoutXdp,
    /// No `--node`, and the host has no readable name.
    #[error("this host has no readable name: give --node NAME")]
    NoNodeName,
    /// `--manifests` is no folder.
    #[error("--manifests {path}: {problem}")]
    Manifests {
        /// The path given.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Run {
    /// Checks what belongs together and fills in what the host knows.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        if let Some(address) = self.admin.0
            && !address.ip().is_loopback()
            && !self.admin_public
        {
            return Err(ConfigError::PublicAdmin(address));
        }
        let node = self.node.map_or_else(host_name, Ok)?;
        let settings = self.ours.settings(&node)?;
        let source = match self.manifests {
            Some(dir) => SourceConfig::Manifests(checked_folder(&dir)?),
            None => SourceConfig::Kubernetes { kubeconfig: self.kubeconfig },
        };
        let manifests = matches!(source, SourceConfig::Manifests(_));
        let vips_on_lo = match self.vip_interface {
            VipInterface::Auto => manifests && !self.datapath.is_asked_for(),
            VipInterface::Lo => true,
            VipInterface::None => false,
        };
        let has_xdp = match self.datapath {
            asked if asked.is_asked_for() && vips_on_lo => return Err(ConfigError::TwoPaths),
            asked if asked.is_asked_for() && !cfg!(feature = "xdp") => return Err(ConfigError::WithoutXdp),
            Datapath::Xdp | Datapath::Generic | Datapath::Tcx => true,
            Datapath::Auto => cfg!(feature = "xdp") && !manifests && !vips_on_lo,
            Datapath::None => false,
        };
        let (uplinks, max_flows, secret) = (self.uplink, self.max_flows, self.cluster_secret);
        let datapath = DatapathConfig { uplinks, best: self.datapath, max_flows, delivery: self.delivery, secret };
        Ok(Config {
            node,
            settings,
            source,
            namespace: self.namespace,
            vips_on_lo,
            datapath: has_xdp.then_some(datapath),
            pins: self.pins,
            admin: self.admin.0,
            admin_socket: self.admin_socket,
            state_dir: self.state_dir,
            router_id: self.router_id,
            listen: self.listen,
            bmp: self.bmp,
            drain_wait: Duration::from_secs(self.drain_wait),
            on_shutdown: self.on_shutdown,
        })
    }
}

fn checked_folder(path: &Path) -> Result<PathBuf, ConfigError> {
    let wrong = |problem: String| ConfigError::Manifests { path: path.into(), problem };
    let metadata = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if !metadata.is_dir() {
        return Err(wrong("is not a folder; give the folder that the files are in".into()));
    }
    Ok(path.into())
}

fn host_name() -> Result<String, ConfigError> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").map_err(|_| ConfigError::NoNodeName)?;
    let name = name.trim().to_lowercase();
    if name.is_empty() { Err(ConfigError::NoNodeName) } else { Ok(name) }
}

fn parse_admin(text: &str) -> Result<Admin, String> {
    if text == "none" {
        return Ok(Admin(None));
    }
    let address = text.parse().map_err(|_| format!("{text:?} is neither ADDRESS:PORT nor `none`"))?;
    Ok(Admin(Some(address)))
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse() {
        return Ok(SocketAddr::new(ip, 179));
    }
    text.parse().map_err(|_| format!("{text:?} is neither ADDRESS:PORT nor an address (port 179)"))
}

fn parse_router_id(text: &str) -> Result<RouterId, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| format!("{text:?} is not four octets like 192.0.2.1"))?;
    RouterId::new(address).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        run: Run,
    }

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        let all = ["ironcast"].iter().chain(arguments);
        Command::try_parse_from(all).expect("flags parse").run.resolve()
    }

    #[test]
    fn admin_port_stays_on_loopback_unless_told_otherwise() {
        let refused = resolve(&["--admin", "0.0.0.0:7472"]).expect_err("public");
        assert!(refused.to_string().contains("--admin-public"), "{refused}");
        assert!(resolve(&["--admin", "0.0.0.0:7472", "--admin-public"]).is_ok());
        assert_eq!(resolve(&["--admin", "none"]).expect("valid").admin, None);
        assert!(resolve(&[]).expect("valid").admin.expect("default").ip().is_loopback());
    }

    #[test]
    fn class_takes_only_its_own_services_unless_told_otherwise() {
        assert!(resolve(&[]).expect("valid").settings.unclassed);
        assert!(!resolve(&["--load-balancer-class", "x/y"]).expect("valid").settings.unclassed);
        assert!(resolve(&["--load-balancer-class", "x/y", "--unclassed", "true"]).expect("valid").settings.unclassed);
        assert!(matches!(resolve(&["--unclassed", "false"]), Err(ConfigError::NothingToTake)));
    }

    #[test]
    fn addresses_go_on_lo_only_where_nothing_else_takes_the_packet() {
        assert!(!resolve(&[]).expect("valid").vips_on_lo);
        assert!(resolve(&["--manifests", "/"]).expect("valid").vips_on_lo);
        assert!(!resolve(&["--manifests", "/", "--vip-interface", "none"]).expect("valid").vips_on_lo);
    }

    #[cfg(feature = "xdp")]
    #[test]
    fn packet_path_is_ours_on_a_cluster_and_never_beside_servers_on_the_host() {
        assert!(resolve(&[]).expect("valid").datapath.is_some());
        assert!(resolve(&["--datapath", "none"]).expect("valid").datapath.is_none());
        assert!(resolve(&["--vip-interface", "lo"]).expect("valid").datapath.is_none());
        assert!(resolve(&["--manifests", "/"]).expect("valid").datapath.is_none());
        let both = resolve(&["--manifests", "/", "--datapath", "xdp"]).expect("valid");
        assert!(both.datapath.is_some() && !both.vips_on_lo);
        let refused = resolve(&["--datapath", "xdp", "--vip-interface", "lo"]);
        assert!(matches!(refused, Err(ConfigError::TwoPaths)));
    }

    #[test]
    fn missing_manifest_folder_is_named() {
        let error = resolve(&["--manifests", "/nonexistent/x"]).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/x"), "{error}");
    }

    #[test]
    fn bmp_stations_are_as_many_as_are_given() {
        let stations = resolve(&["--bmp", "192.0.2.9:11019", "--bmp", "[2001:db8::9]:1790"]).expect("valid").bmp;
        assert_eq!(stations.iter().map(SocketAddr::port).collect::<Vec<_>>(), [11019, 1790]);
        assert!(Command::try_parse_from(["ironcast", "--bmp", "192.0.2.9"]).is_err(), "stations have no usual port");
    }

    #[test]
    fn listening_port_defaults_to_179() {
        assert_eq!(resolve(&["--listen", "::"]).expect("valid").listen, ["[::]:179".parse().expect("valid")]);
    }
}
