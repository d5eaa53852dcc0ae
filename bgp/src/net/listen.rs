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
use crate::speaker::{AoKey, DynamicPeers, Md5Key, PeerConfig, PeerId, Ttl};

const BACKLOG: i32 = 128;

/// One listening socket and the keys that it has.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    address: SocketAddr,
    keys: BTreeMap<IpNet, Keys>,
    refused: BTreeMap<IpNet, String>,
}

/// Binds a socket; to be made a [`Listener`] inside the runtime.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("listen on {address}: {e}"));
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // The answer to a SYN is the listener's: a peer with GTSM takes none below its bound (RFC 5082 §3). What is
        // accepted gets its own distance.
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(255)?;
        } else {
            socket.set_ttl_v4(255)?;
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
        Ok(Self { socket: TcpListener::from_std(socket)?, address, keys: BTreeMap::new(), refused: BTreeMap::new() })
    }

    /// Brings keys and least TTL in line with the peers. Whom the keys cannot be set for is not admitted: an
    /// unprotected connection is no substitute for a protected one.
    pub(super) fn update(&mut self, peers: &BTreeMap<PeerId, PeerConfig>, dynamic: &[DynamicPeers]) {
        let ours = |address: IpAddr| address.is_ipv4() == self.address.is_ipv4();
        let hosts = peers.values().filter(|p| ours(p.address)).map(|p| (IpNet::from(p.address), p));
        let ranges = dynamic.iter().filter(|d| ours(d.prefix.addr())).map(|d| (d.prefix.trunc(), &d.template));
        let expected: BTreeMap<IpNet, &PeerConfig> = ranges.chain(hosts).collect();
        self.set_keys(&expected);
        let least: BTreeSet<u8> = expected.values().map(|c| least_ttl(c.ttl)).collect();
        let least = least.first().copied().unwrap_or(0);
        if let Err(error) = sockopt::min_ttl(&self.socket, self.address.ip(), least) {
            tracing::warn!(listener = %self.address, least, %error, "TTL security not set on the listener");
        }
    }

    fn set_keys(&mut self, expected: &BTreeMap<IpNet, &PeerConfig>) {
        let wanted = |prefix: &IpNet| expected.get(prefix).and_then(|config| Keys::of(config));
        let old: Vec<IpNet> =
            self.keys.iter().filter(|(p, k)| wanted(p).as_ref() != Some(*k)).map(|(p, _)| *p).collect();
        for prefix in old {
            if let Some(keys) = self.keys.remove(&prefix) {
                self.remove(prefix, &keys);
            }
        }
        self.refused.clear();
        for (prefix, config) in expected {
            let Some(keys) = Keys::of(config).filter(|_| !self.keys.contains_key(prefix)) else { continue };
            match dial::sign(&self.socket, (prefix.addr(), prefix.prefix_len()), config, false) {
                Ok(()) => _ = self.keys.insert(*prefix, keys),
                Err(error) => {
                    tracing::warn!(listener = %self.address, %prefix, %error, "keys not set, nobody is admitted");
                    self.remove(*prefix, &keys);
                    self.refused.insert(*prefix, error.to_string());
                }
            }
        }
    }

    fn remove(&self, prefix: IpNet, keys: &Keys) {
        let (address, length) = (prefix.addr(), prefix.prefix_len());
        let md5 = keys.password.iter().map(|_| sockopt::md5(&self.socket, address, length, &[]));
        let ao = keys.ao.iter().map(|key| sockopt::remove_ao(&self.socket, address, length, key));
        for error in md5.chain(ao).filter_map(Result::err) {
            tracing::debug!(listener = %self.address, %prefix, %error, "key not removed");
        }
    }

    /// Whom nobody can be admitted for, and why.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&IpNet, &String)> {
        self.refused.iter()
    }

    /// Whether a connection from the address is protected as its peer's configuration asks. The longest prefix is
    /// the one whose keys the kernel takes.
    pub(super) fn admits(&self, remote: IpAddr) -> bool {
        let longest = |prefixes: &mut dyn Iterator<Item = &IpNet>| {
            prefixes.filter(|p| p.contains(&remote)).map(IpNet::prefix_len).max()
        };
        longest(&mut self.refused.keys()).is_none_or(|refused| longest(&mut self.keys.keys()) > Some(refused))
    }
}

/// What protects the connections of a peer.
#[derive(Debug, PartialEq, Eq)]
struct Keys {
    password: Option<Md5Key>,
    ao: Vec<AoKey>,
}

impl Keys {
    fn of(config: &PeerConfig) -> Option<Self> {
        let any = config.password.is_some() || !config.ao_keys.is_empty();
        any.then(|| Self { password: config.password.clone(), ao: config.ao_keys.clone() })
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
