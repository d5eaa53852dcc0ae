//! How one session's UPDATEs are written: everything that was negotiated or that the connection decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Attributes;
use crate::{
    Asn, ExtendedCommunity, Family,
    wire::{
        Families, NextHop,
        attribute::{self, OPTIONAL, TRANSITIVE, encode, encode_as_path, encode_list, encode_origin},
    },
};

/// Peers with equal encodings can be sent the same octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Encoding {
    pub(crate) local_as: Asn,
    /// The peer is in our AS: no AS path of ours, local preference.
    pub(crate) internal: bool,
    pub(crate) four_octet: bool,
    pub(crate) families: Families,
    /// Families whose prefixes we send with path identifiers (RFC 7911).
    pub(crate) add_path: Families,
    /// ONLY_TO_CUSTOMER with our AS is put on routes without it: our role is Provider, Peer or RS (RFC 9234 §5).
    pub(crate) only_to_customer: bool,
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
        if !self.families.contains(family) {
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
        encode_as_path(attribute::AS_PATH, self.local_as, count, self.four_octet, out);
        if let Some(next_hop) = next_hop {
            encode(TRANSITIVE, attribute::NEXT_HOP, &next_hop.octets(), out);
        }
        if let Some(med) = attributes.med {
            encode(OPTIONAL, attribute::MED, &med.to_be_bytes(), out);
        }
        if self.internal {
            let local_pref = attributes.local_pref.unwrap_or(100);
            encode(TRANSITIVE, attribute::LOCAL_PREF, &local_pref.to_be_bytes(), out);
        }
        let communities = attributes.communities.iter().map(|c| c.0.to_be_bytes());
        encode_list(OPTIONAL | TRANSITIVE, attribute::COMMUNITIES, communities, out);
        self.extended_communities(attributes, out);
        // RFC 6793 §4.2.2: only where the two-octet path cannot say it.
        if !self.four_octet && count > 0 && self.local_as.value() > u16::MAX.into() {
            encode_as_path(attribute::AS4_PATH, self.local_as, count, true, out);
        }
        let large = attributes.large_communities.iter().map(|c| c.octets());
        encode_list(OPTIONAL | TRANSITIVE, attribute::LARGE_COMMUNITIES, large, out);
        let ours = self.only_to_customer.then_some(self.local_as);
        if let Some(asn) = attributes.only_to_customer.or(ours) {
            encode(OPTIONAL | TRANSITIVE, attribute::ONLY_TO_CUSTOMER, &asn.value().to_be_bytes(), out);
        }
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
