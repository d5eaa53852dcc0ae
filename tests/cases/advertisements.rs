//! Advertisements: what is said of a prefix, by which nodes, to which routers.

use serde_json::{Value, json};

use crate::{
    calm,
    site::{Lot, NODE_ASN, Site, until, until_so},
};

cases![
    communities_large_local_preference_by_community_object_by_pool_selector,
    overlapping_advertisements,
    advertisement_edited_communities_preference_aggregation,
    peers_restricted_by_advertisement,
    two_advertisements_to_two_peers,
    two_services_with_two_advertisements_and_node_selectors,
    one_service_two_advertisements,
    node_relabelled,
    selector_edited_withdraws_one_and_leaves_the_other,
    service_selectors_multiple_edited_relabelled,
    service_selectors_with_split_aggregation_overlapping_and_disjoint,
];

/// A site whose router is in the nodes' AS, so that local preferences are told.
async fn internal(lot: Lot, nodes: usize) -> Site {
    let mut site = Site::bare(lot, 1, nodes).await;
    let config = site.router_config(NODE_ASN, NODE_ASN);
    site.route(1, &config);
    let n = site.lot.number;
    for (name, pool) in [("gold", ["10.202", "fd7b"]), ("plain", ["10.203", "fd7c"])] {
        let addresses = [format!("{}.{n}.0/24", pool[0]), format!("{}:{n:x}::/112", pool[1])];
        let body =
            json!({"metadata": {"labels": {"tier": name}}, "spec": {"addresses": addresses, "autoAssign": false}});
        site.apply("ironcast.dev/v1alpha1", "IPAddressPool", &site.lot.name, name, body).await;
    }
    for family in [4, 6] {
        site.peer(1, family, json!({"peerASN": NODE_ASN})).await;
    }
    (1..=nodes).for_each(|node| site.start(node, &[]));
    site
}

fn of_pool(pool: &str) -> Value {
    json!({"metadata": {"annotations": {"ironcast.dev/address-pool": pool}}})
}

/// Waits until the router's only path has the attribute as written.
async fn says(site: &Site, router: usize, prefix: &str, attribute: &str, value: &str) {
    let has = || {
        let paths = site.routers[router - 1].paths(prefix);
        paths.first().map(|path| path.get(attribute).to_owned())
    };
    until_so(&format!("{prefix}: {attribute} is {value:?} and not {:?}", has()), || has().as_deref() == Some(value))
        .await;
}

async fn communities_large_local_preference_by_community_object_by_pool_selector(lot: Lot) {
    let site = internal(lot, 1).await;
    let named = json!({"communities": [{"name": "customers", "value": "65000:7"}, {"name": "site", "value": "large:64500:1:2"}]});
    site.ours("Community", "names", named).await;
    let gold = json!({
        "ipAddressPoolSelectors": [{"matchLabels": {"tier": "gold"}}], "localPref": 150,
        "communities": ["customers", "site", "65000:100", "no-export", "large:64500:3:4"],
    });
    site.ours("BGPAdvertisement", "gold", gold).await;
    site.ours("BGPAdvertisement", "plain", json!({"ipAddressPools": ["plain"]})).await;
    site.service("gold", &[1], of_pool("gold")).await;
    site.service("plain", &[1], of_pool("plain")).await;
    for address in site.given("gold", 2).await {
        site.announced(1, std::slice::from_ref(&address), &[1]).await;
        let path = site.paths(1, &address).remove(0);
        assert_eq!(path.get("community"), "(65000,7) (65000,100) (65535,65281)", "{path:?}");
        assert_eq!(path.get("large_community"), "(64500, 1, 2) (64500, 3, 4)", "{path:?}");
        assert_eq!(path.get("local_pref"), "150", "{path:?}");
    }
    for address in site.given("plain", 2).await {
        site.announced(1, std::slice::from_ref(&address), &[1]).await;
        let path = site.paths(1, &address).remove(0);
        assert_eq!((path.get("community"), path.get("local_pref")), ("", "100"), "{path:?}");
    }
    // Another value under the same name.
    let named = json!({"communities": [{"name": "customers", "value": "65000:8"}, {"name": "site", "value": "large:64500:1:2"}]});
    site.ours("Community", "names", named).await;
    let gold = site.given("gold", 2).await;
    says(&site, 1, &format!("{}/32", gold[0]), "community", "(65000,8) (65000,100) (65535,65281)").await;
}

async fn overlapping_advertisements(lot: Lot) {
    let site = internal(lot, 1).await;
    site.ours("BGPAdvertisement", "a", json!({"communities": ["65000:1"], "localPref": 150})).await;
    site.ours("BGPAdvertisement", "b", json!({"communities": ["65000:2"]})).await;
    site.service("web", &[1], of_pool("plain")).await;
    let web = site.given("web", 2).await;
    let prefix = format!("{}/32", web[0]);
    says(&site, 1, &prefix, "community", "(65000,1) (65000,2)").await;
    says(&site, 1, &prefix, "local_pref", "150").await;
    // Two preferences for one prefix contradict each other: it is withheld, and the reason is told.
    site.ours("BGPAdvertisement", "b", json!({"communities": ["65000:2"], "localPref": 200})).await;
    site.announced(1, &web, &[]).await;
    until_so("the reason", || site.state(1)["withheld"].to_string().contains("conflictingAdvertisements")).await;
    site.delete("BGPAdvertisement", "a").await;
    says(&site, 1, &prefix, "community", "(65000,2)").await;
    says(&site, 1, &prefix, "local_pref", "200").await;
}

async fn advertisement_edited_communities_preference_aggregation(lot: Lot) {
    let site = internal(lot, 1).await;
    site.ours("BGPAdvertisement", "all", json!({"communities": ["65000:1"], "localPref": 150})).await;
    site.service("web", &[1], of_pool("plain")).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    site.ours("BGPAdvertisement", "all", json!({"communities": ["65000:9", "large:1:2:3"], "localPref": 90})).await;
    for (address, length) in web.iter().zip([32, 128]) {
        let prefix = format!("{address}/{length}");
        says(&site, 1, &prefix, "community", "(65000,9)").await;
        says(&site, 1, &prefix, "large_community", "(1, 2, 3)").await;
        says(&site, 1, &prefix, "local_pref", "90").await;
    }
    let n = site.lot.number;
    site.ours("BGPAdvertisement", "all", json!({"aggregationLength": 24, "aggregationLengthV6": 124})).await;
    let aggregates = [format!("10.203.{n}.0/24"), format!("fd7c:{n:x}::/124")];
    site.announced(1, &aggregates, &[1]).await;
    site.announced(1, &web, &[]).await;
    site.ours("BGPAdvertisement", "all", json!({})).await;
    site.announced(1, &web, &[1]).await;
    site.announced(1, &aggregates, &[]).await;
}

async fn peers_restricted_by_advertisement(lot: Lot) {
    let site = Site::new(lot, 2, 1).await;
    site.ours("BGPAdvertisement", "all", json!({"peers": ["tor2-4", "tor2-6"]})).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(2, &web, &[1]).await;
    calm().await;
    site.announced(1, &web, &[]).await;
    site.ours("BGPAdvertisement", "all", json!({"peers": ["tor1-4", "tor2-6"]})).await;
    site.announced(1, &web[..1], &[1]).await;
    site.announced(1, &web[1..], &[]).await;
    site.announced(2, &web[..1], &[]).await;
    site.announced(2, &web[1..], &[1]).await;
}

async fn two_advertisements_to_two_peers(lot: Lot) {
    let site = Site::new(lot, 2, 1).await;
    let to = |router: usize| json!({"peers": [format!("tor{router}-4"), format!("tor{router}-6")], "communities": [format!("65000:{router}")]});
    site.ours("BGPAdvertisement", "all", to(1)).await;
    site.ours("BGPAdvertisement", "second", to(2)).await;
    site.service("web", &[1], json!({})).await;
    let web = site.given("web", 2).await;
    for router in [1, 2] {
        site.announced(router, &web, &[1]).await;
        for address in &web {
            assert_eq!(site.paths(router, address)[0].get("community"), format!("(65000,{router})"));
        }
    }
}

/// Advertisement of the Services with a label from the nodes with one.
fn from(rack: &str, app: &str) -> Value {
    json!({"nodeSelectors": [{"matchLabels": {"rack": rack}}], "serviceSelectors": [{"matchLabels": {"app": app}}]})
}

fn app(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name}}})
}

async fn two_services_with_two_advertisements_and_node_selectors(lot: Lot) {
    let site = Site::new(lot, 1, 2).await;
    site.label(1, json!({"rack": "a"})).await;
    site.label(2, json!({"rack": "b"})).await;
    site.ours("BGPAdvertisement", "all", from("a", "one")).await;
    site.ours("BGPAdvertisement", "second", from("b", "two")).await;
    site.service("one", &[1, 2], app("one")).await;
    site.service("two", &[1, 2], app("two")).await;
    let (one, two) = (site.given("one", 2).await, site.given("two", 2).await);
    site.announced(1, &one, &[1]).await;
    site.announced(1, &two, &[2]).await;
    calm().await;
    site.announced(1, &one, &[1]).await;
    site.announced(1, &two, &[2]).await;
}

async fn one_service_two_advertisements(lot: Lot) {
    let site = Site::new(lot, 1, 2).await;
    site.label(1, json!({"rack": "a"})).await;
    site.label(2, json!({"rack": "b"})).await;
    let n = site.lot.number;
    let mut aggregate = from("b", "one");
    aggregate["aggregationLength"] = json!(28);
    aggregate["aggregationLengthV6"] = json!(124);
    site.ours("BGPAdvertisement", "all", from("a", "one")).await;
    site.ours("BGPAdvertisement", "second", aggregate).await;
    site.service("one", &[1, 2], app("one")).await;
    let one = site.given("one", 2).await;
    site.announced(1, &one, &[1]).await;
    site.announced(1, &[format!("10.200.{n}.0/28"), format!("fd79:{n:x}::/124")], &[2]).await;
}

async fn node_relabelled(lot: Lot) {
    let site = Site::new(lot, 1, 2).await;
    site.ours("BGPAdvertisement", "all", json!({"nodeSelectors": [{"matchLabels": {"rack": "a"}}]})).await;
    site.label(1, json!({"rack": "a"})).await;
    site.service("web", &[1, 2], json!({})).await;
    let web = site.given("web", 2).await;
    site.announced(1, &web, &[1]).await;
    site.label(2, json!({"rack": "a"})).await;
    site.announced(1, &web, &[1, 2]).await;
    site.label(1, json!({"rack": "b"})).await;
    site.announced(1, &web, &[2]).await;
    site.label(2, json!({})).await;
    site.announced(1, &web, &[]).await;
}

async fn selector_edited_withdraws_one_and_leaves_the_other(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    site.service("one", &[1], app("one")).await;
    site.service("two", &[1], app("two")).await;
    let (one, two) = (site.given("one", 2).await, site.given("two", 2).await);
    site.announced(1, &one, &[1]).await;
    site.announced(1, &two, &[1]).await;
    let since = |address: &str| site.routers[0].ask(&format!("show route {address}/32"));
    let before = since(&one[0]);
    site.ours("BGPAdvertisement", "all", json!({"serviceSelectors": [{"matchLabels": {"app": "one"}}]})).await;
    site.announced(1, &two, &[]).await;
    site.announced(1, &one, &[1]).await;
    assert_eq!(since(&one[0]), before, "the other route was never touched: it has its time");
}

async fn service_selectors_multiple_edited_relabelled(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let selecting = |apps: &[&str]| {
        let selectors: Vec<Value> = apps.iter().map(|app| json!({"matchLabels": {"app": app}})).collect();
        json!({ "serviceSelectors": selectors })
    };
    site.ours("BGPAdvertisement", "all", selecting(&["one", "two"])).await;
    for name in ["one", "two", "three"] {
        site.service(name, &[1], app(name)).await;
    }
    let [one, two, three] = [site.given("one", 2).await, site.given("two", 2).await, site.given("three", 2).await];
    site.announced(1, &one, &[1]).await;
    site.announced(1, &two, &[1]).await;
    site.announced(1, &three, &[]).await;
    site.ours("BGPAdvertisement", "all", selecting(&["two", "three"])).await;
    site.announced(1, &three, &[1]).await;
    site.announced(1, &one, &[]).await;
    site.announced(1, &two, &[1]).await;
    site.service("one", &[1], app("two")).await;
    site.announced(1, &one, &[1]).await;
    site.service("two", &[1], app("none")).await;
    site.announced(1, &two, &[]).await;
    until("who is withheld says so", || async {
        site.state(1)["withheld"].to_string().contains("noMatchingAdvertisement").then_some(())
    })
    .await;
}

async fn service_selectors_with_split_aggregation_overlapping_and_disjoint(lot: Lot) {
    let site = Site::new(lot, 1, 1).await;
    let n = site.lot.number;
    let of = |app: &str, lengths: [u8; 2], community: &str| {
        json!({
            "serviceSelectors": [{"matchLabels": {"app": app}}], "communities": [community],
            "aggregationLength": lengths[0], "aggregationLengthV6": lengths[1],
        })
    };
    // Disjoint: each Service has its own length.
    site.ours("BGPAdvertisement", "all", of("one", [32, 128], "65000:1")).await;
    site.ours("BGPAdvertisement", "second", of("two", [28, 124], "65000:2")).await;
    site.service("one", &[1], app("one")).await;
    let one = site.given("one", 2).await;
    site.service("two", &[1], app("two")).await;
    site.given("two", 2).await;
    let aggregates = [format!("10.200.{n}.0/28"), format!("fd79:{n:x}::/124")];
    site.announced(1, &one, &[1]).await;
    site.announced(1, &aggregates, &[1]).await;
    says(&site, 1, &format!("{}/32", one[0]), "community", "(65000,1)").await;
    says(&site, 1, &aggregates[0], "community", "(65000,2)").await;
    // Overlapping: one of the Services is in both.
    let both = json!({
        "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "In", "values": ["one", "two"]}]}],
        "communities": ["65000:3"], "aggregationLength": 28, "aggregationLengthV6": 124,
    });
    site.ours("BGPAdvertisement", "third", both).await;
    says(&site, 1, &aggregates[0], "community", "(65000,2) (65000,3)").await;
    says(&site, 1, &aggregates[1], "community", "(65000,2) (65000,3)").await;
    says(&site, 1, &format!("{}/32", one[0]), "community", "(65000,1)").await;
    site.delete("Service", "two").await;
    says(&site, 1, &aggregates[0], "community", "(65000,3)").await;
    site.delete("BGPAdvertisement", "third").await;
    site.announced(1, &aggregates, &[]).await;
    site.announced(1, &one, &[1]).await;
}
