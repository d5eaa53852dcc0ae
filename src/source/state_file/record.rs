//! What the state file says.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize, de::Error as _};

use crate::{
    plan::{Allocated, Planned},
    types::{
        Service, ServiceKey, Snapshot,
        stored::{self, Unreadable},
    },
};

/// Of the file's form.
const VERSION: u64 = 1;

/// Addresses and status of every Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    services: BTreeMap<ServiceKey, Entry>,
}

/// One Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its addresses, in the order of its families; they stay its own until it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The pool of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// `spec.loadBalancerClass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Since when it has these addresses, or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
}

/// Why a Service has no address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// In CamelCase.
    pub reason: String,
    /// With the next step.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u64,
    /// By `namespace/name`.
    services: BTreeMap<String, Entry>,
}

impl Record {
    /// What a snapshot remembers of a record whose file is gone.
    pub(super) fn remembered(snapshot: &Snapshot) -> Self {
        let entry = |service: &Service| Entry { addresses: service.assigned.clone(), ..Entry::default() };
        let services = snapshot.services.values().filter(|service| !service.assigned.is_empty());
        Self { services: services.map(|service| (service.key.clone(), entry(service))).collect() }
    }

    /// Reads the file's text.
    pub(super) fn decode(text: &[u8]) -> Result<Self, Unreadable> {
        let form: Form = stored::read(text, VERSION)?;
        let key = |(name, entry): (String, Entry)| match name.split_once('/') {
            Some((namespace, name)) => Ok((ServiceKey::new(namespace, name), entry)),
            None => Err(serde_json::Error::custom(format!("{name:?} is not namespace/name"))),
        };
        Ok(Self { services: form.services.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// The file's text.
    pub(super) fn encode(&self) -> Vec<u8> {
        let services = self.services.iter().map(|(key, entry)| (key.to_string(), entry.clone())).collect();
        let mut text = serde_json::to_vec_pretty(&Form { version: VERSION, services }).expect("plain data");
        text.push(b'\n');
        text
    }

    /// Every Service.
    pub fn services(&self) -> &BTreeMap<ServiceKey, Entry> {
        &self.services
    }

    /// Services that have addresses.
    pub fn addresses(&self) -> BTreeMap<ServiceKey, Vec<IpAddr>> {
        let with = self.services.iter().filter(|(_, entry)| !entry.addresses.is_empty());
        with.map(|(key, entry)| (key.clone(), entry.addresses.clone())).collect()
    }

    /// The record as the plan wants it: what it gives is recorded, what it releases and what belongs to Services
    /// that are gone goes. `None` when the plan does not know this record yet: recording it would take back
    /// what was given out meanwhile.
    pub(super) fn update(&self, planned: &Planned, now: Timestamp) -> Option<Record> {
        let known = |service: &Service| {
            let recorded = self.services.get(&service.key).map(|entry| entry.addresses.as_slice());
            recorded.unwrap_or_default() == service.assigned
        };
        if !planned.snapshot.services.values().all(|service| known(service)) {
            return None;
        }
        let entries = planned.desired.allocations.iter().filter_map(|(key, allocated)| {
            let class = planned.snapshot.services.get(key).and_then(|service| service.class.clone());
            let mut entry = Entry { class, ..entry(allocated)? };
            let before = self.services.get(key);
            let unchanged =
                before.filter(|b| b.addresses == entry.addresses && b.pending.is_some() == entry.pending.is_some());
            entry.since = unchanged.map_or(Some(now), |before| before.since);
            Some((key.clone(), entry))
        });
        Some(Record { services: entries.collect() })
    }
}

fn entry(allocated: &Allocated) -> Option<Entry> {
    match allocated {
        Allocated::Addresses { addresses, pool } => {
            Some(Entry { addresses: addresses.clone(), pool: Some(pool.clone()), ..Entry::default() })
        }
        Allocated::Pending { reason, message } => {
            let pending = Pending { reason: format!("{reason:?}"), message: message.clone() };
            Some(Entry { pending: Some(pending), ..Entry::default() })
        }
        Allocated::Released => None,
    }
}
