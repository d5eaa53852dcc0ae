//! Configuration that is wrong: it is named, what works goes on, and it recovers when it is mended.

use serde_json::{Value, json};

use crate::site::{Lot, NODE_ASN, ROUTER_ASN, Site, until, until_so};

cases![
    overlapping_pools_and_recovery,
    invalid_aggregation_and_recovery,
    two_conflicting_peers_and_recovery,
    bad_community_and_recovery,
    bfd_profile_missing_and_deleted_while_in_use,
    secret_of_the_wrong_type_and_recovery,
];

/// Waits for the condition Valid of an object and a part of its message.
async fn valid(site: &Site, kind: &str, name: &str, status: &str, words: &str) {
    until(&format!("{kind} {name} is {status}: {words}"), || async {
        let object = site.get(kind, name).await;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == "Valid")?;
        (condition["status"] == status && condition["message"].as_str()?.contains(words)).then_some(())
    })
    .await;
}

/// Waits for the condition ConfigurationValid of the node.
async fn node_valid(site: &Site, status: &str, words: &str) {
    until(&format!("the node's configuration is {status}: {words}"), || async {
        let object = site.get("BGPNodeStatus", &site.node(1)).await;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition = conditions.into_iter().find(|condition| condition["type"] == "ConfigurationValid")?;
        (condition["status"] == status && condition["message"].as_str()?.contains(words)).then_some(())
    })
    .await;
}

/// A site with a Service that must stay announced whatever else is wrong.
async fn working(lot: Lot) -> (Site, Vec<String>) {
    let site = Site::new(lot, 1, 1).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    (site, web)
}

async fn overlapping_pools_and_recovery(lot: Lot) {
    let (site, web) = working(lot).await;
    let n = site.lot.number;
    site.ours("IPAddressPool", "late", json!({"addresses": [format!("10.200.{n}.128/25")]})).await;
    valid(&site, "IPAddressPool", "late", "False", "edge").await;
    valid(&site, "IPAddressPool", "edge", "True", "").await;
    node_valid(&site, "False", "IPAddressPool").await;
    until("an Event tells it", || async {
        site.events(&site.lot.name, "late", "Invalid").await.contains("overlaps").then_some(())
    })
    .await;
    site.announced(1, &web, &[1]).await;
    site.ours("IPAddressPool", "late", json!({"addresses": [format!("10.204.{n}.0/25")]})).await;
    valid(&site, "IPAddressPool", "late", "True", "").await;
    node_valid(&site, "True", "").await;
}

async fn refused(site: &Site, kind: &str, spec: Value) -> String {
    let object =
        json!({"apiVersion": "ironcast.dev/v1alpha1", "kind": kind, "metadata": {"name": "wrong"}, "spec": spec});
    let file = site.lot.folder.join("wrong.json");
    std::fs::write(&file, object.to_string()).expect("written");
    let resource = kube::api::ApiResource::from_gvk_with_plural(
        &kube::api::GroupVersionKind::gvk("ironcast.dev", "v1alpha1", kind),
        &format!("{}s", kind.to_lowercase()),
    );
    let api: kube::Api<kube::api::DynamicObject> =
        kube::Api::namespaced_with(site.client.clone(), &site.lot.name, &resource);
    let object = serde_json::from_value(object).expect("an object");
    api.create(&Default::default(), &object).await.expect_err("it is wrong").to_string()
}

async fn invalid_aggregation_and_recovery(lot: Lot) {
    let (site, web) = working(lot).await;
    let error = refused(&site, "BGPAdvertisement", json!({"aggregationLength": 33})).await;
    assert!(error.contains("aggregationLength"), "{error}");
    // Valid by itself, but wider than the pool.
    site.ours("BGPAdvertisement", "wide", json!({"ipAddressPools": ["edge"], "aggregationLength": 20})).await;
    valid(&site, "BGPAdvertisement", "wide", "True", "spec.aggregationLength").await;
    site.announced(1, &web, &[1]).await;
    site.ours("BGPAdvertisement", "wide", json!({"ipAddressPools": ["edge"], "aggregationLength": 24})).await;
    valid(&site, "BGPAdvertisement", "wide", "True", "in use").await;
    site.announced(1, &[site.v4_pool()], &[1]).await;
}

async fn two_conflicting_peers_and_recovery(lot: Lot) {
    let (site, web) = working(lot).await;
    let twin = |address: &str| {
        json!({
            "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "peerAddress": address,
            "nodeSelectors": [{"matchLabels": {"case": site.lot.name}}],
        })
    };
    site.ours("BGPPeer", "twin", twin(&site.v4("r1"))).await;
    valid(&site, "BGPPeer", "twin", "False", "tor1-4").await;
    node_valid(&site, "False", "BGPPeer").await;
    site.announced(1, &web, &[1]).await;
    assert_eq!(site.routers[0].established(), 2);
    site.delete("BGPPeer", "tor1-4").await;
    valid(&site, "BGPPeer", "twin", "True", "").await;
    node_valid(&site, "True", "").await;
    site.announced(1, &web, &[1]).await;
}

async fn bad_community_and_recovery(lot: Lot) {
    let (site, web) = working(lot).await;
    let error = refused(&site, "BGPAdvertisement", json!({"communities": ["65536:1"]})).await;
    assert!(error.contains("must be asn:value"), "{error}");
    // A name that nobody gave: what was said before goes on.
    site.ours("BGPAdvertisement", "all", json!({"communities": ["nobody"]})).await;
    valid(&site, "BGPAdvertisement", "all", "False", "nobody").await;
    node_valid(&site, "False", "nobody").await;
    site.announced(1, &web, &[1]).await;
    site.ours("Community", "names", json!({"communities": [{"name": "nobody", "value": "65000:5"}]})).await;
    valid(&site, "BGPAdvertisement", "all", "True", "").await;
    until_so("it is said now", || site.paths(1, &web[0]).first().is_some_and(|p| p.get("community") == "(65000,5)"))
        .await;
    node_valid(&site, "True", "").await;
}

async fn bfd_profile_missing_and_deleted_while_in_use(lot: Lot) {
    let (site, web) = working(lot).await;
    let config = site.router_config(ROUTER_ASN, NODE_ASN).replace("hold time 9;", "hold time 9; bfd on;");
    site.routers[0].configure(&format!("{config}protocol bfd {{ interface \"*\" {{ interval 100 ms; }}; }}\n"));
    site.peer(1, 4, json!({"bfdProfile": "absent"})).await;
    valid(&site, "BGPPeer", "tor1-4", "True", "absent").await;
    site.announced(1, &web, &[1]).await;
    site.ours("BFDProfile", "absent", json!({"receiveInterval": 100, "transmitInterval": 100})).await;
    valid(&site, "BGPPeer", "tor1-4", "True", "in use").await;
    let bfd = || {
        let sessions = site.state(1)["sessions"].as_array().cloned().unwrap_or_default();
        sessions.into_iter().find(|s| s["peer"] == "tor1-4").map(|s| s["bfd"].clone()).unwrap_or_default()
    };
    until_so("BFD is up", || bfd()["state"] == "up").await;
    site.delete("BFDProfile", "absent").await;
    valid(&site, "BGPPeer", "tor1-4", "True", "is gone").await;
    assert_eq!((&bfd()["state"], &bfd()["failures"]), (&json!("up"), &json!(0)));
    site.announced(1, &web, &[1]).await;
}

async fn secret_of_the_wrong_type_and_recovery(lot: Lot) {
    let (site, web) = working(lot).await;
    let secret = async |kind: &str| {
        let body = json!({"type": kind, "stringData": {"username": "bgp", "password": "right"}});
        site.apply("v1", "Secret", &site.lot.name, "key", body).await;
    };
    secret("Opaque").await;
    site.peer(1, 4, json!({"passwordSecret": {"name": "key"}})).await;
    until("the type is named", || async {
        let object = site.get("BGPPeer", "tor1-4").await;
        object["status"]["conditions"].to_string().contains("basic-auth").then_some(())
    })
    .await;
    site.announced(1, &web[1..], &[1]).await;
    site.delete("Secret", "key").await;
    let (own, node) = (site.v4("r1"), site.v4("n1"));
    let locked = format!(
        "protocol bgp locked {{ local {own} as {ROUTER_ASN}; passive on; direct; neighbor {node} as {NODE_ASN};\n\
         error wait time 1, 2; password \"right\"; ipv4 {{ import all; export none; }}; }}\n"
    );
    let others: String = site.router_config(ROUTER_ASN, NODE_ASN).lines().filter(|l| !l.contains("four")).collect();
    site.routers[0].configure(&format!("{others}\n{locked}"));
    secret("kubernetes.io/basic-auth").await;
    site.announced(1, &web, &[1]).await;
    valid(&site, "BGPPeer", "tor1-4", "True", "in use").await;
}
