//! What a peer is told, and what its status says of that.

use std::{sync::Arc, time::Instant};

use super::{Connection, ConnectionId, Peer, Shared};
use crate::{
    rib::{Change, Encoding, Rendered, Routes},
    session::Session,
    speaker::{Role, State},
    wire::Families,
};

/// The Adj-RIB-Out of a peer.
#[derive(Debug, Default)]
pub(super) struct AdjRibOut {
    /// What it shall know by the caller's will; `None` before the caller has said anything, when even an End-of-RIB would be wrong:
    /// a router that keeps our routes over a restart would drop them.
    pub(super) wanted: Option<Routes>,
    /// The same within the prefix budget.
    target: Option<Routes>,
    /// What [`AdjRibOut::target`] was made of.
    limited: Option<(Routes, Option<u32>)>,
    /// What it was told in this session.
    pub(super) sent: Option<Routes>,
    /// What it will have been told when the change under way is written.
    sending: Option<(Routes, Arc<Rendered>)>,
    /// Families that it asked to hear again.
    pub(super) refresh: Families,
}

impl AdjRibOut {
    /// The session ended: whatever was told is told again.
    pub(super) fn forget(&mut self) {
        (self.sent, self.sending, self.refresh) = (None, None, Families::NONE);
    }

    fn change(&mut self, marked: bool) -> Option<Change> {
        let to = self.target.clone()?;
        let from = self.sent.clone();
        let told = from.as_ref().is_some_and(|from| from.is(&to));
        if self.sending.is_some() || told && self.refresh.is_empty() {
            return None;
        }
        let asked = std::mem::take(&mut self.refresh);
        // RFC 7313 §4: nothing is marked as a refresh before the first End-of-RIB; all of it is sent anyway.
        let refresh = if from.is_some() { asked } else { Families::NONE };
        Some(Change { from, to, refresh, marked })
    }
}

pub(super) fn encoding(session: &Session) -> Option<Encoding> {
    let (negotiated, endpoint) = (session.negotiated()?, session.endpoint());
    Some(Encoding {
        local_as: session.local_as(),
        own_as: session.own_as(),
        internal: negotiated.internal,
        four_octet: negotiated.four_octet,
        families: negotiated.families,
        next_hop4: endpoint.next_hop4,
        next_hop6: endpoint.next_hop6,
        link_local: endpoint.link_local,
        extended_next_hop: negotiated.extended_next_hop,
        add_path: negotiated.add_path_send,
        only_to_customer: negotiated.role.is_some_and(Role::marks),
        keeps_marked: negotiated.role.is_some_and(Role::keeps_marked),
        limit: negotiated.limit(),
    })
}

impl Peer {
    /// Keeps the wanted routes within the budget: the first in the order of the prefixes. The caller counts before it
    /// announces; this is the last guard of a session that one route too many would end.
    pub(super) fn apply_budget(&mut self) {
        let Some(wanted) = &self.adj.wanted else { return };
        let budget = self.config.prefix_budget;
        let done = self.adj.limited.as_ref().is_some_and(|(of, b)| of.is(wanted) && *b == budget);
        if done {
            return;
        }
        self.adj.limited = Some((wanted.clone(), budget));
        let Some(most) = budget.map(|budget| budget as usize).filter(|most| *most < wanted.len()) else {
            (self.adj.target, self.status.withheld) = (Some(wanted.clone()), Routes::default());
            return;
        };
        let (first, rest) = wanted.split_at(most);
        (self.adj.target, self.status.withheld) = (Some(first), rest);
        let (count, budget) = (self.status.withheld.len(), budget.unwrap_or_default());
        self.status.last_error = Some(format!(
            "{count} routes are not sent: the prefix budget of this peer is {budget}; raise it here and the limit there, \
             or announce less"
        ));
    }

    /// Queues the difference between what the peer was told and what it shall know.
    pub(super) fn advertise(&mut self, shared: &mut Shared) {
        let sessions = self.connections.iter_mut().filter_map(Connection::session);
        let Some(session) = sessions.into_iter().find(|s| s.state() == State::Established) else { return };
        let Some(encoding) = encoding(session) else { return };
        let marked = session.negotiated().is_some_and(|n| n.enhanced_refresh);
        let Some(change) = self.adj.change(marked) else { return };
        let rendered = shared.renders.render(&change, &encoding);
        session.send(rendered.clone());
        self.adj.sending = Some((change.to, rendered));
    }

    /// The change under way is written.
    pub(super) fn on_drained(&mut self, now: Instant, shared: &mut Shared) {
        if let Some((told, rendered)) = self.adj.sending.take() {
            self.monitor_sent(now, &rendered, shared);
            self.status.advertised = rendered.advertised.clone();
            self.adj.sent = Some(told);
            self.tell_unsent(rendered.unsent);
        }
    }

    fn tell_unsent(&mut self, families: Families) {
        for family in families.iter() {
            let local = self.status.local_addr.map(|a| a.to_string()).unwrap_or_default();
            self.status.last_error = Some(match self.status.families.contains(&family) {
                true => format!(
                    "{family} routes are not sent: the interface of {local} has no address of that family to be their \
                     next hop; add one, or a peer over that family"
                ),
                false => format!("{family} routes are not sent: the router does not offer that family to this node"),
            });
        }
    }

    pub(super) fn on_established(&mut self, now: Instant, id: ConnectionId, shared: &mut Shared) {
        self.end_rivals(id, shared);
        self.retry.at = None;
        self.status.established_count += 1;
        self.adj.forget();
        let Some(session) = self.connections.iter_mut().find(|c| c.id == id).and_then(Connection::session) else {
            return;
        };
        let Some(negotiated) = session.negotiated().cloned() else { return };
        self.status.local_addr = Some(session.local_addr());
        self.status.remote_as = Some(negotiated.remote_as);
        self.status.remote_id = Some(negotiated.remote_id);
        self.status.hold_time = Some(negotiated.hold_time);
        self.status.families = negotiated.families.iter().collect();
        self.status.capabilities = negotiated.words();
        tracing::info!(peer = %self.id, asn = %negotiated.remote_as, "session established");
        self.monitor_up(now, id, shared);
        self.on_back(now, &negotiated, shared);
        self.advertise(shared);
    }

    /// What holds only while a session is up.
    pub(super) fn clear_status(&mut self) {
        self.status.local_addr = None;
        self.status.hold_time = None;
        self.status.families.clear();
        self.status.capabilities.clear();
        self.status.advertised = Routes::default();
    }

    /// Brings state, time and counters up to date.
    pub(super) fn refresh_status(&mut self, now: Instant, shared: &mut Shared) {
        for connection in &mut self.connections {
            if let Some(session) = connection.session() {
                self.status.counters.add(&session.take_counters());
            }
        }
        let furthest = self.connections.iter().map(Connection::state).max();
        let state = furthest.unwrap_or(if self.stopped { State::Idle } else { State::Active });
        if state != self.status.state {
            self.status.state = state;
            self.status.since = now;
        }
        shared.changed = true;
    }
}
