//! The BGP Monitoring Protocol towards a station, without I/O: RFC 7854, and RFC 8671 for the Adj-RIB-Out.
//!
//! ```text
//!  Speaker::poll_monitor ──Event──▶ Station::handle ──▶ Station::transmit ──▶ octets for one TCP connection
//!  Speaker::monitored ─────Event──▶        (one after a connection is made: everything that is so now)
//! ```
//!
//! A station learns of every session when it comes up (with both OPENs, as they were on the wire) and when it ends
//! (with the NOTIFICATION, or why there was none), and of every UPDATE that a peer was sent: the peer's own octets,
//! so what the station shows is what the router got. This speaker has no policy of its own behind the caller's
//! routes, so its Adj-RIB-Out is post-policy and the pre-policy view would be the same. Nothing is told about
//! received routes: a load balancer's speaker keeps none of them, it counts them.
//!
//! One [`Station`] serves one connection; after a new one everything begins anew (RFC 7854 §3.3). The driver is
//! `net::bmp`.

mod event;
mod message;
mod station;

pub use event::{Down, Event, Monitored};
pub use station::{Clock, Identity, Station};

#[cfg(test)]
pub(crate) fn some_event() -> Event {
    event::some_event()
}
