//! Where the world is seen: a Kubernetes API server or a folder of manifests; both feed one index.

pub mod api;
pub mod check;
pub mod claims;
pub mod convert;
pub mod fleet;
pub mod import;
pub mod index;
pub mod kubernetes;
pub mod lease;
pub mod manifests;
pub mod members;
pub mod state_file;
pub mod status;
