//! The memory of [`Tables`] as it stands on disk. Without it a restart would call every slot settled, and packets
//! of connections to former owners would go to pods that never heard of them.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Remembered, Tables};
use crate::{
    datapath::spec::{Backend, HISTORY, Membership, Table, TableId},
    types::stored::{self, Unreadable},
};

/// Of the file's form.
const VERSION: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u64,
    generation: u32,
    tables: std::collections::BTreeMap<TableId, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    forgetful: bool,
    /// Unix time, seconds: before, there were memberships that nobody saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strange: Option<u64>,
    /// Newest first.
    history: Vec<Layer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Layer {
    slots_log2: u8,
    /// Unix time, seconds; absent for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<u64>,
    /// Address, port, node, weight.
    members: Vec<(IpAddr, u16, String, u32)>,
}

impl Tables {
    /// What must outlive the daemon.
    pub fn encode(&self, now: Instant, wall: SystemTime) -> Vec<u8> {
        let tables = self.remembered.iter().map(|(id, r)| (id.clone(), entry(r, now, wall))).collect();
        let record = Record { version: VERSION, generation: self.generation, tables };
        serde_json::to_vec(&record).unwrap_or_default()
    }

    /// With the memory of a predecessor.
    ///
    /// # Errors
    /// The record is damaged or of a later version.
    pub fn restore(node: impl Into<String>, bytes: &[u8], now: Instant, wall: SystemTime) -> Result<Self, Unreadable> {
        let record: Record = stored::read(bytes, VERSION)?;
        let remembered = record.tables.into_iter().map(|(id, entry)| (id, remembered(entry, now, wall))).collect();
        Ok(Self { node: node.into(), generation: record.generation, remembered, ..Self::default() })
    }
}

fn entry(remembered: &Remembered, now: Instant, wall: SystemTime) -> Entry {
    let seconds = |since: &Instant| {
        let at = wall.checked_sub(now.saturating_duration_since(*since)).unwrap_or(UNIX_EPOCH);
        at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    let replaced = std::iter::once(None).chain(remembered.replaced.iter().map(|since| Some(seconds(since))));
    let layer = |(membership, replaced): (&Membership, Option<u64>)| Layer {
        slots_log2: membership.slots_log2,
        replaced,
        members: membership.members.iter().map(|(b, w)| (b.address, b.port, b.node.clone(), *w)).collect(),
    };
    Entry {
        forgetful: remembered.table.forgetful,
        strange: remembered.strange.as_ref().map(seconds),
        history: remembered.table.history.iter().zip(replaced).map(layer).collect(),
    }
}

fn remembered(entry: Entry, now: Instant, wall: SystemTime) -> Remembered {
    let ago = |seconds: u64| {
        let then = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let age = then.and_then(|then| wall.duration_since(then).ok()).unwrap_or_default();
        // Older than this host's clock of the process: as old as it can say.
        now.checked_sub(age).unwrap_or(now)
    };
    let layers = || entry.history.iter().take(HISTORY);
    let membership = |layer: &Layer| Membership {
        slots_log2: layer.slots_log2,
        members: layer
            .members
            .iter()
            .map(|(address, port, node, weight)| {
                (Backend { address: *address, port: *port, node: node.clone() }, *weight)
            })
            .collect(),
    };
    Remembered {
        table: Table {
            history: layers().map(membership).collect(),
            forgetful: entry.forgetful,
            living: std::collections::BTreeSet::new(),
        },
        replaced: layers().skip(1).map(|layer| layer.replaced.map_or(now, ago)).collect(),
        strange: entry.strange.map(ago),
    }
}
