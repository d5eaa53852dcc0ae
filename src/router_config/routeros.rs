//! MikroTik RouterOS 7.

use std::fmt::Write as _;

use super::{PASSWORD, Site, site::Session};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::from("/routing/filter/rule\n");
    for accept in &site.accept {
        let (network, length) = (accept.network, accept.length);
        let _ =
            writeln!(text, "add chain=ironcast-in rule=\"if (dst in {network} && dst-len == {length}) {{ accept }}\"");
    }
    text.push_str("add chain=ironcast-in rule=\"reject\"\nadd chain=ironcast-out rule=\"reject\"\n");
    let profiles = site.bfd();
    if !profiles.is_empty() {
        text.push_str("/routing/bfd/configuration\n");
    }
    for bfd in profiles.keys() {
        let of_profile = site.sessions.iter().filter(|session| session.bfd == Some(*bfd));
        let addresses: Vec<String> =
            of_profile.filter_map(Session::address).map(|address| address.to_string()).collect();
        let (receive, transmit) = (bfd.receive.as_millis(), bfd.transmit.as_millis());
        let _ = writeln!(
            text,
            "add addresses={} min-rx={receive}ms min-tx={transmit}ms multiplier={}",
            addresses.join(","),
            bfd.multiplier
        );
    }
    text.push_str("/routing/bgp/connection\n");
    for session in &site.sessions {
        match session.address() {
            Some(_) => connection(&mut text, site, session),
            None => writeln!(text, "# {}: unnumbered sessions are not spoken here", session.node).unwrap_or_default(),
        }
    }
    text
}

fn connection(text: &mut String, site: &Site, session: &Session) {
    let family = |family| match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ipv6",
    };
    let families: Vec<&str> = session.families().map(family).collect();
    let role = if site.internal(session) { "ibgp" } else { "ebgp" };
    let (dials, listens) = if session.dials { ("yes", "no") } else { ("no", "yes") };
    let name = match session.address() {
        Some(std::net::IpAddr::V6(_)) => format!("{}-v6", session.node),
        _ => session.node.clone(),
    };
    let _ = write!(
        text,
        "add name={name} as={} remote.address={} remote.as={} local.role={role} connect={dials} listen={listens} \
         hold-time={}s address-families={} input.filter=ironcast-in output.filter-chain=ironcast-out",
        site.asn_text(),
        session.neighbour,
        session.asn,
        session.hold_time.seconds(),
        families.join(",")
    );
    if session.password {
        let _ = write!(text, " tcp-md5-key={PASSWORD}");
    }
    match (session.ttl_security, session.multihop) {
        (Some(hops), _) => write!(text, " remote.ttl={}", 256 - u16::from(hops)).unwrap_or_default(),
        (None, Some(ttl)) => write!(text, " multihop=yes local.ttl={ttl}").unwrap_or_default(),
        (None, None) => {}
    }
    if session.bfd.is_some() {
        text.push_str(" use-bfd=yes");
    }
    text.push('\n');
}
