//! What a caller hands in: the peers as it wants them.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{Asn, Family, HoldTime, RouterId};

/// Which AS the peer must show in its OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Exactly(Asn),
    /// The same as ours: iBGP.
    Internal,
    /// Any other than ours: eBGP.
    External,
}

/// How the peer's distance is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Directly connected, TTL 1 sent, nothing asked of what is received.
    Direct,
    /// Up to this many hops away (`ebgpMultiHop`).
    MultiHop(u8),
    /// GTSM: TTL 255 sent, at least 256 − hops asked of what is received (RFC 5082).
    Security {
        /// 1 for a directly connected peer.
        hops: u8,
    },
}

/// The TCP MD5 key (RFC 2385), 1 to 80 octets. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Key(pub Arc<[u8]>);

impl fmt::Debug for Md5Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Key(…)")
    }
}

/// One key of a TCP-AO key chain, a master key tuple (RFC 5925 §3.1). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AoKey {
    /// The KeyID of what we send; the peer's `receive_id`.
    pub send_id: u8,
    /// The KeyID of what we receive; the peer's `send_id`.
    pub receive_id: u8,
    /// How segments are signed.
    pub algorithm: AoAlgorithm,
    /// 1 to 80 octets.
    pub key: Arc<[u8]>,
}

/// The two algorithms of RFC 5926 §3.1, both with 96 bits of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    AesCmac,
}

impl fmt::Debug for AoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AoKey({} / {}, {:?}, …)", self.send_id, self.receive_id, self.algorithm)
    }
}

/// Our role towards an external peer (RFC 9234 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We carry its traffic anywhere; it is our customer.
    Provider,
    /// We are an exchange's route server.
    RouteServer,
    /// It is the route server.
    RouteServerClient,
    /// It carries our traffic anywhere: what a node is to its top-of-rack router, where that is of another operator.
    Customer,
    /// Each carries the other's own traffic.
    Peer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provider => "provider",
            Self::RouteServer => "rs",
            Self::RouteServerClient => "rs-client",
            Self::Customer => "customer",
            Self::Peer => "peer",
        })
    }
}

/// Which directions of ADD-PATH are offered (RFC 7911 §4); each is used where the peer offers the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddPath {
    /// We would send several paths.
    pub send: bool,
    /// We would take several paths.
    pub receive: bool,
}

/// How many routes of each family a peer may announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MaximumPrefixes {
    /// So many; one more is too many.
    pub limit: u32,
    /// Tell the operator and go on, instead of ending the session (RFC 4486 §4).
    pub warning_only: bool,
}

/// One peer as the caller wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it is.
    pub address: IpAddr,
    /// 179 but in tests.
    pub port: u16,
    /// Scope of a link-local address, and the device that the socket is bound to (`SO_BINDTODEVICE`, VRF).
    pub interface: Option<String>,
    /// The address to dial from; the kernel's choice where `None`.
    pub source: Option<IpAddr>,
    /// Our AS towards this peer.
    pub local_as: Asn,
    /// The AS that `local_as` stands in for towards this external peer ("local-as" of routers). AS_PATH shows
    /// `local_as`, as often as it is prepended, and this one behind it; with `None` it shows `local_as` alone
    /// ("replace-as"). Of what the peer sends nothing is passed on, so there is nothing else to prepend
    /// ("no-prepend" is always so).
    pub own_as: Option<Asn>,
    /// Its AS.
    pub peer_as: PeerAs,
    /// Our identifier towards this peer; the speaker's where `None`.
    pub router_id: Option<RouterId>,
    /// Offered; the smaller of both ends counts.
    pub hold_time: HoldTime,
    /// Overrides a third of the negotiated hold time, never above it.
    pub keepalive: Option<Duration>,
    /// Time between attempts after the first quick retry.
    pub connect_retry: Duration,
    /// Listen and never dial.
    pub passive: bool,
    /// Distance.
    pub ttl: Ttl,
    /// TCP MD5 signature key.
    pub password: Option<Md5Key>,
    /// TCP-AO keys (RFC 5925), where the kernel has it. All are accepted, the first is sent with; a rollover adds
    /// the new key behind the old one on both ends and then takes the old one away. Not beside a password.
    pub ao_keys: Vec<AoKey>,
    /// Offered with the multiprotocol capability (RFC 4760).
    pub families: BTreeSet<Family>,
    /// IPv4 prefixes with IPv6 next hops are offered (RFC 8950): what a session over IPv6 needs where the link has
    /// no IPv4 address.
    pub extended_next_hop: bool,
    /// Several paths for one prefix are offered (RFC 7911), for every family of the peer.
    pub add_path: AddPath,
    /// Our role, where the peer is external (RFC 9234).
    pub role: Option<Role>,
    /// A peer that says nothing of its own role is refused.
    pub role_strict: bool,
    /// Restart time offered with the graceful restart capability (RFC 4724); `None` does not offer it.
    pub graceful_restart: Option<Duration>,
    /// How long routes may be kept after the restart time, offered beside graceful restart (RFC 9494).
    pub long_lived: Option<Duration>,
    /// What the peer may announce.
    pub maximum_prefixes: Option<MaximumPrefixes>,
    /// Never more routes than this are sent, of all families together: the first of the list that the peer is told.
    pub prefix_budget: Option<u32>,
}

impl PeerConfig {
    /// A peer with nothing special about it: dialled, directly connected, one family (its address's), the times
    /// that RFC 4271 §10 suggests, and nothing that an operator has to ask for. IPv6 next hops for IPv4 are offered
    /// to an IPv6 peer.
    pub fn new(address: IpAddr, local_as: Asn, peer_as: PeerAs) -> Self {
        let family = if address.is_ipv4() { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        Self {
            address,
            port: 179,
            interface: None,
            source: None,
            local_as,
            own_as: None,
            peer_as,
            router_id: None,
            hold_time: HoldTime::DEFAULT,
            keepalive: None,
            connect_retry: Duration::from_secs(120),
            passive: false,
            ttl: Ttl::Direct,
            password: None,
            ao_keys: Vec::new(),
            families: [family].into(),
            extended_next_hop: address.is_ipv6(),
            add_path: AddPath::default(),
            role: None,
            role_strict: false,
            graceful_restart: None,
            long_lived: None,
            maximum_prefixes: None,
            prefix_budget: None,
        }
    }
}

/// What the speaker is.
#[derive(Debug, Clone)]
pub struct SpeakerConfig {
    /// Sent where a peer's configuration gives none.
    pub router_id: RouterId,
    /// Listen for passive peers and for incoming connections; none is "dial only".
    pub listen: Vec<SocketAddr>,
    /// The restarting flag of the graceful restart capability is set in the first OPEN (RFC 4724 §4.1).
    pub restarted: bool,
    /// Template for peers that are not configured but connect from a known prefix; the router role of the lab.
    pub dynamic: Vec<DynamicPeers>,
}

/// Accept unknown peers from a prefix, each under the id `dynamic/ADDRESS`.
#[derive(Debug, Clone)]
pub struct DynamicPeers {
    /// The addresses that may connect.
    pub prefix: ipnet::IpNet,
    /// Everything else; `address` is replaced by the peer's own, `passive` is implied.
    pub template: PeerConfig,
}
