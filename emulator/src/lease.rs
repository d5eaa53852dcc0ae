//! What the smaller vendors' addresses have in common: a row with an id, a network, marks of some form and a user.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use crate::ids::Ids;

/// One address or block.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) network: IpNet,
    pub(crate) region: String,
    /// Tags, label, description: as the vendor has them.
    pub(crate) marks: Value,
    pub(crate) created: Duration,
    /// The server or instance that it is given to.
    pub(crate) user: Option<String>,
}

/// All of them, the oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) ids: Ids,
    rows: Vec<Row>,
    base: Ipv4Addr,
}

impl Rows {
    /// Carved from the /16 that begins here.
    pub(crate) fn new(base: Ipv4Addr) -> Self {
        Self { ids: Ids::default(), rows: Vec::new(), base }
    }

    pub(crate) fn all(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn find(&mut self, id: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    pub(crate) fn add(&mut self, row: Row) -> &Row {
        self.rows.push(row);
        &self.rows[self.rows.len() - 1]
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Row> {
        let at = self.rows.iter().position(|row| row.id == id)?;
        Some(self.rows.remove(at))
    }

    /// The first free IPv4 block of this length.
    pub(crate) fn carve(&self, bits: u8) -> Option<IpNet> {
        let space = Ipv4Net::new(self.base, 16).ok()?;
        let free =
            |block: &IpNet| !self.rows.iter().any(|row| row.network.contains(block) || block.contains(&row.network));
        space.subnets(bits).ok()?.skip(1).map(IpNet::from).find(free)
    }
}
