//! Prefixes on the wire: a length in bits and as many octets as it needs (RFC 4271 §4.3), with a path
//! identifier before each where ADD-PATH was negotiated (RFC 7911 §3).

use std::marker::PhantomData;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Family;

/// A prefix of one family, in the form that the wire and the RIB share.
pub trait Prefix: Copy + Ord + std::hash::Hash + std::fmt::Debug + Into<IpNet> + 'static {
    /// Its family.
    const FAMILY: Family;
    /// The longest prefix in bits.
    const BITS: u8;
    /// The prefix, if it is of this family.
    fn of(net: IpNet) -> Option<Self>;

    /// The prefix of `length` bits whose address starts with `octets`; bits beyond the length are ignored, wherever
    /// they come from, and octets that are not there are 0.
    fn read(length: u8, octets: &[u8]) -> Self;

    /// Writes length and octets to the start of `out` (as long as the longest of the family) and returns how many
    /// count; what stands after them is arbitrary.
    fn write(self, out: &mut [u8]) -> usize;
}

impl Prefix for Ipv4Net {
    const FAMILY: Family = Family::Ipv4Unicast;
    const BITS: u8 = 32;

    #[inline]
    fn of(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        }
    }

    fn read(length: u8, octets: &[u8]) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        let address = u32::from_be_bytes(padded(octets)) & mask;
        Ipv4Net::new(address.into(), length).expect("the length was checked")
    }

    fn write(self, out: &mut [u8]) -> usize {
        let [a, b, c, d] = self.addr().octets();
        out[..5].copy_from_slice(&[self.prefix_len(), a, b, c, d]);
        1 + usize::from(self.prefix_len()).div_ceil(8)
    }
}

impl Prefix for Ipv6Net {
    const FAMILY: Family = Family::Ipv6Unicast;
    const BITS: u8 = 128;

    #[inline]
    fn of(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V6(net) => Some(net),
            IpNet::V4(_) => None,
        }
    }

    fn read(length: u8, octets: &[u8]) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let address = u128::from_be_bytes(padded(octets)) & mask;
        Ipv6Net::new(address.into(), length).expect("the length was checked")
    }

    fn write(self, out: &mut [u8]) -> usize {
        out[0] = self.prefix_len();
        out[1..17].copy_from_slice(&self.addr().octets());
        1 + usize::from(self.prefix_len()).div_ceil(8)
    }
}

/// The first octets of a slice, 0 where it is shorter. Nearly always it is not: what follows a prefix is read with
/// it and masked away.
#[inline]
fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
    match octets.first_chunk() {
        Some(whole) => *whole,
        None => {
            let mut padded = [0; N];
            padded[..octets.len()].copy_from_slice(octets);
            padded
        }
    }
}

/// What stands in an UPDATE for one route: a prefix, or a prefix with a path identifier before it.
pub trait Destination: Copy + std::fmt::Debug {
    /// The prefix.
    type Prefix: Prefix;
    /// The longest form on the wire in octets.
    const ROOM: usize;
    /// Whether a path identifier stands before the prefix.
    const PATHS: bool;

    /// A path to the prefix.
    fn new(prefix: Self::Prefix, path: u32) -> Self;

    /// Writes it to the start of `out` (at least [`Destination::ROOM`] octets) and returns how many count; what
    /// stands after them is arbitrary.
    fn put(self, out: &mut [u8]) -> usize;
}

impl<P: Prefix> Destination for P {
    type Prefix = P;
    const ROOM: usize = 1 + P::BITS as usize / 8;
    const PATHS: bool = false;

    fn new(prefix: P, _path: u32) -> Self {
        prefix
    }

    fn put(self, out: &mut [u8]) -> usize {
        self.write(out)
    }
}

/// A prefix in a session with ADD-PATH (RFC 7911 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path<P> {
    /// The destination.
    pub prefix: P,
    /// Which of the paths to it.
    pub id: u32,
}

impl<P: Prefix> Destination for Path<P> {
    type Prefix = P;
    const ROOM: usize = 4 + P::ROOM;
    const PATHS: bool = true;

    fn new(prefix: P, id: u32) -> Self {
        Self { prefix, id }
    }

    fn put(self, out: &mut [u8]) -> usize {
        out[..4].copy_from_slice(&self.id.to_be_bytes());
        4 + self.prefix.write(&mut out[4..])
    }
}

/// Prefixes of one family in a received message, checked, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nlri<'a> {
    family: Family,
    add_path: bool,
    octets: &'a [u8],
    count: usize,
}

impl<'a> Nlri<'a> {
    /// No prefixes.
    pub const fn empty(family: Family) -> Self {
        Self { family, add_path: false, octets: &[], count: 0 }
    }

    /// Checks every prefix; the error is the offset in `octets` of the first that is cut short or too long.
    #[inline]
    pub fn check(family: Family, add_path: bool, octets: &'a [u8]) -> Result<Self, usize> {
        let longest = match family {
            Family::Ipv4Unicast => Ipv4Net::BITS,
            Family::Ipv6Unicast => Ipv6Net::BITS,
        };
        let path_id = if add_path { 4 } else { 0 };
        let (mut at, mut count) = (0, 0);
        // Mostly there is one.
        if let Some(length) = octets.get(path_id)
            && *length <= longest
            && path_id + 1 + octets_of(*length) == octets.len()
        {
            return Ok(Self { family, add_path, octets, count: 1 });
        }
        while at < octets.len() {
            let length = *octets.get(at + path_id).ok_or(at)?;
            if length > longest {
                return Err(at);
            }
            let step = path_id + 1 + octets_of(length);
            // Neighbours mostly have the same length; as long as they do, no step waits for a length to be loaded.
            loop {
                if octets.len() - at < step {
                    return Err(at);
                }
                (at, count) = (at + step, count + 1);
                if octets.get(at + path_id) != Some(&length) {
                    break;
                }
            }
        }
        Ok(Self { family, add_path, octets, count })
    }

    /// The family of the prefixes.
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Prefixes with their path identifiers (0 without ADD-PATH), in the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = (u32, IpNet)> + use<'a> {
        let v4 = self.v4().map(|(path, prefix)| (path, IpNet::V4(prefix)));
        v4.chain(self.v6().map(|(path, prefix)| (path, IpNet::V6(prefix))))
    }

    /// The IPv4 prefixes, like [`Nlri::iter`]; none where the family is another.
    pub fn v4(&self) -> Prefixes<'a, Ipv4Net> {
        Prefixes::new(self)
    }

    /// The IPv6 prefixes, like [`Nlri::iter`]; none where the family is another.
    pub fn v6(&self) -> Prefixes<'a, Ipv6Net> {
        Prefixes::new(self)
    }
}

/// Walks checked octets.
#[derive(Debug, Clone)]
pub struct Prefixes<'a, P> {
    octets: &'a [u8],
    add_path: bool,
    /// The length of the last prefix and its octets, which are mostly those of the next one too.
    length: u8,
    step: usize,
    prefix: PhantomData<P>,
}

impl<'a, P: Prefix> Prefixes<'a, P> {
    fn new(nlri: &Nlri<'a>) -> Self {
        let octets = if nlri.family == P::FAMILY { nlri.octets } else { &[] };
        let length = octets.get(if nlri.add_path { 4 } else { 0 }).copied().unwrap_or(0);
        Self { octets, add_path: nlri.add_path, length, step: octets_of(length), prefix: PhantomData }
    }

    #[cold]
    fn change(&mut self, length: u8) {
        (self.length, self.step) = (length, octets_of(length));
    }
}

impl<P: Prefix> Iterator for Prefixes<'_, P> {
    type Item = (u32, P);

    #[inline]
    fn next(&mut self) -> Option<(u32, P)> {
        let mut path = 0;
        if self.add_path {
            let (id, rest) = self.octets.split_first_chunk()?;
            path = u32::from_be_bytes(*id);
            self.octets = rest;
        }
        let (length, rest) = self.octets.split_first()?;
        if *length != self.length {
            self.change(*length);
        }
        let prefix = P::read(self.length, rest);
        self.octets = rest.get(self.step..)?;
        Some((path, prefix))
    }
}

/// How many octets an address of so many bits has.
const fn octets_of(length: u8) -> usize {
    (length as usize).div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(family: Family, add_path: bool, octets: &[u8]) -> Vec<(u32, String)> {
        let nlri = Nlri::check(family, add_path, octets).expect("valid");
        let list: Vec<_> = nlri.iter().map(|(id, p)| (id, p.to_string())).collect();
        assert_eq!(list.len(), nlri.len());
        list
    }

    #[test]
    fn bits_beyond_the_length_are_ignored() {
        assert_eq!(
            prefixes(Family::Ipv4Unicast, false, &[20, 10, 1, 0xFF, 0]),
            [(0, "10.1.240.0/20".into()), (0, "0.0.0.0/0".into())]
        );
        assert_eq!(prefixes(Family::Ipv6Unicast, false, &[9, 0x20, 0xFF]), [(0, "2080::/9".into())]);
    }

    #[test]
    fn path_identifiers_stand_before_each_prefix() {
        assert_eq!(prefixes(Family::Ipv4Unicast, true, &[0, 0, 0, 7, 8, 10]), [(7, "10.0.0.0/8".into())]);
    }

    #[test]
    fn damaged_prefix_is_told_with_its_offset() {
        assert_eq!(Nlri::check(Family::Ipv4Unicast, false, &[8, 10, 33, 1, 1, 1, 1, 1]), Err(2));
        assert_eq!(Nlri::check(Family::Ipv6Unicast, false, &[129]), Err(0));
        assert_eq!(Nlri::check(Family::Ipv4Unicast, false, &[8, 10, 24, 1, 1]), Err(2));
        assert_eq!(Nlri::check(Family::Ipv4Unicast, true, &[0, 0, 0]), Err(0));
    }

    #[test]
    fn written_prefix_reads_back() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/25", "192.0.2.1/32"] {
            let prefix: Ipv4Net = text.parse().expect("valid");
            let mut out = [0xAA; Ipv4Net::ROOM];
            let length = prefix.write(&mut out);
            assert_eq!(prefixes(Family::Ipv4Unicast, false, &out[..length]), [(0, text.into())]);
        }
    }
}
