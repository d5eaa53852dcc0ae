use std::{num::NonZeroU32, sync::Arc, time::Duration};

use ironcast_bgp::bfd::{Diag, Session as Machine, Status};

use super::*;
use crate::announce::tests::peer;

fn profile() -> BfdProfile {
    BfdProfile {
        name: "fast".into(),
        receive: Duration::from_millis(20),
        transmit: Duration::from_millis(10),
        detect_mult: 5,
        echo: None,
        echo_receive: None,
        auth: None,
        passive: true,
        minimum_ttl: None,
    }
}

/// The only session of a peer that is as `change` makes it, on a host that is on 198.51.100.0/24.
fn of_peer(change: impl FnOnce(&mut Peer)) -> Option<Config> {
    let mut peer = peer("tor");
    peer.bfd = Some(profile());
    change(&mut peer);
    let peers = BTreeMap::from([(
        policy::peer_id("tor"),
        policy::peer_config(&peer, &Default::default()).expect("nothing is missing"),
    )]);
    let desired = Desired { peers: [("tor".into(), peer)].into(), ..Desired::default() };
    let link_to = |address: IpAddr| {
        let net: ipnet::IpNet = "198.51.100.0/24".parse().expect("a network");
        net.contains(&address).then(|| ("eth0".into(), [198, 51, 100, 1].into()))
    };
    sessions(&desired, &peers, link_to).remove(&policy::peer_id("tor"))
}

#[test]
fn profile_becomes_parameters_and_a_peer_without_one_has_no_session() {
    let config = of_peer(|_| {}).expect("it has a profile");
    let params = config.params;
    assert_eq!((params.desired_min_tx.micros(), params.required_min_rx.micros()), (10_000, 20_000));
    assert_eq!((params.detect_mult.value().get(), params.passive, params.echo), (5, true, None));
    let endpoint = Endpoint { peer: [198, 51, 100, 254].into(), local: None, interface: None, path: Path::SingleHop };
    assert_eq!(config.endpoint, endpoint);
    assert_eq!(of_peer(|peer| peer.bfd = None), None);
}

#[test]
fn distance_of_the_session_is_that_of_the_peer() {
    let path = |change: fn(&mut Peer)| of_peer(change).expect("it has a profile").endpoint.path;
    let far = |minimum_ttl| Path::MultiHop { minimum_ttl };
    assert_eq!(path(|peer| peer.ttl_security = Some(1)), Path::SingleHop);
    assert_eq!(path(|peer| peer.ttl_security = Some(3)), far(254));
    assert_eq!(path(|peer| peer.multihop = Some(5)), far(254));
    let lenient = |peer: &mut Peer| {
        peer.multihop = Some(5);
        peer.bfd.iter_mut().for_each(|bfd| bfd.minimum_ttl = Some(60));
    };
    assert_eq!(path(lenient), far(60));
    let internal = |peer: &mut Peer| peer.peer_as = ironcast_bgp::speaker::PeerAs::Internal;
    assert_eq!(path(internal), Path::SingleHop, "on a network of ours");
    let elsewhere = |peer: &mut Peer| {
        peer.peer_as = ironcast_bgp::speaker::PeerAs::Internal;
        peer.address = Some([203, 0, 113, 1].into());
    };
    assert_eq!(path(elsewhere), far(254));
}

#[test]
fn echo_is_told_its_link_and_its_source() {
    let echo = |peer: &mut Peer| peer.bfd.iter_mut().for_each(|bfd| bfd.echo = Some(Duration::from_millis(50)));
    let endpoint = of_peer(echo).expect("it has a profile").endpoint;
    assert_eq!((endpoint.interface.as_deref(), endpoint.local), (Some("eth0"), Some([198, 51, 100, 1].into())));
}

/// A published session as the driver would show it.
fn published(discr: u32, change: impl FnOnce(&mut Status)) -> Sessions {
    let discr = Discriminator(NonZeroU32::new(discr).expect("not 0"));
    let params = Params::new(Interval::SLOW, DetectMult::new(3).expect("valid"));
    let mut status = Machine::new(Instant::now(), discr, params, 1).status();
    change(&mut status);
    let session = Session { status, problem: None, counters: Arc::default() };
    Arc::new([(policy::peer_id("tor"), session)].into())
}

#[test]
fn only_a_path_that_was_up_is_lost_and_each_loss_is_told_once() {
    let tor = || policy::peer_id("tor");
    let mut known = Known::default();
    let up = |failures| move |status: &mut Status| (status.state, status.failures) = (State::Up, failures);
    assert_eq!(known.news(&published(7, |_| {})), [], "never up");
    assert_eq!(known.news(&published(7, up(0))), [(tor(), true)]);
    assert_eq!(known.news(&published(7, up(0))), []);
    let orderly = |status: &mut Status| status.diag = Diag::NEIGHBOR_SIGNALED_DOWN;
    assert_eq!(known.news(&published(7, orderly)), [], "the router switched it off");
    assert_eq!(known.news(&published(7, up(0))), [(tor(), true)]);
    assert_eq!(known.news(&published(7, |status| status.failures = 1)), [(tor(), false)]);
    assert_eq!(known.news(&published(7, |status| status.failures = 1)), []);
    assert_eq!(known.news(&published(7, up(2))), [(tor(), false), (tor(), true)], "lost and back between two looks");
    assert_eq!(known.news(&published(8, up(0))), [(tor(), true)], "another session begins anew");
    assert_eq!(known.news(&published(8, up(1))), [(tor(), false), (tor(), true)]);
}

#[test]
fn state_shows_the_session_and_why_there_is_none() {
    let mut with = peer("tor");
    with.bfd = Some(profile());
    let now = Instant::now();
    assert_eq!(View::default().state(&peer("tor"), now), None);
    let problem = Some("BFD cannot be started: no".to_owned());
    let view = View { problem: problem.clone(), ..View::default() };
    let state = view.state(&with, now).expect("it has a profile");
    assert_eq!((state.profile.as_str(), state.state.as_str(), state.problem), ("fast", "down", problem));
    let failed = |status: &mut Status| (status.failures, status.diag) = (3, Diag::DETECTION_TIME_EXPIRED);
    let view = View { sessions: published(7, failed), ..View::default() };
    let state = view.state(&with, now).expect("it has a profile");
    assert_eq!((state.failures, state.diagnostic.as_deref()), (3, Some("control detection time expired")));
}
