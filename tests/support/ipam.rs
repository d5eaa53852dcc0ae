//! Cluster API's contract for addresses: its resources as CRDs, and a manager of addresses as small as can be.

use super::cluster::Cluster;

const SPACE: &str = "ironcast-system";

/// As Cluster API defines them, as far as the contract says.
pub fn crd(kind: &str, plural: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{name: {plural}.ipam.cluster.x-k8s.io, annotations: {{api-approved.kubernetes.io: unapproved}}}}\n\
         spec:\n  group: ipam.cluster.x-k8s.io\n  scope: Namespaced\n  names: {{kind: {kind}, plural: {plural}}}\n  versions:\n  \
         - name: v1beta1\n    served: true\n    storage: true\n    subresources: {{status: {{}}}}\n    \
         schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
    )
}

/// What a manager of addresses does when it sees a claim.
pub fn give(cluster: &Cluster, claim: &str, address: &str) {
    let object = format!(
        "apiVersion: ipam.cluster.x-k8s.io/v1beta1\nkind: IPAddress\nmetadata: {{name: {claim}, namespace: {SPACE}}}\n\
         spec: {{address: '{address}', prefix: 24, gateway: 192.0.2.1, claimRef: {{name: {claim}}}, \
         poolRef: {{apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: edge}}}}\n"
    );
    cluster.apply(&object).expect("accepted");
    let status = format!(r#"{{"status":{{"addressRef":{{"name":"{claim}"}}}}}}"#);
    let patch = ["patch", "ipaddressclaim", claim, "-n", SPACE, "--subresource=status", "--type=merge", "-p", &status];
    cluster.kubectl(&patch).expect("patched");
}
