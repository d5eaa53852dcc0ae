//! Cherry Servers: floating IPs of a project, marked by a map of tags; routers of the server's region.
//!
//! There is no public specification: requests follow the vendor's client libraries. The API takes four requests a
//! second, so this client paces itself to that. No MD5; sessions are multihop from the server's public address.

use std::{collections::BTreeSet, sync::Arc};

use hyper::StatusCode;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    Account, AddressSource, Answer, Claimed, Device, DeviceState, Enabled, Lease, LeaseId, LeaseState, Marking, Marks,
    NodeId, NodePeers, Order, PeerSource, ProjectBgp, ProvidedPeer, Provider, Refusal, SetupError, SourceError,
    account::{Listing, address, asn, claimed_but, items, lacks, number, release, text},
    http::{self, Auth, Call, Failed, Http, encode},
};
use crate::types::Family;

const ENDPOINT: &str = "https://api.cherryservers.com/v1";
const PER_SECOND: u32 = 4;
const PER_PAGE: usize = 100;
const PAGES: usize = 1000;
/// TTL towards the region's routers.
const MULTIHOP_TTL: u8 = 5;

struct Api {
    http: Http,
    project: String,
}

/// What the leader uses.
///
/// # Errors
/// Project or token are missing, or the endpoint is no URL.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let http = Http::new(account.endpoint(ENDPOINT), Auth::Bearer(account.token()?))?;
    let http = http.per_second(PER_SECOND).deadlines(account.deadlines);
    let api = Arc::new(Api { http, project: account.project()? });
    Ok(Provider { addresses: Some(api.clone()), peers: Some(api) })
}

fn of_project(failed: Failed) -> SourceError {
    if failed.status == Some(StatusCode::NOT_FOUND) { failed.refused(Refusal::UnknownProject) } else { refine(failed) }
}

/// `{code, message}` with 4xx.
fn refine(failed: Failed) -> SourceError {
    if !(failed.is(400) || failed.is(409) || failed.is(422)) {
        return failed.into();
    }
    let refusal = if failed.says(&["limit", "quota"]) {
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
        Box::pin(self.all())
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            if order.family != Family::Ipv4 || order.prefix_len != 32 {
                let message = "floating IPs are single IPv4 addresses".into();
                return Err(SourceError::Refused { refusal: Refusal::Unsupported, message });
            }
            let tags: Map<_, _> =
                order.marks.pairs().into_iter().map(|(key, value)| (key.into(), json!(value))).collect();
            let body = json!({ "region": order.region, "tags": tags });
            let call = Call::post(format!("/projects/{}/ips", encode(&self.project)), body);
            let reply = self.http.send(&call).await.map_err(of_project)?;
            lease(&reply.body).map(Claimed::Lease).map_err(claimed_but)
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    fn mark<'a>(&'a self, id: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(async move {
            let path = format!("/ips/{}", encode(&id.0));
            let now = self.http.send(&Call::get(path.as_str())).await.map_err(refine)?.body;
            let mut tags = now.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
            tags.retain(|key, _| !Marks::KEYS.contains(&key.as_str()));
            let ours = marks.into_iter().flat_map(Marks::pairs);
            tags.extend(ours.map(|(key, value)| (key.into(), json!(value))));
            self.http.send(&Call::put(path, json!({ "tags": tags }))).await.map_err(refine)?;
            Ok(())
        })
    }

    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let path = format!("/ips/{}", encode(&id.0));
        let delete = async { self.http.send(&Call::delete(path)).await.map(drop).map_err(refine) };
        Box::pin(release(self.one(id), expected, delete))
    }
}

impl Api {
    /// All pages by offset; `X-Total-Count` says how many there are.
    async fn all(&self) -> Result<Vec<Lease>, SourceError> {
        let mut listing = Listing::default();
        for page in 0..PAGES {
            let at = page * PER_PAGE;
            let path = format!("/projects/{}/ips?limit={PER_PAGE}&offset={at}", encode(&self.project));
            let reply = self.http.send(&Call::get(path)).await.map_err(of_project)?;
            let entries = reply.body.as_array().ok_or_else(|| lacks("a list"))?;
            // A server's own addresses are in the list too, and are not leased.
            for entry in entries.iter().filter(|entry| is_floating(entry)) {
                listing.add(lease(entry)?);
            }
            let total = reply.headers.get("x-total-count").and_then(|total| total.to_str().ok()?.parse::<usize>().ok());
            match total {
                Some(total) if at + entries.len() < total && entries.is_empty() => {
                    return Err(SourceError::Unreadable(format!("the pages end at {at} of {total} addresses")));
                }
                Some(total) if at + entries.len() < total => {}
                None if entries.len() == PER_PAGE => {}
                _ => return listing.complete(None),
            }
        }
        Err(SourceError::Unreadable(format!("more than {PAGES} pages")))
    }

    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        lease(&self.http.send(&Call::get(format!("/ips/{}", encode(&id.0)))).await.map_err(refine)?.body)
    }

    async fn server(&self, node: &NodeId) -> Result<Value, SourceError> {
        Ok(self.http.send(&Call::get(format!("/servers/{}", encode(&node.device)))).await.map_err(refine)?.body)
    }
}

fn is_floating(entry: &Value) -> bool {
    text(entry, "type").is_none_or(|kind| kind == "floating-ip")
}

/// `cidr` is `a.b.c.d/32`; tags are a map.
fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let id = text(entry, "id").ok_or_else(|| lacks("an id"))?;
    let network: Option<IpNet> =
        text(entry, "cidr").and_then(|cidr| cidr.parse().ok()).or_else(|| address(entry, "address").map(IpNet::from));
    let tags: BTreeSet<String> = entry.get("tags").and_then(Value::as_object).map_or_else(BTreeSet::new, |tags| {
        tags.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
    });
    let target = |key: &str| {
        let target = entry.get(key).filter(|target| target.is_object())?;
        text(target, "hostname").or_else(|| number(target, "id").map(|id| id.to_string()))
    };
    Ok(Lease {
        id: LeaseId(id),
        network,
        state: network.map_or_else(|| LeaseState::Pending("no address yet".into()), |_| LeaseState::Ready),
        tags,
        created: text(entry, "created_at").and_then(|at| http::time(&at)),
        region: entry.get("region").and_then(|region| text(region, "slug").or_else(|| text(region, "name"))),
        kind: text(entry, "type"),
        assigned: target("targeted_to").or_else(|| target("assigned_to")),
    })
}

impl PeerSource for Api {
    fn enable_project<'a>(&'a self, _: &'a ProjectBgp) -> Answer<'a, Enabled> {
        Box::pin(async move {
            let path = format!("/projects/{}", encode(&self.project));
            self.enable(&path, "the project's BGP is not enabled yet").await.map_err(of_project)
        })
    }

    fn enable_node<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Enabled> {
        Box::pin(async move {
            let path = format!("/servers/{}", encode(&node.device));
            self.enable(&path, "the server's BGP is not enabled yet").await.map_err(refine)
        })
    }

    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let server = match self.server(node).await {
                Err(SourceError::Gone) => return Ok(Device { state: DeviceState::Gone, addresses: Vec::new() }),
                server => server?,
            };
            let state = match text(&server, "state").or_else(|| text(&server, "status")).as_deref() {
                Some("active" | "deployed") => DeviceState::Active,
                Some("powered off" | "inactive") => DeviceState::PoweredOff,
                Some("pending" | "provisioning" | "reinstalling") => DeviceState::Maintenance,
                Some("terminating" | "terminated") => DeviceState::Gone,
                other => DeviceState::Unknown(other.unwrap_or_default().into()),
            };
            let own = items(&server, "ip_addresses")
                .iter()
                .filter(|entry| !is_floating(entry) || entry.get("type").is_none());
            Ok(Device { state, addresses: own.filter_map(|entry| address(entry, "address")).collect() })
        })
    }

    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let server = self.server(node).await?;
            let project = self.http.send(&Call::get(format!("/projects/{}", encode(&self.project)))).await;
            let project = project.map_err(of_project)?.body;
            let region = &server["region"]["bgp"];
            let (Some(my_asn), Some(peer_asn)) = (asn(&project["bgp"], "local_asn"), asn(region, "asn")) else {
                return Ok(NodePeers::default());
            };
            let primary = |entry: &&Value| text(entry, "type").as_deref() == Some("primary-ip");
            let source =
                items(&server, "ip_addresses").iter().find(primary).and_then(|entry| address(entry, "address"));
            let budget = number(&server["bgp"], "limit").and_then(|limit| u32::try_from(limit).ok());
            let hosts = items(region, "hosts").iter().filter_map(|host| host.as_str()?.parse().ok());
            let peer = |address| ProvidedPeer {
                address,
                my_asn,
                peer_asn,
                source,
                multihop: Some(MULTIHOP_TTL),
                password: None,
                prefix_budget: budget,
            };
            Ok(NodePeers { peers: hosts.map(peer).collect(), routes: Vec::new() })
        })
    }
}

impl Api {
    async fn enable(&self, path: &str, waiting: &str) -> Result<Enabled, Failed> {
        let on = |value: &Value| value["bgp"].get("enabled").and_then(Value::as_bool) == Some(true);
        if on(&self.http.send(&Call::get(path)).await?.body) {
            return Ok(Enabled::Yes);
        }
        let after = self.http.send(&Call::put(path, json!({ "bgp": true }))).await?.body;
        Ok(if on(&after) { Enabled::Yes } else { Enabled::Requested(waiting.into()) })
    }
}
