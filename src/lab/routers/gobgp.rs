//! GoBGP. It writes no kernel routes itself, and with the zebra of FRR 8.4 version 3.10 crashes on the first
//! interface that it is told of; so a process of the lab installs what GoBGP's own command line reports.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use ipnet::IpNet;
use serde::Deserialize;
use tokio::process::Command;

use super::{Bench, Router};
use crate::lab::{
    build::ourselves,
    fib::Routes,
    site::{NODE_ASN, ROUTER_ASN, UPLINKS},
    tools::find,
};

/// Its API, in the router's namespace only.
const API: &str = "127.0.0.1:50051";
/// The command line answers within this.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn check() -> anyhow::Result<()> {
    ["gobgpd", "gobgp"].iter().try_for_each(|program| find(program, "gobgpd").map(drop))
}

pub(super) fn start(bench: &Bench<'_>) -> anyhow::Result<Router> {
    let config = bench.write("gobgp.yaml", &config())?;
    let arguments = ["-f", &config, "-t", "yaml", &format!("--api-hosts={API}"), "--pprof-disable"];
    let speaker = bench.start("router", &find("gobgpd", "gobgpd")?, &arguments)?;
    let (asn, peer_asn) = (ROUTER_ASN.to_string(), NODE_ASN.to_string());
    let arguments = ["lab-router", "--asn", &asn, "--peer-asn", &peer_asn, "--follow-gobgp", API];
    let hand = bench.start("router-kernel", &ourselves(), &arguments)?;
    Ok(Router {
        processes: vec![speaker, hand],
        description: "GoBGP, which writes no kernel routes: the lab installs what it reports".into(),
    })
}

/// What GoBGP has received, all paths.
///
/// # Errors
/// It does not answer, or in another form than expected.
pub(in crate::lab) async fn table(api: SocketAddr) -> anyhow::Result<Routes> {
    let program = find("gobgp", "gobgpd")?;
    let (host, port) = (api.ip().to_string(), api.port().to_string());
    let mut routes = Routes::new();
    for family in ["ipv4", "ipv6"] {
        let mut command = Command::new(&program);
        command.args(["-u", &host, "-p", &port, "global", "rib", "-a", family, "-j"]).kill_on_drop(true);
        let output = tokio::time::timeout(ANSWERS_WITHIN, command.output()).await.context("gobgp is silent")??;
        if !output.status.success() {
            bail!("gobgp: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        routes.extend(parse(&output.stdout)?);
    }
    Ok(routes)
}

#[derive(Deserialize)]
struct Path {
    attrs: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    /// NEXT_HOP and MP_REACH_NLRI have one.
    nexthop: Option<IpAddr>,
}

fn parse(json: &[u8]) -> anyhow::Result<Routes> {
    let prefixes: std::collections::BTreeMap<IpNet, Vec<Path>> =
        serde_json::from_slice(json).context("read what gobgp printed")?;
    let next_hops = |paths: Vec<Path>| paths.into_iter().flat_map(|p| p.attrs).filter_map(|a| a.nexthop).collect();
    Ok(prefixes.into_iter().map(|(prefix, paths)| (prefix, next_hops(paths))).collect())
}

fn config() -> String {
    let [v4, v6] = UPLINKS;
    format!(
        r#"global:
  config: {{as: {ROUTER_ASN}, router-id: 10.255.0.1}}
  use-multiple-paths: {{config: {{enabled: true}}}}
  apply-policy: {{config: {{default-export-policy: reject-route}}}}
peer-groups:
  - config: {{peer-group-name: nodes, peer-as: {NODE_ASN}}}
    timers: {{config: {{hold-time: 90}}}}
    graceful-restart: {{config: {{enabled: true, helper-only: true, restart-time: 30}}}}
    afi-safis:
      - config: {{afi-safi-name: ipv4-unicast}}
        mp-graceful-restart: {{config: {{enabled: true}}}}
      - config: {{afi-safi-name: ipv6-unicast}}
        mp-graceful-restart: {{config: {{enabled: true}}}}
dynamic-neighbors:
  - config: {{prefix: "{v4}", peer-group: nodes}}
  - config: {{prefix: "{v6}", peer-group: nodes}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `gobgp global rib -j`, version 3.10, for routes of two nodes; shortened.
    const PRINTED: &str = r#"{"192.0.2.1/32":[
        {"nlri":{"prefix":"192.0.2.1/32"},"best":true,"attrs":[{"type":1,"value":0},{"type":3,"nexthop":"10.77.2.2"}]},
        {"nlri":{"prefix":"192.0.2.1/32"},"best":false,"attrs":[{"type":1,"value":0},{"type":3,"nexthop":"10.77.1.2"}]}]}"#;

    #[test]
    fn every_path_is_a_next_hop() {
        let routes = parse(PRINTED.as_bytes()).expect("valid");
        let prefix: IpNet = "192.0.2.1/32".parse().expect("prefix");
        assert_eq!(routes[&prefix].len(), 2);
        assert!(parse(b"{}").expect("no routes").is_empty());
    }
}
