//! How the operator started us: flags and environment of `ironcast run`.
