//! What the documents tell people to type and to write: YAML is parsed and shown to the API server, command lines are run
//! ([`stages`]).

mod blocks;
mod cluster;
mod host;
mod rack;
mod security;
mod stages;
mod troubleshooting;

use std::{collections::BTreeSet, path::Path};

use clap::{Parser, error::ErrorKind};
use ironcast::cli::Cli;

use blocks::{Block, blocks, files, shell, spans};

use crate::{
    chart::render,
    install::prepared,
    tools::{documents, helm, path, program, run, text},
};

#[test]
fn every_block_of_yaml_and_json_parses() {
    let mut seen = 0;
    for block in blocks() {
        match block.language.as_str() {
            "yaml" => {
                let all = documents(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
                assert!(!all.is_empty(), "{} says nothing", block.place);
            }
            "json" => {
                serde_json::from_str::<serde_json::Value>(&block.text)
                    .unwrap_or_else(|e| panic!("{}: {e}", block.place));
            }
            _ => continue,
        }
        seen += 1;
    }
    assert!(seen >= 10, "{seen} blocks");
}

/// Ours and the API server's own. Others (of Flux, Argo CD, Talos …) have definitions that are not at hand.
fn is_judged(api_version: &str) -> bool {
    let group = api_version.split('/').next().unwrap_or_default();
    group == "ironcast.dev" || !group.contains('.') || (group.ends_with(".k8s.io") && !group.ends_with(".x-k8s.io"))
}

#[tokio::test]
async fn api_server_takes_every_object_of_its_own_kinds_and_ours() {
    let Some((cluster, _guard)) = prepared().await else { return };
    let mut judged = BTreeSet::new();
    for block in blocks().into_iter().filter(|block| block.language == "yaml") {
        for object in documents(&block.text).expect("parses") {
            let (kind, version) = (object["kind"].as_str(), object["apiVersion"].as_str());
            let Some(kind) = kind else {
                assert!(object.get("spec").is_none(), "{}: a spec without a kind; give the whole object", block.place);
                continue; // values of the chart, files of other programs
            };
            let version = version.unwrap_or_else(|| panic!("{}: {kind} without apiVersion", block.place));
            if is_judged(version) {
                cluster.dry_run(&object.to_string()).unwrap_or_else(|error| panic!("{}: {kind}: {error}", block.place));
                judged.insert(kind.to_owned());
            }
        }
    }
    for kind in ["IPAddressPool", "BGPPeer", "BGPAdvertisement", "BFDProfile", "ProviderConfig"] {
        assert!(judged.contains(kind), "no document shows a {kind}: {judged:?}");
    }
}

/// A block that begins with `# values` is for the chart.
#[test]
fn every_block_of_values_renders() {
    let Some(helm) = helm() else { return };
    let values: Vec<Block> = blocks().into_iter().filter(|block| block.text.starts_with("# values\n")).collect();
    assert!(!values.is_empty(), "no document shows values of the chart");
    for block in values {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        std::fs::write(file.path(), &block.text).expect("written");
        let flags = ["--values", file.path().to_str().expect("UTF-8")];
        render(&helm, &path("deploy/chart"), &flags).unwrap_or_else(|error| panic!("{}: {error}", block.place));
    }
}

/// The list of addresses of docs/operations.md, made and read back as it stands there.
#[tokio::test]
async fn list_of_addresses_asks_for_the_same_ones_again() {
    let Some((cluster, _guard)) = prepared().await else { return };
    if program("jq", "jq").is_none() {
        return;
    }
    let ports = "ports: [{port: 80}]";
    for (name, kind, ips) in
        [("two", "LoadBalancer", "192.0.2.7 2001:db8::7"), ("none", "LoadBalancer", ""), ("other", "ClusterIP", "")]
    {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: backup-{name}, namespace: default}}\nspec: {{type: {kind}, {ports}}}\n"
        );
        cluster.apply(&service).expect("a Service");
        let ingress: Vec<_> = ips.split_whitespace().map(|ip| serde_json::json!({"ip": ip})).collect();
        if !ingress.is_empty() {
            let patch = serde_json::json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
            let name = format!("backup-{name}");
            cluster
                .kubectl(&["patch", "service", &name, "--subresource=status", "--type=merge", "-p", &patch])
                .expect("patched");
        }
    }
    let block = blocks().into_iter().find(|block| block.text.contains("addresses.tsv")).expect("it is described");
    let folder = tempfile::tempdir().expect("a folder");
    let programs = std::env::var_os("PATH").expect("set");
    let programs = std::iter::once(cluster.assets().to_owned()).chain(std::env::split_paths(&programs));
    let mut shell = std::process::Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &block.text]).current_dir(folder.path());
    shell.env("KUBECONFIG", cluster.kubeconfig("admin")).env("PATH", std::env::join_paths(programs).expect("a path"));
    run(&mut shell).expect("it runs");
    let asked = |name: &str| {
        let path = "jsonpath={.metadata.annotations.ironcast\\.dev/load-balancer-ips}";
        cluster.kubectl(&["get", "service", &format!("backup-{name}"), "-o", path]).expect("there")
    };
    assert_eq!([asked("two"), asked("none"), asked("other")], ["192.0.2.7,2001:db8::7", "", ""]);
}

/// Words that stand for something.
fn filled_in(word: &str) -> String {
    match word {
        "CLIENT:PORT" => "192.0.2.1:1024".into(),
        "VIP:PORT" => "203.0.113.1:80".into(),
        "N" | "[N]" => "1".into(),
        word if word.starts_with('[') || word.ends_with(']') || word == "…" => String::new(),
        // The first of several.
        word => word.split('|').next().unwrap_or_default().trim_matches('"').to_owned(),
    }
}

/// In running text a verb may stand without its arguments.
fn parses(place: &str, line: &str, whole: bool) {
    let words: Vec<String> = line.split_whitespace().map(filled_in).filter(|word| !word.is_empty()).collect();
    let Err(error) = Cli::try_parse_from(&words) else { return };
    let lacks = [ErrorKind::MissingRequiredArgument, ErrorKind::MissingSubcommand].contains(&error.kind());
    assert!(!error.use_stderr() || (lacks && !whole), "{place}: {line}\n{error}");
}

#[test]
fn every_command_line_of_ours_is_one_that_the_program_knows() {
    let mut seen = 0;
    for (place, command) in shell() {
        let ours = command.split(" -- /").last().unwrap_or_default();
        let ours = ours.trim_start_matches("sudo ").trim_start_matches("target/release/");
        if ours.starts_with("ironcast ") && !ours.contains(':') {
            parses(&place, ours, true);
            seen += 1;
        }
    }
    // In running text: those that begin with the program and a verb.
    for (place, code) in spans() {
        if let Some(rest) = code.split(" -- /").last().unwrap_or_default().strip_prefix("ironcast ")
            && rest.starts_with(char::is_lowercase)
        {
            parses(&place, &format!("ironcast {}", rest.split(" > ").next().unwrap_or_default()), false);
            seen += 1;
        }
    }
    assert!(seen >= 30, "{seen} command lines");
}

#[test]
fn every_target_of_make_is_there() {
    let makefile = text("Makefile");
    for (place, command) in shell().into_iter().chain(spans()) {
        let words: Vec<&str> = command.split_whitespace().skip_while(|word| word.contains('=')).collect();
        let ["make", rest @ ..] = &words[..] else { continue };
        let target = rest.iter().take_while(|w| w.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        for target in target {
            assert!(makefile.contains(&format!("\n{target}:")), "{place}: make {target}");
        }
    }
}

/// `helm upgrade` and `helm install` with their own flags, rendered instead of sent.
#[test]
fn every_line_of_helm_renders() {
    let Some(helm) = helm() else { return };
    let mut seen = 0;
    for (place, command) in shell() {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ["helm", "upgrade" | "install", rest @ ..] = &words[..] else { continue };
        let mut flags = Vec::new();
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            if matches!(*word, "--set" | "--set-string") {
                flags.extend([*word, *words.next().expect("a value")]);
            }
        }
        let chart = rest.iter().find(|word| word.starts_with("deploy/")).unwrap_or_else(|| panic!("{place}: no chart"));
        render(&helm, &path(chart), &flags).unwrap_or_else(|error| panic!("{place}: {command}\n{error}"));
        seen += 1;
    }
    assert!(seen > 0, "no document installs the chart");
}

/// Names of a document's headings, as a reader's browser has them.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings =
        document.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| (c.is_alphanumeric() || ['-', '_'].contains(&c)).then(|| c.to_ascii_lowercase());
    headings.map(|text| text.chars().filter_map(|c| if c == ' ' { Some('-') } else { kept(c) }).collect()).collect()
}

#[test]
fn every_file_that_is_pointed_at_is_there() {
    for file in files() {
        let folder = path(&file).parent().unwrap_or(Path::new("")).to_owned();
        for link in text(&file).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            if target.contains("://") {
                continue;
            }
            let target = if target.is_empty() { path(&file) } else { folder.join(target) };
            assert!(target.exists(), "{file} points at {link}");
            if !anchor.is_empty() {
                let there = anchors(&std::fs::read_to_string(target).expect("a document"));
                assert!(there.contains(anchor), "{file} points at {link}: {there:?}");
            }
        }
    }
    for (place, command) in shell() {
        for word in command.split_whitespace().filter(|word| word.starts_with("deploy/")) {
            assert!(path(word).exists(), "{place}: {word}");
        }
    }
}
