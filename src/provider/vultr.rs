//! Vultr bare metal: reserved IPs, marked by their one label; routers from the node's metadata.
//!
//! BGP is enabled by people after a ticket. The metadata's AS numbers are texts. Sessions have TTL 2 and MD5, whose
//! password only the API tells: the leader reads it.

use std::sync::Arc;

use ipnet::IpNet;
use ironcast_bgp::speaker::Md5Key;
use serde_json::{Value, json};

use super::{
    Account, AddressSource, Answer, Claimed, Device, DeviceState, Enabled, Lease, LeaseId, LeaseState, Marking, Marks,
    NodeId, NodePeers, Order, PeerSource, ProjectBgp, ProvidedPeer, Provider, Refusal, SetupError, SourceError,
    account::{Listing, address, asn, claimed_but, lacks, number, release, text},
    http::{Auth, Call, Failed, Http, encode},
};
use crate::types::Family;

const ENDPOINT: &str = "https://api.vultr.com/v2";
const METADATA: &str = "http://169.254.169.254/v1.json";
const PER_SECOND: u32 = 20;
const PAGES: usize = 1000;
const TTL: u8 = 2;
/// Bare metal's routers and AS, as guides give them: the API says neither.
const ROUTERS: [&str; 2] = ["169.254.1.1", "2001:19f0:ffff::1"];
const ROUTER_AS: u32 = 20473;

struct Api {
    http: Http,
}

struct Metadata {
    http: Http,
}

/// What the leader uses.
///
/// # Errors
/// The token is missing, or the endpoint is no URL.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let http = Http::new(account.endpoint(ENDPOINT), Auth::Bearer(account.token()?))?;
    let api = Arc::new(Api { http: http.per_second(PER_SECOND).deadlines(account.deadlines) });
    Ok(Provider { addresses: Some(api.clone()), peers: Some(api) })
}

/// What a node uses: its own metadata, no token.
///
/// # Errors
/// The metadata URL is none.
pub fn node(account: &Account) -> Result<Arc<dyn PeerSource>, SetupError> {
    let http = Http::new(account.metadata(METADATA), Auth::None)?.deadlines(account.deadlines);
    Ok(Arc::new(Metadata { http }))
}

fn refine(failed: Failed) -> SourceError {
    if !(failed.is(400) || failed.is(409) || failed.is(422)) {
        return failed.into();
    }
    let refusal = if failed.says(&["limit", "quota", "maximum"]) {
        Refusal::Quota
    } else if failed.says(&["region"]) {
        Refusal::UnknownRegion
    } else if failed.says(&["available", "stock"]) {
        Refusal::NoStock
    } else {
        Refusal::Invalid
    };
    failed.refused(refusal)
}

impl AddressSource for Api {
    fn marking(&self) -> Marking {
        Marking::AtClaim
    }

    fn list(&self) -> Answer<'_, Vec<Lease>> {
        Box::pin(async move {
            let mut listing = Listing::default();
            let mut path = "/reserved-ips?per_page=500".to_owned();
            for _ in 0..PAGES {
                let body = self.http.send(&Call::get(path.as_str())).await.map_err(refine)?.body;
                let entries =
                    body.get("reserved_ips").and_then(Value::as_array).ok_or_else(|| lacks("reserved_ips"))?;
                for entry in entries {
                    listing.add(lease(entry)?);
                }
                let Some(cursor) = text(&body["meta"]["links"], "next") else {
                    return listing.complete(number(&body["meta"], "total"));
                };
                path = format!("/reserved-ips?per_page=500&cursor={}", encode(&cursor));
            }
            Err(SourceError::Unreadable(format!("more than {PAGES} pages")))
        })
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let ip_type = if order.family == Family::Ipv4 { "v4" } else { "v6" };
            if order.family == Family::Ipv4 && order.prefix_len != 32 {
                let message = "reserved IPv4 addresses are single ones".into();
                return Err(SourceError::Refused { refusal: Refusal::Unsupported, message });
            }
            let Some(region) = &order.region else {
                let message = "reserved IPs need a region".into();
                return Err(SourceError::Refused { refusal: Refusal::UnknownRegion, message });
            };
            let body = json!({ "region": region, "ip_type": ip_type, "label": order.marks.label() });
            let reply = self.http.send(&Call::post("/reserved-ips", body)).await.map_err(refine)?;
            lease(&reply.body["reserved_ip"]).map(Claimed::Lease).map_err(claimed_but)
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    /// What else stands in the label stays behind our marks.
    fn mark<'a>(&'a self, id: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(async move {
            let label = Marks::replaced(&self.one(id).await?.tags, marks).join(" ");
            let call = Call::patch(format!("/reserved-ips/{}", encode(&id.0)), json!({ "label": label }));
            self.http.send(&call).await.map_err(refine)?;
            Ok(())
        })
    }

    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let path = format!("/reserved-ips/{}", encode(&id.0));
        let delete = async { self.http.send(&Call::delete(path)).await.map(drop).map_err(refine) };
        Box::pin(release(self.one(id), expected, delete))
    }
}

impl Api {
    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        let reply = self.http.send(&Call::get(format!("/reserved-ips/{}", encode(&id.0)))).await.map_err(refine)?;
        lease(&reply.body["reserved_ip"])
    }

    /// `{enabled, asn, password}`; older answers put it below `bgp`.
    async fn bgp(&self) -> Result<Value, SourceError> {
        let mut body = self.http.send(&Call::get("/account/bgp")).await.map_err(refine)?.body;
        Ok(body.get_mut("bgp_info").map(Value::take).unwrap_or(body))
    }
}

fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let id = text(entry, "id").ok_or_else(|| lacks("an id"))?;
    let bits = number(entry, "subnet_size").and_then(|bits| u8::try_from(bits).ok());
    let network = address(entry, "subnet").zip(bits).and_then(|(subnet, bits)| IpNet::new(subnet, bits).ok());
    Ok(Lease {
        id: LeaseId(id),
        network,
        state: network.map_or_else(|| LeaseState::Pending("no address yet".into()), |_| LeaseState::Ready),
        tags: Marks::split(&text(entry, "label").unwrap_or_default()),
        created: None,
        region: text(entry, "region"),
        kind: text(entry, "ip_type"),
        assigned: text(entry, "instance_id"),
    })
}

impl PeerSource for Api {
    fn enable_project<'a>(&'a self, _: &'a ProjectBgp) -> Answer<'a, Enabled> {
        Box::pin(async move {
            let on = self.bgp().await?.get("enabled").and_then(Value::as_bool) == Some(true);
            let where_to = "BGP is enabled by a ticket in the Vultr customer portal (Network, BGP)";
            Ok(if on { Enabled::Yes } else { Enabled::ByHand(where_to.into()) })
        })
    }

    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let call = Call::get(format!("/bare-metals/{}", encode(&node.device)));
            let machine = match self.http.send(&call).await.map_err(refine) {
                Err(SourceError::Gone) => return Ok(Device { state: DeviceState::Gone, addresses: Vec::new() }),
                reply => reply?.body["bare_metal"].clone(),
            };
            let state = match text(&machine, "status").as_deref() {
                Some("active") => DeviceState::Active,
                Some("pending") => DeviceState::Maintenance,
                Some("suspended") => DeviceState::PoweredOff,
                other => DeviceState::Unknown(other.unwrap_or_default().into()),
            };
            let addresses = ["main_ip", "v6_main_ip"].into_iter().filter_map(|key| address(&machine, key)).collect();
            Ok(Device { state, addresses })
        })
    }

    /// The account's AS and password towards bare metal's usual routers.
    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let bgp = self.bgp().await?;
            let device = self.device(node).await?;
            let (Some(my_asn), Ok(peer_asn)) = (asn(&bgp, "asn"), ironcast_bgp::Asn::new(ROUTER_AS)) else {
                return Ok(NodePeers::default());
            };
            let password = text(&bgp, "password").map(|key| Md5Key(key.into_bytes().into()));
            let mut found = NodePeers::default();
            for router in ROUTERS.into_iter().filter_map(|router| router.parse::<std::net::IpAddr>().ok()) {
                let source = device.addresses.iter().find(|own| own.is_ipv4() == router.is_ipv4()).copied();
                if source.is_some() {
                    found.peers.push(peer(router, my_asn, peer_asn, source, password.clone()));
                }
            }
            Ok(found)
        })
    }
}

impl PeerSource for Metadata {
    fn device<'a>(&'a self, _: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let own = self.http.send(&Call::get("")).await.map_err(refine)?.body;
            let addresses = families(&own).filter_map(|family| address(family, "my-address")).collect();
            Ok(Device { state: DeviceState::Active, addresses })
        })
    }

    fn peers<'a>(&'a self, _: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let own = self.http.send(&Call::get("")).await.map_err(refine)?.body;
            let peers = families(&own).filter_map(|family| {
                let (my_asn, peer_asn) = (asn(family, "my-asn")?, asn(family, "peer-asn")?);
                Some(peer(address(family, "peer-address")?, my_asn, peer_asn, address(family, "my-address"), None))
            });
            Ok(NodePeers { peers: peers.collect(), routes: Vec::new() })
        })
    }
}

fn families(metadata: &Value) -> impl Iterator<Item = &Value> {
    ["ipv4", "ipv6"].into_iter().filter_map(|family| metadata.get("bgp")?.get(family))
}

fn peer(
    router: std::net::IpAddr,
    my_asn: ironcast_bgp::Asn,
    peer_asn: ironcast_bgp::Asn,
    source: Option<std::net::IpAddr>,
    password: Option<Md5Key>,
) -> ProvidedPeer {
    ProvidedPeer { address: router, my_asn, peer_asn, source, multihop: Some(TTL), password, prefix_budget: None }
}
