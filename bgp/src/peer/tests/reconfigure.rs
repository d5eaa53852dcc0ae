//! What a changed configuration does to a running session, and what a session's own configuration does to what is
//! sent.

use super::*;
use crate::{
    rib::{Attributes, Routes},
    speaker::{AddPath, AoAlgorithm, AoKey, MaximumPrefixes, Md5Key, Ttl},
};

fn up(change: impl Fn(usize, &mut PeerConfig)) -> Pair {
    let mut pair = Pair::new(|n, peer| {
        peer.passive = n == 1;
        change(n, peer);
    });
    pair.export(0, &["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"]);
    pair.pass(SECOND);
    assert_eq!(pair.status(0).state, State::Established);
    pair.ends[0].sent.clear();
    pair
}

fn set(pair: &mut Pair, peer: PeerConfig) {
    let now = pair.now;
    pair.ends[0].speaker.set_peers(now, [(PeerId("p".into()), peer)].into());
    pair.pass(SECOND);
}

fn plain() -> PeerConfig {
    config([10, 0, 0, 2], 64601)
}

type Field = (&'static str, fn(&mut PeerConfig), Option<&'static str>);

fn asn(number: u32) -> Asn {
    Asn::new(number).expect("valid")
}

fn key() -> AoKey {
    AoKey { send_id: 1, receive_id: 2, algorithm: AoAlgorithm::HmacSha1, key: b"secret".as_slice().into() }
}

/// Each field of the configuration, a change of it, and what the session was ended for; `None` leaves it alone.
fn fields() -> [Field; 24] {
    // A field that is not in the table does not compile here.
    let PeerConfig {
        address: _,
        port: _,
        interface: _,
        source: _,
        local_as: _,
        own_as: _,
        peer_as: _,
        router_id: _,
        hold_time: _,
        keepalive: _,
        connect_retry: _,
        passive: _,
        ttl: _,
        password: _,
        ao_keys: _,
        families: _,
        extended_next_hop: _,
        add_path: _,
        role: _,
        role_strict: _,
        graceful_restart: _,
        long_lived: _,
        maximum_prefixes: _,
        prefix_budget: _,
    } = plain();
    [
        ("address", |c| c.address = [10, 0, 0, 3].into(), Some("address")),
        ("port", |c| c.port = 1179, Some("port")),
        ("interface", |c| c.interface = Some("eth9".into()), Some("interface")),
        ("source", |c| c.source = Some([10, 0, 0, 9].into()), Some("source address")),
        ("local_as", |c| c.local_as = asn(64602), Some("our AS")),
        ("own_as", |c| c.own_as = Some(asn(65001)), None),
        ("peer_as", |c| c.peer_as = PeerAs::Exactly(asn(64500)), Some("its AS")),
        ("router_id", |c| c.router_id = RouterId::new([1, 1, 1, 1].into()).ok(), Some("router id")),
        ("hold_time", |c| c.hold_time = HoldTime::new(30).expect("valid"), Some("hold time")),
        ("keepalive", |c| c.keepalive = Some(SECOND), None),
        ("connect_retry", |c| c.connect_retry = 7 * SECOND, None),
        ("passive", |c| c.passive = true, None),
        ("ttl", |c| c.ttl = Ttl::MultiHop(3), None),
        ("password", |c| c.password = Some(Md5Key(b"new".as_slice().into())), Some("password")),
        ("ao_keys", |c| c.ao_keys.push(key()), Some("TCP-AO keys")),
        ("families", |c| _ = c.families.insert(Family::Ipv6Unicast), Some("address families")),
        ("extended_next_hop", |c| c.extended_next_hop = true, Some("extended next hop")),
        ("add_path", |c| c.add_path = AddPath { send: true, receive: false }, Some("ADD-PATH")),
        ("role", |c| c.role = Some(Role::Customer), Some("role")),
        ("role_strict", |c| c.role_strict = true, Some("role")),
        ("graceful_restart", |c| c.graceful_restart = Some(SECOND), Some("graceful restart")),
        ("long_lived", |c| c.long_lived = Some(SECOND), Some("long-lived graceful restart")),
        ("maximum_prefixes", |c| c.maximum_prefixes = Some(MaximumPrefixes { limit: 1, warning_only: false }), None),
        ("prefix_budget", |c| c.prefix_budget = Some(2), None),
    ]
}

#[test]
fn only_what_was_negotiated_or_the_connection_is_made_of_resets_the_session() {
    for (name, change, ended) in fields() {
        let mut pair = up(|_, _| {});
        let mut peer = plain();
        change(&mut peer);
        assert_ne!(peer, plain(), "{name}");
        set(&mut pair, peer);
        let notification = pair.status(1).last_error.is_some_and(|e| e.contains("Other Configuration Change"));
        assert_eq!(notification, ended.is_some(), "{name}");
        let words = pair.status(0).last_error.unwrap_or_default();
        let expected = ended.map(|what| format!("this node ended the session to take a changed {what}"));
        match expected {
            Some(expected) => assert_eq!(words, expected, "{name}"),
            None => assert_eq!(pair.status(0).established_count, 1, "{name}: {words}"),
        }
    }
}

#[test]
fn keys_are_never_printed() {
    let peer = PeerConfig { password: Some(Md5Key(b"secret".as_slice().into())), ao_keys: vec![key()], ..plain() };
    let text = format!("{peer:?}");
    assert!(text.contains("AoKey(1 / 2, HmacSha1") && !text.contains("secret") && !text.contains("115, 101"), "{text}");
}

#[test]
fn session_is_back_at_once_after_a_change_that_resets_it() {
    let mut pair = up(|_, _| {});
    set(&mut pair, PeerConfig { hold_time: HoldTime::new(30).expect("valid"), ..plain() });
    assert_eq!((pair.status(0).established_count, pair.status(0).state), (2, State::Established));
}

/// How often an AS_PATH of these numbers was sent, four octets each.
fn paths(pair: &Pair, numbers: &[u32]) -> usize {
    let count = u8::try_from(numbers.len()).expect("short");
    let mut attribute = vec![0x40, 2, 2 + 4 * count, 2, count];
    attribute.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    pair.ends[0].sent.windows(attribute.len()).filter(|w| *w == attribute).count()
}

#[test]
fn as_override_shows_our_own_as_behind_it_and_takes_effect_in_the_running_session() {
    let mut pair = up(|_, _| {});
    set(&mut pair, PeerConfig { own_as: Some(asn(4_200_000_000)), ..plain() });
    assert_eq!(paths(&pair, &[64601, 4_200_000_000]), 1, "all routes are said again in one UPDATE");
    assert_eq!(pair.status(1).counters.prefixes_received, 6);
    pair.ends[0].sent.clear();
    set(&mut pair, plain());
    assert_eq!(paths(&pair, &[64601]), 1);
    assert_eq!(pair.status(0).established_count, 1);
}

#[test]
fn prepended_override_comes_before_our_own_as() {
    let mut pair = up(|n, peer| peer.own_as = (n == 0).then(|| asn(65001)));
    let attributes = Arc::new(Attributes { prepend: 2, ..Attributes::default() });
    let routes = Routes::from_iter([Route { prefix: "192.0.2.1/32".parse().expect("valid"), attributes }]);
    let now = pair.now;
    pair.ends[0].speaker.set_exports(now, [(PeerId("p".into()), routes)].into());
    pair.pass(SECOND);
    assert_eq!(paths(&pair, &[64601, 64601, 64601, 65001]), 1);
}

fn told(pair: &Pair) -> Vec<String> {
    pair.status(0).advertised.iter().map(|(prefix, _)| prefix.to_string()).collect()
}

#[test]
fn budget_keeps_the_first_routes_and_says_which_are_withheld() {
    let mut pair = up(|n, peer| peer.prefix_budget = (n == 0).then_some(2));
    assert_eq!(told(&pair), ["192.0.2.1/32", "192.0.2.2/32"]);
    let withheld: Vec<_> = pair.status(0).withheld.iter().map(|(prefix, _)| prefix.to_string()).collect();
    assert_eq!(withheld, ["192.0.2.3/32"]);
    assert!(pair.status(0).last_error.expect("told").starts_with("1 routes are not sent: the prefix budget"));
    assert_eq!(pair.status(1).counters.prefixes_received, 2);
    set(&mut pair, PeerConfig { prefix_budget: Some(3), ..plain() });
    assert_eq!((told(&pair).len(), pair.status(0).withheld.len()), (3, 0));
    set(&mut pair, PeerConfig { prefix_budget: Some(1), ..plain() });
    assert_eq!(told(&pair), ["192.0.2.1/32"]);
    set(&mut pair, PeerConfig { prefix_budget: Some(0), ..plain() });
    assert_eq!((told(&pair).len(), pair.status(0).withheld.len()), (0, 3));
    set(&mut pair, plain());
    assert_eq!(told(&pair).len(), 3);
    assert_eq!((pair.status(0).established_count, pair.status(1).counters.prefixes_received), (1, 2 + 1 + 3));
}

#[test]
fn maximum_that_comes_late_counts_what_came_before() {
    let mut pair = up(|_, _| {});
    let limit = |limit| Some(MaximumPrefixes { limit, warning_only: false });
    let router = PeerConfig { passive: true, maximum_prefixes: limit(2), ..config([10, 0, 0, 1], 64500) };
    let now = pair.now;
    pair.ends[1].speaker.set_peers(now, [(PeerId("p".into()), router)].into());
    pair.pass(Duration::ZERO);
    assert_eq!(pair.status(1).counters.refreshes_sent, 1);
    assert!(pair.status(1).last_error.expect("told").contains("more than 2 prefixes"));
}

#[test]
fn route_for_customers_only_is_not_told_to_a_provider() {
    let marked = Arc::new(Attributes { only_to_customer: Some(asn(65001)), ..Attributes::default() });
    let routes = [("192.0.2.1/32", Arc::default()), ("192.0.2.2/32", marked)];
    let routes = routes.map(|(p, attributes)| Route { prefix: p.parse().expect("valid"), attributes });
    let exports: Exports = [(PeerId("p".into()), routes.into_iter().collect())].into();
    for (role, expected) in [(Role::Customer, 1), (Role::Peer, 1), (Role::RouteServerClient, 1), (Role::Provider, 2)] {
        let mut pair = up(|n, peer| peer.role = (n == 0).then_some(role));
        let now = pair.now;
        pair.ends[0].speaker.set_exports(now, exports.clone());
        pair.pass(SECOND);
        assert_eq!(told(&pair).len(), expected, "{role}");
        assert_eq!(pair.status(0).last_error, None, "{role}");
    }
}

#[test]
fn route_through_our_own_as_is_refused_and_a_providers_route_is_marked() {
    let mut pair = Pair::between([false, true], |n, peer| {
        peer.passive = n == 1;
        (peer.own_as, peer.role) = [(Some(asn(65001)), None), (None, Some(Role::Customer))][n];
    });
    pair.export(0, &["192.0.2.1/32"]);
    pair.pass(SECOND);
    let marks = |pair: &mut Pair| -> Vec<Option<Asn>> {
        let received = std::mem::take(&mut pair.ends[1].received).into_iter();
        received
            .filter_map(|r| match r {
                Received::Announce { route, .. } => Some(route.attributes.only_to_customer),
                _ => None,
            })
            .collect()
    };
    assert_eq!(marks(&mut pair), [Some(asn(64601))]);
    let peer = PeerConfig { own_as: Some(asn(64500)), ..plain() };
    set(&mut pair, peer);
    assert_eq!(marks(&mut pair), [], "AS 64500 is the router's");
    assert_eq!(pair.status(1).counters.prefixes_received, 2);
}
