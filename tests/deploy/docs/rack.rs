//! A node and its router as the examples name them: 10.0.0.10 and 10.0.0.1, in network namespaces of their own.

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::stages::Line;
use crate::{
    support::{fabric::Fabric, program::Program, routers, skip},
    tools::path,
};

/// Both namespaces, and BIRD as soon as somebody says how.
pub(super) struct Rack {
    pub(super) fabric: Fabric,
    bird: Option<Program>,
}

impl Rack {
    /// `None`, with a line that says why, where this machine has no room for one.
    pub(super) fn new() -> Option<Self> {
        if let Some(missing) = routers::missing() {
            skip(missing);
            return None;
        }
        let fabric = Fabric::new(&[("node", 1), ("router", 2)]);
        for (host, address) in [("node", "10.0.0.10/24"), ("router", "10.0.0.1/24")] {
            let name = fabric.name(host);
            let added = Command::new("ip").args(["-n", &name, "address", "add", address, "dev", "eth0"]).status();
            assert!(added.expect("ip runs").success());
        }
        Some(Self { fabric, bird: None })
    }

    /// Whether a server of the node at this address answers the router within a moment.
    pub(super) fn answers(&self, at: SocketAddr) -> bool {
        let server =
            within(&self.fabric.name("node"), move || TcpListener::bind(at).expect("the address is on the node"));
        let patience = Duration::from_secs(5);
        let connected = within(&self.fabric.name("router"), move || TcpStream::connect_timeout(&at, patience).is_ok());
        drop(server);
        connected
    }

    /// BIRD with what `ironcast router-config` printed.
    pub(super) fn configure(&mut self, config: &str, folder: &Path) {
        self.bird = None;
        let file = folder.join("bird.conf");
        fs::write(&file, config).expect("written");
        let at = |name: &str| folder.join(name).into_os_string();
        let command: Vec<OsString> = ["bird".into(), "-f".into(), "-c".into(), file.into_os_string()]
            .into_iter()
            .chain(["-s".into(), at("bird.ctl"), "-P".into(), at("bird.pid")])
            .collect();
        let bird =
            Program::start(Some(&self.fabric.name("router")), &folder.join("bird.log"), &command).expect("sh runs");
        self.bird = Some(bird);
    }
}

/// Does something in a network namespace.
fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{namespace}");
    let inside = move || {
        let namespace = fs::File::open(path).expect("the namespace is there");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
        work()
    };
    std::thread::spawn(inside).join().expect("no panic")
}

/// A folder that looks like a clone. A daemon writes beside its examples.
pub(super) fn clone(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    let copied = Command::new("cp").arg("-r").arg(path("deploy")).arg(folder).status();
    assert!(copied.expect("cp runs").success());
}

/// The folder of the program, first in the path of every line.
pub(super) fn programs(more: &[&Path]) -> OsString {
    let ours = Path::new(env!("CARGO_BIN_EXE_ironcast")).parent().expect("in a folder");
    let usual = std::env::var_os("PATH").expect("set");
    let all =
        std::iter::once(ours).chain(more.iter().copied()).map(Path::to_owned).chain(std::env::split_paths(&usual));
    std::env::join_paths(all).expect("a path")
}

/// What a line of a document must print, by how it begins; one that only looks must print something.
const PRINTS: &[(&str, &str)] = &[
    ("kubectl get service web", "192.0.2."),
    ("kubectl describe service web", "IPAllocated"),
    ("ironcast router-config --for frr", "router bgp 64513"),
    ("ironcast check deploy/examples", "0 errors"),
    ("ironcast explain service default/web", "announced  192.0.2."),
    ("ironcast status", "Established"),
];

/// Whether what was printed is what the document promises.
pub(super) fn is_as_promised(line: &Line, printed: &str) -> bool {
    let looks = [" get ", " describe ", "ironcast ", "jq "].iter().any(|word| line.text.contains(word));
    let wanted = PRINTS.iter().find(|(start, _)| line.text.starts_with(start)).map_or("", |(_, text)| text);
    printed.contains(wanted) && (!looks || line.text.contains('>') || !printed.trim().is_empty())
}
