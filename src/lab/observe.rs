//! Looks at the lab a few times a second: what each daemon says of itself, what the router's kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::future::join_all;
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    fib::{self, Ports},
    netns::Inside,
    site::Site,
};
use crate::{admin::client, types::NodeState};

/// Between two looks. Timings of the report are as exact as this.
pub(crate) const EVERY: Duration = Duration::from_millis(50);

/// One look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// By node; `None` where the daemon does not answer.
    pub(crate) nodes: BTreeMap<String, Option<NodeState>>,
    /// The router's kernel.
    pub(crate) routes: Ports,
}

impl Seen {
    /// Daemons that answer.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values().flatten()
    }

    /// Sessions of a node that are Established.
    pub(crate) fn established(&self, node: &str) -> usize {
        let sessions = self.nodes.get(node).into_iter().flatten().flat_map(|state| &state.sessions);
        sessions.filter(|session| session.state == "Established").count()
    }

    /// The node whose daemon allocates.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.alive().find(|state| state.leader).map(|state| state.node.as_str())
    }

    /// Addresses of a Service (`namespace/name`) as the leader has them, or anybody where there is no leader.
    pub(crate) fn addresses(&self, service: &str) -> Vec<IpAddr> {
        let state = self.alive().find(|state| state.leader).or_else(|| self.alive().next());
        let service = state.and_then(|state| state.services.iter().find(|s| s.service == service));
        service.map(|s| s.addresses.clone()).unwrap_or_default()
    }

    /// The router's ports towards an address; each is named after the node that it leads to.
    pub(crate) fn next_hops(&self, to: IpAddr) -> BTreeSet<String> {
        self.routes.get(&IpNet::from(to)).cloned().unwrap_or_default()
    }
}

/// Starts looking, in the router's namespace.
pub(crate) fn start(
    site: &Site,
    router: &Inside,
    sockets: BTreeMap<String, PathBuf>,
    every: Duration,
) -> watch::Receiver<Arc<Seen>> {
    let (sender, receiver) = watch::channel(Arc::new(Seen::default()));
    let names: Vec<String> = site.nodes.iter().map(|n| n.name.clone()).collect();
    router.spawn(async move {
        if let Err(error) = look(&sender, &names, &sockets, every).await {
            tracing::error!("the lab's eyes failed: {error:#}");
        }
    });
    receiver
}

async fn look(
    sender: &watch::Sender<Arc<Seen>>,
    names: &[String],
    sockets: &BTreeMap<String, PathBuf>,
    every: Duration,
) -> anyhow::Result<()> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("open netlink")?;
    tokio::spawn(connection);
    while !sender.is_closed() {
        let ask = |name: &String| {
            let socket = sockets.get(name).cloned().unwrap_or_default();
            async move { client::state(&socket).await.ok() }
        };
        let states = join_all(names.iter().map(ask)).await;
        let nodes = names.iter().cloned().zip(states).collect();
        sender.send_replace(Arc::new(Seen { nodes, routes: fib::read(&netlink).await? }));
        tokio::time::sleep(every).await;
    }
    Ok(())
}
