//! `BGPPeer` to [`Peer`].

use std::{net::IpAddr, time::Duration};

use super::{
    Converted, duration,
    key::{self, AoDraft},
    report::Report,
    selector::selectors,
};
use crate::{
    source::{
        api::{AddPathMode, BGPPeer, BGPPeerSpec, DynamicAsn, LocalAsnMode, PeerAddressFrom, PeerRole},
        index::ObjectKey,
    },
    types::{AddressFrom, Family, Peer, family_of},
};
use ironcast_bgp::{
    Asn, HoldTime, RouterId,
    speaker::{AddPath, MaximumPrefixes, PeerAs, Role},
};

/// A peer whose Secrets and BFD profile are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerDraft {
    /// The rest.
    pub peer: Peer,
    /// `passwordSecret`.
    pub secret: Option<ObjectKey>,
    /// `tcpAO`.
    pub ao: Vec<AoDraft>,
    /// `bfdProfile` by name.
    pub bfd_profile: Option<String>,
}

/// The peer, but for the values of `passwordSecret` and `bfdProfile`.
pub fn peer(object: &BGPPeer) -> Converted<PeerDraft> {
    let mut report = Report::new(object);
    let spec = &object.spec;
    let my_asn = asn(&mut report, "spec.myASN", spec.my_asn);
    let local_asn = spec.local_asn.and_then(|n| asn(&mut report, "spec.localASN", n));
    let peer_as = peer_as(&mut report, spec);
    let (hold_time, keepalive, connect_time) = times(&mut report, spec);
    let (address, interface, source) = place(&mut report, spec);
    let (multihop, ttl_security) = distance(&mut report, spec);
    let router_id = router_id(&mut report, spec);
    let password = key::password(&mut report, spec);
    let secret = spec.password_secret.as_ref().map(|reference| key::secret(object, reference));
    let ao = key::tcp_ao(&mut report, object);
    let node_selectors = selectors(&mut report, "spec.nodeSelectors", &spec.node_selectors);
    at_least_one(&mut report, "spec.prefixBudget", spec.prefix_budget);
    at_least_one(&mut report, "spec.maximumPaths", spec.maximum_paths);
    let maximum_prefixes = maximum_prefixes(&mut report, spec);
    let long_lived = long_lived(&mut report, spec);
    let role = role(&mut report, spec);
    needs(&mut report, ("spec.localASNMode", spec.local_asn_mode.is_some()), ("localASN", spec.local_asn.is_some()));
    watched(&mut report, spec);
    let peer = my_asn.zip(peer_as).zip(hold_time).map(|((my_asn, peer_as), hold_time)| Peer {
        name: object.metadata.name.clone().unwrap_or_default(),
        my_asn,
        local_asn,
        shows_my_asn: spec.local_asn_mode == Some(LocalAsnMode::Prepend),
        peer_as,
        address,
        interface,
        port: spec.peer_port.unwrap_or(179),
        source,
        router_id,
        vrf: spec.vrf.clone(),
        hold_time,
        keepalive,
        connect_time,
        multihop,
        ttl_security,
        passive: spec.passive,
        password,
        ao_keys: Vec::new(),
        missing_secret: None,
        node_selectors,
        bfd: None,
        graceful_restart: spec.enable_graceful_restart,
        dual_stack: spec.dual_stack_address_family,
        long_lived,
        role,
        role_strict: spec.role_strict,
        add_path: add_path(spec),
        prefix_budget: spec.prefix_budget,
        maximum_paths: spec.maximum_paths,
        address_from: spec.peer_address_from.map(address_from),
        maximum_prefixes,
    });
    report.finish(peer.map(|peer| PeerDraft { peer, secret, ao, bfd_profile: spec.bfd_profile.clone() }))
}

fn address_from(from: PeerAddressFrom) -> AddressFrom {
    match from {
        PeerAddressFrom::NodeAnnotation => AddressFrom::NodeAnnotation,
        PeerAddressFrom::DefaultGatewayV4 => AddressFrom::DefaultGateway(Family::Ipv4),
        PeerAddressFrom::DefaultGatewayV6 => AddressFrom::DefaultGateway(Family::Ipv6),
    }
}

fn asn(report: &mut Report, field: &str, number: u32) -> Option<Asn> {
    report.take(field, Asn::new(number), "set the AS number that the routers' side expects")
}

fn peer_as(report: &mut Report, spec: &BGPPeerSpec) -> Option<PeerAs> {
    match (spec.peer_asn, spec.dynamic_asn) {
        (Some(number), None) => asn(report, "spec.peerASN", number).map(PeerAs::Exactly),
        (None, Some(DynamicAsn::Internal)) => Some(PeerAs::Internal),
        (None, Some(DynamicAsn::External)) => Some(PeerAs::External),
        (Some(number), Some(_)) => {
            report.error("spec.dynamicASN", format!("is set beside peerASN {number}"), "keep one of the two");
            None
        }
        (None, None) => {
            report.error("spec.peerASN", "is missing", "set peerASN, or dynamicASN to internal or external");
            None
        }
    }
}

type Times = (Option<HoldTime>, Option<Duration>, Option<Duration>);

fn times(report: &mut Report, spec: &BGPPeerSpec) -> Times {
    let hold = match time(report, "spec.holdTime", spec.hold_time.as_deref()) {
        None => Some(HoldTime::DEFAULT),
        Some(time) => hold_time(report, time),
    };
    let keepalive = time(report, "spec.keepaliveTime", spec.keepalive_time.as_deref());
    if let (Some(keepalive), Some(hold)) = (keepalive, hold) {
        let most = hold.duration().unwrap_or_default();
        if keepalive < Duration::from_secs(1) || keepalive > most {
            report.error(
                "spec.keepaliveTime",
                format!("{keepalive:?} does not fit the hold time of {} s", hold.seconds()),
                "use at least 1s and at most holdTime, or leave it out for a third of it",
            );
        }
    }
    let connect = time(report, "spec.connectTime", spec.connect_time.as_deref());
    if let Some(connect) = connect
        && !(Duration::from_secs(1)..=Duration::from_secs(65535)).contains(&connect)
    {
        report.error("spec.connectTime", format!("{connect:?} is out of range"), "use 1s to 65535s");
    }
    (hold, keepalive, connect)
}

fn time(report: &mut Report, field: &str, text: Option<&str>) -> Option<Duration> {
    let text = text?;
    let parsed = duration::parse(text).ok_or_else(|| format!("{text:?} is no duration"));
    report.take(field, parsed, "write it like 90s, 1m30s or 1500ms")
}

fn hold_time(report: &mut Report, time: Duration) -> Option<HoldTime> {
    const HINT: &str = "use 0s (never) or 3s to 65535s";
    let whole = u16::try_from(time.as_secs()).ok().filter(|_| time.subsec_nanos() == 0);
    let seconds = whole.ok_or_else(|| format!("{time:?} is not a whole number of seconds up to 65535"));
    let seconds = report.take("spec.holdTime", seconds, HINT)?;
    report.take("spec.holdTime", HoldTime::new(seconds), HINT)
}

type Place = (Option<IpAddr>, Option<String>, Option<IpAddr>);

fn place(report: &mut Report, spec: &BGPPeerSpec) -> Place {
    let address = host(report, "spec.peerAddress", spec.peer_address.as_deref());
    let source = host(report, "spec.sourceAddress", spec.source_address.as_deref());
    let link_local = matches!(address, Some(IpAddr::V6(v6)) if v6.is_unicast_link_local());
    if spec.peer_address_from.is_some() && (spec.peer_address.is_some() || spec.interface.is_some()) {
        report.error("spec.peerAddressFrom", "is set beside peerAddress or interface", "keep one of them");
    }
    match (&spec.peer_address, &spec.interface) {
        (None, None) if spec.peer_address_from.is_some() => {}
        (None, None) => report.error(
            "spec.peerAddress",
            "is missing",
            "set peerAddress, peerAddressFrom, or interface for an unnumbered peer",
        ),
        (Some(text), None) if link_local => {
            report.error("spec.interface", format!("is missing for link-local peerAddress {text}"), "set interface");
        }
        (Some(text), Some(interface)) if address.is_some() && !link_local => report.error(
            "spec.interface",
            format!("{interface:?} is set beside peerAddress {text}"),
            "keep one of the two; both are for link-local addresses only",
        ),
        (None, Some(_)) => unnumbered(report, spec),
        _ => {}
    }
    if let (Some(address), Some(source)) = (address, source)
        && family_of(address) != family_of(source)
    {
        report.error(
            "spec.sourceAddress",
            format!("{source} is not of the family of peerAddress {address}"),
            format!("use an {} address, or leave it out", family_of(address)),
        );
    }
    (address, spec.interface.clone(), source)
}

/// What an unnumbered peer cannot have: the other end of its link is at hand, and its address is not known here.
fn unnumbered(report: &mut Report, spec: &BGPPeerSpec) {
    const HINT: &str = "leave it out: an unnumbered session runs between the link-local addresses of its link";
    if let Some(source) = &spec.source_address {
        report.error("spec.sourceAddress", format!("{source} is set without peerAddress"), HINT);
    }
    if spec.ebgp_multi_hop {
        report.error("spec.ebgpMultiHop", "is set without peerAddress", HINT);
    }
    if spec.vrf.is_some() {
        report.error("spec.vrf", "is set without peerAddress", "leave it out: the interface is in its VRF already");
    }
}

fn host(report: &mut Report, field: &str, text: Option<&str>) -> Option<IpAddr> {
    let text = text?;
    let parsed = text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no IP address"));
    let address = report.take(field, parsed, "write an IPv4 or IPv6 address without a prefix length")?;
    if address.is_unspecified() || address.is_multicast() {
        report.error(field, format!("{address} is no host's address"), "write the router's own address");
    }
    Some(address)
}

/// The peer is in the AS that we show it.
fn internal(spec: &BGPPeerSpec) -> bool {
    spec.dynamic_asn == Some(DynamicAsn::Internal) || spec.peer_asn == Some(spec.local_asn.unwrap_or(spec.my_asn))
}

fn role(report: &mut Report, spec: &BGPPeerSpec) -> Option<Role> {
    needs(report, ("spec.roleStrict", spec.role_strict), ("role", spec.role.is_some()));
    if spec.role.is_some() && internal(spec) {
        report.error("spec.role", "is set for an iBGP peer", "leave it out: roles are between ASes (RFC 9234)");
    }
    spec.role.map(|role| match role {
        PeerRole::Provider => Role::Provider,
        PeerRole::Rs => Role::RouteServer,
        PeerRole::RsClient => Role::RouteServerClient,
        PeerRole::Customer => Role::Customer,
        PeerRole::Peer => Role::Peer,
    })
}

fn add_path(spec: &BGPPeerSpec) -> AddPath {
    let offers = |mode| spec.add_path == Some(mode) || spec.add_path == Some(AddPathMode::Both);
    AddPath { send: offers(AddPathMode::Send), receive: offers(AddPathMode::Receive) }
}

/// Seconds in 24 bits (RFC 9494 §4.1).
const LONG_LIVED: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(0xFF_FFFF);

fn long_lived(report: &mut Report, spec: &BGPPeerSpec) -> Option<Duration> {
    const FIELD: &str = "spec.longLivedStaleTime";
    let stale = time(report, FIELD, spec.long_lived_stale_time.as_deref())?;
    if !LONG_LIVED.contains(&stale) {
        report.error(FIELD, format!("{stale:?} is out of range"), "use 1s to 4660h");
    }
    needs(report, (FIELD, true), ("enableGracefulRestart: true", spec.enable_graceful_restart));
    Some(stale)
}

/// BFD that cannot be had on the peer's path.
fn watched(report: &mut Report, spec: &BGPPeerSpec) {
    if spec.bfd_profile.is_some() && spec.vrf.is_some() {
        report.warn(
            "spec.bfdProfile",
            "is set beside vrf, and BFD packets of a VRF reach a process outside of it only on request",
            "set the sysctl net.ipv4.udp_l3mdev_accept=1 on the nodes, or leave one of the two out",
        );
    }
}

/// A field that means nothing without another.
fn needs(report: &mut Report, (field, set): (&str, bool), (other, there): (&str, bool)) {
    if set && !there {
        report.error(field, format!("is set without {other}"), format!("set {other}, or leave it out"));
    }
}

fn distance(report: &mut Report, spec: &BGPPeerSpec) -> (Option<u8>, Option<u8>) {
    if spec.ebgp_multi_hop && internal(spec) {
        report.error(
            "spec.ebgpMultiHop",
            "is set for an iBGP peer",
            "leave it out: iBGP peers may be any number of hops away",
        );
    }
    if let Some(ttl) = spec.ebgp_multi_hop_ttl {
        if !spec.ebgp_multi_hop {
            report.error(
                "spec.ebgpMultiHopTTL",
                format!("{ttl} is set without ebgpMultiHop"),
                "set ebgpMultiHop: true",
            );
        }
        if ttl < 2 {
            report.error("spec.ebgpMultiHopTTL", format!("{ttl} is out of range"), "use 2 to 255");
        }
    }
    if let Some(hops) = spec.ttl_security {
        if !(1..=254).contains(&hops) {
            report.error("spec.ttlSecurity", format!("{hops} hops are out of range"), "use 1 to 254");
        }
        if spec.ebgp_multi_hop {
            report.error(
                "spec.ttlSecurity",
                "is set beside ebgpMultiHop",
                "leave ebgpMultiHop out: ttlSecurity counts the hops",
            );
        }
    }
    let multihop = spec.ebgp_multi_hop.then(|| spec.ebgp_multi_hop_ttl.unwrap_or(255));
    (multihop, spec.ttl_security)
}

fn router_id(report: &mut Report, spec: &BGPPeerSpec) -> Option<RouterId> {
    const HINT: &str = "write it like an IPv4 address, 192.0.2.1";
    let text = spec.router_id.as_deref()?;
    let parsed = text.parse().map_err(|_| format!("{text:?} is no router id"));
    let id = report.take("spec.routerID", parsed, HINT)?;
    report.take("spec.routerID", RouterId::new(id), HINT)
}

fn maximum_prefixes(report: &mut Report, spec: &BGPPeerSpec) -> Option<MaximumPrefixes> {
    let (limit, warning_only) = (spec.maximum_prefixes, spec.maximum_prefixes_warning_only);
    needs(report, ("spec.maximumPrefixesWarningOnly", warning_only), ("maximumPrefixes", limit.is_some()));
    if limit == Some(0) {
        report.error("spec.maximumPrefixes", "0 would end every session", "use at least 1, or leave it out");
    }
    limit.map(|limit| MaximumPrefixes { limit, warning_only })
}

fn at_least_one(report: &mut Report, field: &str, number: Option<u32>) {
    if number == Some(0) {
        report.error(field, "0 would announce nothing", "use at least 1, or leave it out");
    }
}
