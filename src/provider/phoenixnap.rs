//! phoenixNAP BMC: IP blocks, from which addresses are carved, and BGP peer groups of a location.
//!
//! The smallest IPv4 block is a /31, so one claim leases two addresses or more; a bound claim is a range of its pool, and
//! plan carves single addresses from it. Marks are the block's description: tag values take neither `/` nor more
//! than a hundred characters, and a tag must exist before it is set. OAuth2 with client credentials: the
//! Secret's key `token` holds `client id:client secret`.
//!
//! `spec.endpoint` is the root of the APIs; `…/ips/v1`, `…/networks/v1` and `…/bmc/v1` lie below it (or three URLs with a
//! space between, for gateways that keep them apart), and `spec.metadataEndpoint` is the URL of the tokens. The location of
//! the peer group is `spec.project`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use ironcast_bgp::{Asn, speaker::Md5Key};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    Account, AddressSource, Answer, Claimed, Device, DeviceState, Enabled, Lease, LeaseId, LeaseState, Marking, Marks,
    NodeId, NodePeers, Order, PeerSource, ProjectBgp, ProvidedPeer, Provider, Refusal, SetupError, SourceError,
    account::{Listing, address, asn, claimed_but, described, items, lacks, number, release, text},
    http::{self, Auth, Call, Failed, Http, Reply, Secret, encode},
};
use crate::types::Family;

const ENDPOINT: &str = "https://api.phoenixnap.com";
const TOKENS: &str = "https://auth.phoenixnap.com/auth/realms/BMC/protocol/openid-connect/token";
/// Their guide's; the API does not say it.
const PEER_AS: u32 = 65400;
/// Our AS where none is configured: the API's default.
const USUAL_AS: u32 = 65401;
/// `description` takes so many characters.
const DESCRIPTION: usize = 250;

struct Api {
    ips: Http,
    networks: Http,
    bmc: Http,
    tokens: Http,
    client: (String, Secret),
    token: Mutex<Option<(Secret, Instant)>>,
    location: String,
    asn: Option<Asn>,
}

/// What the leader uses.
///
/// # Errors
/// Location or credentials are missing, or a URL is none.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let both = account.token()?;
    let (id, secret) = both.expose().split_once(':').ok_or_else(|| {
        SetupError::Invalid("the key token of spec.credentialsSecret", "it must be client id:client secret".into())
    })?;
    let secret = Secret::new(secret);
    // Errors of the token's URL must not show the client's secret: it is this client's own.
    let tokens = Http::new(account.metadata(TOKENS), Auth::Bearer(secret.clone()))?.deadlines(account.deadlines);
    let [ips, networks, bmc] = endpoints(account.endpoint(ENDPOINT))
        .map(|url| Http::new(&url, Auth::None).map(|http| http.deadlines(account.deadlines)));
    let (client, token) = ((id.to_owned(), secret), Mutex::default());
    let (location, asn) = (account.project()?, account.asn);
    let api = Arc::new(Api { ips: ips?, networks: networks?, bmc: bmc?, tokens, client, token, location, asn });
    Ok(Provider { addresses: Some(api.clone()), peers: Some(api) })
}

/// The three APIs.
fn endpoints(text: &str) -> [String; 3] {
    let given: Vec<_> = text.split_whitespace().collect();
    if let [ips, networks, bmc] = given[..] {
        return [ips.into(), networks.into(), bmc.into()];
    }
    ["ips", "networks", "bmc"].map(|api| format!("{}/{api}/v1", text.trim_end_matches('/')))
}

fn refine(failed: Failed) -> SourceError {
    if failed.is(406) {
        return failed.refused(Refusal::NoStock);
    }
    if !(failed.is(400) || failed.is(409)) {
        return failed.into();
    }
    let refusal = if failed.says(&["location"]) {
        Refusal::UnknownRegion
    } else if failed.says(&["quota", "limit"]) {
        Refusal::Quota
    } else {
        Refusal::Invalid
    };
    failed.refused(refusal)
}

impl Api {
    /// Sends with a token; a 401 gets a new one, once.
    async fn send(&self, http: &Http, call: Call) -> Result<Reply, Failed> {
        let token = self.bearer(None).await?;
        match http.send(&call.clone().auth(Auth::Bearer(token.clone()))).await {
            Err(failed) if failed.is(401) => {
                let token = self.bearer(Some(&token)).await?;
                http.send(&call.auth(Auth::Bearer(token))).await
            }
            done => done,
        }
    }

    /// The token, a new one where it ends soon or is the rejected one.
    async fn bearer(&self, rejected: Option<&Secret>) -> Result<Secret, Failed> {
        let mut held = self.token.lock().await;
        if let Some((token, until)) = held.as_ref().filter(|(token, _)| Some(token) != rejected)
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let (id, secret) = &self.client;
        let body = json!({ "grant_type": "client_credentials", "client_id": id, "client_secret": secret.expose() });
        let call = Call::post("", body).form().auth(Auth::None);
        let reply = self.tokens.send(&call).await?.body;
        let lacking = lacks("access_token");
        let Some(token) = text(&reply, "access_token") else {
            return Err(Failed { status: None, message: lacking.to_string(), error: lacking });
        };
        // A tenth early, and never for ever.
        let lasts = Duration::from_secs(number(&reply, "expires_in").unwrap_or(60).min(3600));
        let token = Secret::new(&token);
        *held = Some((token.clone(), Instant::now() + lasts.mul_f64(0.9)));
        Ok(token)
    }

    /// The specification knows no 404 of a block: where this one is forbidden, the list says whether it exists.
    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        match self.send(&self.ips, Call::get(format!("/ip-blocks/{}", encode(&id.0)))).await {
            Ok(reply) => lease(&reply.body),
            Err(failed) if failed.is(403) => {
                self.all().await?.into_iter().find(|lease| lease.id == *id).ok_or(SourceError::Gone)
            }
            Err(failed) => Err(refine(failed)),
        }
    }

    /// One answer holds everything: this API has no pages.
    async fn all(&self) -> Result<Vec<Lease>, SourceError> {
        let body = self.send(&self.ips, Call::get("/ip-blocks")).await.map_err(refine)?.body;
        let mut listing = Listing::default();
        for entry in body.as_array().ok_or_else(|| lacks("a list"))? {
            listing.add(lease(entry)?);
        }
        listing.complete(None)
    }

    /// The peer group of the location, if there is one.
    async fn group(&self) -> Result<Option<Value>, SourceError> {
        let path = format!("/bgp-peer-groups?location={}", encode(&self.location));
        let groups = self.send(&self.networks, Call::get(path)).await.map_err(refine)?.body;
        let here = |group: &&Value| text(group, "location").is_none_or(|location| location == self.location);
        Ok(groups.as_array().ok_or_else(|| lacks("a list"))?.iter().find(here).cloned())
    }
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
            let reply = self.send(&self.ips, Call::post("/ip-blocks", request(order)?)).await.map_err(refine)?;
            lease(&reply.body).map(Claimed::Lease).map_err(claimed_but)
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    fn mark<'a>(&'a self, id: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(async move {
            let description = described(&Marks::replaced(&self.one(id).await?.tags, marks), DESCRIPTION)?;
            let body = json!({ "description": description });
            self.send(&self.ips, Call::patch(format!("/ip-blocks/{}", encode(&id.0)), body)).await.map_err(refine)?;
            Ok(())
        })
    }

    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let path = format!("/ip-blocks/{}", encode(&id.0));
        let delete = async { self.send(&self.ips, Call::delete(path)).await.map(drop).map_err(refine) };
        Box::pin(release(self.one(id), expected, delete))
    }
}

/// The smallest block that holds what was ordered.
fn request(order: &Order) -> Result<Value, SourceError> {
    let refused = |refusal, message: &str| Err(SourceError::Refused { refusal, message: message.into() });
    let (version, size) = match (order.family, order.prefix_len) {
        (Family::Ipv4, bits @ 28..=32) => ("V4", bits.min(31)),
        (Family::Ipv4, _) => return refused(Refusal::Unsupported, "IPv4 blocks are /31 to /28"),
        (Family::Ipv6, 64..) => ("V6", 64),
        (Family::Ipv6, _) => return refused(Refusal::Unsupported, "IPv6 blocks are /64"),
    };
    let Some(location) = &order.region else {
        return refused(Refusal::UnknownRegion, "blocks need a location");
    };
    let description = described(&order.marks.tags(), DESCRIPTION)?;
    Ok(json!({
        "location": location, "cidrBlockSize": format!("/{size}"), "ipVersion": version, "description": description,
    }))
}

fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let id = text(entry, "id").ok_or_else(|| lacks("an id"))?;
    let network: Option<IpNet> = text(entry, "cidr").and_then(|cidr| cidr.parse().ok());
    let state = match text(entry, "status").as_deref() {
        Some(status @ ("creating" | "pending")) => LeaseState::Pending(status.into()),
        Some(status) if network.is_none() => LeaseState::Pending(status.into()),
        None if network.is_none() => LeaseState::Pending("no address yet".into()),
        _ => LeaseState::Ready,
    };
    let assigned = text(entry, "assignedResourceId").map(|id| match text(entry, "assignedResourceType") {
        Some(kind) => format!("{kind} {id}"),
        None => id,
    });
    Ok(Lease {
        id: LeaseId(id),
        network,
        state,
        tags: Marks::split(&text(entry, "description").unwrap_or_default()),
        created: text(entry, "createdOn").and_then(|at| http::time(&at)),
        region: text(entry, "location"),
        kind: text(entry, "ipVersion"),
        assigned,
    })
}

impl PeerSource for Api {
    /// A peer group in the location.
    fn enable_project<'a>(&'a self, wanted: &'a ProjectBgp) -> Answer<'a, Enabled> {
        Box::pin(async move {
            let group = match self.group().await? {
                Some(group) => group,
                None => {
                    let asn = wanted.asn.or(self.asn).map_or(USUAL_AS, |asn| asn.value());
                    let mut body = json!({ "location": self.location, "asn": asn, "advertisedRoutes": "NONE" });
                    if let Some(Md5Key(key)) = &wanted.password {
                        body["password"] = json!(String::from_utf8_lossy(key));
                    }
                    let call = Call::post("/bgp-peer-groups", body);
                    self.send(&self.networks, call).await.map_err(refine)?.body
                }
            };
            Ok(match text(&group, "status").as_deref() {
                Some("READY") | None => Enabled::Yes,
                Some(status) => Enabled::Requested(format!("the peer group is {status}")),
            })
        })
    }

    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let call = Call::get(format!("/servers/{}", encode(&node.device)));
            let server = match self.send(&self.bmc, call).await.map_err(refine) {
                Err(SourceError::Gone) => return Ok(Device { state: DeviceState::Gone, addresses: Vec::new() }),
                reply => reply?.body,
            };
            let state = match text(&server, "status").as_deref() {
                Some("powered-on") => DeviceState::Active,
                Some("powered-off") => DeviceState::PoweredOff,
                Some("creating" | "resetting" | "rebooting" | "error") => DeviceState::Maintenance,
                other => DeviceState::Unknown(other.unwrap_or_default().into()),
            };
            let all = items(&server, "privateIpAddresses").iter().chain(items(&server, "publicIpAddresses"));
            Ok(Device { state, addresses: all.filter_map(|ip| ip.as_str()?.parse().ok()).collect() })
        })
    }

    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let Some(group) = self.group().await? else { return Ok(NodePeers::default()) };
            let device = self.device(node).await?;
            let active = asn(&group["activeAsnDetails"], "asn").or_else(|| asn(&group["targetAsnDetails"], "asn"));
            let (Some(my_asn), Ok(peer_asn)) = (active, Asn::new(PEER_AS)) else { return Ok(NodePeers::default()) };
            let loopbacks = items(&group, "peeringLoopbacksV4").iter().chain(items(&group, "peeringLoopbacksV6"));
            let peers = loopbacks.filter_map(|ip| address(&json!({ "ip": ip }), "ip")).map(|router| ProvidedPeer {
                address: router,
                my_asn,
                peer_asn,
                source: device.addresses.iter().find(|own| own.is_ipv4() == router.is_ipv4()).copied(),
                multihop: number(&group, "eBgpMultiHop").and_then(|ttl| u8::try_from(ttl).ok()).filter(|ttl| *ttl > 1),
                password: text(&group, "password").map(|key| Md5Key(key.into_bytes().into())),
                prefix_budget: None,
            });
            Ok(NodePeers { peers: peers.collect(), routes: Vec::new() })
        })
    }
}
