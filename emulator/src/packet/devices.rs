//! Devices, and the metadata service that tells each about itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Generation, Packet, href, metro, page_of};
use crate::message::{Answer, Request};

/// A device. Addresses come with their gateways.
#[derive(Debug, Clone)]
pub struct Device {
    /// UUID; empty is chosen when it is added.
    pub id: String,
    /// Name, which its node has too.
    pub hostname: String,
    /// Metro code.
    pub metro: String,
    /// `active`, `inactive` …
    pub state: String,
    /// Private management address and gateway, of one /31.
    pub private: (Ipv4Addr, Ipv4Addr),
    /// Public IPv4 and gateway.
    pub public_ipv4: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Public IPv6 and gateway.
    pub public_ipv6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// How it peers.
    pub generation: Generation,
}

impl Device {
    /// An active device of Dallas with multihop peering and only a private address.
    pub fn new(hostname: &str, private: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        Self {
            id: String::new(),
            hostname: hostname.into(),
            metro: "da".into(),
            state: "active".into(),
            private: (private, gateway),
            public_ipv4: None,
            public_ipv6: None,
            generation: Generation::Multihop,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.private.0 == v4 || self.public_ipv4.is_some_and(|(own, _)| own == v4),
            IpAddr::V6(v6) => self.public_ipv6.is_some_and(|(own, _)| own == v6),
        }
    }

    fn addresses(&self) -> Vec<Value> {
        let mut all = vec![own(&self.id, 0, self.private.0.into(), self.private.1.into(), false)];
        all.extend(self.public_ipv4.map(|(own_v4, via)| own(&self.id, 1, own_v4.into(), via.into(), true)));
        all.extend(self.public_ipv6.map(|(own_v6, via)| own(&self.id, 2, own_v6.into(), via.into(), true)));
        all
    }
}

/// A management address of a device, in a /31 or /127 with its gateway.
fn own(device: &str, n: u32, address: IpAddr, gateway: IpAddr, public: bool) -> Value {
    let (bits, parent_bits) = if address.is_ipv4() { (31, 25) } else { (127, 56) };
    let net = |bits| IpNet::new(address, bits).ok();
    let id = format!("{:08x}{}", n, device.get(8..).unwrap_or_default());
    let parent = net(parent_bits);
    json!({
        "id": id, "href": format!("/ips/{id}"), "address_family": if address.is_ipv4() { 4 } else { 6 },
        "address": address, "gateway": gateway, "cidr": bits, "network": net(bits).map(|net| net.network()),
        "netmask": net(bits).map(|net| net.netmask()), "public": public, "management": true, "manageable": true,
        "enabled": true, "global_ip": false, "created_at": crate::ids::rfc3339(0),
        "assigned_to": href(&format!("/devices/{device}")),
        "parent_block": {
            "network": parent.map(|net| net.network()), "netmask": parent.map(|net| net.netmask()), "cidr": parent_bits,
            "href": format!("/ips/{id}"),
        },
    })
}

/// Whether a path belongs to the metadata service: `/metadata`, or `/nodes/<device id>/metadata` where addresses tell nothing.
pub(super) fn is_metadata(path: &str) -> bool {
    path == "/metadata" || (path.starts_with("/nodes/") && path.ends_with("/metadata"))
}

impl Packet {
    pub(super) fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    pub(super) fn device_mut(&mut self, id: &str) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.id == id)
    }

    pub(super) fn delete_device(&mut self, id: &str) {
        self.devices.retain(|device| device.id != id);
        self.end_sessions_of(id);
        for reservation in &mut self.reservations {
            reservation.assignments.retain(|one| one.device != id);
        }
    }

    pub(super) fn list_devices(&self, request: &Request) -> Answer {
        let name = request.query("hostname").unwrap_or_default();
        let wanted: Vec<_> = self.devices.iter().filter(|device| device.hostname.contains(name)).collect();
        let (page, meta) =
            page_of(wanted, request, (10, self.page_limit), &format!("/projects/{}/devices", self.project));
        let page: Vec<_> = page.into_iter().map(|device| self.device_json(device)).collect();
        Answer::json(200, json!({ "devices": page, "meta": meta }))
    }

    pub(super) fn device_json(&self, device: &Device) -> Value {
        let mut addresses = device.addresses();
        addresses.extend(self.assigned_to(&device.id));
        json!({
            "id": device.id, "short_id": device.id.get(..8), "href": format!("/devices/{}", device.id),
            "hostname": device.hostname, "state": device.state, "tags": [], "metro": metro(&device.metro),
            "ip_addresses": addresses, "billing_cycle": "hourly", "user": "root", "locked": false, "bonding_mode": 4,
            "created_at": crate::ids::rfc3339(0), "updated_at": crate::ids::rfc3339(0), "customdata": {},
            "iqn": format!("iqn.2026-01.dev.ironcast:device.{}", device.hostname), "always_pxe": false,
            "project_lite": href(&format!("/projects/{}", self.project)), "ssh_keys": [], "volumes": [],
        })
    }

    /// `None`: not a metadata request. `Some(None)`: of no device that is known.
    pub(super) fn of_metadata(&self, request: &Request) -> Option<Option<&Device>> {
        if !is_metadata(&request.path) {
            return None;
        }
        if let Some([id, "metadata"]) = request.below("/nodes/").as_deref() {
            return Some(self.device(id));
        }
        Some(self.devices.iter().find(|device| device.has(request.from)))
    }

    /// What the metadata service tells a device.
    pub(super) fn metadata(&self, device: &Device) -> Value {
        json!({
            "id": device.id, "hostname": device.hostname, "metro": device.metro, "facility": format!("{}1", device.metro),
            "class": "c3.small.x86", "plan": "c3.small.x86", "tags": [], "ssh_keys": [], "customdata": {}, "volumes": [],
            "private_subnets": ["10.0.0.0/8"], "bgp_neighbors": self.neighbours(device),
            "network": {
                "bonding": { "mode": 4, "link_aggregation": "bonded" },
                "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01", "bond": "bond0" }],
                "addresses": self.device_json(device)["ip_addresses"],
            },
        })
    }
}
