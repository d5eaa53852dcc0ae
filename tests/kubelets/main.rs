//! The DaemonSet as an operator installs, upgrades and removes it: kubelets with containerd on three nodes, the image of
//! `make image`, `deploy/crds` and `deploy/manifests`, BIRD above, a client behind it.
#[path = "../support/mod.rs"]
mod support;

mod load;
mod node;
mod site;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use load::{Load, fetch};
use site::{NODES, Site, address};
use support::{
    fabric::{Fabric, v4},
    routers::{BIRD_ASN, NODE_ASN},
    skip, until,
};

const SPACE: &str = "ironcast-system";
/// Rolling updates one after the other: what one leaves in the nodes' memory the next one meets.
const UPDATES: usize = 3;
const NAMES: [&str; 3] = [NODES[0].0, NODES[1].0, NODES[2].0];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containerd and kubelets: make test-kubelets"]
async fn daemon_set_is_installed_updated_under_load_and_removed_without_a_trace() {
    let Some(image) = image() else { return };
    let begun = Instant::now();
    let Some(site) = Site::start(&image).await else { return };
    site.until_ready().await;
    println!("{} nodes ready after {:.1?}", NODES.len(), begun.elapsed());

    site.kubectl_with(&["apply", "-f", &file("tests/kubelets/web.yaml")]);
    site.kubectl("rollout status deployment/web --timeout=90s");
    let before = NAMES.map(|name| site.kernel(name));

    install(&site, &image).await;
    let web = address(&site, "web").await;
    let local = address(&site, "local").await;
    for address in [web, local] {
        site.until_routed(address, &NAMES).await;
        answered_by_every_pod(&site, address).await;
    }
    println!("installed: {web} and {local} go to every node and every pod answers");

    packet_path_runs(&site);
    quiet(&site, [web, local]).await;
    local_policy_follows_its_pods(&site, local).await;
    quiet(&site, [web, local]).await;
    for _ in 0..UPDATES {
        tokio::task::block_in_place(|| rolling_update(&site, [web, local]));
    }
    uninstall(&site, &[web, local]).await;
    nothing_is_left(&site, &before);
}

/// What `make image` packed, in the folder where it leaves it.
fn image() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let image = target.join(format!("image/ironcast-{}.tar", env!("CARGO_PKG_VERSION")));
    if !image.exists() {
        skip("no image: run make image");
        return None;
    }
    Some(image)
}

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).to_str().expect("UTF-8").to_owned()
}

/// The name that the image has in containerd.
fn name_of(image: &Path) -> String {
    let output = Command::new("tar").arg("-xOf").arg(image).arg("./index.json").output().expect("tar runs");
    let index: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an OCI layout");
    index["manifests"][0]["annotations"]["io.containerd.image.name"].as_str().expect("a name").to_owned()
}

/// As docs/install.md says: the image's name put into the manifest, both folders applied, then what is ours.
async fn install(site: &Site, image: &Path) {
    let manifest = std::fs::read_to_string(file("deploy/manifests/ironcast.yaml")).expect("there");
    let named = manifest.replace("image: \"ironcast:0.1.0\"", &format!("image: \"{}\"", name_of(image)));
    let applied = site.cluster.folder().join("ironcast.yaml");
    std::fs::write(&applied, named).expect("writable");
    let applied = applied.to_str().expect("UTF-8");
    let begun = Instant::now();
    site.kubectl_with(&["apply", "--server-side", "-f", &file("deploy/crds"), "-f", applied]);
    site.kubectl("-n ironcast-system rollout status daemonset/ironcast --timeout=90s");
    println!("DaemonSet ready {:.1?} after apply", begun.elapsed());
    let ours = format!(
        "apiVersion: ironcast.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: public, namespace: {SPACE}}}\n\
         spec: {{addresses: [203.0.113.0/24]}}\n---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {{name: everything, namespace: {SPACE}}}\nspec: {{}}\n---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: tor, namespace: {SPACE}}}\n\
         spec: {{myASN: {NODE_ASN}, peerASN: {BIRD_ASN}, peerAddress: {}, enableGracefulRestart: true, holdTime: 9s}}\n",
        v4(1)
    );
    site.cluster.apply(&ours).unwrap_or_else(|error| panic!("{error}\n{}", site.tail()));
    site.kubectl("-n ironcast-system wait --for=condition=Valid ipaddresspool/public --timeout=30s");
    println!("{}", site.kubectl("-n ironcast-system get ipaddresspools,bgppeers,bgpnodestatuses"));
}

/// Requests until every pod has answered at least once.
async fn answered_by_every_pod(site: &Site, address: Ipv4Addr) {
    let mut pods = BTreeMap::<String, usize>::new();
    let begun = Instant::now();
    while pods.len() < NODES.len() {
        match fetch(&site.fabric.name("client"), address) {
            Ok(pod) => *pods.entry(pod).or_default() += 1,
            Err(error) => println!("{address} after {:.1?}: {error}", begun.elapsed()),
        }
        assert!(begun.elapsed() < site::LIMIT, "{address} is answered by {pods:?}\n{}", site.tail());
    }
}

/// What is looked for after the end is there before it.
fn packet_path_runs(site: &Site) {
    for node in &site.nodes {
        let pins: Vec<String> = names(&node.path("/sys/fs/bpf")).collect();
        assert!(pins.contains(&"ironcast".to_owned()), "{}: {pins:?}", node.name);
        let kernel = site.kernel(node.name);
        let program = kernel.iter().any(|line| line.contains("eth0") && line.contains(" xdp "));
        assert!(program, "{}: {kernel:#?}", node.name);
        let selector = format!("--field-selector=spec.nodeName={}", node.name);
        let pod = site.kubectl_with(&["-n", SPACE, "get", "pods", &selector, "-o", "name"]);
        let ask = || site.kubectl_with(&["-n", SPACE, "exec", &pod, "--", "/ironcast", "status"]);
        let begun = Instant::now();
        let mut status = ask();
        while status.contains("No way is known") && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(200));
            status = ask();
        }
        assert!(!status.contains("No way is known"), "{}: {status}", node.name);
        let uplink = status.lines().find(|line| line.starts_with("eth0")).unwrap_or_default();
        assert!(uplink.contains("native"), "{}: {status}", node.name);
    }
}

/// What the load is like while nothing else happens.
async fn quiet(site: &Site, addresses: [Ipv4Addr; 2]) {
    let loads = addresses.map(|address| (address, Load::start(&site.fabric.name("client"), address)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (address, load) in loads {
        let report = load.finish();
        println!("{address}, nothing else happening: {report}");
        assert!(report.failures.is_empty(), "{:#?}\n{}", report.failures, site.tail());
    }
}

/// With two pods, only their nodes announce what is `Local`; with three again, all do.
async fn local_policy_follows_its_pods(site: &Site, local: Ipv4Addr) {
    site.kubectl("scale deployment/web --replicas=2");
    until("two nodes announce what is local", site::LIMIT, || async { (site.hops(local).len() == 2).then_some(()) })
        .await;
    assert!(fetch(&site.fabric.name("client"), local).is_ok());
    site.kubectl("scale deployment/web --replicas=3");
    site.kubectl("rollout status deployment/web --timeout=90s");
    site.until_routed(local, &NAMES).await;
}

/// Every pod of the DaemonSet is replaced while the client asks, and the router is watched.
fn rolling_update(site: &Site, addresses: [Ipv4Addr; 2]) {
    let pods = "-n ironcast-system get pods -o jsonpath={.items[*].metadata.uid}";
    let old = site.kubectl(pods);
    let loads = addresses.map(|address| (address, Load::start(&site.fabric.name("client"), address)));
    std::thread::sleep(Duration::from_secs(2));
    let (begun, done, fabric) = (Instant::now(), AtomicBool::new(false), &site.fabric);
    let (rollout, (looks, least)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| fewest_hops(fabric, addresses, &done));
        let rollout = roll(site);
        // Longer than the hold time: a router that took a restart for a loss has removed the routes by then.
        std::thread::sleep(Duration::from_secs(12));
        done.store(true, Relaxed);
        (rollout, watcher.join().expect("no panic"))
    });
    println!(
        "rolled out and 12 s more in {:.1?}; {looks} looks at the router, at least {least} next hops",
        begun.elapsed()
    );
    rollout.unwrap_or_else(|error| panic!("{error}\n{}", site.tail()));
    let new = site.kubectl(pods);
    assert!(new.split(' ').all(|uid| !old.contains(uid)), "not every pod is new: {old}, {new}");
    let reports = loads.map(|(address, load)| (address, load.finish()));
    for (address, report) in &reports {
        println!("{address} meanwhile: {report}");
    }
    for (_, report) in reports {
        assert!(report.failures.is_empty(), "{:#?}\n{}", report.failures, site.tail());
        assert!(report.requests > 500 && report.messages > 500, "hardly a load");
    }
    assert_eq!(least, NODES.len(), "a route went");
}

fn roll(site: &Site) -> Result<(), String> {
    for line in ["rollout restart daemonset/ironcast", "rollout status daemonset/ironcast --timeout=180s"] {
        site.cluster.kubectl(&[&["-n", SPACE], &line.split(' ').collect::<Vec<_>>()[..]].concat())?;
    }
    Ok(())
}

/// How often it looked, and the fewest next hops that an address had at the router meanwhile.
fn fewest_hops(fabric: &Fabric, addresses: [Ipv4Addr; 2], done: &AtomicBool) -> (usize, usize) {
    let (mut looks, mut least) = (0, NODES.len());
    while !done.load(Relaxed) {
        least = addresses
            .into_iter()
            .map(|address| fabric.next_hops("bird", &format!("{address}/32")).len())
            .fold(least, usize::min);
        looks += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    (looks, least)
}

/// As docs/operations.md says, in its order. One Service is deleted, one changes its type.
async fn uninstall(site: &Site, addresses: &[Ipv4Addr]) {
    site.kubectl("delete service web");
    site.kubectl_with(&["patch", "service", "local", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    for address in addresses {
        site.until_routed(*address, &[]).await;
    }
    let stop = r#"[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--on-shutdown=stop"}]"#;
    site.kubectl_with(&["-n", SPACE, "patch", "daemonset", "ironcast", "--type=json", "-p", stop]);
    site.kubectl("-n ironcast-system rollout status daemonset/ironcast --timeout=180s");
    let begun = Instant::now();
    let deploy = (file("deploy/manifests"), file("deploy/crds"));
    site.kubectl_with(&["delete", "-f", &deploy.0, "-f", &deploy.1, "--timeout=400s"]);
    println!("deleted in {:.1?}", begun.elapsed());
}

/// Neither at the API server nor on a node.
fn nothing_is_left(site: &Site, before: &[BTreeSet<String>; 3]) {
    let all = "get namespaces,crds,clusterroles,clusterrolebindings,flowschemas,prioritylevelconfigurations -o name";
    let left: Vec<String> =
        site.kubectl(all).lines().filter(|name| name.contains("ironcast")).map(Into::into).collect();
    assert!(left.is_empty(), "{left:?}");
    let services = site.kubectl("get services -A -o json");
    assert!(!services.contains("finalizers") && !services.contains("203.0.113"), "{services}");
    assert!(!services.contains("ironcast"), "{services}");
    for (node, before) in site.nodes.iter().zip(before) {
        let after = site.kernel(node.name);
        let [more, less] = [after.difference(before), before.difference(&after)].map(|d| d.collect::<Vec<_>>());
        assert!(more.is_empty() && less.is_empty(), "{}: more {more:#?}, less {less:#?}", node.name);
        // The kernel's own iterators may lie there.
        let pins: Vec<String> = names(&node.path("/sys/fs/bpf")).filter(|name| !name.ends_with(".debug")).collect();
        assert!(pins.is_empty(), "pinned on {}: {pins:?}", node.name);
        let state = ["/var/lib/ironcast", "/run/ironcast"].map(|path| names(&node.path(path)).collect::<Vec<_>>());
        println!("{}: as before; in /var/lib/ironcast and /run/ironcast are {state:?}", node.name);
    }
    let routes = Command::new("ip")
        .args(["-n", &site.fabric.name("bird"), "route", "show", "proto", "bird"])
        .output()
        .expect("ip runs");
    assert_eq!(String::from_utf8_lossy(&routes.stdout), "", "routes at the router");
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}
