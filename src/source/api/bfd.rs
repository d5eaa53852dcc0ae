//! `BFDProfile`: how fast a dead path to a router is noticed.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionsStatus, is_false};

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
    /// Least time between packets that we can take, in milliseconds; 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub receive_interval: Option<u32>,
    /// Least time between packets that we send, in milliseconds; 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub transmit_interval: Option<u32>,
    /// How many packets may be missed before the path is declared down; 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u32>,
    /// Time between echo packets, in milliseconds; 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60_000))]
    pub echo_interval: Option<u32>,
    /// True: the router loops echo packets back. Single-hop peers only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub echo_mode: bool,
    /// True: wait for the router's first packet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub passive_mode: bool,
    /// Least TTL that a packet of a multi-hop peer may arrive with; 254.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u32>,
}
