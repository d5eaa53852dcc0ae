//! One process: the values that the tasks of a daemon own, and nothing that decides.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use ironcast_bgp::speaker::Speaker;
use k8s_openapi::api::coordination::v1::Lease;

use crate::{
    announce::AnnounceState,
    app::{claims::matters, drain::Exits},
    plan::{Planned, Planner, Settings},
    provider::{driver::desk::Desk, world::Facts},
    source::{
        index::{Index, Kind, Object, ObjectKey},
        lease::{
            Election, Timing,
            rules::{Rules, Term},
        },
        status::{
            node::Written,
            record::{Change, Record},
        },
    },
    types::{ClaimId, Snapshot},
};

/// Kinds that the simulation has.
pub(super) const KINDS: [Kind; 8] = [
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Node,
    Kind::IPAddressPool,
    Kind::BGPPeer,
    Kind::BGPAdvertisement,
    Kind::ProviderConfig,
    Kind::AddressClaim,
];

/// The objects of each kind; copies share them.
pub(super) type Objects = BTreeMap<Kind, Rc<BTreeMap<ObjectKey, Rc<Object>>>>;

/// `--drain-wait`.
pub(super) const DRAIN_WAIT: Duration = Duration::from_secs(5);

pub(super) struct Daemon {
    /// Tells processes apart, over all nodes.
    pub(super) process: u64,
    pub(super) since: Duration,
    pub(super) restarted: bool,
    pub(super) index: Index,
    /// Up to which version each watch has told; none before its list.
    pub(super) told: BTreeMap<Kind, u64>,
    /// What the watches have told, as objects.
    pub(super) view: Objects,
    /// What was saved, where that is used.
    pub(super) saved: Objects,
    pub(super) changed: bool,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) planner: Planner,
    pub(super) settings: Settings,
    pub(super) exits: Exits,
    pub(super) planned: Option<Planned>,
    pub(super) announce: AnnounceState,
    pub(super) speaker: Option<Speaker>,
    /// What it announces, to anybody.
    pub(super) announced: BTreeSet<IpNet>,
    pub(super) election: Rules,
    pub(super) electing: bool,
    /// It leads: the Lease and the term.
    pub(super) term: Option<(Lease, Term)>,
    /// Counts terms and what follows from their ends.
    pub(super) terms: u64,
    pub(super) scribe: Scribe,
    pub(super) claims: Claims,
    /// What others announce, as far as was asked.
    pub(super) others: Option<BTreeSet<IpNet>>,
    pub(super) asking: bool,
    pub(super) report: Report,
    /// When each task goes on: many causes make one event, the earliest counts.
    pub(super) due: BTreeMap<Due, Duration>,
}

/// Steps of tasks that are woken by many causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Decide,
    Announce,
    Record,
    Claims,
    Tick,
    Report,
}

/// The task that records addresses.
#[derive(Default)]
pub(super) struct Scribe {
    pub(super) record: Record,
    pub(super) busy: bool,
    pub(super) again: bool,
    /// Batches that are still to be written.
    pub(super) batches: VecDeque<Vec<Change>>,
    /// Writes under way.
    pub(super) pending: usize,
    pub(super) failed: bool,
    pub(super) failures: u32,
}

/// The task that claims.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) facts: Option<Arc<Facts>>,
    pub(super) desk: Option<Desk>,
    pub(super) loading: bool,
    /// What was seen of the journal when it was asked for.
    pub(super) seen: BTreeSet<ClaimId>,
    /// Of the journal's objects.
    pub(super) versions: BTreeMap<ClaimId, String>,
    /// Counts desks.
    pub(super) round: u64,
    pub(super) failures: u32,
}

/// The task that says what this node announces.
#[derive(Default)]
pub(super) struct Report {
    pub(super) written: Written<BTreeSet<IpNet>>,
    pub(super) busy: bool,
    pub(super) failures: u32,
}

impl Daemon {
    pub(super) fn new(node: &str, process: u64, since: Duration, restarted: bool) -> Self {
        let election = Election {
            namespace: super::objects::NAMESPACE.into(),
            name: "ironcast".into(),
            identity: format!("{node}_{process}"),
            timing: Timing::default(),
        };
        Self {
            process,
            since,
            restarted,
            index: Index::new(KINDS),
            told: BTreeMap::new(),
            view: Objects::new(),
            saved: Objects::new(),
            changed: false,
            snapshot: None,
            planner: Planner::default(),
            settings: Settings { cordon_drains: true, ..Settings::new(node) },
            exits: Exits::new(DRAIN_WAIT),
            planned: None,
            announce: AnnounceState::default(),
            speaker: None,
            announced: BTreeSet::new(),
            election: Rules::new(election),
            electing: false,
            term: None,
            terms: 0,
            scribe: Scribe::default(),
            claims: Claims::default(),
            others: None,
            asking: false,
            report: Report::default(),
            due: BTreeMap::new(),
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.term.is_some()
    }

    /// Whether it counts what others announce.
    pub(super) fn asks(&self) -> bool {
        let strays = self.claims.desk.as_ref().is_some_and(Desk::has_strays);
        strays || self.planned.as_ref().is_some_and(matters)
    }

    /// Takes over what the speaker says of its peers. Whether it announces something else than before.
    pub(super) fn take_status(&mut self) -> bool {
        let Some(speaker) = &mut self.speaker else { return false };
        if !speaker.take_changed() {
            return false;
        }
        let (before, now) = (std::mem::take(&mut self.announce.status), speaker.status());
        let same = before.len() == now.len()
            && before.values().zip(now.values()).all(|(before, now)| before.advertised.is(&now.advertised));
        self.announce.status = now.into();
        if same {
            return false;
        }
        let advertised = self.announce.status.values().flat_map(|status| status.advertised.iter());
        let announced = advertised.map(|(prefix, _)| prefix).collect();
        std::mem::replace(&mut self.announced, announced) != self.announced
    }

    /// Takes a list: what it does not hold is gone.
    pub(super) fn listed(&mut self, kind: Kind, version: u64, objects: BTreeMap<ObjectKey, Rc<Object>>) {
        self.index.list_begins(kind);
        for object in objects.values() {
            self.changed |= self.index.apply(object);
        }
        self.changed |= self.index.list_ends(kind);
        self.view.insert(kind, Rc::new(objects));
        self.told.insert(kind, version);
    }

    /// Takes a change of a watch.
    pub(super) fn told(&mut self, kind: Kind, version: u64, key: &ObjectKey, object: Option<&Rc<Object>>) {
        let view = Rc::make_mut(self.view.entry(kind).or_default());
        self.changed |= match object {
            Some(object) => {
                view.insert(key.clone(), object.clone());
                self.index.apply(object)
            }
            None => {
                view.remove(key);
                self.index.delete(kind, key)
            }
        };
        self.told.insert(kind, version);
    }
}
