//! BIRD 2.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    cells::{BFD_KEY, Cell, Feature},
    link::Link,
    router::Place,
    seen::{self, ADD_PATH, EXTENDED_MESSAGE, EXTENDED_NEXT_HOP, GRACEFUL_RESTART, Route, Seen, Session},
};
use crate::{
    lab::{process::Process, site::ROUTER_ASN, tools::find},
    types::Family,
};

/// As [`super::node`] has it.
const BFD: &str = "min rx interval 300 ms; min tx interval 300 ms; multiplier 3;";

pub(super) fn lacks(cell: Cell) -> Option<&'static str> {
    match cell {
        Cell::LinkBandwidth => Some("BIRD 2.0 has no weights from the link bandwidth community"),
        Cell::TcpAo => Some("BIRD has TCP-AO since 2.17, and its kernel must have it"),
        _ => None,
    }
}

pub(super) fn start(place: &Place, links: &[Link]) -> anyhow::Result<Vec<Process>> {
    let config = place.write("bird.conf", &config(links))?;
    let arguments = ["-f", "-c", &config, "-s", &place.path("bird.ctl"), "-P", &place.path("bird.pid")];
    Ok(vec![place.start("router", &find("bird", "bird2")?, &arguments)?])
}

fn config(links: &[Link]) -> String {
    let protocols: String = links.iter().map(protocol).collect();
    let signed = links.iter().filter(|link| link.terms.has(Feature::BfdSigned));
    let signed: String = signed
        .map(|link| {
            let port = link.port();
            format!(
                "interface \"{port}\" {{ {BFD} authentication meticulous keyed sha1; password \"{BFD_KEY}\" {{ id 1; }}; }}; "
            )
        })
        .collect();
    format!(
        "router id 10.255.0.1;
log stderr all;
protocol device {{ scan time 5; }}
protocol direct {{ ipv4; ipv6; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on limit 64; }}
protocol kernel {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths on limit 64; }}
protocol bfd {{ {signed}interface \"p*\" {{ {BFD} }}; multihop {{ {BFD} }}; }}
template bgp node {{
  local as {ROUTER_ASN};
  passive on;
  hold time 9;
  error wait time 1, 2;
  graceful restart aware;
}}
{protocols}"
    )
}

fn protocol(link: &Link) -> String {
    let terms = &link.terms;
    let mut options = String::new();
    if let Some(key) = terms.router_key {
        options += &format!("password \"{key}\"; ");
    }
    for (feature, option) in [
        (Feature::RouterGtsm, "ttl security on; "),
        (Feature::ExtendedMessages, "enable extended messages on; "),
        (Feature::MultiHop, "multihop 2; "),
        (Feature::Bfd, "bfd on; "),
        (Feature::RouterProvider, "local role provider; require roles on; "),
        (Feature::RouterCustomer, "local role customer; "),
    ] {
        options += if terms.has(feature) { option } else { "" };
    }
    for family in terms.at_router() {
        let (table, extended) = match family {
            Family::Ipv4 if terms.has(Feature::ExtendedNextHop) => ("ipv4", "extended next hop on; "),
            Family::Ipv4 => ("ipv4", ""),
            Family::Ipv6 => ("ipv6", ""),
        };
        let paths = if terms.has(Feature::AddPath) { "add paths rx; " } else { "" };
        options += &format!("{table} {{ import all; export none; {extended}{paths}}}; ");
    }
    let (number, port, neighbor, own, asn) =
        (link.number, link.port(), link.neighbor(), link.gateway(), terms.expected_as);
    let mut around = String::new();
    let mut scope = String::new();
    if terms.has(Feature::MultiHop) {
        around = format!("protocol static {{ ipv4; route {neighbor}/32 via {}; }}\n", link.at_node()[0]);
    }
    if terms.has(Feature::LinkLocalOnly) {
        scope = format!("%{port}");
        around = format!(
            "protocol radv {{ interface \"{port}\" {{ min ra interval 3; max ra interval 4; default lifetime 0; }}; }}\n"
        );
    }
    format!(
        "{around}protocol bgp n{number} from node {{ local {own}; neighbor {neighbor}{scope} as {asn}; {options}}}\n"
    )
}

pub(super) async fn look(place: &Place) -> anyhow::Result<Seen> {
    let birdc = find("birdc", "bird2")?;
    let control = place.path("bird.ctl");
    let ask = |command: &'static str| {
        let (birdc, control) = (birdc.clone(), control.clone());
        async move { place.ask(&birdc, &["-s", &control, command]).await }
    };
    let mut sessions = parse_sessions(&ask("show protocols all").await?);
    watched(&mut sessions, &ask("show bfd sessions").await?);
    let (v4, v6) = (ask("show route table master4 all").await?, ask("show route table master6 all").await?);
    let routes = parse_routes(&v4).into_iter().chain(parse_routes(&v6)).collect();
    Ok(Seen { sessions, routes, kernel: Some(seen::kernel(&place.namespace).await?) })
}

/// `show protocols all`: a line at the margin for each protocol, everything about it indented below.
fn parse_sessions(text: &str) -> BTreeMap<String, Session> {
    let mut sessions = BTreeMap::new();
    let blocks = text.split("\n\n").map(|block| block.lines().skip_while(|line| line.starts_with("Name ")));
    for block in blocks {
        if let Some((neighbor, session)) = parse_session(block) {
            sessions.insert(neighbor, session);
        }
    }
    sessions
}

fn parse_session<'a>(lines: impl Iterator<Item = &'a str>) -> Option<(String, Session)> {
    let (mut neighbor, mut session) = (None, Session::default());
    let (mut ends, mut channel) = ([BTreeSet::new(), BTreeSet::new()], None);
    let mut end = None;
    for line in lines {
        let (key, value) = line.trim().split_once(':').map_or((line.trim(), ""), |(key, value)| (key, value.trim()));
        match key {
            "BGP state" => session.established = value == "Established",
            "Neighbor address" => neighbor = Some(value.to_owned()),
            "Neighbor AS" => session.remote_as = value.parse().ok(),
            "Last error" => value.clone_into(&mut session.end),
            "Local capabilities" => end = Some(0),
            "Neighbor capabilities" => end = Some(1),
            "Session" => end = None,
            "Role" if end == Some(1) => session.role = Some(value.to_owned()),
            "Channel ipv4" => channel = Some(Family::Ipv4),
            "Channel ipv6" => channel = Some(Family::Ipv6),
            "State" if value == "UP" => session.families.extend(channel),
            capability => {
                if let Some(end) = end {
                    ends[end].insert(capability.to_owned());
                }
            }
        }
    }
    let words = [
        ("Extended message", EXTENDED_MESSAGE),
        ("Graceful restart", GRACEFUL_RESTART),
        ("ADD-PATH", ADD_PATH),
        ("Extended next hop", EXTENDED_NEXT_HOP),
    ];
    let both = words.into_iter().filter(|(theirs, _)| ends.iter().all(|end| end.contains(*theirs)));
    session.capabilities = both.map(|(_, ours)| ours).collect();
    neighbor.map(|neighbor| (neighbor, session))
}

/// `show bfd sessions`: address, interface, state and more in columns. A link-local address stands without its port.
fn watched(sessions: &mut BTreeMap<String, Session>, text: &str) {
    for line in text.lines() {
        let mut columns = line.split_whitespace();
        if let (Some(address), Some(_), Some(state)) = (columns.next(), columns.next(), columns.next())
            && let Some(session) = sessions.get_mut(address)
        {
            session.bfd = Some(state == "Up");
        }
    }
}

/// `show route all`: a prefix at the margin for its first path, a line with a protocol in brackets for each path,
/// its attributes indented below. `from` is there where it is not the next hop.
fn parse_routes(text: &str) -> BTreeMap<IpNet, Vec<Route>> {
    let mut routes = BTreeMap::<IpNet, Vec<Route>>::new();
    let mut prefix = None;
    for line in text.lines() {
        if let Some(found) = line.split(' ').next().and_then(|word| word.parse().ok()) {
            prefix = Some(found);
        }
        let Some(prefix) = prefix else { continue };
        let paths = routes.entry(prefix).or_default();
        if let Some((_, protocol)) = line.split_once(" [")
            && !line.starts_with('\t')
        {
            let from = protocol.split(' ').next().unwrap_or_default().to_owned();
            paths.push(Route { from, ..Route::default() });
            continue;
        }
        let (Some(path), Some((key, value))) = (paths.last_mut(), line.trim().split_once(':')) else { continue };
        match key {
            "BGP.as_path" => path.as_path = value.split_whitespace().filter_map(|asn| asn.parse().ok()).collect(),
            "BGP.community" => path.communities.extend(tuples(value).iter().map(|c| seen::community(c))),
            "BGP.large_community" => path.communities.extend(tuples(value).iter().map(|c| format!("large:{c}"))),
            "BGP.ext_community" => path.communities.extend(tuples(value).iter().filter_map(|c| {
                let (kind, rest) = c.split_once(':')?;
                Some(seen::extended(kind, rest))
            })),
            _ => {}
        }
    }
    routes
}

/// `(65000,100) (64500, 1, 2)`.
fn tuples(text: &str) -> Vec<String> {
    let inner = text.split(['(', ')']).map(str::trim).filter(|tuple| !tuple.is_empty());
    inner.map(|tuple| tuple.replace(", ", ":").replace(',', ":")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by `birdc show protocols all`, BIRD 2.0.12, shortened.
    const PROTOCOLS: &str = "BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
direct1    Direct     ---        up     16:45:55.065  
  Channel ipv4
    State:          UP

n11        BGP        ---        up     16:45:56.180  Established   
  BGP state:          Established
    Neighbor address: fd00:77:b::2
    Neighbor AS:      64601
    Local AS:         64500
    Local capabilities
      Multiprotocol
        AF announced: ipv6
      Graceful restart
      Extended message
    Neighbor capabilities
      Multiprotocol
        AF announced: ipv6
      Extended message
    Session:          external AS4
  Channel ipv6
    State:          UP

n14        BGP        ---        start  16:45:55.065  Active        Received: Bad peer AS
  BGP state:          Active
    Neighbor address: 10.77.14.2
    Neighbor AS:      64601
    Last error:       Received: Bad peer AS
  Channel ipv4
    State:          DOWN
";

    #[test]
    fn sessions_have_families_that_are_up_and_capabilities_of_both_ends() {
        let sessions = parse_sessions(PROTOCOLS);
        assert_eq!(sessions.len(), 2);
        let up = &sessions["fd00:77:b::2"];
        assert!(up.established && up.families == [Family::Ipv6].into() && up.remote_as == Some(64601), "{up:?}");
        assert_eq!(up.capabilities, [EXTENDED_MESSAGE].into(), "graceful restart is on one end alone");
        let down = &sessions["10.77.14.2"];
        assert!(!down.established && down.families.is_empty() && down.end == "Received: Bad peer AS", "{down:?}");
    }

    /// Printed by `birdc show route all`, BIRD 2.0.12, shortened.
    const ROUTES: &str = "BIRD 2.0.12 ready.
Table master4:
192.0.2.12/32        unicast [n12 16:45:56.437] * (100) [AS64601i]
\tvia 10.77.12.2 on p12
\tType: BGP univ
\tBGP.origin: IGP
\tBGP.as_path: 64601
\tBGP.community: (65000,100) (65535,65281)
\tBGP.large_community: (64500, 1, 2) (4200000000, 7, 8)
192.0.2.4/32         unicast [n4 16:45:56.472 from fd00:77:4::2] * (100) [AS64601i]
\tvia 10.77.4.2 on p4
\tBGP.as_path: 64601
                     unicast [n3 16:45:56.472] (100) [AS64601i]
\tvia 10.77.3.2 on p3
\tBGP.as_path: 64777 64601
";

    #[test]
    fn routes_have_all_paths_and_communities_in_our_words() {
        let routes = parse_routes(ROUTES);
        let [one] = &routes[&"192.0.2.12/32".parse().expect("valid")][..] else { panic!("{routes:?}") };
        assert_eq!((one.from.as_str(), &one.as_path[..]), ("n12", &[64601][..]));
        let communities: Vec<_> = one.communities.iter().map(String::as_str).collect();
        assert_eq!(communities, ["65000:100", "large:4200000000:7:8", "large:64500:1:2", "no-export"]);
        let two = &routes[&"192.0.2.4/32".parse().expect("valid")];
        assert_eq!(two.iter().map(|path| path.from.as_str()).collect::<Vec<_>>(), ["n4", "n3"]);
    }
}
