//! Owns [`Datapath`]: loads it when it is first needed, again with larger maps when tables do not fit, and keeps
//! what the kernel refused for the report. Everything here blocks.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use tracing::{info, warn};

use super::Options;
use crate::{
    datapath::{
        kernel::{self, Datapath, DatapathError, Hook, Mode, Step},
        report::{Counted, Finish, Report, Served},
        slots,
        spec::Spec,
        underlay::Link,
    },
    types::{DatapathState, UplinkState},
};

/// Smallest arrays; 2 MB of slots are 256 small tables.
const SLOTS: u32 = 1 << 18;
const BACKENDS: u32 = 1 << 12;

/// The packet path, or why there is none.
#[derive(Debug)]
pub(super) struct Owner {
    options: Options,
    datapath: Option<Datapath>,
    /// The same at tcx ingress, for uplinks that take no XDP program.
    behind: Option<Datapath>,
    room: Room,
    /// The tables that hold.
    applied: Spec,
    /// By name: the index that it was attached at, and how.
    attached: BTreeMap<String, (u32, Mode)>,
    /// Interfaces with programs of `bypass`.
    bypassed: BTreeMap<u32, String>,
    unreachable: Vec<String>,
    problem: Option<String>,
    /// Sessions may come up.
    settled: bool,
}

/// Sizes of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    slots: u32,
    backends: u32,
}

impl Room {
    /// Twice what the tables need, since changed ones are written beside the old; a power of two.
    fn for_spec(spec: &Spec) -> Self {
        let log2 = |t: &crate::datapath::spec::Table| t.history.iter().map(|m| m.slots_log2).max().unwrap_or(0);
        let slots: u32 = spec.tables.values().map(|t| 1 << log2(t).max(*slots::LOG2_RANGE.start())).sum();
        let backends: usize = spec.tables.values().map(|t| t.living.len()).sum();
        let twice = |n: u32| n.saturating_mul(2).max(1).next_power_of_two();
        Self { slots: twice(slots).max(SLOTS), backends: twice(backends as u32).max(BACKENDS) }
    }

    fn holds(self, other: Self) -> bool {
        self.slots >= other.slots && self.backends >= other.backends
    }
}

impl Owner {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            datapath: None,
            behind: None,
            room: Room { slots: 0, backends: 0 },
            applied: Spec::default(),
            attached: BTreeMap::new(),
            bypassed: BTreeMap::new(),
            unreachable: vec![],
            problem: None,
            settled: false,
        }
    }

    pub(super) fn has_attached(&self) -> bool {
        !self.attached.is_empty()
    }

    pub(super) fn unreachable(&mut self, nodes: Vec<String>) {
        self.unreachable = nodes;
    }

    /// Makes tables and programs what they should be; what fails is in the report and tried again next time.
    pub(super) fn make(&mut self, mut spec: Spec, uplinks: &BTreeMap<String, u32>, links: &BTreeMap<u32, Link>) {
        let mut refused = self.bypass(&mut spec, uplinks, links).err();
        let problem = match self.publish(&spec) {
            Ok(()) => {
                self.attach(uplinks);
                if let (Some(_), Err(reason)) = (&spec.bypass, self.all_native()) {
                    spec.bypass = None;
                    refused = Some(self.publish(&spec).map_or_else(words, |()| reason));
                }
                if let Some(datapath) = self.datapath.as_ref().filter(|_| !self.options.bypass) {
                    datapath.detach_bypass();
                }
                uplinks
                    .is_empty()
                    .then(|| "no uplink: this node has no default route and no peer; give --uplink".into())
            }
            Err(error) => Some(words(error)),
        };
        let problem = problem.or(refused);
        if self.problem != problem
            && let Some(problem) = &problem
        {
            warn!(problem, "packet path");
        }
        self.problem = problem;
    }

    /// The mark that `bypass` needs does not outlive generic XDP.
    fn all_native(&self) -> Result<(), String> {
        if self.options.best != Step::Native {
            return Err("bypass delivery needs XDP in the driver: the stack delivers".into());
        }
        match self.attached.iter().find(|(_, (_, mode))| mode.step != Step::Native) {
            Some((uplink, _)) => {
                Err(format!("bypass delivery needs XDP in the driver of {uplink}: the stack delivers"))
            }
            None => Ok(()),
        }
    }

    /// Programs for `bypass` stand before tables send anything by them: a pod whose interface has none is the
    /// stack's, and where an uplink has none, everything is.
    fn bypass(
        &mut self,
        spec: &mut Spec,
        uplinks: &BTreeMap<String, u32>,
        links: &BTreeMap<u32, Link>,
    ) -> Result<(), String> {
        let room = Room::for_spec(spec);
        let Some(bypass) = &mut spec.bypass else { return Ok(()) };
        let wanted = std::mem::take(&mut bypass.interfaces);
        if let Some(other) = links.values().map(|l| &l.name).find(|n| kernel::skipped_policy(n)) {
            spec.bypass = None;
            return Err(format!("bypass delivery would skip the policies of the CNI of {other}: the stack delivers"));
        }
        if let Err(reason) = self.all_native() {
            spec.bypass = None;
            return Err(reason);
        }
        if self.datapath.is_none() {
            (self.datapath, self.room) = (Some(self.load(self.hook(), room).map_err(words)?), room);
        }
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        self.bypassed.retain(|index, _| links.contains_key(index));
        let new = |bypassed: &BTreeMap<u32, String>, index: u32, name: &str| {
            bypassed.get(&index).is_none_or(|known| known != name)
        };
        for (name, &index) in uplinks {
            if new(&self.bypassed, index, name) {
                datapath.attach_to_pods(name).map_err(words)?;
                self.bypassed.insert(index, name.clone());
            }
        }
        for (pod, index) in wanted {
            let Some(Link { name, .. }) = links.get(&index) else { continue };
            if new(&self.bypassed, index, name) {
                datapath.attach_from_pod(name).map_err(words)?;
                self.bypassed.insert(index, name.clone());
            }
            bypass.interfaces.insert(pod, index);
        }
        Ok(())
    }

    /// Programs stand where they will; once so, always so.
    pub(super) fn settle(&mut self, settled: bool) {
        self.settled |= settled;
    }

    /// Loads the programs while others still read what the tables will be made of.
    pub(super) fn prepare(&mut self) {
        let room = Room { slots: SLOTS, backends: BACKENDS };
        match self.load(self.hook(), room) {
            Ok(datapath) => (self.datapath, self.room) = (Some(datapath), room),
            // Told with the tables, when it is tried again.
            Err(error) => tracing::debug!(%error, "packet path not loaded"),
        }
    }

    fn publish(&mut self, spec: &Spec) -> Result<(), DatapathError> {
        let needed = Room::for_spec(spec);
        if !self.room.holds(needed) || self.datapath.is_none() {
            return self.take_over(spec, needed);
        }
        if self.applied != *spec {
            for datapath in self.datapath.iter_mut().chain(&mut self.behind) {
                datapath.apply(spec)?;
            }
            self.applied = spec.clone();
        }
        Ok(())
    }

    /// New programs with tables of their own, filled before they take over; the pinned links then swap them.
    fn take_over(&mut self, spec: &Spec, room: Room) -> Result<(), DatapathError> {
        let mut datapath = self.load(self.hook(), room)?;
        datapath.apply(spec)?;
        let mut behind = match &self.behind {
            None => None,
            Some(_) => {
                let mut behind = self.load(Hook::Tcx, room)?;
                behind.apply(spec)?;
                Some(behind)
            }
        };
        for (interface, (_, mode)) in &mut self.attached {
            let renewed = match (&mut behind, mode.step) {
                (Some(behind), Step::Tcx) => behind.attach(interface, Step::Tcx),
                _ => datapath.attach(interface, self.options.best),
            };
            mode.step = renewed.step;
        }
        // Programs that take over must take over everywhere.
        let uplinks: Vec<u32> = self.attached.values().map(|(index, _)| *index).collect();
        for (index, name) in &self.bypassed {
            match uplinks.contains(index) {
                true => datapath.attach_to_pods(name)?,
                false => datapath.attach_from_pod(name)?,
            }
        }
        (self.datapath, self.behind) = (Some(datapath), behind);
        (self.room, self.applied) = (room, spec.clone());
        Ok(())
    }

    /// Where the ladder begins.
    fn hook(&self) -> Hook {
        if self.options.best < Step::Tcx { Hook::Xdp } else { Hook::Tcx }
    }

    fn load(&self, hook: Hook, room: Room) -> Result<Datapath, DatapathError> {
        let start = std::time::Instant::now();
        let options = kernel::Options {
            hook,
            pins: self.pins(),
            slots: room.slots,
            backends: room.backends,
            flows: self.options.flows,
            syns: (self.options.flows / 4).max(1024),
            bypass: self.options.bypass,
            ..kernel::Options::default()
        };
        let datapath = Datapath::load(options)?;
        info!(?hook, room.slots, room.backends, took = ?start.elapsed(), "packet path loaded");
        Ok(datapath)
    }

    /// The folder for pins, where it is in a bpffs; without, programs end with the daemon.
    fn pins(&self) -> Option<PathBuf> {
        let pins = &self.options.pins;
        let kept = kernel::is_bpffs(pins);
        if !kept && self.datapath.is_none() {
            let pins = pins.display();
            warn!(%pins, "not in a bpffs: a restart of the daemon will interrupt packets; mount one, or give --pins");
        }
        kept.then(|| pins.clone())
    }

    /// Attaches to uplinks that are new, or are other devices than before by the same name.
    fn attach(&mut self, uplinks: &BTreeMap<String, u32>) {
        self.attached.retain(|name, _| uplinks.contains_key(name));
        for (name, index) in uplinks {
            if self.attached.get(name).is_none_or(|(at, _)| at != index) {
                let mode = self.attach_one(name);
                self.attached.insert(name.clone(), (*index, mode));
            }
        }
    }

    /// Down the ladder: XDP, where it is refused the same path at tcx ingress.
    fn attach_one(&mut self, interface: &str) -> Mode {
        let mut mode = Mode { step: Step::AnnounceOnly, failed: vec![] };
        if self.hook() == Hook::Xdp
            && let Some(datapath) = &mut self.datapath
        {
            mode = datapath.attach(interface, self.options.best);
        }
        if mode.step != Step::AnnounceOnly {
            return mode;
        }
        let tagged = self.applied.nodes.values().any(|node| node.route.is_some_and(|route| route.vlan.is_some()));
        if tagged {
            mode.failed.push((Step::Tcx, "the ways to other nodes are VLANs, which this step cannot tag".into()));
            return mode;
        }
        let attached = match self.hook() {
            Hook::Tcx => {
                self.datapath.as_mut().map(|path| path.attach(interface, Step::Tcx)).ok_or("not loaded".into())
            }
            Hook::Xdp => self.load_behind().map(|path| path.attach(interface, Step::Tcx)),
        };
        match attached {
            Ok(found) => {
                mode.step = found.step;
                mode.failed.extend(found.failed);
            }
            Err(error) => mode.failed.push((Step::Tcx, error)),
        }
        mode
    }

    fn load_behind(&mut self) -> Result<&mut Datapath, String> {
        let mut loaded = match self.behind.take() {
            Some(behind) => Ok(behind),
            None => self.load(Hook::Tcx, self.room),
        };
        if let Ok(behind) = &mut loaded
            && let Err(error) = behind.apply(&self.applied)
        {
            loaded = Err(error);
        }
        match loaded {
            Ok(behind) => Ok(self.behind.insert(behind)),
            Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
        }
    }

    pub(super) fn report(&self) -> Report {
        let serves = self.attached.values().any(|(_, mode)| mode.step != Step::AnnounceOnly);
        let uplink = |(interface, (_, mode)): (&String, &(u32, Mode))| UplinkState {
            interface: interface.clone(),
            mode: mode.step.word().into(),
            failed: mode.failed.iter().map(|(step, why)| format!("{}: {why}", step.word())).collect(),
        };
        Report {
            state: DatapathState {
                uplinks: self.attached.iter().map(uplink).collect(),
                generation: self.datapath.as_ref().map(|_| self.applied.generation),
                addresses: self.applied.addresses.len(),
                unreachable: self.unreachable.clone(),
                problem: self.problem.clone(),
            },
            served: match serves {
                true => Served::Only(self.applied.addresses.iter().copied().collect()),
                false => Served::Everything,
            },
            settled: self.settled,
        }
    }

    /// The programs and the tables that they have, once there are some.
    pub(super) fn running(&self) -> Option<(&Datapath, &Spec)> {
        self.behind.as_ref().or(self.datapath.as_ref()).map(|datapath| (datapath, &self.applied))
    }

    pub(super) fn count(&self) -> Option<Counted> {
        let datapath = self.datapath.as_ref()?;
        let (reasons, services) = (datapath.reasons().ok()?, datapath.service_counters().ok()?);
        let mut counted = Counted { at: Some(Instant::now()), reasons, services };
        let Some(behind) = &self.behind else { return Some(counted) };
        for (service, of) in behind.service_counters().ok()? {
            let sum = counted.services.entry(service).or_default();
            *sum = *sum + of;
        }
        // Pinned counters are the same map.
        if !kernel::is_bpffs(&self.options.pins) {
            for (reason, n) in behind.reasons().ok()? {
                *counted.reasons.entry(reason).or_default() += n;
            }
        }
        Some(counted)
    }

    /// Lets go. What is pinned stays unless it is removed.
    pub(super) fn end(&mut self, how: Finish) {
        info!(?how, "packet path ends");
        (self.datapath, self.behind) = (None, None);
    }
}

fn words(error: DatapathError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
