//! Cisco IOS XR.

use std::fmt::Write as _;

use super::{NAME, PASSWORD, Site, site::Session};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = String::new();
    for family in site.families() {
        let one = |accept: &super::Accept| format!("  {} ge {1} le {1}", accept.network, accept.length);
        let accepted: Vec<String> = site.accepted(family).map(one).collect();
        let _ = writeln!(text, "prefix-set {}\n{}\nend-set\n!", set(family), accepted.join(",\n"));
    }
    let tests: Vec<String> = site.families().map(|family| format!("destination in {}", set(family))).collect();
    let _ = writeln!(
        text,
        "route-policy {NAME}-IN\n  if {} then\n    pass\n  else\n    drop\n  endif\nend-policy\n!",
        tests.join(" or ")
    );
    let _ = writeln!(
        text,
        "route-policy {NAME}-OUT\n  drop\nend-policy\n!\nrouter bgp {}\n bgp bestpath as-path multipath-relax",
        site.asn_text()
    );
    for family in site.families() {
        let (word, width) = (word(family), site.width());
        let _ = writeln!(
            text,
            " address-family {word} unicast\n  maximum-paths ebgp {width}\n  maximum-paths ibgp {width}\n !"
        );
    }
    for session in &site.sessions {
        match session.address() {
            Some(_) => neighbour(&mut text, site, session),
            None => writeln!(text, " ! {}: unnumbered sessions are not spoken here", session.node).unwrap_or_default(),
        }
    }
    text + "!\n"
}

fn set(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IRONCAST-V4",
        Family::Ipv6 => "IRONCAST-V6",
    }
}

fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let _ = writeln!(text, " neighbor {}", session.neighbour);
    let mut say = |words: String| writeln!(text, "  {words}").unwrap_or_default();
    say(format!("remote-as {}", session.asn));
    say(format!("description {}", session.node));
    if !session.dials {
        say("session-open-mode passive-only".into());
    }
    say(format!("timers {}", session.timers()));
    if session.password {
        say(format!("password clear {PASSWORD}"));
    }
    match (session.ttl_security, session.multihop.filter(|_| !site.internal(session))) {
        (Some(_), _) => say("ttl-security".into()),
        (None, Some(ttl)) => say(format!("ebgp-multihop {ttl}")),
        (None, None) => {}
    }
    if let Some(bfd) = session.bfd {
        say("bfd fast-detect".into());
        say(format!("bfd minimum-interval {}", bfd.receive.max(bfd.transmit).as_millis()));
        say(format!("bfd multiplier {}", bfd.multiplier));
    }
    for family in session.families() {
        say(format!(
            "address-family {} unicast\n   route-policy {NAME}-IN in\n   route-policy {NAME}-OUT out\n  !",
            word(family)
        ));
    }
    text.push_str(" !\n");
}
