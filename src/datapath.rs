//! The packet path: tables, the programs that read them, and who loads them. See `docs/datapath.md`.
//!
//! [`spec::Spec`] says what should be; [`kernel::Datapath`] makes it so. What lies between is pure: [`maglev`],
//! [`slots`] (a table's history to its slots), [`image`] (a bank of the tables).

#[cfg(feature = "xdp")]
pub mod aggregates;
#[cfg(feature = "xdp")]
pub mod driver;
pub mod hash;
pub mod image;
#[cfg(feature = "xdp")]
pub mod kernel;
pub mod maglev;
#[cfg(feature = "xdp")]
mod mapped;
pub mod query;
pub mod ranges;
pub mod reference;
pub mod report;
pub mod slots;
pub mod spec;
pub mod tables;
pub mod types;
pub mod underlay;
