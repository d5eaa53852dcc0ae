//! Making connections: sockets with everything that a peer's configuration asks of them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::sockopt;
use crate::{
    session::send_hold,
    speaker::{Endpoint, PeerConfig, Ttl, Unreached},
};

/// Dials a peer. Cancelling closes the socket.
pub(super) async fn dial(config: &PeerConfig) -> Result<TcpStream, Unreached> {
    let local = |e: io::Error| Unreached::Local(e.to_string());
    let remote = sockopt::scoped(config.address, config.port, config.interface.as_deref())
        .map_err(|e| Unreached::Local(format!("interface {}: {e}", config.interface.as_deref().unwrap_or_default())))?;
    let socket = prepare(config, remote).map_err(local)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(remote).await.map_err(unreached)?;
    Ok(stream)
}

fn prepare(config: &PeerConfig, remote: SocketAddr) -> io::Result<Socket> {
    let named = |what: String| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    let socket = Socket::new(Domain::for_address(remote), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(interface) = &config.interface {
        let to = named(format!("bind to interface {interface}"));
        socket.bind_device(Some(interface.as_bytes())).map_err(to)?;
    }
    let own = (config.address, host_length(config.address));
    sign(&socket, own, config, true)?;
    apply(SockRef::from(&socket), config)?;
    if let Some(source) = config.source {
        let address = sockopt::scoped(source, 0, config.interface.as_deref())?;
        socket.bind(&address.into()).map_err(named(format!("source address {source}")))?;
    }
    Ok(socket)
}

/// The length of a prefix that is one address.
pub(super) fn host_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Signs the segments to and from a prefix as the configuration says; a socket that cannot is not to be used.
pub(super) fn sign(socket: &impl AsFd, of: (IpAddr, u8), config: &PeerConfig, dials: bool) -> io::Result<()> {
    let named = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    if config.password.is_some() && !config.ao_keys.is_empty() {
        let both = "a password (TCP MD5) and TCP-AO keys exclude each other (RFC 5925 §1); take one of them away";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, both));
    }
    if let Some(key) = &config.password {
        sockopt::md5(socket, of.0, of.1, &key.0).map_err(named("password"))?;
    }
    for (place, key) in config.ao_keys.iter().enumerate() {
        sockopt::ao(socket, of.0, of.1, key, dials && place == 0).map_err(named("TCP-AO"))?;
    }
    Ok(())
}

/// What a connection to the peer needs, whoever made it.
pub(super) fn apply(socket: SockRef<'_>, config: &PeerConfig) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // A router that is busy and reads nothing has as long as RFC 9687 gives it; one that is dead is the hold timer's.
    socket.set_tcp_user_timeout(Some(send_hold(config.hold_time)))?;
    distance(&socket, config.address, config.ttl)
}

/// Sets TTL and, for GTSM, the least TTL that is accepted (RFC 5082 §3).
pub(super) fn distance(socket: &SockRef<'_>, peer: IpAddr, ttl: Ttl) -> io::Result<()> {
    let (sent, least) = match ttl {
        Ttl::Direct => (1, 0),
        Ttl::MultiHop(hops) => (hops.max(1), 0),
        Ttl::Security { hops } => (255, least(hops)),
    };
    match peer {
        IpAddr::V4(_) => socket.set_ttl_v4(sent.into())?,
        IpAddr::V6(_) => socket.set_unicast_hops_v6(sent.into())?,
    }
    sockopt::min_ttl(&**socket, peer, least)
}

/// The least TTL of a packet from `hops` away.
pub(super) fn least(hops: u8) -> u8 {
    255 - hops.saturating_sub(1)
}

fn unreached(error: io::Error) -> Unreached {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
    };
    match error.kind() {
        ConnectionRefused | ConnectionReset => Unreached::Refused,
        TimedOut => Unreached::TimedOut,
        HostUnreachable | NetworkUnreachable | NetworkDown => Unreached::NoRoute(error.to_string()),
        _ => Unreached::Local(error.to_string()),
    }
}

/// The ends of a connection, and what else this host has on the interface of its local end. Without the list
/// of addresses the local end is all there is.
pub(super) fn endpoint(stream: &TcpStream) -> io::Result<Endpoint> {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let mut endpoint = Endpoint::new(canonical(stream.local_addr()?), canonical(stream.peer_addr()?));
    let all = sockopt::addresses().unwrap_or_default();
    let Some(own) = all.iter().find(|a| a.address == endpoint.local.ip()) else { return Ok(endpoint) };
    let on_link =
        ipnet::IpNet::new(own.address, own.prefix_length).is_ok_and(|link| link.contains(&endpoint.remote.ip()));
    for other in all.iter().filter(|a| a.interface == own.interface) {
        match other.address {
            IpAddr::V4(a) if !a.is_loopback() => endpoint.next_hop4 = endpoint.next_hop4.or(Some(a)),
            IpAddr::V6(a) if a.is_unicast_link_local() => {
                endpoint.link_local = endpoint.link_local.or(on_link.then_some(a));
            }
            IpAddr::V6(a) if !a.is_loopback() => endpoint.next_hop6 = endpoint.next_hop6.or(Some(a)),
            _ => {}
        }
    }
    Ok(endpoint)
}
