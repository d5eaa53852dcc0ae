//! The packet path: tables, the programs that read them, and who loads them. See `docs/datapath.md`.

pub mod maglev;
