//! Addresses, links and routes of this node: spec, observed, apply.
