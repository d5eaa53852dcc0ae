//! Ironcast makes `type: LoadBalancer` work on bare metal.
//!
//! ```text
//! types ◀─ plan ◀─ {source, provider, announce, netlink, datapath} ◀─ app ◀─ cli
//! ```
//!
//! `source` sees the world and keeps it in an index; `plan` decides, purely; `announce`, `netlink` and
//! `datapath` make it so on this node; `source::status` says what became of it. `app` joins them with
//! channels. The page `docs/architecture.md` follows one Service from the watch to the wire.

pub mod admin;
pub mod announce;
pub mod app;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod lab;
#[cfg(test)]
mod mutated;
pub mod netlink;
pub mod plan;
pub mod provider;
pub mod router_config;
#[cfg(test)]
mod simulation;
pub mod source;
pub mod telemetry;
mod term;
pub mod types;
