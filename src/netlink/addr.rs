//! Addresses of Services on `lo`.
//!
//! IPv4 addresses are added as /32 with scope `host`, IPv6 as /128 without duplicate detection and with a preferred
//! lifetime of 0: both answer, neither is chosen as the source of this host's own connections.

use std::{collections::BTreeSet, net::IpAddr};

use futures::TryStreamExt;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rtnetlink::Handle;

use crate::types::{KERNEL_MARK, Set};

/// One address of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// `IFA_PROTO`, where the kernel says so.
    pub protocol: Option<u8>,
    /// Duplicate detection is under way or has failed: it does not answer.
    pub tentative: bool,
}

impl Address {
    /// Carries our mark.
    pub fn ours(&self) -> bool {
        self.protocol == Some(KERNEL_MARK)
    }
}

/// What must change on `lo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// To add.
    pub add: BTreeSet<IpAddr>,
    /// To remove: ours, and not wanted.
    pub remove: BTreeSet<IpAddr>,
}

/// The step from what is there to what is wanted.
///
/// An address that stands on any link already is left alone, whoever put it there. `remembered` are those that we
/// added, for kernels that cannot mark them.
pub fn diff(wanted: &BTreeSet<IpAddr>, present: &BTreeSet<Address>, lo: u32, remembered: &BTreeSet<IpAddr>) -> Change {
    let there: BTreeSet<IpAddr> = present.iter().map(|a| a.address).collect();
    let ours = ours(present, lo, remembered);
    Change { add: wanted.difference(&there).copied().collect(), remove: ours.difference(wanted).copied().collect() }
}

/// The addresses on `lo` that we added.
pub fn ours(present: &BTreeSet<Address>, lo: u32, remembered: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let whole = |a: &Address| a.prefix_len == if a.address.is_ipv4() { 32 } else { 128 };
    present
        .iter()
        .filter(|a| a.link == lo && whole(a))
        .filter(|a| a.ours() || (a.protocol.is_none() && remembered.contains(&a.address)))
        .map(|a| a.address)
        .collect()
}

/// The wanted addresses that this host answers for: on a link, and past duplicate detection.
pub fn ready(wanted: &Set<IpAddr>, present: &BTreeSet<Address>) -> Set<IpAddr> {
    let answering: BTreeSet<IpAddr> = present.iter().filter(|a| !a.tentative).map(|a| a.address).collect();
    wanted.iter().filter(|address| answering.contains(address)).copied().collect()
}

/// Every address of every link.
pub(super) async fn observe(handle: &Handle) -> Result<BTreeSet<Address>, rtnetlink::Error> {
    let messages = handle.address().get().execute();
    messages.try_filter_map(|message| async move { Ok(parse(&message)) }).try_collect().await
}

pub(super) async fn add(handle: &Handle, lo: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(lo, address, if address.is_ipv4() { 32 } else { 128 });
    let message = request.message_mut();
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(KERNEL_MARK)));
    if address.is_ipv4() {
        message.header.scope = AddressScope::Host;
    } else {
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_preferred = 0;
        lifetime.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    match request.execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EEXIST => Ok(()),
        other => other,
    }
}

pub(super) async fn remove(handle: &Handle, lo: u32, address: IpAddr) -> Result<(), rtnetlink::Error> {
    let mut message = handle.address().add(lo, address, if address.is_ipv4() { 32 } else { 128 });
    match handle.address().del(message.message_mut().clone()).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::EADDRNOTAVAIL => Ok(()),
        other => other,
    }
}

fn parse(message: &AddressMessage) -> Option<Address> {
    let attribute = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // IFA_ADDRESS is the other end of a point-to-point link; IFA_LOCAL, where there is one, is this end.
    let local = attribute(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let address = local.or_else(|| attribute(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None }));
    let protocol = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Protocol(protocol) => Some(u8::from(*protocol)),
        _ => None,
    });
    let not_yet = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    Some(Address {
        link: message.header.index,
        address: address?,
        prefix_len: message.header.prefix_len,
        protocol,
        tentative: message.header.flags.intersects(not_yet),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;

    fn on(link: u32, address: &str, prefix_len: u8, protocol: Option<u8>) -> Address {
        Address { link, address: ip(address), prefix_len, protocol, tentative: false }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|a| ip(a)).collect()
    }

    #[test]
    fn only_marked_addresses_are_removed() {
        let present = [
            on(LO, "127.0.0.1", 8, Some(1)),
            on(LO, "192.0.2.1", 32, Some(KERNEL_MARK)),
            on(LO, "192.0.2.2", 32, None),
            on(2, "192.0.2.3", 32, Some(KERNEL_MARK)),
        ]
        .into();
        let change = diff(&set(&[]), &present, LO, &set(&[]));
        assert_eq!(change, Change { add: set(&[]), remove: set(&["192.0.2.1"]) });
    }

    #[test]
    fn remembered_addresses_are_ours_where_the_kernel_has_no_mark() {
        let present = [on(LO, "192.0.2.2", 32, None), on(LO, "192.0.2.4", 32, Some(4))].into();
        let change = diff(&set(&[]), &present, LO, &set(&["192.0.2.2", "192.0.2.4"]));
        assert_eq!(change.remove, set(&["192.0.2.2"]), "192.0.2.4 carries another's mark");
    }

    #[test]
    fn address_on_another_link_is_not_added_again() {
        let present = [on(7, "192.0.2.9", 24, None)].into();
        let change = diff(&set(&["192.0.2.9", "2001:db8::9"]), &present, LO, &set(&[]));
        assert_eq!(change, Change { add: set(&["2001:db8::9"]), remove: set(&[]) });
    }

    #[test]
    fn tentative_address_is_not_ready() {
        let mut tentative = on(LO, "2001:db8::1", 128, Some(KERNEL_MARK));
        tentative.tentative = true;
        let present = [tentative, on(LO, "192.0.2.1", 32, Some(KERNEL_MARK))].into();
        let wanted = ["2001:db8::1", "192.0.2.1", "192.0.2.2"].map(ip).into();
        assert_eq!(ready(&wanted, &present), [ip("192.0.2.1")].into());
    }
}
