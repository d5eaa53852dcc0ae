//! The API server goes away. These have the control plane for themselves. The nodes' kernels answer for the addresses
//! (`--vip-interface=lo`), and the router's host asks them all the time.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    Alone, runtime,
    site::{Lot, NODE_ASN, ROUTER_ASN, Site},
    support::cluster::Cluster,
};

pub(crate) const CASES: &[Alone] = &[
    ("api_server_outage_without_a_daemon_restart", without_restart),
    ("api_server_outage_with_a_daemon_restart", with_restart),
];

fn without_restart(lot: Lot, cluster: &mut Cluster) {
    outage(lot, cluster, false);
}

fn with_restart(lot: Lot, cluster: &mut Cluster) {
    outage(lot, cluster, true);
}

/// Twenty questions in a second.
struct Asking(Child);

impl Asking {
    fn start(netns: &str, address: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).args(["ping", "-q", "-n", "-i", "0.05", address]);
        Self(command.stdout(Stdio::piped()).spawn().expect("ping runs"))
    }

    /// How many were asked, and how many were never answered.
    fn end(self) -> (u32, u32) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id")).expect("not 0");
        kill_process(pid, Signal::INT).expect("it runs");
        let output = self.0.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.contains("packets transmitted")).expect("a summary");
        let count = |word: usize| line.split(' ').nth(word).and_then(|n| n.parse::<u32>().ok()).expect("a number");
        // `N packets transmitted, M received, …`
        (count(0), count(0) - count(3))
    }
}

const KERNEL: &str = "protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths on; }\n\
                      protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths on; }\n";
const ON_LO: &[&str] = &["--vip-interface=lo"];

/// Two nodes with graceful restart, and addresses of a Service of either policy.
async fn announced(lot: Lot) -> (Site, [Vec<String>; 2]) {
    let mut site = Site::bare(lot, 1, 2).await;
    let config = site.router_config(ROUTER_ASN, NODE_ASN);
    site.route(1, &format!("{config}{KERNEL}"));
    site.defaults().await;
    for node in [1, 2] {
        site.start(node, ON_LO);
    }
    for family in [4, 6] {
        site.peer(1, family, json!({"enableGracefulRestart": true})).await;
    }
    site.service("web", &[1], json!({})).await;
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    site.service("local", &[2], local).await;
    let web = [site.given("web", 2).await, site.given("local", 2).await];
    site.announced(1, &web[0], &[1, 2]).await;
    site.announced(1, &web[1], &[2]).await;
    (site, web)
}

fn outage(lot: Lot, cluster: &mut Cluster, restart: bool) {
    let runtime = runtime();
    let (mut site, web) = runtime.block_on(announced(lot));
    assert!(
        Path::new("/bin/ping").exists() || Path::new("/usr/bin/ping").exists(),
        "needs ping (Debian: iputils-ping)"
    );
    let asked: Vec<&String> = web.iter().flatten().collect();
    crate::calm_now();
    let asking: Vec<Asking> = asked.iter().map(|address| Asking::start(&site.netns("r1"), address)).collect();
    cluster.stop_apiserver();
    let kept = |site: &Site| {
        assert!(web[0].iter().all(|address| !site.paths(1, address).is_empty()), "lost {:?}", web[0]);
        assert!(web[1].iter().all(|address| !site.paths(1, address).is_empty()), "lost {:?}", web[1]);
    };
    if restart {
        for node in 1..=2 {
            site.stop(node, node == 1); // one politely, one killed
            kept(&site);
            site.start(node, ON_LO);
        }
    }
    // Longer than the hold time.
    for _ in 0..60 {
        kept(&site);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    runtime.block_on(async {
        crate::site::until_so("sessions are up", || site.routers[0].established() == 4).await;
        site.announced(1, &web[0], &[1, 2]).await;
        site.announced(1, &web[1], &[2]).await;
    });
    for (address, asking) in asked.iter().zip(asking) {
        let (sent, lost) = asking.end();
        println!("{address}: {sent} asked, {lost} lost");
        assert!(sent > 200 && lost == 0, "{address}: {lost} of {sent} lost");
    }
    if restart {
        let state = site.state(2);
        assert_eq!(
            (&state["source"]["complete"], &state["leader"]),
            (&json!(false), &json!(false)),
            "nobody leads by it"
        );
        // Restarted again with routes that were never kept by the router: from what was saved alone.
        site.routers[0].ask("restart all");
        site.stop(1, true);
        site.start(1, ON_LO);
        runtime.block_on(async {
            site.announced(1, &web[0], &[1, 2]).await;
            site.announced(1, &web[1], &[2]).await;
        });
    }
    runtime.block_on(async {
        cluster.start_apiserver().await;
        kept(&site);
        site.delete("Service", "local").await;
        site.announced(1, &web[1], &[]).await;
        site.announced(1, &web[0], &[1, 2]).await;
        site.service("after", &[1], json!({})).await;
        let after = site.given("after", 2).await;
        site.announced(1, &after, &[1, 2]).await;
    });
}
