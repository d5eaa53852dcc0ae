//! What one object can say wrong, as CEL rules for the API server (`x-kubernetes-validations`). `isIP`, `isCIDR`
//! and `ip()` are in every API server since 1.31. Each list and string that a rule walks has a largest size, so
//! that the estimated cost stays within the API server's budget.

use schemars::Schema;
use serde_json::{Value, json};

/// A duration as Go writes it: `90s`, `1m30s`, `1500ms`, `0`.
pub(super) const DURATION: &str = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$";

/// A URL of a provider.
pub(super) const URL: &str = r"^https?://[^\s]+$";

/// `(field, rule, message)`; an empty field means the object itself.
fn rules(rules: &[(&str, &str, &str)]) -> Value {
    let one = |(field, rule, message): &(&str, &str, &str)| match *field {
        "" => json!({ "rule": rule, "message": message }),
        field => json!({ "rule": rule, "message": message, "fieldPath": field }),
    };
    rules.iter().map(one).collect()
}

fn on_items(schema: &mut Schema, rules: Value) {
    if let Some(items) = schema.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("x-kubernetes-validations".into(), rules);
    }
}

/// `IPAddressPool.spec.addresses`. That a range ends after it starts is left to the daemon: CEL cannot compare addresses.
pub(super) fn address_ranges(schema: &mut Schema) {
    let rules = rules(&[
        (
            "",
            "self.contains('-') ? (self.split('-').size() == 2 && self.split('-').all(a, isIP(a.trim()))) : isCIDR(self)",
            "must be a CIDR (192.0.2.0/24) or a range (192.0.2.10-192.0.2.20)",
        ),
        (
            "",
            "!self.contains('-') || !self.split('-').all(a, isIP(a.trim())) || \
             ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family()",
            "a range must not mix IPv4 and IPv6",
        ),
    ]);
    on_items(schema, rules);
}

/// `IPAddressPool.spec`: addresses of one's own, a provider, or both.
pub(super) fn pool() -> Value {
    rules(&[(
        "",
        "has(self.provider) || (has(self.addresses) && self.addresses.size() > 0)",
        "addresses or provider must be set",
    )])
}

const STANDARD: &str = "self.matches('^[0-9]{1,5}:[0-9]{1,5}$') && self.split(':').all(n, int(n) <= 65535)";
const LARGE: &str = "self.matches('^(large:)?[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$') && \
                     self.split(':').all(n, n == 'large' || int(n) <= 4294967295)";
const WELL_KNOWN: &str = "self in ['graceful-shutdown', 'llgr-stale', 'no-llgr', 'blackhole', 'no-export', \
                          'no-advertise', 'no-export-subconfed']";
const FORMS: &str = "must be asn:value (65000:100, each at most 65535), large:global:local1:local2 (each at most \
                     4294967295), or a well-known name (no-export)";

/// The value of a community.
pub(super) fn community() -> Value {
    rules(&[("", &format!("({STANDARD}) || ({LARGE}) || {WELL_KNOWN}"), FORMS)])
}

/// `BGPAdvertisement.spec.communities`: communities, or names of them; names have no colon.
pub(super) fn communities(schema: &mut Schema) {
    on_items(schema, rules(&[("", &format!("!self.contains(':') || ({STANDARD}) || ({LARGE})"), FORMS)]));
}

/// `BGPPeer.spec`.
pub(super) fn peer() -> Value {
    let all = [connection(), protection(), offers()];
    all.into_iter().flat_map(|rules| rules.as_array().cloned().unwrap_or_default()).collect()
}

/// Who the peer is, where, and how it is reached.
fn connection() -> Value {
    rules(&[
        ("", "has(self.peerASN) != has(self.dynamicASN)", "exactly one of peerASN and dynamicASN must be set"),
        (
            "",
            "has(self.peerAddress) || has(self.interface) || has(self.peerAddressFrom)",
            "one of peerAddress and interface must be set, or peerAddressFrom",
        ),
        (
            ".peerAddressFrom",
            "!has(self.peerAddressFrom) || (!has(self.peerAddress) && !has(self.interface))",
            "peerAddressFrom excludes peerAddress and interface",
        ),
        (".peerAddress", "!has(self.peerAddress) || isIP(self.peerAddress)", "must be an IPv4 or IPv6 address"),
        (
            ".interface",
            "!has(self.peerAddress) || !isIP(self.peerAddress) || \
             has(self.interface) == ip(self.peerAddress).isLinkLocalUnicast()",
            "peerAddress and interface go together for a link-local peerAddress, and only for one",
        ),
        (".sourceAddress", "!has(self.sourceAddress) || isIP(self.sourceAddress)", "must be an IPv4 or IPv6 address"),
        (
            ".sourceAddress",
            "!has(self.sourceAddress) || !has(self.peerAddress) || !isIP(self.sourceAddress) || \
             !isIP(self.peerAddress) || ip(self.sourceAddress).family() == ip(self.peerAddress).family()",
            "must be of the same family as peerAddress",
        ),
        (
            ".routerID",
            "!has(self.routerID) || (isIP(self.routerID) && ip(self.routerID).family() == 4 && \
             !ip(self.routerID).isUnspecified())",
            "must look like an IPv4 address other than 0.0.0.0",
        ),
        (
            ".holdTime",
            "!has(self.holdTime) || duration(self.holdTime) == duration('0s') || \
             (duration(self.holdTime) >= duration('3s') && duration(self.holdTime) <= duration('65535s'))",
            "must be 0s (never) or from 3s to 65535s",
        ),
        (
            ".keepaliveTime",
            "!has(self.keepaliveTime) || (duration(self.keepaliveTime) >= duration('1s') && \
             duration(self.keepaliveTime) <= (has(self.holdTime) ? duration(self.holdTime) : duration('90s')))",
            "must be at least 1s and not longer than holdTime (90s)",
        ),
        (
            ".connectTime",
            "!has(self.connectTime) || (duration(self.connectTime) >= duration('1s') && \
             duration(self.connectTime) <= duration('65535s'))",
            "must be from 1s to 65535s",
        ),
    ])
}

/// Its keys, and how far away it may be.
fn protection() -> Value {
    rules(&[
        ("", "!has(self.password) || !has(self.passwordSecret)", "only one of password and passwordSecret may be set"),
        (
            ".tcpAO",
            "!has(self.tcpAO) || (!has(self.password) && !has(self.passwordSecret))",
            "tcpAO and a password exclude each other",
        ),
        (
            ".tcpAO",
            "!has(self.tcpAO) || self.tcpAO.all(a, self.tcpAO.exists_one(b, a.sendID == b.sendID) && \
             self.tcpAO.exists_one(b, a.receiveID == b.receiveID))",
            "each sendID and each receiveID may be there once",
        ),
        (
            ".ebgpMultiHopTTL",
            "!has(self.ebgpMultiHopTTL) || (has(self.ebgpMultiHop) && self.ebgpMultiHop)",
            "needs ebgpMultiHop: true",
        ),
        (
            ".ttlSecurity",
            "!has(self.ttlSecurity) || !has(self.ebgpMultiHop) || !self.ebgpMultiHop",
            "ttlSecurity counts the hops itself; leave ebgpMultiHop out",
        ),
        (
            ".ebgpMultiHop",
            "!has(self.ebgpMultiHop) || !self.ebgpMultiHop || !((has(self.peerASN) && self.peerASN == \
             (has(self.localASN) ? self.localASN : self.myASN)) || (has(self.dynamicASN) && self.dynamicASN == 'internal'))",
            "is for eBGP peers only; an iBGP peer may be any number of hops away",
        ),
    ])
}

/// What is offered to it, and what goes together.
fn offers() -> Value {
    rules(&[
        (
            ".role",
            "!has(self.role) || !((has(self.peerASN) && self.peerASN == (has(self.localASN) ? self.localASN : self.myASN)) \
             || (has(self.dynamicASN) && self.dynamicASN == 'internal'))",
            "roles are for eBGP peers only (RFC 9234)",
        ),
        (".roleStrict", "!has(self.roleStrict) || !self.roleStrict || has(self.role)", "needs role"),
        (
            ".maximumPrefixesWarningOnly",
            "!has(self.maximumPrefixesWarningOnly) || !self.maximumPrefixesWarningOnly || has(self.maximumPrefixes)",
            "needs maximumPrefixes",
        ),
        (".localASNMode", "!has(self.localASNMode) || has(self.localASN)", "needs localASN"),
        (
            ".longLivedStaleTime",
            "!has(self.longLivedStaleTime) || (has(self.enableGracefulRestart) && self.enableGracefulRestart)",
            "needs enableGracefulRestart: true",
        ),
        (
            ".longLivedStaleTime",
            "!has(self.longLivedStaleTime) || (duration(self.longLivedStaleTime) >= duration('1s') && \
             duration(self.longLivedStaleTime) <= duration('16777215s'))",
            "must be from 1s to 16777215s",
        ),
        (
            "",
            "has(self.peerAddress) || has(self.peerAddressFrom) || (!has(self.sourceAddress) && !has(self.vrf) && \
             (!has(self.ebgpMultiHop) || !self.ebgpMultiHop))",
            "sourceAddress, vrf and ebgpMultiHop need peerAddress: an unnumbered session runs on its link",
        ),
    ])
}
