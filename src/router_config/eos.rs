//! Arista EOS.

use std::fmt::Write as _;

use super::{
    NAME, PASSWORD, Site, frr,
    site::{Neighbour, Session},
};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::new();
    for family in site.families() {
        prefix_list(&mut text, site, family);
    }
    for (n, family) in site.families().enumerate() {
        let (command, list) = frr::list(family);
        let word = command.split(' ').next().unwrap_or_default();
        let n = (n + 1) * 10;
        let _ = writeln!(text, "route-map {NAME}-IN permit {n}\n   match {word} address prefix-list {list}\n!");
    }
    let _ = writeln!(text, "route-map {NAME}-OUT deny 10\n!\nrouter bgp {}", site.asn_text());
    let _ = writeln!(
        text,
        "   no bgp default ipv4-unicast\n   bgp bestpath as-path multipath-relax\n   maximum-paths {0} ecmp {0}",
        site.width()
    );
    for session in &site.sessions {
        neighbour(&mut text, site, session);
    }
    for family in site.families() {
        address_family(&mut text, site, family);
    }
    text + "!\n"
}

fn prefix_list(text: &mut String, site: &Site, family: Family) {
    let (command, name) = frr::list(family);
    let entry = |(n, accept): (usize, &super::Accept)| {
        let lengths = match accept.length == accept.network.prefix_len() {
            true => String::new(),
            false => format!(" ge {0} le {0}", accept.length),
        };
        format!("seq {} permit {}{lengths}", (n + 1) * 10, accept.network)
    };
    let entries = site.accepted(family).enumerate().map(entry);
    match family {
        Family::Ipv4 => entries.for_each(|entry| writeln!(text, "{command} {name} {entry}").unwrap_or_default()),
        Family::Ipv6 => {
            let _ = writeln!(text, "{command} {name}");
            entries.for_each(|entry| writeln!(text, "   {entry}").unwrap_or_default());
        }
    }
    text.push_str("!\n");
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let name = session.neighbour.to_string();
    if let Neighbour::Interface(interface) = &session.neighbour {
        let _ = writeln!(text, "   neighbor interface {interface} peer-group {NAME} remote-as {}", session.asn);
        let _ = writeln!(
            text,
            "   neighbor {NAME} peer group\n   neighbor {NAME} route-map {NAME}-IN in\n   neighbor {NAME} route-map {NAME}-OUT out"
        );
        return;
    }
    let mut say = |words: String| writeln!(text, "   neighbor {name} {words}").unwrap_or_default();
    say(format!("remote-as {}", session.asn));
    say(format!("description {}", session.node));
    if !session.dials {
        say("passive".into());
    }
    say(format!("timers {}", session.timers()));
    if session.password {
        say(format!("password {PASSWORD}"));
    }
    match (session.ttl_security, session.multihop.filter(|_| !site.internal(session))) {
        (Some(hops), _) => say(format!("ttl maximum-hops {hops}")),
        (None, Some(ttl)) => say(format!("ebgp-multihop {ttl}")),
        (None, None) => {}
    }
    if let Some(bfd) = session.bfd {
        let (transmit, receive) = (bfd.transmit.as_millis(), bfd.receive.as_millis());
        say("bfd".into());
        say(format!("bfd interval {transmit} min-rx {receive} multiplier {}", bfd.multiplier));
    }
    say(format!("route-map {NAME}-IN in"));
    say(format!("route-map {NAME}-OUT out"));
}

fn address_family(text: &mut String, site: &Site, family: Family) {
    let word = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    let _ = writeln!(text, "   address-family {word}");
    let mut names: Vec<String> = Vec::new();
    for session in site.sessions.iter().filter(|session| session.carries(family)) {
        let name = match &session.neighbour {
            Neighbour::Address(address) => address.to_string(),
            Neighbour::Interface(_) => NAME.to_owned(),
        };
        if names.contains(&name) {
            continue;
        }
        let _ = writeln!(text, "      neighbor {name} activate");
        if family == Family::Ipv4 && session.extended_next_hop() {
            let _ = writeln!(text, "      neighbor {name} next-hop address-family ipv6");
        }
        names.push(name);
    }
}
