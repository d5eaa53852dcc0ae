//! `docs/configuration.md` is made of the definitions, the flags and the annotations, so that it cannot lag behind them.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory};
use ironcast::{
    announce::policy::CONNECT_RETRY,
    cli::Cli,
    provider::claims::Timing,
    source::{
        api::{BFDProfile, BFDProfileSpec, BGPPeer, BGPPeerSpec, crds},
        convert::{self, ANNOTATIONS, Annotation},
    },
    types::DEVICE_STATE,
};
use serde_json::Value;

use crate::tools::{path, text};

const HEAD: &str = "# Configuration reference

Every field of every resource, what is read of Services, every annotation, every flag of `ironcast run`. `make reference` writes this page from the program's own types;
a test compares. The values of the chart stand in [values.yaml](../deploy/chart/values.yaml). `kubectl explain ipaddresspool.spec` says the same on a cluster.

All resources are `ironcast.dev/v1alpha1` and are read from the daemon's own namespace (`ironcast-system`). **required** fields must be there where
what holds them is there; all others may be left out. A duration is written as in Go: `90s`, `1m30s`, `1500ms`. A label selector is Kubernetes' own (`matchLabels`, `matchExpressions`).
A list is written `field[]`. What breaks a rule is refused by the API server; in a folder of manifests by the daemon, in its own words (`ironcast check`).
";

/// Kinds that people write come first, in the order in which they are needed.
const KINDS: [&str; 8] = [
    "IPAddressPool",
    "BGPPeer",
    "BGPAdvertisement",
    "Community",
    "BFDProfile",
    "ProviderConfig",
    "AddressClaim",
    "BGPNodeStatus",
];

/// Annotations of Nodes: `NAME` is that of a BGPPeer.
const OF_NODES: [Annotation; 5] = [
    Annotation {
        names: &["NAME.ironcast.dev/address"],
        value: "address",
        meaning: "the node's router, for the BGPPeer NAME with `peerAddressFrom: nodeAnnotation`",
    },
    Annotation {
        names: &["NAME.ironcast.dev/asn"],
        value: "AS number",
        meaning: "stands for `peerASN` of that BGPPeer",
    },
    Annotation {
        names: &["NAME.ironcast.dev/my-asn"],
        value: "AS number",
        meaning: "stands for `myASN` of that BGPPeer",
    },
    Annotation {
        names: &["ironcast.dev/device"],
        value: "id",
        meaning: "the node's machine at the provider, where `providerID` does not say it",
    },
    Annotation {
        names: &[DEVICE_STATE],
        value: "word",
        meaning: "state of that machine, written by the leader; anything but `Active` lets the node announce nothing (`deviceUnavailable`)",
    },
];

/// Fields of a Service's `spec` that are read, and what they mean here.
const OF_SERVICES: [(&str, &str); 11] = [
    ("type", "`LoadBalancer`, or the Service is none of ours"),
    (
        "loadBalancerClass",
        "ours, or none, as the flags `--load-balancer-class` and `--unclassed` say; another's is never touched",
    ),
    ("loadBalancerIP", "asks for an address, as the annotation does"),
    (
        "ipFamilies",
        "families of its addresses, in this order. In a folder of manifests absent means those of `clusterIPs`, else of the addresses asked for, else IPv4",
    ),
    (
        "ipFamilyPolicy",
        "`RequireDualStack` has both addresses or none, `PreferDualStack` takes one where the other cannot be had",
    ),
    ("clusterIPs", "families, where `ipFamilies` is absent"),
    (
        "externalTrafficPolicy",
        "`Cluster`: every node announces while some endpoint takes traffic. `Local`: the nodes whose own endpoints do. The client's address is kept either way where the packet path carries packets",
    ),
    ("ports", "what the packet path takes; sharing an address needs different ones"),
    ("selector", "sharing with the policy `Local` needs the same one"),
    ("sessionAffinity", "`ClientIP`: the packet path chooses the endpoint by the client's address"),
    (
        "loadBalancerSourceRanges",
        "who may come. kube-proxy sees to it, so the packet path leaves the Service's packets to it",
    ),
];

/// `make reference` writes it anew.
#[test]
fn reference_says_what_the_types_say() {
    let made = reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(path("docs/configuration.md"), &made).expect("written");
    }
    let stored = std::fs::read_to_string(path("docs/configuration.md")).unwrap_or_default();
    let differs = stored.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(stored == made, "docs/configuration.md is out of date, run `make reference`: {differs:?}");
}

/// Where a field is absent, the meaning of its absence stands in words; the numbers among them are those of the daemon.
#[test]
fn defaults_in_words_are_those_of_the_daemon() {
    let page = reference();
    let says = |field: &str, default: &str| {
        let row = page.lines().find(|line| line.contains(&format!("`spec.{field}`"))).expect("a row");
        assert_eq!(row.split('|').nth(3).expect("a default").trim(), default, "{row}");
    };
    let profile =
        convert::bfd_profile(&BFDProfile::new("fast", BFDProfileSpec::default())).value.expect("valid").profile;
    says("receiveInterval", &profile.receive.as_millis().to_string());
    says("transmitInterval", &profile.transmit.as_millis().to_string());
    says("detectMultiplier", &profile.detect_mult.to_string());
    let spec = BGPPeerSpec {
        my_asn: 64512,
        peer_asn: Some(64500),
        peer_address: Some("192.0.2.1".into()),
        ebgp_multi_hop: true,
        ..BGPPeerSpec::default()
    };
    let peer = convert::peer(&BGPPeer::new("tor", spec)).value.expect("valid").peer;
    says("peerPort", &peer.port.to_string());
    says("holdTime", &format!("{}s", peer.hold_time.duration().expect("on").as_secs()));
    says("ebgpMultiHopTTL", &peer.multihop.expect("set").to_string());
    says("connectTime", &format!("{}s", CONNECT_RETRY.as_secs()));
    let timing = Timing::default();
    says("settleTime", &format!("{}s", timing.settle.as_secs()));
    says("releaseDelay", &format!("{}s", timing.withdraw.as_secs()));
    says("refreshInterval", &format!("{}m", timing.refresh.as_secs() / 60));
}

#[test]
fn fields_of_services_are_those_that_are_read() {
    let source = text("src/source/convert/service.rs");
    for (field, _) in OF_SERVICES {
        let rust = match field {
            "type" => "type_".to_owned(),
            "clusterIPs" => "cluster_ips".to_owned(),
            "loadBalancerIP" => "load_balancer_ip".to_owned(),
            field => field
                .chars()
                .flat_map(|c| c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase()))
                .collect(),
        };
        assert!(source.contains(&format!("spec.{rust}")), "{field}");
    }
}

/// The annotations of nodes are named in more than one module.
#[test]
fn annotations_of_nodes_are_those_that_are_read() {
    let sources = ["src/provider/node.rs", "src/plan/found.rs", "src/types.rs"].map(text).concat();
    let templates = sources.contains("\"{}.ironcast.dev/{what}\"");
    for annotation in OF_NODES {
        let name = annotation.names[0];
        match name.strip_prefix("NAME.ironcast.dev/") {
            Some(what) => assert!(templates && sources.contains(&format!("\"{what}\"")), "{name}"),
            None => assert!(sources.contains(&format!("\"{name}\"")), "{name}"),
        }
    }
}

fn reference() -> String {
    let mut page = HEAD.to_owned();
    let definitions: Vec<Value> =
        crds().iter().map(|crd| serde_json::to_value(crd).expect("a definition is plain data")).collect();
    assert_eq!(definitions.len(), KINDS.len(), "the page leaves out a kind");
    for kind in KINDS {
        let definition = definitions.iter().find(|d| d["spec"]["names"]["kind"] == kind).expect("one of each");
        page += &of_kind(kind, definition);
    }
    page + &services() + &annotations() + &flags()
}

fn of_kind(kind: &str, definition: &Value) -> String {
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let short = definition["spec"]["names"]["shortNames"][0].as_str().expect("a short name");
    let mut section = format!("\n## {kind}\n\n{} `kubectl get {short}`.\n", sentence(&schema["description"]));
    for part in ["spec", "status"] {
        let mut rows = Vec::new();
        fields(part, &schema["properties"][part], &mut rows);
        if rows.is_empty() {
            continue;
        }
        let written = if part == "status" { "\nWritten by the daemon:\n" } else { "" };
        let _ = write!(section, "{written}\n| field | type | default | allowed | meaning |\n|---|---|---|---|---|\n");
        rows.iter().for_each(|row| section += row);
        section += &rules(&schema["properties"][part]);
    }
    section
}

/// A row for each field, and below it those that it holds.
fn fields(path: &str, schema: &Value, rows: &mut Vec<String>) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|n| n == name));
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let (item, many) = if field["type"] == "array" { (&field["items"], "[]") } else { (field, "") };
        let path = format!("{path}.{name}{many}");
        let (meaning, default) = default(field, required(name) && !path.starts_with("status"));
        assert!(!meaning.is_empty() && meaning != format!("`{name}`."), "{path} says nothing of itself");
        let (kind, inner) = kind(item);
        let allowed = cell(&allowed(field, item));
        rows.push(format!("| `{path}` | {kind} | {default} | {allowed} | {} |\n", cell(&meaning)));
        if inner {
            fields(&path, item, rows);
        }
    }
}

/// The meaning without `Default: …`, and the default: the schema's own, else the description's last sentence.
fn default(field: &Value, required: bool) -> (String, String) {
    let text = sentence(&field["description"]);
    let (meaning, said) = match text.rsplit_once("Default: ") {
        Some((meaning, said)) => (meaning.trim_end().to_owned(), said.trim_end_matches('.').to_owned()),
        None => (text, String::new()),
    };
    let own = field.get("default").filter(|value| !value.is_object() && !value.is_array());
    let default = match own {
        _ if required => "**required**".to_owned(),
        Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        None => said,
    };
    (meaning, cell(&default))
}

/// The word for a type, and whether its fields have rows of their own.
fn kind(schema: &Value) -> (&'static str, bool) {
    let has = |field: &str| schema["properties"].get(field).is_some();
    match schema["type"].as_str() {
        Some("object") if has("matchLabels") => ("label selector", false),
        Some("object") if has("lastTransitionTime") => ("condition", false),
        Some("object") => ("object", true),
        Some("integer") => ("integer", false),
        Some("boolean") => ("boolean", false),
        Some("string") if is_duration(schema) => ("duration", false),
        Some("string") => ("string", false),
        other => panic!("a type without a word: {other:?}"),
    }
}

fn is_duration(schema: &Value) -> bool {
    schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("(ms|s|m|h)"))
}

fn allowed(field: &Value, item: &Value) -> String {
    let mut all = Vec::new();
    let words: Vec<String> =
        item["enum"].as_array().into_iter().flatten().map(|w| format!("`{}`", w.as_str().expect("words"))).collect();
    if !words.is_empty() {
        all.push(words.join(", "));
    }
    let number = |schema: &Value, name: &str| schema[name].as_f64();
    let range = |least: Option<f64>, most: Option<f64>, what: &str| match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{what}")),
        (Some(least), None) if least > 0.0 => Some(format!("at least {least}{what}")),
        (None, Some(most)) => Some(format!("at most {most}{what}")),
        _ => None,
    };
    all.extend(range(number(item, "minimum"), number(item, "maximum"), ""));
    if !is_duration(item) {
        all.extend(range(number(item, "minLength"), number(item, "maxLength"), " characters"));
        all.extend(item["pattern"].as_str().map(|pattern| format!("`{pattern}`")));
    }
    all.extend(range(number(field, "minItems"), number(field, "maxItems"), " entries"));
    let rules = item["x-kubernetes-validations"].as_array().into_iter().flatten();
    if item["type"] == "string" {
        all.extend(rules.map(|rule| sentence(&rule["message"])));
    }
    all.join("; ")
}

/// What the API server checks beyond single fields.
fn rules(schema: &Value) -> String {
    let all = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let one = |rule: &Value| {
        let field = rule["fieldPath"].as_str().unwrap_or_default().trim_start_matches('.');
        let of = if field.is_empty() { String::new() } else { format!("`{field}`: ") };
        format!("- {of}{}\n", sentence(&rule["message"]))
    };
    let all: String = all.map(one).collect();
    if all.is_empty() { all } else { format!("\nRules:\n\n{all}") }
}

fn services() -> String {
    let mut section = "\n## Services\n\nFields of `spec` that are read. All others are the API server's and kube-proxy's.\n\n| field | meaning |\n|---|---|\n"
        .to_owned();
    OF_SERVICES.iter().for_each(|(field, meaning)| _ = writeln!(section, "| `{field}` | {meaning} |"));
    section
}

fn annotations() -> String {
    const HEAD: &str = "\n## Annotations\n\nOf Services; the first name that is there counts.\n";
    format!("{HEAD}{}\nOf Nodes:\n{}", table(&ANNOTATIONS), table(&OF_NODES))
}

fn table(annotations: &[Annotation]) -> String {
    let row = |annotation: &Annotation| {
        let names: Vec<String> = annotation.names.iter().map(|name| format!("`{name}`")).collect();
        format!("| {} | {} | {} |\n", names.join("<br>"), annotation.value, annotation.meaning)
    };
    let head = "\n| annotation | value | meaning |\n|---|---|---|\n".to_owned();
    head + &annotations.iter().map(row).collect::<String>()
}

fn flags() -> String {
    let all = Cli::command();
    let run = all.find_subcommand("run").expect("the daemon");
    let mut section = "\n## Flags of `ironcast run`\n\nThe chart's `daemon`, `admin` and `monitoring` set those that have a value there; `daemon.extraArgs` takes any.\n\n\
        | flag | environment | default | allowed | meaning |\n|---|---|---|---|---|\n"
        .to_owned();
    for flag in run.get_arguments().filter(|flag| flag.get_long().is_some_and(|long| long != "help")) {
        section += &row(flag);
    }
    section
}

fn row(flag: &Arg) -> String {
    let long = flag.get_long().expect("filtered");
    let takes = flag.get_action().takes_values();
    let name = flag.get_value_names().filter(|_| takes).map(|names| names.join(" ")).unwrap_or_default();
    let shown = format!("--{long} {name}");
    let env = flag.get_env().map(|env| format!("`{}`", env.to_string_lossy())).unwrap_or_default();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, said) = match help.split_once(" [default: ") {
        Some((meaning, said)) => (meaning.to_owned(), said.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let values: Vec<String> = flag.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
    let default = match (takes, values.is_empty()) {
        (false, _) => "off".to_owned(),
        (true, true) => said,
        (true, false) => values.join(", "),
    };
    let words = flag.get_possible_values();
    let words: Vec<String> = words.iter().filter(|_| takes).map(|word| format!("`{}`", word.get_name())).collect();
    format!("| `{}` | {env} | {} | {} | {} |\n", shown.trim_end(), cell(&default), words.join(", "), cell(&meaning))
}

fn sentence(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Within a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
