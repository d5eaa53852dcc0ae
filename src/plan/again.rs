//! Planning again after a change that touches little. Endpoints change all the time and nothing else does with them: what
//! a few Services' endpoints decide is planned alone, in a snapshot of those Services and of all that share a prefix with
//! them, by the very same [`plan`], and put in place of what was planned of them before. Everything else is planned whole.
//!
//! ```text
//!  endpoints of few Services changed ─▶ with who shares their prefixes ─▶ plan() of these ─▶ into the former plan
//!  anything else, or they do not stand alone ───────────────────────────▶ plan() of all
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ironcast_bgp::rib::{Attributes, Route, Routes};

use super::{Allocated, Desired, Settings, plan, routes::aggregate};
use crate::types::{Advertisement, Service, ServiceKey, Snapshot};

/// With more Services than this, planning all of them costs less than to look for those that it concerns.
const FEW: usize = 64;

/// Plans, and remembers what it was: its answer is always that of [`plan`].
#[derive(Debug, Default)]
pub struct Planner {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    snapshot: Arc<Snapshot>,
    settings: Settings,
    desired: Desired,
    /// Attributes of the routes in `desired`: equal ones stay one value, or what is sent would no longer be packed.
    minted: HashSet<Arc<Attributes>>,
    crowds: Crowds,
}

/// The Services behind each prefix that more than one may stand behind.
type Crowds = HashMap<IpNet, Vec<ServiceKey>>;

impl Planner {
    /// What should be, given what is known.
    pub fn plan(&mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Desired {
        self.again(snapshot, settings).unwrap_or_else(|| self.anew(snapshot, settings))
    }

    /// The same where little changed since the last time, which costs little; `None` where all must be planned.
    pub fn again(&mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Option<Desired> {
        let last = self.last.as_mut()?;
        last.turn(snapshot, settings)?;
        Some(last.desired.clone())
    }

    /// The same, with everything planned.
    pub fn anew(&mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Desired {
        let last = Last::anew(snapshot, settings, self.last.take());
        self.last.insert(last).desired.clone()
    }
}

impl Last {
    /// Exports share with those of `before` what both have: who compares them steps over it.
    fn anew(snapshot: &Arc<Snapshot>, settings: &Settings, before: Option<Self>) -> Self {
        let mut desired = plan(snapshot, settings);
        let (former, mut minted) = before.map(|last| (last.desired.exports, last.minted)).unwrap_or_default();
        share(&former, &mut desired.exports, &mut minted);
        drop(former);
        minted.retain(|attributes| Arc::strong_count(attributes) > 1);
        let crowds = crowds(snapshot);
        Self { snapshot: snapshot.clone(), settings: settings.clone(), desired, minted, crowds }
    }

    /// Becomes the plan with what the change makes of it; `None` where all must be planned, and then nothing has changed.
    fn turn(&mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Option<()> {
        // A budget is one for all Services.
        let budget = self.desired.peers.values().any(|peer| peer.prefix_budget.is_some());
        if budget || self.settings != *settings || !differ_in_endpoints_alone(&self.snapshot, snapshot) {
            return None;
        }
        let changed = self.snapshot.endpoints.differences(&snapshot.endpoints).map(|(key, ..)| key.clone());
        let changed: BTreeSet<ServiceKey> = changed.take(FEW + 1).collect();
        if !changed.is_empty() {
            let concerned = Concerned::by(changed, snapshot, &self.crowds)?;
            self.put(&concerned, snapshot)?;
        }
        self.snapshot = snapshot.clone();
        Some(())
    }

    fn put(&mut self, concerned: &Concerned<'_>, snapshot: &Snapshot) -> Option<()> {
        let part = plan(&concerned.alone(snapshot), &self.settings);
        let as_before = |service: &&Arc<Service>| {
            let before = self.desired.allocations.get(&service.key);
            matches!(before, Some(Allocated::Addresses { .. })) && before == part.allocations.get(&service.key)
        };
        let given_up = |service: &&Arc<Service>| self.desired.given_up.contains_key(&service.key);
        let services = concerned.services.values().copied();
        if !services.clone().all(|s| as_before(&s) && !given_up(&s)) || !part.needs.is_empty() {
            return None;
        }
        self.put_exports(concerned, &part);
        let behind = &mut self.desired.behind;
        for prefix in concerned.prefixes.iter().filter(|prefix| !part.behind.contains_key(prefix)) {
            behind.remove(prefix);
        }
        for (prefix, services) in part.behind.iter() {
            if behind.get(prefix) != Some(services) {
                behind.insert(*prefix, services.clone());
            }
        }
        let addresses = &mut self.desired.addresses;
        for address in services.flat_map(|service| &service.assigned) {
            match part.addresses.contains(address) {
                true => addresses.insert(*address),
                false => addresses.remove(address),
            };
        }
        let withheld = &mut self.desired.withheld;
        withheld.retain(|withheld| !concerned.services.contains_key(&withheld.service));
        withheld.extend(part.withheld);
        withheld.sort();
        Some(())
    }

    /// Sets that were one stay one.
    fn put_exports(&mut self, concerned: &Concerned<'_>, part: &Desired) {
        let nothing = Routes::default();
        let mut known: Vec<[Routes; 3]> = Vec::new();
        for (peer, export) in &mut self.desired.exports {
            let new = part.exports.get(peer).unwrap_or(&nothing);
            if let Some([.., made]) = known.iter().find(|[b, n, _]| b.is(export) && (n.is(new) || n == new)) {
                *export = made.clone();
                continue;
            }
            let before = export.clone();
            let mut gone = concerned.prefixes.clone();
            for (prefix, attributes) in new.iter() {
                gone.remove(&prefix);
                let attributes = mint(&mut self.minted, attributes);
                export.insert(Route { prefix, attributes });
            }
            for prefix in &gone {
                export.remove(prefix);
            }
            known.push([before, new.clone(), export.clone()]);
        }
    }
}

/// Makes the sets share with the former ones of the same peers; sets that were one stay one.
fn share(
    former: &BTreeMap<String, Routes>,
    exports: &mut BTreeMap<String, Routes>,
    minted: &mut HashSet<Arc<Attributes>>,
) {
    let nothing = Routes::default();
    let mut known: Vec<[Routes; 3]> = Vec::new();
    for (peer, export) in exports {
        let before = former.get(peer).unwrap_or(&nothing);
        let shared = match known.iter().find(|[b, e, _]| b.is(before) && e.is(export)) {
            Some([.., shared]) => shared.clone(),
            None => {
                let routes = all_minted(export, minted);
                Routes::after(before, routes.iter().map(|(prefix, attributes)| (*prefix, attributes)))
            }
        };
        known.push([before.clone(), std::mem::replace(export, shared.clone()), shared]);
    }
}

/// The routes, equal attributes as one value.
fn all_minted(routes: &Routes, minted: &mut HashSet<Arc<Attributes>>) -> Vec<(IpNet, Arc<Attributes>)> {
    let mut last: Option<[Arc<Attributes>; 2]> = None;
    let mut route = |(prefix, attributes): (IpNet, &Arc<Attributes>)| {
        let again = last.as_ref().filter(|[given, _]| Arc::ptr_eq(given, attributes)).map(|[_, one]| one.clone());
        let one = again.unwrap_or_else(|| mint(minted, attributes));
        last = Some([attributes.clone(), one.clone()]);
        (prefix, one)
    };
    routes.iter().map(&mut route).collect()
}

/// The one value of these attributes.
fn mint(minted: &mut HashSet<Arc<Attributes>>, attributes: &Arc<Attributes>) -> Arc<Attributes> {
    if let Some(known) = minted.get(&**attributes) {
        return known.clone();
    }
    minted.insert(attributes.clone());
    attributes.clone()
}

fn crowds(snapshot: &Snapshot) -> Crowds {
    let advertisements: Vec<&Advertisement> = snapshot.advertisements.values().collect();
    let mut all: Vec<(IpNet, &ServiceKey)> = Vec::with_capacity(snapshot.services.len());
    for service in snapshot.services.values() {
        all.extend(prefixes(service, &advertisements).map(|prefix| (prefix, &service.key)));
    }
    all.sort_unstable();
    all.dedup();
    let crowds = all.chunk_by(|(a, _), (b, _)| a == b).filter(|behind| behind.len() > 1);
    crowds.map(|behind| (behind[0].0, behind.iter().map(|(_, key)| (*key).clone()).collect())).collect()
}

/// Services of which a plan may say something else, and their prefixes, which no other Service has an address in.
struct Concerned<'a> {
    services: BTreeMap<&'a ServiceKey, &'a Arc<Service>>,
    prefixes: BTreeSet<IpNet>,
}

impl<'a> Concerned<'a> {
    /// `None` where they are many.
    fn by(changed: BTreeSet<ServiceKey>, snapshot: &'a Snapshot, crowds: &Crowds) -> Option<Self> {
        let advertisements: Vec<&Advertisement> = snapshot.advertisements.values().collect();
        let mut concerned = Self { services: BTreeMap::new(), prefixes: BTreeSet::new() };
        let mut found: Vec<&Arc<Service>> = changed.iter().filter_map(|key| snapshot.services.get(key)).collect();
        while let Some(service) = found.pop() {
            if concerned.services.insert(&service.key, service).is_some() {
                continue;
            }
            if concerned.services.len() > FEW {
                return None;
            }
            for prefix in prefixes(service, &advertisements) {
                if concerned.prefixes.insert(prefix) {
                    let beside = crowds.get(&prefix).into_iter().flatten();
                    found.extend(beside.filter_map(|key| snapshot.services.get(key)));
                }
            }
        }
        Some(concerned)
    }

    /// The snapshot as if these were all Services.
    fn alone(&self, snapshot: &Snapshot) -> Snapshot {
        let endpoints = |key: &&ServiceKey| Some(((*key).clone(), snapshot.endpoints.get(*key)?.clone()));
        Snapshot {
            services: self.services.iter().map(|(key, service)| ((*key).clone(), (*service).clone())).collect(),
            endpoints: self.services.keys().filter_map(endpoints).collect(),
            nodes: snapshot.nodes.clone(),
            namespaces: snapshot.namespaces.clone(),
            pools: snapshot.pools.clone(),
            peers: snapshot.peers.clone(),
            advertisements: snapshot.advertisements.clone(),
            bfd_profiles: snapshot.bfd_profiles.clone(),
            providers: snapshot.providers.clone(),
            claims: BTreeMap::new(),
            saved: snapshot.saved,
            problems: snapshot.problems.clone(),
        }
    }
}

/// Every prefix that the Service may stand behind.
fn prefixes<'s>(service: &'s Service, advertisements: &'s [&Advertisement]) -> impl Iterator<Item = IpNet> + use<'s> {
    let address = |address: &'s IpAddr| advertisements.iter().map(|advertisement| aggregate(*address, advertisement));
    service.assigned.iter().flat_map(address)
}

/// Whether nothing but endpoints is another. Every field is named, so that a new one cannot be forgotten.
fn differ_in_endpoints_alone(one: &Snapshot, other: &Snapshot) -> bool {
    let Snapshot {
        services,
        endpoints: _,
        nodes,
        namespaces,
        pools,
        peers,
        advertisements,
        bfd_profiles,
        providers,
        claims,
        saved,
        problems,
    } = one;
    *services == other.services
        && *nodes == other.nodes
        && *namespaces == other.namespaces
        && *pools == other.pools
        && *peers == other.peers
        && *advertisements == other.advertisements
        && *bfd_profiles == other.bfd_profiles
        && *providers == other.providers
        && *claims == other.claims
        && *saved == other.saved
        && *problems == other.problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{World, advertisement, endpoint, key, node, peer, pool, service, settings};
    use crate::types::Endpoint;

    fn world() -> World {
        let world = World::default()
            .node(&node("n1", "198.51.100.1"))
            .pool(pool("p", &["192.0.2.0/24"]))
            .peer(peer("tor", "198.51.100.254"))
            .peer(peer("tor2", "198.51.100.253"))
            .advertise(advertisement("a"));
        let mut world = (0..100).fold(world, |world, n| world.served(service(&format!("s{n:02}"), n)));
        let desired = world.plan();
        world.record(&desired);
        world
    }

    fn with_endpoints(snapshot: &Arc<Snapshot>, name: &str, endpoints: &[Endpoint]) -> Arc<Snapshot> {
        let mut next = (**snapshot).clone();
        next.endpoints.insert(key(name), endpoints.into());
        next.into()
    }

    /// The plan after the change, if it costs what it concerns.
    fn in_part(planner: &mut Planner, snapshot: &Arc<Snapshot>) -> Option<Desired> {
        planner.again(snapshot, &settings("n1"))
    }

    fn planner(snapshot: &Arc<Snapshot>) -> (Planner, Desired) {
        let mut planner = Planner::default();
        let desired = planner.anew(snapshot, &settings("n1"));
        (planner, desired)
    }

    #[test]
    fn endpoints_of_one_service_cost_that_service_alone() {
        let first = Arc::new(world().0);
        let (mut planner, before) = planner(&first);
        let less = with_endpoints(&first, "s07", &[]);
        let desired = in_part(&mut planner, &less).expect("in part");
        assert_eq!(desired.behind.len(), 99);
        assert!(Arc::ptr_eq(&before.allocations, &desired.allocations));
        assert!(desired.exports["tor"].is(&desired.exports["tor2"]), "told the same, they share one set");
        let back = with_endpoints(&less, "s07", &[endpoint("10.0.1.9", "n1")]);
        let desired = in_part(&mut planner, &back).expect("in part");
        assert_eq!(desired, before);
        let attributes: HashSet<_> = desired.exports["tor"].iter().map(|(_, a)| Arc::as_ptr(a)).collect();
        assert_eq!(attributes.len(), 1, "equal attributes stay one value");
    }

    #[test]
    fn what_nobody_announces_differently_is_the_very_same() {
        let first = Arc::new(world().0);
        let (mut planner, before) = planner(&first);
        let more = with_endpoints(&first, "s07", &[endpoint("10.0.1.9", "n1"), endpoint("10.0.1.8", "n1")]);
        let desired = in_part(&mut planner, &more).expect("in part");
        assert!(desired.behind.is(&before.behind) && desired.exports["tor"].is(&before.exports["tor"]));
    }

    #[test]
    fn everything_planned_anew_shares_its_exports_with_what_was() {
        let mut first = world();
        let (mut planner, before) = planner(&Arc::new(first.0.clone()));
        first.0.pools.insert("q".into(), pool("q", &["203.0.113.0/24"]));
        let desired = planner.anew(&Arc::new(first.0), &settings("n1"));
        assert!(desired.exports["tor"].is(&before.exports["tor"]));
    }

    #[test]
    fn what_concerns_all_is_planned_whole() {
        let first = Arc::new(world().0);
        let mut other = (*first).clone();
        other.pools.insert("q".into(), pool("q", &["203.0.113.0/24"]));
        assert!(in_part(&mut planner(&first).0, &other.into()).is_none(), "another pool");
        let elsewhere = Settings { class: Some("x".into()), ..settings("n1") };
        assert!(planner(&first).0.again(&first, &elsewhere).is_none(), "other settings");
        let mut limited = world();
        limited.0.peers.get_mut("tor").expect("there").prefix_budget = Some(10);
        let limited = Arc::new(limited.0);
        let less = with_endpoints(&limited, "s07", &[]);
        assert!(in_part(&mut planner(&limited).0, &less).is_none(), "a budget");
    }
}
