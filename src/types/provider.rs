//! `ProviderConfig`: where a provider is reached, and how far it is trusted with what.

use std::{fmt, sync::Arc};

use ironcast_bgp::Asn;

/// Which provider's words are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    /// Packet, Equinix Metal and compatible stacks.
    Packet,
    /// Cherry Servers.
    Cherry,
    /// Vultr bare metal.
    Vultr,
    /// phoenixNAP BMC.
    PhoenixNap,
    /// Latitude.sh.
    Latitude,
    /// NetBox, Nautobot.
    NetBox,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Packet, Self::Cherry, Self::Vultr, Self::PhoenixNap, Self::Latitude, Self::NetBox];

    /// As `spec.type` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Cherry => "cherry",
            Self::Vultr => "vultr",
            Self::PhoenixNap => "phoenixnap",
            Self::Latitude => "latitude",
            Self::NetBox => "netbox",
        }
    }
}

/// Where nodes learn their routers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeersFrom {
    /// From `BGPPeer` objects alone.
    #[default]
    Objects,
    /// Each node from its metadata service.
    Metadata,
}

/// `spec.manageRoutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManageRoutes {
    /// Routes that peers need are added where they are missing.
    #[default]
    Auto,
    /// The operator sees to them.
    Never,
}

/// A secret value; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(pub Arc<str>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// `ProviderConfig`, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderConfig {
    /// Name.
    pub name: String,
    /// `spec.type`.
    pub kind: ProviderKind,
    /// `spec.endpoint`: base URL of the API; the provider's usual one where `None`.
    pub endpoint: Option<String>,
    /// `spec.metadataEndpoint`: base URL of the metadata service; the provider's usual one where `None`.
    pub metadata: Option<String>,
    /// `spec.project`.
    pub project: Option<String>,
    /// `spec.credentialsSecret`: the value of its key `token`.
    pub credentials: Option<Credentials>,
    /// The Secret's name, when its value has not been seen: nothing is asked without it.
    pub missing_secret: Option<String>,
    /// `spec.peers`.
    pub peers: PeersFrom,
    /// `spec.asn`: our AS towards the provider's routers, where the provider leaves the choice.
    pub asn: Option<Asn>,
    /// `spec.manageRoutes`.
    pub manage_routes: ManageRoutes,
    /// `spec.timing`: settle, withdraw, refresh, look.
    pub timing: ClaimTiming,
}

/// `spec.timing` where it differs from the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClaimTiming {
    /// `settleTime`
    pub settle: Option<std::time::Duration>,
    /// `releaseDelay`
    pub withdraw: Option<std::time::Duration>,
    /// `refreshInterval`
    pub refresh: Option<std::time::Duration>,
}
