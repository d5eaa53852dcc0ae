//! Services and their addresses.

use serde_json::json;

use crate::{
    calm,
    site::{Lot, Site, until, until_so},
};

cases![
    service_with_policy_cluster_ipv4,
    service_with_policy_cluster_ipv6,
    service_with_policy_cluster_dual,
    service_with_policy_local_ipv4,
    service_with_policy_local_ipv6,
    service_with_policy_local_dual,
    two_protocols_on_one_address,
    shared_address,
    range_and_prefix_pools,
    another_controller_writes_the_service,
];

/// Families of a Service; the first of a dual-stack one is IPv6, so that the order shows.
fn families(families: &[&str]) -> serde_json::Value {
    let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    json!({"spec": {"ipFamilies": families, "ipFamilyPolicy": policy}})
}

async fn policy_cluster(lot: Lot, of: &[&str]) {
    let site = Site::new(lot, 1, 2).await;
    site.service("web", &[1], families(of)).await;
    let web = site.given("web", of.len()).await;
    let order: Vec<&str> = web.iter().map(|a| if a.contains(':') { "IPv6" } else { "IPv4" }).collect();
    assert_eq!(order, of, "as ipFamilies");
    site.announced(1, &web, &[1, 2]).await;
    site.endpoints("web", &[]).await;
    site.announced(1, &web, &[]).await;
    assert!(site.ask(1, &["explain", "service", &format!("{}/web", site.lot.name)]).contains("noEndpoints"));
    site.endpoints("web", &[(2, json!({"ready": true}))]).await;
    site.announced(1, &web, &[1, 2]).await;
    site.delete("Service", "web").await;
    site.announced(1, &web, &[]).await;
}

async fn service_with_policy_cluster_ipv4(lot: Lot) {
    policy_cluster(lot, &["IPv4"]).await;
}

async fn service_with_policy_cluster_ipv6(lot: Lot) {
    policy_cluster(lot, &["IPv6"]).await;
}

async fn service_with_policy_cluster_dual(lot: Lot) {
    policy_cluster(lot, &["IPv6", "IPv4"]).await;
}

async fn policy_local(lot: Lot, of: &[&str]) {
    let site = Site::new(lot, 1, 2).await;
    let mut service = families(of);
    service["spec"]["externalTrafficPolicy"] = json!("Local");
    site.service("web", &[1], service).await;
    let web = site.given("web", of.len()).await;
    site.announced(1, &web, &[1]).await;
    site.endpoints("web", &[(1, json!({"ready": true})), (2, json!({"ready": true}))]).await;
    site.announced(1, &web, &[1, 2]).await;
    // Terminating, and still serving what it has.
    let dying = json!({"ready": false, "serving": true, "terminating": true});
    site.endpoints("web", &[(1, dying), (2, json!({"ready": false, "serving": false}))]).await;
    site.announced(1, &web, &[1]).await;
    site.endpoints("web", &[(1, json!({"ready": false, "serving": false, "terminating": true}))]).await;
    site.announced(1, &web, &[]).await;
}

async fn service_with_policy_local_ipv4(lot: Lot) {
    policy_local(lot, &["IPv4"]).await;
}

async fn service_with_policy_local_ipv6(lot: Lot) {
    policy_local(lot, &["IPv6"]).await;
}

async fn service_with_policy_local_dual(lot: Lot) {
    policy_local(lot, &["IPv4", "IPv6"]).await;
}

async fn two_protocols_on_one_address(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "quic", "port": 80, "protocol": "UDP"},
    ]);
    site.service("web", &[1], json!({"spec": {"ports": ports}})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
}

async fn shared_address(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let shared = |port: u16, protocol: &str| {
        json!({
            "metadata": {"annotations": {"ironcast.dev/allow-shared-ip": "together"}},
            "spec": {"ports": [{"name": "p", "port": port, "protocol": protocol}]},
        })
    };
    site.service("tcp", &[1], shared(53, "TCP")).await;
    let first = site.given("tcp", 2).await;
    site.service("udp", &[1], shared(53, "UDP")).await;
    assert_eq!(site.given("udp", 2).await, first);
    site.service("same-port", &[1], shared(53, "TCP")).await;
    assert_ne!(site.given("same-port", 2).await, first);
    site.announced(1, &first, &[1]).await;
    // The route stays until the last of them goes.
    site.delete("Service", "tcp").await;
    calm().await;
    site.announced(1, &first, &[1]).await;
    site.delete("Service", "udp").await;
    site.announced(1, &first, &[]).await;
}

async fn range_and_prefix_pools(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let n = site.lot.number;
    let ranges = [format!("10.201.{n}.7-10.201.{n}.8"), format!("fd7a:{n:x}::7-fd7a:{n:x}::8")];
    site.ours("IPAddressPool", "range", json!({"addresses": ranges, "autoAssign": false})).await;
    let asks = json!({"metadata": {"annotations": {"ironcast.dev/address-pool": "range"}}});
    site.service("of-prefix", &[1], json!({})).await;
    site.service("of-range", &[1], asks.clone()).await;
    assert_eq!(site.given("of-range", 2).await, [format!("10.201.{n}.7"), format!("fd7a:{n:x}::7")]);
    assert_eq!(site.given("of-prefix", 2).await, [format!("10.200.{n}.0"), format!("fd79:{n:x}::")]);
    site.announced(1, &[format!("10.201.{n}.7"), format!("fd7a:{n:x}::7")], &[1]).await;
    // The range is full after the next, and who came last gets what becomes free.
    site.service("second", &[1], asks.clone()).await;
    site.given("second", 2).await;
    site.service("third", &[1], asks).await;
    until("it says why", || async {
        site.events(&site.lot.name, "third", "AllocationFailed").await.contains("range").then_some(())
    })
    .await;
    site.delete("Service", "of-range").await;
    assert_eq!(site.given("third", 2).await, [format!("10.201.{n}.7"), format!("fd7a:{n:x}::7")]);
}

async fn another_controller_writes_the_service(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    let api: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(site.client.clone(), &site.lot.name);
    let params = kube::api::PatchParams { field_manager: Some("other-balancer".into()), ..Default::default() };
    let theirs = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.18.0.1"}]}}});
    for _ in 0..2 {
        api.patch_status("web", &params, &kube::api::Patch::Merge(&theirs)).await.expect("patched");
        until("it is ours again", || async { (site.addresses("web").await == web).then_some(()) }).await;
    }
    until("it says who else writes", || async {
        let told = site.events(&site.lot.name, "web", "AnotherController").await;
        (told.contains("other-balancer") && told.contains("198.18.0.1")).then_some(())
    })
    .await;
    until_so("the routes are there", || site.paths(1, &web[0]).len() == 1).await;
}
