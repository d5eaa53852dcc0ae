//! SYNs from clients that do not exist, as fast as the machine gives, each from an address and a port of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Where the forged sources are: what answers them goes nowhere.
pub(crate) const SOURCES: [&str; 2] = ["100.64.0.0/10", "2001:db8:bad0::/48"];
/// As many as IPv4 sources differ.
pub(crate) const MOST: u32 = 1 << 22;

/// What was given to the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) packets: u32,
    pub(crate) took: Duration,
}

/// Sends one SYN from each of so many sources to these addresses in turn, in the network of this thread.
///
/// # Errors
/// There is no raw socket (it needs CAP_NET_RAW), or no way to an address.
pub(crate) fn syns(to: &[SocketAddr], count: u32) -> anyhow::Result<Sent> {
    let mut targets = to.iter().map(Target::new).collect::<anyhow::Result<Vec<_>>>()?;
    let (began, mut packets) = (Instant::now(), 0);
    for (n, target) in (0..count.min(MOST)).zip((0..targets.len()).cycle()) {
        packets += u32::from(targets[target].send(n)?);
    }
    Ok(Sent { packets, took: began.elapsed() })
}

/// A raw socket, and the SYN that goes out by it.
struct Target {
    socket: Socket,
    to: SockAddr,
    packet: Vec<u8>,
    /// Where the source's address and the TCP header stand.
    source: std::ops::Range<usize>,
    tcp: usize,
    /// Of what is the same in all of them: pseudo header and TCP header.
    sum: u32,
}

impl Target {
    fn new(to: &SocketAddr) -> anyhow::Result<Self> {
        let (domain, packet, source) = match to.ip() {
            IpAddr::V4(v4) => (Domain::IPV4, header_v4(v4), 12..16),
            IpAddr::V6(v6) => (Domain::IPV6, header_v6(v6), 8..24),
        };
        let tcp = packet.len();
        let mut header = vec![0, 0];
        header.extend(to.port().to_be_bytes());
        header.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let destination = &packet[source.end..source.end + source.len()];
        let sum = words(destination) + words(&header) + 6 + header.len() as u32;
        // Sockets of this protocol are given whole packets.
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
            .context("open a raw socket for forged packets")?;
        let to = SocketAddr::new(to.ip(), 0).into();
        Ok(Self { socket, to, packet: [packet, header].concat(), source, tcp, sum })
    }

    /// Whether the network took it: where a queue is full it does not.
    fn send(&mut self, n: u32) -> anyhow::Result<bool> {
        let port = 1024 + (n.wrapping_mul(7919) % 64_000) as u16;
        let source = match self.source.len() {
            4 => Ipv4Addr::from(0x6440_0000 | n).octets().to_vec(),
            _ => Ipv6Addr::from(0x2001_0db8_bad0_u128 << 80 | u128::from(n)).octets().to_vec(),
        };
        let check = fold(self.sum + words(&source) + u32::from(port));
        self.packet[self.source.clone()].copy_from_slice(&source);
        self.packet[self.tcp..self.tcp + 2].copy_from_slice(&port.to_be_bytes());
        self.packet[self.tcp + 16..self.tcp + 18].copy_from_slice(&(!check).to_be_bytes());
        match self.socket.send_to(&self.packet, &self.to) {
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) || e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            sent => sent.map(|_| true).context("send a forged SYN"),
        }
    }
}

/// The kernel fills in length and checksum.
fn header_v4(to: Ipv4Addr) -> Vec<u8> {
    [&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0][..], &to.octets()].concat()
}

fn header_v6(to: Ipv6Addr) -> Vec<u8> {
    [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[0; 16], &to.octets()].concat()
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_everything_is_all_ones() {
        for to in ["192.0.2.10:80", "[2001:db8::10]:80"] {
            let Ok(mut target) = Target::new(&to.parse().expect("an address")) else { return };
            let _ = target.send(12_345);
            let (addresses, header) = (target.source.start, &target.packet[target.tcp..]);
            let pseudo = words(&target.packet[addresses..addresses + 2 * target.source.len()]) + 6 + 20;
            assert_eq!(fold(pseudo + words(header)), 0xffff, "{to}");
        }
    }
}
