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
    /// Cluster API's contract for address management.
    Capi,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Packet, Self::Cherry, Self::Vultr, Self::PhoenixNap, Self::Latitude, Self::NetBox, Self::Capi];

    /// As `spec.type` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Cherry => "cherry",
            Self::Vultr => "vultr",
            Self::PhoenixNap => "phoenixnap",
            Self::Latitude => "latitude",
            Self::NetBox => "netbox",
            Self::Capi => "capi",
        }
    }

    /// How `providerID` of a node begins whose machine is of such a provider.
    pub const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Packet => &["packet", "equinixmetal"],
            Self::Cherry => &["cherryservers"],
            Self::Vultr => &["vultr"],
            Self::PhoenixNap => &["phoenixnap", "pnap"],
            Self::Latitude => &["latitude", "latitudesh"],
            Self::NetBox | Self::Capi => &[],
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
    /// The leader from the account's API, for every node.
    Account,
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

/// A token or password. `Debug` shows nothing of it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// From what a Secret object holds; white space around it (a newline, most often) is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The secret itself, for the header that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A text without the secret.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&*self.0, "…") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
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
    pub credentials: Option<Secret>,
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
