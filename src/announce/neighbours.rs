//! Peers that are known by an interface alone: which of the routers heard there is the peer.

use std::{collections::BTreeMap, net::Ipv6Addr};

use ironcast_bgp::{
    net::unnumbered::Links,
    speaker::{PeerId, PeerStatus, State},
};

use super::policy;
use crate::{plan::Desired, types::Peer};

/// The link-local address of the peer at the other end, by interface.
pub type Neighbours = BTreeMap<String, Ipv6Addr>;

/// The interface of a peer that is known by nothing else.
pub fn interface(peer: &Peer) -> Option<&str> {
    peer.interface.as_deref().filter(|_| peer.address.is_none())
}

/// Who is the peer on each link. Who was heard last is, since a router that was replaced is never heard again; but
/// nobody takes the place of one whose session is up, and silence alone changes nothing.
pub(super) fn choose(
    desired: &Desired,
    before: &Neighbours,
    status: &BTreeMap<PeerId, PeerStatus>,
    links: &Links,
) -> Neighbours {
    let of_peer = |peer: &Peer| {
        let interface = interface(peer)?;
        let current = before.get(interface);
        let up = status.get(&policy::peer_id(&peer.name)).is_some_and(|s| s.state == State::Established);
        let newest = links.get(interface).and_then(|link| link.heard.first());
        let chosen = if up { current.or(newest) } else { newest.or(current) };
        Some((interface.to_owned(), *chosen?))
    };
    desired.peers.values().filter_map(of_peer).collect()
}

/// What is wrong on the link of a peer whose session is not up; `None` where nothing is, or nothing is known yet.
pub(super) fn trouble(peer: &Peer, links: &Links) -> Option<String> {
    let interface = interface(peer)?;
    let link = links.get(interface)?;
    match &link.heard[..] {
        _ if link.problem.is_some() => link.problem.clone(),
        [_, _, ..] => {
            let heard: Vec<String> = link.heard.iter().map(ToString::to_string).collect();
            Some(format!(
                "{} are heard on {interface}, and an unnumbered peer is the only router of its link; set peerAddress to \
                 the one that is meant, beside interface",
                heard.join(" and ")
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use ironcast_bgp::net::unnumbered::Neighbours as Heard;

    use super::*;
    use crate::announce::{AnnounceState, Ready, tests::peer};

    fn router(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, n)
    }

    fn links(heard: &[u16], problem: Option<&str>) -> Links {
        let heard = heard.iter().map(|n| router(*n)).collect();
        Arc::new([("eth0".into(), Heard { heard, problem: problem.map(Into::into) })].into())
    }

    fn desired() -> Desired {
        let mut unnumbered = peer("tor");
        (unnumbered.address, unnumbered.interface) = (None, Some("eth0".into()));
        Desired { peers: [("tor".into(), unnumbered)].into(), ..Desired::default() }
    }

    fn status(state: State) -> BTreeMap<PeerId, PeerStatus> {
        let mut status = crate::announce::tests::status();
        status.state = state;
        [(policy::peer_id("tor"), status)].into()
    }

    #[test]
    fn newest_router_is_the_peer_unless_the_session_with_another_is_up() {
        let chosen = |before: &[u16], state, heard: &[u16]| {
            let before = before.iter().map(|n| ("eth0".to_owned(), router(*n))).collect();
            choose(&desired(), &before, &status(state), &links(heard, None)).get("eth0").copied()
        };
        assert_eq!(chosen(&[], State::Idle, &[]), None);
        assert_eq!(chosen(&[], State::Idle, &[1]), Some(router(1)));
        assert_eq!(chosen(&[1], State::Established, &[2, 1]), Some(router(1)));
        assert_eq!(chosen(&[1], State::Active, &[2, 1]), Some(router(2)), "the router was replaced");
        assert_eq!(chosen(&[1], State::Active, &[]), Some(router(1)), "silence changes nothing");
    }

    #[test]
    fn peer_waits_for_its_router_and_then_has_its_address_both_families_and_ipv6_next_hops() {
        let mut state = AnnounceState::default();
        let orders = state.turn(Arc::new(desired()), &Ready::All, &links(&[], None));
        assert_eq!(orders.peers, None);
        let session = &state.sessions(Instant::now())[0];
        assert!(session.last_error.as_ref().is_some_and(|e| e.contains("eth0") && e.contains("advertisement")));

        state.turn(Arc::new(desired()), &Ready::All, &links(&[], Some("interface eth0: no such device")));
        let session = &state.sessions(Instant::now())[0];
        assert_eq!(session.last_error.as_deref(), Some("interface eth0: no such device"));

        let orders = state.turn(Arc::new(desired()), &Ready::All, &links(&[1], None));
        let config = &orders.peers.expect("one peer")[&policy::peer_id("tor")];
        assert_eq!((config.address, config.interface.as_deref()), (router(1).into(), Some("eth0")));
        assert_eq!((config.families.len(), config.extended_next_hop), (2, true));
        let session = &state.sessions(Instant::now())[0];
        assert_eq!(session.last_error, None);

        state.turn(Arc::new(desired()), &Ready::All, &links(&[2, 1], None));
        let session = &state.sessions(Instant::now())[0];
        assert!(session.last_error.as_ref().is_some_and(|e| e.contains("fe80::2 and fe80::1")), "{session:?}");
    }
}
