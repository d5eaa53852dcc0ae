//! Network namespaces on one bridge, each a host of its own. They go with the test, whatever ends it.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use super::program::Program;

/// The bridge and what hangs on it; `10.77.0.0/24` and `fd77::/64`.
pub struct Fabric {
    prefix: String,
    _guard: Program,
}

impl Fabric {
    /// Makes a namespace of each name, with the host number beside it.
    pub fn new(hosts: &[(&str, u8)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("icke{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let all = ["bridge"].into_iter().chain(hosts.iter().map(|(name, _)| *name));
        let names: Vec<String> = all.map(|name| format!("{prefix}-{name}")).collect();
        let guard = Program::remove_namespaces(&names).expect("sh runs");
        let fabric = Self { prefix, _guard: guard };
        for name in &names {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let bridge = fabric.name("bridge");
        ip(&format!("-n {bridge} link add br0 type bridge"));
        ip(&format!("-n {bridge} link set br0 up"));
        for (host, number) in hosts {
            let name = fabric.name(host);
            ip(&format!("-n {bridge} link add p{number} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {bridge} link set p{number} master br0 up"));
            ip(&format!("-n {name} address add {}/24 dev eth0", v4(*number)));
            ip(&format!("-n {name} address add {}/64 dev eth0 nodad", v6(*number)));
            ip(&format!("-n {name} link set eth0 up"));
        }
        fabric
    }

    /// Name of a host's namespace.
    pub fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// The addresses of the next hops of a route in a host's kernel; none where there is no route.
    pub fn next_hops(&self, host: &str, prefix: &str) -> Vec<String> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let arguments = format!("-n {} -j {family} route show {prefix}", self.name(host));
        let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
        let routes: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let routes = routes.as_array().into_iter().flatten();
        let hops = routes.flat_map(|route| match route["nexthops"].as_array() {
            Some(hops) => hops.clone(),
            None => vec![route.clone()],
        });
        let mut hops: Vec<String> = hops.filter_map(|hop| Some(hop["gateway"].as_str()?.to_owned())).collect();
        hops.sort();
        hops
    }
}

/// IPv4 address of a host.
pub fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// IPv6 address of a host.
pub fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
