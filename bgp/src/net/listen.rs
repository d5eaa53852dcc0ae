//! Listening sockets. Keys and the least TTL stand on them before anybody connects, so that the kernel drops
//! a SYN that lacks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::{dial, sockopt};
use crate::speaker::{DynamicPeers, Md5Key, PeerConfig, PeerId, Ttl};

const BACKLOG: i32 = 128;

/// One listening socket and the keys that it has.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    address: SocketAddr,
    keys: BTreeMap<IpNet, Md5Key>,
}

/// Binds a socket; to be made a [`Listener`] inside the runtime.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("listen on {address}: {e}"));
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(named)
}

impl Listener {
    /// Hands a bound socket to the runtime.
    pub(super) fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket: TcpListener::from_std(socket)?, address, keys: BTreeMap::new() })
    }

    /// Brings keys and least TTL in line with the peers. What fails is logged: the peer's connections fail then,
    /// and no other's.
    pub(super) fn update(&mut self, peers: &BTreeMap<PeerId, PeerConfig>, dynamic: &[DynamicPeers]) {
        let ours = |address: IpAddr| address.is_ipv4() == self.address.is_ipv4();
        let hosts = peers.values().filter(|p| ours(p.address)).map(|p| (IpNet::from(p.address), p));
        let ranges = dynamic.iter().filter(|d| ours(d.prefix.addr())).map(|d| (d.prefix.trunc(), &d.template));
        let expected: Vec<(IpNet, &PeerConfig)> = hosts.chain(ranges).collect();
        self.set_keys(expected.iter().filter_map(|(p, c)| Some((*p, c.password.clone()?))).collect());
        let least: BTreeSet<u8> = expected.iter().map(|(_, c)| least_ttl(c.ttl)).collect();
        let least = least.first().copied().unwrap_or(0);
        if let Err(error) = sockopt::min_ttl(&self.socket, self.address.ip(), least) {
            tracing::warn!(listener = %self.address, least, %error, "TTL security not set on the listener");
        }
    }

    fn set_keys(&mut self, wanted: BTreeMap<IpNet, Md5Key>) {
        let gone = self.keys.keys().filter(|p| !wanted.contains_key(p)).map(|p| (*p, None));
        let new = wanted.iter().filter(|(p, k)| self.keys.get(p) != Some(k)).map(|(p, k)| (*p, Some(k)));
        for (prefix, key) in gone.chain(new) {
            let octets = key.map_or(&[][..], |k| &k.0);
            if let Err(error) = sockopt::md5(&self.socket, prefix.addr(), prefix.prefix_len(), octets) {
                tracing::warn!(listener = %self.address, %prefix, %error, "password not set on the listener");
            }
        }
        self.keys = wanted;
    }
}

fn least_ttl(ttl: Ttl) -> u8 {
    match ttl {
        Ttl::Security { hops } => dial::least(hops),
        Ttl::Direct | Ttl::MultiHop(_) => 0,
    }
}

/// Gives an accepted connection what its peer's configuration asks for.
pub(super) fn apply(stream: &tokio::net::TcpStream, config: &PeerConfig) -> io::Result<()> {
    dial::apply(SockRef::from(stream), config)
}
