//! What `ironcast router-config` prints, given as it is to the router: it peers at once, takes the Service's address,
//! and refuses what is not of the pools.

use std::{ffi::OsString, fs, path::PathBuf, process::Command};

use serde_json::json;

use super::{
    routers::{Frr, skipped},
    site::{NODE_ASN, ROUTER_ASN, Site, VIP, run, until},
    support::{program::Program, skip},
};

/// Of a pool that the router was not told of.
const STRANGER: &str = "198.51.100.7";
/// Of the pool that it was told of, and announced later.
const SECOND: &str = "203.0.113.2";

/// The site with a peer that has what routers differ in.
fn site() -> Site {
    let site = Site::new();
    let spec = json!({
        "myASN": NODE_ASN, "peerASN": ROUTER_ASN, "peerAddress": "10.78.0.1", "connectTime": "1s",
        "enableGracefulRestart": true, "dualStackAddressFamily": true, "holdTime": "30s",
    });
    site.write("tor", "BGPPeer", spec);
    site
}

fn printed(site: &Site, language: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironcast"));
    command.args(["router-config", "--for", language, "--manifests"]).arg(site.folder().join("manifests"));
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The router's table, as its own command prints it.
type Table<'a> = &'a dyn Fn() -> String;

/// The Service is there and stays; what the node announces beyond the pools never is, though it is announced.
fn judged(site: &Site, language: &str, table: Table<'_>) {
    let _daemon = site.daemon();
    until(&format!("{VIP} in the table of {language}"), || table().contains(VIP).then_some(()));
    site.write("strangers", "IPAddressPool", json!({ "addresses": [format!("{STRANGER}/32")] }));
    site.service("stranger", STRANGER);
    let announced = || site.state().is_some_and(|state| state["routes"].to_string().contains(STRANGER));
    until("a prefix of another pool is announced", || announced().then_some(()));
    // What the node announces next comes after it on the same session.
    site.service("second", SECOND);
    until(&format!("{SECOND} in the table of {language}"), || table().contains(SECOND).then_some(()));
    let table = table();
    assert!(table.contains(VIP) && !table.contains(STRANGER), "{language}:\n{table}");
}

/// `true`, after a line that says why, where this machine cannot run the test.
fn missing(programs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("needs root for network namespaces");
        return true;
    }
    let absent = programs.iter().find(|program| !std::path::Path::new(program).exists());
    absent.inspect(|program| skip(&format!("{program} is not installed"))).is_some()
}

/// Starts a program of the router in its namespace.
fn start(site: &Site, name: &str, command: &[&str]) -> Program {
    let command: Vec<OsString> = command.iter().map(Into::into).collect();
    Program::start(Some(&site.netns("tor")), &site.folder().join(format!("{name}.log")), &command).expect("it starts")
}

fn write(site: &Site, name: &str, text: &str) -> PathBuf {
    let path = site.folder().join(name);
    fs::write(&path, text).expect("written");
    path
}

/// What a command prints in the router's namespace.
fn ask(site: &Site, command: &str) -> String {
    let output = Command::new("ip").args(["netns", "exec", &site.netns("tor")]).args(command.split(' ')).output();
    String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
}

#[test]
fn frr_takes_it_as_it_is() {
    if skipped::<Frr>() {
        return;
    }
    let site = site();
    let frr = Frr::start(&site, 100, "", "");
    let config = write(&site, "router.conf", &printed(&site, "frr"));
    run("vtysh", &format!("--vty_socket {} -f {}", site.folder().join("tor").display(), config.display()));
    judged(&site, "frr", &|| frr.ask("bgpd", "show bgp ipv4 unicast"));
}

#[test]
fn bird_takes_it_as_it_is() {
    if missing(&["/usr/sbin/bird", "/usr/sbin/birdc"]) {
        return;
    }
    let site = site();
    let config = write(&site, "bird.conf", &printed(&site, "bird"));
    let (config, control) = (config.display().to_string(), site.folder().join("bird.ctl").display().to_string());
    let pid = site.folder().join("bird.pid").display().to_string();
    let _bird = start(&site, "bird", &["/usr/sbin/bird", "-f", "-c", &config, "-s", &control, "-P", &pid]);
    judged(&site, "bird", &|| ask(&site, &format!("birdc -s {control} show route all")));
}

#[test]
fn gobgp_takes_it_as_it_is() {
    if missing(&["/usr/bin/gobgpd", "/usr/bin/gobgp"]) {
        return;
    }
    let site = site();
    let config = write(&site, "gobgp.yaml", &printed(&site, "gobgp")).display().to_string();
    let _gobgp = start(&site, "gobgp", &["gobgpd", "-t", "yaml", "-f", &config, "--pprof-disable"]);
    judged(&site, "gobgp", &|| ask(&site, "gobgp global rib -a ipv4"));
}

#[test]
fn openbgpd_takes_it_as_it_is() {
    if missing(&["/usr/sbin/bgpd", "/usr/sbin/bgpctl"]) {
        return;
    }
    let site = site();
    // Beside the configuration: a socket of its own, since the machine may run another.
    let socket = site.folder().join("bgpd.sock").display().to_string();
    let config = write(&site, "bgpd.conf", &format!("socket \"{socket}\"\n{}", printed(&site, "openbgpd")));
    fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    // It locks itself into a folder below /run that its service would make: a /run of its own has it.
    let run = "mount -t tmpfs tmpfs /run && mkdir /run/openbgpd && exec /usr/sbin/bgpd -d -f \"$0\"";
    let _openbgpd = start(&site, "openbgpd", &["unshare", "-m", "sh", "-c", run, &config.display().to_string()]);
    judged(&site, "openbgpd", &|| ask(&site, &format!("bgpctl -s {socket} show rib")));
}
