//! What we offer in an OPEN, and what comes of the peer's.

use std::{sync::Arc, time::Duration};

use crate::{
    Asn, Family, HoldTime, RouterId,
    speaker::{PeerAs, PeerConfig, Role},
    wire::{
        Families,
        capability::{Capabilities, GracefulRestart, LongLived},
        message::{MAX, MAX_EXTENDED},
        notification::{Notification, code, open},
        open::Open,
        update::Context,
    },
};

/// Our end of a negotiation.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// As the peer is configured now; what was negotiated is in [`Negotiated`].
    pub(crate) config: Arc<PeerConfig>,
    pub(crate) id: RouterId,
    /// We have just restarted, our forwarding state is kept (RFC 4724 §4.1).
    pub(crate) restarting: bool,
    /// Routes are handed on, not only counted.
    pub(crate) deliver: bool,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) remote_as: Asn,
    pub(crate) remote_id: RouterId,
    pub(crate) internal: bool,
    pub(crate) hold_time: HoldTime,
    pub(crate) families: Families,
    pub(crate) four_octet: bool,
    pub(crate) route_refresh: bool,
    pub(crate) enhanced_refresh: bool,
    pub(crate) extended_message: bool,
    pub(crate) extended_next_hop: bool,
    /// Families in which our prefixes carry path identifiers (RFC 7911).
    pub(crate) add_path_send: Families,
    /// Families in which the peer's prefixes do.
    pub(crate) add_path_receive: Families,
    /// Our role, where we have one and the peer's does not contradict it.
    pub(crate) role: Option<Role>,
    /// The peer's graceful restart, where we offered it too; its families are those of the session.
    pub(crate) graceful_restart: Option<GracefulRestart>,
    /// Families whose routes the peer asks us to keep for longer, and for how long (RFC 9494).
    pub(crate) long_lived: Vec<LongLived>,
    /// Those of them that it says it kept itself.
    pub(crate) long_lived_forwarding: Families,
    /// Both ends set the N bit (RFC 8538).
    pub(crate) notification_support: bool,
}

impl Local {
    /// Our end for a peer; `id` is the speaker's.
    pub(crate) fn new(config: Arc<PeerConfig>, id: RouterId, restarting: bool, deliver: bool) -> Self {
        Self { id: config.router_id.unwrap_or(id), config, restarting, deliver }
    }

    /// Whether what the peer announces is looked at one by one.
    pub(super) fn wants_routes(&self) -> bool {
        self.deliver || self.config.maximum_prefixes.is_some()
    }

    pub(crate) fn asn(&self) -> Asn {
        self.config.local_as
    }

    pub(super) fn families(&self) -> Families {
        self.config.families.iter().copied().collect()
    }

    /// Our OPEN. The F bit is set for every family: what carries the packets outlives this process.
    pub(crate) fn open(&self) -> Open {
        let (config, families) = (&self.config, self.families());
        let graceful_restart = config.graceful_restart.map(|time| GracefulRestart {
            restarting: self.restarting,
            notification: true,
            seconds: u16::try_from(time.as_secs()).unwrap_or(u16::MAX).min(0x0FFF),
            families,
            forwarding: families,
        });
        let several = |offered| if offered { families } else { Families::NONE };
        let capabilities = Capabilities {
            multiprotocol: Some(families),
            route_refresh: true,
            enhanced_refresh: true,
            extended_message: true,
            extended_next_hop: self.offers_extended_next_hop(),
            four_octet_as: Some(self.asn().value()),
            graceful_restart,
            add_path_send: several(config.add_path.send),
            add_path_receive: several(config.add_path.receive),
            role: self.role().map(Role::value),
            long_lived: self.long_lived(),
            ..Capabilities::default()
        };
        Open { asn: self.asn(), hold_time: config.hold_time, id: self.id, capabilities }
    }

    /// Offered with graceful restart only (RFC 9494 §4.1). The F bit stands for the same as there.
    fn long_lived(&self) -> Vec<LongLived> {
        let time = self.config.long_lived.filter(|_| self.config.graceful_restart.is_some());
        let seconds = time.map(|time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).min(0xFF_FFFF));
        let of = |seconds| self.families().iter().map(move |family| LongLived { family, forwarding: true, seconds });
        seconds.into_iter().flat_map(of).collect()
    }

    /// RFC 8950 §4 speaks of IPv4 prefixes; without them there is nothing to offer.
    fn offers_extended_next_hop(&self) -> bool {
        self.config.extended_next_hop && self.config.families.contains(&Family::Ipv4Unicast)
    }

    /// Compares the peer's OPEN with what we want; the error is what it is told, and why in our operator's words.
    pub(super) fn negotiate(&self, theirs: &Open) -> Result<Negotiated, (Notification, String)> {
        self.check_as(theirs)?;
        let internal = theirs.asn == self.asn();
        if internal && theirs.id == self.id {
            let why =
                format!("its router id {} is ours too; every speaker of an AS needs its own (RFC 6286)", theirs.id);
            return Err((Notification::new(code::OPEN, open::IDENTIFIER, &[]), why));
        }
        let caps = &theirs.capabilities;
        let offered = caps.multiprotocol.unwrap_or_else(|| [Family::Ipv4Unicast].into_iter().collect());
        let families = self.check_families(offered)?;
        self.check_role(caps).map_err(|why| (Notification::new(code::OPEN, open::ROLE, &[]), why))?;
        let hold_time = self.config.hold_time.min(theirs.hold_time);
        let graceful_restart = caps.graceful_restart.filter(|_| self.config.graceful_restart.is_some()).map(|g| {
            GracefulRestart { families: g.families.and(families), forwarding: g.forwarding.and(families), ..g }
        });
        // RFC 9494 §4.2: without graceful restart it says nothing.
        let offered = graceful_restart.is_some() && self.config.long_lived.is_some();
        let mut long_lived = caps.long_lived.clone();
        long_lived.retain(|l| offered && families.contains(l.family));
        let several = |ours, theirs: Families| if ours { theirs.and(families) } else { Families::NONE };
        Ok(Negotiated {
            remote_as: theirs.asn,
            remote_id: theirs.id,
            internal,
            hold_time,
            families,
            four_octet: caps.four_octet_as.is_some(),
            route_refresh: caps.route_refresh,
            enhanced_refresh: caps.enhanced_refresh,
            extended_message: caps.extended_message,
            extended_next_hop: self.offers_extended_next_hop()
                && caps.extended_next_hop
                && families.contains(Family::Ipv4Unicast),
            // RFC 7911 §4: each direction on its own, where one end sends and the other receives.
            add_path_send: several(self.config.add_path.send, caps.add_path_receive),
            add_path_receive: several(self.config.add_path.receive, caps.add_path_send),
            graceful_restart,
            role: self.role().filter(|_| !internal),
            long_lived_forwarding: long_lived.iter().filter(|l| l.forwarding).map(|l| l.family).collect(),
            long_lived,
            notification_support: graceful_restart.is_some_and(|g| g.notification),
        })
    }

    fn check_as(&self, theirs: &Open) -> Result<(), (Notification, String)> {
        let shown = theirs.asn;
        let why = match self.config.peer_as {
            PeerAs::Exactly(asn) if shown != asn => format!("it shows AS {shown}, but peerASN is {asn}; check peerASN"),
            PeerAs::Internal if shown != self.asn() => {
                format!(
                    "it shows AS {shown}, but the peer is internal and our AS is {}; check peerASN and myASN",
                    self.asn()
                )
            }
            PeerAs::External if shown == self.asn() => {
                format!("it shows AS {shown}, which is ours, but the peer is external; check peerASN and myASN")
            }
            _ => return Ok(()),
        };
        Err((Notification::new(code::OPEN, open::PEER_AS, &[]), why))
    }

    /// Roles are external peers' alone (RFC 9234 §4.1).
    pub(super) fn role(&self) -> Option<Role> {
        let internal =
            matches!(self.config.peer_as, PeerAs::Internal) || self.config.peer_as == PeerAs::Exactly(self.asn());
        self.config.role.filter(|_| !internal)
    }

    /// RFC 9234 §4.2: whoever has a role takes no peer whose role does not fit.
    fn check_role(&self, theirs: &Capabilities) -> Result<(), String> {
        let Some(ours) = self.role() else { return Ok(()) };
        let fits = ours.counterpart();
        match theirs.role {
            _ if theirs.roles_differ => Err(format!("we are {ours} to it, it says several roles at once")),
            None if self.config.role_strict => {
                Err(format!("we are {ours} to it and want to hear that it is {fits}, it says nothing of roles"))
            }
            Some(role) if role != fits.value() => {
                let role = Role::word(role);
                Err(format!(
                    "we are {ours} to it, so it must be {fits}, but it says {role}; check the role on both ends"
                ))
            }
            _ => Ok(()),
        }
    }

    /// RFC 5492 §5: without a common family the session would carry nothing; say so.
    fn check_families(&self, offered: Families) -> Result<Families, (Notification, String)> {
        let families = self.families().and(offered);
        if !families.is_empty() {
            return Ok(families);
        }
        let (ours, theirs) = (words_of(self.families()), words_of(offered));
        let why = format!("no common address family: we offer {ours}, it offers {theirs}");
        let mut data = Vec::new();
        for family in self.families().iter() {
            let [high, low] = crate::wire::afi(family).to_be_bytes();
            data.extend_from_slice(&[1, 4, high, low, 0, crate::wire::SAFI_UNICAST]);
        }
        Err((Notification::new(code::OPEN, open::CAPABILITY, &data), why))
    }
}

/// Families in words.
pub(super) fn words_of(families: Families) -> String {
    match families.is_empty() {
        true => "none that we know".to_string(),
        false => families.iter().map(|f| f.to_string()).collect::<Vec<_>>().join(", "),
    }
}

impl Negotiated {
    /// How the peer's UPDATEs read.
    pub(crate) fn context(&self, local: std::net::IpAddr) -> Context {
        Context {
            four_octet: self.four_octet,
            internal: self.internal,
            families: self.families,
            add_path: self.add_path_receive,
            extended_next_hop: self.extended_next_hop,
            local: Some(local),
        }
    }

    /// How long the peer's stale routes of a family are kept when its restart time is over.
    pub(crate) fn stale_time(&self, family: Family) -> Option<Duration> {
        let found = self.long_lived.iter().find(|l| l.family == family && l.seconds > 0);
        found.map(|l| Duration::from_secs(l.seconds.into()))
    }

    /// The longest message that we may send.
    pub(crate) fn limit(&self) -> usize {
        if self.extended_message { MAX_EXTENDED } else { MAX }
    }

    /// The capabilities in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.families.iter().map(|f| f.to_string()).collect();
        let flags = [
            (self.four_octet, "four-octet-as"),
            (self.route_refresh, "route-refresh"),
            (self.enhanced_refresh, "enhanced-route-refresh"),
            (self.extended_message, "extended-message"),
            (self.extended_next_hop, "extended-next-hop"),
            (!self.add_path_send.is_empty(), "add-path-send"),
            (!self.add_path_receive.is_empty(), "add-path-receive"),
            (self.notification_support, "graceful-restart-notification"),
        ];
        words.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, word)| word.to_string()));
        words.extend(self.role.map(|role| format!("role={role}")));
        if let Some(restart) = &self.graceful_restart {
            words.push(format!("graceful-restart={}s", restart.seconds));
        }
        words
            .extend(self.long_lived.iter().map(|l| format!("long-lived-graceful-restart={}:{}s", l.family, l.seconds)));
        words
    }
}
