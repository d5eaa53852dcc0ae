//! Project BGP, sessions of devices, and their neighbours in both generations of peering.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Device, Packet, href, refused};
use crate::{
    ids::rfc3339,
    message::{Answer, Request},
};

/// How a device peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generation {
    /// Two peers beyond the private gateway: 169.254.255.1 and .2, fc00::e and fc00::f.
    Multihop,
    /// One peer, the gateway itself.
    SingleHop,
}

/// The project's BGP.
#[derive(Debug, Clone)]
pub struct BgpConfig {
    id: String,
    global: bool,
    asn: u64,
    md5: Option<String>,
    requested: Duration,
    /// False while people look at a global request.
    pub enabled: bool,
    /// Prefixes per server.
    pub max_prefix: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    id: String,
    device: String,
    family: String,
    created: Duration,
}

/// The peers' AS in every metro.
const PEER_AS: u32 = 65530;

impl Packet {
    pub(super) fn bgp_config_json(&self) -> Value {
        let Some(config) = &self.bgp else { return json!({}) };
        let sessions: Vec<_> = self.sessions.iter().map(session_json).collect();
        json!({
            "id": config.id, "href": format!("/bgp-configs/{}", config.id),
            "status": if config.enabled { "enabled" } else { "requested" },
            "deployment_type": if config.global { "global" } else { "local" }, "asn": config.asn, "md5": config.md5,
            "max_prefix": config.max_prefix, "created_at": rfc3339(config.requested.as_secs()),
            "requested_at": rfc3339(config.requested.as_secs()), "project": href(&format!("/projects/{}", self.project)),
            "sessions": sessions, "ranges": [],
        })
    }

    pub(super) fn request_bgp(&mut self, now: Duration, request: &Request) -> Answer {
        let (kind, asn) = (request.text("deployment_type"), request.body.get("asn").and_then(Value::as_u64));
        let (Some(kind @ ("local" | "global")), Some(asn)) = (kind, asn) else {
            return refused(422, "Deployment type and asn are required");
        };
        if self.bgp.as_ref().is_some_and(|config| config.enabled) {
            return refused(422, "BGP is already enabled for the project");
        }
        let global = kind == "global";
        self.bgp = Some(BgpConfig {
            id: self.ids.uuid(),
            global,
            asn: if global { asn } else { 65000 },
            md5: request.text("md5").map(str::to_owned),
            requested: now,
            enabled: !global,
            max_prefix: self.max_prefix,
        });
        Answer::no_content()
    }

    pub(super) fn list_sessions(&self, device: Option<&str>) -> Answer {
        let wanted = |session: &&Session| device.is_none_or(|id| session.device == id);
        let sessions: Vec<_> = self.sessions.iter().filter(wanted).map(session_json).collect();
        Answer::json(200, json!({ "bgp_sessions": sessions }))
    }

    pub(super) fn create_session(&mut self, now: Duration, device: &str, request: &Request) -> Option<Answer> {
        self.device(device)?;
        let Some(family @ ("ipv4" | "ipv6")) = request.text("address_family") else {
            return Some(refused(422, "Address family is not included in the list"));
        };
        if !self.bgp.as_ref().is_some_and(|config| config.enabled) {
            return Some(refused(422, "BGP is not enabled for the project"));
        }
        if self.sessions.iter().any(|session| session.device == device && session.family == family) {
            return Some(refused(422, "Address family already has session"));
        }
        let id = self.ids.uuid();
        let session = Session { id, device: device.into(), family: family.into(), created: now };
        let answer = Answer::json(201, session_json(&session));
        self.sessions.push(session);
        Some(answer)
    }

    pub(super) fn session(&self, id: &str) -> Option<Answer> {
        self.sessions.iter().find(|session| session.id == id).map(|session| Answer::json(200, session_json(session)))
    }

    pub(super) fn delete_session(&mut self, id: &str) -> Option<Answer> {
        let at = self.sessions.iter().position(|session| session.id == id)?;
        self.sessions.remove(at);
        Some(Answer::no_content())
    }

    pub(super) fn end_sessions_of(&mut self, device: &str) {
        self.sessions.retain(|session| session.device != device);
    }

    /// The block that the device's own metadata carries too: one neighbour per family with a session.
    pub(super) fn neighbours(&self, device: &Device) -> Vec<Value> {
        let Some(config) = self.bgp.as_ref().filter(|config| config.enabled) else { return Vec::new() };
        let routes_in = |v4: bool| -> Vec<Value> {
            let blocks = self.reservations.iter().filter_map(|one| one.block);
            blocks.filter(|block| block.addr().is_ipv4() == v4).map(route).collect()
        };
        let here = self.sessions.iter().filter(|session| session.device == device.id);
        let neighbour = |session: &Session| {
            let v4 = session.family == "ipv4";
            let (customer, gateway): (IpAddr, IpAddr) = if v4 {
                (device.private.0.into(), device.private.1.into())
            } else {
                let (address, gateway) = device.public_ipv6?;
                (address.into(), gateway.into())
            };
            let peers = match (device.generation, v4) {
                (Generation::SingleHop, _) => json!([gateway]),
                (Generation::Multihop, true) => json!(["169.254.255.1", "169.254.255.2"]),
                (Generation::Multihop, false) => json!(["fc00::e", "fc00::f"]),
            };
            let mut json = json!({
                "address_family": if v4 { 4 } else { 6 }, "customer_as": config.asn, "customer_ip": customer,
                "md5_enabled": config.md5.is_some(), "multihop": device.generation == Generation::Multihop,
                "peer_as": PEER_AS, "peer_ips": peers, "routes_in": routes_in(v4), "routes_out": [],
            });
            if config.md5.is_some() || self.loose {
                json["md5_password"] = json!(config.md5);
            }
            Some(json)
        };
        here.filter_map(neighbour).collect()
    }
}

fn route(block: IpNet) -> Value {
    json!({ "route": block, "exact": false })
}

fn session_json(session: &Session) -> Value {
    json!({
        "id": session.id, "href": format!("/bgp/sessions/{}", session.id), "status": "unknown", "learned_routes": [],
        "default_route": false, "created_at": rfc3339(session.created.as_secs()),
        "updated_at": rfc3339(session.created.as_secs()), "device": href(&format!("/devices/{}", session.device)),
        "address_family": session.family,
    })
}
