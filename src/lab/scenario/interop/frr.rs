//! FRRouting: zebra writes the kernel's routes, bgpd speaks. They run as the user that the package made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, bail};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::{
    cells::{Cell, Feature},
    link::Link,
    router::{Place, appears},
    seen::{self, ADD_PATH, EXTENDED_MESSAGE, EXTENDED_NEXT_HOP, GRACEFUL_RESTART, Route, Seen, Session},
};
use crate::{
    lab::{
        process::Process,
        site::ROUTER_ASN,
        tools::{find, find_frr},
    },
    types::Family,
};

/// Routes carry their next hops themselves, so that the kernel's table shows them.
const ZEBRA: &str = "hostname tor\nlog stdout informational\nno zebra nexthop kernel enable\n";

/// As [`super::node`] has it.
const BFDD: &str = "hostname tor
log stdout informational
bfd
 profile lab
  detect-multiplier 3
  receive-interval 300
  transmit-interval 300
 exit
exit
";

pub(super) fn lacks(cell: Cell) -> Option<&'static str> {
    match cell {
        Cell::TcpAo => Some("FRR 8.4 has no TCP-AO"),
        Cell::BfdSigned => Some("FRR's BFD has no authentication"),
        _ => None,
    }
}

pub(super) async fn start(place: &Place, links: &[Link]) -> anyhow::Result<Vec<Process>> {
    let bare = links.iter().filter(|link| link.terms.has(Feature::LinkLocalOnly));
    let advertise: String = bare
        .map(|link| format!("interface {}\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\nexit\n", link.port()))
        .collect();
    let zebra_config = place.write("zebra.conf", &(ZEBRA.to_owned() + &advertise))?;
    let bfdd_config = place.write("bfdd.conf", BFDD)?;
    let bgpd_config = place.write("bgpd.conf", &config(links))?;
    let output = Command::new("chown").args(["-R", "frr:frr"]).arg(&place.folder).output().await?;
    if !output.status.success() {
        bail!("give {} to FRR: {}", place.folder.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut zebra = daemon(place, "zebra", &zebra_config)?;
    let opened = appears(Path::new(&place.path("zserv.api"))).await;
    zebra.must_run()?;
    opened?;
    Ok(vec![zebra, daemon(place, "bfdd", &bfdd_config)?, daemon(place, "bgpd", &bgpd_config)?])
}

fn daemon(place: &Place, name: &str, config: &str) -> anyhow::Result<Process> {
    let (folder, zserv, pid) = (place.path(""), place.path("zserv.api"), place.path(&format!("{name}.pid")));
    // -P 0: no terminal over TCP, which would open a port on every address.
    let control = place.path("bfdd.sock");
    let mut arguments = vec!["-f", config, "-i", &pid, "-z", &zserv, "--vty_socket", &folder, "-P", "0"];
    if name == "bfdd" {
        arguments.extend(["--bfdctl", &control]);
    }
    place.start(name, &find_frr(name)?, &arguments)
}

fn config(links: &[Link]) -> String {
    let (mut neighbors, mut v4, mut v6) = (String::new(), String::new(), String::new());
    for link in links {
        let neighbor = name(link);
        neighbors += &self::neighbor(link);
        if link.terms.at_router().contains(&Family::Ipv4) {
            v4 += &format!("  neighbor {neighbor} activate\n  neighbor {neighbor} route-map none out\n");
        }
        if link.terms.at_router().contains(&Family::Ipv6) {
            v6 += &format!("  neighbor {neighbor} activate\n  neighbor {neighbor} route-map none out\n");
        }
    }
    format!(
        "frr defaults datacenter
hostname tor
log stdout informational
router bgp {ROUTER_ASN}
 bgp router-id 10.255.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 bgp graceful-restart notification
 bgp graceful-restart stalepath-time 60
 bgp long-lived-graceful-restart stale-time 60
{neighbors} address-family ipv4 unicast
{v4}  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
{v6}  maximum-paths 64
 exit-address-family
exit
route-map none deny 10
exit
"
    )
}

/// An unnumbered neighbour is known by its port.
fn name(link: &Link) -> String {
    if link.terms.has(Feature::LinkLocalOnly) { link.port() } else { link.neighbor().to_string() }
}

fn neighbor(link: &Link) -> String {
    let (neighbor, terms) = (name(link), &link.terms);
    let mut lines = match terms.has(Feature::LinkLocalOnly) {
        true => format!(" neighbor {neighbor} interface remote-as external\n"),
        false => format!(" neighbor {neighbor} remote-as {}\n neighbor {neighbor} passive\n", terms.expected_as),
    };
    lines += &format!(" neighbor {neighbor} timers 3 9\n");
    if let Some(key) = terms.router_key {
        lines += &format!(" neighbor {neighbor} password {key}\n");
    }
    let source = format!("update-source {}", link.gateway());
    for (feature, option) in [
        (Feature::RouterGtsm, "ttl-security hops 1"),
        (Feature::ExtendedNextHop, "capability extended-nexthop"),
        (Feature::MultiHop, "ebgp-multihop 2"),
        (Feature::MultiHop, &source),
        (Feature::Bfd, "bfd"),
        (Feature::Bfd, "bfd profile lab"),
        (Feature::RouterProvider, "local-role provider strict-mode"),
        (Feature::RouterCustomer, "local-role customer"),
    ] {
        if terms.has(feature) {
            lines += &format!(" neighbor {neighbor} {option}\n");
        }
    }
    lines
}

pub(super) async fn look(place: &Place) -> anyhow::Result<Seen> {
    let vtysh = find("vtysh", "frr")?;
    let folder = place.path("");
    let ask = |command: &'static str| {
        let (vtysh, folder) = (vtysh.clone(), folder.clone());
        async move { place.ask(&vtysh, &["--vty_socket", &folder, "-d", "bgpd", "-c", command]).await }
    };
    let sessions = parse_sessions(&ask("show bgp neighbors json").await?)?;
    let mut routes = parse_routes(&ask("show bgp ipv4 unicast json detail").await?)?;
    routes.extend(parse_routes(&ask("show bgp ipv6 unicast json detail").await?)?);
    Ok(Seen { sessions, routes, kernel: Some(seen::kernel(&place.namespace).await?) })
}

fn parse_sessions(json: &str) -> anyhow::Result<BTreeMap<String, Session>> {
    let neighbors: BTreeMap<String, Value> =
        serde_json::from_str(json).context("read what FRR printed of its neighbours")?;
    Ok(neighbors.into_iter().map(|(neighbor, told)| (neighbor, session(&told))).collect())
}

fn session(told: &Value) -> Session {
    let capabilities = &told["neighborCapabilities"];
    let both = |value: &Value| value.as_str().is_some_and(|word| word.starts_with("advertisedAndReceived"));
    let extensions = &capabilities["multiprotocolExtensions"];
    let families = [("ipv4Unicast", Family::Ipv4), ("ipv6Unicast", Family::Ipv6)];
    let words = [
        ("extendedMessage", EXTENDED_MESSAGE),
        ("gracefulRestart", GRACEFUL_RESTART),
        ("extendedNexthop", EXTENDED_NEXT_HOP),
    ];
    let mut all: BTreeSet<_> =
        words.into_iter().filter(|(name, _)| both(&capabilities[name])).map(|(_, word)| word).collect();
    // We take what the node would send.
    let takes = |family: &Value| family["rxAdvertised"] == true || family["rxAdvertisedAndReceived"] == true;
    let sends = |family: &Value| family["txReceived"] == true || family["txAdvertisedAndReceived"] == true;
    let add_path = capabilities["addPath"].as_object();
    if add_path.is_some_and(|by_family| by_family.values().any(|family| takes(family) && sends(family))) {
        all.insert(ADD_PATH);
    }
    Session {
        established: told["bgpState"] == "Established",
        families: families
            .into_iter()
            .filter(|(name, _)| extensions[name]["advertisedAndReceived"] == true)
            .map(|(_, family)| family)
            .collect(),
        capabilities: all,
        role: told["remoteRole"].as_str().filter(|role| *role != "undefined").map(str::to_owned),
        bfd: told["peerBfdInfo"]["status"].as_str().map(|status| status == "Up"),
        remote_as: told["remoteAs"].as_u64().and_then(|asn| asn.try_into().ok()),
        updates: told["messageStats"]["updatesRecv"].as_u64(),
        end: told["lastResetDueTo"].as_str().unwrap_or_default().to_owned(),
    }
}

#[derive(Deserialize)]
struct Table {
    routes: BTreeMap<IpNet, Vec<Value>>,
}

fn parse_routes(json: &str) -> anyhow::Result<BTreeMap<IpNet, Vec<Route>>> {
    let table: Table = serde_json::from_str(json).context("read what FRR printed of its table")?;
    // The first element says the prefix again, the others are paths.
    let paths = |list: Vec<Value>| list.iter().filter(|path| path["peer"].is_object()).map(route).collect();
    Ok(table.routes.into_iter().map(|(prefix, list)| (prefix, paths(list))).collect())
}

fn route(path: &Value) -> Route {
    let words = |list: &Value| -> Vec<String> {
        list["string"].as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let mut communities: BTreeSet<String> = words(&path["community"]).iter().map(|c| seen::community(c)).collect();
    communities.extend(words(&path["largeCommunity"]).iter().map(|c| format!("large:{c}")));
    let split = |c: &String| c.split_once(':').map(|(kind, rest)| seen::extended(kind, rest));
    communities.extend(words(&path["extendedCommunity"]).iter().filter_map(split));
    Route {
        from: path["peer"]["peerId"].as_str().unwrap_or_default().to_owned(),
        id: path["addpathRxId"].as_u64().map(|id| id.to_string()),
        as_path: words(&path["aspath"]).iter().filter_map(|asn| asn.parse().ok()).collect(),
        communities,
        stale: path["stale"] == true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `show bgp neighbors json`, FRR 8.4.4, shortened.
    const NEIGHBORS: &str = r#"{"10.77.9.2":{"remoteAs":64601,"bgpState":"Established","neighborCapabilities":{
        "extendedMessage":"advertisedAndReceived","multiprotocolExtensions":{
        "ipv4Unicast":{"advertisedAndReceived":true},"ipv6Unicast":{"advertised":true}},
        "gracefulRestart":"advertisedAndReceived"},"messageStats":{"updatesRecv":2},"lastResetDueTo":"Waiting for peer OPEN"},
        "10.77.14.2":{"remoteAs":64601,"bgpState":"Active"}}"#;

    #[test]
    fn sessions_have_what_both_ends_advertised() {
        let sessions = parse_sessions(NEIGHBORS).expect("valid");
        let up = &sessions["10.77.9.2"];
        assert!(up.established && up.families == [Family::Ipv4].into() && up.updates == Some(2), "{up:?}");
        assert_eq!(up.capabilities, [EXTENDED_MESSAGE, GRACEFUL_RESTART].into());
        assert!(!sessions["10.77.14.2"].established);
    }

    /// Printed by `show bgp ipv4 unicast json detail`, FRR 8.4.4, shortened.
    const ROUTES: &str = r#"{"vrfId":0,"routes":{"192.0.2.12/32":[{"prefix":"192.0.2.12/32","version":10},
        {"aspath":{"string":"64601"},"community":{"string":"65000:100 no-export"},
        "largeCommunity":{"string":"64500:1:2"},"peer":{"peerId":"10.77.12.2"},"stale":true}]}}"#;

    #[test]
    fn routes_have_their_paths_alone() {
        let routes = parse_routes(ROUTES).expect("valid");
        let [path] = &routes[&"192.0.2.12/32".parse().expect("valid")][..] else { panic!("{routes:?}") };
        let communities = ["65000:100", "large:64500:1:2", "no-export"].map(str::to_owned).into();
        let as_path = vec![64601];
        let expected = Route { from: "10.77.12.2".into(), id: None, as_path, communities, stale: true };
        assert_eq!(*path, expected);
    }
}
