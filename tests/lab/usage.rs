//! What the lab says before it builds anything.

use std::process::{Command, Stdio};

use super::lab;

#[test]
fn scenarios_are_listed() {
    let output = lab(&["--list"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    let all = [
        "first-light",
        "node-loss",
        "drain",
        "service-churn",
        "ecmp-rehash",
        "restart",
        "coexistence",
        "flood",
        "interop",
        "chaos",
        "soak",
    ];
    for scenario in all {
        assert!(text.lines().any(|line| line.starts_with(scenario)), "{text}");
    }
}

#[cfg(not(feature = "xdp"))]
#[test]
fn packet_path_that_is_not_built_is_refused() {
    let output = lab(&["--datapath", "xdp"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--datapath none"), "{said}");
}

#[test]
fn unknown_router_is_refused_with_those_there_are() {
    let output = lab(&["--router", "cisco"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("builtin"));
}

#[test]
fn router_that_cannot_play_a_scenario_is_refused() {
    for (router, scenario, instead) in [("exabgp", "first-light", "builtin"), ("builtin", "interop", "exabgp")] {
        let output = lab(&["--router", router, "--scenario", scenario]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(scenario) && said.contains(instead), "{said}");
    }
}

#[test]
fn without_root_it_says_so() {
    // setpriv gives root away; who is not root needs no setpriv for that.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_ironcast"));
    if !super::is_root() {
        command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
    }
    let output = command.arg("lab").stdin(Stdio::null()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("sudo"), "{said}");
}
