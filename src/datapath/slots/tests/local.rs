//! `externalTrafficPolicy: Local`, two designs on the same story (`docs/datapath.md`): one global table (A), or a
//! local choice that the flow's rendezvous node is told of (B). Both count second hops and broken flows; B counts its
//! notes as well. B is modelled here alone; nothing of it is built.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Dice;
use crate::datapath::maglev;

/// Packets of a flow between two changes of the network.
const PACKETS: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cost {
    packets: usize,
    /// From node to node, beyond the first.
    hops: usize,
    /// Datagrams that tell of a flow.
    notes: usize,
    broken: usize,
}

/// The node that knows who has the flow: the one with the largest hash, of those that announce.
fn rendezvous(flow: usize, nodes: &BTreeSet<usize>) -> usize {
    let rank = |node: &usize| maglev::key(&[flow.to_le_bytes(), node.to_le_bytes()].concat());
    nodes.iter().copied().max_by_key(rank).expect("somebody announces")
}

/// Every flow speaks, then the network changes: a node is drained or returns, or the router only spreads anew.
/// `rehashes` of those; of 10,000 notes `lost` do not arrive.
fn story(nodes: usize, flows: usize, rehashes: usize, lost: usize, directory: bool) -> Cost {
    let mut dice = Dice(11);
    let mut announcing: BTreeSet<usize> = (0..nodes).collect();
    let mut cost = Cost::default();
    let mut entry: Vec<usize> = (0..flows).map(|_| dice.roll(nodes)).collect();
    // A: the hash gives the pod, and with it the node. B: whoever gets the SYN.
    let owner: Vec<usize> = (0..flows).map(|f| if directory { entry[f] } else { dice.roll(nodes) }).collect();
    // Whom a flow's owner has told, and whether it arrived.
    let mut told: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
    let mut alive: BTreeSet<usize> = (0..flows).collect();
    for round in 0..=rehashes {
        if directory {
            for &flow in &alive {
                let at = rendezvous(flow, &announcing);
                if told.get(&flow).is_none_or(|(to, _)| *to != at) {
                    cost.notes += 1;
                    told.insert(flow, (at, dice.roll(10_000) >= lost));
                }
            }
        }
        for flow in alive.clone() {
            cost.packets += PACKETS;
            if entry[flow] == owner[flow] {
                continue;
            }
            let at = rendezvous(flow, &announcing);
            if directory && told.get(&flow) != Some(&(at, true)) {
                cost.broken += 1;
                alive.remove(&flow);
                continue;
            }
            let detour = usize::from(directory && at != entry[flow] && at != owner[flow]);
            cost.hops += PACKETS * (1 + detour);
        }
        // Half of the changes also change who announces.
        if round % 2 == 1 {
            let node = dice.roll(nodes);
            if announcing.len() < nodes {
                announcing = (0..nodes).collect();
            } else {
                announcing.remove(&node);
            }
        }
        let choices: Vec<usize> = announcing.iter().copied().collect();
        entry.iter_mut().for_each(|entry| *entry = choices[dice.roll(choices.len())]);
    }
    cost
}

fn words(name: &str, cost: Cost) -> String {
    let hops = cost.hops as f64 / cost.packets as f64;
    format!("{name}: {hops:.2} hops a packet, {} notes, {} broken", cost.notes, cost.broken)
}

#[test]
fn global_table_breaks_nothing_and_the_directory_what_its_lost_notes_cost() {
    for rehashes in [0, 1, 4] {
        let global = story(6, 2000, rehashes, 0, false);
        assert_eq!((global.broken, global.notes), (0, 0));
        eprintln!("{}", words(&format!("{rehashes} rehashes, A"), global));
        for lost in [0, 10, 100] {
            let directory = story(6, 2000, rehashes, lost, true);
            eprintln!("{}", words(&format!("{rehashes} rehashes, B, {lost} of 10,000 notes lost"), directory));
            assert!((lost > 0 && rehashes > 0) || directory.broken == 0, "{directory:?}");
            assert!(lost < 100 || rehashes == 0 || directory.broken > 0, "{directory:?}");
            // Without a rehash B has no second hop at all.
            assert_eq!(directory.hops == 0, rehashes == 0);
        }
    }
}
