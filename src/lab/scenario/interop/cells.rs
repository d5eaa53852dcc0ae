//! The columns of the matrix, and what the two ends of each cell's session are configured with.

use crate::{
    lab::site::{NODE_ASN, ROUTER_ASN},
    types::Family,
};

/// One feature, tried on sessions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cell {
    V4,
    V6,
    BothOverV4,
    BothOverV6,
    ExtendedNextHop,
    Unnumbered,
    Md5,
    Md5Wrong,
    TcpAo,
    Gtsm,
    GtsmMissing,
    GrRestart,
    GrStop,
    LongLived,
    Bfd,
    BfdMultiHop,
    BfdSigned,
    AddPath,
    AddPaths,
    LinkBandwidth,
    Role,
    RoleWrong,
    ExtendedMessages,
    Communities,
    ExtendedCommunities,
    DynamicAs,
    DynamicAsWrong,
    WrongAs,
    WrongFamily,
    LocalAs,
    LocalAsPrepend,
}

impl Cell {
    /// Every cell, in the order of the matrix.
    pub(super) const ALL: [Self; 31] = [
        Self::V4,
        Self::V6,
        Self::BothOverV4,
        Self::BothOverV6,
        Self::ExtendedNextHop,
        Self::Unnumbered,
        Self::Md5,
        Self::Md5Wrong,
        Self::TcpAo,
        Self::Gtsm,
        Self::GtsmMissing,
        Self::GrRestart,
        Self::GrStop,
        Self::LongLived,
        Self::Bfd,
        Self::BfdMultiHop,
        Self::BfdSigned,
        Self::AddPath,
        Self::AddPaths,
        Self::LinkBandwidth,
        Self::Role,
        Self::RoleWrong,
        Self::ExtendedMessages,
        Self::Communities,
        Self::ExtendedCommunities,
        Self::DynamicAs,
        Self::DynamicAsWrong,
        Self::WrongAs,
        Self::WrongFamily,
        Self::LocalAs,
        Self::LocalAsPrepend,
    ];

    /// Its name; also the node's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::BothOverV4 => "both-over-v4",
            Self::BothOverV6 => "both-over-v6",
            Self::ExtendedNextHop => "extended-next-hop",
            Self::Unnumbered => "unnumbered",
            Self::Md5 => "md5",
            Self::Md5Wrong => "md5-wrong-key",
            Self::TcpAo => "tcp-ao",
            Self::Gtsm => "gtsm",
            Self::GtsmMissing => "gtsm-missing",
            Self::GrRestart => "gr-restart",
            Self::GrStop => "gr-stop",
            Self::LongLived => "long-lived-gr",
            Self::Bfd => "bfd",
            Self::BfdMultiHop => "bfd-multihop",
            Self::BfdSigned => "bfd-sha1",
            Self::AddPath => "add-path",
            Self::AddPaths => "add-path-two",
            Self::LinkBandwidth => "link-bandwidth",
            Self::Role => "role",
            Self::RoleWrong => "role-wrong",
            Self::ExtendedMessages => "extended-messages",
            Self::Communities => "communities",
            Self::ExtendedCommunities => "extended-communities",
            Self::DynamicAs => "dynamic-as",
            Self::DynamicAsWrong => "dynamic-as-wrong",
            Self::WrongAs => "wrong-as",
            Self::WrongFamily => "wrong-family",
            Self::LocalAs => "local-as",
            Self::LocalAsPrepend => "local-as-prepend",
        }
    }

    /// How many nodes it needs.
    pub(super) fn nodes(self) -> u8 {
        if self == Self::LinkBandwidth { 2 } else { 1 }
    }

    /// What its sessions are configured with.
    pub(super) fn terms(self) -> Terms {
        let base = Terms::default();
        match self {
            Self::V4 => Terms { families: &[Family::Ipv4], ..base },
            Self::V6 => Terms { over: Family::Ipv6, families: &[Family::Ipv6], ..base },
            Self::BothOverV6 => Terms { over: Family::Ipv6, ..base },
            Self::BothOverV4 | Self::Communities | Self::LinkBandwidth => base,
            Self::ExtendedNextHop => {
                Terms { over: Family::Ipv6, features: &[Feature::NoIpv4, Feature::ExtendedNextHop], ..base }
            }
            Self::Unnumbered => Terms {
                over: Family::Ipv6,
                router_as: RouterAs::External,
                features: &[Feature::NoIpv4, Feature::LinkLocalOnly, Feature::ExtendedNextHop],
                ..base
            },
            Self::Md5 => Terms { router_key: Some(KEY), node_key: Some(KEY), ..base },
            Self::Md5Wrong => Terms { router_key: Some(KEY), node_key: Some(WRONG_KEY), ..base },
            Self::Gtsm => Terms { features: &[Feature::RouterGtsm, Feature::NodeGtsm], ..base },
            Self::GtsmMissing => Terms { features: &[Feature::RouterGtsm], ..base },
            Self::GrRestart | Self::GrStop => Terms { features: &[Feature::GracefulRestart], ..base },
            Self::TcpAo => Terms { router_key: Some(KEY), node_key: Some(KEY), ..base },
            Self::LongLived => Terms { features: &[Feature::Crate, Feature::GracefulRestart], ..base },
            Self::BfdSigned => Terms { features: &[Feature::Bfd, Feature::BfdSigned], ..base },
            Self::Bfd => Terms { features: &[Feature::Bfd], ..base },
            Self::BfdMultiHop => {
                Terms { families: &[Family::Ipv4], features: &[Feature::Bfd, Feature::MultiHop], ..base }
            }
            Self::AddPath => Terms { features: &[Feature::AddPath], ..base },
            Self::AddPaths => Terms { features: &[Feature::Crate, Feature::AddPath], ..base },
            Self::ExtendedCommunities => Terms { features: &[Feature::Crate], ..base },
            Self::Role => Terms { features: &[Feature::RouterProvider], ..base },
            Self::RoleWrong => Terms { features: &[Feature::RouterCustomer], ..base },
            Self::ExtendedMessages => {
                Terms { over: Family::Ipv6, features: &[Feature::ExtendedMessages], families: &[Family::Ipv6], ..base }
            }
            Self::DynamicAs => Terms { router_as: RouterAs::External, ..base },
            Self::DynamicAsWrong => Terms { router_as: RouterAs::Internal, ..base },
            Self::WrongAs => Terms { expected_as: OTHER_ASN, ..base },
            Self::WrongFamily => Terms { families: &[Family::Ipv4], router_families: Some(&[Family::Ipv6]), ..base },
            Self::LocalAs | Self::LocalAsPrepend => Terms { local_as: Some(OTHER_ASN), expected_as: OTHER_ASN, ..base },
        }
    }
}

/// The TCP MD5 key of both ends, and another.
pub(super) const KEY: &str = "rack-11-row-4";
pub(super) const WRONG_KEY: &str = "rack-11-row-5";
/// The key of [`Cell::BfdSigned`].
pub(super) const BFD_KEY: &str = "rack-11-bfd";
/// An AS that is neither the nodes' nor the router's.
pub(super) const OTHER_ASN: u32 = 64_777;

/// Something that is configured on one end or on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    RouterGtsm,
    NodeGtsm,
    GracefulRestart,
    ExtendedMessages,
    /// IPv4 routes with IPv6 next hops (RFC 8950).
    ExtendedNextHop,
    /// The link has no IPv4 addresses.
    NoIpv4,
    /// The link has link-local addresses alone, and the node finds the router by itself.
    LinkLocalOnly,
    /// The session stands between addresses of the loopback devices.
    MultiHop,
    Bfd,
    /// … with meticulous keyed SHA-1.
    BfdSigned,
    /// The router takes several paths (RFC 7911).
    AddPath,
    /// The router says that it is the node's provider (RFC 9234).
    RouterProvider,
    /// … its customer.
    RouterCustomer,
    /// The crate's speaker stands for the daemon, which never does this.
    Crate,
}

/// What a node is told of the router's AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouterAs {
    /// `peerASN`.
    Exactly(u32),
    /// `dynamicASN: external`.
    External,
    /// `dynamicASN: internal`.
    Internal,
}

/// Both ends of a session. Where they do not fit each other, that is what the cell is about.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The family of the connection.
    pub(super) over: Family,
    /// The families of the routes.
    pub(super) families: &'static [Family],
    /// The families that the router is configured with, if others.
    pub(super) router_families: Option<&'static [Family]>,
    pub(super) router_key: Option<&'static str>,
    pub(super) node_key: Option<&'static str>,
    pub(super) router_as: RouterAs,
    /// `localASN`.
    pub(super) local_as: Option<u32>,
    /// The AS that the router is told to expect of the node.
    pub(super) expected_as: u32,
    pub(super) features: &'static [Feature],
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            over: Family::Ipv4,
            families: &[Family::Ipv4, Family::Ipv6],
            router_families: None,
            router_key: None,
            node_key: None,
            router_as: RouterAs::Exactly(ROUTER_ASN),
            local_as: None,
            expected_as: NODE_ASN,
            features: &[],
        }
    }
}

impl Terms {
    pub(super) fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// The families at the router's end.
    pub(super) fn at_router(&self) -> &'static [Family] {
        self.router_families.unwrap_or(self.families)
    }

    pub(super) fn carries(&self, family: Family) -> bool {
        self.families.contains(&family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_stands_once_and_its_name_is_a_nodes_name() {
        let names: std::collections::BTreeSet<_> = Cell::ALL.iter().map(|cell| cell.name()).collect();
        assert_eq!(names.len(), Cell::ALL.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c == '-' || c.is_ascii_alphanumeric())));
    }
}
