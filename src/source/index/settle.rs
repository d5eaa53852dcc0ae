//! What is valid by itself but not beside the others. What is in use and unchanged comes first, then what is older,
//! then the smaller name: an edit or a new object never takes anything from one that works. An object that is
//! refused here stays in use as it last was.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use super::{Kind, ObjectKey, store::still_in_use};
use crate::types::{AddressRange, Node, Peer, Pool, Problem, Selector, Severity};

/// An object that would be used.
#[derive(Debug)]
pub(super) struct Candidate<'a, T> {
    pub(super) key: &'a ObjectKey,
    pub(super) created: i64,
    pub(super) value: T,
}

/// Why an object cannot be used beside the others.
#[derive(Debug)]
pub(super) struct Clash {
    pub(super) field: String,
    pub(super) message: String,
    pub(super) hint: String,
}

/// What objects of a kind take for themselves alone.
pub(super) trait Claims<T> {
    /// Something of it is taken.
    fn clash(&self, value: &T) -> Option<Clash>;
    /// It is used.
    fn take(&mut self, key: &ObjectKey, value: &T);
}

/// Objects that take nothing but their name.
pub(super) struct NameOnly;

impl<T> Claims<T> for NameOnly {
    fn clash(&self, _: &T) -> Option<Clash> {
        None
    }

    fn take(&mut self, _: &ObjectKey, _: &T) {}
}

/// The objects that are used, by key; `in_use` is what the same call returned last.
pub(super) fn settle<T: Clone + PartialEq>(
    kind: Kind,
    mut candidates: Vec<Candidate<'_, T>>,
    in_use: &BTreeMap<ObjectKey, T>,
    claims: &mut impl Claims<T>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ObjectKey, T> {
    candidates.sort_by_cached_key(|c| (in_use.get(c.key) != Some(&c.value), c.created, c.key.clone()));
    let mut used: BTreeMap<ObjectKey, T> = BTreeMap::new();
    let mut names: BTreeMap<String, ObjectKey> = BTreeMap::new();
    for Candidate { key, value, .. } in candidates {
        let clash = namesake(kind, key, &names).or_else(|| claims.clash(&value));
        let value = match clash {
            None => value,
            Some(clash) => {
                let before = in_use.get(key).filter(|before| claims.clash(before).is_none());
                let before = before.filter(|_| namesake(kind, key, &names).is_none());
                problems.push(refusal(kind, key, clash, before.is_some()));
                let Some(before) = before else { continue };
                before.clone()
            }
        };
        claims.take(key, &value);
        names.insert(key.name.clone(), key.clone());
        used.insert(key.clone(), value);
    }
    used
}

fn namesake(kind: Kind, key: &ObjectKey, names: &BTreeMap<String, ObjectKey>) -> Option<Clash> {
    let other = names.get(&key.name)?;
    Some(Clash {
        field: "metadata.name".into(),
        message: format!("{} has the same name", other.reference(kind)),
        hint: "rename one of the two: other objects refer to it by name alone".into(),
    })
}

fn refusal(kind: Kind, key: &ObjectKey, clash: Clash, goes_on: bool) -> Problem {
    let Clash { field, message, hint } = clash;
    let object = key.reference(kind);
    let mut problem = Problem { object, field, message, hint, severity: Severity::Error, file: None };
    if goes_on {
        still_in_use(&mut problem);
    }
    problem
}

/// Ranges in use, none of which overlaps another.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<IpAddr, (AddressRange, ObjectKey)>);

impl Ranges {
    /// The range that shares an address with this one: of disjoint ranges only the last that starts before its
    /// end can.
    fn overlapping(&self, range: &AddressRange) -> Option<&(AddressRange, ObjectKey)> {
        self.0.range(..=range.last()).next_back().map(|(_, found)| found).filter(|(other, _)| other.overlaps(range))
    }

    /// The pool that holds the address, and in which range.
    pub(super) fn holding(&self, address: IpAddr) -> Option<&(AddressRange, ObjectKey)> {
        self.0.range(..=address).next_back().map(|(_, found)| found).filter(|(range, _)| range.contains(address))
    }
}

impl Claims<Pool> for Ranges {
    fn clash(&self, pool: &Pool) -> Option<Clash> {
        let (i, (other, owner)) =
            pool.ranges.iter().enumerate().find_map(|(i, range)| Some((i, self.overlapping(range)?)))?;
        Some(Clash {
            field: format!("spec.addresses[{i}]"),
            message: format!("{} overlaps {other} of {}", pool.ranges[i], owner.reference(Kind::IPAddressPool)),
            hint: "take the shared addresses out of one of the two".into(),
        })
    }

    fn take(&mut self, key: &ObjectKey, pool: &Pool) {
        self.0.extend(pool.ranges.iter().map(|range| (range.first(), (*range, key.clone()))));
    }
}

/// Where a peer is, as a socket sees it.
type Place = (Option<IpAddr>, u16, Option<String>, Option<String>, Option<String>);

/// Where each node finds the address, two objects are two places.
fn place(peer: &Peer) -> Place {
    let found = peer.address_from.map(|_| peer.name.clone());
    (peer.address, peer.port, peer.interface.clone(), peer.vrf.clone(), found)
}

/// Which node has a session with which place: at most one, since a router takes one session from an address.
pub(super) struct Sessions<'a> {
    nodes: &'a [&'a Node],
    by_node: HashMap<(Place, &'a str), ObjectKey>,
    by_selectors: Vec<(Place, Vec<Selector>, ObjectKey)>,
}

impl<'a> Sessions<'a> {
    pub(super) fn new(nodes: &'a [&'a Node]) -> Self {
        Self { nodes, by_node: HashMap::new(), by_selectors: Vec::new() }
    }

    fn nodes_of(&self, peer: &Peer) -> Vec<&'a str> {
        let selected = |node: &&&Node| {
            peer.node_selectors.is_empty() || peer.node_selectors.iter().any(|s| s.matches(&node.labels))
        };
        self.nodes.iter().filter(selected).map(|node| node.name.as_str()).collect()
    }
}

impl Claims<Peer> for Sessions<'_> {
    fn clash(&self, peer: &Peer) -> Option<Clash> {
        let here = place(peer);
        let same = self.by_selectors.iter().find(|(at, selectors, _)| *at == here && *selectors == peer.node_selectors);
        let (owner, node) = match same {
            Some((_, _, owner)) => (owner, None),
            None => {
                // Most peers are the only ones at their place.
                self.by_selectors.iter().find(|(at, _, _)| *at == here)?;
                self.nodes_of(peer)
                    .into_iter()
                    .find_map(|node| Some((self.by_node.get(&(here.clone(), node))?, Some(node))))?
            }
        };
        let at = peer.address.map_or_else(|| peer.interface.clone().unwrap_or_default(), |a| a.to_string());
        let on = node.map(|node| format!(" on node {node}")).unwrap_or_default();
        Some(Clash {
            field: if peer.address.is_some() { "spec.peerAddress" } else { "spec.interface" }.into(),
            message: format!("{at} is the peer of {} too{on}", owner.reference(Kind::BGPPeer)),
            hint: "keep one of the two, or select different nodes with nodeSelectors".into(),
        })
    }

    fn take(&mut self, key: &ObjectKey, peer: &Peer) {
        let here = place(peer);
        for node in self.nodes_of(peer) {
            self.by_node.insert((here.clone(), node), key.clone());
        }
        self.by_selectors.push((here, peer.node_selectors.clone(), key.clone()));
    }
}
