//! BIRD 2.

use std::fmt::Write as _;

use super::{
    PASSWORD, Site,
    site::{Neighbour, Session},
};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::from("protocol device {}\n");
    for family in site.families() {
        let (channel, table) = words(family);
        let width = site.width();
        let _ = writeln!(
            text,
            "protocol kernel {{ {channel} {{ import none; export where source = RTS_BGP; }}; merge paths yes limit {width}; }}"
        );
        filter(&mut text, site, family, table);
    }
    if !site.bfd().is_empty() {
        text.push_str("protocol bfd {}\n");
    }
    for session in &site.sessions {
        protocol(&mut text, site, session);
    }
    text
}

/// The channel, and the name of the filter.
fn words(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ipv4", "ironcast_v4"),
        Family::Ipv6 => ("ipv6", "ironcast_v6"),
    }
}

fn filter(text: &mut String, site: &Site, family: Family, name: &str) {
    let one = |accept: &super::Accept| format!("{}{{{1},{1}}}", accept.network, accept.length);
    let set: Vec<String> = site.accepted(family).map(one).collect();
    let accept = match set.is_empty() {
        true => String::new(),
        false => format!("if net ~ [ {} ] then accept; ", set.join(", ")),
    };
    let _ = writeln!(text, "filter {name} {{ {accept}reject; }}");
}

fn protocol(text: &mut String, site: &Site, session: &Session) {
    let symbol = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let family = match session.neighbour {
        Neighbour::Address(std::net::IpAddr::V4(_)) => "v4",
        Neighbour::Address(_) => "v6",
        Neighbour::Interface(_) => "link",
    };
    let name: String = session.node.chars().map(symbol).collect();
    let (asn, node) = (session.asn, &session.node);
    let _ = writeln!(
        text,
        "protocol bgp ironcast_{name}_{family} {{\n  description \"{node}\";\n  local as {};",
        site.asn_text()
    );
    let _ = match &session.neighbour {
        Neighbour::Address(address) => writeln!(text, "  neighbor {address} as {asn};"),
        // Whoever dials over the link: its address is not known before.
        Neighbour::Interface(interface) => {
            writeln!(text, "  interface \"{interface}\";\n  neighbor range fe80::/10 as {asn};")
        }
    };
    let mut say = |words: &str| writeln!(text, "  {words};").unwrap_or_default();
    if !session.dials {
        say("passive on");
    }
    say(&format!("hold time {}", session.hold_time.seconds()));
    match (site.internal(session), session.ttl_security, session.multihop) {
        (_, Some(hops), _) if hops > 1 => say(&format!("multihop {hops}; ttl security on")),
        (_, Some(_), _) => say("direct; ttl security on"),
        (false, None, Some(ttl)) => say(&format!("multihop {ttl}")),
        _ => {}
    }
    if session.password {
        say(&format!("password \"{PASSWORD}\""));
    }
    if let Some(bfd) = session.bfd {
        let (receive, transmit) = (bfd.receive.as_millis(), bfd.transmit.as_millis());
        say(&format!(
            "bfd {{ min rx interval {receive} ms; min tx interval {transmit} ms; multiplier {}; }}",
            bfd.multiplier
        ));
    }
    if session.graceful_restart {
        say("graceful restart aware");
    }
    for family in session.families() {
        let (channel, filter) = words(family);
        let extended = match family == Family::Ipv4 && session.extended_next_hop() {
            true => " extended next hop on;",
            false => "",
        };
        say(&format!("{channel} {{ import filter {filter}; export none;{extended} }}"));
    }
    text.push_str("}\n");
}
