//! Problems that only the whole shows, beside those that the source found in single objects.

use super::{Settings, nodes::EXCLUDE_LABEL};
use crate::types::{Claim, ObjectRef, Peer, Problem, Severity, Snapshot};

/// The snapshot's problems and ours, sorted.
pub(super) fn problems(
    snapshot: &Snapshot,
    settings: &Settings,
    peers: &[&Peer],
    not_found: Vec<Problem>,
) -> Vec<Problem> {
    let mut problems = snapshot.problems.clone();
    problems.extend(not_found);
    problems.extend(everybody_excluded(snapshot, settings));
    problems.extend(snapshot.claims.values().filter_map(held_up));
    problems.extend(peers.iter().filter_map(|peer| missing_secret(snapshot, peer)));
    problems.sort();
    problems.dedup();
    problems
}

fn everybody_excluded(snapshot: &Snapshot, settings: &Settings) -> Option<Problem> {
    let mut nodes = snapshot.nodes.values();
    let excluded = !snapshot.nodes.is_empty() && nodes.all(|node| node.labels.contains_key(EXCLUDE_LABEL));
    (excluded && !settings.ignore_exclude_label).then(|| Problem {
        object: ObjectRef::new("Node", "", &settings.node),
        field: "metadata.labels".into(),
        message: format!("every node has the label {EXCLUDE_LABEL}, so no node announces anything"),
        hint: "remove the label from the nodes that should announce, or start with --ignore-exclude-label".into(),
        severity: Severity::Warning,
        file: None,
    })
}

/// What a person must do for a claim, told to whom the address is for.
fn held_up(claim: &Claim) -> Option<Problem> {
    let problem = claim.problem.as_ref()?;
    let object = match &claim.spec.service {
        Some(service) => ObjectRef::new("Service", &service.namespace, &service.name),
        None => ObjectRef::new("IPAddressPool", "", &claim.spec.pool),
    };
    let network = claim.state.network().map(|network| format!(" {network}")).unwrap_or_default();
    Some(Problem {
        object,
        field: String::new(),
        message: format!("AddressClaim {}{network}: {}: {}", claim.id, problem.reason, problem.message),
        hint: String::new(),
        severity: Severity::Warning,
        file: None,
    })
}

fn missing_secret(snapshot: &Snapshot, peer: &Peer) -> Option<Problem> {
    let secret = peer.missing_secret.as_ref()?;
    let object = ObjectRef::new("BGPPeer", "", &peer.name);
    let is_same = |problem: &&Problem| problem.object.kind == object.kind && problem.object.name == object.name;
    let known = snapshot
        .problems
        .iter()
        .filter(is_same)
        .any(|problem| ["spec.password", "spec.tcpAO"].iter().any(|field| problem.field.starts_with(field)));
    (!known).then(|| Problem {
        object,
        field: "spec.passwordSecret".into(),
        message: format!("the Secret {secret:?} is not there or has no password; the session waits for it"),
        hint: "create it with type kubernetes.io/basic-auth and the key password".into(),
        severity: Severity::Error,
        file: None,
    })
}
