//! The daemon's Kubernetes side against a real API server.

mod support;

use support::cluster::Cluster;

#[tokio::test]
async fn control_plane_starts_and_ends() {
    let Some(cluster) = Cluster::start().await else { return };
    let version = cluster.client().await.apiserver_version().await.expect("answers");
    assert_eq!(version.major, "1");
}
