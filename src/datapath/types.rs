//! What stands in the kernel's maps: mirrors of `bpf/types.h`, sizes and numbers included. Ports and addresses
//! are in network order, as on the wire.

use std::net::IpAddr;

/// Ways of a [`Bucket`].
pub const WAYS: usize = 8;
/// Bits that say which addresses may be known, as a power of two.
pub const ADDRESS_BITS_LOG2: u32 = 17;
/// Buckets of the address table, as a power of two.
pub const ADDRESS_BUCKETS_LOG2: u32 = 14;
/// Buckets of the service table, as a power of two.
pub const SERVICE_BUCKETS_LOG2: u32 = 15;
/// Address entries of one bank.
pub const ADDRESSES: usize = 1 << 16;
/// Service entries of one bank.
pub const SERVICES: usize = 1 << 15;
/// Nodes, the own one (0) included.
pub const NODES: usize = 1 << 13;
/// Slots of all tables together.
pub const SLOTS: usize = 1 << 21;
/// Backends of all tables together.
pub const BACKENDS: usize = 1 << 17;
/// UDP port of the encapsulation.
pub const PORT: u16 = 6085;
/// Version of the encapsulation.
pub const VERSION: u8 = 2;
/// Stands before a frame that is only asked about: nothing is written down.
pub const QUESTION: u32 = 0x3f6e_6369;
/// Flag of the header: nobody knows the flow, and whoever gets the packet keeps it.
pub const FLAG_FINAL: u8 = 1;
/// Flag of the header: asks whether a node takes encapsulated packets.
pub const FLAG_PROBE: u8 = 2;
/// Flag of the header: it does.
pub const FLAG_ANSWER: u8 = 4;
/// Flag of the header: goes round all nodes of the Service.
pub const FLAG_RING: u8 = 8;
/// Most hops behind the first node, the ring not counted.
pub const HOPS_MAX: u8 = 5;
/// Most nodes that are asked on the ring.
pub const RING_MAX: u16 = 32;
/// Bytes of outer headers over IPv4.
pub const OVER_V4: u16 = 36;
/// Bytes of outer headers over IPv6.
pub const OVER_V6: u16 = 56;

/// [`Address::kind`]: an owned address.
pub const KIND_VIP: u32 = 1;
/// [`Address::kind`]: this node's address on the underlay.
pub const KIND_SELF: u32 = 2;
/// [`Address::kind`]: a node of this cluster; its encapsulated packets are accepted.
pub const KIND_NODE: u32 = 4;
/// [`Address::kind`]: a backend of this node; its replies may need translation.
pub const KIND_POD: u32 = 8;
/// [`Service::flags`]: the source address alone chooses.
pub const SERVICE_AFFINITY: u8 = 1;
/// [`Service::flags`]: handed to kube-proxy.
pub const SERVICE_PASS: u8 = 2;
/// [`Service::flags`]: it has a history, and more nodes than a slot names.
pub const SERVICE_DEEP: u8 = 4;
/// [`Service::flags`]: a pod of this node has clients by another port or address too.
pub const SERVICE_SHARES: u8 = 8;
/// [`Config::flags`]: pods are reached without the stack.
pub const CONFIG_BYPASS: u32 = 1;
/// Length of [`Config::way_back`].
pub const WAYS_BACK: usize = 4;
/// Flag of a slot, as the layout has it: its owner must ask its memory.
pub const SLOT_CHECK: u64 = 1 << 48;

/// An address; IPv4 is mapped.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ip(pub [u8; 16]);

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        })
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        std::net::Ipv6Addr::from(ip.0).to_canonical()
    }
}

/// One bucket of a look-up table: fingerprints (0 is empty) and where the entries stand.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Fingerprints.
    pub tag: [u16; WAYS],
    /// Indices into the entries of the bank.
    pub entry: [u16; WAYS],
}

/// What an address is to us.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Address {
    /// The address.
    pub ip: Ip,
    /// `KIND_*`, several at once.
    pub kind: u32,
    /// Of this entry; of a VIP, part of [`Service::key`].
    pub index: u32,
    /// Of a pod under `bypass`: this node's end of its veth; 0: the stack delivers.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}

/// A port of a VIP.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Service {
    /// VIP number, family, protocol, port.
    pub key: u64,
    /// Index of the first word of its slots.
    pub slots: u32,
    /// Its backend *n* stands at `backends + n - 1`.
    pub backends: u32,
    /// Index into the counters of Services.
    pub counters: u32,
    /// The last word of the VIP, as it stands in packets.
    pub last: [u8; 4],
    /// What the VIP takes from a checksum when it is replaced.
    pub less_ip: u16,
    /// The same with the port.
    pub less: u16,
    /// The slot is the flow's hash, shifted right by so much.
    pub shift: u8,
    /// `SERVICE_*`.
    pub flags: u8,
    /// A backend of the next node on the ring; 0 is none.
    pub ring: u16,
}

/// A pod's port.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backend {
    /// The pod.
    pub ip: Ip,
    /// Its port, network order.
    pub port: u16,
    /// Its node; 0 is this one.
    pub node: u16,
    /// What that node is called in the header: [`super::hash::node_ids`].
    pub id: u32,
    /// What its address adds to a checksum.
    pub more_ip: u16,
    /// The same with the port.
    pub more: u16,
    /// Zero.
    pub reserved: u32,
}

/// Another node, as the underlay reaches it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Node {
    /// Ethernet address of the next hop.
    pub to: [u8; 6],
    /// Ethernet address of our interface.
    pub from: [u8; 6],
    /// VLAN, 0 is none.
    pub vlan: u16,
    /// 4 or 6; 0 is not reachable.
    pub family: u16,
    /// The node.
    pub ip: Ip,
    /// We, seen from there.
    pub source: Ip,
    /// Our interface.
    pub ifindex: u32,
    /// What the way takes, bytes of IP.
    pub mtu: u16,
    /// IPv4: sum over the constant part of the outer header.
    pub sum: u16,
}

/// What the programs read first.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Of both tables of the bank that holds, which is its lowest bit.
    pub seed: u64,
    /// Keys of the flow hash.
    pub flow_key: [u64; 6],
    /// This node, as in [`Backend::id`].
    pub id: u32,
    /// Largest MSS on IPv4; 0 is no clamp.
    pub mss4: u16,
    /// Largest MSS on IPv6; 0 is no clamp.
    pub mss6: u16,
    /// `CONFIG_*`.
    pub flags: u32,
    /// Per bank: addresses before this entry are VIPs, the others are not.
    pub vips: [u32; 2],
    /// Under `bypass`, interfaces with a default route, in turns.
    pub way_back: [u32; WAYS_BACK],
    /// Length of the map `handshakes`.
    pub handshake_buckets: u32,
    /// Zero.
    pub nothing: u32,
    /// Nothing yet.
    pub reserved: u32,
}

/// What is looked up by hash or by number; never made, only measured.
#[repr(C)]
#[derive(Debug)]
pub struct Bank {
    /// Of hashes: which addresses may be known.
    pub address_bits: [u64; 1 << (ADDRESS_BITS_LOG2 - 6)],
    /// Where addresses stand.
    pub address_buckets: [Bucket; 1 << ADDRESS_BUCKETS_LOG2],
    /// Addresses.
    pub addresses: [Address; ADDRESSES],
    /// Where services stand.
    pub service_buckets: [Bucket; 1 << SERVICE_BUCKETS_LOG2],
    /// Ports of VIPs.
    pub services: [Service; SERVICES],
    /// Nodes.
    pub nodes: [Node; NODES],
}

/// The value of the map `tables`; never made, only measured.
#[repr(C)]
#[derive(Debug)]
pub struct Tables {
    /// Read first.
    pub config: Config,
    rest_of_page: [u8; 4096 - size_of::<Config>()],
    /// One that holds, one that is written.
    pub banks: [Bank; 2],
}

/// Key of `flows` (other: the VIP) and `replies` (other: the pod).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlowKey {
    /// The client.
    pub client: Ip,
    /// The VIP or the pod.
    pub other: Ip,
    /// Network order.
    pub client_port: u16,
    /// Network order.
    pub other_port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl FlowKey {
    /// The key of a flow in `flows`.
    pub fn by_vip(t: &super::hash::Tuple) -> Self {
        Self {
            client: t.client.into(),
            other: t.vip.into(),
            client_port: t.client_port.to_be(),
            other_port: t.vip_port.to_be(),
            protocol: t.protocol,
            ..Self::default()
        }
    }
}

/// Value of `flows` (the pod) and `replies` (the VIP).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// The pod or the VIP.
    pub ip: Ip,
    /// Network order.
    pub port: u16,
    /// The pod has sent FIN or RST.
    pub closing: u16,
    /// Zero.
    pub reserved: u32,
}

/// A SYN that was let through to a pod.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handshake {
    /// Who sent it.
    pub client: Ip,
    /// To whom.
    pub vip: Ip,
    /// Who got it.
    pub pod: Ip,
    /// Network order.
    pub client_port: u16,
    /// Network order.
    pub vip_port: u16,
    /// Network order.
    pub pod_port: u16,
    /// Zero.
    pub reserved: u16,
    /// The younger of two has the larger one.
    pub order: u32,
    /// Zero.
    pub reserved_too: u32,
}

/// Places of [`Handshakes`].
pub const HANDSHAKE_WAYS: usize = 7;

/// Value of `handshakes`: those of the clients with one hash.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// Of the hash, odd; 0 is a free place.
    pub tag: [u16; HANDSHAKE_WAYS],
    /// Zero.
    pub reserved: u16,
    /// Handshakes that were written here.
    pub next: u32,
    /// Odd while the place is written.
    pub version: [u32; HANDSHAKE_WAYS],
    /// Zero.
    pub rest_of_line: [u32; 4],
    /// In the places whose tag is not 0.
    pub of: [Handshake; HANDSHAKE_WAYS],
}

/// Counters of a Service, per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceCounters {
    /// Packets to pods of this node.
    pub delivered: u64,
    /// Packets sent to their owner as first node.
    pub encapsulated: u64,
    /// Packets sent on as asked node.
    pub chained: u64,
    /// Packets dropped.
    pub refused: u64,
    /// Bytes of all but the dropped.
    pub bytes: u64,
}

impl std::ops::Add for ServiceCounters {
    type Output = Self;

    fn add(self, b: Self) -> Self {
        Self {
            delivered: self.delivered + b.delivered,
            encapsulated: self.encapsulated + b.encapsulated,
            chained: self.chained + b.chained,
            refused: self.refused + b.refused,
            bytes: self.bytes + b.bytes,
        }
    }
}

const _: () = {
    assert!(size_of::<Bucket>() == 32 && size_of::<Address>() == 32 && size_of::<Service>() == 32);
    assert!(size_of::<Backend>() == 32 && size_of::<Node>() == 56 && size_of::<Config>() == 104);
    assert!(size_of::<Tables>() == 4096 + 2 * 5_193_728);
    assert!(size_of::<Handshake>() == 64 && size_of::<Handshakes>() == 512);
    assert!(size_of::<FlowKey>() == 40 && size_of::<Flow>() == 24 && size_of::<ServiceCounters>() == 40);
    assert!(cfg!(target_endian = "little"), "the flow hash is defined on little-endian loads");
};

macro_rules! reasons {
    ($($variant:ident $word:literal $doc:literal,)*) => {
        /// Why a packet was treated as it was; the order is that of `enum reason`.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for metrics and status.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    Chained "chained" "Sent on to a former owner.",
    Returned "returned" "Known to nobody, sent back to the current owner.",
    Decapsulated "decapsulated" "Came from another node, delivered here.",
    Echo "echo" "Echo request answered.",
    Probe "probe" "Another node's probe answered.",
    TooBig "too_big" "Answered with the size that fits.",
    Reply "reply" "Reply translated.",
    Established "established" "Handshake completed by the pod.",
    Clamped "clamped" "MSS of a SYN-ACK lowered.",
    IcmpIn "icmp_in" "ICMP error rewritten for the pod.",
    IcmpOut "icmp_out" "ICMP error of the pod rewritten for the client.",
    PassFragment "pass_fragment" "Fragment, left to kube-proxy.",
    PassOptions "pass_options" "IP options, left to kube-proxy.",
    PassProtocol "pass_protocol" "SCTP, left to kube-proxy.",
    PassTooBig "pass_too_big" "Does not fit and may be fragmented, left to kube-proxy.",
    PassForeign "pass_foreign" "A Service with endpoints on no node of the cluster or with loadBalancerSourceRanges, left to kube-proxy.",
    PassUnreachable "pass_unreachable" "The owner's node takes no encapsulated packets, left to kube-proxy.",
    DropMalformed "drop_malformed" "Lengths or offsets that cannot be.",
    DropUnknownPort "drop_unknown_port" "A VIP's port without Service.",
    DropProtocol "drop_protocol" "A protocol without Service.",
    DropIcmp "drop_icmp" "ICMP that is about nothing of ours.",
    DropExtensions "drop_extensions" "Too many IPv6 extension headers.",
    DropNoBackend "drop_no_backend" "A Service without endpoints.",
    DropSpoofed "drop_spoofed" "Encapsulated, but not from a node, or not to a VIP.",
    DropHeader "drop_header" "Encapsulated with another version or unknown flags.",
    DropHops "drop_hops" "More hops than there can be.",
    DropUnreachable "drop_unreachable" "The owner's node has no known way.",
    DropAdjust "drop_adjust" "The driver gave no room.",
    DropCollision "drop_collision" "The pod has a connection with this client's port through another address.",
}
