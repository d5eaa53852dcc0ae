//! Peers, advertisements and what selects them.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ironcast_bgp::{
    Asn, Community, HoldTime, LargeCommunity, RouterId,
    bfd::Auth,
    speaker::{AddPath, AoKey, MaximumPrefixes, Md5Key, PeerAs, Role},
};

use super::{Family, Labels, family_of};

/// A Kubernetes label selector: all requirements hold. Empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(pub Vec<Requirement>);

/// A selector of nodes.
pub type NodeSelector = Selector;

/// One requirement of a [`Selector`]; `matchLabels` are `In` with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The test.
    pub operator: Operator,
    /// Values, empty for `Exists` and `DoesNotExist`.
    pub values: BTreeSet<String>,
}

/// `matchExpressions[].operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own words
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether the labels fulfil every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|r| r.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// `BGPPeer`, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// `myASN`.
    pub my_asn: Asn,
    /// `localASN`: another AS of ours for this peer only.
    pub local_asn: Option<Asn>,
    /// `localASNMode: prepend`: `my_asn` stands behind it in the AS path.
    pub shows_my_asn: bool,
    /// `peerASN` or `dynamicASN`.
    pub peer_as: PeerAs,
    /// `peerAddressFrom`: each node finds the address; until `plan` has, `address` is `None`.
    pub address_from: Option<AddressFrom>,
    /// `peerAddress`; `None` with `interface` is unnumbered.
    pub address: Option<IpAddr>,
    /// `interface`.
    pub interface: Option<String>,
    /// `peerPort`.
    pub port: u16,
    /// `sourceAddress`.
    pub source: Option<IpAddr>,
    /// `routerID`.
    pub router_id: Option<RouterId>,
    /// `vrf`: a device.
    pub vrf: Option<String>,
    /// `holdTime`.
    pub hold_time: HoldTime,
    /// `keepaliveTime`.
    pub keepalive: Option<Duration>,
    /// `connectTime`.
    pub connect_time: Option<Duration>,
    /// `ebgpMultiHop`; the TTL.
    pub multihop: Option<u8>,
    /// `ttlSecurity`: hops.
    pub ttl_security: Option<u8>,
    /// `passive`.
    pub passive: bool,
    /// `password` or the value of `passwordSecret`.
    pub password: Option<Md5Key>,
    /// `tcpAO`, with the values of their Secrets.
    pub ao_keys: Vec<AoKey>,
    /// A Secret of `passwordSecret` or `tcpAO` by name, when its value has not been seen: the session waits for it.
    pub missing_secret: Option<String>,
    /// `nodeSelectors`: any is enough, none selects all.
    pub node_selectors: Vec<NodeSelector>,
    /// What `bfdProfile` names.
    pub bfd: Option<BfdProfile>,
    /// `enableGracefulRestart`.
    pub graceful_restart: bool,
    /// `dualStackAddressFamily`: both families over this session.
    pub dual_stack: bool,
    /// `longLivedStaleTime`.
    pub long_lived: Option<Duration>,
    /// `role`, and whether the router must say its own.
    pub role: Option<Role>,
    /// `roleStrict`.
    pub role_strict: bool,
    /// `addPath`.
    pub add_path: AddPath,
    /// `prefixBudget`: at most so many prefixes are announced.
    pub prefix_budget: Option<u32>,
    /// `maximumPaths`: at most so many nodes announce one prefix to it.
    pub maximum_paths: Option<u32>,
    /// `maximumPrefixes`, and `maximumPrefixesWarningOnly`.
    pub maximum_prefixes: Option<MaximumPrefixes>,
}

/// `peerAddressFrom`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFrom {
    /// The node's annotation `NAME.ironcast.dev/address`.
    NodeAnnotation,
    /// The node's default gateway of this family.
    DefaultGateway(Family),
}

impl Peer {
    /// Families that its session carries: both with `dualStackAddressFamily` and on unnumbered sessions, else
    /// the one of its address.
    pub fn carries(&self, family: Family) -> bool {
        self.dual_stack || self.address.is_none_or(|address| family_of(address) == family)
    }
}

/// `BGPAdvertisement`, parsed, its communities resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Advertisement {
    /// Name.
    pub name: String,
    /// `aggregationLength`; 32.
    pub aggregation_length: u8,
    /// `aggregationLengthV6`; 128.
    pub aggregation_length_v6: u8,
    /// `localPref`.
    pub local_pref: Option<u32>,
    /// `med`.
    pub med: Option<u32>,
    /// `asPathPrepend`.
    pub prepend: u8,
    /// `linkBandwidth`: routes carry one, by ready endpoints; whether in the form that crosses an AS border.
    pub link_bandwidth: Option<bool>,
    /// Standard communities.
    pub communities: BTreeSet<Community>,
    /// Large communities.
    pub large_communities: BTreeSet<LargeCommunity>,
    /// `ipAddressPools` by name; with `pool_selectors` empty too, all pools.
    pub pools: BTreeSet<String>,
    /// `ipAddressPoolSelectors`.
    pub pool_selectors: Vec<Selector>,
    /// `serviceSelectors`; none selects all.
    pub service_selectors: Vec<Selector>,
    /// `nodeSelectors`; none selects all.
    pub node_selectors: Vec<NodeSelector>,
    /// `peers` by name; none is all.
    pub peers: BTreeSet<String>,
}

/// `BFDProfile`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdProfile {
    /// Name.
    pub name: String,
    /// `receiveInterval`.
    pub receive: Duration,
    /// `transmitInterval`.
    pub transmit: Duration,
    /// `detectMultiplier`.
    pub detect_mult: u8,
    /// `echoMode` and `echoInterval`.
    pub echo: Option<Duration>,
    /// `echoReceiveInterval`.
    pub echo_receive: Option<Duration>,
    /// `authentication`, with the value of its Secret.
    pub auth: Option<Auth>,
    /// `passiveMode`.
    pub passive: bool,
    /// `minimumTtl`, multi-hop only.
    pub minimum_ttl: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn not_in_matches_where_the_label_is_absent() {
        let r = Requirement { key: "a".into(), operator: Operator::NotIn, values: ["x".to_string()].into() };
        let selector = Selector(vec![r]);
        assert!(selector.matches(&labels(&[])));
        assert!(selector.matches(&labels(&[("a", "y")])));
        assert!(!selector.matches(&labels(&[("a", "x")])));
    }

    #[test]
    fn empty_selector_selects_everything() {
        assert!(Selector::default().matches(&labels(&[("a", "b")])));
    }
}
