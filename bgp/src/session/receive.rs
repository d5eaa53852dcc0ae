//! What a session does with each message, one function per state (RFC 4271 §8.2.2).

use std::{iter, net::IpAddr, sync::Arc, time::Instant};

use super::{Cause, Event, Session};
use crate::{
    Asn, ExtendedCommunity, LinkBandwidth, Origin,
    rib::{Attributes, Route},
    speaker::State,
    wire::{
        message::{self, Frame, Kind, Refresh},
        notification::{Notification, code},
        open, update,
    },
};

impl Session {
    /// Takes one message off the receive buffer and returns its length; `None` while none is complete, or when
    /// the session is over.
    pub(crate) fn receive(&mut self, now: Instant, buffer: &[u8]) -> Option<usize> {
        if self.state == State::Idle {
            return None;
        }
        let extended = self.negotiated.as_ref().is_some_and(|n| n.extended_message);
        match message::frame(buffer, extended) {
            Ok(Some(frame)) => {
                self.on_message(now, &frame);
                Some(frame.octets.len())
            }
            Ok(None) => None,
            Err(error) => {
                self.fail_decode(error, &[]);
                None
            }
        }
    }

    fn on_message(&mut self, now: Instant, frame: &Frame<'_>) {
        self.count(frame.kind);
        match (frame.kind, self.state) {
            (Kind::Notification, _) => {
                self.end(Cause::Notified(Notification::decode(frame.body())), None);
                self.control.clear();
            }
            (_, State::OpenSent) => self.on_open_sent(now, frame),
            (_, State::OpenConfirm) => self.on_open_confirm(now, frame),
            (_, State::Established) => self.on_established(now, frame),
            (_, State::Idle | State::Connect | State::Active) => {}
        }
    }

    fn count(&mut self, kind: Kind) {
        self.heard += 1;
        let counters = &mut self.counters;
        let counter = match kind {
            Kind::Open => &mut counters.opens_received,
            Kind::Update => &mut counters.updates_received,
            Kind::Notification => &mut counters.notifications_received,
            Kind::Keepalive => &mut counters.keepalives_received,
            Kind::RouteRefresh => &mut counters.refreshes_received,
        };
        *counter += 1;
    }

    fn on_open_sent(&mut self, now: Instant, frame: &Frame<'_>) {
        if frame.kind != Kind::Open {
            return self.unexpected(frame.kind, 1);
        }
        let open = match open::decode(frame.octets) {
            Ok(open) => open,
            Err(error) => return self.fail_decode(error, frame.octets),
        };
        match self.local.negotiate(&open) {
            Ok(negotiated) => self.negotiated = Some(Arc::new(negotiated)),
            Err((notification, why)) => return self.fail(notification, Cause::Unsuitable(why)),
        }
        self.opens.1 = bytes::Bytes::copy_from_slice(frame.octets);
        self.state = State::OpenConfirm;
        self.send_keepalive(now);
        self.arm_hold(now);
        self.events.push_back(Event::Opened);
    }

    fn on_open_confirm(&mut self, now: Instant, frame: &Frame<'_>) {
        if frame.kind != Kind::Keepalive {
            return self.unexpected(frame.kind, 2);
        }
        self.state = State::Established;
        self.arm_hold(now);
        self.events.push_back(Event::Established);
    }

    fn on_established(&mut self, now: Instant, frame: &Frame<'_>) {
        match frame.kind {
            Kind::Keepalive => self.arm_hold(now),
            Kind::Update => {
                self.arm_hold(now);
                self.on_update(frame.octets);
            }
            Kind::RouteRefresh => match message::decode_refresh(frame.octets) {
                Ok(Refresh::Request(family)) => self.events.push_back(Event::Refresh(family)),
                Ok(Refresh::Begin(family)) => self.events.push_back(Event::RefreshBegins(family)),
                Ok(Refresh::End(family)) => self.events.push_back(Event::RefreshEnds(family)),
                Ok(Refresh::Unknown) => {}
                Err(error) => self.fail_decode(error, frame.octets),
            },
            Kind::Open | Kind::Notification => self.unexpected(frame.kind, 3),
        }
    }

    /// RFC 6608: the subcode is the state.
    fn unexpected(&mut self, kind: Kind, state: u8) {
        let name = match kind {
            Kind::Open => "an OPEN",
            Kind::Update => "an UPDATE",
            Kind::Notification => "a NOTIFICATION",
            Kind::Keepalive => "a KEEPALIVE",
            Kind::RouteRefresh => "a ROUTE-REFRESH",
        };
        self.fail(Notification::new(code::FSM, state, &[kind as u8]), Cause::Unexpected(name));
    }

    fn on_update(&mut self, octets: &[u8]) {
        let Some(negotiated) = &self.negotiated else { return };
        let context = negotiated.context(self.endpoint.local.ip());
        let mut update = update::Update::default();
        if let Err(error) = update::decode_into(octets, &context, &mut update) {
            return self.fail_decode(error, octets);
        }
        if let Some(fault) = update.fault {
            tracing::warn!(remote = %self.endpoint.remote, attribute = fault.attribute, offset = fault.offset,
                reaction = ?fault.reaction, "malformed UPDATE, the session stays");
        }
        let announced = update.announced.len() + update.attributes.reach.map_or(0, |r| r.nlri.len());
        self.counters.prefixes_received += announced as u64;
        self.counters.treated_as_withdraw += u64::from(update.is_withdraw());
        let otc = update.attributes.only_to_customer;
        let leaked = announced > 0 && negotiated.role.is_some_and(|role| role.is_leak(otc, negotiated.remote_as));
        if leaked {
            self.counters.prefixes_leaked += announced as u64;
        }
        if self.local.wants_routes() {
            let mark = negotiated.role.filter(|role| role.marks_received()).map(|_| negotiated.remote_as);
            let refused = leaked || update.is_withdraw() || self.is_loop(&update);
            self.deliver(&update, refused, mark);
        }
    }

    /// RFC 4271 §9.1.2: a route that went through our own AS is no way to anywhere.
    fn is_loop(&self, update: &update::Update<'_>) -> bool {
        let ours = [Some(self.local.asn()), self.own_as()].map(|asn| asn.map(Asn::value));
        update.attributes.path().any(|asn| ours.contains(&Some(asn)))
    }

    /// Hands the routes on; withdrawals first, as RFC 4271 §3.1 lets one message carry both. Announced routes that
    /// are `refused` replace what the peer announced before with nothing; the others get the `mark` if they have none.
    fn deliver(&mut self, update: &update::Update<'_>, refused: bool, mark: Option<Asn>) {
        let withdraw = |(path, prefix)| Event::Withdraw(prefix, path);
        let unreach = update.attributes.unreach.into_iter().flat_map(|u| u.nlri.iter());
        self.events.extend(update.withdrawn.iter().chain(unreach).map(withdraw));
        let own = (update.announced, update.attributes.next_hop.map(IpAddr::from));
        let reach = update.attributes.reach.map(|r| (r.nlri, Some(r.next_hop.global)));
        for (nlri, next_hop) in iter::once(own).chain(reach) {
            match next_hop.filter(|_| !refused) {
                Some(next_hop) if !nlri.is_empty() => {
                    let wanted = self.local.deliver;
                    let shared = if wanted { Arc::new(attributes(update, next_hop, mark)) } else { Arc::default() };
                    let route = |prefix| Route { prefix, attributes: shared.clone() };
                    self.events.extend(nlri.iter().map(|(path, prefix)| Event::Announce(route(prefix), path)));
                }
                _ => self.events.extend(nlri.iter().map(withdraw)),
            }
        }
        self.events.extend(update.end_of_rib().map(Event::EndOfRib));
    }
}

fn attributes(update: &update::Update<'_>, next_hop: IpAddr, mark: Option<Asn>) -> Attributes {
    let received = &update.attributes;
    let bandwidths = received.extended_communities().filter_map(LinkBandwidth::of);
    let weighs = |c: &ExtendedCommunity| LinkBandwidth::of(*c).is_none();
    Attributes {
        origin: received.origin.unwrap_or(Origin::Incomplete),
        next_hop: Some(next_hop),
        prepend: u8::try_from(received.path().count().saturating_sub(1)).unwrap_or(u8::MAX),
        med: received.med,
        local_pref: received.local_pref,
        communities: sorted(received.communities()),
        extended_communities: sorted(received.extended_communities().filter(weighs)),
        // RFC 10005: of several the lowest counts.
        link_bandwidth: bandwidths.min_by(|a, b| a.octets_per_second().total_cmp(&b.octets_per_second())),
        large_communities: sorted(received.large_communities()),
        only_to_customer: received.only_to_customer.and_then(|asn| Asn::new(asn).ok()).or(mark),
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}
