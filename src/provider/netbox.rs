//! NetBox and Nautobot: addresses of a prefix by `available-ips`, marked in the description.
//!
//! `spec.project` is the id of the prefix (a number for NetBox, a UUID for Nautobot). The database chooses the
//! address and creates it in one request, so two clusters never get the same. No peers: those are `BGPPeer` objects.

use std::sync::Arc;

use hyper::StatusCode;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    Account, AddressSource, Answer, Claimed, Lease, LeaseId, LeaseState, Marking, Marks, Order, Provider, Refusal,
    SetupError, SourceError,
    account::{Listing, claimed_but, described, lacks, number, release, text},
    http::{self, Auth, Call, Failed, Http, encode},
};

const PER_PAGE: u64 = 500;
const PAGES: u64 = 1000;
/// `description` takes so many characters.
const DESCRIPTION: usize = 200;

struct Api {
    http: Http,
    prefix: String,
}

/// What the leader uses. There is no usual endpoint: it is the operator's own (`https://netbox.example/api`).
///
/// # Errors
/// Endpoint, prefix or token are missing, or the endpoint is no URL.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let endpoint = account.endpoint.as_deref().ok_or(SetupError::Missing("spec.endpoint"))?;
    let http = Http::new(endpoint, Auth::Token(account.token()?))?.deadlines(account.deadlines);
    Ok(Provider { addresses: Some(Arc::new(Api { http, prefix: account.project()? })), peers: None })
}

fn of_prefix(failed: Failed) -> SourceError {
    match failed.status {
        Some(StatusCode::NOT_FOUND) => failed.refused(Refusal::UnknownProject),
        // NetBox's answer where the prefix is full.
        Some(StatusCode::CONFLICT) => failed.refused(Refusal::NoStock),
        _ if failed.is(400) && failed.says(&["insufficient", "available"]) => failed.refused(Refusal::NoStock),
        _ => failed.into(),
    }
}

impl AddressSource for Api {
    fn marking(&self) -> Marking {
        Marking::AtClaim
    }

    /// The addresses within the prefix.
    fn list(&self) -> Answer<'_, Vec<Lease>> {
        Box::pin(async move {
            let prefix = format!("/ipam/prefixes/{}/", encode(&self.prefix));
            let prefix = self.http.send(&Call::get(prefix)).await.map_err(of_prefix)?.body;
            let within = text(&prefix, "prefix").ok_or_else(|| lacks("prefix"))?;
            let mut listing = Listing::default();
            for page in 0..PAGES {
                let at = page * PER_PAGE;
                let filter = if self.is_nautobot() { "prefix" } else { "parent" };
                let path = format!("/ipam/ip-addresses/?{filter}={}&limit={PER_PAGE}&offset={at}", encode(&within));
                let body = self.http.send(&Call::get(path)).await.map_err(SourceError::from)?.body;
                let entries = body.get("results").and_then(Value::as_array).ok_or_else(|| lacks("results"))?;
                for entry in entries {
                    listing.add(lease(entry)?);
                }
                if body.get("next").is_none_or(Value::is_null) {
                    return listing.complete(number(&body, "count"));
                }
            }
            Err(SourceError::Unreadable(format!("more than {PAGES} pages")))
        })
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let single = matches!((order.family, order.prefix_len), (crate::types::Family::Ipv4, 32) | (_, 128));
            if !single {
                let message = "available-ips gives single addresses".into();
                return Err(SourceError::Refused { refusal: Refusal::Unsupported, message });
            }
            let status = if self.is_nautobot() { "Active" } else { "active" };
            let body = json!({ "description": described(&order.marks.tags(), DESCRIPTION)?, "status": status });
            let call = Call::post(format!("/ipam/prefixes/{}/available-ips/", encode(&self.prefix)), body);
            let mut reply = self.http.send(&call).await.map_err(of_prefix)?.body;
            // Nautobot's answer where the prefix is full: 204.
            if reply.is_null() {
                let message = "the prefix has no free address".into();
                return Err(SourceError::Refused { refusal: Refusal::NoStock, message });
            }
            // A list of one where the body was a list.
            if let Some(first) = reply.get_mut(0) {
                reply = first.take();
            }
            lease(&reply).map(Claimed::Lease).map_err(claimed_but)
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    fn mark<'a>(&'a self, id: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(async move {
            let description = described(&Marks::replaced(&self.one(id).await?.tags, marks), DESCRIPTION)?;
            let call =
                Call::patch(format!("/ipam/ip-addresses/{}/", encode(&id.0)), json!({ "description": description }));
            self.http.send(&call).await?;
            Ok(())
        })
    }

    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let path = format!("/ipam/ip-addresses/{}/", encode(&id.0));
        let delete = async { Ok(self.http.send(&Call::delete(path)).await.map(drop)?) };
        Box::pin(release(self.one(id), expected, delete))
    }
}

impl Api {
    /// Its prefixes have UUIDs where NetBox's have numbers.
    fn is_nautobot(&self) -> bool {
        self.prefix.parse::<u64>().is_err()
    }

    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        lease(&self.http.send(&Call::get(format!("/ipam/ip-addresses/{}/", encode(&id.0)))).await?.body)
    }
}

/// The id is a number or a UUID. The length of `address` is the prefix's, not the lease's.
fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let id =
        text(entry, "id").or_else(|| number(entry, "id").map(|id| id.to_string())).ok_or_else(|| lacks("an id"))?;
    let network = super::account::address(entry, "address").map(IpNet::from);
    let object = entry.get("assigned_object").filter(|object| object.is_object());
    Ok(Lease {
        id: LeaseId(id),
        network,
        state: network.map_or_else(|| LeaseState::Pending("no address".into()), |_| LeaseState::Ready),
        tags: Marks::split(&text(entry, "description").unwrap_or_default()),
        created: text(entry, "created").and_then(|at| http::time(&at)),
        region: None,
        kind: None,
        assigned: object.map(|object| text(object, "display").unwrap_or_else(|| "an interface".into())),
    })
}
