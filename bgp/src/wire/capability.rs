//! Capabilities of an OPEN (RFC 5492), summed up.

use super::{Families, SAFI_UNICAST, afi, family_of};
use crate::Family;

/// Capability codes (IANA).
#[allow(missing_docs)] // the registry's own words
mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED: u8 = 71;
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GracefulRestart {
    /// R: the speaker has just restarted and asks not to be waited for.
    pub restarting: bool,
    /// N: NOTIFICATIONs do not end what is preserved, hard resets do.
    pub notification: bool,
    /// Seconds until the speaker must be back, 0 to 4095.
    pub seconds: u16,
    /// Families whose routes are to be kept.
    pub families: Families,
    /// F: those of them whose forwarding state was really kept.
    pub forwarding: Families,
}

/// One family of the long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLived {
    /// The family.
    pub family: Family,
    /// F: forwarding state was kept.
    pub forwarding: bool,
    /// How long stale routes are to be kept, 24 bits.
    pub seconds: u32,
}

/// Everything that an OPEN offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Multiprotocol families (RFC 4760 §8); `None` when the capability was not there at all, which means
    /// IPv4 unicast alone.
    pub multiprotocol: Option<Families>,
    /// Route refresh (RFC 2918).
    pub route_refresh: bool,
    /// Enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// Messages up to 65,535 octets (RFC 8654).
    pub extended_message: bool,
    /// IPv4 unicast with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The AS in four octets (RFC 6793).
    pub four_octet_as: Option<u32>,
    /// Graceful restart.
    pub graceful_restart: Option<GracefulRestart>,
    /// Long-lived graceful restart, each family once.
    pub long_lived: Vec<LongLived>,
    /// Families in which the speaker would send several paths (RFC 7911).
    pub add_path_send: Families,
    /// Families in which the speaker would receive several paths.
    pub add_path_receive: Families,
    /// Role (RFC 9234): 0 provider, 1 route server, 2 its client, 3 customer, 4 peer.
    pub role: Option<u8>,
    /// The capability stood there several times with different roles (RFC 9234 §4.2).
    pub roles_differ: bool,
}

impl Capabilities {
    /// Adds one capability of an OPEN. One that is unknown, or whose value has no valid form, is left out: the
    /// session works without it (RFC 5492 §3).
    pub(super) fn read(&mut self, code: u8, value: &[u8]) {
        match (code, value) {
            (code::MULTIPROTOCOL, [high, low, _, safi]) => {
                let families = self.multiprotocol.get_or_insert_default();
                if let Some(family) = family_of(u16::from_be_bytes([*high, *low]), *safi) {
                    families.insert(family);
                }
            }
            (code::ROUTE_REFRESH, []) => self.route_refresh = true,
            (code::ENHANCED_REFRESH, []) => self.enhanced_refresh = true,
            (code::EXTENDED_MESSAGE, []) => self.extended_message = true,
            (code::EXTENDED_NEXT_HOP, value) => {
                self.extended_next_hop |= value.as_chunks().0.contains(&[0, 1, 0, SAFI_UNICAST, 0, 2]);
            }
            (code::FOUR_OCTET_AS, value) => {
                self.four_octet_as = value.try_into().map(u32::from_be_bytes).ok().or(self.four_octet_as);
            }
            (code::GRACEFUL_RESTART, [high, low, families @ ..]) => {
                self.graceful_restart = Some(read_graceful_restart(*high, *low, families));
            }
            (code::LONG_LIVED, value) => self.read_long_lived(value),
            (code::ADD_PATH, value) => self.read_add_path(value),
            (code::ROLE, [role]) => {
                self.roles_differ |= self.role.is_some_and(|before| before != *role);
                self.role = Some(*role);
            }
            _ => {}
        }
    }

    /// RFC 9494 §3.1: of a family that stands there twice the first counts.
    fn read_long_lived(&mut self, value: &[u8]) {
        for [high, low, safi, flags, time @ ..] in value.as_chunks::<7>().0 {
            let Some(family) = family_of(u16::from_be_bytes([*high, *low]), *safi) else { continue };
            if self.long_lived.iter().all(|l| l.family != family) {
                let seconds = time.iter().fold(0, |n, o| n << 8 | u32::from(*o));
                self.long_lived.push(LongLived { family, forwarding: flags & 0x80 != 0, seconds });
            }
        }
    }

    fn read_add_path(&mut self, value: &[u8]) {
        for [high, low, safi, direction] in value.as_chunks::<4>().0 {
            let Some(family) = family_of(u16::from_be_bytes([*high, *low]), *safi) else { continue };
            if matches!(direction, 1 | 3) {
                self.add_path_receive.insert(family);
            }
            if matches!(direction, 2 | 3) {
                self.add_path_send.insert(family);
            }
        }
    }

    /// Appends every capability, each a code, a length and a value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut put = |code, value: &[u8]| {
            out.extend_from_slice(&[code, u8::try_from(value.len()).expect("values here are short")]);
            out.extend_from_slice(value);
        };
        for family in self.multiprotocol.into_iter().flat_map(Families::iter) {
            let [high, low] = afi(family).to_be_bytes();
            put(code::MULTIPROTOCOL, &[high, low, 0, SAFI_UNICAST]);
        }
        let flags = [
            (self.route_refresh, code::ROUTE_REFRESH),
            (self.enhanced_refresh, code::ENHANCED_REFRESH),
            (self.extended_message, code::EXTENDED_MESSAGE),
        ];
        flags.into_iter().filter(|(on, _)| *on).for_each(|(_, code)| put(code, &[]));
        if self.extended_next_hop {
            put(code::EXTENDED_NEXT_HOP, &[0, 1, 0, SAFI_UNICAST, 0, 2]);
        }
        if let Some(asn) = self.four_octet_as {
            put(code::FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        if let Some(restart) = &self.graceful_restart {
            put(code::GRACEFUL_RESTART, &write_graceful_restart(restart));
        }
        if !self.long_lived.is_empty() {
            put(code::LONG_LIVED, &self.long_lived.iter().flat_map(write_long_lived).collect::<Vec<u8>>());
        }
        let add_path: Vec<u8> = Families::EVERY.into_iter().flat_map(|f| self.write_add_path(f)).flatten().collect();
        if !add_path.is_empty() {
            put(code::ADD_PATH, &add_path);
        }
        if let Some(role) = self.role {
            put(code::ROLE, &[role]);
        }
    }

    fn write_add_path(&self, family: Family) -> Option<[u8; 4]> {
        let receive = u8::from(self.add_path_receive.contains(family));
        let send = u8::from(self.add_path_send.contains(family)) * 2;
        let [high, low] = afi(family).to_be_bytes();
        (receive + send != 0).then_some([high, low, SAFI_UNICAST, receive + send])
    }
}

fn write_long_lived(one: &LongLived) -> [u8; 7] {
    let ([high, low], [_, a, b, c]) = (afi(one.family).to_be_bytes(), one.seconds.min(0xFF_FFFF).to_be_bytes());
    [high, low, SAFI_UNICAST, if one.forwarding { 0x80 } else { 0 }, a, b, c]
}

fn read_graceful_restart(high: u8, low: u8, families: &[u8]) -> GracefulRestart {
    let mut restart = GracefulRestart {
        restarting: high & 0x80 != 0,
        notification: high & 0x40 != 0,
        seconds: u16::from_be_bytes([high & 0x0F, low]),
        ..GracefulRestart::default()
    };
    for [high, low, safi, flags] in families.as_chunks::<4>().0 {
        let Some(family) = family_of(u16::from_be_bytes([*high, *low]), *safi) else { continue };
        restart.families.insert(family);
        if flags & 0x80 != 0 {
            restart.forwarding.insert(family);
        }
    }
    restart
}

fn write_graceful_restart(restart: &GracefulRestart) -> Vec<u8> {
    let flags = u16::from(restart.restarting) << 15 | u16::from(restart.notification) << 14;
    let mut value = (flags | restart.seconds.min(0x0FFF)).to_be_bytes().to_vec();
    for family in restart.families.iter() {
        value.extend_from_slice(&afi(family).to_be_bytes());
        value.extend_from_slice(&[SAFI_UNICAST, if restart.forwarding.contains(family) { 0x80 } else { 0 }]);
    }
    value
}
