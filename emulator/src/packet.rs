//! Packet / Equinix Metal: project addresses, project BGP, devices, BGP sessions and neighbours, the metadata service.
//!
//! Answers follow `packet.openapi.yaml` strictly. With [`Packet::loose`] they have the holes of recorded answers instead: no
//! `type`, and `null` for `details` and `facility`. Paths work with and without `/metal/v1` (older clients had no prefix).
//! A POST without a body takes its fields from the query, as Rails does and Apache Libcloud relies on.
//!
//! Assumed, since neither specification nor recordings say it: `per_page` above [`Packet::page_limit`] is cut to it; a reservation with
//! assignments cannot be deleted (422); `public_ipv6` gives a /56; an unknown metro and one without stock answer 422.
//!
//! Steering ([`crate::Vendor::steer`]), one key each: [`Steer`].

mod addresses;
mod bgp;
mod devices;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

pub use self::{
    addresses::Reservation,
    bgp::{BgpConfig, Generation},
    devices::Device,
};
use crate::{
    emulator::Vendor,
    ids::Ids,
    message::{Answer, Request},
};

/// What only people can do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Steer {
    /// A pending reservation is approved, by its id.
    Approve(String),
    /// A pending reservation is denied, by its id.
    Deny(String),
    /// Pending reservations are approved by themselves after so many milliseconds; 0 is never.
    ApproveAfter(u64),
    /// So many addresses without review.
    Quota(u64),
    /// A metro has none left.
    OutOfStock(String),
    /// A metro has some again.
    InStock(String),
    /// The requested global BGP is enabled.
    EnableBgp,
    /// Prefixes that a session may carry.
    MaxPrefix(u64),
    /// A device's state, by its id: `active`, `inactive`, `powering_off` …
    DeviceState(String, String),
    /// A device is gone.
    DeleteDevice(String),
    /// A device got another private address and gateway.
    DeviceAddress(String, Ipv4Addr, Ipv4Addr),
    /// A generation of peering for a device.
    Peering(String, Generation),
    /// Somebody reserved an address by hand, with these tags.
    Reserve {
        /// `public_ipv4` …
        kind: String,
        /// Metro code.
        metro: String,
        /// Tags.
        tags: Vec<String>,
    },
    /// Answers with the holes of recorded ones, or strictly after the specification.
    Loose(bool),
}

/// One project and what belongs to it.
#[derive(Debug, Clone)]
pub struct Packet {
    ids: Ids,
    project: String,
    reservations: Vec<Reservation>,
    devices: Vec<Device>,
    bgp: Option<BgpConfig>,
    sessions: Vec<bgp::Session>,
    /// Answers have the holes of recorded ones.
    pub loose: bool,
    /// Addresses that the project may have without review.
    pub quota: u64,
    /// Approval without people, after this time.
    pub approve_after: Option<Duration>,
    /// Prefixes per session, of a BGP configuration made from now on.
    pub max_prefix: u64,
    /// The largest page that it gives.
    pub page_limit: u64,
    /// First address of what IPv4 is carved from; a /16.
    pub public_ipv4: Ipv4Addr,
    /// First address of what IPv6 is carved from; a /32.
    pub public_ipv6: Ipv6Addr,
    out_of_stock: BTreeSet<String>,
}

/// Metros that exist, with their names.
const METROS: [(&str, &str); 4] = [("am", "Amsterdam"), ("da", "Dallas"), ("ny", "New York"), ("sv", "Silicon Valley")];

impl Packet {
    /// An empty project (its id is a UUID), with a quota of 2000 addresses.
    pub fn new(project: &str) -> Self {
        Self {
            ids: Ids::default(),
            project: project.into(),
            reservations: Vec::new(),
            devices: Vec::new(),
            bgp: None,
            sessions: Vec::new(),
            loose: false,
            quota: 2000,
            approve_after: None,
            max_prefix: 10,
            page_limit: 1000,
            public_ipv4: Ipv4Addr::new(198, 18, 0, 0),
            public_ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
            out_of_stock: BTreeSet::new(),
        }
    }

    /// Adds a device and gives its id.
    pub fn add(&mut self, mut device: Device) -> String {
        if device.id.is_empty() {
            device.id = self.ids.uuid();
        }
        let id = device.id.clone();
        self.devices.push(device);
        id
    }

    /// The reservations that exist, the oldest first.
    pub fn reservations(&self) -> &[Reservation] {
        &self.reservations
    }

    fn route(&mut self, now: Duration, request: &Request, path: &[&str]) -> Option<Answer> {
        let project = self.project.clone();
        Some(match (request.method.as_str(), path) {
            ("GET", ["projects"]) => {
                Answer::json(200, json!({ "projects": [self.project_json()], "meta": meta(1, 1, 1, "/projects") }))
            }
            ("GET", ["projects", id]) if *id == project => Answer::json(200, self.project_json()),
            ("GET", ["projects", id, "ips"]) if *id == project => self.list_reservations(request),
            ("POST", ["projects", id, "ips"]) if *id == project => self.reserve(now, request),
            ("GET", ["projects", id, "bgp-config"]) if *id == project => Answer::json(200, self.bgp_config_json()),
            ("POST", ["projects", id, "bgp-configs"]) if *id == project => self.request_bgp(now, request),
            ("GET", ["projects", id, "bgp", "sessions"]) if *id == project => self.list_sessions(None),
            ("GET", ["projects", id, "devices"]) if *id == project => self.list_devices(request),
            ("GET", ["locations", "metros"]) => {
                Answer::json(200, json!({ "metros": METROS.map(|(code, _)| metro(code)) }))
            }
            ("GET", ["ips", id]) => self.address(id)?,
            ("PATCH", ["ips", id]) => self.update_address(id, request)?,
            ("DELETE", ["ips", id]) => self.delete_address(id)?,
            ("GET", ["ips", id, "available"]) => self.available(id, request)?,
            ("GET", ["devices", id]) => Answer::json(200, self.device_json(self.device(id)?)),
            ("GET", ["devices", id, "ips"]) => self.device_addresses(id)?,
            ("POST", ["devices", id, "ips"]) => self.assign(now, id, request)?,
            ("GET", ["devices", id, "bgp", "sessions"]) => self.device(id).map(|_| self.list_sessions(Some(id)))?,
            ("POST", ["devices", id, "bgp", "sessions"]) => self.create_session(now, id, request)?,
            ("GET", ["devices", id, "bgp", "neighbors"]) => {
                Answer::json(200, json!({ "bgp_neighbors": self.neighbours(self.device(id)?) }))
            }
            ("GET", ["bgp", "sessions", id]) => self.session(id)?,
            ("DELETE", ["bgp", "sessions", id]) => self.delete_session(id)?,
            _ => return None,
        })
    }

    fn project_json(&self) -> Value {
        let devices: Vec<_> = self.devices.iter().map(|device| href(&format!("/devices/{}", device.id))).collect();
        json!({
            "id": self.project, "name": "lab", "href": format!("/projects/{}", self.project), "devices": devices,
            "created_at": crate::ids::rfc3339(0), "customdata": {}, "members": [], "memberships": [], "invitations": [],
            "ssh_keys": [], "volumes": [], "backend_transfer_enabled": false,
        })
    }

    /// Approvals that came due.
    fn pass_time(&mut self, now: Duration) {
        let Some(after) = self.approve_after else { return };
        let due = |reservation: &&Reservation| reservation.pending && now >= reservation.requested + after;
        let due: Vec<_> = self.reservations.iter().filter(due).map(|reservation| reservation.id.clone()).collect();
        for id in due {
            let _ = self.approve(&id);
        }
    }
}

impl Vendor for Packet {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        self.pass_time(now);
        let mut request = request.clone();
        if request.method == "POST" && request.body.is_null() {
            request.body = fields_of_query(&request);
        }
        if let Some(device) = self.of_metadata(&request) {
            return device.map_or_else(not_found, |device| Answer::json(200, self.metadata(device)));
        }
        let path = request.path.clone();
        let path: Vec<_> = path.trim_start_matches("/metal/v1").split('/').filter(|part| !part.is_empty()).collect();
        self.route(now, &request, &path).unwrap_or_else(not_found)
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        // Gateways in front of the API use the one form, the API itself the other.
        match status {
            401 | 403 | 429 | 500.. => Answer::json(status, json!({ "error": message })),
            _ => refused(status, message),
        }
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        if devices::is_metadata(&request.path) {
            return None;
        }
        Some(request.headers.get("x-auth-token").map_or("", String::as_str))
    }

    fn steer(&mut self, now: Duration, command: &Value) -> Result<(), String> {
        let steer: Steer = serde_json::from_value(command.clone()).map_err(|error| error.to_string())?;
        let gone = || "no such object".to_owned();
        match steer {
            Steer::Approve(id) => return self.approve(&id).ok_or_else(gone),
            Steer::Deny(id) => return self.deny(&id).ok_or_else(gone),
            Steer::ApproveAfter(millis) => self.approve_after = (millis > 0).then(|| Duration::from_millis(millis)),
            Steer::Quota(quota) => self.quota = quota,
            Steer::OutOfStock(metro) => _ = self.out_of_stock.insert(metro),
            Steer::InStock(metro) => _ = self.out_of_stock.remove(&metro),
            Steer::EnableBgp => self.bgp.as_mut().ok_or_else(gone)?.enabled = true,
            Steer::MaxPrefix(max) => {
                self.max_prefix = max;
                self.bgp.iter_mut().for_each(|config| config.max_prefix = max);
            }
            Steer::DeviceState(id, state) => self.device_mut(&id).ok_or_else(gone)?.state = state,
            Steer::DeleteDevice(id) => self.delete_device(&id),
            Steer::DeviceAddress(id, address, gateway) => {
                self.device_mut(&id).ok_or_else(gone)?.private = (address, gateway);
            }
            Steer::Peering(id, generation) => self.device_mut(&id).ok_or_else(gone)?.generation = generation,
            Steer::Reserve { kind, metro, tags } => {
                let body = json!({ "type": kind, "metro": metro, "quantity": 1, "tags": tags });
                let answer = self.reserve(now, &Request::new("POST", "/", body));
                return if answer.status == 201 { Ok(()) } else { Err(answer.body.to_string()) };
            }
            Steer::Loose(loose) => self.loose = loose,
        }
        Ok(())
    }

    fn state(&self) -> Value {
        let reservations: Vec<_> = self.reservations.iter().map(|one| self.reservation_json(one)).collect();
        let devices: Vec<_> = self.devices.iter().map(|device| self.device_json(device)).collect();
        json!({
            "project": self.project, "ip_addresses": reservations, "devices": devices, "bgp_config": self.bgp_config_json(),
            "bgp_sessions": self.list_sessions(None).body["bgp_sessions"],
        })
    }
}

fn href(path: &str) -> Value {
    json!({ "href": path })
}

fn metro(code: &str) -> Value {
    let name = METROS.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| name);
    let n = code.bytes().fold(0_u64, |n, byte| n << 8 | u64::from(byte));
    json!({ "id": format!("00000000-0000-4000-8000-{n:012x}"), "code": code, "name": name, "country": "XX" })
}

fn meta(page: u64, last: u64, total: usize, path: &str) -> Value {
    let at = |page: u64| href(&format!("{path}?page={page}"));
    let mut meta = json!({
        "current_page": page, "last_page": last, "total": total, "self": at(page), "first": at(1), "last": at(last),
    });
    if page < last {
        meta["next"] = at(page + 1);
    }
    if page > 1 {
        meta["previous"] = at(page - 1);
    }
    meta
}

/// One page of a list: `page` from 1, `per_page` up to a limit.
fn page_of<T>(all: Vec<T>, request: &Request, (default, limit): (u64, u64), path: &str) -> (Vec<T>, Value) {
    let size = request.number("per_page").unwrap_or(default).clamp(1, limit.max(1));
    let page = request.number("page").unwrap_or(1).max(1);
    let total = all.len();
    let last = (total as u64).div_ceil(size).max(1);
    let skip = usize::try_from((page - 1) * size).unwrap_or(usize::MAX);
    let take = usize::try_from(size).unwrap_or(usize::MAX);
    (all.into_iter().skip(skip).take(take).collect(), meta(page, last, total, path))
}

fn refused(status: u16, message: &str) -> Answer {
    Answer::json(status, json!({ "errors": [message] }))
}

fn not_found() -> Answer {
    refused(404, "Not found")
}

fn fields_of_query(request: &Request) -> Value {
    let field = |(name, value): &(String, String)| {
        let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
        (name.clone(), value)
    };
    Value::Object(request.query.iter().map(field).collect())
}
