//! The words for what does not happen, each with a sentence that ends in the next step.

use std::fmt;

/// Why a Service has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PendingReason {
    /// Every pool that it may use is full.
    PoolExhausted,
    /// There is no pool that it may use.
    NoPool,
    /// The address asked for is in no pool that it may use.
    AddressOutsidePools,
    /// The address asked for is taken, and may not be shared.
    AddressTaken,
    /// An address is being claimed from the provider of a pool.
    AddressPending,
    /// The request contradicts itself or the Service (family, number of addresses, unknown pool).
    InvalidRequest,
}

impl PendingReason {
    /// The word for Events and conditions, in CamelCase as Kubernetes writes them.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoolExhausted => "PoolExhausted",
            Self::NoPool => "NoPool",
            Self::AddressOutsidePools => "AddressOutsidePools",
            Self::AddressTaken => "AddressTaken",
            Self::AddressPending => "AddressPending",
            Self::InvalidRequest => "InvalidRequest",
        }
    }

    /// What it means and what to do. `Allocated::Pending` has a message with the names in it.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::PoolExhausted => "every pool that the Service may use is full; add addresses or delete Services",
            Self::NoPool => "there is no pool that the Service may use; create an IPAddressPool or admit the Service",
            Self::AddressOutsidePools => {
                "the address asked for is in no pool that the Service may use; ask for another or extend a pool"
            }
            Self::AddressTaken => {
                "the address asked for belongs to somebody else; ask for another or share it with a sharing key"
            }
            Self::AddressPending => {
                "an address is being claimed from the provider; the AddressClaim says how far it has come"
            }
            Self::InvalidRequest => "the request contradicts itself; correct the annotations of the Service",
        }
    }
}

impl fmt::Display for PendingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why not. The words are those that people grep for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Withhold {
    /// `addressPending`
    AddressPending,
    /// `noEndpoints`
    NoEndpoints,
    /// `noLocalEndpoints`
    NoLocalEndpoints,
    /// `nodeLabeledExcludeBalancers`
    NodeLabeledExcludeBalancers,
    /// `nodeNetworkUnavailable`
    NodeNetworkUnavailable,
    /// `nodeNotReady`
    NodeNotReady,
    /// `noMatchingAdvertisement`
    NoMatchingAdvertisement,
    /// `noPeer`
    NoPeer,
    /// `conflictingAdvertisements`
    ConflictingAdvertisements,
    /// `prefixBudget`
    PrefixBudget,
    /// `datapathNotReady`
    DatapathNotReady,
    /// `deviceUnavailable`
    DeviceUnavailable,
    /// `ecmpWidth`
    EcmpWidth,
    /// `nodeCordoned`
    NodeCordoned,
    /// `nodeMaintenance`
    NodeMaintenance,
    /// `draining`
    Draining,
}

impl Withhold {
    /// Every reason, for metrics that show zeros too.
    pub const ALL: [Self; 16] = [
        Self::AddressPending,
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::NodeLabeledExcludeBalancers,
        Self::NodeNetworkUnavailable,
        Self::NodeNotReady,
        Self::NoMatchingAdvertisement,
        Self::NoPeer,
        Self::ConflictingAdvertisements,
        Self::PrefixBudget,
        Self::DatapathNotReady,
        Self::DeviceUnavailable,
        Self::EcmpWidth,
        Self::NodeCordoned,
        Self::NodeMaintenance,
        Self::Draining,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddressPending => "addressPending",
            Self::NoEndpoints => "noEndpoints",
            Self::NoLocalEndpoints => "noLocalEndpoints",
            Self::NodeLabeledExcludeBalancers => "nodeLabeledExcludeBalancers",
            Self::NodeNetworkUnavailable => "nodeNetworkUnavailable",
            Self::NodeNotReady => "nodeNotReady",
            Self::NoMatchingAdvertisement => "noMatchingAdvertisement",
            Self::NoPeer => "noPeer",
            Self::ConflictingAdvertisements => "conflictingAdvertisements",
            Self::PrefixBudget => "prefixBudget",
            Self::DatapathNotReady => "datapathNotReady",
            Self::DeviceUnavailable => "deviceUnavailable",
            Self::EcmpWidth => "ecmpWidth",
            Self::NodeCordoned => "nodeCordoned",
            Self::NodeMaintenance => "nodeMaintenance",
            Self::Draining => "draining",
        }
    }

    /// The same as a sentence with the next step.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::AddressPending => {
                "the Service has no recorded address yet; its Events say which address it waits for and why"
            }
            Self::NoEndpoints => {
                "no endpoint of the address's family takes traffic; check that pods match the selector and are ready"
            }
            Self::NoLocalEndpoints => {
                "externalTrafficPolicy is Local and no ready pod runs on this node; \
                 other nodes announce, or use the policy Cluster"
            }
            Self::NodeLabeledExcludeBalancers => {
                "the node has the label node.kubernetes.io/exclude-from-external-load-balancers; \
                 remove it or start with --ignore-exclude-label"
            }
            Self::NodeNetworkUnavailable => {
                "the node's condition NetworkUnavailable is True; check the network plugin on this node"
            }
            Self::NodeNotReady => "the node's condition Ready is not True; check the kubelet on this node",
            Self::NoMatchingAdvertisement => {
                "no BGPAdvertisement selects this Service, its pool and this node; create one or widen its selectors"
            }
            Self::NoPeer => {
                "no BGPPeer of this node is told the Service or carries its address family; \
                 check nodeSelectors of the peers, peers of the advertisement, and dualStackAddressFamily"
            }
            Self::ConflictingAdvertisements => {
                "BGPAdvertisements give one prefix different localPref, med, asPathPrepend or linkBandwidth; make them agree"
            }
            Self::PrefixBudget => {
                "the peer's prefixBudget is used up by older Services; raise it (with the router's limit) or aggregate"
            }
            Self::DatapathNotReady => {
                "this node's packet path does not answer for the address yet; ironcast status shows what it waits for"
            }
            Self::DeviceUnavailable => {
                "the provider says that the machine is off, in maintenance or gone (annotation ironcast.dev/device-state); \
                 it announces again when the annotation says Active or is gone"
            }
            Self::EcmpWidth => {
                "as many nodes as the peer's maximumPaths allows announce the prefix, and this one is not among them; \
                 it takes the place of one that fails"
            }
            Self::NodeCordoned => {
                "the node is cordoned and other nodes announce the Service; uncordon it, or start with --on-cordon ignore"
            }
            Self::NodeMaintenance => {
                "the node has a taint of --maintenance-taint and other nodes announce the Service; remove the taint"
            }
            Self::Draining => "the operator drains this node; it announces again when the drain ends",
        }
    }
}

impl fmt::Display for Withhold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a Service gives a recorded address back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GaveUp {
    /// No pool has the address any more.
    OutsidePools,
    /// The pool that has it does not admit the Service, or is not the one that it asks for.
    PoolRefuses,
    /// The Service asks for another address.
    OtherRequested,
    /// The Service does not want this family, or has an address of it already.
    FamilyNotWanted,
    /// An older Service has it, and the two may not share.
    SharingRefused,
    /// `RequireDualStack`: the other family cannot be had.
    OtherFamilyMissing,
    /// The address that it asks for as well cannot be had.
    RequestRefused,
    /// The Service is deleted, or no load balancer of ours any more.
    NotOurs,
}

impl GaveUp {
    /// The word for Events and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutsidePools => "outsidePools",
            Self::PoolRefuses => "poolRefuses",
            Self::OtherRequested => "otherRequested",
            Self::FamilyNotWanted => "familyNotWanted",
            Self::SharingRefused => "sharingRefused",
            Self::OtherFamilyMissing => "otherFamilyMissing",
            Self::RequestRefused => "requestRefused",
            Self::NotOurs => "notOurs",
        }
    }

    /// The same as a sentence, with the next step where there is one.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::OutsidePools => "no IPAddressPool has this address any more; add it to a pool to keep it",
            Self::PoolRefuses => "the pool of this address no longer admits the Service; check serviceAllocation",
            Self::OtherRequested => "the Service asks for another address",
            Self::FamilyNotWanted => "ipFamilies of the Service no longer ask for this address",
            Self::SharingRefused => {
                "an older Service has this address; sharing needs the same key, different ports, \
                 and the policy Cluster or the same selector"
            }
            Self::OtherFamilyMissing => "RequireDualStack asks for both families and one cannot be had",
            Self::RequestRefused => "another address that the Service asks for cannot be had",
            Self::NotOurs => "the Service is deleted or no longer a load balancer of ours",
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_and_a_sentence_of_its_own() {
        let words: BTreeSet<_> = Withhold::ALL.iter().map(|reason| reason.as_str()).collect();
        let sentences: BTreeSet<_> = Withhold::ALL.iter().map(|reason| reason.detail()).collect();
        assert_eq!((words.len(), sentences.len()), (Withhold::ALL.len(), Withhold::ALL.len()));
    }
}
