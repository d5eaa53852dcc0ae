use proptest::{prelude::*, sample::subsequence};
use serde_json::json;

use super::*;

fn ours(kind: &str, name: &str, spec: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": "ironcast.dev/v1alpha1", "kind": kind, "metadata": {"namespace": "s", "name": name}, "spec": spec})
}

fn object<T: serde::de::DeserializeOwned + Into<Object>>(value: serde_json::Value) -> Object {
    serde_json::from_value::<T>(value).expect("the test's object is one of its kind").into()
}

fn pool(name: &str, addresses: &[&str]) -> Object {
    object::<crate::source::api::IPAddressPool>(ours("IPAddressPool", name, json!({"addresses": addresses})))
}

fn peer(name: &str, spec: serde_json::Value) -> Object {
    object::<crate::source::api::BGPPeer>(ours("BGPPeer", name, spec))
}

fn peer_at(name: &str, address: &str) -> Object {
    peer(name, json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address}))
}

fn advertisement(name: &str, spec: serde_json::Value) -> Object {
    object::<crate::source::api::BGPAdvertisement>(ours("BGPAdvertisement", name, spec))
}

fn community(name: &str, value: &str) -> Object {
    let spec = json!({"communities": [{"name": name, "value": value}]});
    object::<crate::source::api::Community>(ours("Community", &format!("c-{name}"), spec))
}

fn node(name: &str, address: &str) -> Object {
    object::<k8s_openapi::api::core::v1::Node>(json!({
        "metadata": {"name": name, "labels": {"name": name}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }))
}

fn service(name: &str, annotations: serde_json::Value, ingress: &[&str]) -> Object {
    let ingress: Vec<_> = ingress.iter().map(|ip| json!({"ip": ip})).collect();
    object::<k8s_openapi::api::core::v1::Service>(json!({
        "metadata": {"namespace": "n", "name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
}

fn slice(name: &str, service: &str, pods: &[(&str, bool)]) -> Object {
    let endpoints: Vec<_> =
        pods.iter().map(|(ip, ready)| json!({"addresses": [ip], "conditions": {"ready": ready}})).collect();
    object::<k8s_openapi::api::discovery::v1::EndpointSlice>(json!({
        "metadata": {"namespace": "n", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
    }))
}

fn secret(name: &str, password: &str) -> Object {
    object::<k8s_openapi::api::core::v1::Secret>(json!({
        "metadata": {"namespace": "s", "name": name}, "type": "kubernetes.io/basic-auth", "stringData": {"password": password},
    }))
}

fn filled(objects: &[Object]) -> Index {
    let mut index = Index::new([]);
    objects.iter().for_each(|object| {
        index.apply(object);
    });
    index
}

fn snapshot(index: &mut Index) -> Snapshot {
    index.snapshot().expect("nothing is awaited")
}

#[track_caller]
fn tells(snapshot: &Snapshot, message: &str) {
    let told: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|text| text.starts_with(message)), "{message:?} is not in {told:#?}");
}

#[test]
fn nothing_is_known_before_every_kind_is_complete() {
    let mut index = Index::new([Kind::Service, Kind::IPAddressPool]);
    index.reset(Kind::IPAddressPool, [pool("a", &["192.0.2.0/24"])]);
    assert_eq!(index.awaited().collect::<Vec<_>>(), [Kind::Service]);
    assert!(index.snapshot().is_none());
    index.reset(Kind::Service, []);
    assert_eq!(snapshot(&mut index).pools.len(), 1);
}

#[test]
fn a_new_list_deletes_what_it_does_not_hold_when_it_ends() {
    let mut index = filled(&[pool("a", &["192.0.2.0/25"]), pool("b", &["192.0.2.128/25"])]);
    index.list_begins(Kind::IPAddressPool);
    index.apply(&pool("b", &["192.0.2.128/25"]));
    assert_eq!(snapshot(&mut index).pools.len(), 2, "not before the end");
    assert!(index.list_ends(Kind::IPAddressPool));
    assert_eq!(snapshot(&mut index).pools.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn an_object_that_could_not_be_decoded_survives_the_list_it_is_in() {
    let mut index = filled(&[peer_at("a", "192.0.2.1")]);
    index.list_begins(Kind::BGPPeer);
    let key = ObjectKey::new("s", "a");
    let problem = Problem {
        object: key.reference(Kind::BGPPeer),
        field: "spec.myASN".into(),
        message: "invalid type".into(),
        hint: String::new(),
        severity: crate::types::Severity::Error,
        file: None,
    };
    index.reject(Kind::BGPPeer, key, problem);
    index.list_ends(Kind::BGPPeer);
    let snapshot = snapshot(&mut index);
    assert!(snapshot.peers.contains_key("a"));
    tells(&snapshot, "BGPPeer s/a: spec.myASN: invalid type (the last valid version stays in use)");
}

#[test]
fn what_says_nothing_new_changes_nothing() {
    let mut index = filled(&[node("a", "192.0.2.1"), pool("a", &["192.0.2.0/24"])]);
    snapshot(&mut index);
    assert!(!index.apply(&node("a", "192.0.2.1")), "a heart-beat");
    assert!(!index.apply(&pool("a", &["192.0.2.0/24"])));
    assert!(index.apply(&node("a", "192.0.2.2")));
}

#[test]
fn an_invalid_edit_leaves_the_last_valid_version_in_use() {
    let mut index = filled(&[pool("a", &["192.0.2.0/24"]), peer_at("p", "192.0.2.1")]);
    let before = snapshot(&mut index);
    index.apply(&pool("a", &["192.0.2.0/33"]));
    index.apply(&peer("p", json!({"myASN": 0, "peerASN": 64513, "peerAddress": "192.0.2.1"})));
    let after = snapshot(&mut index);
    assert_eq!((&before.pools, &before.peers), (&after.pools, &after.peers));
    tells(&after, "BGPPeer s/p: spec.myASN: AS number 0 is reserved");
    index.apply(&pool("a", &["192.0.2.0/24"]));
    index.apply(&peer_at("p", "192.0.2.1"));
    assert_eq!(snapshot(&mut index), before, "mended");
    let mut fresh = filled(&[pool("a", &["192.0.2.0/33"])]);
    assert!(snapshot(&mut fresh).pools.is_empty(), "there is no older version");
}

#[test]
fn of_two_overlapping_pools_the_one_in_use_stays() {
    let mut index = filled(&[pool("b", &["192.0.2.0/24"]), pool("c", &["198.51.100.0/24"])]);
    snapshot(&mut index);
    index.apply(&pool("a", &["192.0.2.128/25", "203.0.113.0/24"]));
    index.apply(&pool("c", &["192.0.2.0/28"]));
    let after = snapshot(&mut index);
    assert_eq!(after.pools.keys().collect::<Vec<_>>(), ["b", "c"], "a is new");
    assert_eq!(after.pools["c"].ranges[0].to_string(), "198.51.100.0-198.51.100.255", "as it was");
    tells(
        &after,
        "IPAddressPool s/a: spec.addresses[0]: 192.0.2.128-192.0.2.255 overlaps 192.0.2.0-192.0.2.255 of IPAddressPool s/b",
    );
    tells(&after, "IPAddressPool s/c: spec.addresses[0]: 192.0.2.0-192.0.2.15 overlaps");
    index.delete(Kind::IPAddressPool, &ObjectKey::new("s", "b"));
    let after = snapshot(&mut index);
    assert_eq!(after.pools.keys().collect::<Vec<_>>(), ["a", "c"], "the way is free");
}

#[test]
fn of_two_overlapping_pools_the_smaller_name_counts_at_the_start() {
    let mut index = filled(&[pool("b", &["192.0.2.0/24"]), pool("a", &["192.0.2.0/25"])]);
    assert_eq!(snapshot(&mut index).pools.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_pool_never_gives_out_a_nodes_own_address() {
    let mut index = filled(&[pool("a", &["192.0.2.0/30"]), node("n1", "192.0.2.1")]);
    let free = snapshot(&mut index);
    let ranges: Vec<_> = free.pools["a"].ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["192.0.2.0-192.0.2.0", "192.0.2.2-192.0.2.3"]);
    tells(
        &free,
        "IPAddressPool s/a: spec.addresses[0]: 192.0.2.0-192.0.2.3 holds a node's own address: 192.0.2.1 of node n1",
    );
    index.apply(&service("web", json!({}), &["192.0.2.1"]));
    assert_eq!(snapshot(&mut index).pools["a"].ranges.len(), 1, "a Service that has it is not thrown out");
    index.apply(&node("n1", "198.51.100.1"));
    assert!(snapshot(&mut index).problems.is_empty());
}

#[test]
fn of_two_peers_at_one_address_one_is_used_unless_they_are_of_different_nodes() {
    let on = |name: &str, node: &str, asn: u32| {
        let spec = json!({"myASN": asn, "peerASN": 64513, "peerAddress": "192.0.2.1", "nodeSelectors": [{"matchLabels": {"name": node}}]});
        peer(name, spec)
    };
    let nodes = [node("n1", "198.51.100.1"), node("n2", "198.51.100.2")];
    let mut index = filled(&nodes);
    index.apply(&on("a", "n1", 64512));
    index.apply(&on("b", "n2", 64514));
    let both = snapshot(&mut index);
    assert_eq!((both.peers.len(), both.problems.len()), (2, 0));
    index.apply(&peer_at("c", "192.0.2.1"));
    let after = snapshot(&mut index);
    assert_eq!(after.peers.len(), 2);
    tells(&after, "BGPPeer s/c: spec.peerAddress: 192.0.2.1 is the peer of BGPPeer s/a too on node n1");
}

#[test]
fn an_unknown_profile_leaves_the_session_without_bfd() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "bfdProfile": "fast"});
    let mut index = filled(&[peer("p", spec)]);
    let without = snapshot(&mut index);
    assert_eq!(without.peers["p"].bfd, None);
    tells(&without, "BGPPeer s/p: spec.bfdProfile: \"fast\" is no valid BFDProfile");
    index.apply(&object::<crate::source::api::BFDProfile>(ours("BFDProfile", "fast", json!({}))));
    let with = snapshot(&mut index);
    assert_eq!(with.peers["p"].bfd.as_ref().map(|bfd| bfd.name.as_str()), Some("fast"));
    assert!(with.problems.is_empty());
}

#[test]
fn a_profile_that_is_deleted_while_in_use_leaves_bfd_as_it_was_and_is_missed_by_name() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "bfdProfile": "fast"});
    let profile =
        || object::<crate::source::api::BFDProfile>(ours("BFDProfile", "fast", json!({"transmitInterval": 10})));
    let mut index = filled(&[peer("p", spec.clone()), profile()]);
    let before = snapshot(&mut index);
    index.delete(Kind::BFDProfile, &profile().key());
    let after = snapshot(&mut index);
    assert_eq!(after.peers["p"].bfd, before.peers["p"].bfd);
    tells(&after, "BGPPeer s/p: spec.bfdProfile: BFDProfile \"fast\" is gone or invalid; BFD goes on");
    index.apply(&peer("p", json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"})));
    assert_eq!(snapshot(&mut index).peers["p"].bfd, None, "the operator took it out");
    index.apply(&peer("p", spec));
    assert_eq!(snapshot(&mut index).peers["p"].bfd, None, "nothing remembers what is not in use");
    index.apply(&profile());
    assert_eq!(snapshot(&mut index).peers["p"].bfd, before.peers["p"].bfd);
}

#[test]
fn a_community_by_name_is_resolved_and_its_loss_changes_nothing_announced() {
    let mut index = filled(&[advertisement("a", json!({"communities": ["gold"]}))]);
    let refused = snapshot(&mut index);
    assert!(refused.advertisements.is_empty(), "rather not announced than without its community");
    tells(&refused, "BGPAdvertisement s/a: spec.communities[0]: \"gold\" is neither a community nor a name");
    index.apply(&community("gold", "65000:1"));
    let resolved = snapshot(&mut index);
    assert_eq!(resolved.advertisements["a"].communities.len(), 1);
    index.delete(Kind::Community, &ObjectKey::new("s", "c-gold"));
    let after = snapshot(&mut index);
    assert_eq!(after.advertisements, resolved.advertisements);
    tells(&after, "BGPAdvertisement s/a: spec.communities[0]: \"gold\"");
}

#[test]
fn unknown_pools_and_peers_of_an_advertisement_are_warnings() {
    let mut index = filled(&[advertisement("a", json!({"ipAddressPools": ["gold"], "peers": ["tor"]}))]);
    let snapshot = snapshot(&mut index);
    assert_eq!(snapshot.advertisements.len(), 1);
    tells(&snapshot, "BGPAdvertisement s/a: spec.ipAddressPools: \"gold\" is no valid IPAddressPool");
    tells(&snapshot, "BGPAdvertisement s/a: spec.peers: \"tor\" is no valid BGPPeer");
}

#[test]
fn an_aggregate_beyond_its_pool_is_told() {
    let length = |n: u8| advertisement("a", json!({"aggregationLength": n}));
    let mut index = filled(&[pool("a", &["192.0.2.0/26", "192.0.2.64-192.0.2.127"]), length(25)]);
    assert!(snapshot(&mut index).problems.is_empty(), "two entries side by side");
    index.apply(&length(24));
    tells(
        &snapshot(&mut index),
        "BGPAdvertisement s/a: spec.aggregationLength: 24 announces 192.0.2.0/24, which is more than 192.0.2.0-192.0.2.127 of IPAddressPool a",
    );
}

#[test]
fn a_session_waits_for_its_secret_and_keeps_the_key_when_it_goes() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "passwordSecret": {"name": "key"}});
    let mut index = filled(&[peer("p", spec)]);
    let waiting = snapshot(&mut index);
    assert_eq!(waiting.peers["p"].missing_secret.as_deref(), Some("key"));
    tells(&waiting, "BGPPeer s/p: spec.passwordSecret: there is no valid Secret s/key");
    index.apply(&secret("key", "hush"));
    let with = snapshot(&mut index);
    assert!(with.peers["p"].password.is_some() && with.peers["p"].missing_secret.is_none());
    index.delete(Kind::Secret, &ObjectKey::new("s", "key"));
    let after = snapshot(&mut index);
    assert_eq!(after.peers, with.peers);
    tells(&after, "BGPPeer s/p: spec.passwordSecret: Secret s/key is gone or invalid; its last key stays in use");
}

#[test]
fn a_session_waits_for_every_key_of_tcp_ao() {
    let key = |id: u8, name: &str| json!({"sendID": id, "receiveID": id, "secret": {"name": name}});
    let spec =
        json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "tcpAO": [key(1, "old"), key(2, "new")]});
    let mut index = filled(&[peer("p", spec), secret("old", "hush")]);
    let waiting = snapshot(&mut index);
    assert_eq!(waiting.peers["p"].missing_secret.as_deref(), Some("new"));
    tells(&waiting, "BGPPeer s/p: spec.tcpAO[1].secret: there is no valid Secret s/new");
    index.apply(&secret("new", "hush too"));
    let with = snapshot(&mut index);
    assert_eq!((with.peers["p"].ao_keys.len(), with.peers["p"].missing_secret.as_deref()), (2, None));
    index.delete(Kind::Secret, &ObjectKey::new("s", "old"));
    let after = snapshot(&mut index);
    assert_eq!(after.peers, with.peers);
    tells(&after, "BGPPeer s/p: spec.tcpAO[0].secret: Secret s/old is gone or invalid; its last key stays in use");
}

#[test]
fn a_profile_is_not_used_without_its_key_and_keeps_the_last_that_fits() {
    let signed = json!({"authentication": {"type": "keyedSHA1", "keyID": 3, "secret": {"name": "bfd"}}});
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "bfdProfile": "fast"});
    let profile = object::<crate::source::api::BFDProfile>(ours("BFDProfile", "fast", signed));
    let mut index = filled(&[peer("p", spec), profile]);
    let waiting = snapshot(&mut index);
    assert_eq!(waiting.peers["p"].bfd, None);
    tells(&waiting, "BFDProfile s/fast: spec.authentication.secret: there is no valid Secret s/bfd");
    tells(&waiting, "BGPPeer s/p: spec.bfdProfile: \"fast\" is no valid BFDProfile");
    index.apply(&secret("bfd", "hush"));
    let with = snapshot(&mut index);
    let auth = with.peers["p"].bfd.as_ref().and_then(|bfd| bfd.auth.clone());
    assert_eq!(auth, ironcast_bgp::bfd::Auth::new(ironcast_bgp::bfd::AuthKind::KeyedSha1, 3, b"hush").ok());
    index.apply(&secret("bfd", "far too long for SHA-1"));
    let long = snapshot(&mut index);
    assert_eq!(long.peers, with.peers);
    tells(&long, "BFDProfile s/fast: spec.authentication.secret: Secret s/bfd: BFD key of 22 octets is not valid");
}

#[test]
fn a_secret_that_no_peer_names_is_not_our_business() {
    let other = json!({"metadata": {"namespace": "s", "name": "x"}, "type": "Opaque", "data": {}});
    let mut index = filled(&[object::<k8s_openapi::api::core::v1::Secret>(other)]);
    assert!(snapshot(&mut index).problems.is_empty());
}

#[test]
fn slices_of_a_service_are_one_list_and_a_pod_in_two_is_one_endpoint() {
    let web = service("web", json!({}), &[]);
    let mut index = filled(&[
        web,
        slice("web-1", "web", &[("10.0.0.1", true), ("10.0.0.2", false)]),
        slice("web-2", "web", &[("10.0.0.2", true), ("10.0.0.3", true)]),
        slice("db-1", "db", &[("10.0.0.9", true)]),
    ]);
    let key = ServiceKey::new("n", "web");
    let both = snapshot(&mut index);
    let endpoints = &both.endpoints[&key];
    assert_eq!((endpoints.len(), endpoints.iter().filter(|e| e.ready).count()), (3, 3));
    assert_eq!(both.endpoints.len(), 1, "db is no load balancer");
    index.apply(&slice("web-1", "db", &[]));
    assert_eq!(snapshot(&mut index).endpoints[&key].len(), 2, "the slice went to another Service");
    index.delete(Kind::EndpointSlice, &ObjectKey::new("n", "web-2"));
    assert!(!snapshot(&mut index).endpoints.contains_key(&key));
}

#[test]
fn a_refused_service_keeps_its_addresses_and_an_edited_one_its_last_version() {
    let bad = json!({"metallb.io/loadBalancerIPs": "x"});
    let mut index = filled(&[service("new", bad.clone(), &[]), service("old", bad.clone(), &["192.0.2.1"])]);
    let start = snapshot(&mut index);
    assert_eq!(start.services.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["old"]);
    index.apply(&service("new", json!({"metallb.io/loadBalancerIPs": "192.0.2.7"}), &[]));
    index.apply(&service("new", bad, &["192.0.2.7"]));
    let after = snapshot(&mut index);
    let new = &after.services[&ServiceKey::new("n", "new")];
    assert_eq!((new.requested_addresses.len(), new.assigned.len()), (1, 1), "last valid wish, newest status");
    tells(&after, "Service n/new: metadata.annotations[metallb.io/loadBalancerIPs]: \"x\" is no IP address (the last");
}

#[test]
fn in_manifest_mode_addresses_are_those_of_the_record() {
    let mut index = filled(&[
        service("web", json!({}), &["203.0.113.9"]),
        service("bad", json!({"metallb.io/loadBalancerIPs": "x"}), &[]),
    ]);
    let (web, bad) = (ServiceKey::new("n", "web"), ServiceKey::new("n", "bad"));
    let ip: IpAddr = "192.0.2.1".parse().expect("valid");
    assert!(index.assign([(web.clone(), vec![ip])].into()));
    assert!(!index.assign([(web.clone(), vec![ip])].into()), "nothing new");
    assert_eq!(snapshot(&mut index).services[&web].assigned, [ip], "not its status");
    index.assign([(bad.clone(), vec![ip])].into());
    let after = snapshot(&mut index);
    assert!(after.services[&web].assigned.is_empty());
    assert_eq!(after.services[&bad].assigned, [ip], "refused, and its address is not free");
}

#[test]
fn two_snapshots_share_what_did_not_change() {
    let mut index =
        filled(&[service("a", json!({}), &[]), service("b", json!({}), &[]), slice("a-1", "a", &[("10.0.0.1", true)])]);
    let (a, b) = (ServiceKey::new("n", "a"), ServiceKey::new("n", "b"));
    let before = snapshot(&mut index);
    index.apply(&service("b", json!({}), &["192.0.2.1"]));
    let after = snapshot(&mut index);
    assert!(Arc::ptr_eq(&before.services[&a], &after.services[&a]));
    assert!(Arc::ptr_eq(&before.endpoints[&a], &after.endpoints[&a]));
    assert_ne!(before.services[&b], after.services[&b]);
}

#[test]
fn the_same_name_in_two_namespaces_is_refused_once() {
    let mut other = ours("IPAddressPool", "a", json!({"addresses": ["198.51.100.0/24"]}));
    other["metadata"]["namespace"] = json!("t");
    let mut index = filled(&[object::<crate::source::api::IPAddressPool>(other), pool("a", &["192.0.2.0/24"])]);
    let snapshot = snapshot(&mut index);
    assert_eq!(snapshot.pools["a"].ranges[0].to_string(), "192.0.2.0-192.0.2.255");
    tells(&snapshot, "IPAddressPool t/a: metadata.name: IPAddressPool s/a has the same name");
}

/// Objects that clash with each other in every way.
fn quarrel() -> Vec<Object> {
    vec![
        pool("a", &["192.0.2.0/25"]),
        pool("b", &["192.0.2.0/24"]),
        pool("c", &["192.0.2.128/25", "2001:db8::/64"]),
        pool("d", &["bad"]),
        peer_at("a", "192.0.2.1"),
        peer_at("b", "192.0.2.1"),
        peer(
            "c",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.9", "bfdProfile": "x", "passwordSecret": {"name": "key"}}),
        ),
        advertisement("a", json!({"communities": ["gold"], "aggregationLength": 8, "peers": ["a", "b"]})),
        advertisement("b", json!({"communities": ["silver"]})),
        community("gold", "65000:1"),
        secret("key", "hush"),
        node("n1", "192.0.2.3"),
        service("a", json!({"metallb.io/loadBalancerIPs": "x"}), &["192.0.2.3"]),
        service("b", json!({}), &[]),
        slice("b-1", "b", &[("10.0.0.1", true)]),
        slice("b-2", "b", &[("10.0.0.1", false), ("10.0.0.2", true)]),
    ]
}

fn some_order() -> impl Strategy<Value = Vec<Object>> {
    let all = quarrel();
    let n = all.len();
    subsequence(all, 0..=n).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_arrival_means_nothing_at_the_start(objects in Just(quarrel()).prop_shuffle()) {
        let all = quarrel();
        prop_assert_eq!(snapshot(&mut filled(&objects)), snapshot(&mut filled(&all)));
    }

    #[test]
    fn what_came_and_went_before_the_first_snapshot_leaves_no_trace(extra in some_order(), objects in some_order()) {
        let mut index = filled(&extra);
        extra.iter().for_each(|object| { index.delete(object.kind(), &object.key()); });
        objects.iter().for_each(|object| { index.apply(object); });
        prop_assert_eq!(snapshot(&mut index), snapshot(&mut filled(&objects)));
    }

    #[test]
    fn nothing_in_use_is_lost_when_objects_are_added(first in some_order(), then in some_order()) {
        let mut index = filled(&first);
        let before = snapshot(&mut index);
        then.iter().for_each(|object| { index.apply(object); });
        let after = snapshot(&mut index);
        prop_assert!(before.pools.keys().all(|name| after.pools.contains_key(name)));
        prop_assert!(before.peers.iter().all(|(name, peer)| after.peers.get(name).map(|p| p.address) == Some(peer.address)));
        prop_assert!(before.advertisements.keys().all(|name| after.advertisements.contains_key(name)));
        prop_assert!(before.services.keys().all(|key| after.services.contains_key(key)));
    }
}

#[test]
fn bound_claim_is_a_range_of_its_pool_kept_for_its_service() {
    let spec = json!({"provider": {"name": "metal", "type": "public_ipv4"}});
    let elastic = object::<crate::source::api::IPAddressPool>(ours("IPAddressPool", "elastic", spec));
    let provider =
        ours("ProviderConfig", "metal", json!({"type": "packet", "project": "p", "credentialsSecret": {"name": "t"}}));
    let provider = object::<crate::source::api::ProviderConfig>(provider);
    let claim = |phase: &str| {
        let spec =
            json!({"provider": "metal", "pool": "elastic", "service": "n/web", "family": "IPv4", "prefixLength": 32});
        let mut value = ours("AddressClaim", "ic-0123456789abcdef", spec);
        value["status"] = json!({"phase": phase, "leaseID": "l1", "network": "203.0.113.9/32"});
        object::<crate::source::api::AddressClaim>(value)
    };
    let mut index = filled(&[elastic, provider]);
    let before = snapshot(&mut index);
    assert!(before.pools["elastic"].ranges.is_empty());
    tells(&before, "ProviderConfig s/metal: spec.credentialsSecret: there is no Secret s/t with a token");
    let token = json!({"metadata": {"namespace": "s", "name": "t"}, "stringData": {"token": "abc\n"}});
    index.apply(&object::<k8s_openapi::api::core::v1::Secret>(token));
    assert!(index.apply(&claim("Bound")));
    let bound = snapshot(&mut index);
    assert_eq!(bound.providers["metal"].credentials, Some(crate::types::Secret::new("abc")));
    let pool = &bound.pools["elastic"];
    assert_eq!(pool.ranges[0].to_string(), "203.0.113.9-203.0.113.9");
    assert_eq!(pool.reserved.values().next(), Some(&ServiceKey::new("n", "web")));
    index.apply(&claim("Pending"));
    assert!(snapshot(&mut index).pools["elastic"].ranges.is_empty(), "what is not bound is nobody's");
}
