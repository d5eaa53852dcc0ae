//! Nodes: each a host on the fabric with containerd, kubelet and kube-proxy in namespaces of its own (`node.sh`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    cluster::Cluster,
    fabric::{Fabric, v4},
    program::Program,
};

const CNI: &str = "/usr/lib/cni";

/// What is missing of a machine that is to run nodes, if anything.
pub(crate) fn missing() -> Option<String> {
    let absent = |program: &&str| Command::new(program).arg("--version").output().is_err();
    if let Some(program) = ["containerd", "runc", "ctr", "busybox", "jq"].iter().find(|program| absent(program)) {
        return Some(format!("no {program}: run tests/setup kubelets"));
    }
    if !Path::new(CNI).join("bridge").exists() {
        return Some("no CNI plugins: run tests/setup kubelets".into());
    }
    programs().is_none().then(|| "no kubelet: run tests/node/build once".into())
}

/// The folder with kubelet, kube-proxy and kube-scheduler.
pub(crate) fn programs() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/build");
    let output = Command::new(script).arg("--find").output().expect("tests/node/build runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().into())
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    program: Program,
    folder: PathBuf,
}

impl Node {
    /// Starts it. `folder` holds `images/*.tar` for all nodes; each keeps its own files in a folder of its name.
    pub(crate) fn start(fabric: &Fabric, cluster: &Cluster, (name, number): (&'static str, u8), folder: &Path) -> Self {
        let own = folder.join(name);
        fs::create_dir_all(own.join("cni")).expect("writable");
        let group = format!("/{}/{name}", group());
        for (file, text) in files(&own, number, &group) {
            fs::write(own.join(file), text).expect("writable");
        }
        fs::copy(cluster.kubeconfig(name), own.join("kubeconfig")).expect("written by the cluster");
        fs::copy(cluster.kubeconfig("admin"), own.join("admin.kubeconfig")).expect("written by the cluster");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubelets/node.sh");
        let mut command: Vec<_> =
            "unshare --mount --pid --fork --kill-child --mount-proc --ipc sh".split(' ').map(Into::into).collect();
        let programs = programs().expect("looked for before");
        command.extend([script.into(), own.clone().into(), name.into(), v4(number).to_string().into()]);
        command.extend([group.into(), programs.into()]);
        let program = Program::start(Some(&fabric.name(name)), &own.join("node.log"), &command).expect("sh runs");
        Self { name, program, folder: own }
    }

    /// A path of the node's own file system, seen from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let unshare = self.program.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("it runs");
        PathBuf::from(format!("/proc/{}/root{path}", children.trim()))
    }

    /// The ends of its logs.
    pub(crate) fn tail(&self) -> String {
        let logs = ["node", "containerd", "kube-proxy", "kubelet"].map(|name| {
            let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("-- {} {name}\n{}", self.name, lines[lines.len().saturating_sub(8)..].join("\n"))
        });
        logs.join("\n")
    }
}

/// The control group that holds all containers of this process's nodes.
pub(crate) fn group() -> String {
    format!("ironcast-kubelets-{}", std::process::id())
}

fn files(folder: &Path, number: u8, group: &str) -> [(&'static str, String); 4] {
    let cni = folder.join("cni");
    let containerd = format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/test/busybox:1"
  # runc does not get below the score of what started the test.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI}"
  conf_dir = "{}"
"#,
        cni.display()
    );
    let kubelet = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/plugins
resolvConf: /dev/null
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {group}
cgroupsPerQOS: false
enforceNodeAllocatable: []
oomScoreAdj: 0
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: '0%', nodefs.available: '0%', nodefs.inodesFree: '0%', imagefs.available: '0%'}}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
"
    );
    let proxy = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
clientConnection: {{kubeconfig: {}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        folder.join("admin.kubeconfig").display()
    );
    let network = format!(
        r#"{{"cniVersion": "0.4.0", "name": "pods", "plugins": [{{"type": "bridge", "bridge": "cni0", "isGateway": true,
 "hairpinMode": true, "ipam": {{"type": "host-local", "subnet": "10.244.{number}.0/24", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"#
    );
    [("containerd.toml", containerd), ("kubelet.yaml", kubelet), ("proxy.yaml", proxy), ("cni/pods.conflist", network)]
}
