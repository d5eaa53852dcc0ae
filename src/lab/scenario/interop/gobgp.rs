//! GoBGP. It writes no kernel routes; its own table is the proof.

use std::collections::BTreeMap;

use anyhow::Context;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{
    cells::{Cell, Feature},
    link::Link,
    router::Place,
    seen::{self, ADD_PATH, EXTENDED_NEXT_HOP, GRACEFUL_RESTART, Route, Seen, Session},
};
use crate::{
    lab::{process::Process, site::ROUTER_ASN, tools::find},
    types::Family,
};

/// Its API, in the router's namespace only.
const API: &str = "127.0.0.1:50051";

pub(super) fn lacks(cell: Cell) -> Option<&'static str> {
    match cell {
        Cell::Unnumbered => Some("GoBGP sends no router advertisements, by which a node finds its router"),
        Cell::Bfd | Cell::BfdMultiHop | Cell::BfdSigned => Some("GoBGP has no BFD"),
        Cell::TcpAo => Some("GoBGP 3 has no TCP-AO"),
        Cell::LinkBandwidth => Some("GoBGP writes no kernel routes that could have weights"),
        Cell::Role | Cell::RoleWrong => Some("GoBGP 3 has no roles (RFC 9234)"),
        Cell::ExtendedMessages => Some("GoBGP 3 does not offer extended messages (RFC 8654)"),
        _ => None,
    }
}

pub(super) fn start(place: &Place, links: &[Link]) -> anyhow::Result<Vec<Process>> {
    let config = place.write("gobgp.yaml", &config(links))?;
    let arguments = ["-f", &config, "-t", "yaml", &format!("--api-hosts={API}"), "--pprof-disable"];
    Ok(vec![place.start("router", &find("gobgpd", "gobgpd")?, &arguments)?])
}

fn config(links: &[Link]) -> String {
    let neighbors: String = links.iter().map(neighbor).collect();
    format!(
        "global:
  config: {{as: {ROUTER_ASN}, router-id: 10.255.0.1}}
  use-multiple-paths: {{config: {{enabled: true}}}}
  apply-policy: {{config: {{default-export-policy: reject-route}}}}
neighbors:
{neighbors}"
    )
}

fn neighbor(link: &Link) -> String {
    let terms = &link.terms;
    let key = terms.router_key.map(|key| format!(", auth-password: {key}")).unwrap_or_default();
    let graceful = terms.has(Feature::GracefulRestart);
    let mut lines = format!(
        "  - config: {{neighbor-address: \"{}\", peer-as: {}{key}}}
    transport: {{config: {{passive-mode: true}}}}
    timers: {{config: {{hold-time: 9, idle-hold-time-after-reset: 1}}}}
",
        link.neighbor(),
        terms.expected_as
    );
    if terms.has(Feature::RouterGtsm) {
        lines += "    ttl-security: {config: {enabled: true, ttl-min: 255}}\n";
    }
    let long_lived = link.cell == Cell::LongLived;
    if graceful {
        let more = if long_lived { ", long-lived-enabled: true" } else { ", notification-enabled: true" };
        lines += &format!("    graceful-restart: {{config: {{enabled: true, restart-time: 30{more}}}}}\n");
    }
    lines += "    afi-safis:\n";
    for family in terms.at_router() {
        let name = match family {
            Family::Ipv4 => "ipv4-unicast",
            Family::Ipv6 => "ipv6-unicast",
        };
        let mut paths = if terms.has(Feature::AddPath) { ", add-paths: {config: {receive: true}}" } else { "" };
        if long_lived {
            paths = ", long-lived-graceful-restart: {config: {enabled: true, restart-time: 60}}";
        }
        lines += &format!(
            "      - {{config: {{afi-safi-name: {name}}}, mp-graceful-restart: {{config: {{enabled: {graceful}}}}}{paths}}}\n"
        );
    }
    lines
}

pub(super) async fn look(place: &Place) -> anyhow::Result<Seen> {
    let gobgp = find("gobgp", "gobgpd")?;
    let neighbors = place.ask(&gobgp, &["neighbor", "-j"]).await?;
    let mut seen = Seen { sessions: parse_sessions(&neighbors)?, ..Seen::default() };
    for family in ["ipv4", "ipv6"] {
        let table = place.ask(&gobgp, &["global", "rib", "-a", family, "-j"]).await?;
        seen.routes.extend(parse_routes(&table)?);
    }
    Ok(seen)
}

#[derive(Deserialize)]
struct Neighbor {
    state: NeighborState,
}

#[derive(Deserialize)]
struct NeighborState {
    neighbor_address: String,
    #[serde(default)]
    session_state: u8,
    /// As configured.
    peer_asn: Option<u32>,
    #[serde(default)]
    remote_cap: Vec<Capability>,
}

/// A message of GoBGP's API, in the encoding of protocol buffers and base64.
#[derive(Deserialize)]
struct Capability {
    type_url: String,
    #[serde(default)]
    value: String,
}

/// `session_state` of GoBGP's API.
const ESTABLISHED: u8 = 6;

fn parse_sessions(json: &str) -> anyhow::Result<BTreeMap<String, Session>> {
    let neighbors: Vec<Neighbor> = serde_json::from_str(json).context("read what gobgp printed of its neighbours")?;
    let session = |state: NeighborState| {
        let mut session = Session {
            established: state.session_state == ESTABLISHED,
            remote_as: state.peer_asn,
            ..Session::default()
        };
        for capability in &state.remote_cap {
            let name = capability.type_url.rsplit('.').next().unwrap_or_default();
            // Family{afi: 1 or 2, safi: 1}.
            match (name, capability.value.as_str()) {
                ("MultiProtocolCapability", "CgQIARAB") => _ = session.families.insert(Family::Ipv4),
                ("MultiProtocolCapability", "CgQIAhAB") => _ = session.families.insert(Family::Ipv6),
                ("AddPathCapability", _) => _ = session.capabilities.insert(ADD_PATH),
                ("ExtendedNexthopCapability", _) => _ = session.capabilities.insert(EXTENDED_NEXT_HOP),
                ("GracefulRestartCapability", _) => _ = session.capabilities.insert(GRACEFUL_RESTART),
                _ => {}
            }
        }
        (state.neighbor_address, session)
    };
    Ok(neighbors.into_iter().map(|neighbor| session(neighbor.state)).collect())
}

#[derive(Deserialize)]
struct Path {
    #[serde(rename = "neighbor-ip")]
    from: String,
    #[serde(default)]
    stale: bool,
    attrs: Vec<Value>,
}

fn parse_routes(json: &str) -> anyhow::Result<BTreeMap<IpNet, Vec<Route>>> {
    let table: BTreeMap<IpNet, Vec<Path>> =
        serde_json::from_str(json).context("read what gobgp printed of its table")?;
    Ok(table.into_iter().map(|(prefix, paths)| (prefix, paths.into_iter().map(route).collect())).collect())
}

fn route(path: Path) -> Route {
    let mut route = Route { from: path.from, stale: path.stale, ..Route::default() };
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    for attribute in &path.attrs {
        let list = |key: &str| attribute[key].as_array().into_iter().flatten();
        match attribute["type"].as_u64() {
            Some(2) => {
                let segments = list("as_paths").flat_map(|segment| segment["asns"].as_array().into_iter().flatten());
                route.as_path = segments.filter_map(number).collect();
            }
            Some(8) => {
                let words = |c: u32| seen::community(&format!("{}:{}", c >> 16, c & 0xffff));
                route.communities.extend(list("communities").filter_map(number).map(words));
            }
            Some(16) => route.communities.extend(list("value").map(|c| {
                let kind = match c["subtype"].as_u64() {
                    Some(2) => "rt",
                    Some(3) => "ro",
                    _ => "",
                };
                seen::extended(kind, c["value"].as_str().unwrap_or_default())
            })),
            Some(32) => route
                .communities
                .extend(list("value").map(|c| format!("large:{}:{}:{}", c["ASN"], c["LocalData1"], c["LocalData2"]))),
            _ => {}
        }
    }
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `gobgp neighbor -j`, version 3.10, shortened.
    const NEIGHBORS: &str = r#"[{"state":{"neighbor_address":"10.77.9.2","peer_asn":64601,"session_state":6,"remote_cap":[
        {"type_url":"type.googleapis.com/apipb.MultiProtocolCapability","value":"CgQIARAB"},
        {"type_url":"type.googleapis.com/apipb.GracefulRestartCapability","value":"EHg="},
        {"type_url":"type.googleapis.com/apipb.RouteRefreshCapability"}]}},
        {"state":{"neighbor_address":"10.77.6.2","peer_asn":64601}}]"#;

    #[test]
    fn sessions_have_what_the_node_offered() {
        let sessions = parse_sessions(NEIGHBORS).expect("valid");
        let up = &sessions["10.77.9.2"];
        assert!(up.established && up.families == [Family::Ipv4].into(), "{up:?}");
        assert_eq!(up.capabilities, [GRACEFUL_RESTART].into());
        assert!(!sessions["10.77.6.2"].established);
    }

    /// Printed by `gobgp global rib -j`, version 3.10.
    const ROUTES: &str = r#"{"192.0.2.12/32":[{"nlri":{"prefix":"192.0.2.12/32"},"age":1795797958,"best":true,"attrs":[
        {"type":1,"value":0},{"type":2,"as_paths":[{"segment_type":2,"num":1,"asns":[64601]}]},
        {"type":3,"nexthop":"10.77.12.2"},{"type":8,"communities":[4259840100,4294967041]},
        {"type":32,"value":[{"ASN":64500,"LocalData1":1,"LocalData2":2}]}],
        "stale":false,"source-id":"10.77.12.2","neighbor-ip":"10.77.12.2"}]}"#;

    #[test]
    fn routes_have_communities_in_our_words() {
        let routes = parse_routes(ROUTES).expect("valid");
        let [path] = &routes[&"192.0.2.12/32".parse().expect("valid")][..] else { panic!("{routes:?}") };
        let communities = ["65000:100", "large:64500:1:2", "no-export"].map(str::to_owned).into();
        let as_path = vec![64601];
        let expected = Route { from: "10.77.12.2".into(), id: None, as_path, communities, stale: false };
        assert_eq!(*path, expected);
    }
}
