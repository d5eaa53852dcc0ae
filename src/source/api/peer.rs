//! `BGPPeer`: a router that nodes peer with.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, is_false, rules};

/// A router that nodes hold a BGP session with.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "BGPPeer",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    shortname = "icpeer",
    category = "ironcast",
    doc = "A router that nodes hold a BGP session with.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".spec.interface", priority = "1"),
    printcolumn(name = "ASN", type_ = "string", json_path = ".spec.peerASN"),
    printcolumn(name = "Dynamic ASN", type_ = "string", json_path = ".spec.dynamicASN", priority = "1"),
    printcolumn(name = "My ASN", type_ = "string", json_path = ".spec.myASN"),
    printcolumn(name = "BFD Profile", type_ = "string", json_path = ".spec.bfdProfile"),
    printcolumn(name = "Multi Hop", type_ = "boolean", json_path = ".spec.ebgpMultiHop", priority = "1"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::peer()))]
pub struct BGPPeerSpec {
    /// Our AS number.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub my_asn: u32,
    /// Another AS number of ours, shown to this peer only. Default: `myASN`.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub local_asn: Option<u32>,
    /// See [`LocalAsnMode`], whose words the definition takes.
    #[serde(default, rename = "localASNMode", skip_serializing_if = "Option::is_none")]
    pub local_asn_mode: Option<LocalAsnMode>,
    /// The peer's AS number. Either this or `dynamicASN`.
    #[serde(default, rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub peer_asn: Option<u32>,
    /// See [`DynamicAsn`], whose words the definition takes.
    #[serde(default, rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    pub dynamic_asn: Option<DynamicAsn>,
    /// The peer's address. A link-local one (fe80::/10) needs `interface` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub peer_address: Option<String>,
    /// See [`PeerAddressFrom`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address_from: Option<PeerAddressFrom>,
    /// Without `peerAddress`: peer with the router that sends router advertisements on this interface, over IPv6
    /// link-local (unnumbered). It carries both families, IPv4 with IPv6 next hops (RFC 8950).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/\s]+$"))]
    pub interface: Option<String>,
    /// The peer's TCP port. Default: 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: Option<u16>,
    /// The address to dial from, of the peer's family. Default: what the kernel's route says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub source_address: Option<String>,
    /// Our BGP identifier towards this peer, written like an IPv4 address. Default: the node's (`--router-id`).
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 15))]
    pub router_id: Option<String>,
    /// The VRF device that the session runs in. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[^/\s]+$"))]
    pub vrf: Option<String>,
    /// Silence after which the peer is given up: "0s" (never), or "3s" to "65535s". Default: 90s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub hold_time: Option<String>,
    /// Time between keepalives, at least "1s"; at most a third of the hold time that is negotiated is used. Default: a third
    /// of that hold time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub keepalive_time: Option<String>,
    /// Longest time between attempts to connect, "1s" to "65535s"; the first ones follow faster. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub connect_time: Option<String>,
    /// True: the eBGP peer is not on a network of the node. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ebgp_multi_hop: bool,
    /// How many hops away the peer may be with `ebgpMultiHop`. Default: 255.
    #[serde(default, rename = "ebgpMultiHopTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub ebgp_multi_hop_ttl: Option<u8>,
    /// Hops for TTL security (GTSM, RFC 5082): 1 for a peer on a network of the node. The router must have it
    /// too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,
    /// True: listen for the peer (`--listen`) and never dial. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passive: bool,
    /// TCP MD5 key (RFC 2385) in clear text; `passwordSecret` is better. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub password: Option<String>,
    /// A Secret of type kubernetes.io/basic-auth whose key `password` is the TCP MD5 key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,
    /// TCP-AO keys (RFC 5925), instead of a password, where the node's kernel has it (Linux 6.7, CONFIG_TCP_AO). All are
    /// accepted, the first is sent with: for a new key add it behind the old one on both ends, then take the old one away.
    #[serde(default, rename = "tcpAO", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub tcp_ao: Vec<TcpAoKey>,
    /// Nodes that hold a session with this peer, by label; one selector that fits is enough. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,
    /// A `BFDProfile` by name. Default: no BFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub bfd_profile: Option<String>,
    /// True: offer graceful restart (RFC 4724), so that the router keeps the routes while the daemon restarts.
    /// Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enable_graceful_restart: bool,
    /// How long the router may keep the routes after the time of graceful restart, as a last resort (long-lived graceful
    /// restart, RFC 9494): "1s" to "16777215s". Needs `enableGracefulRestart`. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = rules::DURATION))]
    pub long_lived_stale_time: Option<String>,
    /// See [`PeerRole`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PeerRole>,
    /// True: a router that says nothing of its role is refused. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub role_strict: bool,
    /// See [`AddPathMode`], whose words the definition takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_path: Option<AddPathMode>,
    /// True: IPv4 and IPv6 routes over this one session. Default: false, the family of its address alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dual_stack_address_family: bool,
    /// At most so many prefixes are announced to this peer; a Service that would exceed it is withheld, instead
    /// of the router ending the session for all of them. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub prefix_budget: Option<u32>,
    /// At most so many nodes announce one prefix to this router: as many as its ECMP takes (`maximum-paths`). Which ones
    /// is drawn by a hash of prefix and node, so that a node that comes or goes moves no more than its own share.
    /// Default: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub maximum_paths: Option<u32>,
    /// The router may announce so many prefixes of each family; one more ends the session for two minutes. They are
    /// refused in any case, so this only tells a router that leaks. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub maximum_prefixes: Option<u32>,
    /// True: more than `maximumPrefixes` are told and end nothing. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub maximum_prefixes_warning_only: bool,
}

/// One key of `tcpAO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoKey {
    /// The KeyID of what we send; the router's receive id.
    #[serde(rename = "sendID")]
    pub send_id: u8,
    /// The KeyID of what we receive; the router's send id.
    #[serde(rename = "receiveID")]
    pub receive_id: u8,
    /// How segments are signed (RFC 5926).
    #[serde(default)]
    pub algorithm: TcpAoAlgorithm,
    /// A Secret of type kubernetes.io/basic-auth whose key `password` is the key.
    pub secret: SecretReference,
}

/// `tcpAO[].algorithm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96.
    #[default]
    #[serde(rename = "hmacSHA1")]
    HmacSha1,
    /// AES-128-CMAC-96.
    #[serde(rename = "aes128CMAC")]
    Aes128Cmac,
}

/// Instead of `peerAddress`, each node finds its own router: `nodeAnnotation` by its Node's annotation
/// NAME.ironcast.dev/address (and /asn, /my-asn instead of `peerASN`, `myASN`), with the name of this object for NAME;
/// `defaultGatewayIPv4`, `defaultGatewayIPv6` as its default gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerAddressFrom {
    /// An annotation of the node.
    #[serde(rename = "nodeAnnotation")]
    NodeAnnotation,
    /// Its IPv4 default gateway.
    #[serde(rename = "defaultGatewayIPv4")]
    DefaultGatewayV4,
    /// Its IPv6 default gateway.
    #[serde(rename = "defaultGatewayIPv6")]
    DefaultGatewayV6,
}

/// What the AS path shows of `localASN` and `myASN`: `replace` the first alone, `prepend` the first and behind it the
/// second, as routers do that say no more than "local-as". Default: replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LocalAsnMode {
    /// `localASN` alone.
    Replace,
    /// `localASN`, then `myASN`.
    Prepend,
}

/// What we are to the router, in the words of RFC 9234 §3, eBGP only: with `customer` the router never takes these routes
/// for a way to anywhere else. The router must have the opposite one, or none. Default: none is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRole {
    /// The router's AS is our customer.
    Provider,
    /// We are a route server.
    Rs,
    /// The router is a route server.
    RsClient,
    /// The router's AS is our provider.
    Customer,
    /// Neither is the other's customer.
    Peer,
}

/// Offer ADD-PATH (RFC 7911): `send` several paths for one prefix, `receive` them, or `both`. Used where the router
/// offers the other side. Default: not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddPathMode {
    /// We may send several paths for one prefix.
    Send,
    /// We may be sent several; they are counted and refused as every route is.
    Receive,
    /// Both.
    Both,
}

/// Instead of `peerASN`, take whatever AS number the peer shows: `internal` the same as ours (iBGP), `external` any
/// other (eBGP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// The peer's AS is ours (iBGP).
    Internal,
    /// The peer's AS is any other (eBGP).
    External,
}

/// A Secret by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: that of the object that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}
