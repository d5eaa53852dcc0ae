//! BFD with BIRD and FRR in network namespaces: Up as the router's own command line says, changed parameters
//! without a flap, a frozen router detected in time and found again.
#![cfg(feature = "tokio")]

mod support;

use std::{thread, time::Duration};

use ironcast_bgp::bfd::{Endpoint, State};
use support::{
    bfd::{Bird, Driver, Frr, Router, multi_hop, params, single_hop},
    space::{Space, link, skipped},
};

const BIRD: &[&str] = &["/usr/sbin/bird", "/usr/sbin/birdc"];
const FRR: &[&str] = &["/usr/lib/frr/bfdd", "/usr/lib/frr/zebra", "/usr/bin/vtysh"];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One session with a router on the same link.
fn on_one_link<R: Router>(millis: u64, v6: bool) {
    let (node, router) = (Space::new(), Space::new());
    link((&node, "eth0", 2), (&router, "p1", 1), 0);
    let [ours, theirs] = if v6 { ["fd77:0::2", "fd77:0::1"] } else { ["10.77.0.2", "10.77.0.1"] };
    let far = R::start(&router, theirs, ours, Some("p1"), millis);
    exercise(&node, &far, &single_hop(ours, theirs, "eth0"), millis);
}

/// One session with a router behind another.
fn over_two_links<R: Router>(millis: u64) {
    let (node, middle, router) = (Space::new(), Space::new(), Space::new());
    link((&node, "eth0", 2), (&middle, "left", 1), 1);
    link((&middle, "right", 1), (&router, "p1", 2), 2);
    let forward = middle.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status();
    assert!(forward.expect("sysctl starts").success());
    node.ip("route add default via 10.77.1.1");
    router.ip("route add default via 10.77.2.1");
    let far = R::start(&router, "10.77.2.2", "10.77.1.2", None, millis);
    exercise(&node, &far, &multi_hop("10.77.1.2", "10.77.2.2"), millis);
}

fn exercise(node: &Space, router: &impl Router, endpoint: &Endpoint, millis: u64) {
    let driver = node.bfd();
    driver.set(endpoint, params(millis));
    driver.wait_state(State::Up);
    router.wait_up();
    driver.wait("both ends agree on the pace", Duration::from_secs(5), |session| {
        !session.status.polling && session.status.transmit_interval == ms(millis)
    });
    let negotiated = driver.session().expect("there").status;
    assert_eq!(negotiated.detection_time, ms(3 * millis));

    for changed in [4 * millis, 2 * millis, millis] {
        driver.set(endpoint, params(changed));
        driver.wait("changed pace is confirmed", Duration::from_secs(5), |session| {
            !session.status.polling && session.status.transmit_interval == ms(changed)
        });
    }
    thread::sleep(ms(300));
    let after = driver.session().expect("there").status;
    let (up, text) = router.state();
    let report = driver.bfd.report();
    assert_eq!((after.state, after.since, after.failures), (State::Up, negotiated.since, 0), "{after:?} {report:?}");
    assert!(up, "{text}");

    router.process().signal(libc::SIGSTOP);
    let took = driver.wait_state(State::Down);
    router.process().signal(libc::SIGCONT);
    eprintln!("{millis} ms × 3: frozen router declared down after {took:?}; {:?}", driver.bfd.report());
    assert!(took <= ms(3 * millis + 15), "{took:?}");
    assert_eq!(driver.session().expect("there").status.failures, 1);
    driver.wait_state(State::Up);
    router.wait_up();
    end_orderly(&driver, router);
}

/// The router learns the end from us and not from silence.
fn end_orderly(driver: &Driver, router: &impl Router) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(driver.bfd.shutdown(false)).expect("ends");
    let (up, text) = router.state();
    assert!(!up, "router has not heard: {text}");
}

macro_rules! cells {
    ($($name:ident: $programs:ident, $body:expr;)*) => {
        $(
            #[test]
            fn $name() {
                if !skipped($programs) {
                    $body;
                }
            }
        )*
    };
}

cells! {
    bird_over_ipv4_at_3_times_10_ms: BIRD, on_one_link::<Bird>(10, false);
    bird_over_ipv4_at_3_times_50_ms: BIRD, on_one_link::<Bird>(50, false);
    bird_over_ipv6_at_3_times_10_ms: BIRD, on_one_link::<Bird>(10, true);
    bird_over_ipv6_at_3_times_50_ms: BIRD, on_one_link::<Bird>(50, true);
    bird_over_two_hops_at_3_times_10_ms: BIRD, over_two_links::<Bird>(10);
    bird_over_two_hops_at_3_times_50_ms: BIRD, over_two_links::<Bird>(50);
    frr_over_ipv4_at_3_times_10_ms: FRR, on_one_link::<Frr>(10, false);
    frr_over_ipv4_at_3_times_50_ms: FRR, on_one_link::<Frr>(50, false);
    frr_over_ipv6_at_3_times_10_ms: FRR, on_one_link::<Frr>(10, true);
    frr_over_ipv6_at_3_times_50_ms: FRR, on_one_link::<Frr>(50, true);
    frr_over_two_hops_at_3_times_10_ms: FRR, over_two_links::<Frr>(10);
    frr_over_two_hops_at_3_times_50_ms: FRR, over_two_links::<Frr>(50);
}
