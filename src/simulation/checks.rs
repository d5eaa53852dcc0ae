//! What must hold at every moment. Nothing here asks the code that is under test.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use ironcast_bgp::speaker::{PeerId, State};
use k8s_openapi::api::core::v1::Service;

use super::{daemon::Objects, objects, world::World};
use crate::{
    provider::claims::{Action, Outcome},
    source::{
        api::AddressClaim,
        index::{Kind, Object},
        status::record::{Change, addresses},
    },
    types::AddressRange,
};

/// A node that reaches the API server and its routers knows, and says, what changed so long ago at the latest.
const BOUND: Duration = Duration::from_secs(15);
/// A node that reaches the API server has said so long after what it announces.
const REPORTED: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) violation: Option<String>,
    /// Since when nobody has an address that somebody had.
    ceased: BTreeMap<IpAddr, Duration>,
    recorded: BTreeSet<IpAddr>,
    /// Since when a node announces a prefix.
    announced: BTreeMap<(usize, IpNet), Duration>,
    pub(super) released: u64,
    /// Releases while a node announced that was cut off before it could say so.
    pub(super) unreported: u64,
}

fn service(object: &Object) -> Option<&Service> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}

fn balances(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

/// Addresses of load balancers among these objects.
fn recorded(objects: &Objects) -> BTreeSet<IpAddr> {
    let services = objects.get(&Kind::Service).into_iter().flat_map(|services| services.values());
    services.filter_map(|object| service(object)).filter(|s| balances(s)).flat_map(addresses).collect()
}

/// Whether an address is in a pool of people, or in a claim that is bound.
fn owned(objects: &Objects, address: IpAddr) -> bool {
    let of = |kind: Kind| objects.get(&kind).into_iter().flat_map(|objects| objects.values());
    let in_pool = of(Kind::IPAddressPool).any(|object| match &**object {
        Object::IPAddressPool(pool) => {
            let ranges = pool.spec.addresses.iter().filter_map(|text| text.parse::<AddressRange>().ok());
            ranges.into_iter().any(|range| range.contains(address))
        }
        _ => false,
    });
    let is_bound = |claim: &AddressClaim| {
        claim.metadata.deletion_timestamp.is_none()
            && claim.status.as_ref().is_some_and(|status| {
                let network = status.network.as_ref().and_then(|network| network.parse::<IpNet>().ok());
                status.phase == "Bound" && network.is_some_and(|network| network.contains(&address))
            })
    };
    in_pool || of(Kind::AddressClaim).any(|object| matches!(&**object, Object::AddressClaim(claim) if is_bound(claim)))
}

/// What decides whether two Services may have one address.
fn spec(service: &Service) -> (Option<&String>, BTreeSet<i32>, Option<&String>) {
    let key = service.metadata.annotations.as_ref().and_then(|all| all.get("ironcast.dev/allow-shared-ip"));
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port).collect();
    (key, ports, service.metadata.uid.as_ref())
}

fn may_share(one: &Service, other: &Service) -> bool {
    let ((key, ports, _), (other_key, other_ports, _)) = (spec(one), spec(other));
    key.is_some() && key == other_key && ports.is_disjoint(&other_ports)
}

impl World {
    fn violated(&mut self, what: String) {
        let at = self.clock.now.as_secs_f64();
        self.checks.violation.get_or_insert(format!("at {at:.3} s: {what}"));
    }

    /// Never announced without being held: what a node is to announce is recorded, and of a pool or a bound claim, as this
    /// node was told.
    pub(super) fn check_plan(&mut self, node: usize) {
        let host = &self.hosts[node];
        let Some(daemon) = &host.daemon else { return };
        let Some(planned) = &daemon.planned else { return };
        let view = if planned.snapshot.saved { &daemon.saved } else { &daemon.view };
        let recorded = recorded(view);
        let exports = planned.desired.exports.values().flat_map(|routes| routes.iter());
        let wrong = exports.map(|(prefix, _)| prefix.addr()).find(|a| !recorded.contains(a) || !owned(view, *a));
        if let Some(address) = wrong {
            self.violated(format!("n{node} is to announce {address}, which is not held"));
        }
    }

    /// What is announced is planned; and a node that was drained announces nothing.
    pub(super) fn check_announced(&mut self, node: usize) {
        let now = self.clock.now;
        let host = &self.hosts[node];
        let Some(daemon) = &host.daemon else { return };
        let Some(planned) = &daemon.planned else { return };
        let exports = daemon.announce.exports.iter();
        let told: Vec<_> = exports.flat_map(|(peer, routes)| routes.iter().map(move |route| (peer, route.0))).collect();
        let wanted = &planned.desired.exports;
        let more = told.iter().find(|(peer, prefix)| {
            !wanted.get(&*peer.0).is_some_and(|routes| routes.iter().any(|(wanted, _)| wanted == *prefix))
        });
        if let Some((peer, prefix)) = more {
            let what = format!("n{node} tells {peer} of {prefix}, which is not planned");
            return self.violated(what);
        }
        let late = host
            .draining
            .is_some_and(|since| now > since + Self::DRAINED_WITHIN && now > daemon.since + Duration::from_secs(1));
        if late && (!told.is_empty() || !daemon.announced.is_empty()) {
            self.violated(format!("n{node} is drained and announces"));
        }
    }

    /// Remembers since when what is announced.
    pub(super) fn note_announced(&mut self, node: usize) {
        let now = self.clock.now;
        let Some(daemon) = &self.hosts[node].daemon else { return };
        let announced = daemon.announced.clone();
        self.checks.announced.retain(|(of, prefix), _| *of != node || announced.contains(prefix));
        for prefix in announced {
            self.checks.announced.entry((node, prefix)).or_insert(now);
        }
        let host = &self.hosts[node];
        let draining = host.draining.is_some_and(|since| now > since + Self::DRAINED_WITHIN);
        if draining && host.daemon.as_ref().is_some_and(|daemon| !daemon.announced.is_empty()) {
            self.violated(format!("n{node} is drained and announces"));
        }
    }

    /// Never two Services on one address and port: before an address is given, nobody has it who does not share it. What
    /// people change meanwhile the leader cannot know; what was recorded it must.
    pub(super) fn check_gift(&mut self, node: usize, change: &Change) {
        let Some(daemon) = &self.hosts[node].daemon else { return };
        let as_seen = |name: &str| daemon.view.get(&Kind::Service)?.get(&objects::key(name)).and_then(|o| service(o));
        let Some(own) = as_seen(&change.key.name) else { return };
        let current = self.api.get(Kind::Service, &objects::key(&change.key.name)).and_then(|object| service(object));
        let stands = current.is_some_and(|now| spec(now).2.map(String::as_str) == Some(&change.uid));
        let kept: Vec<IpAddr> = current.map(addresses).unwrap_or_default();
        if !stands || kept != change.before {
            return;
        }
        let mut wrong = None;
        for address in change.after.iter().filter(|address| !change.before.contains(address)) {
            for (key, object) in self.api.list(Kind::Service).filter(|(key, _)| key.name != *change.key.name) {
                let Some(other) = service(object).filter(|other| addresses(other).contains(address)) else { continue };
                let seen = as_seen(&key.name).unwrap_or(other);
                if !may_share(own, seen) {
                    wrong = Some(format!("{address} is given to {}, and {} has it", change.key, key.name));
                }
            }
        }
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
    }

    /// A process is gone: what it announces is announced no more.
    pub(super) fn forget_announced(&mut self, node: usize) {
        self.checks.announced.retain(|(of, _), _| *of != node);
    }

    /// Remembers which addresses somebody has.
    pub(super) fn check_record(&mut self) {
        let now = self.clock.now;
        let services = self.api.list(Kind::Service).filter_map(|(_, object)| service(object));
        let recorded: BTreeSet<IpAddr> = services.filter(|service| balances(service)).flat_map(addresses).collect();
        for address in self.checks.recorded.difference(&recorded) {
            self.checks.ceased.insert(*address, now);
        }
        self.checks.ceased.retain(|address, _| !recorded.contains(address));
        self.checks.recorded = recorded;
    }

    /// Whether no Service has this address.
    pub(super) fn is_nobodys(&self, address: IpAddr) -> bool {
        !self.checks.recorded.contains(&address)
    }

    /// Who is in touch follows what is so: no router has a route of such a node to an address that nobody has any more.
    pub(super) fn check_routers(&mut self) {
        let now = self.clock.now;
        let mut wrong = None;
        for (n, host) in self.hosts.iter().enumerate() {
            let Some(daemon) = &host.daemon else { continue };
            let in_touch = host.api_cut.is_none() && host.stalled.is_empty() && host.cut.is_empty();
            if !in_touch || now < host.api_since + BOUND || now < daemon.since + BOUND {
                continue;
            }
            for (r, router) in self.routers.iter().enumerate() {
                // Of a machine that lost its power a router has routes until the hold time is over.
                let status = daemon.announce.status.get(&PeerId(format!("r{r}").into()));
                let up = status.filter(|s| s.state == State::Established).map(|s| s.since + BOUND);
                if up.is_none_or(|since| since > self.clock.instant()) {
                    continue;
                }
                for prefix in router.fresh(&host.name) {
                    let ceased = self.checks.ceased.get(&prefix.addr());
                    if ceased.is_some_and(|since| now > *since + BOUND + BOUND) {
                        wrong =
                            Some(format!("r{r} has a route of n{n} to {prefix}, which nobody has since {ceased:?}"));
                    }
                }
            }
        }
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
    }

    /// Carries an order out. Never released while announced: not by a node that could say so.
    pub(super) fn order(&mut self, action: &Action) -> Outcome {
        let now = self.clock.time(0);
        let before = self.provider.leases.clone();
        if self.mutant == Some(super::Mutant::ForgetsToRelease)
            && let Action::Release { .. } = action
        {
            return Outcome::Done;
        }
        let outcome = self.provider.take(now, action, &mut self.dice.0);
        self.trace(|| format!("provider: {action:?}: {outcome:?}"));
        for (id, lease) in before {
            if self.provider.leases.contains_key(&id) {
                continue;
            }
            self.checks.released += 1;
            let Some(network) = lease.network else { continue };
            let announcing: Vec<(usize, Duration)> = (self.checks.announced.iter())
                .filter(|((_, prefix), _)| *prefix == network)
                .map(|((node, _), since)| (*node, *since))
                .collect();
            for (node, since) in announcing {
                match self.hosts[node].api_cut.is_some_and(|cut| cut < since + REPORTED) {
                    true => self.checks.unreported += 1,
                    false => self.violated(format!("{network} is released, and n{node} announces it since {since:?}")),
                }
            }
        }
        if !self.provider.others_are_untouched() {
            self.violated("a lease of another cluster changed".into());
        }
        outcome
    }

    /// Checks that time alone may break.
    pub(super) fn check_time(&mut self) {
        self.check_routers();
        for node in 0..self.hosts.len() {
            self.note_announced(node);
        }
    }
}
