//! The record of addresses and status beside the manifests.
