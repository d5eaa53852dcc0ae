//! The rights that the manifests give: each is used, no other is asked for, and what a missing one costs is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{LIMIT, NODES, SPACE, Site};
use crate::support::{ipam, manifests, program::Program, until};

/// API group, resource with subresource, verb.
type Right = (String, String, String);

fn roles() -> Vec<Value> {
    manifests().into_iter().filter(|object| object["kind"] == "ClusterRole" || object["kind"] == "Role").collect()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn granted() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in roles().iter().flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()) {
        for (group, resource) in
            words(&rule["apiGroups"]).iter().flat_map(|g| words(&rule["resources"]).into_iter().map(move |r| (g, r)))
        {
            rights.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
        }
    }
    rights
}

/// What the API server has let the daemons do, and what it has not.
fn asked(site: &Site) -> [BTreeSet<Right>; 2] {
    let mut asked = [BTreeSet::new(), BTreeSet::new()];
    for event in site.cluster.audit() {
        let (object, text) = (&event["objectRef"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        // Discovery has no resource: every account may.
        if resource.is_empty() {
            continue;
        }
        let right = |verb: &str| (text(&object["apiGroup"]), resource.clone(), verb.to_owned());
        let refused = event["annotations"]["authorization.k8s.io/decision"] == "forbid";
        asked[usize::from(refused)].insert(right(event["verb"].as_str().unwrap_or_default()));
        // A patch that makes the object (server-side apply) needs both.
        if event["verb"] == "patch" && event["responseStatus"]["code"] == 201 {
            asked[0].insert(right("create"));
        }
    }
    asked
}

const PASSWORD: &str = "secret-of-a-peer";
const SECRETS: [&str; 2] = [PASSWORD, super::TOKEN];
const POOL: &str = "InClusterIPPool.ipam.cluster.x-k8s.io/edge";

/// Something of every kind that the daemon reads, beside what the site has.
fn everything() -> String {
    let meta = |name: &str| format!("metadata: {{name: {name}, namespace: {SPACE}}}");
    let ours = |kind: &str, name: &str, spec: &str| {
        format!("apiVersion: ironcast.dev/v1alpha1\nkind: {kind}\n{}\nspec: {spec}\n", meta(name))
    };
    let kept = "{autoAssign: false, provider: {name: ipam, reclaimPolicy: Retain}}";
    [
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\n{}\nstringData: {{password: {PASSWORD}}}\n",
            meta("peer")
        ),
        ours("BFDProfile", "quick", "{}"),
        ours("Community", "some", "{communities: [{name: blue, value: '64500:1'}]}"),
        ours(
            "BGPPeer",
            "rack",
            "{myASN: 65000, peerASN: 64999, peerAddress: 10.77.0.250, bfdProfile: quick, passwordSecret: {name: peer}}",
        ),
        ours(
            "ProviderConfig",
            "ipam",
            &format!("{{type: capi, project: {POOL}, settleTime: 1s, releaseDelay: 1s, refreshInterval: 2s}}"),
        ),
        ours("IPAddressPool", "given", "{autoAssign: false, addresses: [203.0.113.0/28]}"),
        ours("IPAddressPool", "lent", "{autoAssign: false, provider: {name: ipam}}"),
        ours("IPAddressPool", "kept", kept),
    ]
    .join("---\n")
}

/// A Service that takes its address from this pool, with an endpoint.
fn deploy(site: &Site, name: &str, pool: &str) {
    let objects = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, annotations: {{ironcast.dev/address-pool: {pool}}}}}\n\
         spec: {{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}-1, namespace: default, \
         labels: {{kubernetes.io/service-name: {name}}}}}\nports: [{{name: '', port: 8080, protocol: TCP}}]\n\
         endpoints: [{{addresses: [10.244.11.2], nodeName: n1, conditions: {{ready: true}}}}]\n"
    );
    site.cluster.apply(&objects).expect("accepted");
}

/// Answers a claim of the pool for this Service as a manager of addresses would.
async fn give(site: &Site, service: &str, address: &str) {
    let claim = until(&format!("an IPAddressClaim for {service}"), LIMIT, || async {
        let list = site.cluster.kubectl(&["get", "ipaddressclaims", "-n", SPACE, "-o", "json"]).ok()?;
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let ours =
            |claim: &&Value| claim["metadata"]["annotations"].to_string().contains(&format!("default/{service}\""));
        list["items"].as_array()?.iter().find(ours)?["metadata"]["name"].as_str().map(str::to_owned)
    })
    .await;
    ipam::give(&site.cluster, &claim, address);
}

async fn claims_of(site: &Site, service: &str, phase: Option<&str>) {
    let wanted = json!(format!("default/{service}"));
    until(&format!("the claim of {service} is {phase:?}"), LIMIT, || async {
        let claims = site.claims();
        let mut ours = claims.iter().filter(|claim| claim["spec"]["service"] == wanted);
        let right = match phase {
            Some(phase) => ours.any(|claim| claim["status"]["phase"] == phase),
            None => ours.next().is_none(),
        };
        right.then_some(())
    })
    .await;
}

/// Once again the same trouble is one more of a series.
async fn troubled_twice(site: &Site) {
    for pool in ["nowhere", "given", "nowhere"] {
        let annotation = format!("ironcast.dev/address-pool={pool}");
        site.cluster.kubectl(&["annotate", "--overwrite", "service", "odd", &annotation]).expect("annotated");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn exercise(site: &Site) {
    let crds = [ipam::crd("IPAddressClaim", "ipaddressclaims"), ipam::crd("IPAddress", "ipaddresses")].join("---\n");
    site.cluster.apply(&crds).expect("accepted");
    until("the CRDs take objects", LIMIT, || async {
        site.cluster.apply(&everything()).inspect_err(|error| println!("{error}")).ok()
    })
    .await;
    for (service, pool) in [("web", "elastic"), ("odd", "given"), ("lent", "lent"), ("kept", "kept")] {
        deploy(site, service, pool);
    }
    give(site, "lent", "192.0.2.77").await;
    give(site, "kept", "192.0.2.78").await;
    for service in ["web", "odd", "lent", "kept"] {
        site.address(service).await;
    }
    troubled_twice(site).await;
    site.steer(json!({ "device_state": [site.devices[1], "inactive"] }));
    site.machine_is("n2", "PoweredOff").await;
    for service in ["web", "lent", "kept"] {
        site.undeploy(service);
    }
    claims_of(site, "web", None).await;
    claims_of(site, "lent", None).await;
    claims_of(site, "kept", Some("Retained")).await;
    site.cluster.kubectl(&["delete", "addressclaims", "--all", "--wait=false", "-n", SPACE]).expect("deleted");
    claims_of(site, "kept", None).await;
    // Its routers' Secrets go with it.
    site.cluster.kubectl(&["delete", "providerconfig", "metal", "-n", SPACE]).expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_of_the_manifests_is_used_and_no_other_is_asked_for() {
    let Some(site) = Site::new("Account").await else { return };
    let daemons = site.daemons();
    exercise(&site).await;
    let granted = granted();
    let start = std::time::Instant::now();
    loop {
        let [used, refused] = asked(&site);
        assert!(refused.is_empty(), "asked for without having it: {refused:?}");
        let unused: Vec<&Right> = granted.difference(&used).collect();
        if unused.is_empty() {
            let more: Vec<&Right> = used.difference(&granted).collect();
            assert!(more.is_empty(), "allowed by something else: {more:?}");
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "nobody uses {unused:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} rights, each used", granted.len());
    assert!(daemons.iter().all(Program::running));
    nobody_tells(&site);
}

/// No password and no token, in clear or as the API server writes Secrets, in what the daemons write and answer.
fn nobody_tells(site: &Site) {
    let mut told: Vec<(String, String)> = Vec::new();
    for (node, _) in NODES {
        let folder = site.folder.join(node);
        told.push((format!("log of {node}"), std::fs::read_to_string(folder.join("daemon.log")).expect("a log")));
        for path in ["/", "/state.json", "/metrics"] {
            let answer = ask(&folder.join("admin.sock"), path);
            assert!(answer.starts_with("HTTP/1.1 200") && answer.len() > 500, "{answer}");
            told.push((format!("{path} of {node}"), answer));
        }
    }
    let kinds = "events,services,nodes,bgpnodestatuses,addressclaims,providerconfigs,ipaddresspools,bgppeers,ipaddressclaims,leases";
    let objects = site.cluster.kubectl(&["get", kinds, "-A", "-o", "json"]).expect("served");
    assert!(objects.contains("BGPNodeStatus") && objects.contains("AllocationFailed"));
    told.push(("objects".into(), objects));
    for (what, text) in told {
        for secret in SECRETS {
            let encoded = BASE64_STANDARD.encode(secret);
            assert!(!text.contains(secret) && !text.contains(&encoded), "{secret} is in {what}");
        }
    }
}

/// What the admin socket answers.
fn ask(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The roles without one right.
fn without(resource: &str, verb: &str) -> String {
    let mut roles = roles();
    let rules = roles.iter_mut().flat_map(|role| role["rules"].as_array_mut().expect("rules").iter_mut());
    let mut taken = 0;
    let mut more: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
    for (n, rule) in rules.enumerate() {
        let (resources, verbs) = (words(&rule["resources"]), words(&rule["verbs"]));
        if !resources.iter().any(|r| r == resource) || !verbs.iter().any(|v| v == verb) {
            continue;
        }
        taken += 1;
        let others: Vec<&String> = resources.iter().filter(|r| *r != resource).collect();
        let mut this = rule.clone();
        this["resources"] = json!([resource]);
        this["verbs"] = json!(verbs.iter().filter(|v| *v != verb).collect::<Vec<_>>());
        rule["resources"] = json!(others);
        more.entry(n).or_default().push(this);
    }
    assert!(taken > 0, "nobody grants {verb} {resource}");
    for role in &mut roles {
        let of_cluster = role["kind"] == "ClusterRole";
        let rules = role["rules"].as_array_mut().expect("rules");
        let cluster = resource
            .split('/')
            .next()
            .is_some_and(|r| ["services", "nodes", "namespaces", "endpointslices", "events"].contains(&r));
        if cluster == of_cluster {
            rules.extend(more.values().flatten().cloned());
        }
        rules.retain(|rule| !words(&rule["resources"]).is_empty() && !words(&rule["verbs"]).is_empty());
    }
    roles.iter().map(|role| format!("---\n{role}\n")).collect()
}

/// Whether the daemon of n1 has this address in the Adj-RIB-Out of both routers, with sessions that are up.
fn announces(site: &Site, address: &str) -> bool {
    let answer = ask(&site.folder.join("n1").join("admin.sock"), "/state.json");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let state: Value = serde_json::from_str(body).expect("JSON");
    let of = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let up = of(&state["sessions"]).iter().filter(|session| session["state"] == "Established").count();
    let prefix = json!(format!("{address}/32"));
    up == 2 && of(&state["routes"]).iter().filter(|route| route["prefix"] == prefix).count() == 2
}

fn with_all() -> String {
    roles().iter().map(|role| format!("---\n{role}\n")).collect()
}

/// A right that is taken away, and what makes a running daemon need it.
const TAKEN: &[(&str, &str)] = &[
    ("services", "list"),
    ("services", "watch"),
    ("nodes", "list"),
    ("namespaces", "list"),
    ("endpointslices", "watch"),
    ("bgppeers", "list"),
    ("ipaddresspools", "watch"),
    ("secrets", "list"),
    ("leases", "get"),
    ("leases", "update"),
    ("services/status", "patch"),
    ("services", "get"),
    ("events", "create"),
    ("bgpnodestatuses", "get"),
    ("bgpnodestatuses/status", "patch"),
    ("ipaddresspools/status", "patch"),
    ("addressclaims", "create"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_missing_is_named_and_what_is_announced_stays() {
    let Some(site) = Site::new("Metadata").await else { return };
    site.cluster.apply(&everything()).expect("accepted");
    let mut daemon = site.daemon("n1");
    site.deploy("web");
    let web = site.address("web").await;
    site.routed(&web, &[11]).await;
    let log = site.folder.join("n1").join("daemon.log");
    for (round, (resource, verb)) in TAKEN.iter().enumerate() {
        assert!(daemon.terminate(Duration::from_secs(10)), "{}", daemon.tail());
        site.cluster.apply_server_side(&without(resource, verb)).expect("accepted");
        let before = std::fs::read_to_string(&log).expect("a log").len();
        daemon = site.daemon("n1");
        // Something to record, to tell and to claim.
        site.deploy(&format!("later-{round}"));
        deploy(&site, &format!("odd-{round}"), "nowhere");
        let named = format!("cannot {verb} resource \"{resource}\"");
        until(&format!("the log says that the daemon {named}\n{}", daemon.tail()), LIMIT, || async {
            let text = std::fs::read_to_string(&log).ok()?;
            let said = |line: &&str| (line.contains("WARN") || line.contains("ERROR")) && line.contains(&named);
            text[before..].lines().any(|line| said(&line)).then_some(())
        })
        .await;
        // Its sessions are up again: what the routers have now is what this daemon says, and nothing kept for it.
        until(&format!("without {verb} {resource} {web} is announced\n{}", daemon.tail()), LIMIT, || async {
            announces(&site, &web).then_some(())
        })
        .await;
        site.routed(&web, &[11]).await;
        assert!(daemon.running());
        println!("{verb} {resource}: named, and {web} stays");
        site.cluster.apply_server_side(&with_all()).expect("accepted");
    }
    // With all of them back, what waited is done.
    site.address(&format!("later-{}", TAKEN.len() - 1)).await;
    assert!(daemon.running());
}
