//! ExaBGP. It keeps no table: what it hears it tells a process, here one that writes it into a file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use ipnet::IpNet;
use serde_json::Value;

use super::{
    cells::{Cell, Feature},
    link::Link,
    router::Place,
    seen::{self, ADD_PATH, EXTENDED_MESSAGE, EXTENDED_NEXT_HOP, GRACEFUL_RESTART, Route, Seen, Session},
};
use crate::{
    lab::{process::Process, site::ROUTER_ASN, tools::find},
    types::Family,
};

/// What it told, one JSON object a line.
const TOLD: &str = "told.json";

pub(super) fn lacks(cell: Cell) -> Option<&'static str> {
    match cell {
        Cell::TcpAo => Some("ExaBGP 4 has no TCP-AO"),
        Cell::GrRestart | Cell::LongLived => Some("ExaBGP keeps no table, so there are no routes that it could keep"),
        Cell::Unnumbered => Some("ExaBGP sends no router advertisements, by which a node finds its router"),
        Cell::Bfd | Cell::BfdMultiHop | Cell::BfdSigned => Some("ExaBGP has no BFD"),
        Cell::LinkBandwidth => Some("ExaBGP writes no kernel routes that could have weights"),
        Cell::Role | Cell::RoleWrong => Some("ExaBGP 4 has no roles (RFC 9234)"),
        Cell::GtsmMissing => Some("ExaBGP sends with TTL 255 and cannot demand it: Python 3.11 has no IP_MINTTL"),
        _ => None,
    }
}

pub(super) fn start(place: &Place, links: &[Link]) -> anyhow::Result<Vec<Process>> {
    use std::os::unix::fs::PermissionsExt;
    // Its standard output stays open: its end is taken for the process's.
    let script = format!("#!/bin/sh\nexec 3>&1\nexec cat >> {}\n", place.path(TOLD));
    let writer = place.write("writer", &script)?;
    std::fs::set_permissions(&writer, std::fs::Permissions::from_mode(0o755))?;
    place.write(TOLD, "")?;
    let config = place.write("exabgp.conf", &config(links, &writer))?;
    // ExaBGP takes its settings from the environment.
    let settings = ["exabgp_daemon_user=root", "exabgp_api_cli=false", "exabgp_api_ack=false", "exabgp_log_level=INFO"];
    let program = find("exabgp", "exabgp")?.display().to_string();
    let arguments: Vec<&str> = settings.into_iter().chain([program.as_str(), config.as_str()]).collect();
    Ok(vec![place.start("router", &find("env", "coreutils")?, &arguments)?])
}

fn config(links: &[Link], writer: &str) -> String {
    let neighbors: String = links.iter().map(neighbor).collect();
    format!("process told {{ run {writer}; encoder json; }}\n{neighbors}")
}

fn neighbor(link: &Link) -> String {
    let terms = &link.terms;
    let switch = |on: bool| if on { "enable" } else { "disable" };
    let mut options = String::new();
    if let Some(key) = terms.router_key {
        options += &format!("md5-password \"{key}\"; ");
    }
    if terms.has(Feature::RouterGtsm) {
        options += "outgoing-ttl 255; incoming-ttl 255; ";
    }
    let mut capabilities = String::new();
    if terms.has(Feature::AddPath) {
        capabilities += "add-path receive; ";
    }
    if terms.has(Feature::ExtendedNextHop) {
        capabilities += "nexthop enable; ";
        options += "nexthop { ipv4 unicast ipv6; } ";
    }
    let graceful = if terms.has(Feature::GracefulRestart) { "graceful-restart 30; " } else { "" };
    let families: String = terms
        .at_router()
        .iter()
        .map(|family| match family {
            Family::Ipv4 => "ipv4 unicast; ",
            Family::Ipv6 => "ipv6 unicast; ",
        })
        .collect();
    format!(
        "neighbor {} {{ router-id 10.255.0.1; local-address {}; local-as {ROUTER_ASN}; peer-as {}; hold-time 9; \
         passive true; listen 179; {options}family {{ {families}}} \
         capability {{ extended-message {}; {graceful}{capabilities}}} \
         api {{ processes [ told ]; neighbor-changes; negotiated; receive {{ parsed; open; update; notification; }} }} }}\n",
        link.neighbor(),
        link.gateway(),
        terms.expected_as,
        switch(terms.has(Feature::ExtendedMessages)),
    )
}

pub(super) fn look(place: &Place) -> anyhow::Result<Seen> {
    let told = std::fs::read(place.path(TOLD))?;
    let told = String::from_utf8_lossy(&told);
    // The last line may be half written.
    let whole = told.rfind('\n').map_or("", |end| &told[..end]);
    parse(whole)
}

/// What is so after everything that was told.
fn parse(told: &str) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    for line in told.lines() {
        // It puts the octets of a NOTIFICATION into a string as they are.
        let line = line.replace(char::is_control, " ");
        let event: Value = serde_json::from_str(&line).with_context(|| format!("read what ExaBGP told: {line}"))?;
        let Some(peer) = event["neighbor"]["address"]["peer"].as_str() else { continue };
        let session = seen.sessions.entry(peer.to_owned()).or_default();
        match event["type"].as_str() {
            Some("state") => state(session, &event["neighbor"]),
            Some("open") => open(session, &event["neighbor"]["open"]),
            Some("negotiated") => negotiated(session, &event["neighbor"]["negotiated"]),
            Some("notification") => notification(session, &event["neighbor"]["notification"]),
            Some("update") => {
                session.updates = Some(session.updates.unwrap_or_default() + 1);
                update(&mut seen.routes, peer, &event["neighbor"]["message"]["update"]);
            }
            _ => {}
        }
        if !seen.sessions[peer].established {
            seen.routes.values_mut().for_each(|paths| paths.retain(|path| path.from != peer));
            seen.routes.retain(|_, paths| !paths.is_empty());
        }
    }
    Ok(seen)
}

fn state(session: &mut Session, told: &Value) {
    session.established = told["state"] == "up";
    if told["state"] == "connected" {
        session.end.clear();
    }
    // What a NOTIFICATION said is more than that there was one.
    if told["state"] == "down" && session.end.is_empty() {
        told["reason"].as_str().unwrap_or_default().clone_into(&mut session.end);
    }
}

fn open(session: &mut Session, told: &Value) {
    session.remote_as = told["asn"].as_u64().and_then(|asn| asn.try_into().ok());
    session.capabilities.clear();
    let graceful = &told["capabilities"]["64"];
    if !graceful.is_null() {
        session.capabilities.insert(GRACEFUL_RESTART);
    }
}

fn negotiated(session: &mut Session, told: &Value) {
    let is_filled = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    for (capability, has) in [
        (EXTENDED_MESSAGE, told["message_size"] == 65_535),
        (ADD_PATH, is_filled(&told["add_path"]["receive"])),
        (EXTENDED_NEXT_HOP, is_filled(&told["nexthop"])),
    ] {
        if has {
            session.capabilities.insert(capability);
        }
    }
    let families = told["families"].as_array().into_iter().flatten().filter_map(Value::as_str);
    session.families = families.filter_map(family).collect();
}

fn notification(session: &mut Session, told: &Value) {
    session.end = format!("NOTIFICATION {}/{}", told["code"], told["subcode"]);
}

fn update(routes: &mut BTreeMap<IpNet, Vec<Route>>, peer: &str, told: &Value) {
    let attributes = &told["attribute"];
    let numbers = |list: &Value| -> Vec<u32> {
        list.as_array().into_iter().flatten().filter_map(|n| n.as_u64()?.try_into().ok()).collect()
    };
    let tuples = |list: &Value| -> Vec<String> {
        let words = |tuple: &Value| numbers(tuple).iter().map(u32::to_string).collect::<Vec<_>>().join(":");
        list.as_array().into_iter().flatten().map(words).collect()
    };
    let mut communities: BTreeSet<String> =
        tuples(&attributes["community"]).iter().map(|c| seen::community(c)).collect();
    communities.extend(tuples(&attributes["large-community"]).iter().map(|c| format!("large:{c}")));
    let extended =
        attributes["extended-community"].as_array().into_iter().flatten().filter_map(|c| c["string"].as_str());
    communities.extend(extended.filter_map(|c| c.split_once(':').map(|(kind, rest)| seen::extended(kind, rest))));
    let route = Route { from: peer.into(), as_path: numbers(&attributes["as-path"]), communities, ..Route::default() };
    let withdrawn = told["withdraw"].as_object().into_iter().flatten().flat_map(|(_, list)| prefixes(list));
    for (prefix, id) in withdrawn {
        if let Some(paths) = routes.get_mut(&prefix) {
            paths.retain(|path| path.from != peer || path.id != id);
        }
    }
    let announced = told["announce"].as_object().into_iter().flatten().flat_map(|(_, by_next_hop)| {
        by_next_hop.as_object().into_iter().flatten().flat_map(|(_, list)| prefixes(list))
    });
    for (prefix, id) in announced {
        let paths = routes.entry(prefix).or_default();
        paths.retain(|path| path.from != peer || path.id != id);
        paths.push(Route { id, ..route.clone() });
    }
}

/// Prefixes with their path identifiers.
fn prefixes(list: &Value) -> Vec<(IpNet, Option<String>)> {
    let id = |nlri: &Value| nlri["path-information"].as_str().map(str::to_owned);
    let parse = |nlri: &Value| Some((nlri["nlri"].as_str()?.parse().ok()?, id(nlri)));
    list.as_array().into_iter().flatten().filter_map(parse).collect()
}

fn family(name: &str) -> Option<Family> {
    match name {
        "ipv4 unicast" => Some(Family::Ipv4),
        "ipv6 unicast" => Some(Family::Ipv6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told by ExaBGP 4.2.21, shortened.
    fn told(rest: &str) -> String {
        let neighbor = r#""neighbor": { "address": { "local": "10.77.9.1", "peer": "10.77.9.2" }"#;
        format!("{{ \"exabgp\": \"4.0.1\", {} }} }}\n", rest.replacen("NEIGHBOR", neighbor, 1))
    }

    #[test]
    fn session_and_routes_follow_from_what_was_told() {
        let mut events = told(r#""type": "state", NEIGHBOR, "state": "connected""#)
            + &told(
                r#""type": "open", NEIGHBOR, "open": { "asn": 64601, "capabilities": { "64": { "time": 120 } } }"#,
            )
            + &told(
                r#""type": "negotiated", NEIGHBOR, "negotiated": { "message_size": 65535, "families": [ "ipv4 unicast" ] }"#,
            )
            + &told(r#""type": "state", NEIGHBOR, "state": "up""#)
            + &told(
                r#""type": "update", NEIGHBOR, "message": { "update": { "attribute": { "origin": "igp", "as-path": [ 64601 ],
                "community": [ [ 65000, 100 ], [ 65535, 65281 ] ], "large-community": [ [ 64500, 1 , 2 ] ] },
                "announce": { "ipv4 unicast": { "10.77.9.2": [ { "nlri": "192.0.2.9/32" } ] } } } }"#,
            )
            .replace('\n', " ");
        let seen = parse(&events).expect("valid");
        let session = &seen.sessions["10.77.9.2"];
        assert!(session.established && session.remote_as == Some(64601) && session.families == [Family::Ipv4].into());
        assert_eq!(session.capabilities, [EXTENDED_MESSAGE, GRACEFUL_RESTART].into());
        let [path] = &seen.routes[&"192.0.2.9/32".parse().expect("valid")][..] else { panic!("{seen:?}") };
        assert_eq!(path.communities, ["65000:100", "large:64500:1:2", "no-export"].map(str::to_owned).into());
        events += "\n";
        events += &told(r#""type": "state", NEIGHBOR, "state": "down", "reason": "peer reset""#);
        let seen = parse(&events).expect("valid");
        assert!(!seen.sessions["10.77.9.2"].established && seen.routes.is_empty(), "{seen:?}");
    }
}
