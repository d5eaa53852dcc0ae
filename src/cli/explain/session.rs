//! What to do about a session that is not up, or a path that nobody watches.

use crate::{
    cli::status::is_up,
    types::{NodeState, SessionState},
};

pub(super) fn no_session(state: &NodeState) -> Vec<String> {
    if state.sessions.is_empty() {
        return vec!["no BGPPeer selects this node: create one, or widen its nodeSelectors".into()];
    }
    state.sessions.iter().filter_map(session_step).collect()
}

/// What to do about a session that is not up.
fn session_step(session: &SessionState) -> Option<String> {
    if is_up(session) {
        return path_step(session);
    }
    let SessionState { peer, address, state, local_asn, .. } = session;
    let cause = match &session.last_error {
        Some(error) => error.clone(),
        None => match state.as_str() {
            "OpenSent" | "OpenConfirm" => format!(
                "{address} took the connection but has not agreed: check that it has this node as neighbour, \
                 with AS {local_asn}"
            ),
            _ => format!(
                "no TCP connection with {address} yet: check the route there, a firewall on port 179, and that the \
                 router has this node as neighbour"
            ),
        },
    };
    Some(format!("session {peer} is {state}: {cause}"))
}

/// What to do about BFD that does not watch a session that is up.
fn path_step(session: &SessionState) -> Option<String> {
    let SessionState { peer, address, bfd, .. } = session;
    let bfd = bfd.as_ref().filter(|bfd| bfd.state != "up")?;
    let cause = match (&bfd.problem, bfd.remote_state.as_deref()) {
        (Some(problem), _) => problem.clone(),
        (None, Some("admin-down")) => format!("{address} has switched it off"),
        (None, _) => format!(
            "check that {address} runs BFD for this node, on one hop or several as BGPPeer {peer} says, and a \
             firewall on UDP port 3784 (one hop) or 4784 (several)"
        ),
    };
    Some(format!("BFD of session {peer} is {}, so a dead path is noticed by the hold time only: {cause}", bfd.state))
}
