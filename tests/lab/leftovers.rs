//! However a lab ends, nothing of it stays: after Ctrl-C at once, after kill -9 with the next lab.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{alone, is_possible, lab, namespaces, program};

/// A lab that lives on, and where it lives. Its daemons need not work for that.
struct Kept {
    child: Child,
    folder: PathBuf,
}

impl Kept {
    fn start() -> Self {
        let mut command = program();
        command.args(["--nodes", "2", "--keep", "--timeout", "30"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let first = lines.next().expect("a first line");
        let folder = first.split("folder ").nth(1).expect("the first line names the folder").trim().into();
        assert!(lines.any(|line| line.contains("router: ")), "the lab is built");
        // Who reads no more must not block who writes.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, folder }
    }

    /// Ends by itself or is ended, within a bound.
    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the lab does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    fn prefix(&self) -> String {
        format!("ironcast-{}-", self.folder.file_name().expect("a number").display())
    }

    fn namespaces(&self) -> Vec<String> {
        namespaces().into_iter().filter(|name| name.starts_with(&self.prefix())).collect()
    }

    /// Processes in its namespaces.
    fn processes(&self) -> usize {
        let pids = |name: String| {
            let output = Command::new("ip").args(["netns", "pids", &name]).output().expect("ip runs");
            output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count()
        };
        self.namespaces().into_iter().map(pids).sum()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn interrupted_lab_removes_itself() {
    if !is_possible() {
        return;
    }
    let _alone = alone();
    for signal in ["-INT", "-TERM"] {
        let mut kept = Kept::start();
        assert!(kept.namespaces().len() > 4 && kept.processes() > 4, "{:?}", kept.namespaces());
        kept.signal(signal);
        kept.wait();
        assert_eq!(kept.namespaces(), Vec::<String>::new(), "after {signal}");
        assert!(!kept.folder.exists(), "after {signal}");
    }
}

#[test]
fn next_lab_removes_what_a_killed_one_left() {
    if !is_possible() {
        return;
    }
    let _alone = alone();
    let mut killed = Kept::start();
    killed.signal("-KILL");
    killed.wait();
    assert!(killed.folder.exists() && !killed.namespaces().is_empty(), "a killed lab cannot remove itself");
    let deadline = Instant::now() + Duration::from_secs(5);
    while killed.processes() > 0 {
        assert!(Instant::now() < deadline, "processes of a killed lab die with it");
        std::thread::sleep(Duration::from_millis(20));
    }
    let next = lab(&["--nodes", "2", "--timeout", "1", "--json"]);
    let said = String::from_utf8_lossy(&next.stderr).into_owned();
    assert!(said.contains("removed what a killed lab"), "{said}");
    assert!(!killed.folder.exists());
    assert_eq!(killed.namespaces(), Vec::<String>::new());
}

#[test]
fn labs_run_side_by_side() {
    if !is_possible() {
        return;
    }
    let _alone = alone();
    let (mut one, mut other) = (Kept::start(), Kept::start());
    assert_ne!(one.folder, other.folder);
    one.signal("-INT");
    one.wait();
    assert!(other.processes() > 4, "the end of one lab leaves the other alone");
    other.signal("-INT");
    other.wait();
    assert_eq!(other.namespaces(), Vec::<String>::new());
}
