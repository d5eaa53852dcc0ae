//! A node of a cell: the real daemon on a folder of manifests of its own, so that cells know nothing of each other.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    cells::{BFD_KEY, Cell, Feature, RouterAs},
    link::{Link, vips},
    speaker::Speaking,
};
use crate::{
    admin::client,
    lab::{
        process::{Process, Spec},
        site::NODE_ASN,
    },
};

/// Our resources live here.
const SYSTEM: &str = "ironcast-system";
/// More Services of [`Cell::ExtendedMessages`]: with 17 octets each, more than fits a message of 4,096.
pub(super) const MANY: u16 = 300;
/// Where they get their addresses.
pub(super) const MORE: &str = "2001:db8:11::/118";
/// What a daemon says when it ends for good.
pub(super) const STOPPED: &str = "ironcast stopped on this node";
/// A daemon that was told to end does so within this.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// What SIGTERM means to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnShutdown {
    Restart,
    Stop,
}

/// The node.
pub(super) struct Node {
    pub(super) link: Link,
    folder: PathBuf,
    logs: PathBuf,
    /// What it runs.
    program: PathBuf,
    daemon: Option<Process>,
    speaker: Option<Speaking>,
}

impl Node {
    /// Writes its manifests below `folder`, where nodes of the same cell share one.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn new(link: Link, folder: &Path, logs: &Path, program: &Path) -> anyhow::Result<Self> {
        let (folder, logs, program) = (folder.join("nodes"), logs.into(), program.into());
        let node = Self { link, folder, logs, program, daemon: None, speaker: None };
        std::fs::create_dir_all(node.manifests())?;
        std::fs::create_dir_all(node.state_dir())?;
        node.write("service", &services(&node.link))?;
        node.write(&node.link.node(), &peering(&node.link, node.link.terms.node_key))?;
        Ok(node)
    }

    /// Tells the node another key; the daemon takes it up while it runs.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn set_key(&self, key: &str) -> anyhow::Result<()> {
        self.write(&self.link.node(), &peering(&self.link, Some(key)))
    }

    /// Starts the daemon, or what stands for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) async fn start(&mut self, on_shutdown: OnShutdown) -> anyhow::Result<()> {
        if self.link.terms.has(Feature::Crate) {
            self.speaker = Some(Speaking::start(&self.link).await?);
            return Ok(());
        }
        let name = self.link.node();
        let mut arguments: Vec<String> =
            ["run", "--node", &name, "--vip-interface", "none", "--admin", "none"].map(str::to_owned).to_vec();
        for (flag, path) in
            [("--manifests", self.manifests()), ("--admin-socket", self.socket()), ("--state-dir", self.state_dir())]
        {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        let how = match on_shutdown {
            OnShutdown::Restart => "restart",
            OnShutdown::Stop => "stop",
        };
        arguments.extend(["--on-shutdown", how].map(str::to_owned));
        let spec = Spec { name: &name, namespace: &self.link.namespace, program: &self.program, arguments };
        self.daemon = Some(Process::start(&spec, &self.logs)?);
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub(super) async fn terminate(&mut self) -> anyhow::Result<()> {
        if self.speaker.take().is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let mut daemon = self.daemon.take().context("it was just there")?;
        let deadline = Instant::now() + ENDS_WITHIN;
        while daemon.ended().is_none() {
            if Instant::now() > deadline {
                bail!("{} does not end", self.link.node());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// # Errors
    /// There is no daemon.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.daemon.as_ref().and_then(Process::id).and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.with_context(|| format!("{} has no daemon", self.link.node()))?, signal)?;
        Ok(())
    }

    /// An error if the daemon should run and does not.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Process::must_run)
    }

    /// Its words on why the session is not up.
    pub(super) async fn last_error(&self) -> Option<String> {
        match &self.speaker {
            Some(speaker) => speaker.last_error(),
            None => {
                let state = client::state(&self.socket()).await.ok()?;
                state.sessions.into_iter().find_map(|session| session.last_error)
            }
        }
    }

    fn manifests(&self) -> PathBuf {
        self.folder.join(self.link.cell.name())
    }

    fn state_dir(&self) -> PathBuf {
        self.folder.join(format!("{}.state", self.link.node()))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.sock", self.link.number))
    }

    /// Whole or not at all: a daemon never reads half a file.
    fn write(&self, name: &str, objects: &[Value]) -> anyhow::Result<()> {
        let texts: Result<Vec<String>, _> = objects.iter().map(serde_norway::to_string).collect();
        let (path, half) = (self.manifests().join(format!("{name}.yaml")), self.folder.join(format!("{name}.half")));
        std::fs::write(&half, texts?.join("---\n")).with_context(|| format!("write {}", half.display()))?;
        std::fs::rename(&half, &path).with_context(|| format!("write {}", path.display()))
    }
}

fn ours(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "ironcast.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": SYSTEM}, "spec": spec,
    })
}

fn secret(name: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
        "metadata": {"name": name, "namespace": SYSTEM}, "stringData": {"password": key},
    })
}

/// The node and its session with the router.
fn peering(link: &Link, key: Option<&str>) -> Vec<Value> {
    let (name, terms) = (link.node(), &link.terms);
    let labels = json!({"kubernetes.io/hostname": name});
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {
            "addresses": link.at_node().map(|ip| json!({"type": "InternalIP", "address": ip})),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let mut spec = json!({
        "myASN": NODE_ASN,
        "holdTime": "9s", "keepaliveTime": "3s", "connectTime": "1s",
        "enableGracefulRestart": terms.has(Feature::GracefulRestart),
        "dualStackAddressFamily": terms.families.len() == 2,
        "nodeSelectors": [{"matchLabels": labels}],
    });
    match terms.router_as {
        RouterAs::Exactly(asn) => spec["peerASN"] = asn.into(),
        RouterAs::External => spec["dynamicASN"] = "external".into(),
        RouterAs::Internal => spec["dynamicASN"] = "internal".into(),
    }
    if let Some(asn) = terms.local_as {
        spec["localASN"] = asn.into();
        spec["localASNMode"] = if link.cell == Cell::LocalAsPrepend { "prepend" } else { "replace" }.into();
    }
    let mut objects = vec![node];
    match terms.has(Feature::LinkLocalOnly) {
        true => spec["interface"] = "eth0".into(),
        false => spec["peerAddress"] = link.gateway().to_string().into(),
    }
    if terms.has(Feature::RouterProvider) || terms.has(Feature::RouterCustomer) {
        spec["role"] = "customer".into();
    }
    if terms.has(Feature::AddPath) {
        spec["addPath"] = "send".into();
    }
    if terms.has(Feature::NodeGtsm) {
        spec["ttlSecurity"] = 1.into();
    }
    if terms.has(Feature::MultiHop) {
        spec["ebgpMultiHop"] = true.into();
        spec["sourceAddress"] = link.neighbor().to_string().into();
    }
    if terms.has(Feature::Bfd) {
        spec["bfdProfile"] = "lab".into();
        // BIRD sends multi-hop packets with TTL 64.
        let mut profile =
            json!({"receiveInterval": 300, "transmitInterval": 300, "detectMultiplier": 3, "minimumTtl": 60});
        if terms.has(Feature::BfdSigned) {
            profile["authentication"] = json!({"type": "meticulousKeyedSHA1", "keyID": 1, "secret": {"name": "bfd"}});
            objects.push(secret("bfd", BFD_KEY));
        }
        objects.push(ours("BFDProfile", "lab", profile));
    }
    if let Some(key) = key {
        spec["passwordSecret"] = json!({"name": "tor"});
        objects.push(secret("tor", key));
    }
    objects.push(ours("BGPPeer", &name, spec));
    objects
}

/// The pool, the advertisement and the Services of a cell.
fn services(link: &Link) -> Vec<Value> {
    let [v4, v6] = vips(link.first);
    let many = link.cell == Cell::ExtendedMessages;
    let mut ranges = vec![format!("{v4}/32"), format!("{v6}/128")];
    if many {
        ranges.push(MORE.to_owned());
    }
    let mut advertisement = json!({"ipAddressPools": ["pool"]});
    if link.cell == Cell::Communities {
        advertisement["communities"] = json!(COMMUNITIES);
    }
    if link.cell == Cell::LinkBandwidth {
        advertisement["linkBandwidth"] = "nonTransitive".into();
    }
    let mut objects = vec![
        ours("IPAddressPool", "pool", json!({"addresses": ranges})),
        ours("BGPAdvertisement", "all", advertisement),
    ];
    objects.extend(service(link, "web", Some(format!("{v4},{v6}"))));
    if many {
        for i in 0..MANY {
            objects.extend(service(link, &format!("more-{i}"), None));
        }
    }
    objects
}

/// What [`Cell::Communities`] announces with.
pub(super) const COMMUNITIES: [&str; 4] = ["65000:100", "no-export", "large:64500:1:2", "large:4200000000:7:8"];

/// A Service with a pod on the node, and with both addresses of the pool or any IPv6 address of it.
fn service(link: &Link, name: &str, requested: Option<String>) -> [Value; 3] {
    let (policy, families, annotations) = match requested {
        Some(ips) => ("RequireDualStack", json!(["IPv4", "IPv6"]), json!({"ironcast.dev/load-balancer-ips": ips})),
        None => ("SingleStack", json!(["IPv6"]), json!({})),
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {
            "type": "LoadBalancer", "ipFamilyPolicy": policy, "ipFamilies": families,
            "externalTrafficPolicy": if link.cell == Cell::LinkBandwidth { "Local" } else { "Cluster" },
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
    });
    let slice = |family: &str, prefix: &str| {
        let endpoint = |(i, node): (usize, String)| json!({"addresses": [format!("{prefix}{}", i + 1)], "nodeName": node, "conditions": {"ready": true}});
        let endpoints: Vec<Value> = pods(link).into_iter().enumerate().map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", family.to_lowercase()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        })
    };
    [service, slice("IPv4", "10.78.0."), slice("IPv6", "fd00:78::")]
}

/// The node of each pod: three pods on the first and one on the second where weights are to show it.
fn pods(link: &Link) -> Vec<String> {
    let first = link.cell.name().to_owned();
    match link.cell {
        Cell::LinkBandwidth => vec![first.clone(), first.clone(), first.clone(), format!("{first}-2")],
        _ => vec![first],
    }
}
