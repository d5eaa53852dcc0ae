//! What BFD says of the path, and what the speaker does about it.

use super::*;

#[test]
fn lost_path_ends_the_session_at_once_and_a_path_that_is_back_is_dialled_at_once() {
    let mut pair = Pair::new(|n, peer| {
        peer.passive = n == 1;
        peer.graceful_restart = Some(60 * SECOND);
    });
    pair.pass(SECOND);
    let tor = PeerId("p".into());
    pair.ends[0].speaker.path(pair.now, &tor, false);
    pair.settle();
    assert!(pair.status(0).last_error.is_some_and(|e| e.contains("BFD")));
    let theirs = pair.status(1).last_error.expect("it was told");
    assert!(theirs.contains("BFD Down") && theirs.contains("Hard Reset"), "no route is kept: {theirs}");

    pair.cut = true;
    pair.pass(20 * SECOND);
    assert_ne!(pair.status(0).state, State::Established);
    pair.ends[0].speaker.path(pair.now, &tor, false);
    pair.cut = false;
    pair.ends[0].speaker.path(pair.now, &tor, true);
    pair.settle();
    assert_eq!([pair.status(0).state, pair.status(1).state], [State::Established; 2]);
    let counts = pair.status(0).established_count;
    pair.ends[0].speaker.path(pair.now, &tor, true);
    pair.pass(SECOND);
    assert_eq!(pair.status(0).established_count, counts, "nothing is dialled beside a session");
}

#[test]
fn attempt_that_went_into_the_gap_is_given_up_when_the_path_is_back() {
    let mut pair = Pair::new(|n, peer| peer.passive = n == 1);
    pair.outputs(0);
    let [first] = pair.ends[0].dialled[..] else { panic!("one is dialled") };
    pair.ends[0].dialled.clear();
    pair.ends[0].speaker.path(pair.now, &PeerId("p".into()), true);
    pair.outputs(0);
    let [second] = pair.ends[0].dialled[..] else { panic!("one is dialled anew") };
    assert_ne!(first, second);
    pair.settle();
    assert_eq!(pair.status(0).state, State::Established);
}
