//! What planning costs. Run with `cargo test -p ironcast --lib plan::tests::speed -- --ignored --nocapture`, with
//! `--release` for numbers that mean something.

use std::time::{Duration, Instant};

use super::super::{Desired, fixture::*, plan};
use crate::types::{Endpoint, Family, FamilyPolicy, Service};

const SERVICES: u16 = 10_000;

fn big_world(dual_stack: bool) -> World {
    let world = World::usual().pool(pool("main", &["10.64.0.0/16", "2001:db8::/64"]));
    (0..SERVICES).fold(world, |world, i| {
        let mut service = service(&format!("service-{i}"), i64::from(i % 97));
        if dual_stack {
            service = Service {
                families: vec![Family::Ipv4, Family::Ipv6],
                family_policy: FamilyPolicy::RequireDualStack,
                ..service
            };
        }
        let endpoints: Vec<Endpoint> = (0..10).map(|e| endpoint(&format!("10.0.{}.{e}", i % 200), "n1")).collect();
        world.serve(service, &endpoints)
    })
}

fn timed(name: &str, world: &World) -> (Desired, Duration) {
    let start = Instant::now();
    let desired = plan(&world.0, &settings("n1"));
    let took = start.elapsed();
    println!("{name}: {took:?}");
    (desired, took)
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_services_with_ten_endpoints_each() {
    let mut world = big_world(false);
    let (desired, _) = timed("10,000 Services, nobody has an address", &world);
    world.record(&desired);
    let (desired, _) = timed("10,000 Services, everybody has one", &world);
    assert_eq!(desired.exports["tor"].len(), usize::from(SERVICES));
    for i in 0..63u8 {
        world = world.peer(peer(&format!("tor-{i}"), &format!("198.51.101.{i}")));
    }
    timed("the same to 64 peers", &world);
    let mut world = big_world(true);
    let (desired, _) = timed("10,000 dual-stack Services, nobody has an address", &world);
    world.record(&desired);
    timed("10,000 dual-stack Services, everybody has both", &world);
}

#[test]
#[ignore = "a measurement"]
fn eight_times_the_services_that_want_to_share() {
    let shared = |n: u16| {
        let world = World::usual().pool(pool("main", &["10.64.0.0/16"]));
        (0..n).fold(world, |world, i| {
            let service = Service { sharing_key: Some("k".into()), ..service(&format!("s{i}"), 1) };
            world.serve(service, &[])
        })
    };
    let best = |n: u16| (0..3).map(|_| timed("shared", &shared(n)).1).min().expect("three runs");
    println!("4,000 sharing Services cost {:.1} × 500", best(4_000).as_secs_f64() / best(500).as_secs_f64());
}
