//! UPDATEs that other speakers have sent, octet by octet as they were captured.

use ironcast_bgp::{
    Community, Family, LargeCommunity, LinkBandwidth, Origin,
    wire::{
        Families,
        attribute::Aggregator,
        message::{Kind, frame},
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

fn octets(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Reads a message; every shorter piece of it is incomplete and no error.
fn read<R>(text: &str, four_octet: bool, look: impl Fn(&Update<'_>) -> R) -> R {
    let octets = octets(text);
    for end in 0..octets.len() {
        assert_eq!(frame(&octets[..end], false), Ok(None), "{end} octets");
    }
    let found = frame(&octets, false).expect("valid").expect("complete");
    assert_eq!((found.kind, found.octets.len()), (Kind::Update, octets.len()));
    let families = Families::from_iter(Families::EVERY);
    let context = update::Context { four_octet, families, ..update::Context::default() };
    let update = update::decode(found.octets, &context).expect("valid");
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
}
