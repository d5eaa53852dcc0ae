//! The provider of the lab: an emulated API beside the router, where every node reaches it, and the objects that name
//! it. What the lab sees of the network is noted in the provider's own log, so that one list shows the order.

use std::{
    net::{SocketAddr, TcpListener},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use ironcast_emulator::{Emulator, Entry, Server, packet::Packet};
use serde_json::{Value, json};

use super::{
    manifests::{NAMESPACE, ours, system},
    site::{CLIENT_GATEWAY, Site},
};

/// The pool whose addresses are claimed.
pub(crate) const POOL: &str = "elastic";
/// A UUID, as the vendor's specification wants it.
const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
const TOKEN: &str = "lab-token";
const PORT: u16 = 8088;
/// Prefixes that a session may carry: what the vendor gives.
pub(crate) const BUDGET: u32 = 10;

/// The emulated provider.
pub(crate) struct Cloud {
    server: Server,
}

impl Cloud {
    /// Starts it in the router's namespace.
    ///
    /// # Errors
    /// The port cannot be had.
    pub(crate) fn start(site: &Site) -> anyhow::Result<Self> {
        let at = address();
        let listener = site.router.inside(move || TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("listen on {at} for the provider's API"))?;
        listener.set_nonblocking(true)?;
        let emulator = Emulator::new(Packet::new(PROJECT), &[TOKEN]);
        Ok(Self { server: Server::start(tokio::net::TcpListener::from_std(listener)?, emulator)? })
    }

    /// Writes an observation into the provider's log.
    pub(crate) fn note(&self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.server.emulator().note(now, text);
    }

    /// What was asked and noted so far.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.server.emulator().log().to_vec()
    }

    /// Requests to claim that had an effect.
    pub(crate) fn claimed(&self) -> usize {
        self.log().iter().filter(|entry| is_claim(entry)).count()
    }

    /// Requests to release that had an effect.
    pub(crate) fn released(&self) -> usize {
        self.log().iter().filter(|entry| is_release(entry)).count()
    }
}

/// An address was claimed.
pub(crate) fn is_claim(entry: &Entry) -> bool {
    entry.method == "POST" && entry.path.ends_with("/ips") && entry.effect == 201
}

/// An address was given back.
pub(crate) fn is_release(entry: &Entry) -> bool {
    entry.method == "DELETE" && entry.path.contains("/ips/") && entry.effect == 204
}

fn address() -> SocketAddr {
    SocketAddr::new(CLIENT_GATEWAY[0], PORT)
}

/// The provider, its token, a pool of it and the advertisement of that.
pub(crate) fn objects() -> Vec<Value> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "packet-token", "namespace": system()},
        "stringData": {"token": TOKEN},
    });
    let config = json!({
        "type": "packet", "endpoint": format!("http://{}/metal/v1", address()), "project": PROJECT,
        "credentialsSecret": {"name": "packet-token"},
        "settleTime": "10s", "releaseDelay": "2s", "refreshInterval": "5s",
    });
    let pool = json!({
        "provider": {"name": "packet", "type": "public_ipv4", "region": "am"},
        "autoAssign": false,
    });
    vec![
        secret,
        ours("ProviderConfig", "packet", config),
        ours("IPAddressPool", POOL, pool),
        ours("BGPAdvertisement", POOL, json!({"ipAddressPools": [POOL]})),
    ]
}

/// The mark that names a Service of the lab.
pub(crate) fn mark(service: &str) -> String {
    format!("ironcast-service={NAMESPACE}/{service}")
}
