//! The API server goes away. These have the control plane for themselves.

use serde_json::json;

use crate::{
    Alone, runtime,
    site::{Lot, Site},
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

fn outage(lot: Lot, cluster: &mut Cluster, restart: bool) {
    let runtime = runtime();
    let (mut site, web) = runtime.block_on(async {
        let site = Site::new(lot, 1, 2).await;
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
    });
    cluster.stop_apiserver();
    let kept = |site: &Site| {
        assert!(web[0].iter().all(|address| !site.paths(1, address).is_empty()), "lost {:?}", web[0]);
        assert!(web[1].iter().all(|address| !site.paths(1, address).is_empty()), "lost {:?}", web[1]);
    };
    if restart {
        for node in 1..=2 {
            site.stop(node, node == 1); // one politely, one killed
            kept(&site);
            site.start(node, &[]);
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
        site.start(1, &[]);
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
