//! Provider APIs with state and with injected faults: what the tests claim addresses from, and what
//! `ironcast lab --provider …` runs instead of an account. Never part of the daemon.
//!
//! ```text
//!  client ──HTTP──▶ Server ─▶ control paths (/_emulator/…): log, faults, steering
//!                     │
//!                     └─────▶ Emulator::exchange: log ▸ fault before ▸ token ▸ rate limit ▸ Vendor::answer ▸ fault after
//! ```
//!
//! A [`Vendor`] is a value without I/O: the same one answers over HTTP ([`Server`]) and in the process
//! ([`Emulator::exchange`]), where a property test can put ten thousand fault schedules through it. Everything is
//! deterministic: ids come from a counter, the clock is an argument.
//!
//! What is emulated is what the vendors' specifications and recorded answers show, and `tests/providers` has both
//! judged by programs of others. Where neither says anything, the module says what was assumed.

pub mod cherry;
mod control;
mod emulator;
mod faults;
mod ids;
pub mod latitude;
mod lease;
mod limit;
mod message;
pub mod netbox;
pub mod packet;
pub mod phoenixnap;
mod server;
pub mod vultr;

pub use emulator::{Emulator, Entry, Outcome, Vendor};
pub use faults::{Fault, Rule};
pub use limit::RateLimit;
pub use message::{Answer, Request};
pub use server::Server;
