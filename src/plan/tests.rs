//! One Service, one rule.

mod allocation;
mod announcing;
mod provided;
mod speed;
