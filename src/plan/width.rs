//! Which nodes announce a prefix to a router whose ECMP takes no more than so many paths. Rendezvous hashing: every
//! node draws the same order for each prefix, the first ones announce, and a node that comes or goes moves nobody
//! else's place.

use ipnet::IpNet;

/// The nodes that a router hears, and how many of them may announce one prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Width<'a> {
    limit: usize,
    /// Without this one.
    others: Vec<(u64, &'a str)>,
    own: (u64, &'a str),
}

impl<'a> Width<'a> {
    /// `nodes` may hold `own` or not.
    pub(super) fn new(limit: u32, own: &'a str, nodes: impl Iterator<Item = &'a str>) -> Self {
        let others = nodes.filter(|node| *node != own).map(|node| (hash(node.as_bytes()), node)).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { limit, others, own: (hash(own.as_bytes()), own) }
    }

    /// Whether this node is among those that announce it, of itself and the others that `announce` it.
    pub(super) fn includes_us(&self, prefix: &IpNet, mut announces: impl FnMut(&str) -> bool) -> bool {
        if self.others.len() < self.limit {
            return true;
        }
        let key = hash(prefix.to_string().as_bytes());
        let rank = |(node, name): (u64, &'a str)| (mix(key ^ node), name);
        let own = rank(self.own);
        let before = self.others.iter().filter(|other| rank(**other) > own && announces(other.1));
        before.take(self.limit).count() < self.limit
    }
}

/// FNV-1a, 64 bits: fixed for ever, since daemons of two versions must agree.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64: close inputs end far apart.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn announcers<'a>(nodes: &[&'a str], prefix: &str, limit: u32) -> BTreeSet<&'a str> {
        let prefix = prefix.parse().expect("a prefix");
        let among = |own: &&'a str| Width::new(limit, own, nodes.iter().copied()).includes_us(&prefix, |_| true);
        nodes.iter().copied().filter(among).collect()
    }

    #[test]
    fn as_many_nodes_as_the_router_takes_announce_and_a_lost_one_moves_nobody_else() {
        let names: Vec<String> = (0..20).map(|n| format!("node-{n}")).collect();
        let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut load = std::collections::BTreeMap::<&str, u32>::new();
        for n in 0..200 {
            let prefix = format!("192.0.2.{n}/32");
            let before = announcers(&nodes, &prefix, 4);
            assert_eq!(before.len(), 4, "{prefix}");
            before.iter().for_each(|node| *load.entry(node).or_default() += 1);
            let without: Vec<&str> = nodes.iter().copied().filter(|node| *node != "node-7").collect();
            let after = announcers(&without, &prefix, 4);
            assert_eq!(after.len(), 4, "{prefix}");
            let moved = before.iter().filter(|node| !after.contains(*node)).collect::<Vec<_>>();
            assert!(moved.is_empty() || moved == [&"node-7"], "{prefix}: {moved:?}");
        }
        // 40 each on average.
        assert!(load.len() == 20 && load.values().all(|n| (15..=70).contains(n)), "{load:?}");
    }

    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
