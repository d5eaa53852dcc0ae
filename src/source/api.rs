//! Custom resources: schema only.
