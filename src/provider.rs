//! Addresses and peers that a bare-metal provider gives, claimed without leaks.
//!
//! ```text
//!  plan: demand (a Service without an address, of a pool that names a provider)
//!    │                     ┌── AddressSource::list ── every lease of the account, or an error
//!    ▼                     ▼
//!  claims (pure): journal + listing + demand + what is announced ─▶ actions ─▶ driver ─▶ AddressSource
//!    │                                                                │
//!    │ journal: AddressClaim objects, or the state file               ▼
//!    └──────────────▶ source ─▶ Snapshot.claims ─▶ plan: a bound claim is a range of its pool
//! ```
//!
//! A claim that is *bound* adds its network to its pool's ranges, so allocation, recording and announcing are those
//! of every other pool; an address that is no longer bound leaves the pool, and plan withdraws it as it does any
//! address outside pools. Taking addresses of the operator's own pools (the embedded default) is therefore no
//! source: plan gives them out itself, and nothing outside has to be asked.
//!
//! Addresses and peers come from different places, so there are two traits. [`AddressSource`] needs the account's
//! token and is used by the leader alone. [`PeerSource`] is the account's API for the leader and the
//! metadata service for each node, which knows its own peers without a token.
//!
//! No provider has idempotency keys. What makes a claim safe to repeat is its id: written to the journal before the
//! request, sent within the marks of that same request, and looked for in complete lists after an answer that was
//! lost. So `list` gives everything or an error: a list that may lack a page would make a lease look gone.
//!
//! An implementation does one thing per call and neither waits nor tries again beyond its own transport: the
//! patience is the driver's. It classifies every failure ([`SourceError`]) by what the caller may do next.

mod account;
pub mod capi;
pub mod cherry;
pub mod claims;
pub mod driver;
mod error;
pub mod fleet;
mod http;
pub mod journal;
pub mod latitude;
mod lease;
pub mod netbox;
pub mod node;
pub mod packet;
mod peers;
pub mod phoenixnap;
mod predecessor;
pub mod sweep;
pub mod vendors;
pub mod vultr;
pub mod world;

use std::sync::Arc;

use futures::future::BoxFuture;

pub use crate::types::LeaseId;
pub use account::Account;
pub use error::{Refusal, SourceError};
pub use http::{Deadlines, Secret, SetupError};
pub use lease::{Claimed, Lease, LeaseState, MarkError, Marking, Marks, Order};
pub use peers::{BgpMode, Device, DeviceState, Enabled, NodeId, NodePeers, ProjectBgp, ProvidedPeer, RouteNeeded};

/// What a provider answers, at some time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// Where addresses are leased. One for each `ProviderConfig`.
pub trait AddressSource: Send + Sync {
    /// Whether the provider keeps marks with a lease, and from when on.
    fn marking(&self) -> Marking;

    /// Every address lease of the project, all pages of it, foreign ones too.
    ///
    /// # Errors
    /// Anything that may have left a lease out: a page that failed, a total that differs, an entry without an id. An
    /// entry that several pages repeat is one lease.
    fn list(&self) -> Answer<'_, Vec<Lease>>;

    /// Asks for one address or block, the marks in the same request.
    ///
    /// # Errors
    /// [`SourceError::Ambiguous`] wherever the request may have taken effect: a time-out after sending, a 5xx, an
    /// answer that cannot be read. Everything else says that nothing was claimed.
    fn claim<'a>(&'a self, order: &'a Order) -> Answer<'a, Claimed>;

    /// One lease as it is now.
    ///
    /// # Errors
    /// [`SourceError::Gone`] only where the provider itself says that it has no such lease.
    fn poll<'a>(&'a self, lease: &'a LeaseId) -> Answer<'a, Lease>;

    /// Replaces our marks of the lease, and those of the retired controller (`usage=`, `cluster=`, `service=`), by these
    /// or by none; other people's tags stay.
    ///
    /// # Errors
    /// Repeating is harmless, so nothing here is ambiguous to the caller.
    fn mark<'a>(&'a self, lease: &'a LeaseId, marks: Option<&'a Marks>) -> Answer<'a, ()>;

    /// Gives the lease back: reads it again, compares every mark and that nothing is assigned, then deletes it. One
    /// that is gone already is a success.
    ///
    /// # Errors
    /// [`SourceError::Foreign`] where a mark differs and [`SourceError::InUse`] where something is assigned; both
    /// before anything is deleted.
    fn release<'a>(&'a self, lease: &'a LeaseId, expected: &'a Marks) -> Answer<'a, ()>;
}

/// Where a node's routers are known. Each method has a default for sources that need nothing of the kind.
pub trait PeerSource: Send + Sync {
    /// BGP for the project; asks for it where it is off.
    fn enable_project<'a>(&'a self, wanted: &'a ProjectBgp) -> Answer<'a, Enabled> {
        let _ = wanted;
        Box::pin(std::future::ready(Ok(Enabled::Yes)))
    }

    /// BGP for one node, both families; repeating is harmless.
    fn enable_node<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Enabled> {
        let _ = node;
        Box::pin(std::future::ready(Ok(Enabled::Yes)))
    }

    /// The machine behind the node.
    ///
    /// # Errors
    /// A machine that does not exist is no error, but [`DeviceState::Gone`].
    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device>;

    /// The routers that the node peers with; none while the provider has not set them up yet.
    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers>;

    /// Lets the node announce the lease, for providers that want to be told.
    fn bind<'a>(&'a self, lease: &'a LeaseId, node: &'a NodeId) -> Answer<'a, ()> {
        let _ = (lease, node);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// What one provider's file gives for one `ProviderConfig`.
#[derive(Clone)]
pub struct Provider {
    /// Where addresses come from; `None` where people allocate them.
    pub addresses: Option<Arc<dyn AddressSource>>,
    /// Where peers come from; `None` where they are `BGPPeer` objects.
    pub peers: Option<Arc<dyn PeerSource>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (addresses, peers) = (self.addresses.is_some(), self.peers.is_some());
        f.debug_struct("Provider").field("addresses", &addresses).field("peers", &peers).finish()
    }
}
