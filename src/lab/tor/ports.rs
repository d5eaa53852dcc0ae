//! The router's ports: which have a carrier, and which subnets are behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Context;
use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{address::AddressAttribute, link::LinkFlags};
use rtnetlink::Handle;

/// Subnets and the ports that they are on.
#[derive(Debug, Default)]
pub(super) struct Ports {
    subnets: BTreeMap<IpNet, u32>,
    carrier: BTreeSet<u32>,
}

impl Ports {
    /// Reads links and addresses anew.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub(super) async fn read(&mut self, handle: &Handle) -> anyhow::Result<()> {
        let links: Vec<_> = handle.link().get().execute().try_collect().await.context("read the links")?;
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        self.carrier = links.iter().filter(|l| l.header.flags.contains(up)).map(|l| l.header.index).collect();
        let addresses: Vec<_> = handle.address().get().execute().try_collect().await.context("read the addresses")?;
        self.subnets = addresses
            .iter()
            .filter_map(|message| {
                let address: IpAddr = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })?;
                Some((IpNet::new(address, message.header.prefix_len).ok()?.trunc(), message.header.index))
            })
            .collect();
        Ok(())
    }

    /// Whether a next hop's port has a carrier; unknown ones count as alive and are the kernel's to judge.
    pub(super) fn alive(&self, next_hop: IpAddr) -> bool {
        let port = self.subnets.iter().find(|(subnet, _)| subnet.contains(&next_hop)).map(|(_, port)| port);
        port.is_none_or(|port| self.carrier.contains(port))
    }
}
