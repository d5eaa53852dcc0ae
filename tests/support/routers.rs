//! BIRD and FRR as top-of-rack routers: they wait for the nodes, write ECMP routes into their namespace's kernel,
//! and keep them while a speaker restarts.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{fabric::Fabric, program::Program};

/// AS of the nodes.
pub const NODE_ASN: u32 = 64512;
/// AS of BIRD.
pub const BIRD_ASN: u32 = 64500;
/// AS of FRR.
pub const FRR_ASN: u32 = 64501;

const FRR: &str = "/usr/lib/frr";

/// What is missing, if anything.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("no root, which network namespaces need");
    }
    if Command::new("bird").arg("--version").output().is_err() {
        return Some("no BIRD: apt-get install bird2");
    }
    (!Path::new(FRR).join("bgpd").exists()).then_some("no FRR: apt-get install frr")
}

/// BIRD in the namespace of `host`.
pub fn bird(fabric: &Fabric, host: &str, folder: &Path) -> Program {
    let config = format!(
        "router id 10.255.0.1;
log stderr all;
protocol device {{ scan time 5; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on; }}
protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths on; }}
template bgp node {{
  local as {BIRD_ASN}; passive on; direct; hold time 9; graceful restart aware;
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
protocol bgp four from node {{ neighbor range 10.77.0.0/24 as {NODE_ASN}; dynamic name \"four\"; }}
protocol bgp six from node {{ neighbor range fd77::/64 as {NODE_ASN}; dynamic name \"six\"; }}
"
    );
    let file = write(folder, "bird.conf", &config);
    let (socket, pid) = (folder.join("bird.ctl"), folder.join("bird.pid"));
    let path = |path: &Path| path.as_os_str().to_owned();
    let command =
        ["bird".into(), "-f".into(), "-c".into(), path(&file), "-s".into(), path(&socket), "-P".into(), path(&pid)];
    Program::start(Some(&fabric.name(host)), &folder.join("bird.log"), &command).expect("sh runs")
}

/// FRR's zebra and bgpd in the namespace of `host`. They run as the user that the package made.
pub fn frr(fabric: &Fabric, host: &str, folder: &Path) -> [Program; 2] {
    let zebra = write(folder, "zebra.conf", "hostname tor\nlog stdout informational\n");
    let config = format!(
        "frr defaults datacenter
hostname tor
log stdout informational
router bgp {FRR_ASN}
 bgp router-id 10.255.0.2
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 neighbor nodes peer-group
 neighbor nodes remote-as {NODE_ASN}
 neighbor nodes timers 3 9
 bgp listen range 10.77.0.0/24 peer-group nodes
 bgp listen range fd77::/64 peer-group nodes
 address-family ipv4 unicast
  neighbor nodes activate
  neighbor nodes route-map none out
  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
  neighbor nodes activate
  neighbor nodes route-map none out
  maximum-paths 64
 exit-address-family
exit
route-map none deny 10
exit
"
    );
    let bgpd = write(folder, "bgpd.conf", &config);
    let chown = Command::new("chown").args(["-R", "frr:frr"]).arg(folder).status().expect("chown runs");
    assert!(chown.success(), "the package frr makes a user frr");
    let zserv = folder.join("zserv.api");
    let start = |name: &str, config: &Path| {
        let flags: [OsString; 12] = [
            Path::new(FRR).join(name).into(),
            "-f".into(),
            config.into(),
            "-i".into(),
            folder.join(format!("{name}.pid")).into(),
            "-z".into(),
            zserv.clone().into(),
            "--vty_socket".into(),
            folder.into(),
            "-P".into(),
            "0".into(),
            "--log=stdout".into(),
        ];
        Program::start(Some(&fabric.name(host)), &folder.join(format!("{name}.log")), &flags).expect("sh runs")
    };
    let zebra = start("zebra", &zebra);
    let begun = std::time::Instant::now();
    while !zserv.exists() {
        assert!(zebra.running() && begun.elapsed() < Duration::from_secs(10), "zebra:\n{}", zebra.tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    [zebra, start("bgpd", &bgpd)]
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder is writable");
    path
}
