//! The frame that a question is made into, and what is read of the one that comes back.

use std::net::{IpAddr, SocketAddr};

use crate::datapath::query::{L4, Question};

const ETHERNET: usize = 14;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// An empty segment or datagram. Checksums are 0: the program corrects them without looking at them.
pub(super) fn of(q: &Question) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(q.from.port().to_be_bytes());
    l4.extend(q.to.port().to_be_bytes());
    match q.protocol {
        L4::Udp => l4.extend([0, 8, 0, 0]),
        L4::Tcp => {
            l4.extend([0; 8]);
            l4.extend([0x50, if q.opening { SYN } else { ACK }, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    let mut frame = vec![0; 12];
    match (q.from.ip(), q.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + l4.len() as u16).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, q.protocol.number(), 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((l4.len() as u16).to_be_bytes());
            frame.extend([q.protocol.number(), 64]);
            for ip in [from, to] {
                frame.extend(crate::datapath::types::Ip::from(ip).0);
            }
        }
    }
    frame.extend(l4);
    frame
}

/// Where a frame goes.
pub(super) struct Seen {
    /// Destination and its port.
    pub(super) to: SocketAddr,
    /// The first bytes of the payload behind UDP.
    pub(super) tunnel: Option<[u8; 8]>,
}

impl Seen {
    /// Of an untagged or once tagged frame with TCP or UDP; `None` for any other.
    pub(super) fn new(frame: &[u8]) -> Option<Self> {
        let tag = if frame.get(12..14)? == [0x81, 0x00] { 4 } else { 0 };
        let ip = frame.get(ETHERNET + tag..)?;
        let (to, l4): (IpAddr, &[u8]) = match ip.first()? >> 4 {
            4 => (<[u8; 4]>::try_from(ip.get(16..20)?).ok()?.into(), ip.get(20..)?),
            _ => (<[u8; 16]>::try_from(ip.get(24..40)?).ok()?.into(), ip.get(40..)?),
        };
        let port = u16::from_be_bytes(l4.get(2..4)?.try_into().ok()?);
        let tunnel = l4.get(8..16).and_then(|bytes| bytes.try_into().ok());
        Some(Self { to: SocketAddr::new(to, port), tunnel })
    }
}
