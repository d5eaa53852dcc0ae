//! VyOS 1.4, as set commands.

use std::fmt::Write as _;

use super::{
    NAME, PASSWORD, Site,
    site::{Neighbour, Session},
};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::new();
    for family in site.families() {
        let (_, list, name, _) = words(family);
        for (n, accept) in site.accepted(family).enumerate() {
            let rule = format!("set policy {list} {name} rule {}", (n + 1) * 10);
            let _ = writeln!(text, "{rule} action permit\n{rule} prefix {}", accept.network);
            if accept.length > accept.network.prefix_len() {
                let _ = writeln!(text, "{rule} ge {0}\n{rule} le {0}", accept.length);
            }
        }
    }
    for (n, family) in site.families().enumerate() {
        let (word, _, name, _) = words(family);
        let rule = format!("set policy route-map {NAME}-IN rule {}", (n + 1) * 10);
        let _ = writeln!(text, "{rule} action permit\n{rule} match {word} address prefix-list {name}");
    }
    let _ = writeln!(text, "set policy route-map {NAME}-OUT rule 10 action deny");
    for (bfd, name) in site.bfd() {
        let profile = format!("set protocols bfd profile {name} interval");
        let (receive, transmit) = (bfd.receive.as_millis(), bfd.transmit.as_millis());
        let _ = writeln!(
            text,
            "{profile} multiplier {}\n{profile} receive {receive}\n{profile} transmit {transmit}",
            bfd.multiplier
        );
    }
    let _ = writeln!(
        text,
        "set protocols bgp system-as {}\nset protocols bgp parameters bestpath as-path multipath-relax",
        site.asn_text()
    );
    for family in site.families() {
        let (_, _, _, afi) = words(family);
        let paths = format!("set protocols bgp address-family {afi} maximum-paths");
        let _ = writeln!(text, "{paths} ebgp {0}\n{paths} ibgp {0}", site.width());
    }
    for session in &site.sessions {
        neighbour(&mut text, site, session);
    }
    text
}

/// Word of the family, kind and name of its prefix list, address family.
fn words(family: Family) -> (&'static str, &'static str, &'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ip", "prefix-list", "IRONCAST-V4", "ipv4-unicast"),
        Family::Ipv6 => ("ipv6", "prefix-list6", "IRONCAST-V6", "ipv6-unicast"),
    }
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let head = format!("set protocols bgp neighbor {}", session.neighbour);
    let mut say = |words: String| writeln!(text, "{head} {words}").unwrap_or_default();
    match session.neighbour {
        Neighbour::Address(_) => say(format!("remote-as {}", session.asn)),
        Neighbour::Interface(_) => say(format!("interface v6only remote-as {}", session.asn)),
    }
    say(format!("description {}", session.node));
    if !session.dials && session.address().is_some() {
        say("passive".into());
    }
    let hold = session.hold_time.seconds();
    say(format!("timers holdtime {hold}"));
    say(format!("timers keepalive {}", hold / 3));
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
    for family in session.families() {
        let (_, _, _, afi) = words(family);
        say(format!("address-family {afi} route-map import {NAME}-IN"));
        say(format!("address-family {afi} route-map export {NAME}-OUT"));
    }
}
