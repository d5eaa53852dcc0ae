//! Objects as an API server sends them, and what is made of any object, whoever wrote it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use ironcast_bgp::net::unnumbered::Links;

use super::{each, samples};
use crate::{
    announce::{AnnounceState, Ready},
    datapath::{
        slots::lay_out,
        tables::{Inputs, Tables},
    },
    plan::{Planner, Settings, plan},
    source::{
        index::{Index, Kind, Object, ObjectKey},
        kubernetes::{
            decode::{decode, key, problem},
            watch::Sent,
        },
    },
    types::Problem,
};

/// A daemon's way from objects to orders, without its tasks.
pub(super) struct Reader {
    index: Index,
    planner: Planner,
    announce: AnnounceState,
    tables: Tables,
    pub(super) objects: usize,
    pub(super) plans: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            index: Index::new([]),
            planner: Planner::default(),
            announce: AnnounceState::default(),
            tables: Tables::new("node-1"),
            objects: 0,
            plans: 0,
        }
    }
}

impl Reader {
    pub(super) fn apply(&mut self, object: &Object) {
        self.objects += 1;
        self.index.apply(object);
    }

    pub(super) fn reject(&mut self, kind: Kind, key: ObjectKey, problem: Problem) {
        self.index.reject(kind, key, problem);
    }

    /// Decides, and gives its orders; from time to time everything begins anew.
    pub(super) fn act(&mut self, anew: bool) {
        let snapshot = Arc::new(self.index.snapshot().expect("nothing is awaited"));
        let settings = Settings { unclassed: true, ..Settings::new("node-1") };
        let desired = self.planner.plan(&snapshot, &settings);
        assert_eq!(desired, plan(&snapshot, &settings), "planned in part and as a whole");
        self.announce.turn(Arc::new(desired.clone()), &Ready::All, &Links::default());
        let _ = self.announce.paths(|_| None);
        let inputs = Inputs { snapshot: &snapshot, desired: &desired, secret: [7; 32], routes: &BTreeMap::new() };
        let spec = self.tables.spec(&inputs, Instant::now());
        if anew {
            let _ = spec.tables.values().next().map(lay_out);
            *self = Self { objects: self.objects, plans: self.plans, ..Self::default() };
        }
        self.plans += 1;
    }
}

#[test]
fn no_value_in_an_object_is_too_odd() {
    let (mut reader, samples) = (Reader::default(), samples());
    each(1, |damage| {
        let whole = damage.pick(&samples).clone();
        let kind = whole["kind"].as_str().and_then(Kind::from_name).expect("a kind of ours");
        let sent = Sent::Item(damage.value(&whole));
        let Some(key) = key(&sent) else { return };
        match decode(kind, &sent) {
            Ok(object) => reader.apply(&object),
            Err(reason) => reader.reject(kind, key.clone(), problem(kind, &key, &reason)),
        }
        if damage.below(10) == 0 {
            reader.index.delete(kind, &key);
        }
        reader.act(damage.below(8) == 0);
    });
    assert!(reader.plans > 0 && reader.objects > 0, "{} objects, {} plans", reader.objects, reader.plans);
}
