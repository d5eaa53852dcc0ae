//! The journal of claims on a cluster: `AddressClaim` objects, written by the leader alone; and what nodes announce.
//!
//! Every write names the version that it was decided on. A conflict or an answer that was lost leaves the journal
//! unknown, and whoever drives it loads it again.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
    },
};
use serde_json::json;
use tokio::{sync::Mutex, time::timeout};

use super::{
    api::{AddressClaim, AddressClaimStatus, BGPNodeStatus, CLAIM_FINALIZER},
    convert,
};
use crate::types::{Claim, ClaimId};

/// A write that takes longer has failed. Shorter than `lease - give_up` of an election.
const DEADLINE: Duration = Duration::from_secs(4);
/// A list may have many pages' worth of objects.
const LIST: Duration = Duration::from_secs(30);
/// Writes beside each other.
const ABREAST: usize = 8;

/// Why the objects are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The API server refuses, or is away.
    #[error("{attempt} {object}")]
    Api {
        /// `create`, `list` …
        attempt: &'static str,
        /// Which.
        object: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// No answer in time.
    #[error("{0} did not answer in time")]
    Late(String),
    /// A claim of ours that cannot be read: what it holds would be forgotten.
    #[error("{0}")]
    Unreadable(String),
}

/// The objects, with their versions.
#[derive(Debug)]
pub struct ClaimObjects {
    api: Api<AddressClaim>,
    known: Mutex<BTreeMap<ClaimId, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    version: Option<String>,
    status: Option<AddressClaimStatus>,
}

impl ClaimObjects {
    /// Those of the daemon's namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), known: Mutex::new(BTreeMap::new()) }
    }

    /// All claims as of now. Objects that people made, whose names are no ids, are passed over.
    ///
    /// # Errors
    /// The API server is away, or a claim cannot be read.
    pub async fn load(&self) -> Result<Vec<Claim>, ObjectsError> {
        let mut known = self.known.lock().await;
        let list = timeout(LIST, self.api.list(&ListParams::default())).await;
        let list = list.map_err(|_| ObjectsError::Late("the list of AddressClaims".into()))?;
        let list = list.map_err(failed("list", "AddressClaims"))?;
        known.clear();
        let mut claims = Vec::new();
        for object in list.items {
            let Ok(id) = object.metadata.name.as_deref().unwrap_or_default().parse::<ClaimId>() else { continue };
            let converted = convert::claim(&object);
            let problem = || converted.problems.first().map(ToString::to_string).unwrap_or_default();
            claims.push(converted.value.clone().ok_or_else(|| ObjectsError::Unreadable(problem()))?);
            known.insert(id, Known { version: object.metadata.resource_version, status: object.status });
        }
        Ok(claims)
    }

    /// Changes them: `None` removes a claim and its finalizer.
    ///
    /// # Errors
    /// Any one failed: what the journal holds is unknown until it is loaded again.
    pub async fn change(&self, changes: Vec<(ClaimId, Option<Claim>)>) -> Result<(), ObjectsError> {
        let mut known = self.known.lock().await;
        let work = changes.into_iter().map(|(id, claim)| {
            let before = known.get(&id).cloned();
            async move {
                let after = match claim {
                    Some(claim) => Some(self.put(&claim, before).await?),
                    None => {
                        self.remove(id, before.and_then(|known| known.version)).await?;
                        None
                    }
                };
                Ok::<_, ObjectsError>((id, after))
            }
        });
        let done: Vec<_> = futures::stream::iter(work).buffer_unordered(ABREAST).try_collect().await?;
        for (id, after) in done {
            match after {
                Some(after) => known.insert(id, after),
                None => known.remove(&id),
            };
        }
        Ok(())
    }

    async fn put(&self, claim: &Claim, before: Option<Known>) -> Result<Known, ObjectsError> {
        let name = claim.id.to_string();
        let (version, status) = match before {
            Some(Known { version, status }) => (version, status),
            None => (self.create(claim, &name).await?, None),
        };
        let status = convert::claim_status(claim, status.as_ref());
        // Whole: a merge would keep what is no longer so.
        let blank = json!({ "since": null, "leaseID": null, "network": null });
        let mut patch = json!({ "metadata": { "resourceVersion": version }, "status": blank });
        let fields = serde_json::to_value(&status).unwrap_or_default();
        for (field, value) in fields.as_object().into_iter().flatten() {
            patch["status"][field] = value.clone();
        }
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        let object = within(&name, self.api.patch_status(&name, &params, &patch))
            .await?
            .map_err(failed("write the status of", &name))?;
        Ok(Known { version: object.metadata.resource_version, status: Some(status) })
    }

    async fn create(&self, claim: &Claim, name: &str) -> Result<Option<String>, ObjectsError> {
        let object = AddressClaim {
            metadata: ObjectMeta {
                name: Some(name.into()),
                finalizers: Some(vec![CLAIM_FINALIZER.into()]),
                ..Default::default()
            },
            spec: convert::claim_spec(claim),
            status: None,
        };
        let created = within(name, self.api.create(&PostParams::default(), &object)).await?;
        Ok(created.map_err(failed("create", name))?.metadata.resource_version)
    }

    /// A leader that was held up must not take away what its successor uses meanwhile.
    async fn remove(&self, id: ClaimId, version: Option<String>) -> Result<(), ObjectsError> {
        let name = id.to_string();
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null, "resourceVersion": version } }));
        let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
        let bare = match within(&name, self.api.patch(&name, &PatchParams::default(), &patch)).await? {
            Err(error) if gone(&error) => return Ok(()),
            answer => answer.map_err(failed("take the finalizer off", &name))?,
        };
        let unchanged = Preconditions { uid: bare.metadata.uid, resource_version: bare.metadata.resource_version };
        match within(&name, self.api.delete(&name, &DeleteParams::default().preconditions(unchanged))).await? {
            Err(error) if !gone(&error) => Err(failed("delete", &name)(error)),
            _ => Ok(()),
        }
    }
}

async fn within<T>(name: &str, request: impl Future<Output = T>) -> Result<T, ObjectsError> {
    timeout(DEADLINE, request).await.map_err(|_| ObjectsError::Late(format!("the API server, asked about {name},")))
}

fn failed(attempt: &'static str, object: &str) -> impl FnOnce(kube::Error) -> ObjectsError {
    let object = object.to_owned();
    move |source| ObjectsError::Api { attempt, object, source }
}

/// Every prefix that a node says that it announces. A node whose list is cut (500 entries) may announce more. Nothing else
/// of the objects is read: those of another version count as well.
///
/// # Errors
/// The API server is away: then nothing is known.
pub async fn announced(client: &Client, namespace: &str) -> Result<Vec<IpNet>, ObjectsError> {
    let resource = ApiResource::erase::<BGPNodeStatus>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let list = timeout(LIST, api.list(&ListParams::default())).await;
    let list = list.map_err(|_| ObjectsError::Late("the list of BGPNodeStatuses".into()))?;
    let list = list.map_err(failed("list", "BGPNodeStatuses"))?;
    let routes = list.items.iter().flat_map(|node| node.data["status"]["routes"].as_array().into_iter().flatten());
    Ok(routes.filter_map(|route| route["prefix"].as_str()?.parse().ok()).collect())
}
