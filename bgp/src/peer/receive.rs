//! What a peer announces: bounded, handed on in the router role, and kept over the peer's restart there.

use std::{sync::Arc, time::Instant};

use super::{
    AdjRibIn, ConnectionId, End, Peer, Shared,
    adj_rib_in::{Change, Path, family_of},
};
use crate::{
    Family,
    rib::Route,
    session::Negotiated,
    speaker::Received,
    wire::{Families, notification::Notification},
};

impl Peer {
    pub(super) fn on_announce(&mut self, id: ConnectionId, route: Route, path: u32, shared: &mut Shared) {
        let family = family_of(&route.prefix);
        let maximum = self.config.maximum_prefixes;
        // In the daemon's role routes are only counted, so that what is beyond the limit need not be remembered.
        let most = maximum.filter(|m| !m.warning_only || !shared.deliver).map(|m| m.limit);
        let attributes = if shared.deliver { route.attributes.clone() } else { Arc::default() };
        let taken = self.adj_in.announce((route.prefix, path), attributes, most);
        if let Some(maximum) = maximum.filter(|m| !taken || self.adj_in.count(family) > m.limit) {
            self.on_too_many(id, family, maximum.limit, maximum.warning_only);
        }
        if taken && shared.deliver {
            shared.received(Received::Announce { peer: self.id.clone(), route, path });
        }
    }

    /// RFC 4486 §4: the session ends with the family and the limit, or the operator is told once a session.
    fn on_too_many(&mut self, id: ConnectionId, family: Family, limit: u32, warning_only: bool) {
        let words =
            format!("it announces more than {limit} prefixes of {family}; check maximumPrefixes and its export");
        if !warning_only {
            if let Some(session) = self.session_of(id) {
                session.refuse(Notification::maximum_prefixes(family, limit), words);
            }
        } else if !self.warned.contains(family) {
            self.warned.insert(family);
            tracing::warn!(peer = %self.id, %family, limit, "more prefixes than the limit");
            self.status.last_error = Some(format!("the router is warned of, not stopped: {words}"));
        }
    }

    pub(super) fn on_withdraw(&mut self, path: Path, shared: &mut Shared) {
        self.adj_in.withdraw(path);
        if shared.deliver {
            shared.received(Received::Withdraw { peer: self.id.clone(), prefix: path.0, path: path.1 });
        }
    }

    pub(super) fn on_end_of_rib(&mut self, family: Family, shared: &mut Shared) {
        let gone = self.adj_in.end_of_rib(family);
        self.tell(gone, shared);
        if shared.deliver {
            shared.received(Received::EndOfRib { peer: self.id.clone(), family });
        }
    }

    pub(super) fn on_refreshed(&mut self, family: Family, shared: &mut Shared) {
        let gone = self.adj_in.end_refresh(family);
        self.tell(gone, shared);
    }

    /// The peer is back, or new.
    pub(super) fn on_back(&mut self, now: Instant, negotiated: &Negotiated, shared: &mut Shared) {
        let gone = self.adj_in.back(now, negotiated);
        self.tell(gone, shared);
    }

    /// An Established session ended: whether its routes outlive it is the router role's business.
    pub(super) fn on_down(&mut self, now: Instant, end: &End, negotiated: Option<&Negotiated>, shared: &mut Shared) {
        self.warned = Families::NONE;
        let kept = negotiated.filter(|_| shared.deliver && end.graceful.is_some());
        let gone = match kept {
            Some(negotiated) => self.adj_in.away(now, negotiated),
            None => {
                self.adj_in.clear();
                Vec::new()
            }
        };
        if shared.deliver {
            shared.received(Received::Down { peer: self.id.clone(), graceful: end.graceful });
        }
        self.tell(gone, shared);
    }

    /// Stale routes whose time is over go.
    pub(super) fn expire(&mut self, now: Instant, shared: &mut Shared) {
        let changes = self.adj_in.expire(now);
        self.tell(changes, shared);
    }

    /// Nobody waits for the peer any more.
    pub(super) fn forget_stale(&mut self, shared: &mut Shared) {
        if !self.adj_in.is_empty() && shared.deliver && self.established().is_none() {
            shared.received(Received::Down { peer: self.id.clone(), graceful: None });
            self.adj_in = AdjRibIn::default();
        }
    }

    fn tell(&self, changes: Vec<Change>, shared: &mut Shared) {
        for change in changes.into_iter().filter(|_| shared.deliver) {
            let peer = self.id.clone();
            shared.outputs.push_back(super::Output::Received(match change {
                Change::Withdraw((prefix, path)) => Received::Withdraw { peer, prefix, path },
                Change::Announce(route, path) => Received::Announce { peer, route, path },
            }));
        }
    }
}
