//! The daemon with what the chart gives it and nothing more: these capabilities, a read-only root, no new privileges, and
//! `deploy/seccomp/ironcast.json`, of which every violation kills. In all modes the lab's expectations are met.
//!
//! This program is the test, and with `run` as its first word it is what the lab's nodes run (`ironcast lab --daemon`): it
//! puts on the profile and becomes the daemon: the one that was built with it, or the file that the variable `IRONCAST` names
//! (a static one makes other calls). As root.

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use seccompiler::{BpfMap, apply_filter, compile_from_json};
use serde_json::{Value, json};
use support::{manifests, skip};

/// What a sandbox adds to `sh`: everything read-only but what the daemon's pod mounts, then no more than these
/// capabilities, and no way to more.
const SANDBOX: &str = r#"
set -e
before=
for word in "$@"; do
    case $before in --manifests) mount --rbind "${word%/*}" "${word%/*}" && lab=${word%/*} ;; esac
    before=$word
done
mount -o remount,bind,ro /
if [ "$USER_ID" != 0 ]; then
    chown -R "$USER_ID" "$lab/manifests"
    chown "$USER_ID" "$lab" "$lab"/n*
    as="--reuid $USER_ID --regid $USER_ID --clear-groups --inh-caps -all,$CAPABILITIES --ambient-caps -all,$CAPABILITIES"
fi
exec setpriv --pdeathsig KILL $as --bounding-set "-all,$CAPABILITIES" --no-new-privs "$PROFILED" "$@"
"#;

/// A run of the lab.
struct Case {
    name: &'static str,
    /// Arguments of `ironcast lab`.
    lab: &'static [&'static str],
    /// `daemon.datapath` of the chart, whose capabilities the daemons get.
    datapath: &'static str,
    /// `daemon.listen` names an address.
    listens: bool,
    user: u32,
    seconds: &'static str,
}

const USUAL: Case = Case { name: "", lab: &[], datapath: "auto", listens: false, user: 0, seconds: "58" };

const CASES: &[Case] = &[
    Case { name: "xdp", lab: &["--datapath", "xdp"], ..USUAL },
    Case { name: "generic", lab: &["--datapath", "generic"], ..USUAL },
    Case { name: "tcx", lab: &["--datapath", "tcx"], ..USUAL },
    Case { name: "bypass", lab: &["--datapath", "xdp", "--delivery", "bypass"], ..USUAL },
    Case { name: "restart", lab: &["--scenario", "restart"], ..USUAL },
    Case { name: "none", lab: &["--datapath", "none"], datapath: "none", ..USUAL },
    // No kubelet gives a process without root capabilities; systemd does.
    Case { name: "none_and_no_root", lab: &["--datapath", "none"], datapath: "none", user: 65_534, ..USUAL },
    // BFD and its echo, keys, unnumbered peers, port 179.
    Case {
        name: "sessions",
        lab: &["--scenario", "interop", "--router", "frr"],
        datapath: "none",
        listens: true,
        seconds: "150",
        ..USUAL
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "run") {
        return become_the_daemon(&arguments);
    }
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut cases: Vec<&Case> = CASES.iter().filter(|case| chosen(case.name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    if cases.is_empty() {
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        skip("the lab makes network namespaces: run the tests as root");
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = support::routers::missing() {
        skip(missing);
        cases.retain(|case| !case.lab.contains(&"frr"));
    }
    unknown_calls();
    let failed: Vec<&str> = cases.into_iter().filter(|case| !passes(case)).map(|case| case.name).collect();
    failed.iter().for_each(|name| eprintln!("FAILED {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(case: &Case) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = folder.path().join("daemon");
    fs::write(&daemon, format!("#!/bin/sh\nexec unshare --mount --propagation slave sh -c '{SANDBOX}' sh \"$@\"\n"))
        .expect("writable");
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).expect("ours");
    let logs = folder.path().join("logs");
    let output = Command::new(env!("CARGO_BIN_EXE_ironcast"))
        .args(["lab", "--json", "--timeout", case.seconds, "--daemon"])
        .arg(&daemon)
        .arg("--logs")
        .arg(&logs)
        .args(case.lab)
        .env("CAPABILITIES", capabilities(case))
        .env("USER_ID", case.user.to_string())
        .env("PROFILED", std::env::current_exe().expect("it runs"))
        .stdin(Stdio::null())
        .output()
        .expect("the lab starts");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let unmet = |expectation: &&Value| expectation["ok"] != true;
    let met = verdict["expectations"].as_array().is_some_and(|all| !all.is_empty() && !all.iter().any(|e| unmet(&e)));
    if verdict["ok"] == true && met {
        println!("test {} ... ok", case.name);
        return true;
    }
    let log = fs::read_to_string(logs.join("n1.log")).unwrap_or_default();
    eprintln!("test {} ... FAILED\n{}\n{log}", case.name, String::from_utf8_lossy(&output.stderr));
    false
}

/// What the manifests add, as setpriv takes it: `+net_admin,+bpf`. What the chart adds and leaves out by the mode says
/// tests/deploy/chart.rs.
fn capabilities(case: &Case) -> String {
    let all = manifests();
    let set = all.iter().find(|object| object["kind"] == "DaemonSet").expect("a DaemonSet");
    let added = &set["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let names = added.as_array().expect("a list").iter().filter_map(Value::as_str);
    let needed = |name: &&str| case.datapath != "none" || !["BPF", "PERFMON"].contains(name);
    let listening = case.listens.then_some("NET_BIND_SERVICE");
    names.filter(needed).chain(listening).map(|name| format!("+{}", name.to_lowercase())).collect::<Vec<_>>().join(",")
}

fn profile() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/seccomp/ironcast.json");
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}

/// A rule of the OCI's format in that of the compiler, for each of its calls.
fn rules(rule: &Value) -> Vec<Value> {
    let condition = |argument: &Value| {
        let (op, value) = match argument["op"].as_str() {
            Some("SCMP_CMP_EQ") => (json!("eq"), &argument["value"]),
            Some("SCMP_CMP_MASKED_EQ") => (json!({ "masked_eq": argument["value"] }), &argument["valueTwo"]),
            other => panic!("{other:?} is not translated"),
        };
        json!({ "index": argument["index"], "type": "qword", "op": op, "val": value })
    };
    let conditions: Vec<Value> = rule["args"].as_array().into_iter().flatten().map(condition).collect();
    let of = |name: &Value| match conditions.is_empty() {
        true => json!({ "syscall": name }),
        false => json!({ "syscall": name, "args": conditions }),
    };
    rule["names"].as_array().expect("names").iter().map(of).collect()
}

fn compile(filters: &Value) -> Result<BpfMap, seccompiler::Error> {
    let machine = std::env::consts::ARCH.try_into().expect("an architecture that it knows");
    compile_from_json(filters.to_string().as_bytes(), machine)
}

/// What is not allowed kills, where the profile refuses: what the daemon takes for an answer shows here too.
fn filters() -> Value {
    let profile = profile();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let mut allowed = Vec::new();
    let mut refused = Vec::new();
    for rule in profile["syscalls"].as_array().expect("rules") {
        match rule["action"].as_str() {
            Some("SCMP_ACT_ALLOW") => allowed.extend(rules(rule)),
            Some("SCMP_ACT_ERRNO") => {
                assert_eq!(rule["errnoRet"], libc::ENOSYS, "one number for all that are refused");
                refused.extend(rules(rule));
            }
            other => panic!("{other:?} is not translated"),
        }
    }
    allowed.extend(refused.clone());
    allowed.retain(|rule| compile(&json!({ "one": filter("allow", "trap", vec![rule.clone()]) })).is_ok());
    json!({
        "refused": filter("allow", json!({ "errno": libc::ENOSYS }), refused),
        "allowed": filter("kill_process", "allow", allowed),
    })
}

fn filter(otherwise: &str, matching: impl Into<Value>, rules: Vec<Value>) -> Value {
    json!({ "mismatch_action": otherwise, "match_action": matching.into(), "filter": rules })
}

/// Every name is a system call of this machine, and none stands there twice.
fn unknown_calls() {
    let all: Vec<Value> = profile()["syscalls"].as_array().expect("rules").iter().flat_map(rules).collect();
    let mut seen = BTreeSet::new();
    for rule in all {
        assert!(seen.insert(rule.to_string()), "{rule} stands there twice");
        let compiled = compile(&json!({ "one": filter("allow", "trap", vec![rule.clone()]) }));
        // Machines without a history lack the oldest calls.
        assert!(compiled.is_ok() || cfg!(not(target_arch = "x86_64")), "{rule}: {compiled:?}");
    }
}

fn become_the_daemon(arguments: &[String]) -> ExitCode {
    let ours = env!("CARGO_BIN_EXE_ironcast");
    let program = std::env::var_os("IRONCAST").map_or_else(|| PathBuf::from(ours), PathBuf::from);
    let compiled = compile(&filters()).expect("the profile compiles");
    for name in ["refused", "allowed"] {
        apply_filter(&compiled[name]).expect("the kernel takes the profile");
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("{}: {error}", program.display());
    ExitCode::FAILURE
}
