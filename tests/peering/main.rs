//! `ironcast run` beside BIRD and FRR in network namespaces: what the network engineer sees on the router.

mod bfd;
mod router_config;
mod routers;
mod site;
mod unnumbered;

#[path = "../support/mod.rs"]
mod support;
