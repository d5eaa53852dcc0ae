//! Latitude.sh: elastic IPs in BGP mode. The API is JSON:API and keeps no marks, so whose an address is stands in the
//! journal alone ([`Marking::Never`]), and a claim's answer may have no id yet ([`Claimed::Accepted`]).
//!
//! Each server that announces an address needs a session of that address ([`PeerSource::bind`]). Where the API tells the router
//! of a session it is used; otherwise routers are `BGPPeer` objects.

use std::sync::Arc;

use hyper::StatusCode;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Account, AddressSource, Answer, Claimed, Device, DeviceState, Lease, LeaseId, LeaseState, Marking, Marks, NodeId,
    NodePeers, Order, PeerSource, ProvidedPeer, Provider, Refusal, SetupError, SourceError,
    account::{Listing, address, asn, lacks, number, text},
    http::{self, Auth, Call, Failed, Http, encode},
};
use crate::types::Family;

const ENDPOINT: &str = "https://api.latitude.sh";
const PER_PAGE: usize = 100;
const PAGES: usize = 1000;

struct Api {
    http: Http,
    project: String,
    asn: Option<ironcast_bgp::Asn>,
}

/// What the leader uses.
///
/// # Errors
/// Project or token are missing, or the endpoint is no URL.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let http = Http::new(account.endpoint(ENDPOINT), Auth::Bearer(account.token()?))?;
    let http = http.content_type("application/vnd.api+json").deadlines(account.deadlines);
    let api = Arc::new(Api { http, project: account.project()?, asn: account.asn });
    Ok(Provider { addresses: Some(api.clone()), peers: Some(api) })
}

fn refine(failed: Failed) -> SourceError {
    if !(failed.is(400) || failed.is(409) || failed.is(422)) {
        return failed.into();
    }
    let refusal = if failed.says(&["quota", "limit"]) {
        Refusal::Quota
    } else if failed.says(&["project"]) {
        Refusal::UnknownProject
    } else if failed.says(&["site", "region"]) {
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
        Marking::Never
    }

    fn list(&self) -> Answer<'_, Vec<Lease>> {
        Box::pin(async move {
            let mut listing = Listing::default();
            for page in 1..=PAGES {
                let filter = format!("filter%5Bproject%5D={}", encode(&self.project));
                let path = format!("/elastic_ips?{filter}&page%5Bsize%5D={PER_PAGE}&page%5Bnumber%5D={page}");
                let body = self.http.send(&Call::get(path)).await.map_err(refine)?.body;
                let entries = body.get("data").and_then(Value::as_array).ok_or_else(|| lacks("data"))?;
                // Without an id it is not set up yet, and a later list has it.
                for entry in entries.iter().filter(|entry| text(entry, "id").is_some()) {
                    listing.add(lease(entry)?);
                }
                if entries.len() < PER_PAGE {
                    return listing.complete(None);
                }
            }
            Err(SourceError::Unreadable(format!("more than {PAGES} pages")))
        })
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let bgp = order.kind.as_deref().is_none_or(|kind| kind == "bgp");
            if !bgp || order.family != Family::Ipv4 || order.prefix_len != 32 {
                let message = "elastic IPs of type bgp are single IPv4 addresses".into();
                return Err(SourceError::Refused { refusal: Refusal::Unsupported, message });
            }
            let mut attributes = json!({ "project_id": self.project, "mode": "bgp" });
            if let Some(site) = &order.region {
                attributes["site"] = json!(site);
            }
            let body = json!({ "data": { "type": "elastic_ips", "attributes": attributes } });
            let reply = self.http.send(&Call::post("/elastic_ips", body)).await.map_err(refine)?.body;
            Ok(match text(&reply["data"], "id") {
                Some(_) => Claimed::Lease(lease(&reply["data"])?),
                None => Claimed::Accepted,
            })
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    /// The API has no place for marks; the journal has.
    fn mark<'a>(&'a self, _: &'a LeaseId, _: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// No marks to compare: the caller's journal is what says that the address is ours.
    fn release<'a>(&'a self, id: &'a LeaseId, _: &'a Marks) -> Answer<'a, ()> {
        Box::pin(async move {
            let lease = match self.one(id).await {
                Err(SourceError::Gone) => return Ok(()),
                lease => lease?,
            };
            if lease.state == LeaseState::Pending("releasing".into()) {
                return Ok(());
            }
            for (session, _) in self.sessions(id).await? {
                let path = format!("/elastic_ips/{}/bgp_sessions/{}", encode(&id.0), encode(&session));
                match self.http.send(&Call::delete(path)).await {
                    Err(failed) if failed.error != SourceError::Gone => return Err(refine(failed)),
                    _ => {}
                }
            }
            super::account::not_in_use(&lease)?;
            match self.http.send(&Call::delete(format!("/elastic_ips/{}", encode(&id.0)))).await {
                Err(failed) if failed.error != SourceError::Gone => Err(refine(failed)),
                _ => Ok(()),
            }
        })
    }
}

impl Api {
    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        let reply = self.http.send(&Call::get(format!("/elastic_ips/{}", encode(&id.0)))).await.map_err(refine)?;
        lease(&reply.body["data"])
    }

    /// Sessions of an address with their attributes.
    async fn sessions(&self, id: &LeaseId) -> Result<Vec<(String, Value)>, SourceError> {
        let call = Call::get(format!("/elastic_ips/{}/bgp_sessions", encode(&id.0)));
        let body = self.http.send(&call).await.map_err(refine)?.body;
        let entries = body.get("data").and_then(Value::as_array).ok_or_else(|| lacks("data"))?;
        let known = |entry: &Value| Some((text(entry, "id")?, entry["attributes"].clone()));
        Ok(entries.iter().filter_map(known).collect())
    }
}

fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let id = text(entry, "id").ok_or_else(|| lacks("an id"))?;
    let own = &entry["attributes"];
    let bits = number(own, "prefix_length").map_or(32, |bits| u8::try_from(bits).unwrap_or(32));
    let network = address(own, "address").and_then(|address| IpNet::new(address, bits).ok());
    let state = match text(own, "status").as_deref() {
        Some("error") => LeaseState::Denied("the provider could not set it up".into()),
        Some(status @ ("pending" | "configuring" | "moving" | "releasing")) => LeaseState::Pending(status.into()),
        Some(status) if network.is_none() => LeaseState::Pending(status.into()),
        None if network.is_none() => LeaseState::Pending("no address yet".into()),
        _ => LeaseState::Ready,
    };
    let server = own.get("server").filter(|server| server.is_object());
    let routed = text(own, "mode").as_deref() != Some("bgp");
    Ok(Lease {
        id: LeaseId(id),
        network,
        state,
        tags: std::collections::BTreeSet::new(),
        created: text(own, "created_at").and_then(|at| http::time(&at)),
        region: own.get("region").and_then(|region| text(&region["location"], "slug").or_else(|| text(region, "name"))),
        kind: text(own, "mode"),
        // In BGP mode the server is one of ours that announces it; routed to a server it is in use.
        assigned: server.filter(|_| routed).and_then(|server| text(server, "hostname").or_else(|| text(server, "id"))),
    })
}

impl PeerSource for Api {
    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let call = Call::get(format!("/servers/{}", encode(&node.device)));
            let own = match self.http.send(&call).await.map_err(refine) {
                Err(SourceError::Gone) => return Ok(Device { state: DeviceState::Gone, addresses: Vec::new() }),
                reply => reply?.body["data"]["attributes"].clone(),
            };
            let state = match text(&own, "status").as_deref() {
                Some("on") => DeviceState::Active,
                Some("off") => DeviceState::PoweredOff,
                Some("deploying" | "failed_deployment" | "rescue_mode") => DeviceState::Maintenance,
                other => DeviceState::Unknown(other.unwrap_or_default().into()),
            };
            Ok(Device { state, addresses: address(&own, "primary_ipv4").into_iter().collect() })
        })
    }

    /// Routers of the sessions that the node has, where the API tells them.
    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let mut found = NodePeers::default();
            let Some(my_asn) = self.asn else { return Ok(found) };
            for lease in self.list().await? {
                for (_, session) in self.sessions(&lease.id).await? {
                    let here = text(&session["server"], "id").as_deref() == Some(node.device.as_str());
                    let router = address(&session, "peer_address").filter(|_| here);
                    let Some((address_of, peer_asn)) = router.zip(asn(&session, "asn")) else { continue };
                    if found.peers.iter().any(|peer: &ProvidedPeer| peer.address == address_of) {
                        continue;
                    }
                    found.peers.push(ProvidedPeer {
                        address: address_of,
                        my_asn,
                        peer_asn,
                        source: address(&session, "server_ip"),
                        multihop: None,
                        password: None,
                        prefix_budget: None,
                    });
                }
            }
            Ok(found)
        })
    }

    /// A session of the address with the node's server; one that is there already is a success.
    fn bind<'a>(&'a self, lease: &'a LeaseId, node: &'a NodeId) -> Answer<'a, ()> {
        Box::pin(async move {
            let there =
                |(_, session): &(String, Value)| text(&session["server"], "id").as_deref() == Some(&node.device);
            if self.sessions(lease).await?.iter().any(there) {
                return Ok(());
            }
            let data = json!({ "type": "bgp_sessions", "attributes": { "server_id": node.device } });
            let call = Call::post(format!("/elastic_ips/{}/bgp_sessions", encode(&lease.0)), json!({ "data": data }));
            match self.http.send(&call).await {
                Err(failed) if failed.status == Some(StatusCode::CONFLICT) => Ok(()),
                done => done.map(drop).map_err(refine),
            }
        })
    }
}
