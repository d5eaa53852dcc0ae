//! The admin port: `/live`, `/ready`, `/metrics`, `/state.json` on loopback TCP and a Unix socket; read-only.

pub mod client;
