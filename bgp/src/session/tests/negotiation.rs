//! What comes of two OPENs, and what a negotiated role does to routes.

use super::*;
use crate::speaker::{AddPath, Role};

/// What comes of two ends.
fn negotiated(ours: Local, theirs: &Local) -> Arc<Negotiated> {
    let now = Instant::now();
    let mut session = session(now, ours);
    session.receive(now, &octets(|o| theirs.open().encode(o)));
    session.negotiated().expect("they fit").clone()
}

#[test]
fn ipv6_next_hops_for_ipv4_need_both_ends_and_the_family() {
    let with = |on, families: &'static [Family]| {
        move |c: &mut PeerConfig| {
            c.extended_next_hop = on;
            c.families = families.iter().copied().collect();
        }
    };
    let (both, v6) = (&Families::EVERY[..], &[Family::Ipv6Unicast][..]);
    let agreed = |a, b, fa, fb| negotiated(ours(with(a, fa)), &theirs(with(b, fb))).extended_next_hop;
    assert!(agreed(true, true, both, both));
    assert!(!agreed(true, false, both, both) && !agreed(false, true, both, both));
    assert!(!agreed(true, true, v6, both) && !agreed(true, true, both, v6));
    assert!(PeerConfig::new("fe80::1".parse().expect("valid"), ours(|_| {}).asn(), PeerAs::External).extended_next_hop);
}

#[test]
fn several_paths_go_where_one_end_sends_and_the_other_receives() {
    let with = |send, receive| move |c: &mut PeerConfig| c.add_path = AddPath { send, receive };
    let every = Families::from_iter(Families::EVERY);
    for (us, them) in [((true, false), (false, true)), ((true, true), (true, true)), ((true, false), (true, false))] {
        let agreed = negotiated(ours(with(us.0, us.1)), &theirs(with(them.0, them.1)));
        let expected = |on| if on { every } else { Families::NONE };
        assert_eq!(agreed.add_path_send, expected(us.0 && them.1), "{us:?} {them:?}");
        assert_eq!(agreed.add_path_receive, expected(us.1 && them.0), "{us:?} {them:?}");
        assert_eq!(agreed.context([10, 0, 0, 1].into()).add_path, agreed.add_path_receive);
    }
    let v6 = negotiated(
        ours(with(true, true)),
        &theirs(|c| {
            with(true, true)(c);
            c.families = [Family::Ipv6Unicast].into();
        }),
    );
    assert_eq!(v6.add_path_send, [Family::Ipv6Unicast].into_iter().collect());
}

/// The NOTIFICATION that our end sends to the other's OPEN, in our operator's words and in the other's.
fn refusal(ours: Local, theirs: Local) -> Option<(String, String)> {
    let now = Instant::now();
    let mut here = session(now, ours);
    here.receive(now, &octets(|o| theirs.open().encode(o)));
    let Some(Event::Ended(end)) = here.poll() else { return None };
    let last = here.farewell().expect("a NOTIFICATION");
    let mut there = session(now, theirs);
    there.receive(now, &last);
    let Some(Event::Ended(refused)) = there.poll() else { panic!("it reads that it is refused") };
    Some((end.words().expect("a fault"), refused.words().expect("a fault")))
}

#[test]
fn roles_that_do_not_fit_end_the_session_with_the_words_of_both_ends() {
    let role = |role, strict| move |c: &mut PeerConfig| (c.role, c.role_strict) = (role, strict);
    let told = |us, strict, them| refusal(ours(role(us, strict)), theirs(role(them, false)));
    let (customer, provider) = (Some(Role::Customer), Some(Role::Provider));
    for (us, strict, them) in [(customer, true, provider), (customer, false, None), (None, true, provider)] {
        assert_eq!(told(us, strict, them), None, "{us:?} {them:?}");
    }
    let (here, there) = told(customer, false, Some(Role::Peer)).expect("refused");
    assert!(here.contains("Role Mismatch") && here.contains("we are customer") && here.contains("says peer"), "{here}");
    assert!(there.contains("Role Mismatch") && there.contains("we say that we are peer"), "{there}");
    let (here, there) = told(customer, true, None).expect("refused");
    assert!(here.contains("it says nothing of roles") && there.contains("set a role here"), "{here} {there}");
    let internal = |c: &mut PeerConfig| (c.peer_as, c.role) = (PeerAs::Internal, customer);
    assert_eq!(ours(internal).open().capabilities.role, None, "within an AS nobody has a role");
}

#[test]
fn second_role_that_differs_from_the_first_is_refused() {
    let now = Instant::now();
    let mut session = session(now, ours(|c| c.role = Some(Role::Customer)));
    let mut open = octets(|o| theirs(|c| c.role = Some(Role::Provider)).open().encode(o));
    open.extend_from_slice(&[2, 3, 9, 1, 4]);
    open[28] += 5;
    message::finish(&mut open, 0);
    session.receive(now, &open);
    let Some(Event::Ended(end)) = session.poll() else { panic!("refused") };
    assert!(end.words().expect("a fault").contains("several roles at once"));
}

#[test]
fn what_the_other_end_refuses_is_told_with_what_we_said() {
    let wrong_as = |c: &mut PeerConfig| c.peer_as = PeerAs::Exactly(Asn::new(64999).expect("valid"));
    let (here, there) = refusal(ours(wrong_as), theirs(|_| {})).expect("refused");
    assert!(here.contains("shows AS 64500, but peerASN is 64999"), "{here}");
    assert!(there.contains("Bad Peer AS; we show AS 64500"), "{there}");
    let only = |family| move |c: &mut PeerConfig| c.families = [family].into();
    let families = (only(Family::Ipv4Unicast), only(Family::Ipv6Unicast));
    let (here, there) = refusal(ours(families.0), theirs(families.1)).expect("refused");
    assert!(here.contains("we offer ipv4-unicast, it offers ipv6-unicast"), "{here}");
    assert!(there.contains("we offer ipv6-unicast"), "{there}");
}

/// An UPDATE of 192.0.2.1/32 from AS 64500, with an attribute more.
fn update_with(attribute: &[u8]) -> Vec<u8> {
    let mut list = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xFB, 0xF4, 0x40, 3, 4, 10, 0, 0, 2];
    list.extend_from_slice(attribute);
    octets(|out| {
        _ = update::encode_announce(
            |out: &mut Vec<u8>| out.extend_from_slice(&list),
            &["192.0.2.1/32".parse::<ipnet::Ipv4Net>().expect("valid")],
            message::MAX,
            out,
        )
    })
}

#[test]
fn leaked_route_is_refused_and_counted_and_takes_the_one_before_with_it() {
    let now = Instant::now();
    let ours = Local { deliver: true, ..ours(|c| c.role = Some(Role::Peer)) };
    let mut session = in_state(now, State::Established, ours);
    let otc = |asn: u32| [&[0xC0, 35, 4][..], &asn.to_be_bytes()].concat();
    session.receive(now, &update_with(&otc(64500)));
    assert!(matches!(session.poll(), Some(Event::Announce(_, 0))), "a peer's own route");
    session.receive(now, &update_with(&otc(64501)));
    assert!(matches!(session.poll(), Some(Event::Withdraw(_, 0))), "another's");
    let counters = session.take_counters();
    assert_eq!((counters.prefixes_received, counters.prefixes_leaked, counters.treated_as_withdraw), (2, 1, 0));
    assert_eq!(session.state(), State::Established);
}
