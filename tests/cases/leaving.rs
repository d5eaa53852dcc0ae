//! Nodes that leave: unfit, excluded, cordoned, in maintenance, drained.

use serde_json::json;

use crate::{
    calm,
    site::{Lot, Site, until, until_so},
};

cases![
    network_unavailable_node,
    node_that_is_not_ready,
    node_excluded_from_external_load_balancers,
    drain_says_graceful_shutdown_withdraws_and_is_done,
    cordon_withdraws_what_others_announce,
    cordon_is_ignored_where_the_operator_says_so,
    maintenance_taint_withdraws_what_others_announce,
];

const GRACEFUL_SHUTDOWN: &str = "(65535,0)";

async fn working(lot: Lot, flags: &[&str]) -> (Site, Vec<String>) {
    let mut site = Site::new(lot, 1, 2).await;
    if !flags.is_empty() {
        for node in 1..=2 {
            site.stop(node, true);
            site.start(node, flags);
        }
    }
    site.service("web", &[1, 2], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1, 2]).await;
    (site, web)
}

/// Waits until the node withholds for this reason.
async fn withheld(site: &Site, node: usize, reason: &str) {
    until_so(reason, || site.state(node)["withheld"].to_string().contains(reason)).await;
}

async fn network_unavailable_node(lot: Lot) {
    let (site, web) = working(lot, &[]).await;
    site.node_status(1, json!({"NetworkUnavailable": "True"})).await;
    site.announced(1, &web, &[2]).await;
    withheld(&site, 1, "nodeNetworkUnavailable").await;
    site.node_status(1, json!({"NetworkUnavailable": "False"})).await;
    site.announced(1, &web, &[1, 2]).await;
}

async fn node_that_is_not_ready(lot: Lot) {
    let (site, web) = working(lot, &[]).await;
    site.node_status(1, json!({"Ready": "Unknown"})).await;
    site.announced(1, &web, &[2]).await;
    withheld(&site, 1, "nodeNotReady").await;
    site.node_status(1, json!({})).await;
    site.announced(1, &web, &[1, 2]).await;
}

async fn node_excluded_from_external_load_balancers(lot: Lot) {
    let (mut site, web) = working(lot, &[]).await;
    let label = json!({"node.kubernetes.io/exclude-from-external-load-balancers": ""});
    site.label(1, label).await;
    site.announced(1, &web, &[2]).await;
    withheld(&site, 1, "nodeLabeledExcludeBalancers").await;
    site.stop(1, true);
    site.start(1, &["--ignore-exclude-label"]);
    site.announced(1, &web, &[1, 2]).await;
}

/// The community of the path over a node.
fn community(site: &Site, address: &str, node: usize) -> String {
    let host = format!("n{node}");
    let paths = site.paths(1, address);
    let path = paths.iter().find(|path| path.next_hop == site.v4(&host) || path.next_hop == site.v6(&host));
    path.map(|path| path.get("community").to_owned()).unwrap_or_default()
}

/// Status of a condition of the node's status object.
async fn condition(site: &Site, node: usize, kind: &str) -> String {
    let object = site.get("BGPNodeStatus", &site.node(node)).await;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    condition["status"].as_str().unwrap_or_default().to_owned()
}

async fn drain_says_graceful_shutdown_withdraws_and_is_done(lot: Lot) {
    let (mut site, web) = working(lot, &[]).await;
    let socket = site.lot.folder.join("n1.sock");
    let mut drain = std::process::Command::new(env!("CARGO_BIN_EXE_ironcast"))
        .args(["drain", "--socket"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    for address in &web {
        until_so("first the community", || community(&site, address, 1) == GRACEFUL_SHUTDOWN).await;
        assert_eq!(community(&site, address, 2), "");
    }
    site.announced(1, &web, &[2]).await;
    assert!(drain.wait().expect("it ends").success());
    until("the node is drained", || async { (condition(&site, 1, "Drained").await == "True").then_some(()) }).await;
    assert_eq!(condition(&site, 2, "Drained").await, "False");
    assert_eq!(site.routers[0].established(), 4, "sessions stay");
    // It holds over a restart.
    site.stop(1, true);
    site.start(1, &[]);
    until_so("the sessions are back", || site.routers[0].established() == 4).await;
    calm().await;
    site.announced(1, &web, &[2]).await;
    site.ask(1, &["drain", "--undo"]);
    site.announced(1, &web, &[1, 2]).await;
    assert_eq!(community(&site, &web[0], 1), "");
}

async fn cordon_withdraws_what_others_announce(lot: Lot) {
    let (site, web) = working(lot, &[]).await;
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    site.service("local", &[1], local).await;
    let local = site.given("local", 2).await;
    site.announced(1, &local, &[1]).await;
    site.node_spec(1, json!({"unschedulable": true})).await;
    until_so("first the community", || community(&site, &web[0], 1) == GRACEFUL_SHUTDOWN).await;
    site.announced(1, &web, &[2]).await;
    withheld(&site, 1, "nodeCordoned").await;
    // Its pods run nowhere else: no cordon takes it away.
    calm().await;
    site.announced(1, &local, &[1]).await;
    assert_eq!(condition(&site, 1, "Drained").await, "False");
    site.endpoints("local", &[(2, json!({"ready": true}))]).await;
    site.announced(1, &local, &[2]).await;
    until("all of it is gone", || async { (condition(&site, 1, "Drained").await == "True").then_some(()) }).await;
    // The other one too: somebody must announce.
    site.node_spec(2, json!({"unschedulable": true})).await;
    site.announced(1, &web, &[1, 2]).await;
    site.node_spec(1, json!({"unschedulable": null})).await;
    site.announced(1, &web, &[1]).await;
    until_so("it is as before", || community(&site, &web[0], 1).is_empty()).await;
}

async fn cordon_is_ignored_where_the_operator_says_so(lot: Lot) {
    let (site, web) = working(lot, &["--on-cordon=ignore"]).await;
    site.node_spec(1, json!({"unschedulable": true})).await;
    crate::seconds(4).await;
    site.announced(1, &web, &[1, 2]).await;
    assert_eq!(community(&site, &web[0], 1), "");
}

async fn maintenance_taint_withdraws_what_others_announce(lot: Lot) {
    let (site, web) = working(lot, &["--maintenance-taint=repair"]).await;
    let taint = json!({"taints": [{"key": "repair", "value": "disk", "effect": "NoSchedule"}]});
    site.node_spec(1, taint).await;
    site.announced(1, &web, &[2]).await;
    withheld(&site, 1, "nodeMaintenance").await;
    site.node_spec(1, json!({"taints": null})).await;
    site.announced(1, &web, &[1, 2]).await;
}
