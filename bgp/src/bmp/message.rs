//! BMP messages as they stand on the wire (RFC 7854 §4), appended to a buffer.

use std::{net::IpAddr, time::Duration};

use super::{Down, Monitored};
use crate::wire::notification::Notification;

/// The version of RFC 7854.
const VERSION: u8 = 3;
/// Version, length, type.
const COMMON_HEADER: usize = 6;

/// The type of a message (RFC 7854 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    RouteMonitoring = 0,
    StatisticsReport = 1,
    PeerDown = 2,
    PeerUp = 3,
    Initiation = 4,
    Termination = 5,
}

/// Flags of the per-peer header (RFC 7854 §4.2, RFC 8671 §4).
mod flag {
    /// The peer's address is IPv6.
    pub(super) const V: u8 = 0x80;
    /// Post-policy.
    pub(super) const L: u8 = 0x40;
    /// AS paths have two octets per number.
    pub(super) const A: u8 = 0x20;
    /// Adj-RIB-Out.
    pub(super) const O: u8 = 0x10;
}

/// Information TLVs of Initiation and Peer Up (RFC 7854 §4.4, RFC 8671 §6.3).
mod information {
    pub(super) const SYS_DESCR: u16 = 1;
    pub(super) const SYS_NAME: u16 = 2;
    pub(super) const ADMIN_LABEL: u16 = 4;
}

/// Information TLVs of Termination (RFC 7854 §4.5).
const TERMINATION_REASON: u16 = 1;
/// "Session administratively closed".
const ADMINISTRATIVELY_CLOSED: u16 = 0;

/// One line of a Stats Report (RFC 7854 §4.8, RFC 8671 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statistic {
    /// Type 0: prefixes refused by the inbound policy, which refuses every one.
    RejectedPrefixes(u32),
    /// Type 11: UPDATEs of which RFC 7606 had the prefixes treated as withdrawn.
    TreatedAsWithdraw(u32),
    /// Type 15: routes in the post-policy Adj-RIB-Out.
    AdjRibOut(u64),
    /// Type 17: the same, of one family.
    AdjRibOutOf {
        /// Its AFI.
        afi: u16,
        /// Its SAFI.
        safi: u8,
        /// How many.
        routes: u64,
    },
}

fn message(kind: Kind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0, kind as u8]);
    body(out);
    let length = u32::try_from(out.len() - start).expect("messages hold one or two BGP messages");
    out[start + 1..start + COMMON_HEADER - 1].copy_from_slice(&length.to_be_bytes());
}

/// The per-peer header. `at` is the time since the epoch, `flags` those beyond V.
fn peer_header(session: &Monitored, at: Duration, flags: u8, out: &mut Vec<u8>) {
    let remote = session.remote.ip().to_canonical();
    let family = if remote.is_ipv6() { flag::V } else { 0 };
    // Peer type 0 (Global Instance), whose distinguisher is zero.
    out.extend_from_slice(&[0, flags | family, 0, 0, 0, 0, 0, 0, 0, 0]);
    address(remote, out);
    out.extend_from_slice(&session.remote_as.value().to_be_bytes());
    out.extend_from_slice(&session.remote_id.addr().octets());
    // RFC 7854 §4.2: four octets of seconds, which end in 2106.
    out.extend_from_slice(&u32::try_from(at.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&at.subsec_micros().to_be_bytes());
}

/// Sixteen octets; an IPv4 address stands in the last four.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            out.extend_from_slice(&[0; 12]);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
}

fn tlv(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = &value[..value.len().min(u16::MAX.into())];
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).expect("cut above").to_be_bytes());
    out.extend_from_slice(value);
}

pub(super) fn initiation(name: &str, description: &str, out: &mut Vec<u8>) {
    message(Kind::Initiation, out, |out| {
        tlv(information::SYS_DESCR, description.as_bytes(), out);
        tlv(information::SYS_NAME, name.as_bytes(), out);
    });
}

pub(super) fn termination(out: &mut Vec<u8>) {
    message(Kind::Termination, out, |out| tlv(TERMINATION_REASON, &ADMINISTRATIVELY_CLOSED.to_be_bytes(), out));
}

/// Peer Up, with the caller's name of the peer as its admin label.
pub(super) fn peer_up(session: &Monitored, at: Duration, out: &mut Vec<u8>) {
    message(Kind::PeerUp, out, |out| {
        peer_header(session, at, 0, out);
        address(session.local.ip().to_canonical(), out);
        out.extend_from_slice(&session.local.port().to_be_bytes());
        out.extend_from_slice(&session.remote.port().to_be_bytes());
        out.extend_from_slice(&session.sent_open);
        out.extend_from_slice(&session.received_open);
        tlv(information::ADMIN_LABEL, session.peer.0.as_bytes(), out);
    });
}

pub(super) fn peer_down(session: &Monitored, at: Duration, down: &Down, out: &mut Vec<u8>) {
    let pdu = |reason, notification: &Notification, out: &mut Vec<u8>| {
        out.push(reason);
        notification.encode(out);
    };
    message(Kind::PeerDown, out, |out| {
        peer_header(session, at, 0, out);
        match down {
            Down::Local(sent) => pdu(1, sent, out),
            Down::LocalEvent(event) => {
                out.push(2);
                out.extend_from_slice(&event.to_be_bytes());
            }
            Down::Remote(received) => pdu(3, received, out),
            Down::Closed => out.push(4),
        }
    });
}

/// Route Monitoring of the post-policy Adj-RIB-Out: one UPDATE, header included.
pub(super) fn route_monitoring(session: &Monitored, at: Duration, update: &[u8], out: &mut Vec<u8>) {
    let width = if session.four_octet { 0 } else { flag::A };
    message(Kind::RouteMonitoring, out, |out| {
        peer_header(session, at, flag::O | flag::L | width, out);
        out.extend_from_slice(update);
    });
}

pub(super) fn statistics(session: &Monitored, at: Duration, statistics: &[Statistic], out: &mut Vec<u8>) {
    message(Kind::StatisticsReport, out, |out| {
        peer_header(session, at, 0, out);
        out.extend_from_slice(&u32::try_from(statistics.len()).expect("a handful").to_be_bytes());
        for statistic in statistics {
            match *statistic {
                Statistic::RejectedPrefixes(count) => tlv(0, &count.to_be_bytes(), out),
                Statistic::TreatedAsWithdraw(count) => tlv(11, &count.to_be_bytes(), out),
                Statistic::AdjRibOut(routes) => tlv(15, &routes.to_be_bytes(), out),
                Statistic::AdjRibOutOf { afi, safi, routes } => {
                    let mut value = [0; 11];
                    value[..2].copy_from_slice(&afi.to_be_bytes());
                    value[2] = safi;
                    value[3..].copy_from_slice(&routes.to_be_bytes());
                    tlv(17, &value, out);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
