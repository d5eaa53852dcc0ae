//! What nodes announced, and what of it counts: routes of a node that may be restarting stay until it has
//! said everything again or its time is over (RFC 4724 §4.2), and so do those that this router left in the kernel when it
//! died (§4.1). Pure; time is an argument.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use ipnet::IpNet;
use ironcast_bgp::speaker::{PeerId, Received};

use crate::lab::fib::Routes;

/// Routes by peer.
#[derive(Debug, Default)]
pub(super) struct Table {
    peers: BTreeMap<PeerId, Peer>,
    /// Of before our restart, and when the rest of it goes.
    left: Option<(Routes, Instant)>,
}

#[derive(Debug, Default)]
struct Peer {
    /// By prefix and path.
    routes: BTreeMap<(IpNet, u32), Entry>,
    /// When stale routes go.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    next_hop: IpAddr,
    /// Announced before the session ended and not again since.
    stale: bool,
}

impl Table {
    /// With what is in the kernel already: a next hop of it stays until its node has said everything, or until then.
    pub(super) fn after_restart(left: Routes, until: Instant) -> Self {
        Self { peers: BTreeMap::new(), left: (!left.is_empty()).then_some((left, until)) }
    }

    /// Takes what a peer sent.
    pub(super) fn handle(&mut self, now: Instant, event: Received) {
        match event {
            Received::Announce { peer, route, path } => {
                if let Some(next_hop) = route.attributes.next_hop {
                    let entry = Entry { next_hop, stale: false };
                    self.peers.entry(peer).or_default().routes.insert((route.prefix, path), entry);
                }
            }
            Received::Withdraw { peer, prefix, path } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.routes.remove(&(prefix, path));
                }
            }
            Received::EndOfRib { peer, family } => {
                let v4 = family == ironcast_bgp::Family::Ipv4Unicast;
                self.forget_left(&peer, v4);
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.routes.retain(|(prefix, _), entry| !entry.stale || prefix.addr().is_ipv4() != v4);
                }
            }
            Received::Down { peer, graceful: None } => {
                self.peers.remove(&peer);
            }
            Received::Down { peer, graceful: Some(time) } => {
                let peer = self.peers.entry(peer).or_default();
                peer.until = Some(now + time);
                peer.routes.values_mut().for_each(|entry| entry.stale = true);
            }
        }
    }

    /// A node has said again all that holds of one family. The names of peers end with their addresses.
    fn forget_left(&mut self, peer: &PeerId, v4: bool) {
        let Some((left, _)) = &mut self.left else { return };
        let address = peer.0.rsplit('/').next().and_then(|address| address.parse::<IpAddr>().ok());
        left.retain(|prefix, next_hops| {
            if prefix.addr().is_ipv4() == v4 {
                next_hops.retain(|next_hop| Some(*next_hop) != address);
            }
            !next_hops.is_empty()
        });
    }

    /// When [`Table::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let left = self.left.as_ref().map(|(_, until)| *until);
        self.peers.values().filter_map(|peer| peer.until).chain(left).min()
    }

    /// Drops what stayed stale for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.left.take_if(|(_, until)| *until <= now);
        for peer in self.peers.values_mut() {
            if peer.until.is_some_and(|until| until <= now) {
                peer.until = None;
                peer.routes.retain(|_, entry| !entry.stale);
            }
        }
    }

    /// Every prefix with the next hops of all peers that announce it.
    pub(super) fn routes(&self) -> Routes {
        let mut routes = self.left.as_ref().map(|(left, _)| left.clone()).unwrap_or_default();
        for ((prefix, _), entry) in self.peers.values().flat_map(|peer| &peer.routes) {
            routes.entry(*prefix).or_default().insert(entry.next_hop);
        }
        routes
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use ironcast_bgp::{
        Family,
        rib::{Attributes, Route},
    };

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId(format!("dynamic/10.77.{n}.2").into())
    }

    fn announce(n: u8, prefix: &str) -> Received {
        let next_hop = Some(format!("10.77.{n}.2").parse().expect("address"));
        let attributes = Arc::new(Attributes { next_hop, ..Attributes::default() });
        let route = Route { prefix: prefix.parse().expect("prefix"), attributes };
        Received::Announce { peer: peer(n), route, path: 0 }
    }

    fn hops(table: &Table, prefix: &str) -> usize {
        table.routes().get(&prefix.parse().expect("prefix")).map_or(0, std::collections::BTreeSet::len)
    }

    #[test]
    fn next_hops_of_all_nodes_unite() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.handle(now, announce(1, "192.0.2.1/32"));
        table.handle(now, announce(2, "192.0.2.1/32"));
        assert_eq!(hops(&table, "192.0.2.1/32"), 2);
        let prefix = "192.0.2.1/32".parse().expect("prefix");
        table.handle(now, Received::Withdraw { peer: peer(1), prefix, path: 0 });
        assert_eq!(hops(&table, "192.0.2.1/32"), 1);
        table.handle(now, Received::Down { peer: peer(2), graceful: None });
        assert_eq!(hops(&table, "192.0.2.1/32"), 0);
    }

    #[test]
    fn restarting_node_keeps_its_routes_until_its_time_is_over() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.handle(now, announce(1, "192.0.2.1/32"));
        table.handle(now, Received::Down { peer: peer(1), graceful: Some(Duration::from_secs(30)) });
        assert_eq!(table.deadline(), Some(now + Duration::from_secs(30)));
        table.expire(now + Duration::from_secs(29));
        assert_eq!(hops(&table, "192.0.2.1/32"), 1);
        table.expire(now + Duration::from_secs(30));
        assert_eq!(hops(&table, "192.0.2.1/32"), 0);
        assert_eq!(table.deadline(), None);
    }

    #[test]
    fn what_is_left_of_before_a_restart_goes_node_by_node_or_in_the_end() {
        let prefix = |n: u8| format!("192.0.2.{n}/32").parse::<IpNet>().expect("prefix");
        let hop = |n: u8| format!("10.77.{n}.2").parse::<IpAddr>().expect("address");
        let left = Routes::from([(prefix(1), [hop(1), hop(2)].into()), (prefix(2), [hop(1)].into())]);
        let now = Instant::now();
        let mut table = Table::after_restart(left, now + Duration::from_secs(30));
        table.handle(now, announce(1, "192.0.2.1/32"));
        assert_eq!((hops(&table, "192.0.2.1/32"), hops(&table, "192.0.2.2/32")), (2, 1));
        table.handle(now, Received::EndOfRib { peer: peer(1), family: Family::Ipv6Unicast });
        assert_eq!(hops(&table, "192.0.2.2/32"), 1, "the other family's end says nothing of this one");
        table.handle(now, Received::EndOfRib { peer: peer(1), family: Family::Ipv4Unicast });
        assert_eq!((hops(&table, "192.0.2.1/32"), hops(&table, "192.0.2.2/32")), (2, 0));
        assert_eq!(table.deadline(), Some(now + Duration::from_secs(30)));
        table.expire(now + Duration::from_secs(30));
        assert_eq!((hops(&table, "192.0.2.1/32"), table.deadline()), (1, None));
    }

    #[test]
    fn end_of_rib_drops_what_was_not_announced_again() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.handle(now, announce(1, "192.0.2.1/32"));
        table.handle(now, announce(1, "192.0.2.2/32"));
        table.handle(now, Received::Down { peer: peer(1), graceful: Some(Duration::from_secs(30)) });
        table.handle(now, announce(1, "192.0.2.2/32"));
        table.handle(now, Received::EndOfRib { peer: peer(1), family: Family::Ipv6Unicast });
        assert_eq!(hops(&table, "192.0.2.1/32"), 1, "the other family's end says nothing of this one");
        table.handle(now, Received::EndOfRib { peer: peer(1), family: Family::Ipv4Unicast });
        assert_eq!((hops(&table, "192.0.2.1/32"), hops(&table, "192.0.2.2/32")), (0, 1));
    }
}
