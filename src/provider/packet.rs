//! Packet, Equinix Metal and compatible stacks.
//!
//! Equinix Metal itself was shut down on 2026-06-30; base URL and metadata URL are configuration. Leases are IP
//! reservations of a project, marks are their tags. Peers are the BGP neighbours of a device, which the API tells the leader
//! and the metadata service tells the node. Both generations of peering: two routers beyond the private gateway
//! (multihop, with a route to each), or the gateway itself.

mod addresses;
mod peers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hyper::StatusCode;

use super::{
    Account, PeerSource, Provider, Refusal, SetupError, SourceError,
    http::{Auth, Failed, Http},
};

/// Usual base URL. Older stacks: `https://api.packet.net`.
const ENDPOINT: &str = "https://api.equinix.com/metal/v1";
/// Usual URL of the metadata. Older stacks: `https://metadata.packet.net/metadata`.
const METADATA: &str = "https://metadata.platformequinix.com/metadata";

/// The account's API, for the leader.
struct Api {
    http: Http,
    project: String,
}

/// The metadata service, for a node.
struct Metadata {
    http: Http,
}

/// What the leader uses.
///
/// # Errors
/// Project or token are missing, or the endpoint is no URL.
pub fn leader(account: &Account) -> Result<Provider, SetupError> {
    let auth = Auth::Header("x-auth-token", account.token()?);
    let http = Http::new(account.endpoint(ENDPOINT), auth)?.deadlines(account.deadlines);
    let api = Arc::new(Api { http, project: account.project()? });
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

/// A failure of a call below the project: its 404 means the project.
fn of_project(failed: Failed) -> SourceError {
    if failed.status == Some(StatusCode::NOT_FOUND) { failed.refused(Refusal::UnknownProject) } else { refine(failed) }
}

/// The API refuses with 422 and words.
fn refine(failed: Failed) -> SourceError {
    if !failed.is(422) {
        return failed.into();
    }
    let refusal = if failed.says(&["approval", "quota", "limit", "exceed"]) {
        Refusal::Quota
    } else if failed.says(&["valid metro", "valid facility", "metro is required", "take no metro", "metro not found"]) {
        Refusal::UnknownRegion
    } else if failed.says(&["available", "no addresses", "not enough", "capacity"]) {
        Refusal::NoStock
    } else if failed.says(&["valid type"]) {
        Refusal::Unsupported
    } else {
        Refusal::Invalid
    };
    failed.refused(refusal)
}
