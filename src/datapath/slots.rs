//! From the history of a table to its slots: for every slot who takes new flows, and which other nodes may still
//! have old ones. Pure; `docs/datapath.md` says why that is what makes nodes agree.

use std::collections::BTreeMap;

use super::{
    maglev::{self, Member},
    spec::{Backend, Membership, Spec, Table},
    types::SLOT_CHECK,
};

/// Smallest and largest table, as powers of two.
pub const LOG2_RANGE: std::ops::RangeInclusive<u8> = 10..=16;

/// The size for so many backends: at least 64 slots each, so that shares differ by 1.6 % at most.
pub fn log2_for(backends: usize) -> u8 {
    match backends {
        0..=16 => 10,
        17..=64 => 12,
        65..=256 => 14,
        _ => 16,
    }
}

/// The slots of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// log₂ of the number of slots.
    pub log2: u8,
    /// Backends that slots name; slot index *n* is `backends[n - 1]`.
    pub backends: Vec<Backend>,
    /// `{ cur, prev1, prev2, flags }`, lowest first.
    pub slots: Vec<u64>,
    /// A backend of every node that has one, as slots name them, in the order of the nodes' names.
    pub ring: Vec<u16>,
    /// There is a history, and there are more nodes than a slot names.
    pub deep: bool,
}

/// One membership laid out.
struct Layer {
    /// Its slots are `index >> shift` of the largest layer's.
    shift: u8,
    /// Index into [`Layout::backends`], from 1; 0 is nobody.
    choice: Vec<u16>,
    /// The member, living or not, to see whether it changed.
    who: Vec<u16>,
}

/// Lays a table out.
pub fn lay_out(table: &Table) -> Layout {
    let log2 = table.history.iter().map(clamped).max().unwrap_or(*LOG2_RANGE.start());
    let mut names = Names::default();
    let layers: Vec<Layer> = table.history.iter().map(|m| layer(m, log2, table, &mut names)).collect();
    let spares: Vec<u16> = spares(table).values().map(|b| names.number(b)).collect();
    let nodes = names.nodes();
    let slots = (0..1_usize << log2).map(|i| slot(i, &layers, &nodes, &spares, table.forgetful)).collect();
    // Three nodes are all named. Of more, another may have the flow, or have taken it by a table that is not ours yet.
    let deep = spares.len() > 3 && (table.forgetful || layers.len() > 1);
    Layout { log2, backends: names.backends, slots, ring: spares, deep }
}

impl Layout {
    /// The slots as they stand in the kernel: four planes of 16 bits, four values to a word. The first plane has
    /// `cur` where a slot is settled and 0 where it is not; then `cur`, `prev1`, `prev2`.
    pub fn planes(&self) -> Vec<u64> {
        let quarter = self.slots.len() / 4;
        let mut planes = vec![0; self.slots.len()];
        for (word, four) in self.slots.chunks_exact(4).enumerate() {
            for (lane, slot) in four.iter().enumerate() {
                let settled = if slot & SLOT_CHECK == 0 { slot & 0xffff } else { 0 };
                for (plane, value) in [settled, *slot, slot >> 16, slot >> 32].into_iter().enumerate() {
                    planes[plane * quarter + word] |= (value & 0xffff) << (16 * lane);
                }
            }
        }
        planes
    }
}

/// The number that the next node stands on a ring with, seen from this one; nodes that no way is known to are passed
/// over.
pub fn next_on_ring(ring: &[u16], backends: &[Backend], spec: &Spec) -> Option<u16> {
    let node = |n: &u16| &backends[usize::from(*n) - 1].node;
    let others = || ring.iter().filter(|n| spec.nodes.get(node(n)).is_some_and(|node| node.route.is_some()));
    others().find(|n| **node(n) > *spec.node).or_else(|| others().next()).copied()
}

fn clamped(m: &Membership) -> u8 {
    m.slots_log2.clamp(*LOG2_RANGE.start(), *LOG2_RANGE.end())
}

/// Numbers for backends, in order of appearance.
#[derive(Default)]
struct Names {
    backends: Vec<Backend>,
    numbers: BTreeMap<Backend, u16>,
}

impl Names {
    fn number(&mut self, backend: &Backend) -> u16 {
        if let Some(&n) = self.numbers.get(backend) {
            return n;
        }
        self.backends.push(backend.clone());
        let n = self.backends.len() as u16;
        self.numbers.insert(backend.clone(), n);
        n
    }

    /// For every backend a number of its node; entry 0 is nobody's.
    fn nodes(&self) -> Vec<usize> {
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nodes = vec![usize::MAX];
        for backend in &self.backends {
            let next = known.len();
            nodes.push(*known.entry(&backend.node).or_insert(next));
        }
        nodes
    }
}

/// The identity that a backend's share of the slots depends on.
fn key(backend: &Backend) -> u64 {
    let mut identity = super::types::Ip::from(backend.address).0.to_vec();
    identity.extend(backend.port.to_be_bytes());
    maglev::key(&identity)
}

fn layer(m: &Membership, log2: u8, table: &Table, names: &mut Names) -> Layer {
    let backends: Vec<&Backend> = m.members.keys().take(maglev::MAX_MEMBERS).collect();
    let members: Vec<Member> = backends.iter().map(|b| Member { key: key(b), weight: m.members[*b] }).collect();
    let own = clamped(m);
    let raw = maglev::build(&members, 1 << own);
    // In the place of a pod that is gone stands another of its node: the node may have the slot's older flows.
    let spares = spares(table);
    let named = |b: &Backend| {
        if table.living.contains(b) { Some(b.clone()) } else { spares.get(&*b.node).map(|s| (*s).clone()) }
    };
    let numbers: Vec<u16> = backends.iter().map(|b| named(b).map_or(0, |b| names.number(&b))).collect();
    // Two layers have the same member in a slot when its key is the same, whichever indices they use.
    let keys: Vec<u16> = members.iter().map(|m| (m.key ^ m.key >> 16 ^ m.key >> 32 ^ m.key >> 48) as u16).collect();
    let pick = |of: &[u16], none: u16| raw.iter().map(|&i| of.get(usize::from(i)).copied().unwrap_or(none)).collect();
    Layer { shift: log2 - own, choice: pick(&numbers, 0), who: pick(&keys, 0) }
}

/// A living backend of every node.
fn spares(table: &Table) -> BTreeMap<&str, &Backend> {
    table.living.iter().map(|b| (b.node.as_str(), b)).collect()
}

/// `cur` is the newest layer's choice. Of the others, newest first, come those of nodes not yet named. The last
/// place goes to the oldest such node rather than to the next: of owners that came and went quickly, the first
/// had the most time to get connections. Places that stay empty in a slot that is not settled are given to other
/// nodes that have pods: where there are three at most, all of them are asked.
fn slot(i: usize, layers: &[Layer], nodes: &[usize], spares: &[u16], forgetful: bool) -> u64 {
    let at = |l: &Layer| i >> l.shift;
    let Some(newest) = layers.first() else { return 0 };
    let cur = newest.choice[at(newest)];
    let others = || layers[1..].iter().map(|l| l.choice[at(l)]).filter(|&c| c != 0);
    let node = |c: u16| nodes[usize::from(c)];
    // Without a living choice, the newest that lives.
    let cur = if cur != 0 { cur } else { others().next().unwrap_or(0) };
    let who = newest.who[at(newest)];
    let changed = forgetful || layers.iter().any(|l| l.who[at(l)] != who);
    let spare = |but: &[u16]| {
        let free = |s: &&u16| changed && cur != 0 && but.iter().all(|b| *b == 0 || node(*b) != node(**s));
        spares.iter().find(free).copied().unwrap_or(0)
    };
    let prev1 = others().find(|&c| node(c) != node(cur)).unwrap_or_else(|| spare(&[cur]));
    let oldest = others().rfind(|&c| node(c) != node(cur) && node(c) != node(prev1));
    let prev2 = oldest.unwrap_or_else(|| spare(&[cur, prev1]));
    u64::from(cur) | u64::from(prev1) << 16 | u64::from(prev2) << 32 | if changed { SLOT_CHECK } else { 0 }
}

#[cfg(test)]
mod tests;
