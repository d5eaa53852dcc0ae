//! What a peer's session is told about to whoever monitors the speaker.

use std::{sync::Arc, time::Instant};

use super::{Connection, ConnectionId, Peer, Session, Shared, advertise::encoding};
use crate::{
    bmp::{Down, Event, Monitored},
    rib::Rendered,
    session::End,
    speaker::State,
};

impl Shared {
    fn tell(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.monitor {
            events.push_back(event());
        }
    }
}

impl Peer {
    pub(super) fn monitor_up(&mut self, now: Instant, id: ConnectionId, shared: &mut Shared) {
        let connection = self.connections.iter_mut().find(|c| c.id == id);
        let Some(session) = connection.and_then(Connection::session) else { return };
        let Some(negotiated) = session.negotiated() else { return };
        let (sent_open, received_open) = session.opens();
        let monitored = Arc::new(Monitored {
            peer: self.id.clone(),
            since: now,
            local: session.endpoint().local,
            remote: session.endpoint().remote,
            remote_as: negotiated.remote_as,
            remote_id: negotiated.remote_id,
            four_octet: negotiated.four_octet,
            sent_open,
            received_open,
        });
        shared.tell(|| Event::up(monitored.clone()));
        self.monitored = Some(monitored);
    }

    pub(super) fn monitor_sent(&self, now: Instant, rendered: &Arc<Rendered>, shared: &mut Shared) {
        if let Some(session) = &self.monitored {
            shared.tell(|| Event::sent(now, session.clone(), rendered.clone()));
        }
    }

    pub(super) fn monitor_down(&mut self, now: Instant, end: &End, shared: &mut Shared) {
        if let Some(session) = self.monitored.take() {
            shared.tell(|| Event::down(now, session, Down::of(end)));
        }
    }

    /// Everything that is so now, for who begins to monitor.
    pub(crate) fn monitored(&self) -> impl Iterator<Item = Event> {
        let up = self.monitored.clone().map(Event::up);
        let established = self.connections.iter().find(|c| c.state() == State::Established);
        let encoding = established.and_then(Connection::opened).and_then(encoding);
        let told = self.monitored.clone().zip(self.adj.sent.clone()).zip(encoding);
        up.into_iter().chain(told.map(|((session, routes), encoding)| Event::told(session, routes, encoding)))
    }
}

impl Connection {
    fn opened(&self) -> Option<&Session> {
        match &self.stage {
            super::Stage::Dialling { .. } => None,
            super::Stage::Open(session) => Some(session),
        }
    }
}
