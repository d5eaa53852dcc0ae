//! GoBGP: YAML for `gobgpd -t yaml -f`. It has no BFD.

use serde_json::{Value, json};

use super::{PASSWORD, Site, site::Session};
use crate::types::Family;

pub(super) fn render(site: &Site) -> String {
    let router_id = site.address.map_or_else(|| "ROUTER-ID".to_owned(), |address| address.to_string());
    let asn = site.asn.map_or(json!("ROUTER-AS"), |asn| json!(asn.value()));
    let numbered = || site.sessions.iter().filter(|session| session.address().is_some());
    let value = json!({
        "global": {
            "config": { "as": asn, "router-id": router_id },
            "use-multiple-paths": { "config": { "enabled": true } },
            "apply-policy": { "config": {
                "import-policy-list": ["ironcast"],
                "default-import-policy": "reject-route",
                "default-export-policy": "reject-route",
            } },
        },
        "defined-sets": { "prefix-sets": site.families().map(|family| prefix_set(site, family)).collect::<Vec<_>>() },
        "policy-definitions": [{
            "name": "ironcast",
            "statements": site.families().map(statement).collect::<Vec<_>>(),
        }],
        "neighbors": numbered().map(|session| neighbour(site, session)).collect::<Vec<_>>(),
    });
    let mut notes = String::new();
    if site.sessions.iter().any(|session| session.bfd.is_some()) {
        notes += "# GoBGP has no BFD: a frozen node stays until the hold time ends.\n";
    }
    if numbered().count() < site.sessions.len() {
        notes += "# Unnumbered sessions are left out: name the link-local neighbours with their interfaces.\n";
    }
    notes + &serde_norway::to_string(&value).expect("plain data")
}

fn set(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ironcast-v4",
        Family::Ipv6 => "ironcast-v6",
    }
}

fn prefix_set(site: &Site, family: Family) -> Value {
    let one = |accept: &super::Accept| {
        let range = format!("{0}..{0}", accept.length);
        json!({ "ip-prefix": accept.network.to_string(), "masklength-range": range })
    };
    json!({ "prefix-set-name": set(family), "prefix-list": site.accepted(family).map(one).collect::<Vec<_>>() })
}

fn statement(family: Family) -> Value {
    json!({
        "name": set(family),
        "conditions": { "match-prefix-set": { "prefix-set": set(family), "match-set-options": "any" } },
        "actions": { "route-disposition": "accept-route" },
    })
}

fn neighbour(site: &Site, session: &Session) -> Value {
    let restart = session.graceful_restart;
    let family = |family: Family| {
        let name = match family {
            Family::Ipv4 => "ipv4-unicast",
            Family::Ipv6 => "ipv6-unicast",
        };
        json!({ "config": { "afi-safi-name": name }, "mp-graceful-restart": { "config": { "enabled": restart } } })
    };
    let hold = session.hold_time.seconds();
    let mut neighbour = json!({
        "config": {
            "neighbor-address": session.neighbour.to_string(),
            "peer-as": session.asn.value(),
            "description": session.node,
        },
        "timers": { "config": { "hold-time": hold, "keepalive-interval": hold / 3 } },
        "transport": { "config": { "passive-mode": !session.dials } },
        "afi-safis": session.families().map(family).collect::<Vec<_>>(),
    });
    if session.password {
        neighbour["config"]["auth-password"] = PASSWORD.into();
    }
    if restart {
        neighbour["graceful-restart"] = json!({ "config": { "enabled": true, "helper-only": true } });
    }
    match (session.ttl_security, session.multihop.filter(|_| !site.internal(session))) {
        (Some(hops), _) => {
            let least = 256 - u16::from(hops);
            neighbour["ttl-security"] = json!({ "config": { "enabled": true, "ttl-min": least } });
        }
        (None, Some(ttl)) => {
            neighbour["ebgp-multihop"] = json!({ "config": { "enabled": true, "multihop-ttl": ttl } });
        }
        (None, None) => {}
    }
    neighbour
}
