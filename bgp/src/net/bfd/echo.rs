//! Echo packets on the wire (RFC 5881 §4), IPv4.
//!
//! The packet is addressed to ourselves and handed to the peer's link address, so that its forwarding plane
//! brings it back. Neither way leads through the kernel's own stack, which would keep it here on the way out and
//! drop it as a martian on the way in: both ends are packet sockets. Echo to IPv6 peers is not offered.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{
    receive,
    socket::{self, PacketSocket},
};
use crate::bfd::{ECHO_PORT, Endpoint};

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// IP, UDP and the payload of a session.
const ROOM: usize = 64;

/// How long a link address is used before the neighbour table is asked again.
const FRESH: Duration = Duration::from_secs(1);

/// Sends the echo packets of one session.
pub(super) struct Sender {
    socket: PacketSocket,
    local: Ipv4Addr,
    peer: Ipv4Addr,
    interface: String,
    index: u32,
    source_port: u16,
    link_address: Option<([u8; 6], Instant)>,
}

impl Sender {
    /// `None` where echo cannot be sent: not IPv4, or no interface and local address to send it from.
    pub(super) fn open(endpoint: &Endpoint, index: Option<u32>, source_port: u16) -> io::Result<Option<Self>> {
        let (IpAddr::V4(peer), Some(IpAddr::V4(local)), Some(interface), Some(index)) =
            (endpoint.peer, endpoint.local, endpoint.interface.clone(), index)
        else {
            return Ok(None);
        };
        let socket = PacketSocket::open()?;
        Ok(Some(Self { socket, local, peer, interface, index, source_port, link_address: None }))
    }

    pub(super) fn send(&mut self, now: Instant, payload: &[u8]) -> io::Result<()> {
        let link_address = match self.link_address {
            Some((address, at)) if now.saturating_duration_since(at) < FRESH => address,
            _ => {
                let address = self.socket.neighbour(self.peer, &self.interface)?;
                self.link_address = Some((address, now));
                address
            }
        };
        let mut room = [0; ROOM];
        let packet = encode(&mut room, self.local, self.source_port, payload);
        self.socket.send(packet, self.index, link_address)
    }
}

/// An IPv4 packet from `local` to `local`. The UDP checksum is left out, as IPv4 allows: the payload carries a
/// token of 64 bits.
fn encode<'a>(room: &'a mut [u8; ROOM], local: Ipv4Addr, source_port: u16, payload: &[u8]) -> &'a [u8] {
    let length = IP_HEADER + UDP_HEADER + payload.len();
    room[..12].copy_from_slice(&[0x45, 0xC0, 0, length as u8, 0, 0, 0x40, 0, 255, 17, 0, 0]);
    room[12..16].copy_from_slice(&local.octets());
    room[16..20].copy_from_slice(&local.octets());
    let sum: u32 =
        room[..IP_HEADER].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !((folded & 0xFFFF) + (folded >> 16)) as u16;
    room[10..12].copy_from_slice(&checksum.to_be_bytes());
    room[20..22].copy_from_slice(&source_port.to_be_bytes());
    room[22..24].copy_from_slice(&ECHO_PORT.to_be_bytes());
    room[24..26].copy_from_slice(&((UDP_HEADER + payload.len()) as u16).to_be_bytes());
    room[IP_HEADER + UDP_HEADER..length].copy_from_slice(payload);
    &room[..length]
}

/// Receives the echo packets of all sessions.
pub(super) fn receiver(now: Instant) -> io::Result<receive::Receiver> {
    let socket: Socket = socket::echo_receiver()?;
    Ok(receive::Receiver { socket, multi_hop: false, read_until: now })
}

/// The payload of a packet that passed the socket's filter.
pub(super) fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0F) * 4;
    packet.get(header + UDP_HEADER..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_is_addressed_to_ourselves_with_a_valid_checksum() {
        let mut room = [0; ROOM];
        let local = Ipv4Addr::new(192, 0, 2, 7);
        let packet = encode(&mut room, local, 50000, &[7; 20]);
        assert_eq!(packet.len(), 48);
        assert_eq!(packet[12..16], packet[16..20]);
        assert_eq!(packet[22..24], 3785u16.to_be_bytes());
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xFFFF) + (sum >> 16), 0xFFFF);
        assert_eq!(payload(packet), Some(&[7; 20][..]));
    }
}
