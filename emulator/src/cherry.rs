//! Cherry Servers: floating IPs, project and server BGP. There is no public specification: fields and forms are those of the
//! vendor's client libraries. The vendor's limit of four requests a second is [`crate::Emulator::set_limit`]'s to set.
//!
//! Steering: `{"stock": "<region>"}` toggles whether a region has addresses; `{"server_state": "<state>"}`.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};

use crate::{
    emulator::Vendor,
    ids::rfc3339,
    lease::{Row, Rows},
    message::{Answer, Request},
};

const REGIONS: [&str; 2] = ["LT-Siauliai", "NL-Amsterdam"];

/// One project (a number) with one server (a number).
#[derive(Debug, Clone)]
pub struct Cherry {
    rows: Rows,
    project: String,
    server: String,
    state: String,
    project_bgp: bool,
    server_bgp: bool,
    empty: BTreeSet<String>,
}

impl Cherry {
    /// An empty project.
    pub fn new(project: &str, server: &str) -> Self {
        Self {
            rows: Rows::new(Ipv4Addr::new(198, 18, 0, 0)),
            project: project.into(),
            server: server.into(),
            state: "active".into(),
            project_bgp: false,
            server_bgp: false,
            empty: BTreeSet::new(),
        }
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        Some(match (request.method.as_str(), path) {
            ("GET", ["projects", id]) if *id == self.project => Answer::json(200, self.project_json()),
            ("PUT", ["projects", id]) if *id == self.project => {
                self.project_bgp |= request.body["bgp"] == true;
                Answer::json(200, self.project_json())
            }
            ("GET", ["projects", id, "ips"]) if *id == self.project => self.list(request),
            ("POST", ["projects", id, "ips"]) if *id == self.project => self.create(now, request),
            ("GET", ["ips", id]) => self.rows.find(id).map(|row| Answer::json(200, json(row)))?,
            ("PUT", ["ips", id]) => {
                let row = self.rows.find(id)?;
                if request.body["tags"].is_object() {
                    row.marks = request.body["tags"].clone();
                }
                if let Some(target) = request.text("targeted_to") {
                    row.user = (target != "0").then(|| target.into());
                }
                Answer::json(200, json(row))
            }
            ("DELETE", ["ips", id]) => self.rows.remove(id).map(|_| Answer::no_content())?,
            ("GET", ["servers", id]) if *id == self.server => Answer::json(200, self.server_json()),
            ("PUT", ["servers", id]) if *id == self.server => {
                self.server_bgp |= request.body["bgp"] == true;
                Answer::json(200, self.server_json())
            }
            _ => return None,
        })
    }

    fn list(&self, request: &Request) -> Answer {
        let number = |name: &str, or: u64| usize::try_from(request.number(name).unwrap_or(or)).unwrap_or(usize::MAX);
        let page = self.rows.all().iter().skip(number("offset", 0)).take(number("limit", 100).min(100));
        let page: Vec<_> = page.map(json).collect();
        Answer::json(200, Value::Array(page)).with("X-Total-Count", self.rows.all().len())
    }

    fn create(&mut self, now: Duration, request: &Request) -> Answer {
        let region = request.text("region").unwrap_or_default().to_owned();
        if !REGIONS.contains(&region.as_str()) {
            return self.error(400, "Region does not exist");
        }
        let Some(network) = self.rows.carve(32).filter(|_| !self.empty.contains(&region)) else {
            return self.error(400, "No IP addresses are available");
        };
        let id = self.rows.ids.uuid();
        let marks = request.body.get("tags").cloned().unwrap_or_else(|| json!({}));
        let row = self.rows.add(Row { id, network, region, marks, created: now, user: None });
        Answer::json(201, json(row))
    }

    fn project_json(&self) -> Value {
        json!({ "id": number(&self.project), "name": "lab", "bgp": { "enabled": self.project_bgp, "local_asn": 65000 } })
    }

    fn server_json(&self) -> Value {
        json!({
            "id": number(&self.server), "hostname": "node-1", "state": self.state,
            "region": { "slug": REGIONS[0], "bgp": { "hosts": ["192.0.2.1", "192.0.2.2"], "asn": 16125 } },
            "bgp": { "enabled": self.server_bgp, "available": true, "limit": 10, "connected": 0, "active": 0, "routes": [] },
            "ip_addresses": [
                { "id": "a", "type": "primary-ip", "address": "198.51.100.10", "address_family": 4 },
                { "id": "b", "type": "private-ip", "address": "10.168.0.10", "address_family": 4 },
            ],
        })
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn json(row: &Row) -> Value {
    let target = row.user.as_ref().map(|id| json!({ "id": number(id), "hostname": "node-1" }));
    json!({
        "id": row.id, "address": row.network.addr(), "address_family": 4, "cidr": row.network, "type": "floating-ip",
        "region": { "slug": row.region }, "tags": row.marks, "targeted_to": target, "created_at": rfc3339(row.created.as_secs()),
    })
}

impl Vendor for Cherry {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let path = request.path.clone();
        let path: Vec<_> = path.trim_start_matches("/v1").split('/').filter(|part| !part.is_empty()).collect();
        self.route(now, request, &path).unwrap_or_else(|| self.error(404, "Not found"))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        Answer::json(status, json!({ "code": status, "message": message }))
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        Some(request.bearer().unwrap_or_default())
    }

    fn steer(&mut self, _: Duration, command: &Value) -> Result<(), String> {
        if let Some(region) = command["stock"].as_str() {
            if !self.empty.remove(region) {
                self.empty.insert(region.into());
            }
            return Ok(());
        }
        self.state = command["server_state"].as_str().ok_or("stock or server_state")?.into();
        Ok(())
    }

    fn state(&self) -> Value {
        json!({ "ips": self.rows.all().iter().map(json).collect::<Vec<_>>() })
    }
}
