//! What a speaker tells of its sessions to whoever monitors them.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    Asn, RouterId,
    rib::{Change, Encoding, Rendered, Renders, Routes},
    session::{Cause, End},
    speaker::PeerId,
    wire::{Families, notification::Notification},
};

/// An established session, from the moment that it came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitored {
    /// Whose.
    pub peer: PeerId,
    /// When it came up.
    pub since: Instant,
    /// This end.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// The AS that the peer's OPEN showed.
    pub remote_as: Asn,
    /// The identifier that the peer's OPEN showed.
    pub remote_id: RouterId,
    /// AS numbers have four octets in the session's UPDATEs.
    pub four_octet: bool,
    /// Our OPEN, as it was sent.
    pub sent_open: Bytes,
    /// The peer's OPEN, as it came.
    pub received_open: Bytes,
}

/// How a session ended (RFC 7854 §4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// We sent this NOTIFICATION.
    Local(Notification),
    /// We closed the connection without a word; the event of RFC 4271 §8.1 that made us.
    LocalEvent(u16),
    /// The peer sent this NOTIFICATION.
    Remote(Notification),
    /// The connection broke, or the peer closed it without a word.
    Closed,
}

/// ManualStop (RFC 4271 §8.1.2): what a silent end of ours is.
const MANUAL_STOP: u16 = 2;

impl Down {
    pub(crate) fn of(end: &End) -> Self {
        match (&end.cause, &end.sent) {
            (Cause::Notified(received), _) => Self::Remote(received.clone()),
            (_, Some(sent)) => Self::Local(sent.clone()),
            (Cause::Stopped, None) => Self::LocalEvent(MANUAL_STOP),
            _ => Self::Closed,
        }
    }
}

/// Something happened to a session.
#[derive(Debug, Clone)]
pub struct Event {
    pub(super) at: Instant,
    pub(super) session: Arc<Monitored>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// It came up.
    Up,
    /// The peer was sent these.
    Sent(Arc<Rendered>),
    /// The peer has been told all this: for a station that was not there then.
    Told(Routes, Encoding),
    /// It ended.
    Down(Down),
}

impl Event {
    pub(crate) fn up(session: Arc<Monitored>) -> Self {
        Self { at: session.since, session, kind: Kind::Up }
    }

    pub(crate) fn sent(at: Instant, session: Arc<Monitored>, rendered: Arc<Rendered>) -> Self {
        Self { at, session, kind: Kind::Sent(rendered) }
    }

    pub(crate) fn told(session: Arc<Monitored>, routes: Routes, encoding: Encoding) -> Self {
        Self { at: session.since, session, kind: Kind::Told(routes, encoding) }
    }

    pub(crate) fn down(at: Instant, session: Arc<Monitored>, down: Down) -> Self {
        Self { at, session, kind: Kind::Down(down) }
    }

    /// Octets that the event keeps in memory while it waits, beside what the speaker needs itself.
    pub fn weight(&self) -> usize {
        match &self.kind {
            Kind::Sent(rendered) => rendered.chunks.iter().map(|(octets, _)| octets.len()).sum(),
            Kind::Up | Kind::Told(..) | Kind::Down(_) => 0,
        }
    }
}

/// The UPDATEs that tell a peer of the encoding all of a set, End-of-RIB included.
pub(super) fn whole(routes: &Routes, encoding: &Encoding) -> Arc<Rendered> {
    let change = Change { from: None, to: routes.clone(), refresh: Families::NONE, marked: false };
    Renders::default().render(&change, encoding)
}

/// A session of AS 64500 at 10.0.0.2 that came up.
#[cfg(test)]
pub(super) fn some_event() -> Event {
    let asn = Asn::new(64500).expect("valid");
    let remote_id = RouterId::new([10, 255, 0, 1].into()).expect("valid");
    let mut open = Vec::new();
    crate::wire::message::encode_keepalive(&mut open);
    Event::up(Arc::new(Monitored {
        peer: PeerId("tor".into()),
        since: Instant::now(),
        local: ([10, 0, 0, 1], 50_000).into(),
        remote: ([10, 0, 0, 2], 179).into(),
        remote_as: asn,
        remote_id,
        four_octet: true,
        sent_open: open.clone().into(),
        received_open: open.into(),
    }))
}
