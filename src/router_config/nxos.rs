//! Cisco NX-OS.

use std::fmt::Write as _;

use super::{
    NAME, PASSWORD, Site, frr,
    site::{Neighbour, Session},
};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::from("feature bgp\n");
    if !site.bfd().is_empty() {
        text.push_str("feature bfd\n");
    }
    frr::prefix_lists(&mut text, site);
    for family in site.families() {
        let (command, list) = frr::list(family);
        let (word, _) = words(family);
        let _ = writeln!(
            text,
            "route-map {} permit 10\n  match {} address prefix-list {list}",
            import(family),
            command.split(' ').next().unwrap_or(word)
        );
    }
    let _ = writeln!(
        text,
        "route-map {NAME}-OUT deny 10\nrouter bgp {}\n  bestpath as-path multipath-relax",
        site.asn_text()
    );
    for family in site.families() {
        let (word, width) = (words(family).0, site.width());
        let _ = writeln!(
            text,
            "  address-family {word} unicast\n    maximum-paths {width}\n    maximum-paths ibgp {width}"
        );
    }
    for session in &site.sessions {
        neighbour(&mut text, site, session);
    }
    text
}

fn words(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("ipv4", "V4"),
        Family::Ipv6 => ("ipv6", "V6"),
    }
}

/// A route map matches one family here.
fn import(family: Family) -> String {
    format!("{NAME}-IN-{}", words(family).1)
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let _ = match &session.neighbour {
        Neighbour::Address(address) => writeln!(text, "  neighbor {address}"),
        Neighbour::Interface(interface) => writeln!(text, "  neighbor {interface}"),
    };
    let mut say = |words: String| writeln!(text, "    {words}").unwrap_or_default();
    say(format!("remote-as {}", session.asn));
    say(format!("description {}", session.node));
    if !session.dials && session.address().is_some() {
        say("transport connection-mode passive".into());
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
    if let Some(bfd) = session.bfd {
        let (transmit, receive) = (bfd.transmit.as_millis(), bfd.receive.as_millis());
        say("bfd".into());
        say(format!("bfd interval {transmit} min_rx {receive} multiplier {}", bfd.multiplier));
    }
    for family in session.families() {
        let name = words(family).0;
        say(format!(
            "address-family {name} unicast\n      route-map {} in\n      route-map {NAME}-OUT out",
            import(family)
        ));
    }
}
