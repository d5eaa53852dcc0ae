//! BGP-4 and BFD without I/O, and a tokio driver behind the feature `tokio`.
//!
//! The crate knows nothing of Kubernetes and nothing of packet forwarding. It is usable by any program
//! that wants to announce routes to routers.
//!
//! ```text
//!  routes, peers ──▶ speaker ──▶ peer (two connection slots) ──▶ session (RFC 4271 FSM) ──▶ wire
//!                       │                                             ▲
//!                       ▼                                             │ handle / poll / deadline
//!                   rib (Adj-RIB-Out) ──▶ bmp (station)            net (tokio; sockets, MD5, TTL)
//! ```
//!
//! Everything but [`net`] is a state machine without I/O: input goes in with `handle`, output comes out
//! of `poll`, and `deadline` is the only timer that a driver arms. Time is an argument.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod bfd;
pub mod bmp;
mod jitter;
mod peer;
mod session;
mod types;

#[cfg(feature = "tokio")]
pub mod net;
pub mod rib;
pub mod speaker;
pub mod wire;

pub use types::{
    Asn, Community, ExtendedCommunity, Family, HoldTime, InvalidValue, LargeCommunity, LinkBandwidth, Origin, RouterId,
};
