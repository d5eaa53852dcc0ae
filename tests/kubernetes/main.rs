//! The daemon's Kubernetes side against a real API server.

mod capi;
mod claims;
mod crds;
mod faults;
mod lease;
mod source;
mod status;
#[path = "../support/mod.rs"]
mod support;
