//! phoenixNAP BMC: tokens by client credentials, IP blocks, BGP peer groups, servers. The three APIs lie below
//! `/ips/v1`, `/networks/v1` and `/bmc/v1`, the tokens at `/token`; where a proxy took the prefix away, paths are told apart
//! by their first word.
//!
//! Assumed: a block that does not exist answers 403, the only status that fits; a block is usable (`unassigned`) at once, a peer group is `PENDING` until it has been read once.
//! Steering: `{"stock": false}`.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    emulator::Vendor,
    ids::rfc3339,
    lease::{Row, Rows},
    message::{Answer, Request},
};

const LOCATIONS: [&str; 7] = ["PHX", "ASH", "SGP", "NLD", "CHI", "SEA", "AUS"];

/// One account with one server.
#[derive(Debug, Clone)]
pub struct PhoenixNap {
    rows: Rows,
    server: String,
    client: (String, String),
    token: String,
    groups: Vec<Value>,
    stock: bool,
}

impl PhoenixNap {
    /// An empty account: its clients exchange id and secret for the token.
    pub fn new(server: &str, client: &str, secret: &str, token: &str) -> Self {
        Self {
            rows: Rows::new(Ipv4Addr::new(198, 18, 0, 0)),
            server: server.into(),
            client: (client.into(), secret.into()),
            token: token.into(),
            groups: Vec::new(),
            stock: true,
        }
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        Some(match (request.method.as_str(), path) {
            ("POST", ["token"]) => self.grant(request),
            ("GET", ["ip-blocks"]) => Answer::json(200, self.rows.all().iter().map(json).collect()),
            ("POST", ["ip-blocks"]) => self.create(now, request),
            ("GET", ["ip-blocks", id]) => self.rows.find(id).map(|row| Answer::json(200, json(row)))?,
            ("PATCH", ["ip-blocks", id]) => {
                let row = self.rows.find(id)?;
                row.marks = request.body.get("description").cloned().unwrap_or_else(|| json!(""));
                Answer::json(200, json(row))
            }
            ("DELETE", ["ip-blocks", id]) => {
                let row = self.rows.remove(id)?;
                Answer::json(200, json!({ "result": "The IP Block has been deleted.", "ipBlockId": row.id }))
            }
            ("GET", ["bgp-peer-groups"]) => self.list_groups(request),
            ("POST", ["bgp-peer-groups"]) => self.create_group(now, request),
            ("GET", ["bgp-peer-groups", id]) => {
                Answer::json(200, self.groups.iter().find(|group| group["id"] == *id)?.clone())
            }
            ("GET", ["servers", id]) if *id == self.server => Answer::json(200, self.server_json()),
            _ => return None,
        })
    }

    /// RFC 6749 §4.4.
    fn grant(&self, request: &Request) -> Answer {
        let (id, secret) = &self.client;
        let right = request.text("grant_type") == Some("client_credentials")
            && request.text("client_id") == Some(id)
            && request.text("client_secret") == Some(secret);
        if !right {
            return Answer::json(
                401,
                json!({ "error": "invalid_client", "error_description": "Invalid client credentials" }),
            );
        }
        Answer::json(200, json!({ "access_token": self.token, "token_type": "Bearer", "expires_in": 300 }))
    }

    fn create(&mut self, now: Duration, request: &Request) -> Answer {
        let location = request.text("location").unwrap_or_default();
        if !LOCATIONS.contains(&location) {
            return self.error(400, "Location is not valid");
        }
        let size = request.text("cidrBlockSize").and_then(|size| size.trim_start_matches('/').parse::<u8>().ok());
        let network: Option<IpNet> = match (request.text("ipVersion").unwrap_or("V4"), size) {
            ("V4", Some(bits @ 28..=31)) => self.rows.carve(bits),
            ("V6", Some(64)) => format!("2001:db8:{:x}::/64", self.rows.ids.number()).parse().ok(),
            _ => return self.error(400, "cidrBlockSize is not valid"),
        };
        let Some(network) = network.filter(|_| self.stock) else {
            return self.error(406, "No IP blocks of this size are available");
        };
        let id = self.rows.ids.object();
        let marks = request.body.get("description").cloned().unwrap_or_else(|| json!(""));
        let row = Row { id, network, region: location.into(), marks, created: now, user: None };
        Answer::json(201, json(self.rows.add(row)))
    }

    fn list_groups(&mut self, request: &Request) -> Answer {
        let wanted = |group: &&Value| request.query("location").is_none_or(|location| group["location"] == location);
        let groups: Vec<_> = self.groups.iter().filter(wanted).cloned().collect();
        for group in &mut self.groups {
            group["status"] = json!("READY");
        }
        Answer::json(200, Value::Array(groups))
    }

    fn create_group(&mut self, now: Duration, request: &Request) -> Answer {
        let location = request.text("location").unwrap_or_default();
        if self.groups.iter().any(|group| group["location"] == location) {
            return self.error(409, "A BGP peer group exists in the location");
        }
        let asn = json!({ "asn": request.body["asn"], "isBringYourOwn": false, "verificationStatus": "VERIFIED" });
        let at = rfc3339(now.as_secs());
        let group = json!({
            "id": self.rows.ids.object(), "status": "PENDING", "location": location, "ipPrefixes": [], "ipv4Prefixes": [],
            "targetAsnDetails": asn, "activeAsnDetails": asn,
            "password": request.text("password").unwrap_or("E!73423ghhjfge45"),
            "advertisedRoutes": request.text("advertisedRoutes").unwrap_or("NONE"), "rpkiRoaOriginAsn": 20454,
            "eBgpMultiHop": 7, "peeringLoopbacksV4": ["169.254.247.0", "169.254.247.1"],
            "peeringLoopbacksV6": ["fd00:0:0:1005::1", "fd00:0:0:1005::2"], "keepAliveTimerSeconds": 10,
            "holdTimerSeconds": 30, "createdOn": at, "lastUpdatedOn": at,
        });
        self.groups.push(group.clone());
        Answer::json(202, group)
    }

    fn server_json(&self) -> Value {
        json!({
            "id": self.server, "status": "powered-on", "hostname": "node-1", "os": "ubuntu/noble", "type": "s2.c1.small",
            "location": "PHX", "cpu": "E-2276G", "cpuCount": 1, "coresPerCpu": 6, "cpuFrequency": 3.8, "ram": "64GB RAM",
            "storage": "1x 960GB NVMe", "privateIpAddresses": ["10.0.0.11"], "publicIpAddresses": ["198.51.100.10"],
            "pricingModel": "HOURLY", "networkType": "PUBLIC_AND_PRIVATE", "networkConfiguration": {},
            "storageConfiguration": {}, "tags": [],
        })
    }
}

fn json(row: &Row) -> Value {
    json!({
        "id": row.id, "location": row.region, "cidrBlockSize": format!("/{}", row.network.prefix_len()), "cidr": row.network,
        "ipVersion": if row.network.addr().is_ipv4() { "V4" } else { "V6" }, "status": "unassigned",
        "description": row.marks, "tags": [], "isSystemManaged": false, "isBringYourOwn": false,
        "createdOn": rfc3339(row.created.as_secs()),
    })
}

impl Vendor for PhoenixNap {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let path = request.path.clone();
        let below =
            ["/ips/v1", "/networks/v1", "/bmc/v1"].iter().find_map(|api| path.strip_prefix(api)).unwrap_or(&path);
        let path: Vec<_> = below.split('/').filter(|part| !part.is_empty()).collect();
        // The specification of blocks has no 404 but for PATCH.
        let status = if path.first() == Some(&"ip-blocks") && request.method != "PATCH" { 403 } else { 404 };
        self.route(now, request, &path).unwrap_or_else(|| self.error(status, "The resource is not accessible"))
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        Answer::json(status, json!({ "message": message, "validationErrors": [] }))
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        (request.path != "/token").then(|| request.bearer().unwrap_or_default())
    }

    fn steer(&mut self, _: Duration, command: &Value) -> Result<(), String> {
        self.stock = command["stock"].as_bool().ok_or("stock")?;
        Ok(())
    }

    fn state(&self) -> Value {
        json!({ "ip_blocks": self.rows.all().iter().map(json).collect::<Vec<_>>(), "bgp_peer_groups": self.groups })
    }
}
