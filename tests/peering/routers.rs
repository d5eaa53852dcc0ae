//! BIRD and FRR as the router of a [`Site`]: they wait for the node, write its routes into their kernel, run BFD and
//! help with graceful restart.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    site::{NODE_ASN, ROUTER_ASN, Site, run},
    support::{program::Program, skip},
};

const FRR: &str = "/usr/lib/frr";

/// A router in the namespace `tor`.
pub(crate) trait Router: Sized {
    const NAME: &'static str;
    /// Programs that must be there.
    const PROGRAMS: &'static [&'static str];
    /// Starts it with the neighbour on 10.78.0.0/24 and BFD at 3 × `millis`.
    fn numbered(site: &Site, millis: u32) -> Self;
    /// What it says of its BFD sessions.
    fn bfd(&self) -> String;
    /// What it says of its BGP neighbours.
    fn bgp(&self) -> String;
}

/// `true`, after a line that says why, where this machine cannot run the test.
pub(crate) fn skipped<R: Router>() -> bool {
    let missing = R::PROGRAMS.iter().find(|program| !Path::new(program).exists());
    match (rustix::process::geteuid().is_root(), missing) {
        (true, None) => return false,
        (true, Some(program)) => skip(&format!("{program} is not installed")),
        (false, _) => skip("needs root for network namespaces"),
    }
    true
}

/// BIRD 2.
pub(crate) struct Bird {
    folder: std::path::PathBuf,
    _process: Program,
}

impl Bird {
    pub(crate) fn start(site: &Site, config: &str) -> Self {
        let folder = site.folder().join("tor");
        fs::create_dir(&folder).expect("a folder");
        let kernel = "import none; export where source = RTS_BGP;";
        let config = format!(
            "router id 10.255.0.1;\nlog stderr all;\nprotocol device {{ scan time 1; }}\n\
             protocol kernel {{ ipv4 {{ {kernel} }}; }}\nprotocol kernel {{ ipv6 {{ {kernel} }}; }}\n{config}"
        );
        fs::write(folder.join("bird.conf"), config).expect("written");
        let path = |name: &str| folder.join(name).into_os_string();
        let mut command: Vec<OsString> = ["chrt", "--fifo", "40", "/usr/sbin/bird", "-f"].map(Into::into).to_vec();
        command.extend(["-c".into(), path("bird.conf"), "-s".into(), path("bird.ctl"), "-P".into(), path("bird.pid")]);
        let process = Program::start(Some(&site.netns("tor")), &folder.join("bird.log"), &command).expect("sh runs");
        Self { folder, _process: process }
    }

    fn ask(&self, what: &str) -> String {
        let mut command = Command::new("/usr/sbin/birdc");
        let output = command.arg("-s").arg(self.folder.join("bird.ctl")).arg(what).output().expect("birdc starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Router for Bird {
    const NAME: &'static str = "BIRD";
    const PROGRAMS: &'static [&'static str] = &["/usr/sbin/bird", "/usr/sbin/birdc"];

    fn numbered(site: &Site, millis: u32) -> Self {
        Self::start(
            site,
            &format!(
                "protocol bfd {{ interface \"p*\" {{ min rx interval {millis} ms; min tx interval {millis} ms; \
                 multiplier 3; }}; }}\n\
                 protocol bgp node {{ local as {ROUTER_ASN}; neighbor range 10.78.0.0/24 as {NODE_ASN}; \
                 dynamic name \"node\"; hold time 90; passive on; error wait time 1, 2; bfd on; graceful restart aware; \
                 ipv4 {{ import all; export none; }}; }}\n"
            ),
        )
    }

    fn bfd(&self) -> String {
        self.ask("show bfd sessions")
    }

    fn bgp(&self) -> String {
        self.ask("show protocols all")
    }
}

/// FRR: zebra, bfdd and bgpd.
pub(crate) struct Frr {
    folder: std::path::PathBuf,
    _processes: [Program; 3],
}

impl Frr {
    /// `zebra` and `bgpd` are parts of the daemons' configurations.
    pub(crate) fn start(site: &Site, millis: u32, zebra: &str, bgpd: &str) -> Self {
        let folder = site.folder().join("tor");
        fs::create_dir(&folder).expect("a folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), format!("hostname tor\nlog stdout informational\n{text}")).expect("written");
        };
        write("zebra.conf", zebra);
        let profile = format!(
            "bfd\n profile fast\n  detect-multiplier 3\n  receive-interval {millis}\n  \
             transmit-interval {millis}\n exit\nexit\n"
        );
        write("bfdd.conf", &profile);
        write("bgpd.conf", bgpd);
        // The daemons give up root before they make their sockets.
        run("chmod", &format!("755 {}", site.folder().display()));
        run("chown", &format!("-R frr:frr {}", folder.display()));
        let start = |name: &str| {
            let path = |name: &str| folder.join(name).into_os_string();
            let mut command: Vec<OsString> = ["chrt", "--fifo", "40"].map(Into::into).to_vec();
            command.extend([Path::new(FRR).join(name).into(), "-f".into(), path(&format!("{name}.conf"))]);
            command.extend(["-i".into(), path(&format!("{name}.pid")), "-z".into(), path("zserv.api")]);
            command.extend(["--vty_socket".into(), folder.clone().into(), "-P".into(), "0".into()]);
            match name {
                "bfdd" => command.extend(["--bfdctl".into(), path("bfdd.sock")]),
                "bgpd" => command.push("--log=stdout".into()),
                _ => {}
            }
            Program::start(Some(&site.netns("tor")), &folder.join(format!("{name}.log")), &command).expect("sh runs")
        };
        let zebra = start("zebra");
        let begun = Instant::now();
        while !folder.join("zserv.api").exists() {
            assert!(zebra.running() && begun.elapsed() < Duration::from_secs(10), "zebra:\n{}", zebra.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { _processes: [zebra, start("bfdd"), start("bgpd")], folder }
    }

    pub(crate) fn ask(&self, daemon: &str, what: &str) -> String {
        let mut command = Command::new("/usr/bin/vtysh");
        let output = command.arg("--vty_socket").arg(&self.folder).args(["-d", daemon, "-c", what]).output();
        String::from_utf8_lossy(&output.expect("vtysh starts").stdout).into_owned()
    }
}

impl Router for Frr {
    const NAME: &'static str = "FRR";
    const PROGRAMS: &'static [&'static str] = &["/usr/lib/frr/bgpd", "/usr/lib/frr/bfdd", "/usr/bin/vtysh"];

    fn numbered(site: &Site, millis: u32) -> Self {
        let bgpd = format!(
            "frr defaults datacenter\nrouter bgp {ROUTER_ASN}\n bgp router-id 10.255.0.1\n \
             no bgp ebgp-requires-policy\n bgp graceful-restart\n \
             neighbor 10.78.0.2 remote-as {NODE_ASN}\n neighbor 10.78.0.2 passive\n neighbor 10.78.0.2 bfd\n \
             neighbor 10.78.0.2 bfd profile fast\nexit\n"
        );
        Self::start(site, millis, "", &bgpd)
    }

    fn bfd(&self) -> String {
        self.ask("bfdd", "show bfd peers")
    }

    fn bgp(&self) -> String {
        self.ask("bgpd", "show bgp neighbors")
    }
}
