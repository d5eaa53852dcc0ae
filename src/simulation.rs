//! Several nodes, the one that leads, the API server, a provider and routers, under a virtual clock and one seed: whatever
//! order things happen in, what must hold does.
//!
//! ```text
//!  people, fate ─▶ chaos ─▶ API server ──watches: late, broken, listed anew──▶ daemon: index ─▶ plan ─▶ announce ─▶ speaker
//!                             ▲  ▲ requests: late, lost on the way there or back       │                          │ octets
//!                             │  └─ record, Lease, journal, status ◀───────────────────┤                          ▼
//!                             └──── checks, after every step                  desk ─▶ provider           router: speaker
//! ```
//!
//! | real, the very code that runs | modelled |
//! |---|---|
//! | [`Index`](crate::source::index::Index) with its conversions, [`Planner`](crate::plan::Planner), `Exits` (drain, cordon) | the API server: objects, versions, logs; watches that lag, break, go on or list anew |
//! | `AnnounceState::turn`, both ends of every session ([`Speaker`](ironcast_bgp::speaker::Speaker): graceful restart, timers, octets) | ways: delay, cuts, resets; routers' reboots; machines without power |
//! | `Record` and `Change::decide` (what the leader records), `Rules` and `Term` (who leads) | requests and their answers; when a task is woken |
//! | `Desk` and the claim machine, `facts`, the objects of the journal | the provider, as in the schedules of the claim machine |
//! | the snapshot of what was saved | files: a mark of the running process, a drain, what was saved |
//!
//! # What must hold
//!
//! 1. Never announced without being held: recorded, and of a pool or of a bound claim, as this node was told; and what a node
//!    tells its peers is planned.
//! 2. Never released while announced: no node announces an address when the provider takes it back. Excepted is a node that
//!    was cut off from the API server before it could say that it announces it.
//! 3. Never two Services on one address and port: none is given an address that another has, unless they share it.
//! 4. A drained node announces nothing, over restarts too.
//! 5. Routers follow: of a node that reaches the API server and its routers none has a route to what nobody has any more.
//! 6. After quiet, desired is actual everywhere: records, routes at every router, status of every node, claims and leases.
//!
//! # To repeat
//!
//! `IRONCAST_SIMULATION_SEEDS` says how many seeds are tried, `IRONCAST_SIMULATION_SEED` repeats one and prints what
//! happened. Faults that are put in on purpose ([`Mutant`]) show that each check can fail.

mod api;
mod bgp;
mod calls;
mod chaos;
mod checks;
mod clock;
mod daemon;
mod dice;
mod leader;
mod objects;
mod quiet;
mod steps;
mod tests;
mod world;

use std::{sync::Arc, time::Duration};

use self::world::World;
use crate::{
    plan::{Allocated, Desired, Planner, Settings},
    types::{Service, ServiceKey, Snapshot},
};

/// A fault that is put in, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// Addresses go back to the provider before anybody asks who announces them.
    ReleasesFirst,
    /// What is allocated is announced before it is recorded.
    AnnouncesFirst,
    /// Nobody looks who has an address already.
    SharesAlways,
    /// A drain is not acted on.
    ForgetsDrain,
    /// Leases are forgotten and not given back.
    ForgetsToRelease,
    /// Withdrawals of what no Service has any more are never sent, though the Adj-RIB-Out says so.
    ForgetsToWithdraw,
    /// Nobody looks of which cluster the mark of a lease is.
    TakesForOurs,
}

impl Mutant {
    /// The plan of one that is wrong in planning.
    fn plan(self, planner: &mut Planner, snapshot: &Arc<Snapshot>, settings: &Settings) -> Desired {
        match self {
            Self::AnnouncesFirst => {
                let desired = planner.plan(snapshot, settings);
                planner.plan(&as_if_recorded(snapshot, &desired), settings)
            }
            Self::SharesAlways => planner.plan(&as_if_shared(snapshot), settings),
            _ => planner.plan(snapshot, settings),
        }
    }
}

fn changed(snapshot: &Snapshot, change: impl Fn(&ServiceKey, &mut Service)) -> Arc<Snapshot> {
    let service = |(key, service): (&ServiceKey, &Arc<Service>)| {
        let mut service = (**service).clone();
        change(key, &mut service);
        (key.clone(), Arc::new(service))
    };
    let services = snapshot.services.iter().map(service).collect();
    Arc::new(Snapshot { services, ..snapshot.clone() })
}

fn as_if_recorded(snapshot: &Snapshot, desired: &Desired) -> Arc<Snapshot> {
    changed(snapshot, |key, service| {
        if let Some(Allocated::Addresses { addresses, .. }) = desired.allocations.get(key) {
            service.assigned.clone_from(addresses);
        }
    })
}

fn as_if_shared(snapshot: &Snapshot) -> Arc<Snapshot> {
    changed(snapshot, |_, service| {
        service.ports.clear();
        service.sharing_key = Some("all".into());
        service.traffic_policy = crate::types::TrafficPolicy::Cluster;
    })
}

/// What happened in a run, so that one that tries nothing is seen.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    seeds: u64,
    released: u64,
    unreported: u64,
    terms: u64,
    virtual_time: Duration,
}

/// One seed, from its beginning to quiet. The violation, and what led to it where that was asked for.
fn run(seed: u64, mutant: Option<Mutant>, traced: bool) -> Result<Counted, String> {
    let mut world = World::new(seed, mutant, traced);
    let result = drive(&mut world);
    let log = world.log.join("\n");
    match result {
        Ok(()) => {
            if traced {
                println!("{log}");
            }
            let terms = world.hosts.iter().filter_map(|host| host.daemon.as_ref()).map(|daemon| daemon.terms).sum();
            let (released, unreported) = (world.checks.released, world.checks.unreported);
            Ok(Counted { seeds: 1, released, unreported, terms, virtual_time: world.clock.now })
        }
        Err(violation) => Err(format!("{log}\nseed {seed}: {violation}")),
    }
}

fn drive(world: &mut World) -> Result<(), String> {
    while world.left > 0 {
        world.run(world.clock.now + Duration::from_secs(60))?;
    }
    world.settle()
}
