//! One Service, one rule.

mod allocation;
mod announcing;
mod found;
mod leaving;
mod provided;
mod speed;
