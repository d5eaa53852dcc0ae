//! OPENs and UPDATEs that other speakers have sent, octet by octet as they were captured from their sockets by a client
//! that offers everything they use.

use ironcast_bgp::{
    Community, Family, LargeCommunity, LinkBandwidth, Origin,
    wire::{
        Families,
        attribute::Aggregator,
        capability::{Capabilities, GracefulRestart, LongLived},
        message::{Kind, frame},
        open,
        update::{self, Update},
    },
};

/// BIRD 2.0.12 to a peer that does not offer four-octet AS numbers: static routes, the first with
/// `bgp_path.prepend(4200000001)`, two communities, a generic extended and a large community.
const BIRD: &str = "ffffffffffffffffffffffffffffffff00620200000046400101004002060202fc595ba04003040a000102c00808fc590064ffff0000c010080004fc594e6e6b28c0110a02020000fc59fa56ea01c0200c0000fc59000000010000000220c0000201";
/// The End-of-RIB of IPv4 from both.
const END_OF_RIB_V4: &str = "ffffffffffffffffffffffffffffffff00170200000000";
/// ExaBGP 4.2: MED, communities, a route target, `bandwidth:64602:1000000`, a large community, an aggregate.
const EXABGP_V4: &str = "ffffffffffffffffffffffffffffffff0076020000005a4001010040020a02020000fc5afa56ea014003040a00010380040400000009400600c007080000fc5a0a000103c00808fc5a0001ffffff01c010100002fc5a000000074004fc5a49742400c0200c0000fc5a000000010000000220c0000203";
const EXABGP_V6: &str = "ffffffffffffffffffffffffffffffff004d02000000364001010040020602010000fc5a800e260002011020010db8000100000000000000000003008020010db8000000000000000000000003";
const EXABGP_END_OF_RIB_V6: &str = "ffffffffffffffffffffffffffffffff001e0200000007900f0003000201";
/// BIRD 2.0.12 with `graceful restart on; long lived graceful restart on; enable extended messages on; local role provider;`
/// and `add paths rx` for IPv4.
const BIRD_OPEN: &str = "ffffffffffffffffffffffffffffffff005c0104fc5900f00a0000013f023d01040001000101040002000102000600090100400a0078000101000002010041040000fc594504000101014600470e00010100000e1000020100000e10";
/// ExaBGP 4.2.21 with `extended-message enable; graceful-restart 30; add-path receive; nexthop enable;`.
const EXABGP_OPEN: &str = "ffffffffffffffffffffffffffffffff005d0104fc5a00090a0000014002060104000100010206010400020001020641040000fc5a02080506000100010002020a45080001010100020101020c400a801e000101800002018002020600";
/// FRR 8.4.4 with `bgp graceful-restart`, `… notification`, `bgp long-lived-graceful-restart stale-time 3600`, and
/// `local-role provider` and `addpath-tx-all-paths` for the neighbour.
const FRR_OPEN: &str = "ffffffffffffffffffffffffffffffff007e0104fc5c00b40a0000016102060104000100010206010400020001020280000202020002024600020641040000fc5c020206000203090100020a450800010103000201030206490402766d00020c400ac07800010100000201000210470e00010180000e1000020180000e10";
/// GoBGP 3.10.0 with graceful restart, `notification-enabled`, and `add-paths` both ways for IPv4.
const GOBGP_OPEN: &str = "ffffffffffffffffffffffffffffffff00530104fc5b005a0a0000013602340200490402766d0001040001000101040002000141040000fc5b400a401e00010100000201000506000100010002450400010103";
/// FRR: `set as-path prepend 4200000001 64604`, metric, aggregate, communities of every kind. Lists of AS numbers and MP_REACH
/// have long lengths though they are short. The role puts attribute 35 there, the OPENs a path identifier.
const FRR_V4: &str = "ffffffffffffffffffffffffffffffff007e020000005e400101005002000e02030000fc5cfa56ea010000fc5c4003040a0000018004040000000b400600c007080000fc5c0a000001c00808fc5c0064ffff0000c0200c0000fc5c0000000100000002c010080002fc5c00000007c023040000fc5c0000000320c0000206";
/// FRR: `set extcommunity bandwidth 1000`, in megabits a second; the transitive form.
const FRR_BANDWIDTH: &str = "ffffffffffffffffffffffffffffffff004e020000002e400101005002000602010000fc5c4003040a00000180040400000000c010080004fc5c4cee6b28c023040000fc5c0000000220c0000207";
/// FRR on an IPv4 address without an IPv6 one: the next hop is mapped, and the attribute stands first (RFC 7606 §5.1).
const FRR_V6: &str = "ffffffffffffffffffffffffffffffff0061020000004a900e002a0002011000000000000000000000ffff0a00000100000000008020010db8000000000000000000000006400101005002000602010000fc5c80040400000000c023040000fc5c";
/// FRR and GoBGP send it so short.
const SHORT_END_OF_RIB_V6: &str = "ffffffffffffffffffffffffffffffff001d0200000006800f03000201";
/// GoBGP: `gobgp global rib add … med 7 aspath 4200000001 community … rt … large-community … aggregator …`.
const GOBGP_V4: &str = "ffffffffffffffffffffffffffffffff006f020000004f4001010240020a02020000fc5bfa56ea0180040400000007c007080000fc5b0a000001c00808fc5b0064ffffff01c010080002fc5b00000007c0200c0000fc5b00000001000000024003040a0000010000000120c0000204";
const GOBGP_V6: &str = "ffffffffffffffffffffffffffffffff0054020000003d4001010240020602010000fc5bc00804fc5b00c8800e260002011020010db8ffff00000000000000000001008020010db8000000000000000000000004";

fn octets(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Reads a message; every shorter piece of it is incomplete and no error.
fn read<R>(text: &str, four_octet: bool, look: impl Fn(&Update<'_>) -> R) -> R {
    let families = Families::from_iter(Families::EVERY);
    read_with(text, &update::Context { four_octet, families, ..update::Context::default() }, look)
}

/// The same for a session with ADD-PATH.
fn read_paths<R>(text: &str, look: impl Fn(&Update<'_>) -> R) -> R {
    let families = Families::from_iter(Families::EVERY);
    read_with(
        text,
        &update::Context { four_octet: true, families, add_path: families, ..update::Context::default() },
        look,
    )
}

fn read_with<R>(text: &str, context: &update::Context, look: impl Fn(&Update<'_>) -> R) -> R {
    let octets = octets(text);
    for end in 0..octets.len() {
        assert_eq!(frame(&octets[..end], false), Ok(None), "{end} octets");
    }
    let found = frame(&octets, false).expect("valid").expect("complete");
    assert_eq!((found.kind, found.octets.len()), (Kind::Update, octets.len()));
    let update = update::decode(found.octets, context).expect("valid");
    assert_eq!(update.fault, None);
    look(&update)
}

fn routes(update: &Update<'_>) -> Vec<String> {
    update.reachable().map(|(prefix, hop)| format!("{prefix} via {hop}")).collect()
}

#[test]
fn bird_tells_a_peer_of_two_octets_the_whole_path() {
    read(BIRD, false, |update| {
        assert_eq!(routes(update), ["192.0.2.1/32 via 10.0.1.2"]);
        let a = &update.attributes;
        assert_eq!((a.origin, a.med), (Some(Origin::Igp), None));
        assert_eq!(a.as_path.expect("mandatory").numbers().collect::<Vec<_>>(), [64601, 23456]);
        assert_eq!(a.path().collect::<Vec<_>>(), [64601, 4_200_000_001]);
        let communities: Vec<String> = a.communities().map(|c| c.to_string()).collect();
        assert_eq!(communities, ["64601:100", "graceful-shutdown"]);
        let bandwidths: Vec<_> = a.extended_communities().map(LinkBandwidth::of).collect();
        assert_eq!(bandwidths, [Some(LinkBandwidth::new(1e9, true).expect("a bandwidth"))]);
        assert_eq!(a.large_communities().collect::<Vec<_>>(), [LargeCommunity(64601, 1, 2)]);
    });
}

#[test]
fn exabgp_sends_an_aggregate_with_every_kind_of_community() {
    read(EXABGP_V4, true, |update| {
        assert_eq!(routes(update), ["192.0.2.3/32 via 10.0.1.3"]);
        let a = &update.attributes;
        assert_eq!(a.med, Some(9));
        assert_eq!(a.path().collect::<Vec<_>>(), [64602, 4_200_000_001]);
        assert!(a.atomic_aggregate);
        assert_eq!(a.aggregator, Some(Aggregator { asn: 64602, address: [10, 0, 1, 3].into() }));
        assert_eq!(a.communities().collect::<Vec<_>>(), [Community(64602 << 16 | 1), Community::NO_EXPORT]);
        let extended: Vec<_> = a.extended_communities().collect();
        assert_eq!(extended[0].to_string(), "rt:64602:7");
        let bandwidth = LinkBandwidth::new(1e6, false).expect("a bandwidth");
        assert_eq!(LinkBandwidth::of(extended[1]), Some(bandwidth));
    });
    let v6 = read(EXABGP_V6, true, routes);
    assert_eq!(v6, ["2001:db8::3/128 via 2001:db8:1::3"]);
}

#[test]
fn ends_of_ribs_are_told_by_family() {
    assert_eq!(read(END_OF_RIB_V4, true, |u| u.end_of_rib()), Some(Family::Ipv4Unicast));
    assert_eq!(read(EXABGP_END_OF_RIB_V6, true, |u| u.end_of_rib()), Some(Family::Ipv6Unicast));
    assert_eq!(read(SHORT_END_OF_RIB_V6, true, |u| u.end_of_rib()), Some(Family::Ipv6Unicast));
}

/// Identifiers and prefixes of the field NLRI.
fn paths(update: &Update<'_>) -> Vec<String> {
    update.announced.iter().map(|(id, prefix)| format!("{id} {prefix}")).collect()
}

#[test]
fn frr_sends_long_lengths_a_path_identifier_and_only_to_customer() {
    read_paths(FRR_V4, |update| {
        assert_eq!(
            (paths(update), routes(update)),
            (vec!["3 192.0.2.6/32".into()], vec!["192.0.2.6/32 via 10.0.0.1".into()])
        );
        let a = &update.attributes;
        assert_eq!((a.med, a.only_to_customer, a.atomic_aggregate), (Some(11), Some(64604), true));
        assert_eq!(a.path().collect::<Vec<_>>(), [64604, 4_200_000_001, 64604]);
        assert_eq!(a.aggregator, Some(Aggregator { asn: 64604, address: [10, 0, 0, 1].into() }));
        let communities: Vec<String> = a.communities().map(|c| c.to_string()).collect();
        assert_eq!(communities, ["64604:100", "graceful-shutdown"]);
        assert_eq!(a.extended_communities().next().map(|c| c.to_string()).as_deref(), Some("rt:64604:7"));
        assert_eq!(a.large_communities().collect::<Vec<_>>(), [LargeCommunity(64604, 1, 2)]);
    });
    let bandwidth = LinkBandwidth::new(125e6, true).expect("a bandwidth");
    let found =
        read_paths(FRR_BANDWIDTH, |u| u.attributes.extended_communities().map(LinkBandwidth::of).collect::<Vec<_>>());
    assert_eq!(found, [Some(bandwidth)]);
    assert_eq!(read_paths(FRR_V6, routes), ["2001:db8::6/128 via ::ffff:10.0.0.1"]);
}

#[test]
fn gobgp_sends_attributes_in_an_order_of_its_own() {
    read_paths(GOBGP_V4, |update| {
        assert_eq!(
            (paths(update), routes(update)),
            (vec!["1 192.0.2.4/32".into()], vec!["192.0.2.4/32 via 10.0.0.1".into()])
        );
        let a = &update.attributes;
        assert_eq!((a.origin, a.med), (Some(Origin::Incomplete), Some(7)));
        assert_eq!(a.path().collect::<Vec<_>>(), [64603, 4_200_000_001]);
        assert_eq!(a.aggregator, Some(Aggregator { asn: 64603, address: [10, 0, 0, 1].into() }));
        let communities: Vec<String> = a.communities().map(|c| c.to_string()).collect();
        assert_eq!(communities, ["64603:100", "no-export"]);
        assert_eq!(a.extended_communities().map(|c| c.to_string()).collect::<Vec<_>>(), ["rt:64603:7"]);
        assert_eq!(a.large_communities().collect::<Vec<_>>(), [LargeCommunity(64603, 1, 2)]);
    });
    assert_eq!(read(GOBGP_V6, true, routes), ["2001:db8::4/128 via 2001:db8:ffff::1"]);
}

/// Reads an OPEN; every shorter piece of it is incomplete and no error.
fn open(text: &str) -> (u32, u16, Capabilities) {
    let octets = octets(text);
    for end in 0..octets.len() {
        assert_eq!(frame(&octets[..end], false), Ok(None), "{end} octets");
    }
    let found = frame(&octets, false).expect("valid").expect("complete");
    assert_eq!(found.kind, Kind::Open);
    let open = open::decode(found.octets).expect("valid");
    (open.asn.value(), open.hold_time.seconds(), open.capabilities)
}

/// What all four routers offer.
fn common(asn: u32) -> Capabilities {
    let multiprotocol = Some(Families::from_iter(Families::EVERY));
    Capabilities { multiprotocol, four_octet_as: Some(asn), ..Capabilities::default() }
}

fn restart(restarting: bool, notification: bool, seconds: u16, forwarding: &[Family]) -> Option<GracefulRestart> {
    let families = Families::from_iter(Families::EVERY);
    let forwarding = Families::from_iter(forwarding.iter().copied());
    Some(GracefulRestart { restarting, notification, seconds, families, forwarding })
}

fn long_lived(forwarding: bool) -> Vec<LongLived> {
    Families::EVERY.into_iter().map(|family| LongLived { family, forwarding, seconds: 3600 }).collect()
}

#[test]
fn opens_say_what_each_router_was_configured_with() {
    let v4 = Families::from_iter([Family::Ipv4Unicast]);
    let both = Families::from_iter(Families::EVERY);
    let bird = Capabilities {
        route_refresh: true,
        enhanced_refresh: true,
        extended_message: true,
        graceful_restart: restart(false, false, 120, &[]),
        long_lived: long_lived(false),
        add_path_receive: v4,
        role: Some(0),
        ..common(64601)
    };
    assert_eq!(open(BIRD_OPEN), (64601, 240, bird));
    let exabgp = Capabilities {
        extended_message: true,
        extended_next_hop: true,
        graceful_restart: restart(true, false, 30, &Families::EVERY),
        add_path_receive: both,
        ..common(64602)
    };
    assert_eq!(open(EXABGP_OPEN), (64602, 9, exabgp));
    let frr = Capabilities {
        route_refresh: true,
        enhanced_refresh: true,
        extended_message: true,
        graceful_restart: restart(true, true, 120, &[]),
        long_lived: long_lived(true),
        add_path_send: both,
        add_path_receive: both,
        role: Some(0),
        ..common(64604)
    };
    assert_eq!(open(FRR_OPEN), (64604, 180, frr));
    let gobgp = Capabilities {
        route_refresh: true,
        extended_next_hop: true,
        graceful_restart: restart(false, true, 30, &[]),
        add_path_send: v4,
        add_path_receive: v4,
        ..common(64603)
    };
    assert_eq!(open(GOBGP_OPEN), (64603, 90, gobgp));
}
