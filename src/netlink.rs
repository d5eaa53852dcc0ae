//! Addresses, links and routes of this node: what is wanted, what is there, and the step from one to the other.
//!
//! ```text
//!  Desired.addresses ─┐                    ┌─▶ ready: addresses that this host answers for
//!  route::Spec ───────┼─▶ diff ─▶ apply ───┤
//!  rtnetlink dump ────┘    ▲               └─▶ host: links and addresses as they are
//!       multicast groups ──┘
//! ```
//!
//! The differences are pure functions ([`addr::diff`], [`route::diff`]); [`run`] observes, applies and observes
//! again. It owns the netlink socket; cancelling it leaves the kernel as it is. Only what we added is ever removed:
//! addresses and routes carry [`KERNEL_MARK`](crate::types::KERNEL_MARK), and where the kernel cannot mark addresses
//! (before 5.18) a list in the state folder says which are ours.
//!
//! An address that is no longer wanted stays for [`LINGER`], so that routers have withdrawn before the host
//! stops to answer.

pub mod addr;
mod driver;
pub mod link;
mod remembered;
pub mod route;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use crate::{plan::Desired, types::Set};

/// How long an address stays after it is no longer wanted: longer than a withdrawal takes to reach a router.
pub const LINGER: Duration = Duration::from_secs(1);

/// What does not change while we run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Wanted addresses are put on `lo`; otherwise something else takes their packets and they count as ready.
    pub vips_on_lo: bool,
    /// Folder of the list of our addresses.
    pub state_dir: PathBuf,
}

/// How this module is joined to the others.
#[derive(Debug)]
pub struct Channels {
    /// The addresses wanted; `None` until the first plan is made, and until then nothing is touched.
    pub desired: watch::Receiver<Option<Arc<Desired>>>,
    /// Routes to peers wanted.
    pub routes: watch::Receiver<BTreeSet<route::Spec>>,
    /// Wanted addresses that this host answers for.
    pub ready: watch::Sender<Set<IpAddr>>,
    /// Links and addresses of this host.
    pub host: watch::Sender<Arc<Host>>,
    /// Ends [`run`]; dropped, it counts as [`Finish::Keep`].
    pub finish: oneshot::Receiver<Finish>,
}

/// What becomes of our addresses and routes at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// They stay for our successor.
    Keep,
    /// They go.
    Remove,
}

/// Links and addresses as the kernel has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// By index.
    pub links: BTreeMap<u32, link::Link>,
    /// Of all links.
    pub addresses: BTreeSet<addr::Address>,
}

impl Host {
    /// The loopback device.
    pub fn loopback(&self) -> Option<&link::Link> {
        self.links.values().find(|link| link.loopback)
    }
}

/// The conversation with the kernel broke down. A refused change is no such error: it is logged, shown as "not
/// ready" and tried again.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("open a netlink socket")]
    Open(#[source] std::io::Error),
    /// A dump failed.
    #[error("list {what} of this host")]
    Observe {
        /// `links`, `addresses`, `routes`.
        what: &'static str,
        /// Why.
        source: rtnetlink::Error,
    },
    /// The socket closed.
    #[error("the netlink socket closed")]
    Closed,
    /// The planner is gone.
    #[error("the planner ended, so nothing tells which addresses are wanted")]
    NoPlanner,
}

/// Keeps the kernel as wanted until told to finish.
///
/// # Errors
/// The netlink socket cannot be opened or used; without it nothing can be known of this host.
pub async fn run(options: Options, channels: Channels) -> Result<(), NetlinkError> {
    driver::run(options, channels).await
}
