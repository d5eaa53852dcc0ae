//! Juniper Junos, as set commands.

use std::fmt::Write as _;

use super::{NAME, PASSWORD, Site, site::Session};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::new();
    let policy = format!("set policy-options policy-statement {NAME}-IN");
    for family in site.families() {
        let (word, term) = words(family);
        let _ = writeln!(text, "{policy} term {term} from family {word}");
        for accept in site.accepted(family) {
            let length = accept.length;
            let _ = writeln!(
                text,
                "{policy} term {term} from route-filter {} prefix-length-range /{length}-/{length}",
                accept.network
            );
        }
        // A term without a filter would accept everything.
        let action = if site.accepted(family).next().is_some() { "accept" } else { "reject" };
        let _ = writeln!(text, "{policy} term {term} then {action}");
    }
    let _ = writeln!(text, "{policy} term rest then reject");
    let _ = writeln!(text, "set policy-options policy-statement {NAME}-OUT then reject");
    let _ = writeln!(text, "set policy-options policy-statement {NAME}-ECMP then load-balance per-packet");
    let _ = writeln!(text, "set routing-options forwarding-table export {NAME}-ECMP");
    let _ = writeln!(text, "set routing-options autonomous-system {}", site.asn_text());
    let _ = writeln!(text, "set chassis maximum-ecmp {}", width(site.width()));
    for session in &site.sessions {
        match session.address() {
            Some(_) => neighbour(&mut text, site, session),
            None => writeln!(text, "# {}: unnumbered sessions: see peer-auto-discovery of your release", session.node)
                .unwrap_or_default(),
        }
    }
    text
}

/// The widths that the command knows.
fn width(nodes: usize) -> usize {
    [16, 32, 64, 128].into_iter().find(|width| *width >= nodes).unwrap_or(128)
}

fn words(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("inet", "v4"),
        Family::Ipv6 => ("inet6", "v6"),
    }
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let (group, kind) = match site.internal(session) {
        true => (format!("{NAME}-INTERNAL"), "internal"),
        false => (NAME.to_owned(), "external"),
    };
    let group = format!("set protocols bgp group {group}");
    let multipath = if kind == "external" { "multipath multiple-as" } else { "multipath" };
    for line in [format!("type {kind}"), multipath.into(), format!("import {NAME}-IN"), format!("export {NAME}-OUT")] {
        let line = format!("{group} {line}\n");
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    let name = &session.neighbour;
    let mut say = |words: String| writeln!(text, "{group} neighbor {name} {words}").unwrap_or_default();
    say(format!("description {}", session.node));
    if kind == "external" {
        say(format!("peer-as {}", session.asn));
    }
    if !session.dials {
        say("passive".into());
    }
    say(format!("hold-time {}", session.hold_time.seconds()));
    for family in session.families() {
        say(format!("family {} unicast", words(family).0));
    }
    if session.extended_next_hop() {
        say("family inet unicast extended-nexthop".into());
    }
    if session.password {
        say(format!("authentication-key {PASSWORD}"));
    }
    match (session.ttl_security, session.multihop.filter(|_| kind == "external")) {
        // GTSM is sending with 255 here; what comes in is filtered by the interface's own firewall.
        (Some(_), _) => say("ttl 255".into()),
        (None, Some(ttl)) => say(format!("multihop ttl {ttl}")),
        (None, None) => {}
    }
    if let Some(bfd) = session.bfd {
        say(format!("bfd-liveness-detection minimum-receive-interval {}", bfd.receive.as_millis()));
        say(format!("bfd-liveness-detection transmit-interval minimum-interval {}", bfd.transmit.as_millis()));
        say(format!("bfd-liveness-detection multiplier {}", bfd.multiplier));
    }
}
