//! Whom a verb asks: the daemon of this node, or the cluster.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};

use super::Target;
use crate::{
    admin::client,
    app::connect,
    config,
    source::members::{Member, members},
    types::NodeState,
};

/// Where a verb looks that only reads.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct From {
    #[command(flatten)]
    target: Target,

    /// Ask the cluster for what every node wrote of itself [default: where no daemon has its socket here]
    #[arg(long)]
    cluster: bool,

    #[command(flatten)]
    way: Way,

    /// This node of the cluster alone
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// The way to a cluster.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Way {
    /// Reach the cluster with this kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the service account of the pod]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the daemons
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "ironcast-system", value_name = "NAME")]
    pub(super) namespace: String,
}

impl Way {
    /// Opens it; `else_say` what to give where no cluster is known.
    pub(super) async fn open(&self, else_say: &str) -> anyhow::Result<kube::Client> {
        match self.kubeconfig.as_deref() {
            Some(path) => connect(Some(path)).await,
            None => kube::Client::try_default().await.map_err(|error| anyhow!("{else_say} ({error})")),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// One node: the one of the daemon, or the one that was named.
    Node(Box<NodeState>),
    /// All nodes of the cluster, by name.
    Cluster(Vec<Member>),
}

/// [`From`] with the way opened.
pub(super) enum Asked<'a> {
    Daemon(&'a Path),
    Cluster { client: kube::Client, namespace: &'a str, node: Option<&'a str> },
}

impl From {
    fn is_cluster(&self) -> bool {
        let socket = &self.target.socket;
        let nobody_here = *socket == Path::new(config::ADMIN_SOCKET) && !socket.exists();
        self.cluster || self.way.kubeconfig.is_some() || self.node.is_some() || nobody_here
    }

    /// The daemon's socket, for questions that only it can answer.
    pub(super) fn socket(&self) -> &Path {
        &self.target.socket
    }

    /// Opens the way.
    pub(super) async fn open(&self) -> anyhow::Result<Asked<'_>> {
        if !self.is_cluster() {
            return Ok(Asked::Daemon(self.socket()));
        }
        let socket = self.socket().display();
        let else_say = format!(
            "no daemon has its socket at {socket}, and no cluster is known: give --socket PATH or --kubeconfig FILE"
        );
        let client = self.way.open(&else_say).await?;
        Ok(Asked::Cluster { client, namespace: &self.way.namespace, node: self.node.as_deref() })
    }
}

impl Asked<'_> {
    /// Looks once.
    pub(super) async fn look(&self) -> anyhow::Result<Found> {
        let (client, namespace, node) = match self {
            Self::Daemon(socket) => return Ok(Found::Node(Box::new(client::state(socket).await?))),
            Self::Cluster { client, namespace, node } => (client, namespace, *node),
        };
        let members = members(client, namespace).await?;
        let Some(name) = node else { return Ok(Found::Cluster(members)) };
        match members.iter().find(|member| member.name == name).map(|member| &member.state) {
            Some(Some(state)) => Ok(Found::Node(Box::new(state.clone()))),
            Some(None) => bail!("no daemon has written a BGPNodeStatus for node {name}: see that one runs there"),
            None => {
                let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
                bail!("there is no node {name}; nodes: {}", names.join(", "))
            }
        }
    }
}
