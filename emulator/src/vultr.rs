//! Vultr: reserved IPs, the account's BGP, bare metal and its metadata. `GET /account/bgp` is in no specification;
//! its form is `{enabled, asn, password}` below `bgp_info`.
//!
//! Steering: `{"bgp": true}` as people enable it.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    emulator::Vendor,
    lease::{Row, Rows},
    message::{Answer, Request},
};

const REGIONS: [&str; 2] = ["ewr", "ams"];

/// One account with one bare-metal machine.
#[derive(Debug, Clone)]
pub struct Vultr {
    rows: Rows,
    machine: String,
    bgp: bool,
    /// The largest page that it gives.
    pub page_limit: usize,
}

impl Vultr {
    /// An empty account.
    pub fn new(machine: &str) -> Self {
        let rows = Rows::new(Ipv4Addr::new(198, 18, 0, 0));
        Self { rows, machine: machine.into(), bgp: false, page_limit: 500 }
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        Some(match (request.method.as_str(), path) {
            ("GET", ["reserved-ips"]) => self.list(request),
            ("POST", ["reserved-ips"]) => self.create(now, request),
            ("GET", ["reserved-ips", id]) => one(200, self.rows.find(id)?),
            ("PATCH", ["reserved-ips", id]) => {
                let row = self.rows.find(id)?;
                if let Some(label) = request.text("label") {
                    row.marks = json!(label);
                }
                one(200, row)
            }
            ("DELETE", ["reserved-ips", id]) => self.rows.remove(id).map(|_| Answer::no_content())?,
            ("POST", ["reserved-ips", id, "attach"]) => {
                self.rows.find(id)?.user = Some(request.text("instance_id")?.into());
                Answer::no_content()
            }
            ("POST", ["reserved-ips", id, "detach"]) => {
                self.rows.find(id)?.user = None;
                Answer::no_content()
            }
            ("GET", ["account", "bgp"]) => {
                let info = json!({ "enabled": self.bgp, "asn": 4_288_000_001_u32, "password": "peer-password" });
                Answer::json(200, json!({ "bgp_info": info }))
            }
            ("GET", ["bare-metals", id]) if *id == self.machine => Answer::json(200, self.machine_json()),
            ("GET", ["v1.json"]) => Answer::json(200, metadata(self.bgp)),
            _ => return None,
        })
    }

    /// Cursors are the place in the list, made opaque.
    fn list(&self, request: &Request) -> Answer {
        let size = usize::try_from(request.number("per_page").unwrap_or(100)).unwrap_or(100).clamp(1, self.page_limit);
        let at = request.query("cursor").and_then(|cursor| cursor.strip_prefix("bmV4dF")?.parse().ok()).unwrap_or(0);
        let all = self.rows.all();
        let page: Vec<_> = all.iter().skip(at).take(size).map(json).collect();
        let next = if at + size < all.len() { format!("bmV4dF{}", at + size) } else { String::new() };
        let meta = json!({ "total": all.len(), "links": { "next": next, "prev": "" } });
        Answer::json(200, json!({ "reserved_ips": page, "meta": meta }))
    }

    fn create(&mut self, now: Duration, request: &Request) -> Answer {
        let (region, kind) = (request.text("region").unwrap_or_default(), request.text("ip_type"));
        if !REGIONS.contains(&region) {
            return self.error(400, "Invalid region");
        }
        let id = self.rows.ids.uuid();
        let network: Option<IpNet> = match kind {
            Some("v4") => self.rows.carve(32),
            Some("v6") => format!("2001:db8:{:x}::/64", self.rows.ids.number()).parse().ok(),
            _ => return self.error(400, "Invalid ip_type"),
        };
        let Some(network) = network else { return self.error(400, "No addresses are available") };
        let marks = json!(request.text("label").unwrap_or_default());
        one(201, self.rows.add(Row { id, network, region: region.into(), marks, created: now, user: None }))
    }

    fn machine_json(&self) -> Value {
        json!({ "bare_metal": {
            "id": self.machine, "status": "active", "region": REGIONS[0], "label": "node-1", "main_ip": "198.51.100.10",
            "netmask_v4": "255.255.254.0", "gateway_v4": "198.51.100.1", "v6_main_ip": "2001:db8:5::10",
            "v6_network": "2001:db8:5::", "v6_network_size": 64, "tags": [], "cpu_count": 8, "ram": "32768 MB",
        } })
    }
}

fn metadata(bgp: bool) -> Value {
    let family = |own: &str, peer: &str| {
        json!({
            "my-address": own, "my-asn": "4288000001", "peer-address": peer, "peer-asn": "20473",
        })
    };
    let mut metadata = json!({ "hostname": "node-1", "instanceid": "1", "region": { "regioncode": "EWR" } });
    if bgp {
        let (v4, v6) = (family("198.51.100.10", "169.254.1.1"), family("2001:db8:5::10", "2001:19f0:ffff::1"));
        metadata["bgp"] = json!({ "ipv4": v4, "ipv6": v6 });
    }
    metadata
}

fn one(status: u16, row: &Row) -> Answer {
    Answer::json(status, json!({ "reserved_ip": json(row) }))
}

fn json(row: &Row) -> Value {
    json!({
        "id": row.id, "region": row.region, "ip_type": if row.network.addr().is_ipv4() { "v4" } else { "v6" },
        "subnet": row.network.network(), "subnet_size": row.network.prefix_len(), "label": row.marks,
        "instance_id": row.user.clone().unwrap_or_default(),
    })
}

impl Vendor for Vultr {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let path = request.path.clone();
        let path: Vec<_> = path.trim_start_matches("/v2").split('/').filter(|part| !part.is_empty()).collect();
        self.route(now, request, &path).unwrap_or_else(|| self.error(404, "Not found"))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        Answer::json(status, json!({ "error": message, "status": status }))
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        (request.path != "/v1.json").then(|| request.bearer().unwrap_or_default())
    }

    fn steer(&mut self, _: Duration, command: &Value) -> Result<(), String> {
        self.bgp = command["bgp"].as_bool().ok_or("bgp")?;
        Ok(())
    }

    fn state(&self) -> Value {
        json!({ "reserved_ips": self.rows.all().iter().map(json).collect::<Vec<_>>() })
    }
}
