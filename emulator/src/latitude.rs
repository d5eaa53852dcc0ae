//! Latitude.sh: elastic IPs in BGP mode and their sessions, in JSON:API.
//!
//! A new address has no id until a second request has been answered; released ones stay as `releasing` for one list.
//! Assumed: a session's second POST for the same server answers 422; sessions tell no router.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::{Value, json};

use crate::{
    emulator::Vendor,
    ids::rfc3339,
    lease::{Row, Rows},
    message::{Answer, Request},
};

/// One project with one server.
#[derive(Debug, Clone)]
pub struct Latitude {
    rows: Rows,
    project: String,
    server: String,
    /// Requests after which new addresses are set up.
    settling: u32,
    sessions: Vec<(String, String, String)>,
}

impl Latitude {
    /// An empty project.
    pub fn new(project: &str, server: &str) -> Self {
        let rows = Rows::new(Ipv4Addr::new(198, 18, 0, 0));
        Self { rows, project: project.into(), server: server.into(), settling: 0, sessions: Vec::new() }
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        Some(match (request.method.as_str(), path) {
            ("GET", ["elastic_ips"]) => self.list(request),
            ("POST", ["elastic_ips"]) => self.create(now, request),
            ("GET", ["elastic_ips", id]) => {
                let project = self.project.clone();
                api(200, json!({ "data": json(&project, self.rows.find(id)?), "meta": {} }))
            }
            ("DELETE", ["elastic_ips", id]) => {
                self.sessions.retain(|(_, address, _)| address != id);
                self.rows.remove(id).map(|_| api(202, Value::Null))?
            }
            ("GET", ["elastic_ips", id, "bgp_sessions"]) => {
                self.rows.find(id)?;
                let here = self.sessions.iter().filter(|(_, address, _)| address == id);
                api(200, json!({ "data": here.map(session).collect::<Vec<_>>(), "meta": {} }))
            }
            ("POST", ["elastic_ips", id, "bgp_sessions"]) => self.bind(id, request)?,
            ("DELETE", ["elastic_ips", _, "bgp_sessions", id]) => {
                let at = self.sessions.iter().position(|(own, ..)| own == id)?;
                self.sessions.remove(at);
                api(202, Value::Null)
            }
            ("GET", ["servers", id]) if *id == self.server => {
                let attributes = json!({ "hostname": "node-1", "status": "on", "primary_ipv4": "198.51.100.10" });
                api(200, json!({ "data": { "id": self.server, "type": "servers", "attributes": attributes } }))
            }
            _ => return None,
        })
    }

    fn list(&mut self, request: &Request) -> Answer {
        let number = |name: &str, or: u64| usize::try_from(request.number(name).unwrap_or(or)).unwrap_or(1);
        let size = number("page[size]", 20).clamp(1, 100);
        let skip = (number("page[number]", 1).max(1) - 1) * size;
        let visible = self.rows.all().len().saturating_sub(usize::from(self.settling > 0));
        self.settling = self.settling.saturating_sub(1);
        let page = self.rows.all()[..visible].iter().skip(skip).take(size).map(|row| json(&self.project, row));
        api(200, json!({ "data": page.collect::<Vec<_>>(), "meta": {} }))
    }

    fn create(&mut self, now: Duration, request: &Request) -> Answer {
        let wanted = &request.body["data"]["attributes"];
        if wanted["project_id"].as_str() != Some(&self.project) {
            return self.error(422, "project does not exist");
        }
        let Some(network) = self.rows.carve(32) else { return self.error(422, "no addresses are available") };
        let id = format!("eip_{}", self.rows.ids.number());
        let region = wanted["site"].as_str().unwrap_or("DAL").to_owned();
        self.settling = 1;
        let row = self.rows.add(Row { id, network, region, marks: Value::Null, created: now, user: None });
        let mut data = json(&self.project, row);
        data["id"] = Value::Null;
        data["attributes"]["status"] = json!("pending");
        data["attributes"]["address"] = Value::Null;
        api(202, json!({ "data": data, "meta": {} }))
    }

    fn bind(&mut self, address: &str, request: &Request) -> Option<Answer> {
        self.rows.find(address)?;
        let server = request.body["data"]["attributes"]["server_id"].as_str()?.to_owned();
        if self.sessions.iter().any(|(_, own, by)| own == address && *by == server) {
            return Some(self.error(422, "the server has a session of this address"));
        }
        let id = format!("bgp_{}", self.rows.ids.number());
        self.sessions.push((id, address.into(), server));
        self.sessions.last().map(|made| api(202, json!({ "data": session(made) })))
    }
}

fn api(status: u16, body: Value) -> Answer {
    Answer { content_type: "application/vnd.api+json", ..Answer::json(status, body) }
}

fn session((id, _, server): &(String, String, String)) -> Value {
    let server =
        json!({ "id": server, "hostname": "node-1", "primary_ipv4": "198.51.100.10", "operating_system": null });
    let attributes = json!({ "status": "active", "server_ip": "198.51.100.10", "server": server });
    json!({ "id": id, "type": "bgp_sessions", "attributes": attributes })
}

fn json(project: &str, row: &Row) -> Value {
    let location = json!({ "id": "loc_1", "name": row.region, "slug": row.region });
    json!({ "id": row.id, "type": "elastic_ips", "attributes": {
        "address": row.network.addr(), "family": "IPv4", "prefix_length": row.network.prefix_len(), "mode": "bgp",
        "status": "active", "created_at": rfc3339(row.created.as_secs()), "server": null,
        "project": { "id": project, "name": "lab", "slug": "lab" },
        "region": { "id": "reg_1", "name": "United States", "location": location },
    } })
}

impl Vendor for Latitude {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let path = request.path.clone();
        let path: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        self.route(now, request, &path).unwrap_or_else(|| self.error(404, "not found"))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        api(status, json!({ "errors": [{ "status": status.to_string(), "title": "Error", "detail": message }] }))
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        Some(request.bearer().unwrap_or_default())
    }

    fn steer(&mut self, _: Duration, _: &Value) -> Result<(), String> {
        Err("nothing to steer".into())
    }

    fn state(&self) -> Value {
        let rows: Vec<_> = self.rows.all().iter().map(|row| json(&self.project, row)).collect();
        json!({ "elastic_ips": rows, "bgp_sessions": self.sessions.iter().map(session).collect::<Vec<_>>() })
    }
}
