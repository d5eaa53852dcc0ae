//! What an OPEN offers, against BIRD and FRR: asserted on the router's side. Needs root and the routers.
#![cfg(feature = "tokio")]

mod support;

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use ironcast_bgp::{
    Asn,
    rib::{Attributes, Route},
    speaker::{AddPath, PeerAs, PeerConfig, Role, Shutdown, State},
};
use support::{
    Ours, config, exports, peer,
    router::wait,
    space::{self, Folder, Process, Space, run, skipped},
    start,
};

const NODE: u32 = 64601;
const ROUTER: u32 = 64500;

/// A router in a namespace of its own, linked to the node's: `10.77.9.1` and `fd77:9::1` here, 2 there.
struct Router {
    node: Space,
    space: Space,
    folder: Folder,
    processes: Vec<Process>,
}

impl Router {
    fn new() -> Self {
        let (node, space) = (Space::new(), Space::new());
        space::link((&node, "eth0", 2), (&space, "p1", 1), 9);
        let folder = Folder::new(&space.0);
        Self { node, space, folder, processes: Vec::new() }
    }

    /// BIRD with one neighbour of the given options.
    fn bird(options: &str) -> Self {
        let mut router = Self::new();
        let config = format!(
            "router id 10.255.0.1;\nprotocol device {{}}\n\
             protocol bgp node {{ local as {ROUTER}; passive on; {options} }}\n"
        );
        let config = router.folder.file("bird.conf", &config);
        let (control, pid) = (router.folder.path("bird.ctl"), router.folder.path("bird.pid"));
        router.spawn("/usr/sbin/bird", &["-f", "-c", &config, "-s", &control, "-P", &pid]);
        wait("BIRD listens", || PathBuf::from(&control).exists());
        router
    }

    /// FRR with one neighbour of the given options.
    fn frr(options: &str, families: &str) -> Self {
        let mut router = Self::new();
        let config = format!(
            "router bgp {ROUTER}\n bgp router-id 10.255.0.1\n no bgp ebgp-requires-policy\n{options}{families}exit\n"
        );
        let (zserv, folder) = (router.folder.path("zserv.api"), router.folder.path(""));
        run(&format!("chown frr:frr {folder}"));
        for (program, config) in [("zebra", "hostname r\n"), ("bgpd", config.as_str())] {
            let config = router.folder.file(program, config);
            let (path, pid) = (format!("/usr/lib/frr/{program}"), router.folder.path(&format!("{program}.pid")));
            router.spawn(&path, &["-z", &zserv, "-f", &config, "-i", &pid, "--vty_socket", &folder, "-P", "0"]);
            wait("zebra listens", || PathBuf::from(&zserv).exists());
        }
        router
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = self.space.command(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.processes.push(Process(command.spawn().expect("the router starts")));
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.space.command(program).args(arguments).output().expect("the program starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn birdc(&self, words: &str) -> String {
        self.ask("/usr/sbin/birdc", &["-s", &self.folder.path("bird.ctl"), words])
    }

    fn vtysh(&self, words: &str) -> String {
        self.ask("/usr/bin/vtysh", &["--vty_socket", &self.folder.path(""), "-d", "bgpd", "-c", words])
    }

    /// Our speaker in the node's namespace with the router as its peer; what ends with the value.
    fn node(&self, address: &str, change: impl FnOnce(&mut PeerConfig)) -> (tokio::runtime::Runtime, Ours) {
        let mut tor = peer(address.parse().expect("valid"), NODE, PeerAs::Exactly(Asn::new(ROUTER).expect("valid")));
        change(&mut tor);
        // The runtime's only thread is the one that enters the namespace, so that its sockets are there.
        self.node.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let ours = runtime.block_on(async {
                let ours = start(config([10, 0, 0, 1]), None);
                ours.peers([("tor", tor)]).await;
                // A router that does not listen yet refuses the first attempts.
                let told = |error: &String| !error.contains("refuses connections");
                ours.until("tor", |p| p.state == State::Established || p.last_error.as_ref().is_some_and(told)).await;
                ours
            });
            (runtime, ours)
        })
    }

    /// Lets the node's tasks run until the router pleases.
    fn until(&self, runtime: &tokio::runtime::Runtime, what: &str, pleases: impl Fn() -> bool + Send + Sync) {
        self.node.enter(|| {
            runtime.block_on(async {
                for _ in 0..200 {
                    if pleases() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                panic!("never: {what}");
            });
        });
    }
}

fn route(prefix: &str, next_hop: Option<[u8; 4]>) -> Route {
    let attributes = Attributes { next_hop: next_hop.map(Into::into), ..Attributes::default() };
    Route { prefix: prefix.parse().expect("valid"), attributes: Arc::new(attributes) }
}

const BIRD: &str = "/usr/sbin/bird";
const FRR: &str = "/usr/lib/frr/bgpd";

#[test]
fn bird_takes_every_capability_and_several_paths() {
    if skipped(&[BIRD]) {
        return;
    }
    let router = Router::bird(&format!(
        "local 10.77.9.1; neighbor 10.77.9.2 as {NODE}; local role provider; require roles on; hold time 9;\n\
         graceful restart on; long lived graceful restart on; enable extended messages on;\n\
         ipv4 {{ import all; export none; add paths rx; extended next hop on; }};\n\
         ipv6 {{ import all; export none; add paths rx; }};"
    ));
    let (runtime, ours) = router.node("10.77.9.1", |peer| {
        (peer.role, peer.role_strict) = (Some(Role::Customer), true);
        peer.add_path = AddPath { send: true, receive: false };
        peer.extended_next_hop = true;
        (peer.graceful_restart, peer.long_lived) = (Some(Duration::from_secs(30)), Some(Duration::from_secs(60)));
    });
    let status = ours.status("tor").expect("known");
    let words = status.capabilities.join(" ");
    for word in
        ["role=customer", "add-path-send", "extended-next-hop", "graceful-restart=", "long-lived-", "extended-message"]
    {
        assert!(words.contains(word), "{word} in {words}, {:?}", status.last_error);
    }
    let routes = vec![route("192.0.2.1/32", Some([10, 77, 9, 8])), route("192.0.2.1/32", Some([10, 77, 9, 9]))];
    runtime.block_on(ours.speaker.set_exports(exports("tor", routes))).expect("runs");
    router.until(&runtime, "both paths", || {
        let table = router.birdc("show route 192.0.2.1/32 all");
        table.contains("10.77.9.8") && table.contains("10.77.9.9")
    });
    let shown = router.birdc("show protocols all node");
    for word in ["Role: customer", "Long-lived graceful restart", "ADD-PATH", "Extended next hop"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
}

#[test]
fn bird_keeps_routes_over_a_restart_and_drops_them_at_a_stop_with_its_words() {
    if skipped(&[BIRD]) {
        return;
    }
    let router = Router::bird(&format!(
        "local 10.77.9.1; neighbor 10.77.9.2 as {NODE}; hold time 9; graceful restart on;\n\
         ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }};"
    ));
    let graceful = |peer: &mut PeerConfig| peer.graceful_restart = Some(Duration::from_secs(30));
    let has = || router.birdc("show route 192.0.2.1/32").contains("192.0.2.1/32");
    for (how, kept) in [(Shutdown::Restart, true), (Shutdown::Stop { reason: "drained for kernel".into() }, false)] {
        let (runtime, ours) = router.node("10.77.9.1", graceful);
        runtime.block_on(ours.speaker.set_exports(exports("tor", vec![route("192.0.2.1/32", None)]))).expect("runs");
        router.until(&runtime, "the route", has);
        runtime.block_on(ours.speaker.shutdown(how)).expect("runs");
        router.until(&runtime, "the end", || ours.has_ended());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(has(), kept);
    }
}

#[test]
fn bird_and_this_node_say_which_roles_do_not_fit() {
    if skipped(&[BIRD]) {
        return;
    }
    let router = Router::bird(&format!(
        "local 10.77.9.1; neighbor 10.77.9.2 as {NODE}; local role peer; ipv4 {{ import all; export none; }};"
    ));
    let (_runtime, ours) = router.node("10.77.9.1", |peer| peer.role = Some(Role::Customer));
    let words = ours.status("tor").expect("known").last_error.expect("refused");
    assert!(words.contains("Role Mismatch") && words.contains("customer"), "{words}");
    wait("BIRD says so", || router.birdc("show protocols all node").contains("Role mismatch"));
}

#[test]
fn frr_takes_the_role_and_ipv4_routes_over_an_ipv6_link() {
    if skipped(&[FRR]) {
        return;
    }
    let neighbour = "fd77:9::2";
    let options = format!(
        " neighbor {neighbour} remote-as {NODE}\n neighbor {neighbour} passive\n neighbor {neighbour} timers 3 9\n \
         neighbor {neighbour} local-role provider strict-mode\n neighbor {neighbour} capability extended-nexthop\n"
    );
    let families = ["ipv4", "ipv6"].map(|family| {
        format!(" address-family {family} unicast\n  neighbor {neighbour} activate\n exit-address-family\n")
    });
    let router = Router::frr(&options, &families.concat());
    router.node.ip("addr del 10.77.9.2/24 dev eth0");
    let (runtime, ours) = router.node("fd77:9::1", |peer| {
        (peer.role, peer.role_strict) = (Some(Role::Customer), true);
        assert!(peer.extended_next_hop, "offered to an IPv6 peer unasked");
    });
    router.until(&runtime, "the session", || ours.status("tor").is_some_and(|s| s.state == State::Established));
    runtime.block_on(ours.speaker.set_exports(exports("tor", vec![route("192.0.2.1/32", None)]))).expect("runs");
    router.until(&runtime, "the route", || router.vtysh("show bgp ipv4 unicast 192.0.2.1/32").contains("fd77:9::2"));
    let shown = router.vtysh(&format!("show bgp neighbors {neighbour}"));
    assert!(shown.contains("Remote Role: customer") || shown.contains("Neighbor Role: customer"), "{shown}");
}

/// What `last_error` builds on: whoever is away from a link is unreachable before an attempt times out, so that a
/// silent one is there and drops what we send.
#[test]
fn router_that_is_away_from_the_link_is_unreachable_and_not_silent() {
    if skipped(&["/usr/sbin/ip"]) {
        return;
    }
    let router = Router::new();
    for address in ["10.77.9.99", "fd77:9::99"] {
        let (_runtime, ours) = router.node(address, |_| {});
        let words = ours.status("tor").expect("known").last_error.expect("nobody is there");
        assert!(words.starts_with(&format!("no way to {address}")), "{words}");
    }
}

/// RFC 8538 §3: with the N bit on both ends a plain Cease would leave the routes, a Hard Reset takes them.
#[test]
fn frr_keeps_routes_over_a_restart_and_drops_them_at_a_hard_reset() {
    if skipped(&[FRR]) {
        return;
    }
    let neighbour = "10.77.9.2";
    let options = format!(
        " bgp graceful-restart\n bgp graceful-restart notification\n bgp graceful-restart stalepath-time 60\n \
         neighbor {neighbour} remote-as {NODE}\n neighbor {neighbour} passive\n neighbor {neighbour} timers 3 9\n"
    );
    let families = format!(" address-family ipv4 unicast\n  neighbor {neighbour} activate\n exit-address-family\n");
    let router = Router::frr(&options, &families);
    let has = || router.vtysh("show bgp ipv4 unicast 192.0.2.1/32").contains("10.77.9.2");
    for (how, kept) in [(Shutdown::Restart, true), (Shutdown::Stop { reason: "drained for kernel".into() }, false)] {
        let (runtime, ours) = router.node("10.77.9.1", |peer| peer.graceful_restart = Some(Duration::from_secs(30)));
        router.until(&runtime, "the session", || ours.status("tor").is_some_and(|s| s.state == State::Established));
        let words = ours.status("tor").expect("known").capabilities.join(" ");
        assert!(words.contains("graceful-restart-notification"), "{words}");
        runtime.block_on(ours.speaker.set_exports(exports("tor", vec![route("192.0.2.1/32", None)]))).expect("runs");
        router.until(&runtime, "the route", has);
        runtime.block_on(ours.speaker.shutdown(how)).expect("runs");
        router.until(&runtime, "the end", || ours.has_ended());
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(has(), kept);
    }
    let shown = router.vtysh(&format!("show bgp neighbors {neighbour}"));
    assert!(shown.contains("Hard Reset") || shown.contains("Administrative"), "{shown}");
}
