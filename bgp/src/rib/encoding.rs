//! How one session's UPDATEs are written: everything that was negotiated or that the connection decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Attributes;
use crate::{
    Asn, ExtendedCommunity, Family,
    wire::{
        Families, NextHop,
        attribute::{self, OPTIONAL, TRANSITIVE, encode, encode_as_path, encode_four, encode_list, encode_origin},
    },
};

/// Peers with equal encodings can be sent the same octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Encoding {
    pub(crate) local_as: Asn,
    /// The AS that `local_as` stands in for, shown behind it.
    pub(crate) own_as: Option<Asn>,
    /// The peer is in our AS: no AS path of ours, local preference.
    pub(crate) internal: bool,
    pub(crate) four_octet: bool,
    pub(crate) families: Families,
    /// Families whose prefixes we send with path identifiers (RFC 7911).
    pub(crate) add_path: Families,
    /// ONLY_TO_CUSTOMER with our AS is put on routes without it: our role is Provider, Peer or RS (RFC 9234 §5).
    pub(crate) only_to_customer: bool,
    /// Routes with ONLY_TO_CUSTOMER are not sent: our role is Customer, Peer or RS-Client (RFC 9234 §5).
    pub(crate) keeps_marked: bool,
    /// Our own addresses on the link to the peer, for "next hop self".
    pub(crate) next_hop4: Option<Ipv4Addr>,
    pub(crate) next_hop6: Option<Ipv6Addr>,
    /// Sent beside our own global address on a shared link (RFC 2545 §3).
    pub(crate) link_local: Option<Ipv6Addr>,
    /// IPv4 prefixes may have IPv6 next hops (RFC 8950).
    pub(crate) extended_next_hop: bool,
    /// The negotiated message size.
    pub(crate) limit: usize,
}

impl Encoding {
    /// The next hop that a route of the family has in this session; `None` if it cannot be sent.
    pub(super) fn next_hop(&self, family: Family, attributes: &Attributes) -> Option<NextHop> {
        let explicit = |global| NextHop { global, link_local: None };
        if !self.families.contains(family) || self.keeps(attributes) {
            return None;
        }
        match (family, attributes.next_hop) {
            (Family::Ipv4Unicast, Some(hop @ IpAddr::V4(_))) => Some(explicit(hop)),
            (Family::Ipv4Unicast, Some(hop @ IpAddr::V6(_))) => self.extended_next_hop.then(|| explicit(hop)),
            (Family::Ipv4Unicast, None) => match self.next_hop4 {
                Some(own) => Some(explicit(own.into())),
                None if self.extended_next_hop => self.own_v6(),
                None => None,
            },
            (Family::Ipv6Unicast, Some(hop @ IpAddr::V6(_))) => Some(explicit(hop)),
            (Family::Ipv6Unicast, Some(IpAddr::V4(_))) => None,
            (Family::Ipv6Unicast, None) => self.own_v6(),
        }
    }

    /// Whether the route stays here because of what it is, whatever its next hop.
    pub(super) fn keeps(&self, attributes: &Attributes) -> bool {
        self.keeps_marked && attributes.only_to_customer.is_some()
    }

    /// Without a global address the link-local one takes its place too, as the routers of unnumbered links do.
    fn own_v6(&self) -> Option<NextHop> {
        let global = self.next_hop6.or(self.link_local)?;
        Some(NextHop { global: global.into(), link_local: self.link_local })
    }

    /// Appends everything but the multiprotocol attributes, in the order of the codes. `next_hop` is the
    /// NEXT_HOP of prefixes in the message's own field.
    pub(super) fn attributes(&self, attributes: &Attributes, next_hop: Option<Ipv4Addr>, out: &mut Vec<u8>) {
        encode_origin(attributes.origin, out);
        let count = if self.internal { 0 } else { 1 + usize::from(attributes.prepend) };
        self.path(attribute::AS_PATH, count, self.four_octet, out);
        if let Some(next_hop) = next_hop {
            encode_four(TRANSITIVE, attribute::NEXT_HOP, next_hop.octets(), out);
        }
        if let Some(med) = attributes.med {
            encode_four(OPTIONAL, attribute::MED, med.to_be_bytes(), out);
        }
        if self.internal {
            let local_pref = attributes.local_pref.unwrap_or(100);
            encode_four(TRANSITIVE, attribute::LOCAL_PREF, local_pref.to_be_bytes(), out);
        }
        let communities = attributes.communities.iter().map(|c| c.0.to_be_bytes());
        encode_list(OPTIONAL | TRANSITIVE, attribute::COMMUNITIES, communities, out);
        self.extended_communities(attributes, out);
        // RFC 6793 §4.2.2: only where the two-octet path cannot say it.
        let wide = |asn: Asn| asn.value() > u16::MAX.into();
        if !self.four_octet && count > 0 && (wide(self.local_as) || self.own_as.is_some_and(wide)) {
            self.path(attribute::AS4_PATH, count, true, out);
        }
        let large = attributes.large_communities.iter().map(|c| c.octets());
        encode_list(OPTIONAL | TRANSITIVE, attribute::LARGE_COMMUNITIES, large, out);
        let ours = self.only_to_customer.then_some(self.local_as);
        if let Some(asn) = attributes.only_to_customer.or(ours) {
            encode_four(OPTIONAL | TRANSITIVE, attribute::ONLY_TO_CUSTOMER, asn.value().to_be_bytes(), out);
        }
    }

    /// `local_as` so many times, and behind it the AS that it stands in for: what a router shows with an AS
    /// override that does not replace. Within an AS the path is empty.
    fn path(&self, code: u8, count: usize, four_octet: bool, out: &mut Vec<u8>) {
        let Some(own) = self.own_as.filter(|_| count > 0) else {
            return encode_as_path(code, self.local_as, count, four_octet, out);
        };
        let numbers: Vec<Asn> = std::iter::repeat_n(self.local_as, count).chain([own]).collect();
        let mut value = Vec::with_capacity(4 + 4 * numbers.len());
        for segment in numbers.chunks(255) {
            value.extend_from_slice(&[2, u8::try_from(segment.len()).expect("at most 255")]);
            for asn in segment {
                match four_octet {
                    true => value.extend_from_slice(&asn.value().to_be_bytes()),
                    false => value.extend_from_slice(&asn.two_octet().to_be_bytes()),
                }
            }
        }
        let flags = if code == attribute::AS_PATH { TRANSITIVE } else { OPTIONAL | TRANSITIVE };
        encode(flags, code, &value, out);
    }

    /// What must not leave the AS is not sent to another one (RFC 4360 §6); link bandwidth is, because it is
    /// this speaker that attaches it: the form is the caller's choice, as routers differ in what they heed.
    fn extended_communities(&self, attributes: &Attributes, out: &mut Vec<u8>) {
        let sendable = |c: &&ExtendedCommunity| self.internal || c.is_transitive();
        let given = attributes.extended_communities.iter().filter(sendable).copied();
        let bandwidth = attributes.link_bandwidth.map(|bandwidth| bandwidth.community(self.local_as));
        let all = given.chain(bandwidth).map(ExtendedCommunity::octets);
        encode_list(OPTIONAL | TRANSITIVE, attribute::EXTENDED_COMMUNITIES, all, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asn(number: u32) -> Asn {
        Asn::new(number).expect("valid")
    }

    fn encoding(local_as: u32, own_as: u32, four_octet: bool) -> Encoding {
        Encoding {
            local_as: asn(local_as),
            own_as: Some(asn(own_as)),
            internal: false,
            four_octet,
            families: Families::NONE,
            add_path: Families::NONE,
            only_to_customer: false,
            keeps_marked: false,
            next_hop4: None,
            next_hop6: None,
            link_local: None,
            extended_next_hop: false,
            limit: 4096,
        }
    }

    fn list(encoding: &Encoding, prepend: u8) -> Vec<u8> {
        let mut out = Vec::new();
        encoding.attributes(&Attributes { prepend, ..Attributes::default() }, None, &mut out);
        out.split_off(4) // ORIGIN stands before
    }

    /// RFC 6793 §4.2.2: whichever of the two numbers does not fit takes AS_TRANS, and AS4_PATH says both.
    #[test]
    fn override_towards_a_router_of_two_octets_is_whole_in_as4_path() {
        let wide = list(&encoding(64601, 4_200_000_000, false), 0);
        assert_eq!(wide[..9], [0x40, 2, 6, 2, 2, 0xFC, 0x59, 0x5B, 0xA0]);
        assert_eq!(wide[9..], [0xC0, 17, 10, 2, 2, 0, 0, 0xFC, 0x59, 0xFA, 0x56, 0xEA, 0]);
        assert_eq!(list(&encoding(64601, 65001, false), 0), [0x40, 2, 6, 2, 2, 0xFC, 0x59, 0xFD, 0xE9]);
    }

    #[test]
    fn override_with_all_prepends_takes_two_segments() {
        let path = list(&encoding(64601, 65001, true), 255);
        assert_eq!(path[..6], [0x50, 2, 0x04, 0x08, 2, 255], "256 times local_as and once the other, in 1032 octets");
        assert_eq!(path[4 + 2 + 4 * 255..], [2, 2, 0, 0, 0xFC, 0x59, 0, 0, 0xFD, 0xE9]);
        assert_eq!(list(&Encoding { internal: true, ..encoding(64601, 65001, true) }, 3)[..3], [0x40, 2, 0]);
    }
}
