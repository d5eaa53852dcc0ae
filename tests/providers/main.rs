//! The provider emulator and the providers' clients, judged by what nobody here wrote: the vendors' specifications
//! through Prism, the vendors' own clients and Apache Libcloud.
#![allow(clippy::unwrap_used)]

mod clients;
mod faults;
mod judge;
mod packet;
#[path = "../support/mod.rs"]
mod support;
mod vendors;
