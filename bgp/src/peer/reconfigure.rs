//! A changed configuration: only what a session negotiated, or what its connection is made of, resets it.

use std::{sync::Arc, time::Instant};

use super::{Connection, Output, Peer, Shared, Stage};
use crate::{
    session::Session,
    speaker::PeerConfig,
    wire::{
        Families,
        notification::{Notification, cease},
    },
};

/// The changed fields that a running session cannot take. Every field is named here: one that nobody has thought
/// about does not compile.
fn resets(old: &PeerConfig, new: &PeerConfig) -> Vec<&'static str> {
    let PeerConfig {
        address,
        port,
        interface,
        source,
        local_as,
        own_as: _, // what was sent is sent again
        peer_as,
        router_id,
        hold_time,
        keepalive: _,     // the next one takes it
        connect_retry: _, // the next attempt takes it
        passive: _,       // the next attempt takes it
        ttl: _,           // set on the socket
        password,
        ao_keys,
        families,
        extended_next_hop,
        add_path,
        role,
        role_strict,
        graceful_restart,
        long_lived,
        maximum_prefixes: _, // the next route takes it
        prefix_budget: _,    // the difference is sent or withdrawn
    } = new;
    let fields = [
        ("address", *address != old.address),
        ("port", *port != old.port),
        ("interface", *interface != old.interface),
        ("source address", *source != old.source),
        ("our AS", *local_as != old.local_as),
        ("its AS", *peer_as != old.peer_as),
        ("router id", *router_id != old.router_id),
        ("hold time", *hold_time != old.hold_time),
        ("password", *password != old.password),
        ("TCP-AO keys", *ao_keys != old.ao_keys),
        ("address families", *families != old.families),
        ("extended next hop", *extended_next_hop != old.extended_next_hop),
        ("ADD-PATH", *add_path != old.add_path),
        ("role", (*role, *role_strict) != (old.role, old.role_strict)),
        ("graceful restart", *graceful_restart != old.graceful_restart),
        ("long-lived graceful restart", *long_lived != old.long_lived),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

impl Peer {
    /// Replaces the configuration.
    pub(crate) fn reconfigure(&mut self, now: Instant, config: PeerConfig, shared: &mut Shared) {
        if config == *self.config {
            return;
        }
        let old = std::mem::replace(&mut self.config, Arc::new(config));
        let resets = resets(&old, &self.config);
        self.status.remote_addr = self.config.address;
        for connection in &mut self.connections {
            let id = connection.id;
            match &mut connection.stage {
                Stage::Dialling { .. } => shared.outputs.push_back(Output::Close { id, farewell: None }),
                Stage::Open(session) if !resets.is_empty() => {
                    session.stop(Notification::cease(cease::CONFIGURATION), false);
                    let what = resets.join(", ");
                    self.status.last_error = Some(format!("this node ended the session to take a changed {what}"));
                }
                Stage::Open(session) => {
                    session.reconfigure(now, self.config.clone());
                    if old.ttl != self.config.ttl {
                        shared.outputs.push_back(Output::Ttl { id, ttl: self.config.ttl });
                    }
                }
            }
        }
        self.connections.retain(|c| matches!(c.stage, Stage::Open(_)));
        self.settle(now, shared);
        self.apply_live(&old, shared);
        self.retry.now(now);
        self.handle_timeout(now, shared);
    }

    /// What a running session takes, beyond its own timers.
    fn apply_live(&mut self, old: &PeerConfig, shared: &mut Shared) {
        if old.own_as != self.config.own_as {
            self.adj.refresh = Families::from_iter(Families::EVERY);
        }
        if old.maximum_prefixes.is_none() && self.config.maximum_prefixes.is_some() && !shared.deliver {
            // What came before was not counted: it is asked for again (RFC 2918).
            self.connections.iter_mut().filter_map(Connection::session).for_each(Session::request_refresh);
        }
        self.apply_budget();
        self.advertise(shared);
    }
}
