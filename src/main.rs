//! The `ironcast` program.
fn main() {}
