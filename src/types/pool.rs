//! Address pools.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use super::{Family, PoolProvider, Selector, ServiceKey, family_of};

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Text that is neither a CIDR nor `from-to`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRange(String);

impl AddressRange {
    /// The range, or why it is none.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, InvalidRange> {
        if family_of(first) != family_of(last) {
            return Err(InvalidRange(format!("{first}-{last} mixes IPv4 and IPv6")));
        }
        if first > last {
            return Err(InvalidRange(format!("{first}-{last} ends before it starts")));
        }
        Ok(Self { first, last })
    }

    /// First address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Last address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Its family.
    pub fn family(&self) -> Family {
        family_of(self.first)
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        family_of(address) == self.family() && self.first <= address && address <= self.last
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }

    /// What is left without one address: nothing, one range or two.
    pub fn without(&self, gone: IpAddr) -> impl Iterator<Item = AddressRange> + use<> {
        let (family, first, last) = (self.family(), number(self.first), number(self.last));
        let (before, after) = match self.contains(gone) {
            true => (number(gone).checked_sub(1), number(gone).checked_add(1)),
            false => (Some(last), None),
        };
        let before = before.filter(|end| first <= *end).map(|end| (first, end));
        let after = after.filter(|start| *start <= last).map(|start| (start, last));
        let range = move |(first, last)| AddressRange { first: address(family, first), last: address(family, last) };
        before.into_iter().chain(after).map(range)
    }

    /// How many addresses, at most `u128::MAX`.
    pub fn len(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Never: a range has at least one address.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The address that stands `n` places after the first, if the range reaches so far.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        let number = number(self.first).checked_add(n).filter(|number| *number <= self::number(self.last))?;
        Some(address(self.family(), number))
    }

    /// Every address in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (family, first, last) = (self.family(), number(self.first), number(self.last));
        (first..=last).map(move |n| address(family, n))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4((u32::try_from(number).expect("an IPv4 range stays within 32 bits")).into()),
        Family::Ipv6 => IpAddr::V6(number.into()),
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid =
            || InvalidRange(format!("{text:?} is neither a CIDR (192.0.2.0/24) nor a range (192.0.2.10-192.0.2.20)"));
        if let Some((first, last)) = text.split_once('-') {
            let first = first.trim().parse().map_err(|_| invalid())?;
            let last = last.trim().parse().map_err(|_| invalid())?;
            return Self::new(first, last);
        }
        let net: ipnet::IpNet = text.trim().parse().map_err(|_| invalid())?;
        Self::new(net.network(), net.broadcast())
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// `IPAddressPool`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Name.
    pub name: String,
    /// `metadata.labels`, for advertisements that select pools.
    pub labels: super::Labels,
    /// `spec.addresses`, order kept, then what was claimed; never empty without `provider`.
    pub ranges: Vec<AddressRange>,
    /// Ranges that were claimed for one Service: nobody else gets an address of them.
    pub reserved: BTreeMap<AddressRange, ServiceKey>,
    /// `spec.provider`: where further addresses are claimed.
    pub provider: Option<PoolProvider>,
    /// `spec.autoAssign`: false is only given out on request.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`: skip IPv4 addresses that end in .0 and .255.
    pub avoid_buggy_ips: bool,
    /// `spec.serviceAllocation`.
    pub allocation: Option<Allocation>,
    /// `spec.disabled`: nothing new is given out, what is given out stays.
    pub disabled: bool,
}

/// `spec.serviceAllocation`: who may take addresses from the pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// Smaller is preferred; 0 or absent is last.
    pub priority: u32,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label; any selector is enough.
    pub namespace_selectors: Vec<Selector>,
    /// Services by label; any selector is enough.
    pub service_selectors: Vec<Selector>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_from_both_notations() {
        let cidr: AddressRange = "192.0.2.0/30".parse().expect("valid");
        let range: AddressRange = "192.0.2.0 - 192.0.2.3".parse().expect("valid");
        assert_eq!(cidr, range);
        assert_eq!(cidr.len(), 4);
        assert_eq!(cidr.iter().count(), 4);
        assert_eq!(cidr.nth(3), Some(cidr.last()));
        assert_eq!(cidr.nth(4), None);
        assert!("192.0.2.9-192.0.2.3".parse::<AddressRange>().is_err());
        assert!("192.0.2.9-2001:db8::1".parse::<AddressRange>().is_err());
        assert!("192.0.2.0/33".parse::<AddressRange>().is_err());
    }

    #[test]
    fn a_range_without_one_address_is_what_is_left_of_it() {
        let range: AddressRange = "192.0.2.1-192.0.2.3".parse().expect("valid");
        let without = |gone: &str| {
            let left = range.without(gone.parse().expect("valid"));
            left.map(|r| r.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without("192.0.2.1"), "192.0.2.2-192.0.2.3");
        assert_eq!(without("192.0.2.2"), "192.0.2.1-192.0.2.1 192.0.2.3-192.0.2.3");
        assert_eq!(without("192.0.2.3"), "192.0.2.1-192.0.2.2");
        assert_eq!(without("192.0.2.9"), "192.0.2.1-192.0.2.3");
        let one: AddressRange = "::-::".parse().expect("valid");
        assert_eq!(one.without("::".parse().expect("valid")).count(), 0);
    }

    #[test]
    fn ranges_of_different_families_never_overlap() {
        let v4: AddressRange = "0.0.0.0/0".parse().expect("valid");
        let v6: AddressRange = "::/0".parse().expect("valid");
        assert!(!v4.overlaps(&v6));
        assert_eq!(v6.len(), u128::MAX);
    }
}
