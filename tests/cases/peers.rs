//! Sessions: who peers with whom, as whom, and what each side says of it.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    calm,
    site::{Lot, NODE_ASN, ROUTER_ASN, Site, until, until_so},
};

cases![
    router_id,
    local_asn_override,
    dynamic_asn_right_and_wrong,
    different_asn_per_node,
    password_from_a_secret_changed_and_wrong,
    graceful_restart_keeps_routes_and_without_it_they_go,
    status_lifecycle,
    bfd_default_full_echo_and_changed_while_up,
    peers_added_one_by_one,
    peer_with_node_selector,
    both_families_over_one_session_via_v4,
    both_families_over_one_session_via_v6,
    routes_from_the_router_are_refused,
    connect_time_after_a_reset,
    prefix_budget,
    metrics_of_sessions_routes_and_pools,
    ecmp_width_caps_the_announcing_nodes,
    another_speaker_on_the_node,
];

async fn up(site: &Site, router: usize, sessions: usize) {
    until_so(&format!("{sessions} sessions"), || site.routers[router - 1].established() == sessions).await;
}

/// The session of a peer as its node shows it.
fn session(site: &Site, node: usize, peer: &str) -> serde_json::Value {
    let sessions = site.state(node)["sessions"].as_array().cloned().unwrap_or_default();
    sessions.into_iter().find(|session| session["peer"] == peer).unwrap_or_default()
}

async fn router_id(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    up(&site, 1, 2).await;
    let ids = || site.routers[0].session_facts("Neighbor ID");
    assert_eq!(ids(), [site.v4("n1"), site.v4("n1")], "the node's first IPv4 address");
    site.peer(1, 4, json!({"routerID": "192.0.2.77"})).await;
    until_so("the peer's own", || ids().contains(&"192.0.2.77".to_owned())).await;
    assert!(ids().contains(&site.v4("n1")), "the other session has what it had");
}

async fn local_asn_override(lot: Lot) {
    let mut site = Site::bare(lot, 1, 1).await;
    let config = site.router_config(ROUTER_ASN, 65077);
    site.route(1, &config);
    site.ours("IPAddressPool", "edge", json!({"addresses": [site.v4_pool(), site.v6_pool()]})).await;
    site.ours("BGPAdvertisement", "all", json!({})).await;
    site.peer(1, 4, json!({"localASN": 65077})).await;
    site.peer(1, 6, json!({"localASN": 65077, "localASNMode": "prepend"})).await;
    site.start(1, &[]);
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    let path = |address: &str| site.paths(1, address)[0].get("as_path").to_owned();
    assert_eq!((path(&web[0]), path(&web[1])), ("65077".to_owned(), format!("65077 {NODE_ASN}")));
}

async fn dynamic_asn_right_and_wrong(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.peer(1, 4, json!({"peerASN": null, "dynamicASN": "external"})).await;
    site.peer(1, 6, json!({"peerASN": null, "dynamicASN": "internal"})).await;
    until_so("external takes the router's AS", || {
        let session = session(&site, 1, "tor1-4");
        session["state"] == "Established" && session["remoteAsn"] == ROUTER_ASN
    })
    .await;
    until_so("internal does not, and says so", || {
        let session = session(&site, 1, "tor1-6");
        let error = session["lastError"].as_str().unwrap_or_default().to_owned();
        session["state"] != "Established" && error.contains(&ROUTER_ASN.to_string())
    })
    .await;
    site.peer(1, 6, json!({"peerASN": null, "dynamicASN": "external"})).await;
    up(&site, 1, 2).await;
}

async fn different_asn_per_node(lot: Lot) {
    let mut site = Site::bare(lot, 1, 2).await;
    let n = site.lot.number;
    let neighbours: String = (1..=2)
        .map(|node| {
            format!(
                "protocol bgp n{node} {{ local as {ROUTER_ASN}; passive on; direct; neighbor 10.78.{n}.{} as {};\n\
                 ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n",
                10 + node,
                NODE_ASN + node
            )
        })
        .collect();
    site.route(1, &neighbours);
    site.ours("IPAddressPool", "edge", json!({"addresses": [site.v4_pool()]})).await;
    site.ours("BGPAdvertisement", "all", json!({})).await;
    for node in 1..=2 {
        let spec = json!({
            "myASN": NODE_ASN + node, "peerASN": ROUTER_ASN, "peerAddress": site.v4("r1"), "connectTime": "1s",
            "nodeSelectors": [{"matchLabels": {"case": site.lot.name, "node": format!("n{node}")}}],
        });
        site.ours("BGPPeer", &format!("tor-of-n{node}"), spec).await;
    }
    (1..=2).for_each(|node| site.start(node, &[]));
    site.service("web", &[1], json!({"spec": {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}})).await;
    let web = site.given("web", 1).await;
    site.announced(1, &web, &[1, 2]).await;
    let mut paths: Vec<String> = site.paths(1, &web[0]).iter().map(|path| path.get("as_path").to_owned()).collect();
    paths.sort();
    assert_eq!(paths, [(NODE_ASN + 1).to_string(), (NODE_ASN + 2).to_string()]);
}

async fn secret(site: &Site, kind: &str, password: &str) {
    let body = json!({"type": kind, "stringData": {"username": "bgp", "password": password}});
    site.apply("v1", "Secret", &site.lot.name, "key", body).await;
}

async fn password_from_a_secret_changed_and_wrong(lot: Lot) {
    let mut site = Site::bare(lot, 1, 1).await;
    let with = |site: &Site, password: &str| {
        let (own, node) = (site.v4("r1"), site.v4("n1"));
        format!(
            "protocol bgp n1 {{ local {own} as {ROUTER_ASN}; passive on; direct; neighbor {node} as {NODE_ASN};\n\
             hold time 3; error wait time 1, 2; password \"{password}\"; ipv4 {{ import all; export none; }}; }}\n"
        )
    };
    let config = with(&site, "first");
    site.route(1, &config);
    site.peer(1, 4, json!({"passwordSecret": {"name": "key"}, "holdTime": "3s"})).await;
    site.start(1, &[]);
    until_so("it waits for the Secret and names it", || {
        session(&site, 1, "tor1-4")["lastError"].as_str().is_some_and(|error| error.contains("key"))
    })
    .await;
    secret(&site, "kubernetes.io/basic-auth", "first").await;
    up(&site, 1, 1).await;
    secret(&site, "kubernetes.io/basic-auth", "wrong").await;
    until_so("no session with the wrong one", || {
        site.routers[0].established() == 0 && session(&site, 1, "tor1-4")["state"] != "Established"
    })
    .await;
    site.routers[0].configure(&with(&site, "second"));
    secret(&site, "kubernetes.io/basic-auth", "second").await;
    up(&site, 1, 1).await;
}

async fn graceful_restart_keeps_routes_and_without_it_they_go(lot: Lot) {
    let mut site = Site::new(lot, 1, 1).await;
    site.peer(1, 4, json!({"enableGracefulRestart": true})).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    site.stop(1, true);
    let (kept, lost) = (&web[..1], &web[1..]);
    site.announced(1, lost, &[]).await;
    for _ in 0..20 {
        assert_eq!(site.nodes_of(1, &format!("{}/32", kept[0])), [1]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.start(1, &[]);
    site.announced(1, lost, &[1]).await;
    assert_eq!(site.nodes_of(1, &format!("{}/32", kept[0])), [1]);
}

async fn status_lifecycle(lot: Lot) {
    let site = Site::new(lot, 1, 2).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1, 2]).await;
    let status = async |node: usize| site.get("BGPNodeStatus", &site.node(node)).await["status"].clone();
    let condition = async |node: usize, kind: &str| {
        let status = status(node).await;
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["type"] == kind).unwrap_or_default()
    };
    for node in [1, 2] {
        until("every node says that it is ready and what it announces", || async {
            let status = status(node).await;
            let routes = status["routes"].as_array()?.len();
            (routes == 2 && status["totals"]["routes"] == 2 && condition(node, "Ready").await["status"] == "True")
                .then_some(())
        })
        .await;
        assert_eq!(condition(node, "ConfigurationValid").await["status"], "True");
        assert_eq!(condition(node, "Drained").await["status"], "False");
    }

    // A peer that nobody answers for.
    let dummy = json!({
        "myASN": NODE_ASN, "peerASN": 64999, "peerAddress": "10.78.255.254", "connectTime": "1s",
        "nodeSelectors": [{"matchLabels": {"case": site.lot.name, "node": "n2"}}],
    });
    site.ours("BGPPeer", "dummy", dummy).await;
    until("the node with the dummy peer is not ready and says why", || async {
        let ready = condition(2, "Ready").await;
        (ready["status"] == "False" && ready["message"].as_str()?.contains("dummy")).then_some(())
    })
    .await;
    assert_eq!(condition(1, "Ready").await["status"], "True", "the node selector leaves the other out");
    site.delete("BGPPeer", "dummy").await;
    until("without the peer it is ready", || async {
        let peers = status(2).await["sessions"].as_array()?.len();
        (peers == 2 && condition(2, "Ready").await["status"] == "True").then_some(())
    })
    .await;
    site.delete("Service", "web").await;
    until("without the Service nothing is announced", || async {
        status(1).await["routes"].as_array()?.is_empty().then_some(())
    })
    .await;
}

async fn bfd_default_full_echo_and_changed_while_up(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let mut config = site.router_config(ROUTER_ASN, NODE_ASN).replace("hold time 9;", "hold time 9; bfd on;");
    config += "protocol bfd { interface \"*\" { interval 200 ms; multiplier 5; }; }\n";
    site.routers[0].configure(&config);
    site.ours("BFDProfile", "watch", json!({})).await;
    site.peer(1, 4, json!({"bfdProfile": "watch"})).await;
    site.peer(1, 6, json!({"bfdProfile": "watch"})).await;
    let is = |peer: &str, transmit: u64, echo: bool| {
        let session = session(&site, 1, peer);
        let bfd = &session["bfd"];
        session["state"] == "Established"
            && bfd["state"] == "up"
            && bfd["transmitMilliseconds"] == transmit
            && bfd["echo"] == echo
    };
    until_so("the defaults", || is("tor1-4", 300, false) && is("tor1-6", 300, false)).await;
    let count = session(&site, 1, "tor1-6")["establishedCount"].clone();
    let full = json!({"receiveInterval": 280, "transmitInterval": 290, "detectMultiplier": 6, "passiveMode": true});
    site.ours("BFDProfile", "watch", full).await;
    until_so("every field, changed while it is up", || is("tor1-4", 290, false) && is("tor1-6", 290, false)).await;
    let after = session(&site, 1, "tor1-6");
    assert_eq!((&after["establishedCount"], &after["bfd"]["failures"]), (&count, &json!(0)), "no flap: {after}");

    // Switching echo on makes another session, on a link that it must know. BIRD returns no echo packets, which is its
    // right: control packets go on.
    site.ours("BFDProfile", "watch", json!({"echoMode": true, "echoInterval": 60})).await;
    until_so("it is up with echo asked for", || is("tor1-4", 300, false) && is("tor1-6", 300, false)).await;
    crate::seconds(3).await;
    let before = session(&site, 1, "tor1-4")["bfd"]["failures"].clone();
    calm().await;
    let after = session(&site, 1, "tor1-4");
    assert_eq!((&after["state"], &after["bfd"]["failures"]), (&json!("Established"), &before), "{after}");
}

async fn peers_added_one_by_one(lot: Lot) {
    let mut site = Site::bare(lot, 3, 1).await;
    let config = site.router_config(ROUTER_ASN, NODE_ASN);
    (1..=3).for_each(|router| site.route(router, &config));
    site.ours("IPAddressPool", "edge", json!({"addresses": [site.v4_pool(), site.v6_pool()]})).await;
    site.ours("BGPAdvertisement", "all", json!({})).await;
    site.start(1, &[]);
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    for router in 1..=3 {
        site.peer(router, 4, json!({"dualStackAddressFamily": true})).await;
        for earlier in 1..=router {
            until_so("each router that was added has the routes", || site.routers[earlier - 1].established() == 1)
                .await;
            assert_eq!(site.paths(earlier, &web[0]).len().max(1), 1);
        }
        until_so("the new one too", || site.paths(router, &web[0]).len() == 1).await;
        let counts: Vec<_> =
            (1..=router).map(|r| session(&site, 1, &format!("tor{r}-4"))["establishedCount"].clone()).collect();
        assert!(counts.iter().all(|count| *count == 1), "no session was disturbed: {counts:?}");
    }
}

async fn peer_with_node_selector(lot: Lot) {
    let site = Site::new(lot, 2, 2).await;
    let only = json!({"nodeSelectors": [{"matchLabels": {"case": site.lot.name, "rack": "a"}}]});
    site.peer(2, 4, only.clone()).await;
    site.peer(2, 6, only).await;
    site.label(2, json!({"rack": "a"})).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1, 2]).await;
    site.announced(2, &web, &[2]).await;
    site.label(1, json!({"rack": "a"})).await;
    site.label(2, json!({})).await;
    site.announced(2, &web, &[1]).await;
    site.announced(1, &web, &[1, 2]).await;
}

async fn both_families(lot: Lot, family: u8) {
    let mut site = Site::bare(lot, 1, 1).await;
    // Over IPv6 an IPv4 route's next hop is the node's IPv4 address, since both are on the link.
    let config = site.router_config(ROUTER_ASN, NODE_ASN);
    site.route(1, &config);
    site.ours("IPAddressPool", "edge", json!({"addresses": [site.v4_pool(), site.v6_pool()]})).await;
    site.ours("BGPAdvertisement", "all", json!({})).await;
    site.peer(1, family, json!({"dualStackAddressFamily": true})).await;
    site.start(1, &[]);
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    for address in &web {
        until_so(address, || site.paths(1, address).len() == 1).await;
    }
    assert_eq!(site.routers[0].established(), 1);
}

async fn both_families_over_one_session_via_v4(lot: Lot) {
    both_families(lot, 4).await;
}

async fn both_families_over_one_session_via_v6(lot: Lot) {
    both_families(lot, 6).await;
}

async fn routes_from_the_router_are_refused(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    let config = site.router_config(ROUTER_ASN, NODE_ASN).replace("export none", "export all");
    let statics = "protocol static { ipv4; route 198.18.7.0/24 blackhole; route 0.0.0.0/0 blackhole; }\n\
                   protocol static { ipv6; route fd99::/64 blackhole; }\n";
    site.routers[0].configure(&format!("{config}{statics}"));
    let refused = |peer: &str| metric(&site, 1, "ironcast_bgp_prefixes_refused", &[peer]).unwrap_or_default();
    until_so("they are counted", || refused("tor1-4") >= 2.0 && refused("tor1-6") >= 1.0).await;
    let kernel = std::process::Command::new("ip").args(["-n", &site.netns("n1"), "route"]).output().expect("ip runs");
    let kernel = String::from_utf8_lossy(&kernel.stdout).into_owned();
    assert!(!kernel.contains("198.18.7.0") && !kernel.contains("default"), "{kernel}");
    site.announced(1, &web, &[1]).await;
}

async fn connect_time_after_a_reset(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.peer(1, 4, json!({"connectTime": "2s"})).await;
    up(&site, 1, 2).await;
    site.routers[0].ask("disable \"four*\"");
    until_so("the session is over", || session(&site, 1, "tor1-4")["state"] != "Established").await;
    crate::seconds(3).await;
    let start = Instant::now();
    site.routers[0].ask("enable \"four*\"");
    until_so("it is back", || session(&site, 1, "tor1-4")["state"] == "Established").await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(6), "connectTime is 2 s, and it took {took:?}");
}

async fn prefix_budget(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.peer(1, 4, json!({"prefixBudget": 1})).await;
    site.service("older", &[1], json!({})).await;
    let older = site.given("older", 2).await;
    site.announced(1, &older, &[1]).await;
    crate::seconds(1).await; // ages are whole seconds
    site.service("younger", &[1], json!({})).await;
    let younger = site.given("younger", 2).await;
    site.announced(1, &younger[1..], &[1]).await;
    until("the Service says which peer has no room", || async {
        let told = site.events(&site.lot.name, "younger", "PrefixBudget").await;
        told.contains("tor1-4").then_some(())
    })
    .await;
    assert!(site.paths(1, &younger[0]).is_empty());
    site.announced(1, &older, &[1]).await;
    site.delete("Service", "older").await;
    site.announced(1, &younger, &[1]).await;
}

/// The first sample of a metric with these words among its labels.
fn metric(site: &Site, node: usize, name: &str, labels: &[&str]) -> Option<f64> {
    let metrics = site.metrics(node);
    let line = metrics.lines().find(|l| l.starts_with(name) && labels.iter().all(|label| l.contains(label)));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

async fn metrics_of_sessions_routes_and_pools(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    let value = |name: &str, labels: &[&str]| metric(&site, 1, name, labels);
    let session = |peer: &str| value("ironcast_bgp_session_up", &[peer]);
    assert_eq!((session("tor1-4"), session("tor1-6")), (Some(1.0), Some(1.0)), "{}", site.metrics(1));
    let pool = |what: &str| value("ironcast_pool_addresses", &["edge", "IPv4", what]);
    assert_eq!((pool("assigned"), pool("available")), (Some(1.0), Some(255.0)), "{}", site.metrics(1));
    assert_eq!(value("ironcast_bgp_routes_advertised", &["tor1-4"]), Some(1.0));
    site.node_status(1, json!({"NetworkUnavailable": "True"})).await;
    until_so("what is withheld is counted by reason", || {
        value("ironcast_plan_withheld", &["nodeNetworkUnavailable"]) == Some(1.0)
    })
    .await;
    site.routers[0].ask("disable \"four*\"");
    until_so("a session that is down", || session("tor1-4") == Some(0.0)).await;
}

async fn ecmp_width_caps_the_announcing_nodes(lot: Lot) {
    let mut site = Site::new(lot, 1, 3).await;
    site.peer(1, 4, json!({"maximumPaths": 2})).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web[1..], &[1, 2, 3]).await;
    let prefix = format!("{}/32", web[0]);
    until_so("two of three", || site.nodes_of(1, &prefix).len() == 2).await;
    calm().await;
    let before = site.nodes_of(1, &prefix);
    assert_eq!(before.len(), 2, "{before:?}");
    let out = (1..=3).find(|node| !before.contains(node)).expect("one of three");
    assert!(site.ask(out, &["status", "-o", "json"]).contains("ecmpWidth"));
    site.node_status(before[0], json!({"Ready": "False"})).await;
    let after = if before[1] < out { [before[1], out] } else { [out, before[1]] };
    site.announced(1, &web[..1], &after).await;
    site.stop(out, true);
}

async fn another_speaker_on_the_node(lot: Lot) {
    let mut site = Site::bare(lot, 1, 1).await;
    let config = site.router_config(ROUTER_ASN, NODE_ASN);
    site.route(1, &config);
    // As Calico's or MetalLB's would: from the node's address, with the same router.
    let folder = site.lot.folder.join("other");
    std::fs::create_dir_all(&folder).expect("a folder");
    let other = format!(
        "protocol bgp tor {{ local as {NODE_ASN}; direct; neighbor {} as {ROUTER_ASN}; ipv4 {{ import none; export all; }}; }}\n",
        site.v4("r1")
    );
    let other = crate::bird::Bird::start(&site.netns("n1"), &folder, &other);
    up(&site, 1, 1).await;
    site.peer(1, 4, json!({})).await;
    site.start(1, &[]);
    until_so("both are named", || {
        let problems = site.state(1)["problems"].to_string();
        problems.contains("bird, process") && problems.contains("tor1-4")
    })
    .await;
    drop(other);
    up(&site, 1, 1).await;
    until_so("the session is ours", || session(&site, 1, "tor1-4")["state"] == "Established").await;
}
