use std::time::Duration;

use ironcast_bgp::speaker::PeerAs;
use serde::de::DeserializeOwned;

use super::*;
use crate::types::{Family, FamilyPolicy, Severity, TrafficPolicy};

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_norway::from_str(yaml).expect("the test's YAML is an object of its kind")
}

/// A resource of ours from its spec.
fn resource<T: DeserializeOwned>(kind: &str, spec: &str) -> T {
    read(&format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: {kind}\nmetadata: {{namespace: s, name: x}}\nspec: {spec}\n"
    ))
}

fn told<T>(converted: &Converted<T>) -> Vec<String> {
    converted.problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused<T>(converted: &Converted<T>, message: &str) {
    assert!(converted.value.is_none(), "must be refused");
    assert!(
        told(converted).iter().any(|text| text.starts_with(message)),
        "{message:?} is not in {:#?}",
        told(converted)
    );
}

#[test]
fn a_bad_pool_names_the_entry_and_its_text() {
    let cases = [
        ("[]", "IPAddressPool s/x: spec.addresses: is empty"),
        ("[192.0.2.0/24, nonsense]", "IPAddressPool s/x: spec.addresses[1]: \"nonsense\" is neither a CIDR"),
        ("[192.0.2.9-192.0.2.1]", "IPAddressPool s/x: spec.addresses[0]: 192.0.2.9-192.0.2.1 ends before it starts"),
        ("[192.0.2.1-2001:db8::1]", "IPAddressPool s/x: spec.addresses[0]: 192.0.2.1-2001:db8::1 mixes IPv4 and IPv6"),
        ("[192.0.2.0/24, 192.0.2.7/32]", "IPAddressPool s/x: spec.addresses[1]: 192.0.2.7/32 overlaps 192.0.2.0/24"),
        ("[224.0.0.0/24]", "IPAddressPool s/x: spec.addresses[0]: 224.0.0.0/24 holds addresses of 224.0.0.0/3"),
        ("[0.0.0.0/0]", "IPAddressPool s/x: spec.addresses[0]: 0.0.0.0/0 holds addresses of 0.0.0.0/8"),
        ("[\"fe80::/64\"]", "IPAddressPool s/x: spec.addresses[0]: fe80::/64 holds addresses of fe80::/10"),
        ("[\"::1/128\"]", "IPAddressPool s/x: spec.addresses[0]: ::1/128 holds addresses of ::/128 and ::1/128"),
    ];
    for (addresses, message) in cases {
        refused(&pool(&resource("IPAddressPool", &format!("{{addresses: {addresses}}}"))), message);
    }
}

#[test]
fn a_pool_has_metallbs_defaults() {
    let pool = pool(&resource("IPAddressPool", "{addresses: [192.0.2.0/24, 2001:db8::1-2001:db8::9]}"));
    let value = pool.value.expect("valid");
    assert!(value.auto_assign && !value.avoid_buggy_ips && !value.disabled && value.allocation.is_none());
    assert_eq!(value.ranges.len(), 2);
    assert!(pool.problems.is_empty());
}

const BAD_PEERS: &[(&str, &str)] = &[
    ("myASN: 0, peerASN: 1, peerAddress: 192.0.2.1", "BGPPeer s/x: spec.myASN: AS number 0 is reserved"),
    ("myASN: 1, peerASN: 0, peerAddress: 192.0.2.1", "BGPPeer s/x: spec.peerASN: AS number 0 is reserved"),
    ("myASN: 1, peerAddress: 192.0.2.1", "BGPPeer s/x: spec.peerASN: is missing"),
    (
        "myASN: 1, peerASN: 2, dynamicASN: external, peerAddress: 192.0.2.1",
        "BGPPeer s/x: spec.dynamicASN: is set beside peerASN 2",
    ),
    ("myASN: 1, peerASN: 2", "BGPPeer s/x: spec.peerAddress: is missing"),
    ("myASN: 1, peerASN: 2, peerAddress: router", "BGPPeer s/x: spec.peerAddress: \"router\" is no IP address"),
    ("myASN: 1, peerASN: 2, peerAddress: 0.0.0.0", "BGPPeer s/x: spec.peerAddress: 0.0.0.0 is no host's address"),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, interface: eth0",
        "BGPPeer s/x: spec.interface: \"eth0\" is set beside",
    ),
    ("myASN: 1, peerASN: 2, peerAddress: 'fe80::1'", "BGPPeer s/x: spec.interface: is missing for link-local"),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, sourceAddress: '2001:db8::1'",
        "BGPPeer s/x: spec.sourceAddress: 2001:db8::1 is not of the family",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: 2s",
        "BGPPeer s/x: spec.holdTime: hold time 2 s is not valid",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: 3500ms",
        "BGPPeer s/x: spec.holdTime: 3.5s is not a whole number",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: '90'",
        "BGPPeer s/x: spec.holdTime: \"90\" is no duration",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: 9s, keepaliveTime: 10s",
        "BGPPeer s/x: spec.keepaliveTime: 10s does not fit the hold time of 9 s",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, connectTime: 0s",
        "BGPPeer s/x: spec.connectTime: 0ns is out of range",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, password: a, passwordSecret: {name: b}",
        "BGPPeer s/x: spec.password: is set beside passwordSecret",
    ),
    (
        "myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, ebgpMultiHop: true",
        "BGPPeer s/x: spec.ebgpMultiHop: is set for an iBGP peer",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, ebgpMultiHopTTL: 5",
        "BGPPeer s/x: spec.ebgpMultiHopTTL: 5 is set without ebgpMultiHop",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, ebgpMultiHop: true, ttlSecurity: 1",
        "BGPPeer s/x: spec.ttlSecurity: is set beside ebgpMultiHop",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, routerID: 0.0.0.0",
        "BGPPeer s/x: spec.routerID: router id 0.0.0.0 is not valid",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, prefixBudget: 0",
        "BGPPeer s/x: spec.prefixBudget: 0 would announce nothing",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, nodeSelectors: [{matchExpressions: [{key: a, operator: Is}]}]",
        "BGPPeer s/x: spec.nodeSelectors[0].matchExpressions[0].operator: \"Is\" is no operator",
    ),
    (
        "myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, nodeSelectors: [{matchExpressions: [{key: a, operator: In}]}]",
        "BGPPeer s/x: spec.nodeSelectors[0].matchExpressions[0].values: is empty for In",
    ),
];

#[test]
fn a_bad_peer_names_field_and_value() {
    for (spec, message) in BAD_PEERS {
        refused(&peer(&resource("BGPPeer", &format!("{{{spec}}}"))), message);
    }
}

#[test]
fn a_peer_keeps_what_it_says() {
    let draft = peer(&resource(
        "BGPPeer",
        "{myASN: 64512, dynamicASN: external, peerAddress: 'fe80::1', interface: eth0, holdTime: 1m30s, keepaliveTime: 10s,
          ebgpMultiHop: true, passwordSecret: {name: key}, nodeSelectors: [{matchLabels: {rack: a}}]}",
    ))
    .value
    .expect("valid");
    assert_eq!(draft.secret, Some(crate::source::index::ObjectKey::new("s", "key")), "of the peer's namespace");
    let peer = draft.peer;
    assert_eq!((peer.peer_as, peer.port, peer.multihop), (PeerAs::External, 179, Some(255)));
    assert_eq!((peer.hold_time.seconds(), peer.keepalive), (90, Some(Duration::from_secs(10))));
    assert!(peer.node_selectors[0].matches(&[("rack".into(), "a".into())].into()));
}

#[test]
fn words_of_a_peer_that_name_rfcs_become_those_of_the_speaker() {
    use ironcast_bgp::speaker::{AddPath, MaximumPrefixes, Role};
    let spec = "{myASN: 64512, localASN: 65000, localASNMode: prepend, peerASN: 64513, peerAddress: 192.0.2.1, role: \
                rs-client, roleStrict: true, addPath: both, enableGracefulRestart: true, longLivedStaleTime: 24h, \
                maximumPrefixes: 9, maximumPrefixesWarningOnly: true}";
    let peer = peer(&resource("BGPPeer", spec)).value.expect("valid").peer;
    assert_eq!((peer.role, peer.role_strict), (Some(Role::RouteServerClient), true));
    assert_eq!(peer.add_path, AddPath { send: true, receive: true });
    assert_eq!((peer.shows_my_asn, peer.long_lived), (true, Some(Duration::from_secs(86_400))));
    assert_eq!(peer.maximum_prefixes, Some(MaximumPrefixes { limit: 9, warning_only: true }));
}

#[test]
fn keys_of_tcp_ao_keep_their_order_and_the_first_algorithm_is_the_default() {
    use ironcast_bgp::speaker::{AoAlgorithm, AoKey, Md5Key};
    let keys = "[{sendID: 7, receiveID: 8, secret: {name: a}}, \
                {sendID: 0, receiveID: 255, algorithm: aes128CMAC, secret: {name: b, namespace: t}}]";
    let spec = format!("{{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, tcpAO: {keys}}}");
    let draft = peer(&resource("BGPPeer", &spec)).value.expect("valid");
    let secrets: Vec<_> = draft.ao.iter().map(|key| (&*key.secret.namespace, &*key.secret.name)).collect();
    assert_eq!(secrets, [("s", "a"), ("t", "b")]);
    let octets: std::sync::Arc<[u8]> = b"hush".as_slice().into();
    let given: Vec<AoKey> = draft.ao.iter().map(|key| key.with(&Md5Key(octets.clone()))).collect();
    let key = |send_id, receive_id, algorithm| AoKey { send_id, receive_id, algorithm, key: octets.clone() };
    assert_eq!(given, [key(7, 8, AoAlgorithm::HmacSha1), key(0, 255, AoAlgorithm::AesCmac)]);
}

#[test]
fn fields_that_do_not_go_together_are_named() {
    let numbered =
        |more: &str| peer(&resource("BGPPeer", &format!("{{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, {more}}}")));
    let cases = [
        ("roleStrict: true", "BGPPeer s/x: spec.roleStrict: is set without role"),
        (
            "maximumPrefixesWarningOnly: true",
            "BGPPeer s/x: spec.maximumPrefixesWarningOnly: is set without maximumPrefixes",
        ),
        ("maximumPrefixes: 0", "BGPPeer s/x: spec.maximumPrefixes: 0 would end every session"),
        (
            "password: a, tcpAO: [{sendID: 1, receiveID: 1, secret: {name: k}}]",
            "BGPPeer s/x: spec.tcpAO: is set beside a password",
        ),
        (
            "tcpAO: [{sendID: 1, receiveID: 1, secret: {name: k}}, {sendID: 2, receiveID: 1, secret: {name: l}}]",
            "BGPPeer s/x: spec.tcpAO[1].receiveID: 1 is there twice",
        ),
        ("localASNMode: replace", "BGPPeer s/x: spec.localASNMode: is set without localASN"),
        ("longLivedStaleTime: 1h", "BGPPeer s/x: spec.longLivedStaleTime: is set without enableGracefulRestart: true"),
        (
            "enableGracefulRestart: true, longLivedStaleTime: 0s",
            "BGPPeer s/x: spec.longLivedStaleTime: 0ns is out of range",
        ),
        ("localASN: 2, role: peer", "BGPPeer s/x: spec.role: is set for an iBGP peer"),
    ];
    for (more, message) in cases {
        refused(&numbered(more), message);
    }
    let unnumbered =
        |more: &str| peer(&resource("BGPPeer", &format!("{{myASN: 1, peerASN: 2, interface: eth0, {more}}}")));
    for (more, field) in [
        ("sourceAddress: 'fe80::1'", "sourceAddress: fe80::1"),
        ("ebgpMultiHop: true", "ebgpMultiHop:"),
        ("vrf: red", "vrf:"),
    ] {
        refused(&unnumbered(more), &format!("BGPPeer s/x: spec.{field}"));
    }
    let watched = numbered("bfdProfile: fast, vrf: red");
    assert!(watched.value.is_some() && told(&watched)[0].contains("udp_l3mdev_accept"), "{:?}", watched.problems);
}

#[test]
fn a_bad_advertisement_names_the_field() {
    let cases = [
        ("{aggregationLength: 33}", "BGPAdvertisement s/x: spec.aggregationLength: 33 is no prefix length"),
        ("{aggregationLengthV6: 129}", "BGPAdvertisement s/x: spec.aggregationLengthV6: 129 is no prefix length"),
        ("{communities: ['65536:1']}", "BGPAdvertisement s/x: spec.communities[0]: community \"65536:1\" is neither"),
        (
            "{communities: ['1:2:3', 'large:1:2']}",
            "BGPAdvertisement s/x: spec.communities[1]: large community \"large:1:2\" is not",
        ),
        ("{asPathPrepend: 17}", "BGPAdvertisement s/x: spec.asPathPrepend: 17 is too often"),
    ];
    for (spec, message) in cases {
        refused(&advertisement(&resource("BGPAdvertisement", spec)), message);
    }
    let named =
        advertisement(&resource("BGPAdvertisement", "{communities: [no-export, gold, '65000:1', 'large:1:2:3']}"));
    let draft = named.value.expect("valid");
    assert_eq!(draft.names, [(1, "gold".to_string())]);
    assert_eq!((draft.advertisement.communities.len(), draft.advertisement.large_communities.len()), (2, 1));
}

#[test]
fn a_bad_profile_and_a_bad_community_name_the_field() {
    refused(
        &bfd_profile(&resource("BFDProfile", "{receiveInterval: 5}")),
        "BFDProfile s/x: spec.receiveInterval: 5 ms is out of range",
    );
    refused(
        &bfd_profile(&resource("BFDProfile", "{echoReceiveInterval: 5}")),
        "BFDProfile s/x: spec.echoReceiveInterval: 5 ms is out of range",
    );
    refused(&bfd_profile(&resource("BFDProfile", "{detectMultiplier: 1}")), "BFDProfile s/x: spec.detectMultiplier: 1");
    let some = communities(&resource("Community", "{communities: [{name: a, value: '1:2'}, {name: b, value: x}]}"));
    assert_eq!(some.value.as_ref().map(Vec::len), Some(1), "the valid entry is kept");
    assert!(told(&some)[0].starts_with("Community s/x: spec.communities[1].value: community \"x\" is neither"));
}

fn service_of(metadata: &str, spec: &str) -> Converted<crate::types::Service> {
    service(&read(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{namespace: n, name: web, {metadata}}}\nspec: {spec}\n"
    )))
}

fn annotated(key: &str, value: &str) -> crate::types::Service {
    service_of(&format!("annotations: {{{key}: '{value}'}}"), "{type: LoadBalancer}").value.expect("always")
}

#[test]
fn annotations_of_those_before_us_are_understood() {
    let two: [std::net::IpAddr; 2] = ["192.0.2.1".parse().expect("ip"), "2001:db8::1".parse().expect("ip")];
    for key in [
        "ironcast.dev/load-balancer-ips",
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/loadBalancerIPs",
        "kube-vip.io/loadbalancerIPs",
    ] {
        let service = annotated(key, "192.0.2.1, 2001:db8::1");
        assert_eq!(service.requested_addresses, two, "{key}");
        assert_eq!(service.families, [Family::Ipv4, Family::Ipv6], "both are asked for");
    }
    for prefix in ["ironcast.dev", "metallb.io", "metallb.universe.tf"] {
        assert_eq!(annotated(&format!("{prefix}/address-pool"), "gold").requested_pool.as_deref(), Some("gold"));
    }
    let by_field = service_of("", "{type: LoadBalancer, loadBalancerIP: 192.0.2.1}").value.expect("always");
    assert_eq!(by_field.requested_addresses, two[..1]);
    assert!(annotated("kube-vip.io/loadbalancerIPs", "0.0.0.0").requested_addresses.is_empty());
}

#[test]
fn sharing_key_holds_for_the_own_namespace_and_those_that_are_named() {
    let key = |annotations: &str| {
        service_of(&format!("annotations: {{{annotations}}}"), "{type: LoadBalancer}")
            .value
            .expect("always")
            .sharing_key
    };
    let with = |namespaces: &str| {
        key(&format!("ironcast.dev/allow-shared-ip: k, ironcast.dev/allow-shared-ip-namespaces: '{namespaces}'"))
    };
    assert_eq!(key("ironcast.dev/allow-shared-ip: k").as_deref(), Some("n\nk"));
    assert_eq!(with("b, a,n"), with("a,b"), "its own need not be named");
    assert_ne!(with("a,b"), with("a"));
    assert_eq!(with("a,*").as_deref(), Some("*\nk"));
    for prefix in ["metallb.io", "metallb.universe.tf"] {
        assert_eq!(key(&format!("{prefix}/allow-shared-ip: k")).as_deref(), Some("*\nk"), "{prefix}");
    }
    assert_eq!(key("ironcast.dev/allow-shared-ip: ''"), None);
}

#[test]
fn a_bad_service_names_the_field_and_keeps_its_addresses() {
    let cases = [
        (
            "annotations: {metallb.io/loadBalancerIPs: 'x'}",
            "{}",
            "metadata.annotations[metallb.io/loadBalancerIPs]: \"x\" is no IP address",
        ),
        (
            "annotations: {metallb.io/loadBalancerIPs: '192.0.2.1'}",
            "{loadBalancerIP: 192.0.2.2}",
            "spec.loadBalancerIP: 192.0.2.2 asks for other addresses",
        ),
        ("", "{ipFamilies: [IPv5]}", "spec.ipFamilies[0]: \"IPv5\" is no family"),
        ("", "{ipFamilyPolicy: Both}", "spec.ipFamilyPolicy: \"Both\" is no policy"),
        ("", "{externalTrafficPolicy: Near}", "spec.externalTrafficPolicy: \"Near\" is no policy"),
        ("", "{ports: [{port: 70000}]}", "spec.ports[0].port: 70000 is no port"),
        ("", "{ports: [{port: 80, protocol: HTTP}]}", "spec.ports[0].protocol: \"HTTP\" is no protocol"),
        ("", "{sessionAffinity: Cookie}", "spec.sessionAffinity: \"Cookie\" is no affinity"),
    ];
    for (metadata, spec, message) in cases {
        let converted = service_of(metadata, spec);
        let expected = format!("Service n/web: {message}");
        assert!(told(&converted).iter().any(|text| text.starts_with(&expected)), "{expected}: {:#?}", told(&converted));
        assert!(converted.problems.iter().any(|p| p.severity == Severity::Error));
    }
}

#[test]
fn absent_fields_of_a_service_mean_what_the_api_server_makes_of_them() {
    let value =
        service_of("", "{type: LoadBalancer, ports: [{port: 80}], sessionAffinity: ClientIP}").value.expect("always");
    assert_eq!(value.families, [Family::Ipv4]);
    assert_eq!((value.family_policy, value.traffic_policy), (FamilyPolicy::SingleStack, TrafficPolicy::Cluster));
    assert_eq!(value.affinity, Some(Duration::from_secs(10800)));
    assert_eq!(value.uid, "n/web");
    assert!(!value.source_ranges);
    let guarded = service_of("", "{loadBalancerSourceRanges: [192.0.2.0/24]}").value.expect("always");
    assert!(guarded.source_ranges);
    let dual = service_of("", "{ipFamilyPolicy: RequireDualStack}").value.expect("always");
    assert_eq!(dual.families, [Family::Ipv4, Family::Ipv6]);
    let six_first = service_of("", "{ipFamilyPolicy: PreferDualStack, clusterIP: 'fd00::1'}").value.expect("always");
    assert_eq!(six_first.families, [Family::Ipv6, Family::Ipv4]);
    let one = service_of("", "{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]}").value.expect("always");
    assert_eq!(one.families, [Family::Ipv6], "a cluster of one family says so");
}

#[test]
fn a_slice_leaves_out_only_the_bad_endpoint() {
    let slice = slice(&read(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: n, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.2], nodeName: b, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.1], nodeName: a}
- {addresses: ['2001:db8::1']}
",
    ));
    assert_eq!(told(&slice).len(), 1);
    assert!(
        told(&slice)[0].starts_with("EndpointSlice n/web-1: endpoints[2].addresses[0]: \"2001:db8::1\" is no IPv4")
    );
    let value = slice.value.expect("the rest");
    assert_eq!(value.service.to_string(), "n/web");
    let [first, second] = &value.endpoints[..] else { panic!("two endpoints: {:?}", value.endpoints) };
    assert!(first.ready && first.serving && !first.terminating, "absent conditions mean ready");
    assert!(!second.ready && second.takes_traffic());
}

#[test]
fn a_node_is_never_refused() {
    let node = node(&read(
        "apiVersion: v1
kind: Node
metadata: {name: a, annotations: {ironcast.dev/x: '1', peers.ironcast.dev/y: '2', other.dev/z: '3'}}
spec: {podCIDR: 10.244.0.0/24, unschedulable: true}
status:
  addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: a}, {type: ExternalIP, address: bad}]
  conditions: [{type: Ready, status: Unknown}, {type: NetworkUnavailable, status: 'True'}]
",
    ));
    let value = node.value.as_ref().expect("never refused");
    assert_eq!((value.addresses.len(), value.annotations.len(), value.pod_cidrs.len()), (1, 2, 1));
    assert!(!value.ready && value.network_unavailable && value.unschedulable);
    assert_eq!(
        told(&node),
        [
            "Node a: status.addresses[2].address: \"bad\" is no IP address; write an IPv4 or IPv6 address, or use type Hostname"
        ]
    );
}

#[test]
fn a_secret_must_be_of_the_right_type_and_is_never_printed() {
    let secret = |text: &str| {
        secret_password(&read(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{namespace: s, name: key}}\n{text}\n"
        )))
    };
    let good = secret("type: kubernetes.io/basic-auth\nstringData: {password: hush}");
    assert_eq!(good.value.as_ref().map(|key| &*key.0), Some(&b"hush"[..]));
    let data = secret("type: kubernetes.io/basic-auth\ndata: {password: aHVzaA==}");
    assert_eq!(data.value, good.value);
    refused(&secret("stringData: {password: hush}"), "Secret s/key: type: is Opaque");
    refused(&secret("type: kubernetes.io/basic-auth"), "Secret s/key: data.password: is missing");
    let long = secret(&format!("type: kubernetes.io/basic-auth\nstringData: {{password: {}}}", "hush".repeat(30)));
    refused(&long, "Secret s/key: data.password: is 120 octets long");
    assert!(!format!("{good:?}{long:?}").contains("hush"));
}
