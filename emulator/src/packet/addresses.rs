//! Reservations and assignments: one space of ids for both.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{METROS, Packet, href, metro, page_of, refused};
use crate::{
    ids::rfc3339,
    message::{Answer, Request},
};

/// A reservation.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// UUID.
    pub id: String,
    /// `public_ipv4`, `public_ipv6`, `global_ipv4`, `private_ipv4`.
    pub kind: String,
    /// Metro code; global ones have none.
    pub metro: Option<String>,
    /// The block; none while waiting for approval.
    pub block: Option<IpNet>,
    /// Waits for people.
    pub pending: bool,
    /// People said no.
    pub denied: bool,
    /// Marks.
    pub tags: Vec<String>,
    /// Free text.
    pub details: Option<String>,
    /// Free object.
    pub customdata: Value,
    /// When it was asked for, since 1970.
    pub requested: Duration,
    pub(super) quantity: u64,
    pub(super) assignments: Vec<Assignment>,
}

/// A part of a reservation on a device.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    pub(super) id: String,
    pub(super) device: String,
    pub(super) net: IpNet,
    created: Duration,
}

impl Packet {
    pub(super) fn list_reservations(&self, request: &Request) -> Answer {
        let types: Vec<_> =
            request.query.iter().filter(|(name, _)| name == "types").flat_map(|(_, value)| value.split(',')).collect();
        let wanted = |one: &&Reservation| types.is_empty() || types.contains(&one.kind.as_str());
        let all: Vec<_> = self.reservations.iter().filter(wanted).collect();
        let (page, meta) = page_of(all, request, (250, self.page_limit), &format!("/projects/{}/ips", self.project));
        let page: Vec<_> = page.into_iter().map(|one| self.reservation_json(one)).collect();
        Answer::json(200, json!({ "ip_addresses": page, "meta": meta }))
    }

    pub(super) fn reserve(&mut self, now: Duration, request: &Request) -> Answer {
        let (Some(kind), Some(quantity)) = (request.text("type"), request.body.get("quantity").and_then(Value::as_u64))
        else {
            return refused(422, "Type and quantity are required");
        };
        if !quantity.is_power_of_two() || quantity > 256 {
            return refused(422, "Quantity must be a power of two up to 256");
        }
        let metro = match self.place(kind, request.text("metro")) {
            Ok(metro) => metro,
            Err(why) => return refused(422, &why),
        };
        let held: u64 = self.reservations.iter().filter(|one| !one.denied).map(|one| one.quantity).sum();
        let pending = held + quantity > self.quota;
        if pending && request.body.get("fail_on_approval_required") == Some(&Value::Bool(true)) {
            return refused(422, "The request exceeds the quota of the project and needs approval");
        }
        let strings = |value: &Value| value.as_str().map(str::to_owned);
        let tags = request.body.get("tags").and_then(Value::as_array);
        let reservation = Reservation {
            id: self.ids.uuid(),
            kind: kind.into(),
            metro,
            block: if pending { None } else { self.carve(kind, quantity) },
            pending,
            denied: false,
            tags: tags.map(|tags| tags.iter().filter_map(strings).collect()).unwrap_or_default(),
            details: request.text("details").map(str::to_owned),
            customdata: request.body.get("customdata").cloned().unwrap_or_else(|| json!({})),
            requested: now,
            quantity,
            assignments: Vec::new(),
        };
        if !pending && reservation.block.is_none() {
            return refused(422, "No addresses are left");
        }
        let answer = Answer::json(201, self.reservation_json(&reservation));
        self.reservations.push(reservation);
        answer
    }

    /// The metro of a reservation of this kind, or why there can be none.
    fn place(&self, kind: &str, metro: Option<&str>) -> Result<Option<String>, String> {
        match (kind, metro) {
            ("global_ipv4", None) => Ok(None),
            ("global_ipv4", Some(_)) => Err("Global addresses take no metro".into()),
            ("public_ipv4" | "public_ipv6" | "private_ipv4", Some(metro)) => {
                let code = metro.to_ascii_lowercase();
                if !METROS.iter().any(|(known, _)| *known == code) {
                    return Err(format!("{metro} is not a valid metro"));
                }
                if self.out_of_stock.contains(&code) {
                    return Err(format!("No addresses are available in {metro}"));
                }
                Ok(Some(code))
            }
            ("public_ipv4" | "public_ipv6" | "private_ipv4", None) => Err("Metro is required".into()),
            _ => Err(format!("{kind} is not a valid type")),
        }
    }

    /// The first free block of a kind.
    fn carve(&self, kind: &str, quantity: u64) -> Option<IpNet> {
        let v6 = u128::from(self.public_ipv6);
        let v4 = u128::from(u32::from(self.public_ipv4));
        let private = u128::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)));
        // Where it begins, how large the space is, how large the block.
        let (base, space, size) = match kind {
            "public_ipv6" => (v6, 1 << 96, 1 << 72),
            "private_ipv4" => (private, 0x1_0000, quantity.into()),
            "global_ipv4" => (v4 + 0xff00, 0x100, quantity.into()),
            _ => (v4, 0xff00, quantity.into()),
        };
        let mut taken: Vec<_> = self.reservations.iter().filter_map(|one| one.block).map(bounds).collect();
        taken.sort_unstable();
        let mut start: u128 = base + size;
        for (first, last) in taken.into_iter().filter(|(_, last)| *last >= base + size) {
            if first >= start + size {
                break;
            }
            start = start.max((last + 1).next_multiple_of(size));
        }
        if start + size > base + space {
            return None;
        }
        let bits = size.trailing_zeros();
        if kind == "public_ipv6" {
            return IpNet::new(Ipv6Addr::from(start).into(), u8::try_from(128 - bits).ok()?).ok();
        }
        let start = Ipv4Addr::from(u32::try_from(start).ok()?);
        IpNet::new(start.into(), u8::try_from(32 - bits).ok()?).ok()
    }

    pub(super) fn approve(&mut self, id: &str) -> Option<()> {
        let found = self.reservations.iter().find(|one| one.id == id && one.pending)?;
        let block = self.carve(&found.kind, found.quantity)?;
        let found = self.reservations.iter_mut().find(|one| one.id == id)?;
        (found.pending, found.block) = (false, Some(block));
        Some(())
    }

    pub(super) fn deny(&mut self, id: &str) -> Option<()> {
        let found = self.reservations.iter_mut().find(|one| one.id == id && one.pending)?;
        (found.pending, found.denied) = (false, true);
        Some(())
    }

    pub(super) fn address(&self, id: &str) -> Option<Answer> {
        if let Some(found) = self.reservations.iter().find(|one| one.id == id) {
            return Some(Answer::json(200, self.reservation_json(found)));
        }
        let (parent, found) = self.assignment(id)?;
        Some(Answer::json(200, assignment_json(parent, found)))
    }

    fn assignment(&self, id: &str) -> Option<(&Reservation, &Assignment)> {
        self.reservations
            .iter()
            .find_map(|parent| parent.assignments.iter().find(|one| one.id == id).map(|found| (parent, found)))
    }

    pub(super) fn update_address(&mut self, id: &str, request: &Request) -> Option<Answer> {
        let Some(found) = self.reservations.iter_mut().find(|one| one.id == id) else { return self.address(id) };
        if let Some(tags) = request.body.get("tags").and_then(Value::as_array) {
            found.tags = tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect();
        }
        if let Some(details) = request.text("details") {
            found.details = Some(details.into());
        }
        if let Some(customdata) = request.body.get("customdata").filter(|data| data.is_object()) {
            found.customdata = customdata.clone();
        }
        self.address(id)
    }

    pub(super) fn delete_address(&mut self, id: &str) -> Option<Answer> {
        for reservation in &mut self.reservations {
            if let Some(at) = reservation.assignments.iter().position(|one| one.id == id) {
                reservation.assignments.remove(at);
                return Some(Answer::no_content());
            }
        }
        let at = self.reservations.iter().position(|one| one.id == id)?;
        if !self.reservations[at].assignments.is_empty() {
            return Some(refused(422, "Cannot delete a reservation with assignments"));
        }
        self.reservations.remove(at);
        Some(Answer::no_content())
    }

    pub(super) fn available(&self, id: &str, request: &Request) -> Option<Answer> {
        let found = self.reservations.iter().find(|one| one.id == id)?;
        let Some(bits) = request.number("cidr").and_then(|cidr| u8::try_from(cidr).ok()) else {
            return Some(refused(422, "Cidr is required"));
        };
        let taken =
            |part: &IpNet| found.assignments.iter().any(|one| one.net.contains(part) || part.contains(&one.net));
        let parts = found.block.and_then(|block| block.subnets(bits).ok());
        let free: Vec<_> = parts.into_iter().flatten().take(1024).filter(|part| !taken(part)).collect();
        Some(Answer::json(200, json!({ "available": free })))
    }

    pub(super) fn device_addresses(&self, id: &str) -> Option<Answer> {
        let device = self.device_json(self.device(id)?);
        Some(Answer::json(200, json!({ "ip_addresses": device["ip_addresses"] })))
    }

    pub(super) fn assign(&mut self, now: Duration, device: &str, request: &Request) -> Option<Answer> {
        self.device(device)?;
        let text = request.text("address").unwrap_or_default();
        let wanted = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let Some(wanted) = wanted else { return Some(refused(422, "Address is required")) };
        let id = self.ids.uuid();
        let holds = |one: &&mut Reservation| one.block.is_some_and(|block| block.contains(&wanted));
        let Some(parent) = self.reservations.iter_mut().find(holds) else {
            return Some(refused(422, "Address is not in a reservation of the project"));
        };
        if parent.assignments.iter().any(|one| one.net.contains(&wanted) || wanted.contains(&one.net)) {
            return Some(refused(422, "Address is already assigned"));
        }
        parent.assignments.push(Assignment { id: id.clone(), device: device.into(), net: wanted, created: now });
        self.address(&id).map(|answer| Answer { status: 201, ..answer })
    }

    /// What of the reservations is on a device.
    pub(super) fn assigned_to<'a>(&'a self, device: &'a str) -> impl Iterator<Item = Value> + 'a {
        self.reservations.iter().flat_map(move |parent| {
            let here = parent.assignments.iter().filter(move |one| one.device == device);
            here.map(|one| assignment_json(parent, one))
        })
    }

    pub(super) fn reservation_json(&self, one: &Reservation) -> Value {
        let project = href(&format!("/projects/{}", self.project));
        let assignments: Vec<_> = one.assignments.iter().map(|assigned| assignment_json(one, assigned)).collect();
        let state = match (one.pending, one.denied) {
            (true, _) => "pending",
            (_, true) => "denied",
            _ => "created",
        };
        let mut json = json!({
            "id": one.id, "href": format!("/ips/{}", one.id), "available": format!("/ips/{}/available", one.id),
            "type": one.kind, "state": state, "tags": one.tags, "customdata": one.customdata, "assignments": assignments,
            "created_at": rfc3339(one.requested.as_secs()), "project": project, "project_lite": project,
            "public": one.kind != "private_ipv4", "global_ip": one.kind == "global_ipv4",
            "management": false, "manageable": true, "enabled": true, "addon": true, "bill": true,
        });
        if let Some(block) = one.block {
            fill(&mut json, block);
            json["address_family"] = json!(if block.addr().is_ipv4() { 4 } else { 6 });
        }
        if let Some(details) = &one.details {
            json["details"] = json!(details);
        }
        if let Some(code) = &one.metro {
            json["metro"] = metro(code);
        }
        if self.loose {
            json.as_object_mut().map(|fields| fields.remove("type"));
            for absent in ["details", "facility", "metro"] {
                if json.get(absent).is_none() {
                    json[absent] = Value::Null;
                }
            }
        }
        json
    }
}

/// First and last address of a block as numbers. IPv4 stays below 2³², where no IPv6 block of ours lies.
fn bounds(block: IpNet) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    };
    (number(block.network()), number(block.broadcast()))
}

/// `network`, `address`, `gateway`, `netmask`, `cidr`: a single address is its own gateway, a block's gateway is its first host.
fn fill(json: &mut Value, block: IpNet) {
    let mut hosts = block.hosts();
    let single = block.prefix_len() == block.max_prefix_len();
    let gateway = if single { Some(block.addr()) } else { hosts.next() };
    let address = if single { Some(block.addr()) } else { hosts.next() };
    json["network"] = json!(block.network());
    json["netmask"] = json!(block.netmask());
    json["cidr"] = json!(block.prefix_len());
    json["gateway"] = json!(gateway);
    json["address"] = json!(address);
}

fn assignment_json(parent: &Reservation, one: &Assignment) -> Value {
    let mut json = json!({
        "id": one.id, "href": format!("/ips/{}", one.id), "type": "IPAssignment",
        "assigned_to": href(&format!("/devices/{}", one.device)), "created_at": rfc3339(one.created.as_secs()),
        "address_family": if one.net.addr().is_ipv4() { 4 } else { 6 }, "public": parent.kind != "private_ipv4",
        "global_ip": parent.kind == "global_ipv4", "management": false, "manageable": true, "enabled": true,
    });
    fill(&mut json, one.net);
    if let Some(block) = parent.block {
        json["parent_block"] = json!({
            "href": format!("/ips/{}", parent.id), "network": block.network(), "netmask": block.netmask(),
            "cidr": block.prefix_len(),
        });
    }
    json
}
