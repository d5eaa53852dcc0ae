//! BFD of the whole daemon: up with the peer, faster than the hold time when the path dies, silent about changes.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    routers::{Bird, Frr, Router, skipped},
    site::{LIMIT, NODE_ASN, ROUTER_ASN, Site, until},
    support::program::Program,
};

const MILLIS: u32 = 10;
/// Where nothing may fail: three of these are longer than any processor of a virtual machine was seen to stand still.
const CALM_MILLIS: u32 = 100;
/// What both ends propose.
const HOLD_TIME: Duration = Duration::from_secs(90);

fn profile(site: &Site, millis: u32) {
    let spec = json!({"receiveInterval": millis, "transmitInterval": millis, "detectMultiplier": 3});
    site.write("fast", "BFDProfile", spec);
}

fn peer(site: &Site) {
    let spec = json!({
        "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "peerAddress": "10.78.0.1", "connectTime": "1s",
        "enableGracefulRestart": true, "bfdProfile": "fast",
    });
    site.write("tor", "BGPPeer", spec);
}

/// Waits until session and path are up at 3 × `millis`.
fn wait_up(site: &Site, router: &impl Router, daemon: &Program, millis: u32) -> Value {
    let is_up = |session: &Value| {
        session["state"] == "Established"
            && session["bfd"]["state"] == "up"
            && session["bfd"]["detectionMilliseconds"] == 3 * millis
            && session["bfd"]["transmitMilliseconds"] == millis
    };
    let mut last = None;
    let limit = std::time::Instant::now() + super::site::LIMIT;
    while std::time::Instant::now() < limit {
        last = site.session("tor");
        if let Some(session) = last.as_ref().filter(|session| is_up(session)) {
            return session.clone();
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("not up at 3 × {millis} ms: {last:?}\n{}\n{}\n{}", router.bfd(), router.bgp(), daemon.tail());
}

/// The last line with `words` of the daemon's log after `since`, and how long after.
fn logged(daemon: &Program, words: &str, since: SystemTime) -> Option<(Duration, String)> {
    let log = daemon.log();
    let line = log.lines().rev().find(|line| line.contains(words))?;
    let stamp: k8s_openapi::jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
    Some((SystemTime::from(stamp).duration_since(since).ok()?, line.to_owned()))
}

/// The path dies and comes back. What ended the session is asserted; how soon is told: it says as much of the machine.
fn freeze<R: Router>(site: &Site, router: &R, daemon: &Program) {
    // Neither end can have waited for the hold time.
    const { assert!(LIMIT.as_secs() < HOLD_TIME.as_secs()) };
    let since = SystemTime::now();
    site.freeze(true);
    let withdrawn = site.wait_route(false);
    let (known, lost) = until("the daemon knows", || logged(daemon, "path lost", since));
    let (ended, why) = until("the session is over", || logged(daemon, "session ended", since));
    site.freeze(false);
    assert!(lost.contains("control detection time expired"), "{lost}");
    assert!(why.contains("BFD declared the path to the router down") && known <= ended, "{lost}\n{why}");
    let back = site.wait_route(true);
    let session = wait_up(site, router, daemon, MILLIS);
    let name = R::NAME;
    eprintln!("path to {name} dead: known after {known:?}, route gone after {withdrawn:?}, back {back:?} after it was");
    assert!(session["bfd"]["failures"].as_u64() >= Some(1), "{session}");
}

fn dead_path<R: Router>() {
    if skipped::<R>() {
        return;
    }
    let site = Site::new();
    profile(&site, MILLIS);
    peer(&site);
    let router = R::numbered(&site, MILLIS);
    let daemon = site.daemon();
    wait_up(&site, &router, &daemon, MILLIS);
    site.wait_route(true);
    freeze(&site, &router, &daemon);
    let status = String::from_utf8(site.ask(&["status"]).stdout).expect("text");
    assert!(status.contains("up 30ms"), "{status}");
}

fn live_change<R: Router>() {
    if skipped::<R>() {
        return;
    }
    let site = Site::new();
    profile(&site, CALM_MILLIS);
    peer(&site);
    let router = R::numbered(&site, CALM_MILLIS);
    let daemon = site.daemon();
    let unharmed = |millis| {
        let session = wait_up(&site, &router, &daemon, millis);
        let told = format!("{session}\n{}\n{}\n{}", router.bfd(), router.bgp(), daemon.tail());
        assert_eq!((&session["establishedCount"], &session["bfd"]["failures"]), (&json!(1), &json!(0)), "{told}");
    };
    wait_up(&site, &router, &daemon, CALM_MILLIS);
    site.wait_route(true);
    for millis in [5 * CALM_MILLIS, 2 * CALM_MILLIS, CALM_MILLIS] {
        profile(&site, millis);
        unharmed(millis);
    }
    site.remove("fast");
    let problems = until("the profile is missed", || {
        let problems = site.state()?["problems"].to_string();
        problems.contains("spec.bfdProfile").then_some(problems)
    });
    assert!(problems.contains("tor") && problems.contains("BFDProfile \\\"fast\\\" is gone"), "{problems}");
    thread::sleep(Duration::from_millis(300));
    unharmed(CALM_MILLIS);
    assert!(site.next_hop().is_some());
}

/// A planned restart takes no route from the router, and its BFD session goes on with the next process.
fn restart<R: Router>() {
    if skipped::<R>() {
        return;
    }
    let site = Site::new();
    profile(&site, MILLIS);
    peer(&site);
    let router = R::numbered(&site, MILLIS);
    let daemon = site.daemon();
    wait_up(&site, &router, &daemon, MILLIS);
    site.wait_route(true);
    assert!(daemon.terminate(Duration::from_secs(5)), "{}", daemon.tail());
    for _ in 0..100 {
        assert!(site.next_hop().is_some(), "route lost\n{}\n{}", router.bfd(), router.bgp());
        thread::sleep(Duration::from_millis(10));
    }
    let daemon = site.daemon();
    until("up again", || {
        assert!(site.next_hop().is_some(), "route lost\n{}\n{}\n{}", router.bfd(), router.bgp(), daemon.tail());
        site.session("tor").filter(|session| session["state"] == "Established" && session["bfd"]["state"] == "up")
    });
    let session = wait_up(&site, &router, &daemon, MILLIS);
    assert_eq!(session["bfd"]["failures"], 0, "{session}");
    assert!(site.next_hop().is_some());
}

macro_rules! with {
    ($($name:ident: $what:ident::<$router:ident>;)*) => {
        $(
            #[test]
            fn $name() {
                $what::<$router>();
            }
        )*
    };
}

with! {
    dead_path_to_bird_is_noticed_by_both_ends_before_the_hold_time: dead_path::<Bird>;
    dead_path_to_frr_is_noticed_by_both_ends_before_the_hold_time: dead_path::<Frr>;
    profile_changes_without_a_flap_beside_bird_and_its_loss_is_named: live_change::<Bird>;
    profile_changes_without_a_flap_beside_frr_and_its_loss_is_named: live_change::<Frr>;
    planned_restart_keeps_the_routes_of_bird: restart::<Bird>;
    planned_restart_keeps_the_routes_of_frr: restart::<Frr>;
}
