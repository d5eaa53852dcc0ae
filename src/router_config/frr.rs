//! FRR. Dynamic neighbours are not used: FRR enforces GTSM on neighbours by name only, and a node that is not of the
//! cluster has no business here.

use std::fmt::Write as _;

use super::{
    NAME, PASSWORD, Site,
    site::{Neighbour, Session},
};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::new();
    prefix_lists(&mut text, site);
    route_maps(&mut text, site);
    bfd(&mut text, site);
    for session in &site.sessions {
        if let Neighbour::Interface(interface) = &session.neighbour {
            let _ = writeln!(text, "interface {interface}\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\nexit\n!");
        }
    }
    let _ = writeln!(
        text,
        "router bgp {}\n no bgp default ipv4-unicast\n bgp bestpath as-path multipath-relax",
        site.asn_text()
    );
    for session in &site.sessions {
        neighbour(&mut text, site, session);
    }
    for family in site.families() {
        address_family(&mut text, site, family);
    }
    text + "exit\n"
}

/// Prefix lists in the words that FRR and others with a Cisco look share: exact, or of one longer length.
pub(super) fn prefix_lists(text: &mut String, site: &Site) {
    for family in site.families() {
        let (command, name) = list(family);
        for (n, accept) in site.accepted(family).enumerate() {
            let lengths = match accept.length == accept.network.prefix_len() {
                true => String::new(),
                false => format!(" ge {0} le {0}", accept.length),
            };
            let _ = writeln!(text, "{command} {name} seq {} permit {}{lengths}", (n + 1) * 5, accept.network);
        }
        text.push_str("!\n");
    }
}

/// The command and the name of a family's prefix list.
pub(super) fn list(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ip prefix-list", "IRONCAST-V4"),
        Family::Ipv6 => ("ipv6 prefix-list", "IRONCAST-V6"),
    }
}

fn route_maps(text: &mut String, site: &Site) {
    for (n, family) in site.families().enumerate() {
        let (command, list) = list(family);
        let word = command.split(' ').next().unwrap_or_default();
        let n = (n + 1) * 10;
        let _ = writeln!(text, "route-map {NAME}-IN permit {n}\n match {word} address prefix-list {list}\nexit\n!");
    }
    let _ = writeln!(text, "route-map {NAME}-OUT deny 10\nexit\n!");
}

fn bfd(text: &mut String, site: &Site) {
    let profiles = site.bfd();
    if profiles.is_empty() {
        return;
    }
    text.push_str("bfd\n");
    for (bfd, name) in profiles {
        let (receive, transmit) = (bfd.receive.as_millis(), bfd.transmit.as_millis());
        let _ = writeln!(
            text,
            " profile {name}\n  detect-multiplier {}\n  receive-interval {receive}\n  transmit-interval {transmit}\n exit",
            bfd.multiplier
        );
    }
    text.push_str("exit\n!\n");
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let name = session.neighbour.to_string();
    let mut say = |words: String| writeln!(text, " neighbor {name} {words}").unwrap_or_default();
    match session.neighbour {
        Neighbour::Address(_) => say(format!("remote-as {}", session.asn)),
        Neighbour::Interface(_) => say(format!("interface remote-as {}", session.asn)),
    }
    say(format!("description {}", session.node));
    if !session.dials && session.address().is_some() {
        say("passive".into());
    }
    say(format!("timers {}", session.timers()));
    if session.password {
        say(format!("password {PASSWORD}"));
    }
    match (session.ttl_security, session.multihop.filter(|_| !site.internal(session))) {
        (Some(hops), _) => say(format!("ttl-security hops {hops}")),
        (None, Some(ttl)) => say(format!("ebgp-multihop {ttl}")),
        (None, None) => {}
    }
    if session.extended_next_hop() {
        say("capability extended-nexthop".into());
    }
    if let Some(bfd) = session.bfd {
        say(format!("bfd profile {}", site.bfd()[&bfd]));
    }
}

fn address_family(text: &mut String, site: &Site, family: Family) {
    let word = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    let _ = writeln!(text, " address-family {word} unicast");
    for session in site.sessions.iter().filter(|session| session.carries(family)) {
        let name = &session.neighbour;
        let _ = writeln!(
            text,
            "  neighbor {name} activate\n  neighbor {name} route-map {NAME}-IN in\n  neighbor {name} route-map {NAME}-OUT out"
        );
    }
    let _ = writeln!(text, "  maximum-paths {0}\n  maximum-paths ibgp {0}\n exit-address-family", site.width());
}
