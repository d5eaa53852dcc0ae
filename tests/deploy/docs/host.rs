//! Lines for a host: folders of manifests and a daemon with its default paths, in namespaces of network, mounts and names, beside
//! a real router; lines for an account at a provider; lines for the lab.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ironcast_emulator::{Emulator, Request, Server, packet::Packet};
use serde_json::json;

use super::{
    rack::{Rack, clone, is_as_promised, programs},
    stages::{Line, Stage, filled, played},
};
use crate::{
    support::{program::Program, skip},
    tools::run,
};

/// What a line may wait for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Empty folders in place of those that the daemon would write to, and the name of the examples' node.
const PREPARE: &str = "for folder in /etc /run /var/lib /sys/fs/bpf; do mount -t tmpfs none $folder; done; \
                       mkdir /etc/bash_completion.d; hostname node-1; touch ready; exec sleep infinity";

struct Host {
    // Order is the order of dropping.
    daemon: Option<Program>,
    holder: Program,
    rack: Rack,
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Option<Self> {
        let rack = Rack::new()?;
        let folder = tempfile::tempdir().expect("a folder");
        clone(folder.path());
        let prepare = format!("cd {}; {PREPARE}", folder.path().display());
        let command = ["unshare", "--mount", "--uts", "sh", "-c", &prepare].map(Into::into);
        let netns = rack.fabric.name("node");
        let holder = Program::start(Some(&netns), &folder.path().join("holder.log"), &command).expect("sh runs");
        let begun = Instant::now();
        while !folder.path().join("ready").exists() {
            assert!(begun.elapsed() < PATIENCE && holder.running(), "{}", holder.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { daemon: None, holder, rack, folder })
    }

    fn inside(&self, text: &str) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        let text = format!("cd {}; {text}", self.folder.path().display());
        let words = ["nsenter", "--target", &pid, "--mount", "--uts", "--net", "bash", "-euo", "pipefail", "-c", &text];
        words.map(str::to_owned).to_vec()
    }

    fn shell(&self, text: &str) -> Result<String, String> {
        let words = self.inside(text);
        run(Command::new(&words[0]).args(&words[1..]).env("PATH", programs(&[])))
    }

    /// `/etc/ironcast` is the smallest example, where the block does not make it itself.
    fn begin(&self, lines: &[Line]) {
        let copied = lines.iter().any(|line| line.text.starts_with("cp "));
        let uses = lines.iter().any(|line| line.text.contains("/etc/ironcast"));
        if copied {
            self.shell("rm -rf /etc/ironcast").expect("removed");
        } else if uses {
            self.shell("mkdir -p /etc && cp -rT deploy/examples/first-light /etc/ironcast").expect("copied");
        }
    }

    fn play(&mut self, line: &Line) {
        let text = filled(&line.text, &[("DIR", "deploy/examples/dual-stack")]);
        let begun = Instant::now();
        if text.starts_with("ironcast run") {
            self.run(line, &text);
        } else {
            loop {
                match self.shell(&text) {
                    Ok(printed) if is_as_promised(line, &printed) => break,
                    answer if begun.elapsed() > PATIENCE => {
                        panic!("{line}\nran as {text}\n{answer:?}\n{}", self.tail())
                    }
                    _ => std::thread::sleep(Duration::from_millis(200)),
                }
            }
        }
        println!("{line} ({:.1?})", begun.elapsed());
        if let Some((_, file)) = text.split_once("--for bird").and_then(|(_, rest)| rest.split_once("> ")) {
            let config = fs::read_to_string(self.folder.path().join(file.trim())).expect("written");
            self.rack.configure(&config, self.folder.path());
        }
    }

    fn tail(&self) -> String {
        self.daemon.as_ref().map(Program::tail).unwrap_or_default()
    }

    /// The daemon stays until the next one starts, and has to answer.
    fn run(&mut self, line: &Line, text: &str) {
        if let Some(daemon) = self.daemon.take() {
            assert!(daemon.terminate(PATIENCE), "{}", daemon.tail());
        }
        let path = format!("export PATH={}; exec {text}", programs(&[]).display());
        let command: Vec<_> = self.inside(&path).into_iter().map(Into::into).collect();
        let daemon = Program::start(None, &self.folder.path().join("daemon.log"), &command).expect("sh runs");
        let begun = Instant::now();
        let lives = "ironcast status -o json || test $? = 1";
        while self.shell(lives).is_err() {
            assert!(begun.elapsed() < PATIENCE && daemon.running(), "{line}\n{}", daemon.tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(daemon.running(), "{line}\n{}", daemon.tail());
        self.daemon = Some(daemon);
    }
}

#[test]
fn lines_for_a_host_do_what_they_say() {
    let Some(mut host) = Host::new() else { return };
    for (block, lines) in played(Stage::Host) {
        host.begin(&lines);
        lines.iter().for_each(|line| host.play(line));
        if block.file() == "docs/quick-start.md" && block.text.contains("ironcast explain service") {
            let answers = host.rack.answers("192.0.2.1:80".parse().expect("an address"));
            assert!(answers, "{}: the Service does not answer the router\n{}", block.place, host.tail());
        }
    }
}

/// An address of a cluster that is gone is shown, and given back where that is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn lines_for_an_account_at_a_provider_do_what_they_say() {
    const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
    let server = Server::on_loopback(Emulator::new(Packet::new(PROJECT), &["good"])).await.expect("it listens");
    let tags = ["ironcast-cluster=6c5f8f2e", "ironcast-claim=ic-0123456789abcdef", "ironcast-pool=elastic"];
    let body = json!({"type": "public_ipv4", "metro": "am", "quantity": 1, "tags": tags});
    let request = Request::new("POST", &format!("/projects/{PROJECT}/ips"), body).header("X-Auth-Token", "good");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    server.emulator().exchange(now, request);
    let held = || server.emulator().state()["ip_addresses"].as_array().expect("a list").len();
    assert_eq!(held(), 1);

    let folder = tempfile::tempdir().expect("a folder");
    let objects = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: token}}\nstringData: {{token: good}}\n---\n\
         apiVersion: ironcast.dev/v1alpha1\nkind: ProviderConfig\nmetadata: {{name: metal}}\nspec: {{type: packet, \
         endpoint: \"{}/metal/v1\", project: {PROJECT}, credentialsSecret: {{name: token}}}}\n",
        server.url()
    );
    fs::write(folder.path().join("provider.yaml"), objects).expect("written");
    for (_, lines) in played(Stage::Provider) {
        for line in lines {
            let text = filled(&line.text, &[("DIR", &folder.path().display().to_string()), ("UID", "6c5f8f2e")]);
            let mut shell = Command::new("bash");
            shell.args(["-euo", "pipefail", "-c", &text]).env("PATH", programs(&[]));
            let printed = run(&mut shell).unwrap_or_else(|error| panic!("{line}\n{error}"));
            let (left, says) = if line.text.contains("--release") { (0, "released") } else { (1, "would release") };
            assert!(printed.contains(says) && held() == left, "{line}\n{printed}");
        }
    }
    assert_eq!(held(), 0, "no document shows how to release");
}

/// `make lab` without the building.
const MAKE: &str = "#!/bin/bash\nset -e\n[ \"$1\" = lab ]\nexec ironcast lab ${2#ARGS=}\n";

#[test]
fn lines_for_the_lab_end_well() {
    if !rustix::process::geteuid().is_root() {
        return skip("the lab makes network namespaces: run the tests as root");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let make: PathBuf = folder.path().join("make");
    fs::write(&make, MAKE).expect("written");
    fs::set_permissions(&make, fs::Permissions::from_mode(0o755)).expect("set");
    let mut seen = BTreeSet::new();
    for (_, lines) in played(Stage::Lab) {
        for line in lines.into_iter().filter(|line| seen.insert(line.text.clone())) {
            let begun = Instant::now();
            lab(folder.path(), &line);
            println!("{line} ({:.1?})", begun.elapsed());
        }
    }
}

fn lab(folder: &Path, line: &Line) {
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(programs(&[]));
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &line.text]).env("PATH", path);
    let printed = run(&mut shell).unwrap_or_else(|error| panic!("{line}\n{error}"));
    if line.text.contains("--json") {
        let verdict: serde_json::Value =
            serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(verdict["ok"], true, "{line}");
    }
}
