//! Why a session ended, in words for an operator, and what that means for the routes.

use std::time::Duration;

use super::Negotiated;
use crate::{
    speaker::State,
    wire::{
        DecodeError,
        notification::{Notification, cease, code, open},
    },
};

/// What ended the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The hold timer expired.
    Silent,
    /// Nothing could be written for the send hold time (RFC 9687).
    Stuck,
    /// The peer's message broke a rule.
    Malformed(DecodeError),
    /// The peer's OPEN does not suit our configuration; the text says how.
    Unsuitable(String),
    /// A message came that this state does not allow.
    Unexpected(&'static str),
    /// The peer sent a NOTIFICATION.
    Notified(Notification),
    /// The connection broke; the text says how.
    Lost(String),
    /// We ended it.
    Stopped,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// What ended it.
    pub(crate) cause: Cause,
    /// The NOTIFICATION that we sent.
    pub(crate) sent: Option<Notification>,
    /// The state that it ended in.
    pub(crate) state: State,
    /// How long the peer's routes are kept for its return; `None` if they are not.
    pub(crate) graceful: Option<Duration>,
}

impl End {
    /// RFC 4724 §4.2 and RFC 8538 §4: a broken connection is graceful where graceful restart was negotiated,
    /// a NOTIFICATION where both ends set the N bit and it is no hard reset.
    pub(super) fn new(cause: Cause, sent: Option<Notification>, state: State, negotiated: Option<&Negotiated>) -> Self {
        let notification = match &cause {
            Cause::Notified(received) => Some(received),
            _ => sent.as_ref(),
        };
        let graceful = negotiated.filter(|_| state == State::Established).and_then(|n| {
            let kept = notification.is_none_or(|n2| n.notification_support && !n2.is_hard_reset());
            n.graceful_restart.filter(|_| kept).map(|g| Duration::from_secs(g.seconds.into()))
        });
        Self { cause, sent, state, graceful }
    }

    /// One line for the operator; `None` if we ended it on purpose.
    pub(crate) fn words(&self) -> Option<String> {
        let sent = self.sent.as_ref().map(Notification::to_string).unwrap_or_default();
        Some(match &self.cause {
            Cause::Stopped => return None,
            Cause::Silent if self.state == State::OpenSent => "the router sent no OPEN for 4 minutes".into(),
            Cause::Silent => "the router sent nothing for the hold time: Hold Timer Expired".into(),
            Cause::Stuck => "the router read nothing for the send hold time (RFC 9687): connection given up".into(),
            Cause::Malformed(error) => format!("the router's message was malformed: {error}; we sent {sent}"),
            Cause::Unsuitable(why) => format!("we refused the router: {sent}: {why}"),
            Cause::Unexpected(message) => format!("the router sent {message} in {}; we sent {sent}", self.state),
            Cause::Notified(received) => format!("the router {}", self.notified(received)),
            Cause::Lost(why) => match self.state {
                State::Established => format!("the connection broke: {why}"),
                state => format!(
                    "the router closed the connection in {state} ({why}); is this node configured there as a neighbour?"
                ),
            },
        })
    }

    fn notified(&self, received: &Notification) -> String {
        let verb = if self.state == State::Established { "ended the session" } else { "refused" };
        let hint = match (received.code, received.subcode) {
            (code::OPEN, open::PEER_AS) => "; the AS that we show is not the one it expects: check peerASN and myASN",
            (code::OPEN, open::IDENTIFIER) => "; our router id is not acceptable to it: is it another speaker's?",
            (code::OPEN, open::HOLD_TIME) => "; our hold time is not acceptable to it: check holdTime",
            (code::OPEN, open::CAPABILITY) => "; it lacks something that we offer: check the address families",
            (code::OPEN, open::ROLE) => "; its role and ours do not fit (RFC 9234)",
            (code::CEASE, cease::MAXIMUM_PREFIXES) => "; it accepts fewer prefixes than we announce",
            (code::CEASE, cease::REJECTED) => "; is this node configured there as a neighbour?",
            (code::CEASE, cease::DECONFIGURED) => "; it no longer has this node as a neighbour",
            _ => "",
        };
        format!("{verb}: {received}{hint}")
    }
}
