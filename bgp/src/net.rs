//! The tokio driver: sockets, timers and channels around [`crate::speaker`].

pub mod bfd;
pub mod bmp;
mod dial;
mod driver;
mod listen;
mod sockopt;
pub mod unnumbered;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::bmp::Identity;
use crate::speaker::{AoAlgorithm, AoKey, Exports, PeerConfig, PeerId, PeerStatus, Received, Shutdown, SpeakerConfig};

/// A handle to a running speaker; cheap to clone. Whole sets go in, differences are the speaker's business.
#[derive(Debug, Clone)]
pub struct Speaker {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<BTreeMap<PeerId, PeerStatus>>>,
    stations: watch::Receiver<Arc<BTreeMap<SocketAddr, bmp::StationStatus>>>,
}

/// The networks that this host is on, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Links(Vec<sockopt::Local>);

/// Reads [`Links`]; none where the kernel does not tell.
pub fn links() -> Links {
    Links(sockopt::addresses().unwrap_or_default())
}

/// Whether this kernel has TCP-AO (RFC 5925); the error says what is missing.
pub fn probe_tcp_ao() -> std::io::Result<()> {
    let key = AoKey { send_id: 1, receive_id: 1, algorithm: AoAlgorithm::HmacSha1, key: b"probe".as_slice().into() };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    sockopt::ao(&socket, std::net::Ipv4Addr::LOCALHOST.into(), 32, &key, true)
}

impl Links {
    /// The interface on whose network the address is, and our own address there.
    pub fn to(&self, address: IpAddr) -> Option<(String, IpAddr)> {
        let holds = |own: &&sockopt::Local| {
            own.address != address
                && own.prefix_length < if own.address.is_ipv4() { 32 } else { 128 }
                && ipnet::IpNet::new(own.address, own.prefix_length).is_ok_and(|net| net.contains(&address))
        };
        let own = self.0.iter().filter(holds).max_by_key(|own| own.prefix_length)?;
        Some((own.interface.clone(), own.address))
    }
}

/// The speaker's task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker has ended")]
pub struct Ended;

/// Where the answer of [`Speaker::unacknowledged`] goes.
pub type Unacknowledged = oneshot::Sender<BTreeMap<PeerId, u64>>;

enum Command {
    Peers(BTreeMap<PeerId, PeerConfig>),
    Exports(Exports),
    Stations(Arc<Identity>, BTreeSet<SocketAddr>),
    Path { peer: PeerId, up: bool },
    Unacknowledged(Unacknowledged),
    Shutdown(Shutdown),
}

impl Speaker {
    /// Starts the speaker. The future runs it and ends after [`Speaker::shutdown`]; dropping it closes every
    /// connection without a word. `received` gets what peers announce (the router role); the daemon passes `None`.
    pub fn start(
        config: SpeakerConfig,
        received: Option<mpsc::Sender<Received>>,
    ) -> std::io::Result<(Self, impl Future<Output = std::io::Result<()>> + Send)> {
        let bound = config.listen.iter().map(|a| listen::bind(*a)).collect::<std::io::Result<Vec<_>>>()?;
        let (commands, inbox) = mpsc::channel(16);
        let (outbox, status) = watch::channel(Arc::default());
        let (for_stations, stations) = watch::channel(Arc::default());
        let run = async move {
            let listeners = bound.into_iter().map(listen::Listener::new).collect::<std::io::Result<Vec<_>>>()?;
            driver::Driver::new(&config, listeners, inbox, outbox, for_stations, received).run().await;
            Ok(())
        };
        Ok((Self { commands, status, stations }, run))
    }

    /// Replaces the set of peers. Only what a session negotiated resets it.
    pub async fn set_peers(&self, peers: BTreeMap<PeerId, PeerConfig>) -> Result<(), Ended> {
        self.commands.send(Command::Peers(peers)).await.map_err(|_| Ended)
    }

    /// Replaces what every peer is told.
    pub async fn set_exports(&self, exports: Exports) -> Result<(), Ended> {
        self.commands.send(Command::Exports(exports)).await.map_err(|_| Ended)
    }

    /// Replaces the set of BMP stations that are told what peers are told (RFC 7854, RFC 8671). Those that stay keep
    /// their connections, and the identity that those began with.
    pub async fn set_stations(&self, identity: Identity, stations: BTreeSet<SocketAddr>) -> Result<(), Ended> {
        self.commands.send(Command::Stations(Arc::new(identity), stations)).await.map_err(|_| Ended)
    }

    /// The BMP stations as they are; newest wins.
    pub fn stations(&self) -> watch::Receiver<Arc<BTreeMap<SocketAddr, bmp::StationStatus>>> {
        self.stations.clone()
    }

    /// BFD lost the path to a peer, which ends its session at once (RFC 5882 §4.2), or has it back, and it is
    /// dialled.
    pub async fn path(&self, peer: PeerId, up: bool) -> Result<(), Ended> {
        self.commands.send(Command::Path { peer, up }).await.map_err(|_| Ended)
    }

    /// Asks how many octets each connected peer's TCP has not acknowledged yet. 0: everything that the Adj-RIB-Out has is
    /// in the router's hands, which is as much as BGP lets a speaker know.
    pub async fn unacknowledged(&self, answer: Unacknowledged) -> Result<(), Ended> {
        self.commands.send(Command::Unacknowledged(answer)).await.map_err(|_| Ended)
    }

    /// The peers as they are; newest wins.
    pub fn status(&self) -> watch::Receiver<Arc<BTreeMap<PeerId, PeerStatus>>> {
        self.status.clone()
    }

    /// Ends the speaker; its future finishes when the last octet is written or after a second.
    pub async fn shutdown(&self, how: Shutdown) -> Result<(), Ended> {
        self.commands.send(Command::Shutdown(how)).await.map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_to_an_address_is_the_one_with_the_longest_prefix_and_never_a_host_route() {
        let local = |interface: &str, address: &str, prefix_length| sockopt::Local {
            interface: interface.into(),
            address: address.parse().expect("an address"),
            prefix_length,
        };
        let links = Links(vec![
            local("lo", "192.0.2.1", 32),
            local("wide", "10.0.0.1", 8),
            local("eth0", "10.1.2.3", 24),
            local("eth1", "2001:db8::2", 64),
        ]);
        let to = |address: &str| links.to(address.parse().expect("an address"));
        assert_eq!(to("10.1.2.1"), Some(("eth0".into(), [10, 1, 2, 3].into())));
        assert_eq!(to("10.9.9.9").map(|(interface, _)| interface).as_deref(), Some("wide"));
        assert_eq!(to("2001:db8::1").map(|(interface, _)| interface).as_deref(), Some("eth1"));
        assert_eq!((to("192.0.2.1"), to("198.51.100.1")), (None, None));
        assert_eq!(to("10.1.2.3").map(|(interface, _)| interface).as_deref(), Some("wide"), "not with ourselves");
    }
}
