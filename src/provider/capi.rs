//! Cluster API's contract for address management: an `IPAddressClaim` of the daemon's namespace, answered by whoever
//! manages the pool that it names with an `IPAddress`; deleting the claim gives the address back.
//!
//! `spec.project` names the pool, `KIND.GROUP/NAME` (`InClusterIPPool.ipam.cluster.x-k8s.io/edge`). Marks are annotations. The claim's
//! name is our claim's id, so that asking twice makes one.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        Preconditions,
    },
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    AddressSource, Answer, Claimed, Lease, LeaseId, LeaseState, Marking, Marks, Order, Provider, Refusal, SetupError,
    SourceError,
    account::{address, claimed_but, items, lacks, release, text},
};
use crate::types::{Family, ProviderConfig};

const GROUP: &str = "ipam.cluster.x-k8s.io";

struct Claims {
    client: Client,
    namespace: String,
    pool: Pool,
    version: OnceCell<String>,
}

struct Pool {
    kind: String,
    group: String,
    name: String,
}

/// What the leader uses, with its own rights in its own namespace.
///
/// # Errors
/// The pool is missing or is no reference.
pub fn leader(client: Client, namespace: &str, config: &ProviderConfig) -> Result<Provider, SetupError> {
    let text = config.project.as_deref().ok_or(SetupError::Missing("spec.project"))?;
    let pool = text.split_once('/').and_then(|(kind, name)| Some((kind.split_once('.')?, name)));
    let Some(((kind, group), name)) = pool else {
        let message = format!("{text:?} is no pool: write KIND.GROUP/NAME (InClusterIPPool.{GROUP}/edge)");
        return Err(SetupError::Invalid("spec.project", message));
    };
    let pool = Pool { kind: kind.into(), group: group.into(), name: name.into() };
    let source = Claims { client, namespace: namespace.into(), pool, version: OnceCell::new() };
    Ok(Provider { addresses: Some(Arc::new(source)), peers: None })
}

/// What a failure of the API server means to a claim.
fn refine(error: kube::Error) -> SourceError {
    let kube::Error::Api(status) = &error else {
        return SourceError::Unavailable { message: error.to_string(), retry_after: None };
    };
    let message = status.message.clone();
    match status.code {
        401 | 403 => SourceError::Unauthorized(message),
        404 => SourceError::Gone,
        429 => SourceError::RateLimited { retry_after: None },
        400..500 => SourceError::Refused { refusal: Refusal::Invalid, message },
        _ => SourceError::Unavailable { message, retry_after: None },
    }
}

/// … and to a list: without the CRDs there is nothing to claim from.
fn of_group(error: kube::Error) -> SourceError {
    match refine(error) {
        SourceError::Gone => not_served(),
        other => other,
    }
}

fn not_served() -> SourceError {
    let message = format!("IPAddressClaims ({GROUP}) are not served: install a provider of Cluster API's IPAM");
    SourceError::Refused { refusal: Refusal::Unsupported, message }
}

impl Claims {
    async fn resource(&self, kind: &str, plural: &str) -> Result<ApiResource, SourceError> {
        let preferred = async {
            let groups = self.client.list_api_groups().await.map_err(refine)?;
            let ours = groups.groups.into_iter().find(|group| group.name == GROUP);
            let version = ours.and_then(|group| group.preferred_version).map(|preferred| preferred.version);
            version.ok_or_else(not_served)
        };
        let version = self.version.get_or_try_init(|| preferred).await?;
        Ok(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, kind), plural))
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }

    async fn claims(&self) -> Result<Api<DynamicObject>, SourceError> {
        Ok(self.api(&self.resource("IPAddressClaim", "ipaddressclaims").await?))
    }

    async fn addresses(&self) -> Result<Api<DynamicObject>, SourceError> {
        Ok(self.api(&self.resource("IPAddress", "ipaddresses").await?))
    }

    async fn one(&self, id: &LeaseId) -> Result<Lease, SourceError> {
        let claim = self.claims().await?.get(&id.0).await.map_err(refine)?;
        let address = match text(&claim.data["status"]["addressRef"], "name") {
            Some(name) => self.addresses().await?.get_opt(&name).await.map_err(refine)?,
            None => None,
        };
        Ok(lease(&claim, address.as_ref()))
    }
}

fn lease(claim: &DynamicObject, given: Option<&DynamicObject>) -> Lease {
    let network = given.and_then(|given| address(&given.data["spec"], "address")).map(IpNet::from);
    let ready =
        items(&claim.data["status"], "conditions").iter().find(|c| c["type"] == "Ready" && c["status"] == "False");
    let waits = ready.and_then(|ready| text(ready, "message").or_else(|| text(ready, "reason")));
    let waits = || LeaseState::Pending(waits.unwrap_or_else(|| "nobody has answered the IPAddressClaim yet".into()));
    Lease {
        id: LeaseId(claim.name_any()),
        network,
        state: network.map_or_else(waits, |_| LeaseState::Ready),
        tags: claim.annotations().iter().map(|(key, value)| format!("{key}={value}")).collect(),
        created: claim.creation_timestamp().map(|at| at.0.into()),
        region: None,
        kind: None,
        assigned: None,
    }
}

impl AddressSource for Claims {
    fn marking(&self) -> Marking {
        Marking::AtClaim
    }

    /// The claims that name the pool; those of others too.
    fn list(&self) -> Answer<'_, Vec<Lease>> {
        Box::pin(async move {
            let all = ListParams::default();
            // Addresses first: one that comes in between is only seen a list later.
            let addresses = self.addresses().await?.list(&all).await.map_err(of_group)?;
            let addresses: BTreeMap<String, DynamicObject> =
                addresses.items.into_iter().map(|given| (given.name_any(), given)).collect();
            let claims = self.claims().await?.list(&all).await.map_err(of_group)?;
            let ours = |claim: &&DynamicObject| {
                let pool = &claim.data["spec"]["poolRef"];
                pool["kind"] == self.pool.kind.as_str() && pool["name"] == self.pool.name.as_str()
            };
            let of = |claim: &DynamicObject| {
                lease(claim, text(&claim.data["status"]["addressRef"], "name").and_then(|name| addresses.get(&name)))
            };
            Ok(claims.items.iter().filter(ours).map(of).collect())
        })
    }

    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed> {
        Box::pin(async move {
            if !matches!((order.family, order.prefix_len), (Family::Ipv4, 32) | (Family::Ipv6, 128)) {
                let message = "an IPAddressClaim is for a single address".into();
                return Err(SourceError::Refused { refusal: Refusal::Unsupported, message });
            }
            let pool = json!({ "apiGroup": self.pool.group, "kind": self.pool.kind, "name": self.pool.name });
            let resource = self.resource("IPAddressClaim", "ipaddressclaims").await?;
            let mut object = DynamicObject::new(&order.marks.claim.to_string(), &resource);
            object.metadata.annotations =
                Some(order.marks.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
            object.data = json!({ "spec": { "poolRef": pool } });
            match self.api(&resource).create(&PostParams::default(), &object).await {
                Ok(made) => Ok(Claimed::Lease(lease(&made, None))),
                // The first request has taken effect: the list shows it, with whose marks it has.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Claimed::Accepted),
                Err(error) => Err(match of_group(error) {
                    SourceError::Unavailable { message, .. } => claimed_but(SourceError::Unreadable(message)),
                    refused => refused,
                }),
            }
        })
    }

    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease> {
        Box::pin(self.one(lease))
    }

    fn mark<'a>(&'a self, id: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut annotations: BTreeMap<&str, Value> =
                Marks::KEYS.into_iter().map(|key| (key, Value::Null)).collect();
            annotations.extend(marks.into_iter().flat_map(Marks::pairs).map(|(key, value)| (key, json!(value))));
            let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
            self.claims().await?.patch(&id.0, &PatchParams::default(), &patch).await.map_err(refine)?;
            Ok(())
        })
    }

    /// Its manager's finalizer keeps the claim until the address is free.
    fn release<'a>(&'a self, id: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()> {
        let delete = async move {
            let claims = self.claims().await?;
            let now = claims.get_metadata(&id.0).await.map_err(refine)?;
            let tags = now.annotations().iter().map(|(key, value)| format!("{key}={value}")).collect();
            if Marks::read(&tags) != Ok(Some(expected.clone())) {
                return Err(lacks("the marks that it had a moment ago"));
            }
            let unchanged = Preconditions { uid: now.uid(), resource_version: now.resource_version() };
            claims.delete(&id.0, &DeleteParams::default().preconditions(unchanged)).await.map_err(refine)?;
            Ok(())
        };
        Box::pin(release(self.one(id), expected, delete))
    }
}
