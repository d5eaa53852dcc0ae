//! `BFDProfile`: how fast a dead path to a router is noticed.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, SecretReference, is_false};

/// Parameters of the BFD sessions of the peers that name it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ironcast.dev",
    version = "v1alpha1",
    kind = "BFDProfile",
    namespaced,
    status = "ConditionsStatus",
    derive = "PartialEq",
    shortname = "icbfd",
    category = "ironcast",
    doc = "Parameters of the BFD sessions of the peers that name it.",
    printcolumn(name = "Receive", type_ = "integer", json_path = ".spec.receiveInterval"),
    printcolumn(name = "Transmit", type_ = "integer", json_path = ".spec.transmitInterval"),
    printcolumn(name = "Multiplier", type_ = "integer", json_path = ".spec.detectMultiplier"),
    printcolumn(name = "Passive", type_ = "boolean", json_path = ".spec.passiveMode"),
    printcolumn(name = "Valid", type_ = "string", json_path = ".status.conditions[?(@.type=='Valid')].status")
)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileSpec {
    /// Least time between packets that we can take, in milliseconds. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval: Option<u32>,
    /// Least time between packets that we send, in milliseconds. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval: Option<u32>,
    /// How many packets in a row the router may miss before it declares the path down. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u32>,
    /// Time between echo packets, in milliseconds, with `echoMode`. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub echo_interval: Option<u32>,
    /// True: send echo packets, which the router loops back. IPv4 peers one hop away only. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub echo_mode: bool,
    /// Least time between echo packets of the router that the node's kernel may be given to loop back, in milliseconds. Single-hop
    /// peers only. Default: none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub echo_receive_interval: Option<u32>,
    /// How packets are signed, and which are taken (RFC 5880 §6.7). Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<BfdAuthentication>,
    /// True: wait for the router's first packet. Default: false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passive_mode: bool,
    /// Least TTL that a packet of a multi-hop peer may arrive with. Default: 254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u32>,
}

/// `authentication` (RFC 5880 §6.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BfdAuthentication {
    /// How: `simple` sends the password in the clear, `keyedSHA1` a SHA-1 over packet and key, `meticulousKeyedSHA1` the
    /// same with a number that accepts each packet once.
    #[serde(rename = "type")]
    pub kind: BfdAuthenticationType,
    /// The number of the key, the same at the router.
    #[serde(rename = "keyID")]
    pub key_id: u8,
    /// A Secret of type kubernetes.io/basic-auth whose key `password` is the key: at most 16 octets for `simple`, 20
    /// for the others.
    pub secret: SecretReference,
}

/// `authentication.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BfdAuthenticationType {
    /// The password in the clear.
    #[serde(rename = "simple")]
    Simple,
    /// Keyed SHA-1.
    #[serde(rename = "keyedSHA1")]
    KeyedSha1,
    /// Meticulous keyed SHA-1: each packet is accepted once.
    #[serde(rename = "meticulousKeyedSHA1")]
    MeticulousKeyedSha1,
}
