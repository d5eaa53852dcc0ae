//! The CRDs as the real API server takes them: what each kind accepts, and how each wrong object is refused.

use std::time::Duration;

use ironcast::source::api::{GROUP, VERSION};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};

use crate::support::{cluster::Cluster, until};

const SPACE: &str = "ironcast-system";

/// Installs the manifests and the CRDs as `ironcast crds` prints them, and waits until they are served.
pub(crate) async fn install(cluster: &Cluster) {
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/manifests/ironcast.yaml");
    cluster.kubectl(&["apply", "-f", manifests]).expect("the API server takes the manifests");
    let crds = ironcast::source::api::crds_yaml();
    cluster.apply_server_side(&crds).expect("the API server takes the CRDs");
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"]).expect("established");
    let kinds = "ipaddresspools,bgppeers,bgpadvertisements,bfdprofiles,communities.ironcast.dev,bgpnodestatuses";
    until("the CRDs are served", Duration::from_secs(20), || async { cluster.kubectl(&["get", kinds, "-A"]).ok() })
        .await;
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {SPACE}}}\nspec: {spec}\n"
    )
}

/// What the API server would say.
async fn dry_run(client: &Client, kind: &str, spec: &str) -> Result<(), String> {
    let plural = if kind == "Community" { "communities".into() } else { format!("{}s", kind.to_lowercase()) };
    let plural = if kind == "BGPNodeStatus" { "bgpnodestatuses".into() } else { plural };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), &plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), SPACE, &resource);
    let object = serde_norway::from_str(&object(kind, "tried", spec)).expect("YAML");
    let params = PostParams { dry_run: true, field_manager: None };
    match api.create(&params, &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

/// Kind and spec.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "IPAddressPool",
        "{addresses: [192.0.2.0/24, 192.0.2.10-192.0.2.20, '2001:db8::/64', '2001:db8::1-2001:db8::ff']}",
    ),
    (
        "IPAddressPool",
        "{addresses: [192.0.2.1/32], autoAssign: false, avoidBuggyIPs: true, disabled: true, serviceAllocation: \
         {priority: 10, namespaces: [a], namespaceSelectors: [{matchLabels: {a: b}}], serviceSelectors: \
         [{matchExpressions: [{key: a, operator: In, values: [b]}]}]}}",
    ),
    ("BGPPeer", "{myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}"),
    ("BGPPeer", "{myASN: 4200000000, dynamicASN: external, peerAddress: 'fe80::1', interface: eth0}"),
    ("BGPPeer", "{myASN: 64512, dynamicASN: internal, interface: eth0}"),
    (
        "BGPPeer",
        "{myASN: 64512, localASN: 65000, localASNMode: prepend, peerASN: 64513, peerAddress: 192.0.2.1, role: customer, \
         roleStrict: true, addPath: both, enableGracefulRestart: true, longLivedStaleTime: 24h}",
    ),
    (
        "BGPPeer",
        "{myASN: 64512, peerASN: 64513, peerAddress: '2001:db8::1', sourceAddress: '2001:db8::2', peerPort: 1179, \
         routerID: 192.0.2.9, holdTime: 9s, keepaliveTime: 3s, connectTime: 10s, ebgpMultiHop: true, \
         ebgpMultiHopTTL: 5, passwordSecret: {name: a}, bfdProfile: fast, enableGracefulRestart: true, \
         dualStackAddressFamily: true, prefixBudget: 100, vrf: red}",
    ),
    ("BGPPeer", "{myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1, holdTime: 0s, ttlSecurity: 1, password: x}"),
    ("BGPPeer", "{myASN: 64512, peerASN: 64513, peerAddressFrom: nodeAnnotation, sourceAddress: 192.0.2.2}"),
    ("BGPPeer", "{myASN: 64512, dynamicASN: external, peerAddressFrom: defaultGatewayIPv6, maximumPaths: 64}"),
    ("BGPAdvertisement", "{}"),
    (
        "BGPAdvertisement",
        "{aggregationLength: 24, aggregationLengthV6: 124, localPref: 100, med: 0, asPathPrepend: 2, communities: \
         ['65000:100', 'large:64500:1:2', no-export, customers], ipAddressPools: [a], peers: [b], linkBandwidth: nonTransitive, nodeSelectors: \
         [{matchLabels: {a: b}}]}",
    ),
    (
        "BGPPeer",
        "{myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1, maximumPrefixes: 10, maximumPrefixesWarningOnly: true, \
         tcpAO: [{sendID: 1, receiveID: 2, secret: {name: a}}, {sendID: 2, receiveID: 1, algorithm: aes128CMAC, secret: \
         {name: b}}]}",
    ),
    (
        "BFDProfile",
        "{echoReceiveInterval: 50, authentication: {type: meticulousKeyedSHA1, keyID: 1, secret: {name: a}}}",
    ),
    (
        "BFDProfile",
        "{receiveInterval: 50, transmitInterval: 50, detectMultiplier: 3, passiveMode: true, minimumTtl: 250}",
    ),
    ("Community", "{communities: [{name: customers, value: '65000:100'}, {name: none, value: no-export}]}"),
    ("BGPNodeStatus", "{nodeName: a}"),
];

/// Kind, spec, and what the refusal says.
const REFUSED: &[(&str, &str, &str)] = &[
    ("IPAddressPool", "{}", "addresses or provider must be set"),
    ("IPAddressPool", "{addresses: []}", "addresses or provider must be set"),
    ("IPAddressPool", "{addresses: [192.0.2.0/33]}", "must be a CIDR (192.0.2.0/24) or a range"),
    ("IPAddressPool", "{addresses: [192.0.2.9]}", "must be a CIDR (192.0.2.0/24) or a range"),
    ("IPAddressPool", "{addresses: [192.0.2.1-192.0.2.300]}", "must be a CIDR (192.0.2.0/24) or a range"),
    ("IPAddressPool", "{addresses: ['192.0.2.1-2001:db8::1']}", "a range must not mix IPv4 and IPv6"),
    ("IPAddressPool", "{addresses: [192.0.2.0/24], serviceAllocation: {priority: -1}}", "priority"),
    ("IPAddressPool", "{addresses: [192.0.2.0/24], autoAssign: maybe}", "autoAssign"),
    ("BGPPeer", "{peerASN: 64513, peerAddress: 192.0.2.1}", "spec.myASN: Required"),
    ("BGPPeer", "{myASN: 0, peerASN: 64513, peerAddress: 192.0.2.1}", "spec.myASN"),
    ("BGPPeer", "{myASN: 64512, peerASN: 4294967296, peerAddress: 192.0.2.1}", "spec.peerASN"),
    ("BGPPeer", "{myASN: 64512, peerAddress: 192.0.2.1}", "exactly one of peerASN and dynamicASN"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, dynamicASN: external, peerAddress: 192.0.2.1}",
        "exactly one of peerASN and dynamicASN",
    ),
    ("BGPPeer", "{myASN: 1, dynamicASN: sideways, peerAddress: 192.0.2.1}", "dynamicASN"),
    ("BGPPeer", "{myASN: 1, peerASN: 2}", "one of peerAddress and interface"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: router}", "must be an IPv4 or IPv6 address"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 'fe80::1'}", "go together for a link-local peerAddress"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, interface: eth0}",
        "go together for a link-local peerAddress",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, sourceAddress: '2001:db8::1'}",
        "of the same family as peerAddress",
    ),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, peerPort: 0}", "spec.peerPort"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, routerID: 0.0.0.0}", "other than 0.0.0.0"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: 2s}", "must be 0s (never) or from 3s"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: soon}", "spec.holdTime"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, holdTime: 9s, keepaliveTime: 10s}",
        "not longer than holdTime",
    ),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, connectTime: 500ms}", "must be from 1s to 65535s"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, password: a, passwordSecret: {name: b}}",
        "only one of password",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, password: a, tcpAO: [{sendID: 1, receiveID: 1, secret: {name: b}}]}",
        "exclude each other",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, tcpAO: [{sendID: 1, receiveID: 1, secret: {name: b}}, \
         {sendID: 1, receiveID: 2, secret: {name: c}}]}",
        "may be there once",
    ),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, maximumPrefixesWarningOnly: true}",
        "needs maximumPrefixes",
    ),
    ("BFDProfile", "{authentication: {type: keyedMD5, keyID: 1, secret: {name: a}}}", "spec.authentication.type"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, ebgpMultiHopTTL: 5}", "needs ebgpMultiHop: true"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, ebgpMultiHop: true, ttlSecurity: 1}",
        "leave ebgpMultiHop out",
    ),
    ("BGPPeer", "{myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, ebgpMultiHop: true}", "is for eBGP peers only"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, prefixBudget: 0}", "spec.prefixBudget"),
    ("BGPPeer", "{myASN: 1, peerASN: 1, peerAddress: 192.0.2.1, role: customer}", "eBGP peers only"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, role: boss}", "role"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, roleStrict: true}", "needs role"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, localASNMode: prepend}", "needs localASN"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, longLivedStaleTime: 1h}",
        "needs enableGracefulRestart",
    ),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, addPath: some}", "addPath"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, interface: eth0, sourceAddress: 192.0.2.2}", "need peerAddress"),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddressFrom: stars}", "peerAddressFrom"),
    (
        "BGPPeer",
        "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, peerAddressFrom: nodeAnnotation}",
        "excludes peerAddress",
    ),
    ("BGPPeer", "{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, maximumPaths: 0}", "spec.maximumPaths"),
    ("BGPAdvertisement", "{linkBandwidth: heavy}", "linkBandwidth"),
    ("BGPAdvertisement", "{aggregationLength: 33}", "spec.aggregationLength"),
    ("BGPAdvertisement", "{aggregationLengthV6: 129}", "spec.aggregationLengthV6"),
    ("BGPAdvertisement", "{asPathPrepend: 17}", "spec.asPathPrepend"),
    ("BGPAdvertisement", "{communities: ['65536:1']}", "must be asn:value"),
    ("BGPAdvertisement", "{communities: ['large:1:2']}", "must be asn:value"),
    ("BFDProfile", "{receiveInterval: 9}", "spec.receiveInterval"),
    ("BFDProfile", "{detectMultiplier: 1}", "spec.detectMultiplier"),
    ("Community", "{communities: [{name: 'a:b', value: '1:2'}]}", "name"),
    ("Community", "{communities: [{name: a, value: everybody}]}", "must be asn:value"),
    ("Community", "{communities: [{name: a, value: '1:2'}, {name: a, value: '1:3'}]}", "Duplicate value"),
];

#[tokio::test]
async fn crds_accept_what_is_right_and_refuse_what_is_wrong() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let client = cluster.client().await;
    for (kind, spec) in ACCEPTED {
        dry_run(&client, kind, spec).await.unwrap_or_else(|error| panic!("{kind} {spec}: {error}"));
    }
    let mut wrong = Vec::new();
    for (kind, spec, fragment) in REFUSED {
        match dry_run(&client, kind, spec).await {
            Ok(_) => wrong.push(format!("{kind} {spec} was accepted")),
            Err(error) if !error.contains(fragment) => {
                wrong.push(format!("{kind} {spec}: no {fragment:?} in {error:?}"))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn kinds_that_need_no_field_need_no_spec() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    for kind in ["BGPAdvertisement", "BFDProfile"] {
        let head = format!("apiVersion: {GROUP}/{VERSION}\nkind: {kind}\n");
        cluster.dry_run(&format!("{head}metadata: {{name: bare, namespace: {SPACE}}}\n")).expect("accepted");
    }
}

#[tokio::test]
async fn unknown_fields_are_refused_by_kubectl_with_their_name() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    let error = cluster.dry_run(&object("IPAddressPool", "typo", "{addresses: [192.0.2.0/24], autoAsign: false}"));
    let error = error.expect_err("strict validation is kubectl's default");
    assert!(error.contains("unknown field \"spec.autoAsign\""), "{error}");
}

#[tokio::test]
async fn kubectl_get_shows_columns() {
    let Some(cluster) = Cluster::shared().await else { return };
    install(cluster).await;
    cluster.apply(&object("IPAddressPool", "columns", "{addresses: [198.51.100.0/28]}")).expect("accepted");
    cluster
        .apply(&object("BGPPeer", "columns", "{myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}"))
        .expect("accepted");
    let pools = cluster.kubectl(&["get", "icpool", "columns", "-n", SPACE]).expect("short name");
    for word in ["AUTO ASSIGN", "ADDRESSES", "IPV4 FREE", "VALID", "true", r#"["198.51.100.0/28"]"#] {
        assert!(pools.contains(word), "no {word:?} in\n{pools}");
    }
    let peers = cluster.kubectl(&["get", "icpeer", "columns", "-n", SPACE]).expect("short name");
    for word in ["ADDRESS", "ASN", "MY ASN", "192.0.2.1", "64513", "64512"] {
        assert!(peers.contains(word), "no {word:?} in\n{peers}");
    }
    let all = cluster.kubectl(&["get", "ironcast", "-n", SPACE]).expect("category");
    assert!(
        all.contains("ipaddresspool.ironcast.dev/columns") && all.contains("bgppeer.ironcast.dev/columns"),
        "{all}"
    );
    for kind in ["icpool", "icpeer"] {
        cluster.kubectl(&["delete", kind, "columns", "-n", SPACE]).expect("deleted");
    }
}
