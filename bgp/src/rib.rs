//! Routes and the Adj-RIB-Out: whole sets in, differences inside.
//!
//! Several routes of one prefix are several paths: a session with ADD-PATH (RFC 7911) is sent them all, the first
//! of the caller's order under path identifier 1, the next under 2, and so on; any other session is sent the last.
//! A prefix with one route has identifier 1. Who takes one of several paths out renumbers those after it.
//!
//! ```text
//!  Routes ──────▶ difference  to what a peer was told; what both sets share costs nothing
//!  (chunks)         │
//!                   ▼
//!                 render      UPDATEs, encoded once for all peers of the group that negotiated the same
//! ```

mod chunks;
mod difference;
mod encoding;
mod render;
mod routes;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

pub(crate) use encoding::Encoding;
pub(crate) use render::{Change, Rendered, Renders};
pub use routes::Routes;

use crate::{Asn, Community, ExtendedCommunity, LargeCommunity, LinkBandwidth, Origin};

/// A route that the caller wants announced: a prefix and the attributes that it shares with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination, IPv4 or IPv6, host bits zero.
    pub prefix: IpNet,
    /// Shared: routes with the same attributes travel in the same UPDATEs.
    pub attributes: Arc<Attributes>,
}

/// What the caller decides about a route. AS path, local preference on eBGP and the next hop in its wire
/// form are the session's business.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// Where the packets go: `None` is the session's own local address ("next hop self").
    pub next_hop: Option<IpAddr>,
    /// How often the local AS is prepended beyond the one time that eBGP asks for.
    pub prepend: u8,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, sent on iBGP only (RFC 4271 §5.1.5); 100 where `None`.
    pub local_pref: Option<u32>,
    /// Standard communities, sorted, no duplicates.
    pub communities: Vec<Community>,
    /// Extended communities but link bandwidth, sorted, no duplicates.
    pub extended_communities: Vec<ExtendedCommunity>,
    /// What this next hop can carry beside those of other routes to the prefix (RFC 10005); the session's own AS
    /// goes with it.
    pub link_bandwidth: Option<LinkBandwidth>,
    /// Large communities, sorted, no duplicates.
    pub large_communities: Vec<LargeCommunity>,
    /// ONLY_TO_CUSTOMER as it came with the route; a route without it gets ours where the session's role asks for
    /// it (RFC 9234 §5).
    pub only_to_customer: Option<Asn>,
}
