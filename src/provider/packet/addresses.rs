//! Reservations as leases.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Api, of_project, refine};
use crate::{
    provider::{
        AddressSource, Answer, Claimed, Lease, LeaseId, LeaseState, Marking, Marks, Order, Refusal, SourceError,
        account::{Listing, claimed_but, items, lacks, number, release, text},
        http::{self, Call, Failed, encode},
    },
    types::Family,
};

/// The largest page.
const PER_PAGE: u64 = 1000;
/// More pages than any project has: a server that never says "last" must not keep us for ever.
const PAGES: u64 = 1000;

impl AddressSource for Api {
    fn marking(&self) -> Marking {
        Marking::AtClaim
    }

    fn list(&self) -> Answer<'_, Vec<Lease>> {
        Box::pin(self.all())
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            let body = request(order)?;
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
            let tags = Marks::replaced(&self.one(id).await?.tags, marks);
            let call = Call::patch(format!("/ips/{}", encode(&id.0)), json!({ "tags": tags }));
            self.http.send(&call).await.map_err(refine)?;
            Ok(())
        })
    }

    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let path = format!("/ips/{}", encode(&id.0));
        let in_use = |failed: Failed| match failed.is(422) && failed.says(&["assign"]) {
            true => SourceError::InUse { by: failed.message },
            false => refine(failed),
        };
        let delete = async move { self.http.send(&Call::delete(path)).await.map(drop).map_err(in_use) };
        Box::pin(release(self.one(id), expected, delete))
    }
}

impl Api {
    /// All pages without a filter: `types` is read differently by different stacks.
    async fn all(&self) -> Result<Vec<Lease>, SourceError> {
        let mut listing = Listing::default();
        for page in 1..=PAGES {
            let path = format!("/projects/{}/ips?per_page={PER_PAGE}&page={page}", encode(&self.project));
            let body = self.http.send(&Call::get(path)).await.map_err(of_project)?.body;
            let entries = body.get("ip_addresses").and_then(Value::as_array).ok_or_else(|| lacks("ip_addresses"))?;
            for entry in entries {
                listing.add(lease(entry)?);
            }
            let meta = &body["meta"];
            // Old stacks give everything at once and no `meta`.
            let last = number(meta, "last_page").unwrap_or(1);
            if page >= last {
                return listing.complete(number(meta, "total"));
            }
        }
        Err(SourceError::Unreadable(format!("more than {PAGES} pages")))
    }

    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        let reply = self.http.send(&Call::get(format!("/ips/{}", encode(&id.0)))).await.map_err(refine)?;
        lease(&reply.body)
    }
}

/// The body that claims.
fn request(order: &Order) -> Result<Value, SourceError> {
    let unsupported = |message: String| SourceError::Refused { refusal: Refusal::Unsupported, message };
    let usual = match order.family {
        Family::Ipv4 => "public_ipv4",
        Family::Ipv6 => "public_ipv6",
    };
    let kind = order.kind.as_deref().unwrap_or(usual);
    let quantity = match order.family {
        // The API takes a power of two up to a /24.
        Family::Ipv4 if (24..=32).contains(&order.prefix_len) => 1_u32 << (32 - order.prefix_len),
        Family::Ipv4 => return Err(unsupported(format!("a /{} cannot be reserved: /24 to /32", order.prefix_len))),
        // IPv6 comes in blocks whose size the provider chooses.
        Family::Ipv6 => 1,
    };
    let holder = order.marks.service.as_ref().map_or(String::new(), |service| format!(", Service {service}"));
    let mut body = json!({
        "type": kind, "quantity": quantity, "tags": order.marks.tags(),
        "details": format!("ironcast: pool {}{holder}", order.marks.pool),
    });
    match (&order.region, kind) {
        (_, "global_ipv4") => {}
        (Some(metro), _) => body["metro"] = json!(metro),
        (None, _) => {
            let message = format!("{kind} needs a metro");
            return Err(SourceError::Refused { refusal: Refusal::UnknownRegion, message });
        }
    }
    Ok(body)
}

/// A reservation as recorded ones are: anything but the id may be missing or null.
pub(super) fn lease(entry: &Value) -> Result<Lease, SourceError> {
    let href = text(entry, "href");
    let id = text(entry, "id").or_else(|| href?.rsplit('/').next().map(Into::into)).ok_or_else(|| lacks("an id"))?;
    let network = network(entry);
    let state = match text(entry, "state").as_deref() {
        Some(state @ "pending") => LeaseState::Pending(state.into()),
        Some(state @ "denied") => LeaseState::Denied(state.into()),
        Some(state) if network.is_none() => LeaseState::Pending(state.into()),
        None if network.is_none() => LeaseState::Pending("no address yet".into()),
        _ => LeaseState::Ready,
    };
    let assigned = items(entry, "assignments").first().map(|assignment| {
        let to = assignment.get("assigned_to").and_then(|to| text(to, "href"));
        to.or_else(|| text(assignment, "href")).unwrap_or_else(|| "an assignment".into())
    });
    let place = |key: &str| entry.get(key).and_then(|place| text(place, "code"));
    Ok(Lease {
        id: LeaseId(id),
        network,
        state,
        tags: items(entry, "tags").iter().filter_map(|tag| tag.as_str().map(Into::into)).collect(),
        created: text(entry, "created_at").and_then(|at| http::time(&at)),
        region: place("metro").or_else(|| place("facility")),
        kind: text(entry, "type"),
        assigned,
    })
}

fn network(entry: &Value) -> Option<IpNet> {
    let address: IpAddr = text(entry, "network").or_else(|| text(entry, "address"))?.parse().ok()?;
    let bits =
        number(entry, "cidr").map_or(Some(if address.is_ipv4() { 32 } else { 128 }), |cidr| u8::try_from(cidr).ok())?;
    IpNet::new(address, bits).ok().map(|net| net.trunc())
}
