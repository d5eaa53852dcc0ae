//! What the tests that meet a real API server share.
#![allow(dead_code, unreachable_pub)] // each test program uses its own part

pub mod cluster;
pub mod fabric;
pub mod ipam;
pub mod program;
pub mod routers;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde::Deserialize;

/// Says in one line that a test did not run and why. With `IRONCAST_NO_SKIP` in the environment (CI) that is a failure.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("IRONCAST_NO_SKIP").is_none(),
        "IRONCAST_NO_SKIP is set, and this test would be skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// The objects of `deploy/manifests`.
pub fn manifests() -> Vec<serde_json::Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/manifests/ironcast.yaml");
    let text = std::fs::read_to_string(path).expect("readable");
    let documents = serde_norway::Deserializer::from_str(&text);
    documents.map(|document| serde_json::Value::deserialize(document).expect("YAML")).collect()
}

/// Asks again every 50 ms until the answer is there; panics with `what` after `limit`.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
