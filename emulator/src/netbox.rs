//! NetBox's part of addresses: one prefix, its `available-ips`, its `ip-addresses`. Nothing to steer.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};

use crate::{
    emulator::Vendor,
    ids::rfc3339,
    lease::{Row, Rows},
    message::{Answer, Request},
};

/// One prefix, 198.18.0.0/24, by its id.
#[derive(Debug, Clone)]
pub struct NetBox {
    rows: Rows,
    prefix: String,
}

impl NetBox {
    /// An empty prefix.
    pub fn new(prefix: &str) -> Self {
        Self { rows: Rows::new(Ipv4Addr::new(198, 18, 0, 0)), prefix: prefix.into() }
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        Some(match (request.method.as_str(), path) {
            ("GET", ["ipam", "prefixes", id]) if *id == self.prefix => {
                Answer::json(200, json!({ "id": self.prefix.parse::<u64>().ok(), "prefix": "198.18.0.0/24" }))
            }
            ("POST", ["ipam", "prefixes", id, "available-ips"]) if *id == self.prefix => self.create(now, request),
            ("GET", ["ipam", "ip-addresses"]) => self.list(request),
            ("GET", ["ipam", "ip-addresses", id]) => Answer::json(200, json(self.rows.find(id)?)),
            ("PATCH", ["ipam", "ip-addresses", id]) => {
                let row = self.rows.find(id)?;
                if let Some(description) = request.text("description") {
                    row.marks = json!(description);
                }
                Answer::json(200, json(row))
            }
            ("DELETE", ["ipam", "ip-addresses", id]) => self.rows.remove(id).map(|_| Answer::no_content())?,
            _ => return None,
        })
    }

    fn list(&self, request: &Request) -> Answer {
        let number = |name: &str, or: u64| usize::try_from(request.number(name).unwrap_or(or)).unwrap_or(usize::MAX);
        let (limit, offset, all) = (number("limit", 50).clamp(1, 1000), number("offset", 0), self.rows.all());
        let page: Vec<_> = all.iter().skip(offset).take(limit).map(json).collect();
        let next = (offset + limit < all.len()).then(|| format!("/ipam/ip-addresses/?offset={}", offset + limit));
        Answer::json(200, json!({ "count": all.len(), "next": next, "previous": null, "results": page }))
    }

    fn create(&mut self, now: Duration, request: &Request) -> Answer {
        let network = self.rows.carve(32).filter(|_| self.rows.all().len() < 254);
        let Some(network) = network else {
            return self.error(409, "An insufficient number of IP addresses are available");
        };
        let id = self.rows.ids.number().to_string();
        let marks = json!(request.text("description").unwrap_or_default());
        let row = Row { id, network, region: String::new(), marks, created: now, user: None };
        Answer::json(201, json(self.rows.add(row)))
    }
}

fn json(row: &Row) -> Value {
    json!({
        "id": row.id.parse::<u64>().ok(), "address": format!("{}/24", row.network.addr()), "description": row.marks,
        "status": { "value": "active", "label": "Active" }, "family": { "value": 4, "label": "IPv4" }, "tags": [],
        "assigned_object": null, "created": rfc3339(row.created.as_secs()),
    })
}

impl Vendor for NetBox {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let path = request.path.clone();
        let path: Vec<_> = path.trim_start_matches("/api").split('/').filter(|part| !part.is_empty()).collect();
        self.route(now, request, &path).unwrap_or_else(|| self.error(404, "No such object"))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        Answer::json(status, json!({ "detail": message }))
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        let header = request.headers.get("authorization").map_or("", String::as_str);
        Some(header.strip_prefix("Token ").unwrap_or_default())
    }

    fn steer(&mut self, _: Duration, _: &Value) -> Result<(), String> {
        Err("nothing to steer".into())
    }

    fn state(&self) -> Value {
        json!({ "ip_addresses": self.rows.all().iter().map(json).collect::<Vec<_>>() })
    }
}
