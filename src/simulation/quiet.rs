//! After the last fault: what is so becomes what should be, everywhere, and stays.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::world::World;
use crate::{
    plan::{Allocated, Desired, Leaving, Settings, asked_to_leave, plan},
    source::index::{Index, Kind, Object},
    types::{ClaimState, Snapshot},
};

/// The longest that it may take: waits for a provider that failed are ten minutes and a quarter of that.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(20);
/// What is quiet stays so for as long as this: beyond every wait of what is under way.
const STAYS: Duration = Duration::from_secs(40);

impl World {
    /// Mends everything and waits until it is quiet.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.calm_down();
        let begun = self.clock.now;
        self.run(begun + Duration::from_secs(30))?;
        loop {
            self.confirm();
            match self.differs() {
                None => {
                    self.run(self.clock.now + STAYS)?;
                    return match self.differs() {
                        Some(difference) => Err(format!("it was quiet, and then: {difference}")),
                        None => Ok(()),
                    };
                }
                Some(difference) if self.clock.now > begun + PATIENCE => {
                    return Err(format!("never quiet: {difference}"));
                }
                Some(_) => self.run(self.clock.now + LOOK)?,
            }
        }
    }

    /// Where people deleted every address, they say so by deleting the claims.
    fn confirm(&mut self) {
        let desks = self.hosts.iter().filter_map(|host| host.daemon.as_ref()?.claims.desk.as_ref());
        let all_missing = |problems: std::collections::BTreeMap<String, crate::types::ClaimProblem>| {
            problems.values().any(|problem| problem.reason == "AllAddressesMissing")
        };
        if desks.map(|desk| desk.problems()).any(all_missing) {
            let claims: Vec<_> = self.api.list(Kind::AddressClaim).map(|(key, _)| key.clone()).collect();
            claims.iter().for_each(|key| self.api.delete(Kind::AddressClaim, key));
        }
    }

    /// Everything that the API server has, as a node sees it that has just begun.
    fn truth(&self) -> Snapshot {
        let mut index = Index::new([]);
        for object in self.api.all() {
            index.apply(object);
        }
        index.snapshot().expect("nothing is awaited")
    }

    /// The first thing that is not as it should be.
    fn differs(&self) -> Option<String> {
        let truth = self.truth();
        let leaders =
            self.hosts.iter().filter(|host| host.daemon.as_ref().is_some_and(|daemon| daemon.leads())).count();
        if leaders != 1 {
            return Some(format!("{leaders} nodes lead"));
        }
        let desired = plan(&truth, &self.settings_of(0, &truth));
        self.record_differs(&truth, &desired).or_else(|| self.claims_differ(&truth)).or_else(|| {
            (0..self.hosts.len()).find_map(|n| self.routes_differ(n, &plan(&truth, &self.settings_of(n, &truth))))
        })
    }

    fn settings_of(&self, n: usize, truth: &Snapshot) -> Settings {
        let host = &self.hosts[n];
        let mut settings = Settings { cordon_drains: true, ..Settings::new(host.name.as_str()) };
        settings.drain = if host.draining.is_some() { Leaving::Gone } else { Leaving::Not };
        settings.cordon = if asked_to_leave(truth, &settings).is_some() { Leaving::Gone } else { Leaving::Not };
        settings
    }

    /// Every Service has what the plan gives it, and nobody waits for what could be claimed: anything, but for an address
    /// that people ask for by name and that is in no pool.
    fn record_differs(&self, truth: &Snapshot, desired: &Desired) -> Option<String> {
        if let Some(need) = desired.needs.iter().find(|need| need.address.is_none()) {
            return Some(format!("nothing was claimed for {need:?}"));
        }
        desired.allocations.iter().find_map(|(key, allocated)| {
            let wanted: &[IpAddr] = match allocated {
                Allocated::Addresses { addresses, .. } => addresses,
                Allocated::Pending { .. } | Allocated::Released => &[],
            };
            let has = truth.services.get(key).map(|service| service.assigned.clone()).unwrap_or_default();
            (has != wanted).then(|| format!("{key} has {has:?} and should have {allocated:?}"))
        })
    }

    /// Every claim is bound and used, and every lease of ours is of a claim.
    fn claims_differ(&self, truth: &Snapshot) -> Option<String> {
        let used: BTreeSet<IpAddr> = truth.services.values().flat_map(|service| service.assigned.clone()).collect();
        let idle = truth.claims.values().find(|claim| match &claim.state {
            ClaimState::Bound { lease, network } => {
                !used.contains(&network.addr()) || !self.provider.leases.contains_key(lease)
            }
            _ => true,
        });
        if let Some(idle) = idle {
            return Some(format!("a claim that nobody uses: {idle:?}"));
        }
        let objects =
            self.api.list(Kind::AddressClaim).filter(|(_, o)| matches!(***o, Object::AddressClaim(_))).count();
        let ours: Vec<_> = self.provider.leases.keys().filter(|id| self.provider.is_ours(id)).collect();
        let (leases, claims) = (ours.len(), truth.claims.len());
        (leases != claims || claims != objects).then(|| format!("a leak: leases {ours:?}, claims {:?}", truth.claims))
    }

    /// Every router has what the node should announce to it, and the node says so.
    fn routes_differ(&self, n: usize, desired: &Desired) -> Option<String> {
        let host = &self.hosts[n];
        let mut announced = BTreeSet::new();
        for (r, router) in self.routers.iter().enumerate() {
            let of_node =
                |((node, prefix), stale): (&(String, IpNet), &bool)| (*node == host.name).then_some((*prefix, *stale));
            let has: BTreeSet<(IpNet, bool)> = router.table.iter().filter_map(of_node).collect();
            let wanted =
                desired.exports.get(&format!("r{r}")).map(|routes| routes.iter().map(|(p, _)| (p, false)).collect());
            let wanted: BTreeSet<(IpNet, bool)> = wanted.unwrap_or_default();
            if has != wanted {
                return Some(format!("r{r} has {has:?} of n{n}, and should have {wanted:?}"));
            }
            announced.extend(wanted.into_iter().map(|(prefix, _)| prefix));
        }
        let said = self.api.reports.get(&host.name).cloned().unwrap_or_default();
        (said != announced).then(|| format!("n{n} says that it announces {said:?}, and it is {announced:?}"))
    }
}
