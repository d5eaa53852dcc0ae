//! The chart as helm renders it.

use std::{path::Path, process::Command};

use clap::Parser;
use ironcast::cli::Cli;
use serde_json::Value;

use crate::tools::{documents, helm, kind_and_name, path, run, text};

const HEAD: &str = "# Rendered from deploy/chart with its default values by `make manifests`: edit there. One daemon per node.\n\
    # The definitions stand in deploy/crds:\n\
    #   kubectl apply --server-side -f deploy/crds -f deploy/manifests\n";

/// Every value that puts something into the objects of the API server's own kinds.
pub(crate) const FULL: &[&str] = &[
    "image.repository=registry.example:5000/net/ironcast",
    "image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "image.pullPolicy=Always",
    "image.pullSecrets[0]=registry",
    "namespace.labels.team=net",
    "daemon.loadBalancerClass=ironcast.dev/bgp",
    "daemon.unclassed=true",
    "daemon.ignoreExcludeLabel=true",
    "daemon.datapath=generic",
    "daemon.delivery=bypass",
    "daemon.uplinks={eth0,bond0.100}",
    "daemon.maxFlows=65536",
    "daemon.listen={0.0.0.0,[::]:1179}",
    "daemon.bmp={192.0.2.9:11019}",
    "daemon.drainWait=0",
    "daemon.onCordon=ignore",
    "daemon.maintenanceTaints={repair,power=off}",
    "daemon.onShutdown=stop",
    "daemon.logFormat=text",
    "daemon.logFilter=info\\,ironcast_bgp=debug",
    "daemon.clusterSecret.name=ironcast-cluster",
    "daemon.extraArgs={--router-id=192.0.2.1}",
    "caCertificates.configMap=cas",
    "admin.address=0.0.0.0:7473",
    "admin.public=true",
    "monitoring.dashboard.enabled=true",
    "networkPolicy.enabled=true",
    "serviceAccount.annotations.a=b",
    "updateStrategy.maxUnavailable=10%",
    "podAnnotations.a=b",
    "podLabels.a=b",
    "seccompProfile.type=Localhost",
    "seccompProfile.localhostProfile=ironcast.json",
    "seLinuxOptions.type=spc_t",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=edge",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
];

/// A rendering without the empty lines, which differ between versions of helm.
pub(crate) fn render(helm: &Path, chart: &Path, more: &[&str]) -> Result<String, String> {
    render_as(helm, "ironcast", chart, more)
}

fn render_as(helm: &Path, release: &str, chart: &Path, more: &[&str]) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.args(["template", release]).arg(chart).args(["--namespace", "ironcast-system"]).args(more);
    let rendered = run(&mut command)?;
    Ok(rendered.lines().filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect())
}

fn with(values: &[&str]) -> Vec<String> {
    values.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect()
}

fn render_with(helm: &Path, values: &[&str]) -> Result<String, String> {
    let flags = with(values);
    render(helm, &path("deploy/chart"), &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Everything at once, in the namespace that it makes.
pub(crate) fn render_full(helm: &Path) -> String {
    render_with(helm, &[FULL, &["namespace.create=true"]].concat()).expect("the values are right")
}

fn manifests(helm: &Path) -> String {
    let values = path("deploy/chart/manifests.yaml");
    let values = values.to_str().expect("UTF-8");
    render(helm, &path("deploy/chart"), &["--values", values]).expect("the chart renders")
}

/// `make manifests` writes it anew.
#[test]
fn manifests_are_the_rendering_of_the_chart() {
    let Some(helm) = helm() else { return };
    let rendered = format!("{HEAD}{}", manifests(&helm));
    if std::env::var_os("UPDATE_MANIFESTS").is_some() {
        std::fs::write(path("deploy/manifests/ironcast.yaml"), &rendered).expect("written");
    }
    let stored = text("deploy/manifests/ironcast.yaml");
    let differs = stored.lines().zip(rendered.lines()).find(|(a, b)| a != b);
    assert!(stored == rendered, "deploy/manifests is out of date, run `make manifests`: {differs:?}");
}

#[test]
fn default_rendering_is_the_manifests_and_the_definitions() {
    let Some(helm) = helm() else { return };
    let mut all = documents(&text("deploy/manifests/ironcast.yaml")).expect("YAML");
    for file in std::fs::read_dir(path("deploy/crds")).expect("a folder") {
        let file = file.expect("readable").path();
        if file.extension().is_some_and(|e| e == "yaml") {
            all.extend(documents(&std::fs::read_to_string(file).expect("readable")).expect("YAML"));
        }
    }
    let mut rendered = documents(&render_with(&helm, &["crds.keep=false"]).expect("renders")).expect("YAML");
    all.retain(|object| object["kind"] != "Namespace"); // helm's own business
    for objects in [&mut all, &mut rendered] {
        objects.sort_by_key(kind_and_name);
    }
    let names = |objects: &[Value]| objects.iter().map(kind_and_name).collect::<Vec<_>>();
    assert_eq!(names(&all), names(&rendered));
    for (stored, rendered) in all.iter().zip(&rendered) {
        assert_eq!(stored, rendered);
    }
}

#[test]
fn same_values_give_the_same_octets_wherever_and_whenever() {
    let Some(helm) = helm() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    run(Command::new(&helm).arg("package").arg(path("deploy/chart")).arg("-d").arg(folder.path())).expect("packed");
    let packed = folder.path().join("ironcast-0.1.0.tgz");
    let flags = with(FULL);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let first = render(&helm, &path("deploy/chart"), &flags).expect("renders");
    assert_eq!(first, render(&helm, &path("deploy/chart"), &flags).expect("renders"));
    assert_eq!(first, render(&helm, &packed, &flags).expect("a package holds the linked folders too"));
    assert_eq!(first, render_as(&helm, "another", &path("deploy/chart"), &flags).expect("renders"));
    for file in std::fs::read_dir(path("deploy/chart/templates")).expect("a folder") {
        let file = file.expect("readable").path();
        let template = std::fs::read_to_string(&file).expect("readable");
        for word in ["rand", "lookup", "genCA", "genSelfSigned", "uuidv4", "now ", "htpasswd", "Release.Name "] {
            assert!(!template.contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    let Some(helm) = helm() else { return };
    for values in [&[][..], FULL] {
        let mut lint = Command::new(&helm);
        lint.args(["lint", "--strict"]).arg(path("deploy/chart")).args(with(values));
        run(&mut lint).unwrap_or_else(|error| panic!("{values:?}: {error}"));
    }
}

/// Values, and what the refusal says.
const REFUSED: &[(&[&str], &str)] = &[
    (&["image.tga=1"], "additional properties 'tga' not allowed"),
    (&["imagee.tag=1"], "additional properties 'imagee' not allowed"),
    (&["image.pullPolicy=Sometimes"], "/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
    (&["image.digest=sha256:12"], "/image/digest': 'sha256:12' does not match pattern"),
    (&["daemon.datapath=ebpf"], "/daemon/datapath': value must be one of 'auto', 'xdp', 'generic', 'tcx', 'none'"),
    (&["daemon.delivery=fast"], "/daemon/delivery'"),
    (&["daemon.maxFlows=10"], "/daemon/maxFlows': minimum: got 10, want 1,024"),
    (&["daemon.maxFlows=many"], "/daemon/maxFlows': got string, want"),
    (&["daemon.unclassed=maybe"], "/daemon/unclassed'"),
    (&["daemon.unclassed=false"], "leaves no Service to take: add the class"),
    (&["daemon.bmp={station}"], "/daemon/bmp/0'"),
    (&["daemon.listen={eth0}"], "/daemon/listen/0'"),
    (&["daemon.onCordon=maybe"], "/daemon/onCordon'"),
    (&["daemon.onShutdown=never"], "/daemon/onShutdown'"),
    (&["daemon.extraArgs={router-id}"], "/daemon/extraArgs/0'"),
    (&["daemon.clusterSecret.value=x"], "additional properties 'value' not allowed"),
    (&["admin.address=localhost"], "/admin/address'"),
    (&["admin.address=0.0.0.0:7472"], "has no authentication: use a loopback address, or set admin.public: true"),
    (&["admin.address=10.0.0.1:7472"], "has no authentication"),
    (&["monitoring.podMonitor.enabled=true"], "Prometheus does not reach admin.address 127.0.0.1:7472"),
    (&["monitoring.podMonitor.interval=often"], "/monitoring/podMonitor/interval'"),
    (&["monitoring.serviceMonitor.enabled=true"], "monitoring.serviceMonitor.enabled: Prometheus does not reach"),
    (&["monitoring.serviceMonitor.interval=often"], "/monitoring/serviceMonitor/interval'"),
    (
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.serviceMonitor.enabled=true",
            "admin.address=0.0.0.0:7472",
            "admin.public=true",
        ],
        "enable one of them",
    ),
    (&["updateStrategy.maxUnavailable=0"], "/updateStrategy/maxUnavailable'"),
    (&["updateStrategy.maxUnavailable=0%"], "/updateStrategy/maxUnavailable'"),
    (&["terminationGracePeriodSeconds=0"], "/terminationGracePeriodSeconds'"),
    (&["priorityAndFairness.nominalConcurrencyShares=0"], "/priorityAndFairness/nominalConcurrencyShares'"),
    (&["podLabels.a=1"], "/podLabels/a': got number, want string"),
    (&["seccompProfile.type=Custom"], "/seccompProfile/type'"),
    (&["seccompProfile.type=Localhost"], "localhostProfile belongs to type Localhost"),
    (&["seccompProfile.localhostProfile=a.json"], "localhostProfile belongs to type Localhost"),
    (&["crds.enabled=yes"], "/crds/enabled': got string, want boolean"),
];

#[test]
fn wrong_values_are_refused_with_their_name() {
    let Some(helm) = helm() else { return };
    let mut wrong = Vec::new();
    for (values, fragment) in REFUSED {
        match render_with(&helm, values) {
            Ok(_) => wrong.push(format!("{values:?} was accepted")),
            Err(error) if !error.contains(fragment) => wrong.push(format!("{values:?}: no {fragment:?} in {error}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn daemon(rendered: &str) -> Value {
    let all = documents(rendered).expect("YAML");
    all.into_iter().find(|object| object["kind"] == "DaemonSet").expect("a DaemonSet")
}

fn arguments(daemon: &Value) -> Vec<String> {
    serde_json::from_value(daemon["spec"]["template"]["spec"]["containers"][0]["args"].clone()).expect("words")
}

#[test]
fn arguments_are_those_that_the_daemon_knows() {
    let Some(helm) = helm() else { return };
    for values in [&[][..], FULL] {
        let arguments = arguments(&daemon(&render_with(&helm, values).expect("renders")));
        let line = std::iter::once("ironcast").chain(arguments.iter().map(String::as_str));
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    }
    let all = arguments(&daemon(&render_with(&helm, FULL).expect("renders"))).join(" ");
    assert_eq!(
        all,
        "run --log-format=text --load-balancer-class=ironcast.dev/bgp --unclassed=true --ignore-exclude-label \
         --datapath=generic --delivery=bypass --uplink=eth0 --uplink=bond0.100 --max-flows=65536 --listen=0.0.0.0 \
         --listen=[::]:1179 --bmp=192.0.2.9:11019 --drain-wait=0 --on-cordon=ignore \
         --maintenance-taint=repair --maintenance-taint=power=off --on-shutdown=stop --cluster-secret=/etc/ironcast/cluster-secret \
         --admin=0.0.0.0:7473 --admin-public --router-id=192.0.2.1"
    );
}

/// Capabilities by what the daemon is told to do.
#[test]
fn capabilities_are_those_that_the_mode_needs() {
    let Some(helm) = helm() else { return };
    let path = ["NET_ADMIN", "BPF", "PERFMON", "NET_RAW", "SYS_NICE"];
    let cases: [(&[&str], &[&str]); 5] = [
        (&[], &path),
        (&["daemon.datapath=generic"], &path),
        (&["daemon.datapath=none"], &["NET_ADMIN", "NET_RAW", "SYS_NICE"]),
        (&["daemon.listen={0.0.0.0}"], &["NET_ADMIN", "BPF", "PERFMON", "NET_RAW", "NET_BIND_SERVICE", "SYS_NICE"]),
        (
            &["daemon.listen={0.0.0.0}", "daemon.datapath=none"],
            &["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_NICE"],
        ),
    ];
    for (values, expected) in cases {
        let set = daemon(&render_with(&helm, values).expect("renders"));
        let context = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"]["add"], serde_json::json!(expected), "{values:?}");
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(context["seccompProfile"], serde_json::json!({ "type": "RuntimeDefault" }));
    }
}

/// `admin.address` and where the kubelet looks.
#[test]
fn kubelet_probes_where_the_admin_port_is() {
    let Some(helm) = helm() else { return };
    let cases = [
        ("127.0.0.1:7472", "127.0.0.1", 7472),
        ("0.0.0.0:1", "127.0.0.1", 1),
        ("[::]:7473", "127.0.0.1", 7473),
        ("[::1]:7473", "::1", 7473),
        ("10.0.0.1:7473", "10.0.0.1", 7473),
    ];
    for (address, host, port) in cases {
        let value = format!("admin.address={address}");
        let rendered = render_with(&helm, &[&value, "admin.public=true"]).expect("renders");
        let container = daemon(&rendered)["spec"]["template"]["spec"]["containers"][0].clone();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["host"], &get["port"]), (&host.into(), &port.into()), "{address} {probe}");
        }
    }
}

/// What either kind of monitor selects, and the port that it names, are there.
#[test]
fn monitors_find_the_port_of_the_daemons() {
    let Some(helm) = helm() else { return };
    for (value, kind, endpoints) in
        [("podMonitor", "PodMonitor", "podMetricsEndpoints"), ("serviceMonitor", "ServiceMonitor", "endpoints")]
    {
        let enabled = format!("monitoring.{value}.enabled=true");
        let labelled = format!("monitoring.{value}.labels.team=net");
        let values = ["admin.address=0.0.0.0:7473", "admin.public=true", &enabled, &labelled];
        let rendered = documents(&render_with(&helm, &values).expect("renders")).expect("YAML");
        let of = |kind: &str| rendered.iter().find(|object| object["kind"] == kind);
        let pod = &of("DaemonSet").expect("there")["spec"]["template"];
        let service = of("Service");
        let monitor = of(kind).expect("enabled");
        let selected = match kind {
            "PodMonitor" => pod,
            _ => service.expect("what a ServiceMonitor selects"),
        };
        let wanted = &monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
        assert_eq!(wanted, &selected["metadata"]["labels"]["app.kubernetes.io/name"], "{kind}");
        assert_eq!(monitor["metadata"]["labels"]["team"], "net");
        let endpoint = &monitor["spec"][endpoints][0];
        assert_eq!((&endpoint["path"], &endpoint["interval"]), (&"/metrics".into(), &"30s".into()), "{kind}");
        let port = &pod["spec"]["containers"][0]["ports"][0];
        assert_eq!((&port["name"], &port["containerPort"]), (&endpoint["port"], &7473.into()), "{kind}");
        let Some(service) = service else { continue };
        assert_eq!(kind, "ServiceMonitor", "nobody else needs a Service");
        let job = monitor["spec"]["jobLabel"].as_str().expect("the Service's name is no job that alerts know");
        assert_eq!(service["metadata"]["labels"][job], "ironcast");
        let exposed = &service["spec"]["ports"][0];
        assert_eq!(exposed["name"], endpoint["port"]);
        assert_eq!((&exposed["port"], &exposed["targetPort"]), (&7473.into(), &port["name"]));
        assert_eq!(
            service["spec"]["selector"]["app.kubernetes.io/name"],
            pod["metadata"]["labels"]["app.kubernetes.io/name"]
        );
    }
}

#[test]
fn no_secret_is_ever_made_and_only_named_ones_are_mounted() {
    let Some(helm) = helm() else { return };
    for values in [&[][..], FULL] {
        let rendered = render_with(&helm, values).expect("renders");
        assert!(documents(&rendered).expect("YAML").iter().all(|object| object["kind"] != "Secret"));
    }
    let all = daemon(&render_with(&helm, FULL).expect("renders"));
    let volumes = all["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes").clone();
    let named: Vec<&Value> = volumes.iter().filter_map(|v| v["secret"].get("secretName")).collect();
    assert_eq!(named, ["ironcast-cluster"]);
}
