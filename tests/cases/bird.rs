//! BIRD as a case's router: what it says of its sessions and of the paths it has.

use std::{collections::BTreeMap, ffi::OsString, path::Path, process::Command, time::Duration};

use crate::support::program::Program;

/// A running router.
pub(crate) struct Bird {
    socket: String,
    config: std::path::PathBuf,
    process: Program,
}

/// One path to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutePath {
    /// The router's name for the session.
    pub(crate) session: String,
    pub(crate) next_hop: String,
    /// `BGP.community` and so on, as BIRD prints them.
    attributes: BTreeMap<String, String>,
}

impl RoutePath {
    /// An attribute by the name behind `BGP.`; empty where it is absent.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

const HEAD: &str = "router id 10.255.0.1;\nlog stderr all;\nprotocol device { scan time 1; }\n\
                    timeformat base iso long;\n";

impl Bird {
    pub(crate) fn start(netns: &str, folder: &Path, config: &str) -> Self {
        let path = |name: &str| folder.join(name);
        let file = path("bird.conf");
        std::fs::write(&file, format!("{HEAD}{config}")).expect("written");
        let text = |path: std::path::PathBuf| path.into_os_string();
        let command: Vec<OsString> = vec![
            "bird".into(),
            "-f".into(),
            "-c".into(),
            text(file.clone()),
            "-s".into(),
            text(path("bird.ctl")),
            "-P".into(),
            text(path("bird.pid")),
        ];
        let process = Program::start(Some(netns), &path("bird.log"), &command).expect("it starts");
        let bird = Self { socket: path("bird.ctl").display().to_string(), config: file, process };
        let start = std::time::Instant::now();
        while bird.ask("show status").is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "{}", bird.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        bird
    }

    /// Another configuration, applied as an operator would.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(&self.config, format!("{HEAD}{config}")).expect("written");
        let answer = self.ask("configure");
        assert!(answer.contains("Reconfig"), "{answer}");
    }

    /// A command of birdc.
    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("birdc").args(["-s", &self.socket]).args(command.split(' ')).output().expect("birdc");
        if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() }
    }

    /// Every path to the prefix, by session.
    pub(crate) fn paths(&self, prefix: &str) -> Vec<RoutePath> {
        let mut paths = parse(&self.ask(&format!("show route {prefix} all")));
        paths.sort_by(|a, b| a.session.cmp(&b.session).then(a.next_hop.cmp(&b.next_hop)));
        paths
    }

    /// What stands under `name:` in everything it says of its sessions.
    pub(crate) fn session_facts(&self, name: &str) -> Vec<String> {
        let all = self.ask("show protocols all");
        let facts = all.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        facts.map(|fact| fact.trim().to_owned()).collect()
    }

    /// How many sessions are Established.
    pub(crate) fn established(&self) -> usize {
        self.session_facts("BGP state").iter().filter(|state| *state == "Established").count()
    }

    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }
}

fn parse(text: &str) -> Vec<RoutePath> {
    let mut paths: Vec<RoutePath> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once(" unicast [").or_else(|| line.split_once("\tunicast [")) {
            let session = rest.split(' ').next().unwrap_or_default().to_owned();
            paths.push(RoutePath { session, next_hop: String::new(), attributes: BTreeMap::new() });
            continue;
        }
        let Some(path) = paths.last_mut() else { continue };
        let line = line.trim();
        if let Some(via) = line.strip_prefix("via ") {
            path.next_hop = via.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.strip_prefix("BGP.").and_then(|rest| rest.split_once(':')) {
            path.attributes.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    paths
}
