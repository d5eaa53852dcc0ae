//! The judges: where they are installed, and Prism as a proxy that checks every request and every answer.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ironcast_emulator::Server;
use tempfile::TempDir;

use crate::support::{program::Program, skip, until};

/// A file of the vendors' specifications; `None`, with one line, where they are not beside the checkout.
pub(crate) fn specification(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/providers/specs").join(name);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// The folder of the judges, installed by the first that asks.
pub(crate) fn judges() -> Option<PathBuf> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/judges/build");
    let output = Command::new(build).output().expect("bash");
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().into());
    }
    skip(String::from_utf8_lossy(&output.stderr).trim());
    None
}

/// Runs one of the vendors' clients with these arguments and gives what it printed.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/judges").join(script);
    let output = Command::new(judges()?.join("venv/bin/python")).arg(script).args(arguments).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{errors}");
    Some(out.into_owned())
}

/// `prism proxy --errors` with a specification in front of an API.
pub(crate) struct Prism {
    program: Program,
    port: u16,
    _folder: TempDir,
}

impl Prism {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(specification: &Path, upstream: &str) -> Option<Self> {
        let prism = judges()?.join("node_modules/.bin/prism");
        let folder = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.path().join("prism.log");
        let mut specification = specification.to_owned();
        if specification.ends_with("bmcapi.yaml") {
            let json = folder.path().join("specification.json");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/providers/judges/to_json.js");
            let modules = judges()?.join("node_modules");
            let status = Command::new("node").arg(script).args([&modules, &specification, &json]).status().unwrap();
            assert!(status.success(), "{specification:?} as JSON");
            specification = json;
        }
        let command = [
            prism.into_os_string(),
            "proxy".into(),
            "--errors".into(),
            "--host".into(),
            "127.0.0.1".into(),
            "--port".into(),
            port.to_string().into(),
            specification.into(),
            upstream.into(),
        ];
        let program = Program::start(None, &log, &command).unwrap();
        let this = Self { program, port, _folder: folder };
        until("Prism listens", Duration::from_secs(120), async || {
            assert!(this.program.running(), "Prism ended: {}", this.program.log());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
        .await;
        Some(this)
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests came, after it has objected to none of them and to none of the answers.
    pub(crate) fn accepted(&self) -> usize {
        let objections = self.objections();
        assert!(objections.is_empty(), "{}", objections.join("\n"));
        self.program.log().lines().filter(|line| line.contains("Request received")).count()
    }

    /// What it objected to.
    pub(crate) fn objections(&self) -> Vec<String> {
        const WORDS: [&str; 4] = ["#UNPROCESSABLE_ENTITY", "#VIOLATIONS", "#NO_PATH", "iolation"];
        let objects = |line: &&str| WORDS.iter().any(|word| line.contains(word));
        self.program.log().lines().filter(objects).map(str::to_owned).collect()
    }
}

/// Requests that reached the emulator.
pub(crate) fn reached(server: &Server) -> usize {
    server.emulator().log().iter().filter(|entry| entry.path != "/token").count()
}

/// The figure for people, in the test's output.
pub(crate) fn figure(name: &str, count: usize) {
    println!("{name}: {count} requests accepted");
    assert!(count > 0, "nothing went through the judge");
}
