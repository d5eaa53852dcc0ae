//! What people install with: chart, manifests, kustomize, alerts, image and documents, each judged by the program that
//! will read it.

mod chart;
mod docs;
mod house;
mod image;
mod install;
mod kustomize;
mod monitoring;
mod reference;
mod release;
#[path = "../support/mod.rs"]
mod support;
mod tools;
