//! Annotations of Services: ours, and those of load balancers before us that mean the same.

/// An annotation that the daemon reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// Its names, ours first; the first that is there counts.
    pub names: &'static [&'static str],
    /// What its value is.
    pub value: &'static str,
    /// What it asks for.
    pub meaning: &'static str,
}

/// All of them.
pub const ANNOTATIONS: [Annotation; 4] = [ADDRESSES, POOL, SHARING, ACROSS];

/// Ours, MetalLB's two, kube-vip's.
pub(super) const ADDRESSES: Annotation = Annotation {
    names: &[
        "ironcast.dev/load-balancer-ips",
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/loadBalancerIPs",
        "kube-vip.io/loadbalancerIPs",
    ],
    value: "addresses, one of each family, separated by a comma",
    meaning: "give the Service these addresses, or none",
};

pub(super) const POOL: Annotation = Annotation {
    names: &["ironcast.dev/address-pool", "metallb.io/address-pool", "metallb.universe.tf/address-pool"],
    value: "name of an IPAddressPool",
    meaning: "give it an address of this pool, or none",
};

pub(super) const SHARING: Annotation = Annotation {
    names: &["ironcast.dev/allow-shared-ip", "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"],
    value: "any word, the sharing key",
    meaning: "share an address with Services of the same key: on different ports, with the policy Cluster or the same selector",
};

/// The sharing key together with this says who may share.
pub(super) const ACROSS: Annotation = Annotation {
    names: &["ironcast.dev/allow-shared-ip-namespaces"],
    value: "namespaces, separated by commas; `*` is all",
    meaning: "namespaces that the sharing key holds for beside the Service's own, where both Services name each other's. Beside a key of \
              MetalLB's name it is `*` where absent, as there",
};
