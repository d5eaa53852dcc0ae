//! Questions to the running packet path, and its answers. Values only, there with and without the feature `xdp`.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::types::ServiceCounters;
use crate::types::ServiceTraffic;

/// What the driver is asked; it answers into the sender, or drops it when it ends.
#[derive(Debug)]
pub enum Query {
    /// Where a packet would go.
    Packet(Question, oneshot::Sender<Result<PacketAnswer, String>>),
    /// Some of the connections that this node's memory has, at most so many.
    Flows(usize, oneshot::Sender<Result<FlowList, String>>),
}

/// A packet of a client to a Service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub from: SocketAddr,
    /// The VIP; of the same family.
    pub to: SocketAddr,
    /// TCP or UDP.
    pub protocol: L4,
    /// A TCP SYN rather than a later segment.
    pub opening: bool,
}

impl Question {
    /// As the parameters of a URL.
    pub fn to_parameters(&self) -> String {
        let Self { from, to, protocol, opening } = self;
        format!("from={from}&to={to}&protocol={}&opening={opening}", protocol.word())
    }

    /// From them.
    ///
    /// # Errors
    /// One is missing, unknown, or has no sense; the text says which.
    pub fn from_parameters(parameters: &str) -> Result<Self, String> {
        let (mut from, mut to, mut protocol, mut opening) = (None, None, L4::Tcp, false);
        for parameter in parameters.split('&') {
            let (name, value) = parameter.split_once('=').ok_or(format!("{parameter:?} has no value"))?;
            let wrong = || format!("{name}: {value:?} makes no sense");
            match name {
                "from" => from = Some(value.parse().map_err(|_| wrong())?),
                "to" => to = Some(value.parse().map_err(|_| wrong())?),
                "protocol" => {
                    protocol = [L4::Tcp, L4::Udp].into_iter().find(|p| p.word() == value).ok_or_else(wrong)?;
                }
                "opening" => opening = value.parse().map_err(|_| wrong())?,
                _ => return Err(format!("unknown parameter {name:?}")),
            }
        }
        let (from, to) = from.zip(to).ok_or("give from=ADDRESS:PORT and to=ADDRESS:PORT")?;
        Ok(Self { from, to, protocol, opening })
    }
}

/// The protocols that the packet path takes care of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum L4 {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl L4 {
    /// IP's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Where the program in the kernel sends the packet, and where the reference does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketAnswer {
    /// The node that was asked, as the first to get the packet.
    pub node: String,
    /// Whose the port is; absent where it is nobody's.
    pub service: Option<String>,
    /// What the program did with the packet, for people.
    pub program: String,
    /// What the reference, which reads the same tables in Rust, would do.
    pub reference: String,
    /// Both say the same.
    pub agree: bool,
    /// Why it is not delivered, where it is not; a word of the metrics.
    pub reason: Option<String>,
    /// Who may have the flow, who takes new ones first.
    pub candidates: Vec<CandidateAnswer>,
    /// The pod that this node remembers for the flow, and how.
    pub remembered: Option<String>,
}

/// A pod that a flow's slot names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateAnswer {
    /// The pod's address and port.
    pub pod: SocketAddr,
    /// Its node.
    pub node: String,
}

/// Connections that a node remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowList {
    /// Some of them.
    pub flows: Vec<FlowAnswer>,
    /// There are more.
    pub more: bool,
    /// Packets by what became of them beyond delivery; only what there was.
    #[serde(default)]
    pub packets: BTreeMap<String, u64>,
    /// Packets of each Service on this node.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceTraffic>,
}

impl From<ServiceCounters> for ServiceTraffic {
    fn from(c: ServiceCounters) -> Self {
        let ServiceCounters { delivered, encapsulated, chained, refused, bytes } = c;
        Self { delivered, encapsulated, chained, refused, bytes }
    }
}

/// A connection to a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowAnswer {
    /// The VIP.
    pub vip: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client.
    pub client: SocketAddr,
    /// The pod.
    pub pod: SocketAddr,
    /// `handshake`, `established` or `closing`.
    pub state: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_goes_through_a_url_unchanged() {
        for (from, to) in [("198.51.100.7:4000", "192.0.2.10:80"), ("[2001:db8::7]:1", "[2001:db8::10]:80")] {
            for (protocol, opening) in [(L4::Tcp, true), (L4::Udp, false)] {
                let [from, to] = [from, to].map(|end| end.parse().expect("an address"));
                let question = Question { from, to, protocol, opening };
                assert_eq!(Question::from_parameters(&question.to_parameters()), Ok(question));
            }
        }
        for wrong in ["", "from=1.2.3.4:5", "from=x&to=1.2.3.4:5", "from=1.2.3.4:5&to=1.2.3.4:6&protocol=sctp", "a=b"] {
            assert!(Question::from_parameters(wrong).is_err(), "{wrong}");
        }
    }
}
