//! OpenBGPD. Its portable version installs no routes on Linux, and it spreads over several next hops nowhere.

use std::fmt::Write as _;

use super::{PASSWORD, Site, site::Session};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let mut text = format!("AS {}\n", site.asn_text());
    if let Some(address) = site.address {
        let _ = writeln!(text, "router-id {address}");
    }
    let one = |accept: &super::Accept| format!("\t{} prefixlen = {}\n", accept.network, accept.length);
    let accepted: String = Family::ALL.into_iter().flat_map(|family| site.accepted(family)).map(one).collect();
    if !accepted.is_empty() {
        let _ = writeln!(text, "prefix-set ironcast {{\n{accepted}}}");
    }
    text.push_str("group ironcast {\n");
    for session in &site.sessions {
        match session.address() {
            Some(_) => neighbour(&mut text, site, session),
            None => writeln!(text, "\t# {}: unnumbered sessions are not spoken here", session.node).unwrap_or_default(),
        }
    }
    text.push_str("}\ndeny from group ironcast\n");
    if !accepted.is_empty() {
        text.push_str("allow from group ironcast prefix-set ironcast\n");
    }
    text + "deny to group ironcast\n"
}

fn neighbour(text: &mut String, site: &Site, session: &Session) {
    let _ = writeln!(text, "\tneighbor {} {{", session.neighbour);
    let mut say = |words: String| writeln!(text, "\t\t{words}").unwrap_or_default();
    say(format!("remote-as {}", session.asn));
    say(format!("descr \"{}\"", session.node));
    if !session.dials {
        say("passive".into());
    }
    say(format!("holdtime {}", session.hold_time.seconds()));
    for family in Family::ALL {
        let word = match family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        say(format!("announce {word} {}", if session.carries(family) { "unicast" } else { "none" }));
    }
    match (session.ttl_security, session.multihop.filter(|_| !site.internal(session))) {
        (Some(_), _) => say("ttl-security yes".into()),
        (None, Some(ttl)) => say(format!("multihop {ttl}")),
        (None, None) => {}
    }
    if session.password {
        say(format!("tcp md5sig password \"{PASSWORD}\""));
    }
    text.push_str("\t}\n");
}
