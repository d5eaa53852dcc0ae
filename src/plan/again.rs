//! Planning again after a change that touches little. Endpoints change all the time and nothing else does with them: what
//! a few Services' endpoints decide is planned alone, in a snapshot of those Services and of all that share a prefix with
//! them, by the very same [`plan`], and put in place of what was planned of them before. Everything else is planned whole.
//!
//! ```text
//!  endpoints of few Services changed ─▶ with who shares their prefixes ─▶ plan() of these ─▶ into the former plan
//!  anything else, or they do not stand alone ───────────────────────────▶ plan() of all
//! ```

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ironcast_bgp::rib::{Attributes, Route, Routes};

use super::{Allocated, Desired, Settings, plan, routes::aggregate};
use crate::types::{Advertisement, Endpoint, Service, ServiceKey, Snapshot};

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
}

impl Planner {
    /// What should be, given what is known.
    pub fn plan(&mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Desired {
        let last = self.last.take().and_then(|last| last.after(snapshot, settings));
        let last = last.unwrap_or_else(|| Last::anew(snapshot, settings));
        self.last.insert(last).desired.clone()
    }
}

impl Last {
    fn anew(snapshot: &Arc<Snapshot>, settings: &Settings) -> Self {
        let desired = plan(snapshot, settings);
        let mut minted = HashSet::new();
        for export in desired.exports.values() {
            let mut before: Option<&Arc<Attributes>> = None;
            for (_, attributes) in export.iter() {
                if before.is_none_or(|before| !Arc::ptr_eq(before, attributes)) {
                    mint(&mut minted, attributes);
                }
                before = Some(attributes);
            }
        }
        Self { snapshot: snapshot.clone(), settings: settings.clone(), desired, minted }
    }

    /// This plan with what the change makes of it; `None` where all must be planned.
    fn after(mut self, snapshot: &Arc<Snapshot>, settings: &Settings) -> Option<Self> {
        // A budget is one for all Services.
        let budget = self.desired.peers.values().any(|peer| peer.prefix_budget.is_some());
        if budget || self.settings != *settings || !differ_in_endpoints_alone(&self.snapshot, snapshot) {
            return None;
        }
        let changed = changed(&self.snapshot.endpoints, &snapshot.endpoints)?;
        if !changed.is_empty() {
            let concerned = Concerned::by(changed, snapshot)?;
            self.put(&concerned, snapshot)?;
        }
        self.snapshot = snapshot.clone();
        Some(self)
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
        let behind = Arc::make_mut(&mut self.desired.behind);
        for prefix in &concerned.prefixes {
            behind.remove(prefix);
        }
        behind.extend(part.behind.iter().map(|(prefix, services)| (*prefix, services.clone())));
        let addresses = Arc::make_mut(&mut self.desired.addresses);
        for address in services.flat_map(|service| &service.assigned) {
            addresses.remove(address);
        }
        addresses.extend(part.addresses.iter().copied());
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

/// The one value of these attributes.
fn mint(minted: &mut HashSet<Arc<Attributes>>, attributes: &Arc<Attributes>) -> Arc<Attributes> {
    if let Some(known) = minted.get(&**attributes) {
        return known.clone();
    }
    minted.insert(attributes.clone());
    attributes.clone()
}

/// Services of which a plan may say something else, and their prefixes, which no other Service has an address in.
struct Concerned<'a> {
    services: BTreeMap<&'a ServiceKey, &'a Arc<Service>>,
    prefixes: BTreeSet<IpNet>,
}

impl<'a> Concerned<'a> {
    fn by(changed: BTreeSet<ServiceKey>, snapshot: &'a Snapshot) -> Option<Self> {
        let advertisements: Vec<&Advertisement> = snapshot.advertisements.values().collect();
        let mut concerned = Self { services: BTreeMap::new(), prefixes: BTreeSet::new() };
        let mut found: Vec<&Arc<Service>> = changed.iter().filter_map(|key| snapshot.services.get(key)).collect();
        while !found.is_empty() {
            for service in found.drain(..) {
                concerned.services.insert(&service.key, service);
                concerned.prefixes.extend(prefixes(service, &advertisements));
            }
            if concerned.services.len() > FEW {
                return None;
            }
            let shares = |service: &&Arc<Service>| {
                !concerned.services.contains_key(&service.key)
                    && prefixes(service, &advertisements).any(|prefix| concerned.prefixes.contains(&prefix))
            };
            found = snapshot.services.values().filter(shares).collect();
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
    same_values(services, &other.services)
        && same_values(nodes, &other.nodes)
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

/// Whether two maps, whose keys stand in their values, have the very same values.
fn same_values<K, V>(one: &BTreeMap<K, Arc<V>>, other: &BTreeMap<K, Arc<V>>) -> bool {
    one.len() == other.len() && one.values().zip(other.values()).all(|(a, b)| Arc::ptr_eq(a, b))
}

type Endpoints = BTreeMap<ServiceKey, Arc<[Endpoint]>>;

/// The Services with other endpoints; `None` where they are many.
fn changed(before: &Endpoints, after: &Endpoints) -> Option<BTreeSet<ServiceKey>> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut changed = BTreeSet::new();
    while changed.len() <= FEW {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return Some(changed),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) if is_copy(a, b) => Ordering::Equal,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        match (old, new) {
            (Some((_, a)), Some((_, b))) if Arc::ptr_eq(a, b) || a == b => {}
            (old, new) => changed.extend(old.or(new).map(|(key, _)| key.clone())),
        }
    }
    None
}

/// Whether the two share their text: nearly always, and at a glance.
fn is_copy(a: &ServiceKey, b: &ServiceKey) -> bool {
    Arc::ptr_eq(&a.namespace, &b.namespace) && Arc::ptr_eq(&a.name, &b.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{World, advertisement, endpoint, key, node, peer, pool, service, settings};

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

    #[test]
    fn endpoints_of_one_service_cost_that_service_alone() {
        let (settings, first) = (settings("n1"), Arc::new(world().0));
        let last = Last::anew(&first, &settings);
        let before = last.desired.clone();
        let last = last.after(&with_endpoints(&first, "s07", &[]), &settings).expect("in part");
        assert_eq!(last.desired.behind.len(), 99);
        assert!(Arc::ptr_eq(&before.allocations, &last.desired.allocations));
        assert!(last.desired.exports["tor"].is(&last.desired.exports["tor2"]), "told the same, they share one set");
        let back = with_endpoints(&last.snapshot, "s07", &[endpoint("10.0.1.9", "n1")]);
        let last = last.after(&back, &settings).expect("in part");
        assert_eq!(last.desired, before);
        let attributes: HashSet<_> = last.desired.exports["tor"].iter().map(|(_, a)| Arc::as_ptr(a)).collect();
        assert_eq!(attributes.len(), 1, "equal attributes stay one value");
    }

    #[test]
    fn what_concerns_all_is_planned_whole() {
        let (settings, first) = (settings("n1"), Arc::new(world().0));
        let mut other = (*first).clone();
        other.pools.insert("q".into(), pool("q", &["203.0.113.0/24"]));
        assert!(Last::anew(&first, &settings).after(&other.into(), &settings).is_none(), "another pool");
        let elsewhere = Settings { class: Some("x".into()), ..settings.clone() };
        assert!(Last::anew(&first, &settings).after(&first, &elsewhere).is_none(), "other settings");
        let mut limited = world();
        limited.0.peers.get_mut("tor").expect("there").prefix_budget = Some(10);
        let limited = Arc::new(limited.0);
        let less = with_endpoints(&limited, "s07", &[]);
        assert!(Last::anew(&limited, &settings).after(&less, &settings).is_none(), "a budget");
    }
}
