//! Lines for a cluster, run against a real API server with the real daemon. No kubelet runs here: what kubelets would do with
//! the DaemonSet is done by [`Site::roll`].

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    blocks::{Block, blocks},
    rack::{Rack, clone, is_as_promised, programs},
    stages::{Line, Stage, filled, played},
};
use crate::{
    support::{
        cluster::{Cluster, Place},
        program::Program,
    },
    tools::{helm, run, text},
};

const SPACE: &str = "ironcast-system";
const POD: &str = "ironcast-x7x7x";
/// What a line may wait for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    // Order is the order of dropping.
    daemon: Option<Program>,
    cluster: Cluster,
    rack: Rack,
    helm: PathBuf,
    folder: PathBuf,
}

impl Site {
    async fn new() -> Option<Self> {
        let (helm, rack) = (helm()?, Rack::new()?);
        let place = Place { netns: Some(rack.fabric.name("node")), ..Place::default() };
        let cluster = Cluster::start_at(place).await?;
        let folder = cluster.folder().join("clone");
        clone(&folder);
        let node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n";
        cluster.apply(node).expect("a node");
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.10"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let status = status.to_string();
        cluster.kubectl(&["patch", "node", "node-1", "--subresource=status", "-p", &status]).expect("it is ready");
        Some(Self { daemon: None, cluster, rack, helm, folder })
    }

    /// Runs a line as it stands, but for words that stand for something, until it is well or the time is up.
    fn play(&mut self, line: &Line) {
        self.before(line);
        let words = [("NODE", "node-1"), ("POD", POD), ("DIR", "deploy/examples/dual-stack")];
        let text = without_kubelets(&filled(&line.text, &words));
        let begun = Instant::now();
        loop {
            let answer = self.shell(&text);
            match answer {
                Ok(printed) if is_as_promised(line, &printed) => break,
                answer if begun.elapsed() > PATIENCE => panic!("{line}\nran as {text}\n{answer:?}\n{}", self.tail()),
                _ => std::thread::sleep(Duration::from_millis(300)),
            }
        }
        println!("{line} ({:.1?})", begun.elapsed());
        self.after(line);
    }

    fn shell(&self, text: &str) -> Result<String, String> {
        let netns = format!("--net=/run/netns/{}", self.rack.fabric.name("node"));
        let mut shell = Command::new("nsenter");
        shell.arg(netns).args(["bash", "-euo", "pipefail", "-c", text]).current_dir(&self.folder);
        let helm = self.helm.parent().expect("in a folder");
        shell.env("PATH", programs(&[self.cluster.assets(), helm])).env("KUBECONFIG", self.cluster.kubeconfig("admin"));
        shell.env("HOME", self.cluster.folder()).env("IRONCAST_SOCKET", self.folder.join("admin.sock"));
        run(&mut shell)
    }

    fn before(&mut self, line: &Line) {
        if line.text.contains("rollout status") {
            self.roll();
        }
        if line.text.starts_with("helm uninstall") || line.text.starts_with("kubectl delete namespace") {
            self.daemon = None;
            let _ = self.cluster.kubectl(&["delete", "pod", POD, "-n", SPACE, "--force", "--grace-period=0"]);
        }
    }

    fn after(&mut self, line: &Line) {
        let defines =
            line.text.contains("apply") && line.text.contains("deploy/") || line.text.starts_with("helm upgrade");
        if defines {
            self.cluster
                .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"])
                .expect("established");
            self.cluster.apply(&readme()).expect("the pool, the peer and the advertisement of the README");
            self.roll();
        }
        if line.text.starts_with("ironcast router-config --for frr") {
            let config = self.shell("ironcast router-config --for bird").expect("the same for BIRD");
            self.rack.configure(&config, &self.folder);
        }
    }

    /// What kubelets do with a DaemonSet: its program runs on the node with its arguments, its Pod is there, and its status says
    /// so. The daemon has the rights of its ServiceAccount.
    fn roll(&mut self) {
        let Ok(set) = self.cluster.kubectl(&["get", "daemonset", "ironcast", "-n", SPACE, "-o", "json"]) else {
            return;
        };
        let set: Value = serde_json::from_str(&set).expect("JSON");
        if let Some(daemon) = self.daemon.take() {
            assert!(daemon.terminate(Duration::from_secs(15)), "{}", daemon.tail());
        }
        let arguments = set["spec"]["template"]["spec"]["containers"][0]["args"].as_array().expect("arguments");
        let at = |name: &str| self.folder.join(name).display().to_string();
        let own = format!(
            "--kubeconfig {} --node node-1 --datapath none --admin-socket {} --state-dir {} --pins {}",
            self.cluster.kubeconfig("daemon").display(),
            at("admin.sock"),
            at("state"),
            at("pins"),
        );
        let words = arguments.iter().map(|word| word.as_str().expect("words")).chain(own.split(' '));
        let command: Vec<_> = std::iter::once(env!("CARGO_BIN_EXE_ironcast")).chain(words).map(Into::into).collect();
        let log = self.folder.join("daemon.log");
        self.daemon = Some(Program::start(Some(&self.rack.fabric.name("node")), &log, &command).expect("sh runs"));
        self.pod(&set);
        let status = json!({"status": {
            "observedGeneration": set["metadata"]["generation"], "currentNumberScheduled": 1, "desiredNumberScheduled": 1,
            "numberAvailable": 1, "numberMisscheduled": 0, "numberReady": 1, "updatedNumberScheduled": 1,
        }});
        let patch = ["patch", "daemonset", "ironcast", "-n", SPACE, "--subresource=status", "--type=merge", "-p"];
        self.cluster.kubectl(&[&patch[..], &[&status.to_string()]].concat()).expect("patched");
    }

    fn pod(&self, set: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": POD, "namespace": SPACE, "labels": {"app.kubernetes.io/name": "ironcast"}, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ironcast", "uid": set["metadata"]["uid"], "controller": true}
            ]},
            "spec": {"nodeName": "node-1", "serviceAccountName": "ironcast", "automountServiceAccountToken": false,
                "containers": [{"name": "ironcast", "image": "ironcast"}]},
        });
        self.cluster.apply(&pod.to_string()).expect("a pod");
    }

    fn tail(&self) -> String {
        self.daemon.as_ref().map(Program::tail).unwrap_or_default()
    }

    /// A block of YAML that begins with the name of a file is that file.
    fn write_files(&self, of: &str) {
        for block in blocks().iter().filter(|block| block.file() == of && block.language == "yaml") {
            if let Some(name) =
                block.text.lines().next().and_then(|line| line.strip_prefix("# ")).filter(|n| n.ends_with(".yaml"))
            {
                fs::write(self.folder.join(name), &block.text).expect("written");
            }
        }
    }
}

/// What would wait for a kubelet, or for a namespace and definitions that the API server now and then takes minutes over.
fn without_kubelets(line: &str) -> String {
    if let Some((before, inside)) = line.split_once(" -- /ironcast ") {
        assert!(before.starts_with("kubectl ") && before.contains(" exec "), "{line}");
        return format!("ironcast {inside}");
    }
    line.replace("kubectl delete ", "kubectl delete --wait=false ")
}

fn readme() -> String {
    let block = blocks().into_iter().find(|block| block.file() == "README.md" && block.language == "yaml");
    block.expect("the README shows a pool, a peer and an advertisement").text
}

/// The documents in the order of a life: installed, used, removed.
fn in_order(stage: Stage) -> Vec<(Block, Vec<Line>)> {
    let mut all = played(stage);
    let key = |block: &Block| match block.file() {
        _ if block.text.contains("helm uninstall") => 3,
        "README.md" => 0,
        "docs/install.md" => 1,
        _ => 2,
    };
    all.sort_by_key(|(block, _)| key(block));
    all
}

#[tokio::test]
async fn lines_for_a_cluster_by_manifests_do_what_they_say() {
    let Some(mut site) = Site::new().await else { return };
    for (block, lines) in in_order(Stage::Manifests) {
        site.write_files(block.file());
        lines.iter().for_each(|line| site.play(line));
    }
}

#[tokio::test]
async fn lines_for_a_cluster_by_helm_do_what_they_say() {
    let Some(mut site) = Site::new().await else { return };
    predecessors(&site);
    let mut blocks = in_order(Stage::Chart);
    let last = blocks.pop().expect("the end");
    assert!(last.0.text.contains("helm uninstall"), "the last block is {}", last.0.place);
    for (block, lines) in blocks.into_iter().chain([last]) {
        site.write_files(block.file());
        lines.iter().for_each(|line| site.play(line));
    }
    for name in ["daemonset/ironcast", "serviceaccount/ironcast"] {
        site.cluster.kubectl(&["get", name, "-n", SPACE]).expect_err("uninstalled");
    }
}

/// MetalLB, kube-vip and the controller of Packet, as far as the API server knows them.
fn predecessors(site: &Site) {
    let kinds = [
        ("ipaddresspools", "IPAddressPool", "v1beta1"),
        ("bgppeers", "BGPPeer", "v1beta2"),
        ("bgpadvertisements", "BGPAdvertisement", "v1beta1"),
        ("bfdprofiles", "BFDProfile", "v1beta1"),
        ("communities", "Community", "v1beta1"),
        ("l2advertisements", "L2Advertisement", "v1beta1"),
    ];
    for (plural, kind, version) in kinds {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.metallb.io")},
            "spec": {"group": "metallb.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}, "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }]},
        });
        site.cluster.apply(&definition.to_string()).expect("a definition");
    }
    site.cluster
        .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"])
        .expect("established");
    site.cluster.apply(&text("tests/deploy/docs/predecessors.yaml")).expect("their objects");
}
