//! `ironcast status --page`: the status page of a node or of a whole cluster, from where the operator sits.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::sync::watch;

use super::asked::{Asked, Found};
use crate::admin::page::{Nodes, PagePort};

/// Between two looks; the page asks as often.
const EVERY: Duration = Duration::from_secs(2);

/// Serves the page until Ctrl-C.
pub(super) async fn serve(address: SocketAddr, asked: &Asked<'_>) -> anyhow::Result<bool> {
    let nodes = look(asked).await?;
    let port = PagePort::open(address).await;
    let port = port.with_context(|| format!("open {address} for the page; give --page another ADDRESS:PORT"))?;
    let (sender, receiver) = watch::channel(Arc::new(Ok(nodes)));
    super::print(&format!("http://{}/ shows it until Ctrl-C\n", port.address()?));
    let keep_looking = async {
        loop {
            tokio::time::sleep(EVERY).await;
            let nodes: Nodes = look(asked).await.map_err(|error| format!("{error:#}"));
            sender.send_replace(Arc::new(nodes));
        }
    };
    tokio::select! {
        served = port.serve(receiver) => served.map(|()| true).context("serve the page"),
        () = keep_looking => Ok(true),
        _ = tokio::signal::ctrl_c() => Ok(true),
    }
}

async fn look(asked: &Asked<'_>) -> anyhow::Result<Vec<crate::types::NodeState>> {
    Ok(match asked.look().await? {
        Found::Node(state) => vec![*state],
        Found::Cluster(members) => members.into_iter().filter_map(|member| member.state).collect(),
    })
}
