//! This node's `BGPNodeStatus`: created when first needed, owned by the Node, so that it goes with it.

use k8s_openapi::{
    api::core::v1::Node,
    apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::Serialize;

use super::{WriteError, resources::whole_seconds, within};
use crate::{
    source::api::{BGPNodeStatus, BGPNodeStatusSpec, BGPNodeStatusStatus, Totals},
    types::{LeavingState, NodeState, Severity},
};

/// Entries of one list in the status. An object may have 1.5 MB, and `ironcast status` shows all of them.
pub const ENTRIES: usize = 500;
/// Problems that a condition names.
const SHOWN: usize = 3;
const ESTABLISHED: &str = "Established";

/// A node's state with its lists cut at [`ENTRIES`], but for problems, and how much they hold uncut.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt {
    /// The state.
    pub state: NodeState,
    /// How much there is.
    pub totals: Totals,
}

impl Excerpt {
    /// Whether a list holds less than there is.
    pub(super) fn is_cut(&self) -> bool {
        let Totals { services, routes, withheld, problems } = self.totals;
        [services, routes, withheld, problems].into_iter().any(|total| total > ENTRIES as i64)
    }
}

/// What was written last. After a write whose answer never came that is unknown, and whatever should be there is written
/// again, also where it is what was there before.
#[derive(Debug)]
pub(crate) struct Written<T>(Option<T>);

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Written<T> {
    /// Whether this is there for certain.
    pub(crate) fn is(&self, value: &T) -> bool {
        self.0.as_ref() == Some(value)
    }

    /// A write begins.
    pub(crate) fn begin(&mut self) {
        self.0 = None;
    }

    /// The write of this succeeded.
    pub(crate) fn done(&mut self, value: T) {
        self.0 = Some(value);
    }
}

/// What this node says of itself, and what it has said.
pub(super) struct NodeReport {
    api: Api<BGPNodeStatus>,
    nodes: Api<Node>,
    node: String,
    /// As JSON, which is smaller than what it is made of.
    written: Written<String>,
    /// Conditions as last written.
    conditions: Vec<Condition>,
    exists: bool,
}

impl NodeReport {
    pub(super) fn new(client: Client, namespace: &str, node: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self {
            api,
            nodes: Api::all(client),
            node: node.into(),
            written: Written::default(),
            conditions: Vec::new(),
            exists: false,
        }
    }

    /// The next write compares with the server.
    pub(super) fn forget(&mut self) {
        (self.written, self.exists) = (Written::default(), false);
    }

    /// Whether something was written.
    pub(super) async fn write(&mut self, excerpt: &Excerpt) -> Result<bool, WriteError> {
        let timeless = serde_json::to_string(&timeless(excerpt)).unwrap_or_default();
        if self.written.is(&timeless) {
            return Ok(false);
        }
        self.written.begin();
        if !self.exists {
            self.conditions = self.find_or_create().await?;
            self.exists = true;
        }
        let conditions = conditions(excerpt, &self.conditions);
        let patch = Patch::Merge(Body { status: status(excerpt.clone(), conditions.clone()) });
        match within(self.api.patch_status(&self.node, &PatchParams::default(), &patch)).await {
            Ok(_) => {}
            Err(error) => {
                self.exists = false;
                return Err(error);
            }
        }
        self.written.done(timeless);
        self.conditions = conditions;
        Ok(true)
    }

    /// The conditions that the object has.
    async fn find_or_create(&self) -> Result<Vec<Condition>, WriteError> {
        if let Some(object) = within(self.api.get_opt(&self.node)).await? {
            return Ok(object.status.map(|status| status.conditions).unwrap_or_default());
        }
        let owner = within(self.nodes.get_opt(&self.node)).await?.and_then(|node| node.metadata.uid);
        let owner = owner.map(|uid| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.node.clone(),
            uid,
            ..Default::default()
        });
        let object = BGPNodeStatus {
            metadata: ObjectMeta {
                name: Some(self.node.clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..Default::default()
            },
            spec: BGPNodeStatusSpec { node_name: self.node.clone() },
            status: None,
        };
        within(self.api.create(&PostParams::default(), &object)).await?;
        Ok(Vec::new())
    }
}

/// The body of a request.
#[derive(Debug, Serialize)]
struct Body {
    status: BGPNodeStatusStatus,
}

fn status(Excerpt { mut state, totals }: Excerpt, conditions: Vec<Condition>) -> BGPNodeStatusStatus {
    state.problems.truncate(ENTRIES);
    BGPNodeStatusStatus { state, totals: Some(totals), conditions }
}

/// The status without what changes by itself.
fn timeless(excerpt: &Excerpt) -> BGPNodeStatusStatus {
    let mut status = status(excerpt.clone(), Vec::new());
    for session in &mut status.state.sessions {
        session.since_seconds = 0;
        session.bfd.iter_mut().for_each(|bfd| bfd.since_seconds = 0);
    }
    status
}

/// Status, reason and message of a condition.
type Verdict = (bool, &'static str, String);

fn conditions(excerpt: &Excerpt, before: &[Condition]) -> Vec<Condition> {
    let all = [("Ready", ready(excerpt)), ("ConfigurationValid", valid(excerpt)), ("Drained", drained(excerpt))];
    let condition = |(kind, (status, reason, message)): (&str, Verdict)| {
        let status = if status { "True" } else { "False" };
        let former = before.iter().find(|c| c.type_ == kind && c.status == status);
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: None,
            last_transition_time: former
                .map_or_else(|| Time(whole_seconds(Timestamp::now())), |c| c.last_transition_time.clone()),
        }
    };
    all.into_iter().map(condition).collect()
}

/// `Ready`: the source is complete and every session is Established.
fn ready(excerpt: &Excerpt) -> Verdict {
    let state = &excerpt.state;
    let down: Vec<&str> = state.sessions.iter().filter(|s| s.state != ESTABLISHED).map(|s| s.peer.as_str()).collect();
    let (status, reason, mut message) = match (state.source.complete, down.is_empty(), state.sessions.is_empty()) {
        (false, ..) => (false, "SourceIncomplete", "the first complete list has not arrived".to_owned()),
        (_, _, true) => (false, "NoPeer", "no BGPPeer selects this node".to_owned()),
        (_, false, _) => (false, "SessionsDown", format!("not Established: {}", down.join(", "))),
        _ => (true, "SessionsEstablished", "every session is Established".to_owned()),
    };
    if excerpt.is_cut() {
        message.push_str(&format!("; lists are cut at {ENTRIES} entries, ironcast status shows all"));
    }
    (status, reason, message)
}

/// `ConfigurationValid`: nothing that this node was told is refused.
fn valid(excerpt: &Excerpt) -> Verdict {
    let refused = excerpt.state.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let words: Vec<String> = refused.map(ToString::to_string).collect();
    match words.len() {
        0 => (true, "Valid", "every object that this node uses is valid".to_owned()),
        n => {
            let more = if n > SHOWN { format!(" and {} more", n - SHOWN) } else { String::new() };
            (false, "Refused", format!("{}{more}", words[..n.min(SHOWN)].join("; ")))
        }
    }
}

/// `Drained`: this node was asked to leave and announces nothing any more.
fn drained(Excerpt { state, totals }: &Excerpt) -> Verdict {
    let announced = totals.routes;
    match state.leaving {
        None => (false, "Announcing", "nobody asked this node to leave".to_owned()),
        Some(LeavingState::GracefulShutdown) => {
            (false, "GracefulShutdown", format!("{announced} routes carry graceful-shutdown and are withdrawn next"))
        }
        Some(LeavingState::Withdrawing) => (
            false,
            "Withdrawing",
            format!("{announced} routes are left: no other node announces them, or they are under way"),
        ),
        Some(LeavingState::Drained) => (true, "Drained", "this node announces nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_a_write_without_an_answer_is_written_again() {
        let mut written = Written::default();
        assert!(!written.is(&1), "nothing is known at first");
        written.begin();
        written.done(1);
        assert!(written.is(&1));
        written.begin();
        assert!(!written.is(&1) && !written.is(&2), "either may be there");
    }
}
