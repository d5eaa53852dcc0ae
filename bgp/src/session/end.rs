//! Why a session ended, in words for an operator, and what that means for the routes.

use std::time::Duration;

use super::{Local, Negotiated, negotiate::words_of};
use crate::{
    speaker::{State, Ttl},
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
    /// BFD declared the path down.
    PathDown,
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
    /// Our side of what the peer complains of.
    hint: String,
}

impl End {
    /// RFC 4724 §4.2 and RFC 8538 §4: a broken connection is graceful where graceful restart was negotiated,
    /// a NOTIFICATION where both ends set the N bit and it is no hard reset.
    pub(super) fn new(
        cause: Cause,
        sent: Option<Notification>,
        (state, greeted_only): (State, bool),
        negotiated: Option<&Negotiated>,
        local: &Local,
    ) -> Self {
        let notification = match &cause {
            Cause::Notified(received) => Some(received),
            _ => sent.as_ref(),
        };
        let graceful = negotiated.filter(|_| state == State::Established).and_then(|n| {
            let kept = notification.is_none_or(|n2| n.notification_support && !n2.is_hard_reset());
            n.graceful_restart.filter(|_| kept).map(|g| Duration::from_secs(g.seconds.into()))
        });
        let hint = match &cause {
            Cause::Notified(received) => hint(received, local),
            // FRR drops what comes with too small a TTL, but not the OPEN.
            Cause::Silent if greeted_only => {
                "; it sent an OPEN, and does not hear us since: is TTL security (ttlSecurity) set at one end alone?"
                    .into()
            }
            // GoBGP and BIRD close what comes with too small a TTL.
            Cause::Lost(_) if local.config.ttl == Ttl::Direct => ", and does it want TTL security (ttlSecurity)".into(),
            _ => String::new(),
        };
        Self { cause, sent, state, graceful, hint }
    }

    /// One line for the operator; `None` if we ended it on purpose.
    pub(crate) fn words(&self) -> Option<String> {
        let sent = self.sent.as_ref().map(Notification::to_string).unwrap_or_default();
        Some(match &self.cause {
            Cause::Stopped => return None,
            Cause::PathDown => "BFD declared the path to the router down".into(),
            Cause::Silent if self.state == State::OpenSent => "the router sent no OPEN for 4 minutes".into(),
            Cause::Silent => format!("the router sent nothing for the hold time: Hold Timer Expired{}", self.hint),
            Cause::Stuck => "the router read nothing for the send hold time (RFC 9687): connection given up".into(),
            Cause::Malformed(error) => format!("the router's message was malformed: {error}; we sent {sent}"),
            Cause::Unsuitable(why) => format!("we refused the router: {sent}: {why}"),
            Cause::Unexpected(message) => format!("the router sent {message} in {}; we sent {sent}", self.state),
            Cause::Notified(received) => format!("the router {}", self.notified(received)),
            Cause::Lost(why) => match self.state {
                State::Established => format!("the connection broke: {why}"),
                state => format!(
                    "the router closed the connection in {state} ({why}); is this node configured there as a neighbour{}?",
                    self.hint
                ),
            },
        })
    }

    fn notified(&self, received: &Notification) -> String {
        let verb = if self.state == State::Established { "ended the session" } else { "refused" };
        format!("{verb}: {received}{}", self.hint)
    }
}

/// What we said that the peer complains of, and where to look.
fn hint(received: &Notification, local: &Local) -> String {
    match (received.code, received.subcode) {
        (code::OPEN, open::PEER_AS) => {
            format!("; we show AS {}, it expects another: check myASN here and its AS for this node there", local.asn())
        }
        (code::OPEN, open::IDENTIFIER) => {
            format!("; our router id {} is not acceptable to it: does another speaker have it?", local.id)
        }
        (code::OPEN, open::HOLD_TIME) => {
            let offered = local.config.hold_time.seconds();
            format!("; we offer a hold time of {offered} s, it wants another: check holdTime")
        }
        (code::OPEN, open::CAPABILITY) => {
            let families = words_of(local.families());
            format!("; it lacks something that we offer, or wants what we lack: we offer {families}")
        }
        (code::OPEN, open::ROLE) => match local.role() {
            Some(role) => format!("; we say that we are {role} to it, it does not agree: check the role on both ends"),
            None => "; we say nothing of roles, it wants to hear one: set a role here".into(),
        },
        (code::CEASE, cease::MAXIMUM_PREFIXES) => "; it accepts fewer prefixes than we announce".into(),
        (code::CEASE, cease::REJECTED) => "; is this node configured there as a neighbour?".into(),
        (code::CEASE, cease::DECONFIGURED) => "; it no longer has this node as a neighbour".into(),
        _ => String::new(),
    }
}
